"""The command `clearclip-backend serve`."""

import json
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from backend.cli.serve import greet, serve, wait_for_database
from backend.database.database import Database
from backend.settings import Settings

#: What cannot be had, with the sentence that says so.
NOT_TO_BE_HAD = {
    "--method clearclop": "to be one of clip, maskclip",
    "--model ViT-B-16@nowhere/none.pt": "There are no weights at nowhere/none.pt",
    "--model hf-hub:org/repo": "set the model to local-dir:FOLDER",
    "--model ViT-B-16/opnai": "ViT-B-16 has no weights named 'opnai'",
    "--model ViT-B-16/laion2b_s34b_b88k": "clearclip models --download ViT-B-16/laion2b_s34b_b88k",
    "--model demo --method proxyclip": "looks at the features of a second encoder",
    "--model demo --second-model test_vit@nowhere/n.pt": "There are no weights at nowhere/n.pt",
    "--model demo --click-model /nowhere/sam": "There are no weights at /nowhere/sam",
    # The last one: torch is asked which devices there are.
    "--model demo --device cuda:99": "Device 'cuda:99' is not there",
}

SERVE = """
import json, sys
from click.testing import CliRunner
from backend.cli.serve import serve

for arguments, sentence in json.loads(sys.argv[1]).items():
    result = CliRunner().invoke(serve, [*arguments.split(), "--model-dir", sys.argv[2]])
    assert result.exit_code == 1, arguments
    assert result.output.startswith("Error: ") and result.output.count("\\n") == 1, result.output
    assert sentence in result.output, result.output
    assert "torch" not in sys.modules or "--device" in arguments, arguments
"""


def test_a_model_that_cannot_be_had_is_told_at_once(tmp_path: Path) -> None:
    nowhere = {"HTTPS_PROXY": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hub")}
    ran = subprocess.run(
        [sys.executable, "-c", SERVE, json.dumps(NOT_TO_BE_HAD), str(tmp_path)],
        env={**os.environ, **nowhere},
        capture_output=True,
        text=True,
        timeout=120,  # a server would go on
        check=False,
    )
    assert ran.returncode == 0, ran.stderr


def test_the_help_shows_what_many_people_need_and_all_on_request() -> None:
    short, long = (CliRunner().invoke(serve, [each]).output for each in ("--help", "--help-all"))
    for shown in (short, long):
        assert "--label-studio-url" in shown
    assert "--feature-cache-mb" not in short
    assert "--feature-cache-mb" in long


def test_the_greeting_says_where_to_go_and_what_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    greet(Settings(model="demo", host="0.0.0.0", port=9090))
    said = capsys.readouterr().err
    for text in (":9090", "http://localhost:9090", "demo", "no jobs, no report, no learning"):
        assert text in said
    greet(Settings(log_format="json"))
    assert capsys.readouterr().err == ""


def test_it_waits_and_names_reasons_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    in_the_way = tmp_path / "models"
    in_the_way.write_text("a file where the folder should be")

    def mend() -> None:
        while not caplog.records:
            time.sleep(0.01)
        time.sleep(0.1)  # for more tries with the same reason
        in_the_way.unlink()

    mending = threading.Thread(target=mend)
    mending.start()
    with caplog.at_level(logging.ERROR):
        wait_for_database(Database(f"sqlite:///{in_the_way}/clearclip.db"), retry_delay_s=0.01)
    mending.join()
    (record,) = caplog.records
    assert "clearclip.db cannot be written" in record.getMessage()
    assert (in_the_way / "clearclip.db").exists()


def test_a_signal_ends_the_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models").write_text("a file where the folder should be")
    end = "backend.cli.serve.log.error"  # it waits from then on
    monkeypatch.setattr(end, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
    with pytest.raises(SystemExit) as ended:
        wait_for_database(Database(f"sqlite:///{tmp_path}/models/clearclip.db"))
    assert not ended.value.code


def test_a_host_that_is_none_is_named_before_anything_is_loaded() -> None:
    ended = CliRunner().invoke(serve, ["--host", "x86_64-conda-linux-gnu", "--model", "demo"])
    assert ended.exit_code == 1
    assert ended.output.startswith("Error: HOST: x86_64-conda-linux-gnu is no address")
