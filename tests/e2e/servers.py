"""Ask Label Studio and the backend, and wait for what they do in their own time."""

from collections.abc import Callable
from typing import Any

import requests
from click.testing import CliRunner
from label_studio_sdk.client import LabelStudio

from backend.cli.demo_servers import LabelStudioProcess
from backend.cli.main import main
from tests.backend.fakes.waiting import wait_for


def sdk(studio: LabelStudioProcess) -> LabelStudio:
    return LabelStudio(base_url=studio.url, api_key=studio.token)


def get(studio: LabelStudioProcess, path: str) -> requests.Response:
    headers = {"Authorization": studio.authorization}
    answer = requests.get(studio.url + path, headers=headers, timeout=60)
    answer.raise_for_status()
    return answer


def run_command(studio: LabelStudioProcess, *arguments: object) -> str:
    reach = ["--label-studio-url", studio.url, "--label-studio-api-key", studio.token]
    done = CliRunner().invoke(main, [*map(str, arguments), *reach])
    assert done.exit_code == 0, done.output
    return done.output


def wait_for_json(url: str, is_there: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    told: dict[str, Any] = {}

    def asked() -> bool:
        told.clear()
        answer = requests.get(url, timeout=60)
        told.update(answer.json())
        return answer.ok and is_there(told)

    wait_for(asked, f"what {url} is to say")
    return told


def finished_run(url: str) -> Any:
    told = wait_for_json(url, lambda told: told["run"]["state"] in ("done", "failed"))
    assert told["run"]["state"] == "done", told["run"]["reason"]
    return told["report"]
