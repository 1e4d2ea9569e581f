"""A bulk run on Ray, on clusters of this machine, against a stand-in for Label Studio's API."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from ray.cluster_utils import Cluster

from backend.cli.prelabel import prelabel as prelabel_command
from backend.database.database import Database
from backend.jobs.job_store import JobStore
from backend.jobs.ray_prelabeler import check_address
from tests.backend.cli.test_prelabel import ROOT, arguments, drawn_studio, each_once
from tests.backend.fakes.local_server import free_port

PATIENCE_S = 300


@contextmanager
def ray_run(folder: Path, url: str, *more: str, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """Start a run on Ray, whose database and output ("out.txt") are in a folder."""
    command = [sys.executable, "-m", "backend", "prelabel"]
    command += arguments(url, folder / "jobs.db", "--engine", "ray", *more)
    with (folder / "out.txt").open("wb") as out:
        run = subprocess.Popen(command, cwd=ROOT, env=os.environ | env, stdout=out, stderr=out)
        try:
            yield run
        finally:
            run.kill()
            run.wait()


@pytest.mark.thorough
def test_a_node_that_is_killed_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    with drawn_studio(120) as (studio, url), ray_cluster(3) as (cluster, env):
        studio.tasks[4] = {"image": "data:image/png;base64,AAAA"}
        studio.annotated = {7}
        with ray_run(tmp_path, url, "--actors", "3", **env) as run:
            while not studio.stored() and run.poll() is None:
                time.sleep(0.01)
            cluster.remove_node(cluster.list_all_nodes()[-1], allow_graceful=False)
            assert run.wait(PATIENCE_S) == 1, (tmp_path / "out.txt").read_text()
        expected = {task: 1 for task in each_once(120) if task not in (4, 7)}
        assert studio.stored() == expected
        without_ray = arguments(url, tmp_path / "jobs.db", "--filter", "all")
        again = CliRunner().invoke(prelabel_command, without_ray)
        assert again.exit_code == 1, again.output
        assert "1 done, 118 skipped, 1 failed of 120" in again.output
        assert studio.stored() == expected | {7: 1}
    _, first = JobStore(Database(f"sqlite:///{tmp_path}/jobs.db")).list_jobs()
    assert (first.state, first.total, first.done, first.failed) == ("done", 119, 118, 1)


@pytest.mark.thorough
def test_a_cluster_that_cannot_load_the_model_says_why(tmp_path: Path) -> None:
    with drawn_studio(2) as (studio, url):
        model = ("--model", f"ViT-B-16@{tmp_path}/none.safetensors")
        with ray_run(tmp_path, url, *model) as run:
            assert run.wait(PATIENCE_S) == 1
        told = (tmp_path / "out.txt").read_text()
        assert "none.safetensors" in told
        assert "Traceback" not in told
        assert studio.stored() == {}


def test_without_a_cluster_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    address = f"127.0.0.1:{free_port()}"
    monkeypatch.setenv("RAY_ADDRESS", address)
    with drawn_studio(2) as (studio, url):
        given = arguments(url, tmp_path / "jobs.db", "--engine", "ray")
        result = CliRunner().invoke(prelabel_command, given)
        assert result.exit_code == 1
        assert f"There is no Ray cluster at {address}: " in result.stderr
        assert studio.stored() == {}


@pytest.mark.parametrize("address", ["", "auto", "local", "cluster"])
def test_an_address_without_a_port_is_left_to_ray(address: str) -> None:
    check_address(address)


def test_without_ray_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.cli.prelabel.importlib.util.find_spec", lambda _: None)
    given = arguments("http://127.0.0.1:9", Path("unused.db"))
    result = CliRunner().invoke(prelabel_command, [*given, "--engine", "ray"])
    assert result.exit_code == 1
    assert ".[ray]" in result.output


_NODE = {"num_cpus": 1, "include_dashboard": False, "node_ip_address": "127.0.0.1"}

#: Else a driver looks for the cluster of 127.0.0.1 at the machine's address in its network. On
#: Windows and macOS this is Ray's default.
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


@contextmanager
def ray_cluster(nodes: int) -> Iterator[tuple[Any, dict[str, str]]]:
    """Start so many nodes of one CPU, the head included; beside them, a command's environment."""
    cluster = Cluster(initialize_head=True, head_node_args=_NODE)
    try:
        for _ in range(nodes - 1):
            cluster.add_node(num_cpus=1, node_ip_address="127.0.0.1")
        yield cluster, {"RAY_ADDRESS": cluster.address, **_LOOPBACK}
    finally:
        cluster.shutdown()
