"""One press sets a project up: on a stand-in for Label Studio and the real application.

The real Label Studio: `tests/e2e/test_doctor.py`.
"""

import threading
from collections.abc import Callable, Iterator
from html import unescape
from pathlib import Path
from typing import Any

import pytest
import requests
from click.testing import CliRunner, Result
from werkzeug.serving import make_server

from backend import create_app
from backend.cli.connect import connect
from backend.label_studio.label_config_parser import parse_label_config
from backend.runs.checks import CHECKS, Setup
from backend.runs.runner import Runner
from backend.runs.words import WORDS
from backend.services import Services
from backend.settings import load_settings
from backend.web.server import STARTING
from tests.backend.fakes.colour_segmenter import brush_config, colour_engine, data_url, flag
from tests.backend.fakes.label_studio import TOKEN, FakeStudio

Run = Callable[..., Result]


@pytest.fixture
def studio() -> FakeStudio:
    return FakeStudio(brush_config("red"), {11: {"image": data_url(flag("red", "blue"))}})


@pytest.fixture
def services(studio: FakeStudio, tmp_path: Path) -> Iterator[Services]:
    """The parts of a backend that is served beside the stand-in."""
    with studio.served() as server:
        database_url = f"sqlite:///{tmp_path}/backend.db"
        reach = {"label_studio_url": server.url, "label_studio_api_key": TOKEN}
        settings = load_settings(**reach, database_url=database_url, model_dir=str(tmp_path))
        app = make_server("127.0.0.1", 0, create_app(settings, colour_engine()), threaded=True)
        thread = threading.Thread(target=app.serve_forever)
        thread.start()
        yield Services(load_settings(**reach, database_url=database_url, port=app.port))
        app.shutdown()
        thread.join()
        app.server_close()


@pytest.fixture
def run(services: Services) -> Run:
    def run(*arguments: str, answer: str = "") -> Result:
        settings = services.settings
        reach = ["--label-studio-url", str(settings.label_studio_url), "--port", str(settings.port)]
        key = ["--label-studio-api-key", TOKEN]
        return CliRunner().invoke(connect, [*arguments, *reach, *key], input=answer)

    return run


def test_one_press_connects_shows_checks_predicts_and_may_be_repeated(
    studio: FakeStudio, services: Services, run: Run
) -> None:
    done = run("--project", "7", "--uniform", answer="y\n")
    assert done.exit_code == 0, done.output
    assert "reserved" in done.output, "said before people see it in Label Studio"
    (backend,) = studio.backends
    assert backend["url"] == f"http://127.0.0.1:{services.settings.port}"
    assert (backend["is_interactive"], backend["title"]) == (True, studio.shows)
    assert studio.sampling == "Uniform sampling"
    config = parse_label_config(studio.label_config, None)
    assert (config.controls[0].tool, config.prompt_tools) == ("mask-mask", {"box"})
    (job,) = services.store.list_jobs(7)
    (words,) = services.runs.runs(WORDS, 7)
    assert (job.state, words.is_over) == ("queued", False)
    assert "has a prediction of 1 region" in done.output

    again = run("--all", "--url", "http://backend:9090/")
    assert [each["url"] for each in studio.backends] == ["http://backend:9090"], again.output
    assert studio.sampling == "Uniform sampling", "what nobody asks for stays"
    assert len(services.store.list_jobs(7)) == len(services.runs.runs(WORDS, 7)) == 1


def test_a_config_is_changed_after_a_yes_not_when_in_use(studio: FakeStudio, run: Run) -> None:
    before = studio.label_config
    declined = run("--project", "7", answer="n\n")
    assert '<Labels name="mask"' in declined.output
    assert studio.label_config == before
    region = {"type": "brushlabels", "from_name": "mask", "value": {"brushlabels": ["red"]}}
    studio.annotate(11, [region])
    run("--project", "7", "--yes")
    assert studio.label_config == before


def test_a_page_offers_a_config_and_ends_in_checks(studio: FakeStudio, services: Services) -> None:
    here = f"http://127.0.0.1:{services.settings.port}"
    form, before = {"project": 7, "url": "http://backend:9090"}, studio.label_config

    def press(**more: str) -> requests.Response:
        return requests.post(f"{here}/set-up", form | more, headers={"Accept": "text/html"})

    offered = press()
    assert '+  <Rectangle name="box"' in unescape(offered.text)
    assert (studio.backends, studio.label_config) == ([], before), "nothing before an answer"
    kept = press(tools="keep")
    assert (kept.url, studio.label_config) == (f"{here}/projects/7?job=1", before)
    assert "being made" in kept.text
    client = services.client
    assert client is not None
    runner = Runner([CHECKS], services.runs, services.run_parts(client), threading.Event())
    assert runner.run_next()
    shown = requests.get(f"{here}/projects/7?job=1", headers={"Accept": "text/html"}).text
    assert "has a prediction of 1 region" in shown
    assert "address is reserved" in shown, "what connect says"
    assert "being made" not in shown
    press(tools="change")
    assert parse_label_config(studio.label_config, None).asks


def test_what_cannot_be_set_up_is_said(studio: FakeStudio, run: Run) -> None:
    studio.backends.append({"id": 1, "url": "http://another:9090", "title": "SAM", "state": "CO"})
    assert "http://another:9090" in run("--project", "7", "--yes").output
    studio.label_config = "<View/>"
    left = run("--project", "7")
    assert left.exit_code == 1
    assert "It is left as it is" in left.output
    assert "It is left as it is" in run("--all").output
    named = run("--project", "7", "--labels", "red, blue")
    assert "It is left as it is" not in named.output
    config = parse_label_config(studio.label_config, None)
    assert ([label.name for label in config.labels], config.asks) == (["red", "blue"], True)
    run("--project", "7", "--labels", "green")
    assert parse_label_config(studio.label_config, None) == config, "it has labels already"
    away = run("--project", "7", "--port", "1")
    assert away.exit_code == 1


def test_a_backend_that_starts_is_waited_for(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    ask, starting = Setup.ask_backend, [(503, {"error": STARTING})]

    def first_starting(setup: Setup, path: str, *more: Any, **body: Any) -> tuple[int, Any]:
        if path == "/set-up" and starting:
            return starting.pop()
        return ask(setup, path, *more, **body)

    monkeypatch.setattr(Setup, "ask_backend", first_starting)
    done = run("--project", "7", "--yes")
    assert (done.exit_code, starting) == (0, []), done.output
