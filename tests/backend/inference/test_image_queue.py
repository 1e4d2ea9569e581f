"""The bound of the queue."""

from __future__ import annotations

import pytest

from backend.errors import Busy
from backend.inference.queue import Priority
from tests.backend.inference.scene import (
    BATCH,
    CLICK,
    OPENED,
    Scene,
    eventually,
    widths,
)


def test_a_full_queue_is_said_at_once_to_clicks() -> None:
    scene = Scene(queue_size=1)
    scene.hold()
    scene.ask(1, CLICK)
    with pytest.raises(Busy):
        scene.score(2, CLICK)
    scene.ask(3, BATCH)  # others have room of their own
    scene.release()
    scene.served()
    assert scene.score(2, CLICK).image.shape[1] == 2


@pytest.mark.parametrize("priority", [BATCH, OPENED])
def test_others_wait_for_room_and_all_get_through(priority: Priority) -> None:
    scene = Scene(queue_size=2)
    scene.hold()
    asked = [scene.start(width, priority, width % 3) for width in range(1, 31)]
    assert eventually(lambda: scene.engine.snapshot().waiting[priority] == 2)
    scene.release()
    assert widths(asked) == list(range(1, 31))
    assert sum(map(len, scene.served())) == 30
