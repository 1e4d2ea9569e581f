"""Log-odds that a cell belongs to the prompted object, from clicks or from a box.

The weights are those of a logistic regression of the clicked object on these terms, on drawn
scenes, corrected where varying one of them helps on street photographs, whose colours are less
flat. Colours are compared in CIELAB, whose unit is perceptual, and models by their probabilities.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from clearclip_core.prompting.geodesic import STEP, FloatMap
from clearclip_core.prompting.grid import Box, Pixel
from clearclip_core.prompting.prompted_image import PromptedImage

#: Log-odds at the clicked cell itself.
_CLICK = 16.0
#: Log-odds that each further positive click has less: it corrects, so it reaches less far.
_CORRECTION = 1.0
#: Subtracted for each unit of the logarithm of the geodesic distance.
_DISTANCE = 3.4
#: Added for each unit of the logarithm of the label's probability, or of the similarity to the
#: click's classes.
_TEXT = 1.2
#: Added for each unit of the cosine to the click's feature.
_VISUAL = 0.5
#: As `_VISUAL`, where the label's text has no probability at the click.
_VISUAL_WITHOUT_TEXT = 2.0
#: Log-odds for each unit of the logarithm of the quotient of the distances from a negative and
#: from a positive click.
_NEGATIVE = 2.0

#: In a box, log-odds next to its surroundings; they grow with the logarithm of the distance.
_SURROUNDINGS = -1.5
#: In a box, added for each unit of the logarithm of the label's probability. A box says more about
#: the extent than a click does, so the label counts less.
_TEXT_IN_BOX = 0.6
#: A box does not hold a label whose probability is below this in all of its cells.
_LIKELY = 0.1
#: Without the label, cells stand out whose logarithm of the distance from the surroundings is at
#: least this share of the largest.
_SALIENT = 0.6

_LOG_HALF = float(np.log(0.5))


def click_log_odds(
    image: PromptedImage, positive: Sequence[Pixel], negative: Sequence[Pixel]
) -> FloatMap:
    """Compute log-odds from clicks.

    Each negative click has a map of its own, so that a further one can only remove cells.

    Args:
        image: the prompted image.
        positive: at least one pixel.
        negative: pixels.

    Returns:
        (1 + negatives, h, w): the object is where all maps are above 0.
    """
    geodesic, geometry = image.geodesic, image.geometry
    distances = np.stack([geodesic.distance(geometry.cells([pixel])) for pixel in positive])
    log_odds = _positive_log_odds(image, positive, distances)
    near = distances.min(axis=0)
    maps = [log_odds]
    for pixel in negative:
        far = geodesic.distance(geometry.cells([pixel]))
        nearer = _NEGATIVE * np.log((far + STEP) / (near + STEP))
        maps.append(np.minimum(log_odds, nearer))
    return np.stack(maps)


def _positive_log_odds(
    image: PromptedImage, pixels: Sequence[Pixel], distances: FloatMap
) -> FloatMap:
    """Return (h, w): for each cell the largest of the log-odds of all positive clicks."""
    similarity = image.similarity
    text = similarity.log_probability
    clicked = float(text[image.geometry.cells(pixels)].max())
    trust = min(float(np.exp(clicked - _LOG_HALF)), 1.0)  # in the label's text
    by_text = np.minimum(text - min(clicked, _LOG_HALF), -_LOG_HALF)
    by_click = np.stack([similarity.classes(pixel) for pixel in pixels]) - _LOG_HALF
    visual = trust * _VISUAL + (1 - trust) * _VISUAL_WITHOUT_TEXT
    start = np.full(len(pixels), _CLICK - _CORRECTION)
    start[0] = _CLICK
    log_odds = start[:, None, None] - _DISTANCE * np.log1p(distances)
    log_odds += _TEXT * (trust * by_text + (1 - trust) * by_click)
    log_odds += visual * (np.stack([similarity.cosines(pixel) for pixel in pixels]) - 1)
    best: FloatMap = log_odds.max(axis=0)
    return best


def box_log_odds(image: PromptedImage, box: Box) -> Iterator[FloatMap]:
    """Compute log-odds from a box.

    Args:
        image: the prompted image.
        box: rows and columns of pixels of the image.

    Yields:
        (h, w): first those of the label, if the box may hold it; then those of what stands out
        against the surroundings, for a box in which the first ones give an empty mask.
    """
    cells = image.geometry.box_cells(box)
    text = image.similarity.log_probability
    likely = text[cells].max() >= np.log(_LIKELY)
    # A cell of the label outside the box is cut off by it, so it is not its surroundings.
    around = ~cells & (text < _LOG_HALF)
    if likely and around.any():
        apart = np.log1p(image.geodesic.distance(around))
        yield np.asarray(_SURROUNDINGS + apart + _TEXT_IN_BOX * text)
    elif likely or cells.all():
        yield np.asarray(_TEXT_IN_BOX * (text - _LOG_HALF))
    if not cells.all():
        apart = np.log1p(image.geodesic.distance(~cells))
        yield np.asarray(apart - _SALIENT * apart[cells].max())
