"""Defines each figure of the report, and how figures are written for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from backend.feedback.annotation_table import AnnotationOrigin

#: Images of a label below which its figures say little.
FEW: Final = 5

#: Model versions that pages and terminals show, the newest; files have all.
MOST_SHOWN_VERSIONS: Final = 50

REPORT_DEFINITIONS: Final[Mapping[str, str]] = {
    "compared": "Annotations that began with a prediction of this backend. Each counts by itself, "
    "also where a task has several. Where the prediction has been deleted since, they keep the "
    "figures that they had then.",
    "pictures": "Pictures of compared annotations in which the label was predicted or is "
    "annotated; in a line of all labels, in which any label was or is. Each counts once for each "
    "annotation.",
    "accepted": "Share of the predicted regions that were submitted with the pixels and the label "
    "that they had.",
    "mean IoU": "Intersection over union of what was predicted and what was left, of all pixels of "
    "a label in a picture together; mean over these pictures. A line of all labels is the mean "
    "over all pairs of a label and a picture. It judges the predictions that annotators were "
    "shown, of whatever model version. What a project has learned is judged on other pictures, "
    "see held-out IoU.",
    "boundary IoU": "The same of the pixels within 2 % of the picture's diagonal of an edge "
    "(Cheng et al., 2021).",
    "saved paint": "1 - (pixels painted + pixels erased) / pixels of the label in the annotations, "
    "over all pictures: 100 % where nothing was left to do, 0 where drawing it from nothing had "
    "been as much, below 0 where the prediction made more work than none.",
    "false": "Predicted regions that were deleted or given another label.",
    "missed": "Regions that the annotator drew, or gave this label in place of another.",
    "relabelled": "Predicted regions that were given another label.",
    "safe score": "The lowest score from which on, of the newest model's corrected masks of a "
    "label, at least 90 % needed no change, with a confidence of 95 % (Clopper-Pearson). A mask "
    "is all that was predicted of a label on a picture, with the lowest score of its regions; it "
    "needed no change where all of them were accepted and none was added. What the model missed "
    "altogether has no score: a safe score tells where to hurry, not what to skip.",
    "seconds": "Median of the time that Label Studio has measured for an annotation (lead_time), "
    "each time to three significant digits: of those that are compared, and of those that began "
    "from nothing. They are of other pictures, and often of other people.",
}

#: The kinds of annotations in words, as the end of a sentence.
ORIGINS_IN_WORDS: Final[Mapping[AnnotationOrigin, str]] = {
    "compared": "began with a prediction of this backend",
    "scratch": "began from nothing",
    "copy": "are copies of another annotation",
    "converted": "are predictions that were made annotations as they are",
    "foreign": "began with a prediction of another model",
    "lost": "began with a prediction that has been deleted",
    "skipped": "were skipped",
    "broken": "could not be read",
}


def in_percent(value: float | None) -> str:
    """Write a share or an IoU in percent, as all pages and terminals do; a dash for None.

    A share below 1 is never written as 100 %.

    >>> in_percent(0.9996), in_percent(1.0), in_percent(-0.255), in_percent(None)
    ('99.9 %', '100.0 %', '-25.5 %', '–')
    """
    if value is None:
        return "–"
    shown = round(100 * value, 1) + 0.0  # no -0
    if value < 1:
        shown = min(shown, 99.9)
    return f"{shown:.1f} %"
