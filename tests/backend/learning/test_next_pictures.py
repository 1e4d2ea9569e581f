"""When the pictures to correct next are to be found again."""

from pathlib import Path

from backend.database.database import Database
from backend.learning.next_pictures import PAUSE_S, NextPictures, NextPictureStore
from tests.backend.conftest import Clock
from tests.backend.fakes.learning_stores import LearningStores


def test_a_search_that_took_long_rests_long(tmp_path: Path) -> None:
    clock = Clock()
    database = Database(f"sqlite:///{tmp_path}/next.db", clock)
    stores, store = LearningStores.of(database, "me"), NextPictureStore(database, lambda: "model")
    stores.replace_all(1)
    store.keep(7, NextPictures(), newest=0, changed=0, took_s=100.0)
    clock.now += PAUSE_S + 1
    assert stores.versions.lease_search(10) is None
    clock.now += 400
    assert stores.versions.lease_search(10) is not None
    database.close()


def test_projects_take_turns(tmp_path: Path) -> None:
    clock = Clock()
    database = Database(f"sqlite:///{tmp_path}/next.db", clock)
    stores, store = LearningStores.of(database, "me"), NextPictureStore(database, lambda: "model")
    stores.replace_all(1, project=7)
    stores.replace_all(2, project=8)
    searched = []
    for _ in range(2):
        lease = stores.versions.lease_search(10)
        assert lease is not None
        store.keep(lease.project, NextPictures(), newest=0, changed=1, took_s=1.0)
        assert stores.versions.lease_search(10) is None, "not both at once"
        stores.versions.end_search(lease)
        searched.append(lease.project)
        clock.now += PAUSE_S + 1
    assert sorted(searched) == [7, 8]
    assert stores.versions.lease_search(10) is None
    database.close()
