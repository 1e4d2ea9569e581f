"""The same job on a Ray cluster: tasks stream to actors, and each actor holds the model.

Ray is imported where it is asked for only. The nodes need this package, the weights, and a way to
Label Studio; they need no database, since the driver alone keeps the job. What Ray does twice,
because a node was lost, is written once: Label Studio is asked before.
"""

import json
import socket
import threading
from collections.abc import Callable, Sequence
from typing import Any, Final

import msgspec
import numpy as np

from backend.errors import ModelUnavailable
from backend.inference.queue import Priority
from backend.jobs.job_store import Job
from backend.jobs.prelabeler import Prelabeler, chunk_size, predict_and_write
from backend.label_studio.client import LabelStudioClient
from backend.label_studio.task_filter import TaskFilter
from backend.learning.versions import ActiveModel
from backend.prediction.predictor import Predictor

_CONNECT_S: Final = 10.0  # how long the address of a cluster may take to connect, in seconds

#: Makes the client of Label Studio and the predictor of an actor, on the actor's node.
MakeParts = Callable[[], tuple[LabelStudioClient, Predictor]]


class ClusterPrelabeler(Prelabeler):
    """Runs jobs on a Ray cluster; the model need not be loaded here.

    `make_parts` travels to the nodes, with the settings and the token in it. Without an address,
    the cluster is made on this machine; by default it has an actor for each GPU, or else for each
    node.
    """

    def __init__(
        self, make_parts: MakeParts, address: str, actors: int | None, **parts: Any
    ) -> None:
        super().__init__(**parts)
        self._make_parts = make_parts
        self._address = address
        self._actors = actors

    def _walk(self, job: Job, halt: threading.Event, watch: Callable[[Job], None]) -> Job:
        import ray

        tasks = self._store.tasks(job)
        lacking = self._client.ids(job.project, tasks.lacking(job.version))
        ids = [id_ for id_ in lacking if id_ not in tasks.failed]
        if not ids:
            return job

        try:
            for rows in self._spread(job, ids).iter_batches(batch_size=None):
                made: dict[int, float] = {}
                for some in rows["made"]:
                    made |= msgspec.json.decode(some, type=dict[int, float])
                failures: list[tuple[int, str]] = []
                for some in rows["failures"]:
                    failures += msgspec.json.decode(some, type=list[tuple[int, str]])

                job = self._store.advance(job.id, self._owner, done=len(made), failures=failures)
                # the nodes have no database
                self._scope.failures.solve(made)
                self._scores.keep(job.project, job.version, made)
                watch(job)
                if halt.is_set():
                    break
        except ray.exceptions.RayError as error:
            reason = str(error).strip().splitlines()[-1]
            raise ModelUnavailable(f"The Ray cluster has given up: {reason}") from None
        return job

    def _spread(self, job: Job, ids: Sequence[int]) -> Any:
        """A Ray dataset of what becomes of the tasks, made as it is read."""
        import ray

        check_address(self._address)
        quiet = {"log_to_driver": False, "logging_level": "warning"}
        ray.init(self._address or None, ignore_reinit_error=True, **quiet)
        ray.data.DataContext.get_current().enable_progress_bars = False
        gpus = int(ray.cluster_resources().get("GPU", 0))
        actors = self._actors or gpus or sum(node["Alive"] for node in ray.nodes())
        size = chunk_size(len(ids))
        blocks = -(-len(ids) // size)
        config = self._client.config(job.project)
        learned = self._predictor.versions.active_model(config, job.project, keep=job.version)

        references = [ray.put(some) for some in np.array_split(np.array(ids), blocks)]
        return ray.data.from_numpy_refs(references).map_batches(
            Actor,
            fn_constructor_args=(self._make_parts, job.project, job.version, learned),
            batch_size=size,
            compute=ray.data.ActorPoolStrategy(size=min(actors, blocks)),
            num_gpus=min(1.0, gpus / actors) if gpus else None,
            num_cpus=None if gpus else 1,
        )


def check_address(address: str) -> None:
    """Refuse an address ``host:port`` where nothing listens: Ray would try it for ever."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdecimal():
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), _CONNECT_S).close()
    except OSError as error:
        raise ModelUnavailable(f"There is no Ray cluster at {address}: {error}.") from None


class Actor:
    """Holds the model on a node, and predicts and writes the tasks that come in.

    `learned` is as the driver's database has it; for another version than its own nothing is done.
    """

    def __init__(
        self, make_parts: MakeParts, project: int, version: str, learned: ActiveModel | None = None
    ) -> None:
        self._client, self._predictor = make_parts()
        self._project = project
        self._version = version
        config = self._client.config(project)
        self._spec = self._predictor.spec(config, Priority.BATCH, project, learned)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        """Ray's own form: the ids of some tasks -> those predicted and the failures, as JSON."""
        ids = tuple(int(id_) for id_ in batch["data"])
        wanted = TaskFilter(self._version, ids=ids)
        tasks = self._client.tasks(self._project, wanted, size=len(ids))
        if not tasks or self._spec.version != self._version:
            return {"made": ["{}"], "failures": ["[]"]}
        step = predict_and_write(
            self._client,
            self._project,
            self._version,
            tasks,
            lambda some: self._predictor.outcomes(some, self._spec),
            halt=threading.Event(),
        )
        return {"made": [json.dumps(step.made)], "failures": [json.dumps(step.failures)]}
