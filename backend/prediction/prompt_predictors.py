"""Predictors of the pictures that annotators have open, kept from one prompt to the next."""

import threading

import torch
from cachetools import LRUCache

from backend.inference.encoded_image import EncodedImage
from clearclip_core import PromptPredictor, RGBArray, Scores

#: What a predictor takes beside its picture: what is made of that, and distances of clicks.
_OWN_BYTES = 16 << 20


class PromptPredictors:
    """Makes predictors of pictures, and keeps the last ones: the next click is mostly on the same.

    To make a picture of 12 megapixels ready for prompts takes longer than to answer one. Safe to
    share between threads.

    Args:
        most_bytes: of all that are kept, with their pictures; 0 keeps none.
    """

    def __init__(self, most_bytes: int) -> None:
        self._kept: LRUCache[str, PromptPredictor] = LRUCache(most_bytes, _bytes_of)
        self._lock = threading.Lock()

    def of(self, encoded: EncodedImage, rgb: RGBArray, digest: str) -> PromptPredictor:
        """Return a predictor of an image, that of an earlier prompt where nothing has changed.

        Args:
            encoded: the image's features and scores.
            rgb: the image, (H, W, 3) uint8. Another array is another image.
            digest: of the image as it was prepared.
        """
        with self._lock:
            kept = self._kept.get(digest)
        if kept is not None and kept.image is rgb and _are_equal(kept.scores, encoded.scores):
            return kept

        made = PromptPredictor(encoded.features, encoded.scores, rgb)
        if _bytes_of(made) <= self._kept.maxsize:
            with self._lock:
                self._kept[digest] = made
        return made


def _bytes_of(predictor: PromptPredictor) -> int:
    return predictor.image.nbytes + _OWN_BYTES


def _are_equal(one: Scores, other: Scores) -> bool:
    return (
        one.vocabulary == other.vocabulary
        and one.plan == other.plan
        and one.temperature == other.temperature
        and torch.equal(one.cosines, other.cosines)
    )
