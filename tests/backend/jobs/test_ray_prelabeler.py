"""A bulk run on a Ray that it starts on this machine, against a stand-in for Label Studio's API."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from backend.cli.prelabel import prelabel as prelabel_command
from backend.database.database import Database
from backend.jobs.job_store import JobStore
from tests.backend.jobs.test_prelabeler import ROOT, arguments, drawn_studio, each_once


def on_ray(url: str, database: Path, *more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "backend", "prelabel", *arguments(url, database, *more)]
    return subprocess.run(
        [*command, "--engine", "ray"], cwd=ROOT, capture_output=True, text=True, timeout=400
    )


def test_actors_predict_what_is_missing_and_write_it_once(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    with drawn_studio(60) as (studio, url):
        studio.tasks[4] = {"image": "data:image/png;base64,AAAA"}
        studio.annotated = {7}
        run = on_ray(url, tmp_path / "jobs.db", "--report", str(report), "--actors", "2")
        assert run.returncode == 1, run.stdout + run.stderr
        expected = {task: 1 for task in each_once(60) if task not in (4, 7)}
        assert studio.stored() == expected
        without_ray = arguments(url, tmp_path / "jobs.db", "--filter", "all")
        again = CliRunner().invoke(prelabel_command, without_ray)
        assert again.exit_code == 1, again.output
        assert "1 done, 58 skipped, 1 failed of 60" in again.output
        assert studio.stored() == expected | {7: 1}
    told = json.loads(report.read_text())
    assert (told["state"], told["total"], told["done"], told["failed"]) == ("done", 59, 58, 1)
    assert [failure["task"] for failure in told["failures"]] == [4]
    assert all(job.over for job in JobStore(Database(f"sqlite:///{tmp_path}/jobs.db")).list_jobs())


def test_a_cluster_that_cannot_load_the_model_says_why(tmp_path: Path) -> None:
    with drawn_studio(2) as (studio, url):
        run = on_ray(url, tmp_path / "jobs.db", "--model", f"ViT-B-16@{tmp_path}/none.safetensors")
        assert run.returncode == 1
        assert "none.safetensors" in run.stderr
        assert "Traceback" not in run.stderr
        assert studio.stored() == {}


def test_without_ray_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("backend.cli.prelabel.importlib.util.find_spec", lambda _: None)
    given = arguments("http://127.0.0.1:9", Path("unused.db"))
    result = CliRunner().invoke(prelabel_command, [*given, "--engine", "ray"])
    assert result.exit_code == 1
    assert ".[ray]" in result.output
