"""Pictures that are kept on disk: for how long, and not at all where a setting says so."""

from pathlib import Path

import pytest

from backend.database.database import Database
from backend.database.pictures import NOT_KEPT
from backend.jobs.kept_pictures import KeptPictures
from backend.label_studio.small_images import SmallImages
from backend.learning.compared_images import BeforeAfter, ComparedImage
from backend.learning.next_pictures import NextPicture, NextPictures, NextPictureStore
from backend.learning.versions import VersionStore
from backend.runs.label_errors import LABEL_ERRORS
from backend.runs.run_store import AskedNothing, RunStore
from tests.backend.conftest import Clock
from tests.backend.fakes.learning_stores import LearningStores, adaptation, version_with
from tests.backend.runs.samples import LABEL_ERRORS as REPORT
from tests.backend.runs.samples import PICTURE

DAY_S = 86_400.0
CHANGED = ComparedImage(3, PICTURE, PICTURE, PICTURE, changed=0.25)


class Stores:
    """All that has pictures in a database, one picture or more in each."""

    def __init__(self, database: Database, *, keeps_pictures: bool) -> None:
        self.runs = RunStore(database, "me", keeps_pictures=keeps_pictures)
        self.versions = VersionStore(database, "me", lambda: "model", keeps_pictures=keeps_pictures)
        self.next = NextPictureStore(database, lambda: "model", keeps_pictures=keeps_pictures)
        self._learning = LearningStores(LearningStores.of(database, "me").examples, self.versions)

    def fill(self) -> None:
        self.runs.add_done(LABEL_ERRORS, 7, AskedNothing(), REPORT, created=1.0)
        self._learning.replace_all(1)
        lease, scores = self._learning.lease(), adaptation()
        pictures = BeforeAfter((CHANGED,), {"car": "#ff0000"})
        self.versions.commit(lease, version_with(scores), scores, pictures=pictures)
        found = NextPictures((NextPicture(3, PICTURE, 0.25),))
        self.next.keep(7, found, newest=0, changed=0, took_s=1.0)

    def pictures(self) -> set[str]:
        """Return what pages show as pictures, each once."""
        last = self.runs.last(LABEL_ERRORS, 7)
        assert last is not None
        learned = self.versions.before_after(7, 1).pictures
        changing = self.next.read(7).pictures
        in_runs = [each.preview for each in last[1].suspicions]
        return {*in_runs, *(each.words for each in learned), *(each.picture for each in changing)}


@pytest.fixture
def copies(tmp_path: Path) -> SmallImages:
    return SmallImages(tmp_path / "pictures", days=2)


def test_pictures_of_reports_and_versions_end_after_their_days(
    database: Database, clock: Clock, copies: SmallImages
) -> None:
    stores = Stores(database, keeps_pictures=True)
    stores.fill()
    kept = KeptPictures(copies, [stores.runs, stores.versions, stores.next], 2, clock)
    clock.now += 1.9 * DAY_S
    kept.forget_old()
    assert stores.pictures() == {PICTURE}
    clock.now += 0.2 * DAY_S
    kept.forget_old()
    assert stores.pictures() == {NOT_KEPT}
    last, change = stores.runs.last(LABEL_ERRORS, 7), stores.versions.before_after(7, 1)
    assert last is not None
    assert [each.task for each in last[1].suspicions] == [3, 4], "all else stays"
    assert change.colours == {"car": "#ff0000"}


def test_no_days_keep_no_picture_and_end_those_from_before(
    database: Database, clock: Clock, copies: SmallImages
) -> None:
    Stores(database, keeps_pictures=True).fill()
    stores = Stores(database, keeps_pictures=False)
    clock.now += 1.0
    KeptPictures(copies, [stores.runs, stores.versions, stores.next], 0, clock).forget_old()
    assert stores.pictures() == {NOT_KEPT}


def test_no_days_write_no_picture(database: Database) -> None:
    stores = Stores(database, keeps_pictures=False)
    stores.fill()
    assert stores.pictures() == {NOT_KEPT}
