"""The order of the queue: urgency, then projects in turn."""

import random

from backend.inference.queue import MAX_SKIPS, FairQueue


def test_under_any_load_the_first_of_each_class_is_served_within_a_bound() -> None:
    rng = random.Random(0)
    classes = 3
    queue = FairQueue[int]()
    passed = [0] * classes  # pops since a class with items was served
    waiting = [0] * classes
    for _ in range(5000):
        for priority in rng.choices(range(classes), [6, 1, 1], k=rng.choice([0, 1, 2])):
            queue.push(priority, priority, rng.randrange(3))
            waiting[priority] += 1
        if not queue:
            continue
        served = queue.pop()
        waiting[served] -= 1
        for priority in range(classes):
            idle = priority == served or not waiting[priority]
            passed[priority] = 0 if idle else passed[priority] + 1
        assert max(passed) < MAX_SKIPS + classes


def test_first_stands_before_its_own_project_and_what_is_taken_out_leaves_the_order() -> None:
    queue = FairQueue[str]()
    for item in ("a1", "a2", "b1", "a3", "b2"):
        queue.push(item, 1, item[0])
    queue.push("b0", 1, "b", first=True)
    assert sorted(queue.take(lambda item: item.endswith("1"))) == ["a1", "b1"]
    assert len(queue) == 4
    assert [queue.pop() for _ in range(4)] == ["a2", "b0", "a3", "b2"]
