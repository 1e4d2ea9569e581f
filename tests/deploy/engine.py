"""Run commands of Docker, and the backend's container alone, on a folder of the machine."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path


def run(*command: str, text: str | None = None, cwd: Path | None = None) -> str:
    """Run a command, and return what it prints.

    Raises:
        RuntimeError: it fails; the message has the end of what it printed.
    """
    done = subprocess.run(
        command, cwd=cwd, input=text, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)[:200]}\n{done.stdout[-4000:]}")
    return done.stdout


def on_a_folder_of_root(
    folder: Path, image: str, step: Callable[[str], AbstractContextManager[None]]
) -> None:
    """Start on a folder of root's: the backend says what to do, and waits.

    Args:
        folder: where to make the folder for weights.
        image: the backend's.
        step: times a step by its name.
    """
    models = folder / "models-of-root"
    models.mkdir()
    as_root = ["docker", "run", "--rm", "--network", "none", "--user", "0"]
    as_root += ["--volume", f"{models}:/models", image]
    run(*as_root, "chown", "-R", "0", "/models")
    run(*as_root, "chmod", "-R", "go-w", "/models")
    options = ["--detach", "--network", "none", "--volume", f"{models}:/models"]
    name = run("docker", "run", *options, "--env", "MODEL=demo", image).split()[-1]
    try:
        with step("a models folder that root owns"):
            wait_for_log(name, "chown -R 1000 FOLDER")
            state = run("docker", "inspect", "--format", "{{.State.Running}}", name)
            assert state.strip() == "true", state
            run(*as_root, "chown", "-R", "1000", "/models")
            wait_for_log(name, "The model is ready")
        with step("the database is made once the folder can be written"):
            status = ["docker", "exec", name, "clearclip-backend", "database", "status"]
            assert "up to date" in run(*status)
    finally:
        run("docker", "rm", "--force", "--volumes", name)
        run(*as_root, "chown", "-R", "0", "/models")


def wait_for_log(container: str, words: str, seconds: float = 300) -> None:
    """Wait until a container has logged these words."""
    end = time.monotonic() + seconds
    while words not in (logged := run("docker", "logs", container)):
        assert time.monotonic() < end, logged[-2000:]
        time.sleep(1)
