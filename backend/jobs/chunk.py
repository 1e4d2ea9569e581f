"""Predict a chunk of tasks and write the predictions to Label Studio."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Final

from backend.label_studio.client import LabelStudioClient
from backend.label_studio.requests import Task
from backend.prediction.batches import Outcome

#: The number of tasks that are predicted and written together.
CHUNK: Final = 25

#: The sizes of the first chunks: somebody who looks sees a prediction as soon as there is one.
_FIRST_CHUNKS: Final = (1, 4)

#: How often an image is requested whose host is away.
_TRIES: Final = 3


@dataclass(frozen=True)
class ChunkResult:
    """The result of a chunk.

    Attributes:
        made: the ids of the tasks whose prediction is written.
        failures: task ids and reasons of tasks without a prediction.
        whole: whether no task is left over.
    """

    made: list[int]
    failures: list[tuple[int, str]]
    cursor: int
    whole: bool


def chunk_sizes() -> Iterator[int]:
    """Yield the sizes of a job's chunks.

    >>> from itertools import islice
    >>> list(islice(chunk_sizes(), 4))
    [1, 4, 25, 25]
    """
    return chain(_FIRST_CHUNKS, repeat(CHUNK))


def predict_and_write(
    client: LabelStudioClient,
    project: int,
    version: str,
    tasks: Sequence[Task],
    predict: Callable[[Sequence[Task]], list[Outcome]],
    halt: threading.Event,
) -> ChunkResult:
    """Predict some tasks and write their predictions, in one request.

    Args:
        version: the ``model_version`` of the predictions.
        tasks: one or more. A task is predicted again where the host of its image was away.
        predict: returns one outcome for each task, in their order.
        halt: once it is set, tasks without a prediction are left over.
    """
    ids = [int(task.id or 0) for task in tasks]
    by_id: dict[int, Outcome] = {}
    for _ in range(_TRIES):
        again = [t for t, id_ in zip(tasks, ids, strict=True) if _is_open(by_id.get(id_))]
        if by_id and again and not halt.is_set():
            client.label_config(project)  # waits where Label Studio is away
        made = predict(again)
        by_id |= {int(task.id or 0): each for task, each in zip(again, made, strict=True)}
    entries = {id_: each.entry for id_, each in by_id.items() if isinstance(each.entry, dict)}
    refused = client.write(project, version, entries)
    failures = {id_: each.reason for id_, each in by_id.items() if each.reason} | refused
    left = len(ids) - len(entries.keys() | failures.keys())
    return ChunkResult(
        made=[id_ for id_ in entries if id_ not in refused],
        failures=list(failures.items()),
        cursor=ids[-1],
        whole=not (left and halt.is_set()),
    )


def _is_open(outcome: Outcome | None) -> bool:
    """Return whether a task is to be predicted: for the first time, or after a passing failure."""
    return outcome is None or outcome.may_pass
