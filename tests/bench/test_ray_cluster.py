"""A bulk run on a Ray cluster of several nodes: throughput, and a node that is killed."""

from __future__ import annotations

import time
from pathlib import Path

from tests.backend.fakes.ray_cluster import ray_cluster
from tests.backend.jobs.test_prelabeler import drawn_studio, each_once
from tests.backend.jobs.test_ray_prelabeler import PATIENCE_S, ray_run
from tests.bench.conftest import Report

COUNT = 1000


def pictures_per_second(nodes: int, folder: Path, kill: bool = False) -> float:
    """Predict a project on a cluster of nodes of one CPU each; of its second half, how fast.

    Args:
        nodes: how many.
        folder: an empty folder.
        kill: whether the last node is killed after a quarter.
    """
    with drawn_studio(COUNT) as (studio, url), ray_cluster(nodes) as (cluster, env):
        with ray_run(folder, url, "--actors", str(nodes), **env) as run:

            def stored(share: float) -> int:
                while len(studio.stored()) < share * COUNT and run.poll() is None:
                    time.sleep(0.02)
                return len(studio.stored())

            stored(0.25)
            if kill:
                cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
            count, begin = stored(0.5), time.perf_counter()
            rate = (stored(1) - count) / (time.perf_counter() - begin)
            assert run.wait(PATIENCE_S) == 0, (folder / "out.txt").read_text()
        assert studio.stored() == each_once(COUNT)
    return rate


def test_several_nodes_and_one_that_is_killed(report: Report, tmp_path: Path) -> None:
    rates = {}
    for name, nodes, kill in (("one", 1, False), ("two", 2, False), ("killed", 3, True)):
        folder = tmp_path / name
        folder.mkdir()
        rates[name] = pictures_per_second(nodes, folder, kill)
    report.add(
        "prelabel on a Ray cluster, two nodes over one, on one machine of two cores",
        "",
        f"{rates['two'] / rates['one']:.2f}×",
        f"{rates['two']:.1f} against {rates['one']:.1f} pictures/s, demo model at 64 px; "
        "the nodes, Ray and the stand-in for Label Studio share the cores",
    )
    report.add(
        "tasks without their one prediction, one of three Ray nodes killed after a quarter",
        "0",
        "0",
        f"of {COUNT}; {rates['killed']:.1f} pictures/s in the second half",
    )
