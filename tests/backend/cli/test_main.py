"""The command line `clearclip-backend`, and what has to be so before torch is loaded."""

import json
import os
import subprocess
import sys
from pathlib import Path
from unittest.mock import Mock

import pytest
from click.testing import CliRunner

from backend.cli import main as cli
from backend.inference.engine import Engine
from backend.label_studio.client import LabelStudioClient
from tests.backend.fakes.colour_segmenter import brush_config
from tests.backend.fakes.label_studio import TOKEN, FakeStudio

#: Asks each command and each of its own commands for its help; then runs the commands given, which
#: are refused. None of that may import torch.
WITHOUT_TORCH = """
import json, sys
from click import Context, Group
from click.testing import CliRunner
from backend.cli.main import main

def show(command, path):
    context = Context(command, info_name=path)
    assert len(command.get_help(context)) > 100, path
    assert "torch" not in sys.modules, f"{path} --help imports torch"
    names = command.list_commands(context) if isinstance(command, Group) else []
    return 1 + sum(show(command.get_command(context, name), f"{path} {name}") for name in names)

print(show(main, "clearclip-backend"))
runner = CliRunner(env=dict.fromkeys(("LABEL_STUDIO_URL", "LABEL_STUDIO_API_KEY")))
for arguments in json.loads(sys.argv[1]):
    said = runner.invoke(main, arguments).output
    assert ": set LABEL_STUDIO_URL and LABEL_STUDIO_API_KEY." in said, (arguments, said)
    assert "torch" not in sys.modules, f"{arguments} imports torch"
"""

#: The commands that do nothing without a token for Label Studio.
NEED_A_TOKEN = (
    "prelabel --project 7",
    "prelabel --project 7 --engine ray",
    "withdraw --job 7",
    "run eval --project 7",
    "run words --project 7",
    "run label-errors --project 7",
    "run agreement --project 7",
    "run models --project 7",
    "adapt step --project 7",
    "dataset --project 7 --format coco --to .",
    "import-masks --project 7 --from .",
)


def test_neither_help_nor_a_refusal_imports_torch_which_takes_seconds() -> None:
    commands = json.dumps([command.split() for command in NEED_A_TOKEN])
    ran = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, commands],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert int(ran.stdout) > len(cli.BACKEND_COMMANDS)


@pytest.mark.parametrize(
    ("module", "command"), [("backend.__main__", "serve"), ("clearclip_core.cli.main", "segment")]
)
def test_waiting_threads_sleep(module: str, command: str) -> None:
    code = (
        f"import os, sys, {module} as entry\n"
        f"sys.argv = ['clearclip', {command!r}, '--help']\n"
        "try:\n    entry.main()\nexcept SystemExit:\n    print(os.environ['OMP_WAIT_POLICY'])"
    )
    bare = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    ran = subprocess.run([sys.executable, "-c", code], env=bare, capture_output=True, check=True)
    assert ran.stdout.split()[-1] == b"PASSIVE"


@pytest.fixture
def demo_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weights are there."""
    monkeypatch.setenv("MODEL", "demo")


@pytest.mark.usefixtures("demo_model")
@pytest.mark.parametrize(
    ("command", "token", "project", "sentence"),
    [
        ("prelabel", "cd" * 20, "7", "answers HTTP 401: check LABEL_STUDIO_API_KEY"),
        ("prelabel", TOKEN, "8", "answers HTTP 404: there is no such project"),
        ("adapt step", TOKEN, "8", "answers HTTP 404: there is no such project"),
    ],
)
def test_what_label_studio_refuses_is_said_before_the_model_is_loaded(
    monkeypatch: pytest.MonkeyPatch, command: str, token: str, project: str, sentence: str
) -> None:
    entered: list[Engine] = []
    monkeypatch.setattr(Engine, "__enter__", entered.append)
    with FakeStudio(brush_config("red"), {1: {"image": "1.png"}}).served() as server:
        monkeypatch.setenv("LABEL_STUDIO_URL", server.url)
        monkeypatch.setenv("LABEL_STUDIO_API_KEY", token)
        result = CliRunner().invoke(cli.main, [*command.split(), "--project", project])
    assert (result.exit_code, entered) == (1, [])
    assert sentence in result.output


@pytest.mark.usefixtures("demo_model")
def test_nothing_is_loaded_while_label_studio_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    """Label Studio is asked once."""
    load = Mock(side_effect=ValueError("The model would be loaded now."))
    monkeypatch.setattr(Engine, "__enter__", load)
    defaults = LabelStudioClient.__init__.__kwdefaults__
    monkeypatch.setitem(defaults, "retry_for_s", 0.0)
    monkeypatch.setenv("LABEL_STUDIO_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", TOKEN)
    for command in ("prelabel", "adapt step", "dataset --to /tmp/never"):
        done = CliRunner().invoke(cli.main, [*command.split(), "--project", "7"])
        assert done.exit_code == 1
        assert "Label Studio at http://127.0.0.1:1 cannot be reached" in done.output
