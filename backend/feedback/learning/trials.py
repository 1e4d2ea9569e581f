"""Values of trials: a version that is live is compared with what was live before it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from clearclip_core.adaptation.sequential_test import is_below_zero

#: Probability that a version which is no worse is rolled back, ever, at most.
LEVEL: Final = 0.05


@dataclass(frozen=True)
class Trial:
    """The version of a project that is live and on trial.

    Attributes:
        number: its number.
        before: number of the version that it is compared with beside the words; None: only these.
        since: when it was found to be live, in seconds since the epoch.
    """

    number: int
    before: int | None
    since: float


@dataclass(frozen=True)
class TrialPicture:
    """A picture on which a live version was compared, corrected since it went live.

    Attributes:
        number: of the version.
        picture: key of the picture, see `clearclip_core.Example.picture_key`.
        annotation: the id of its annotation.
        from_before: mean IoU of the version minus that of the one before, in [-1, 1]; None where
            there was none.
        from_words: mean IoU of the version minus that of the words alone, in [-1, 1].
        at: when it was compared, in seconds since the epoch.
    """

    number: int
    picture: str
    annotation: int
    from_before: float | None
    from_words: float
    at: float = 0.0


@dataclass(frozen=True)
class Rollback:
    """A version that was rolled back because corrections said that it was worse.

    Attributes:
        number: of the version.
        target: number of the version that took its place; None: the words alone.
        pictures: how many pictures it was compared on.
        mean: mean over them of its mean IoU minus that of what took its place, in [-1, 1].
        digest: of its adaptation.
        annotations: ids of the annotations of these pictures.
        at: when, in seconds since the epoch.
    """

    number: int
    target: int | None
    pictures: int
    mean: float
    digest: str
    annotations: tuple[int, ...]
    at: float = 0.0

    @property
    def sentence(self) -> str:
        """Why it was rolled back, in a sentence."""
        other = "the words alone" if self.target is None else f"version {self.target}"
        return (
            f"Version {self.number} was rolled back to {other}: on {self.pictures} pictures that "
            f"were corrected since it went live, its mean IoU was {-100 * self.mean:.1f} points "
            "lower, which is more than chance allows."
        )

    @property
    def facts(self) -> str:
        """The columns that a database keeps together, as JSON; these names stay."""
        return json.dumps(
            {
                "pictures": self.pictures,
                "mean": self.mean,
                "digest": self.digest,
                "annotations": list(self.annotations),
            }
        )

    @classmethod
    def from_facts(cls, number: int, target: int | None, at: float, facts: str) -> Rollback:
        """Read what `facts` has written; the other columns are given."""
        value: Mapping[str, Any] = json.loads(facts)
        return cls(
            number,
            target,
            value["pictures"],
            value["mean"],
            value["digest"],
            tuple(value["annotations"]),
            at,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the JSON of answers; these names stay."""
        return {
            "number": self.number,
            "to": self.target or 0,
            "at": self.at,
            "pictures": self.pictures,
            "mean": self.mean,
            "reason": self.sentence,
        }


def find_rollback(trial: Trial, pictures: Sequence[TrialPicture], digest: str) -> Rollback | None:
    """Return the rollback that the pictures of a trial ask for; None where they ask for none.

    Two sequential tests share `LEVEL`: of this version against the one before, and of all that
    was live against the words alone. The second adds up over versions that follow each other soon.

    Args:
        trial: the version that is live.
        pictures: those of all versions since the words alone were live or a version was rolled
            back, in the order in which they came.
        digest: of the version's adaptation.
    """
    own = [each for each in pictures if each.number == trial.number and each.at >= trial.since]
    level = LEVEL if trial.before is None else LEVEL / 2
    from_before = [each.from_before for each in own if each.from_before is not None]
    if trial.before is not None and is_below_zero(from_before, level):
        return _rollback(trial, trial.before, own, from_before, digest)
    from_words = [each.from_words for each in pictures]
    if is_below_zero(from_words, level):
        return _rollback(trial, None, pictures, from_words, digest)
    return None


def _rollback(
    trial: Trial,
    target: int | None,
    pictures: Sequence[TrialPicture],
    differences: Sequence[float],
    digest: str,
) -> Rollback:
    annotations = tuple(sorted({each.annotation for each in pictures}))
    mean = sum(differences) / len(differences)
    return Rollback(trial.number, target, len(differences), mean, digest, annotations)
