"""Options of scores: what counts beside the cosine of a patch and the best of a label's words."""

from __future__ import annotations

from dataclasses import dataclass

from clearclip_core.segmentation.presence import check_presence


@dataclass(frozen=True)
class ScoreOptions:
    """How an image is scored beside its words; by default as in the paper.

    Attributes:
        presence: weight of the presence prior, in [0, 1), see
            `clearclip_core.segmentation.presence`; 0 for none. It needs features with CLS features,
            and a method that does not weigh classes by them itself.
        join_synonyms: whether a label's prompts are joined by a weighted log-sum-exp, see
            `clearclip_core.segmentation.synonyms`; else its best prompt counts.
        with_cls: compute CLS features though nothing here needs them, so that presence can be
            learned from the image.

    Raises:
        ValueError: a weight outside [0, 1).
    """

    presence: float = 0.0
    join_synonyms: bool = False
    with_cls: bool = False

    def __post_init__(self) -> None:
        check_presence(self.presence)

    @property
    def needs_cls(self) -> bool:
        """Whether features need CLS features."""
        return self.presence > 0 or self.with_cls


#: The scores of the paper.
DEFAULT_OPTIONS = ScoreOptions()
