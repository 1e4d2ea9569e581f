"""The pictures to correct next, as the pages of a project show them."""

from __future__ import annotations

from msgspec import Struct

from backend.errors import ModelUnavailable
from backend.learning.next_pictures import NextPicture, NextPictures
from backend.services import Services
from backend.views.text import ago
from clearclip_core.quantities import quantity


class NextPicturesView(Struct, frozen=True):
    """A strip of pictures, with a sentence; without one, there is nothing to show."""

    sentence: str = ""
    pictures: tuple[NextPicture, ...] = ()
    colours: dict[str, str] = {}  # name of each label that they show -> its colour, as in CSS

    @classmethod
    def read(cls, services: Services, project: int) -> NextPicturesView:
        """Read what was found last; pictures that were annotated since are left out.

        Args:
            services: the parts of this process; no model is loaded.
            project: id of the project.
        """
        try:
            found = services.next_pictures.read(project)
            if not found.pictures:
                return cls(next_sentence(found))
            if not services.learner.versions.state(project).annotations:
                return cls()
        except ModelUnavailable:
            return cls()

        annotated = services.annotations.annotated(project, [e.task for e in found.pictures])
        left = tuple(each for each in found.pictures if each.task not in annotated)
        return cls(next_sentence(found), left, found.colours) if left else cls()


def next_sentence(found: NextPictures) -> str:
    """Say what the pictures to correct next are; "" where no picture was looked at.

    >>> next_sentence(NextPictures(annotations=1, tried=24))
    'What 1 correction teaches changes none of the 24 pictures that were looked at.'
    """
    if not found.tried:
        return ""
    corrections = quantity(found.annotations, "correction")
    verb = "teaches" if found.annotations == 1 else "teach"
    taught = f"What {corrections} {verb}"
    looked_at = quantity(found.tried, "picture")
    if not found.pictures:
        return f"{taught} changes none of the {looked_at} that were looked at."
    return (
        f"{taught} changes these masks the most, of {looked_at} that nobody has annotated "
        f"(found {ago(found.at)}). To correct the first of them helps the most."
    )
