"""The order in which waiting threads get the lock."""

from __future__ import annotations

import threading
import time

from clearclip_core.clip.text_encoder import FairLock


def test_threads_are_served_in_the_order_in_which_they_asked() -> None:
    lock, served = FairLock(), []

    def ask(number: int) -> None:
        with lock:
            served.append(number)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(5)]
    with lock:
        for waiting, thread in enumerate(threads, start=2):
            thread.start()
            while len(lock._queue) < waiting:
                time.sleep(0.001)
    for thread in threads:
        thread.join(timeout=10)
    assert served == [0, 1, 2, 3, 4]
