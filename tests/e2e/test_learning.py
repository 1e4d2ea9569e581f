"""Projects learn from corrections, and from pictures that nobody has corrected.

Corrections and new tasks are found by asking for them: Label Studio may call no webhook here.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from playwright.sync_api import Page, expect

from backend.cli import demo, demo_servers
from backend.cli.demo_servers import LabelStudioProcess
from clearclip_core import SCENE_LABELS, render_scene
from tests.backend.fakes.local_server import free_port
from tests.backend.fakes.waiting import wait_for
from tests.e2e.conftest import MODEL
from tests.e2e.editor import erase_a_little, keep_picture, open_task, submit, visit
from tests.e2e.masks import Mask, brush_region, decode, iou, labelled, masks_of, scene_seed
from tests.e2e.servers import get, sdk

#: Label of the scenes -> name of the label in the project.
CALLED = {name: name for name in ("sky", "mountain", "grass", "house")}
CALLED |= {"tree": "vegetation", "road": "lane"}
CORRECTED = 11
SEEDS = [10_000_600 + number for number in range(18)]

Region = dict[str, Any]


def true_masks(image: str) -> dict[str, Mask]:
    label_map = render_scene(scene_seed(image)).label_map
    masks = {label: label_map == SCENE_LABELS.index(name) for name, label in CALLED.items()}
    return {label: mask for label, mask in masks.items() if mask.any()}


def mean_iou(pairs: Iterable[tuple[Mapping[str, Mask], Mapping[str, Mask]]]) -> dict[str, float]:
    """Return label -> IoU over all (predicted, true) pairs of masks together."""
    shared, either = dict.fromkeys(CALLED.values(), 0), dict.fromkeys(CALLED.values(), 0)
    for predicted, true in pairs:
        nothing = np.zeros_like(next(iter(true.values())))
        for label in CALLED.values():
            a, b = predicted.get(label, nothing), true.get(label, nothing)
            shared[label] += int((a & b).sum())
            either[label] += int((a | b).sum())
    return {label: shared[label] / either[label] for label in shared if either[label]}


def corrected(
    predicted: list[Region], true: Mapping[str, Mask], kept_above: float = 0.97
) -> list[Region]:
    """Return regions as an annotator corrects them: some kept, changed or removed, some added."""
    by_label = dict(labelled(predicted))
    left = []
    for label, mask in true.items():
        before = by_label.get(label)
        if before is not None and iou(decode(before), mask) > kept_above:
            left.append(before | {"origin": "prediction"})
            continue
        value = brush_region(mask, label)["value"]
        origin = "manual" if before is None else "prediction-changed"
        template = before or labelled(predicted)[0][1] | {"id": f"hand-{label}"}
        left.append(template | {"value": value, "origin": origin})
    return left


class Team:
    """A project and its backend, with queries to Label Studio and the backend."""

    def __init__(self, studio: LabelStudioProcess, project: int, backend_url: str) -> None:
        self.studio, self.project, self.url = studio, project, backend_url
        self.config = sdk(studio).projects.get(id=project).label_config
        tasks = sdk(studio).tasks.list(project=project)
        self.images = {task.id: task.data["image"] for task in tasks}
        self.tasks = sorted(self.images)

    def version(self) -> str:
        body = {"project": f"{self.project}.1", "schema": self.config, "hostname": self.studio.url}
        answer = requests.post(f"{self.url}/setup", json=body, timeout=60)
        return str(answer.json()["model_version"])

    @property
    def learning(self) -> str:
        return f"{self.url}/projects/{self.project}/learning"

    def learned(self) -> dict[str, Any]:
        told: dict[str, Any] = requests.get(self.learning, timeout=60).json()
        return told

    def report(self) -> dict[str, Any]:
        path = f"{self.url}/projects/{self.project}/report.json"
        answer = requests.get(path, timeout=60)
        if answer.status_code == 503:  # busy: it is asked again
            return {"annotations": {"compared": 0}}
        assert answer.ok, f"{answer.status_code}: {answer.text}"
        told: dict[str, Any] = answer.json()
        return told

    def retrieve(self, tasks: list[int]) -> None:
        self.studio.post(
            f"/api/dm/actions?id=retrieve_tasks_predictions&project={self.project}",
            json={"selectedItems": {"all": False, "included": tasks}},
        )

    def predictions(self, version: str) -> dict[int, Any]:
        """Return task -> its only prediction of a version."""
        found = [
            each
            for each in sdk(self.studio).predictions.list(project=self.project)
            if each.model_version == version
        ]
        assert len({each.task for each in found}) == len(found)
        return {each.task: each for each in found}

    def shown(self, task: int) -> set[str]:
        """Return the versions of the predictions that Label Studio shows an annotator."""
        answer = self.studio.post(
            f"/api/dm/actions?id=next_task&project={self.project}",
            json={"selectedItems": {"all": False, "included": [task]}},
        )
        assert answer["id"] == task
        return {each["model_version"] for each in answer["predictions"]}

    def quality(self, version: str, tasks: Iterable[int]) -> dict[str, float]:
        stored = self.predictions(version)
        return mean_iou((masks_of(stored[e].result), true_masks(self.images[e])) for e in tasks)

    def correct(
        self, task: int, predicted: Any, lead_time_s: float = 20.0, kept_above: float = 0.97
    ) -> int:
        made = sdk(self.studio).annotations.create(
            id=task,
            result=corrected(predicted.result, true_masks(self.images[task]), kept_above),
            parent_prediction=predicted.id,
            lead_time=lead_time_s,
        )
        return int(made.id or 0)

    def exported(self) -> list[dict[str, Any]]:
        path = f"/api/projects/{self.project}/export?exportType=JSON"
        tasks = get(self.studio, path).json()
        return [annotation for task in tasks for annotation in task["annotations"]]


def test_corrections_are_measured_learned_from_shown_as_pictures_and_forgotten(
    page: Page,
    studio: LabelStudioProcess,
    backend_url: str,
    new_project: Callable[..., int],
    tmp_path: Path,
) -> None:
    project = new_project(list(CALLED.values()), seeds=SEEDS)
    demo.connect(studio, project, backend_url)
    demo.retrieve_predictions(studio, project)
    team = Team(studio, project, backend_url)
    done, rest = team.tasks[:CORRECTED], team.tasks[CORRECTED:]
    words = team.version()
    first = team.predictions(words)
    assert sorted(first) == team.tasks

    open_task(page, studio, project, done[0])
    masks = masks_of(first[done[0]].result)
    largest = max(masks, key=lambda label: masks[label].sum())
    erase_a_little(page, largest, masks[largest])
    submit(page, done[0])
    for number, task in enumerate(done[1:]):
        team.correct(task, first[task], 20.0 + number)
    wait_for(lambda: team.report()["annotations"]["compared"] == CORRECTED, "the last correction")

    wait_for(lambda: team.learned()["waits"], "a version that waits")
    assert team.version() == words, "somebody has to look at the first one"
    visit(page, team.learning)
    page.get_by_role("button", name=re.compile("^Use version")).click()
    wait_for(lambda: team.version() != words, "a version that has learned")
    assert not team.learned()["pinned"], "the next ones go live by themselves"
    learned = team.version()
    assert learned.startswith("demo clearclip ")
    made_of, number = learned.rpartition(" +")[2].split(" v")
    assert int(made_of) in (CORRECTED - 1, CORRECTED)
    assert int(number) >= 1
    team.correct(rest[-1], first[rest[-1]])
    team.retrieve(rest)
    before, after = team.quality(words, rest), team.quality(learned, rest)
    print(f"IoU with the words alone: {before}; with {learned}: {after}")
    assert np.mean(list(after.values())) > np.mean(list(before.values())) + 0.05
    for unknown in ("vegetation", "lane"):
        assert before[unknown] < 0.2 < 0.3 < after[unknown]
    assert team.shown(rest[0]) == {learned}
    check_before_and_after(page, team, tmp_path)
    check_next(page, team, rest[:-1])
    decide(page, team)

    for annotation in team.exported():
        sdk(studio).annotations.delete(id=annotation["id"])
    wait_for(lambda: team.report()["annotations"]["compared"] == 0, "the last deletion")
    wait_for(lambda: team.version() == words, "the version of the words")
    assert team.shown(rest[0]) == {words}
    assert team.predictions(words)[rest[0]].id == first[rest[0]].id, "it is still there"
    task = {"id": rest[0], "project": project, "data": {"image": team.images[rest[0]]}}
    body = {"tasks": [task], "label_config": team.config, "project": f"{project}.1"}
    (again,) = requests.post(f"{backend_url}/predict", json=body, timeout=100).json()["results"]
    assert again["model_version"] == words
    assert again["result"] == first[rest[0]].result
    assert again["score"] == pytest.approx(first[rest[0]].score)


def check_before_and_after(page: Page, team: Team, tmp_path: Path) -> None:
    """Open the page of the version that is live: six pictures, drawn four times each."""
    visit(page, team.learning)
    expect(page.locator(".compared")).to_have_count(6)
    drawn = page.locator(".compared img")
    widths = drawn.evaluate_all("all => all.map(image => image.naturalWidth)")
    assert widths == [320] * 24
    first = drawn.first
    masked = first.get_attribute("src")
    page.keyboard.press("p")
    expect(first).to_have_attribute("src", re.compile("plain=1"))
    expect(first).to_have_js_property("naturalWidth", 480)
    page.keyboard.press("p")
    expect(first).to_have_attribute("src", str(masked))
    words, version = (
        [float(text.split()[0]) for text in page.locator(f".compared {which} b").all_inner_texts()]
        for which in ("figure:nth-child(2)", "figure:nth-child(3)")
    )
    assert np.mean(version[::2]) < np.mean(words[::2]) - 5, "less is left to paint"
    for label in CALLED.values():
        expect(page.locator(".legend")).to_contain_text(label)
    unknown = page.locator("#learned a[href*=words]")
    assert sorted(unknown.all_inner_texts()) == ["lane", "vegetation"]
    keep_picture(page, "learning.png", tmp_path, (1280, 1295))
    visit(page, f"{team.url}/projects/{team.project}")
    expect(page.locator("#changes img")).to_have_count(3)
    keep_picture(page, "project.png", tmp_path, (1280, 716))
    visit(page, team.learning)


def check_next(page: Page, team: Team, waiting: list[int]) -> None:
    """See on the open page which pictures the newest correction would change, and open one."""
    expect(page.locator("#next-pictures img").first).to_be_visible(timeout=120_000)
    link = page.locator("#next-pictures figcaption a").first
    assert int((link.get_attribute("href") or "").partition("?task=")[2]) in waiting
    link.click()
    expect(page.locator(".konvajs-content canvas").first).to_be_visible(timeout=60_000)
    visit(page, team.learning)


def decide(page: Page, team: Team) -> None:
    """Where the project wants to be asked: leave a label to its words, use that, and go back."""
    asks = team.config.replace("<Labels", '<Labels adapt="ask"')
    sdk(team.studio).projects.update(id=team.project, label_config=asks)
    first = team.learned()["versions"][0]
    page.get_by_label("Leave a label to its words").select_option("lane")
    page.get_by_role("button", name="Keep the words").click()
    wait_for(lambda: team.learned()["waits"], "a version that waits")
    newest = team.learned()["versions"][0]
    assert newest["number"] == first["number"] + 1
    assert newest["adapted_ious"]["lane"] < first["adapted_ious"]["lane"]
    assert team.version().endswith(f" v{first['number']}")
    visit(page, team.learning)
    expect(page.get_by_role("row", name="lane")).to_contain_text("keeps its words")
    page.get_by_role("button", name=f"Use version {newest['number']}").click()
    expect(page.get_by_text(f"version {newest['number']} in use")).to_be_visible()
    assert not team.learned()["pinned"]
    wait_for(lambda: team.version().endswith(f" v{newest['number']}"), "the new version")
    page.once("dialog", lambda dialog: dialog.accept())
    page.get_by_role("row", name=re.compile(rf"^v{first['number']}\b")).get_by_role(
        "button"
    ).click()
    expect(page.get_by_text(f"version {first['number']} in use")).to_be_visible()
    wait_for(lambda: team.version().endswith(f" v{first['number']}"), "the version before")


@pytest.fixture
def served(
    studio: LabelStudioProcess, tmp_path: Path
) -> Callable[..., AbstractContextManager[Team]]:
    """Serve a backend of one's own for a project, each time anew at the same address."""
    port, log = free_port(), tmp_path / "backend.log"

    @contextmanager
    def serve(project: int, **variables: str) -> Iterator[Team]:
        variables = {"POLL_INTERVAL_S": "1", **variables}
        options: Any = {"port": port, "log": log, "variables": variables}
        with demo_servers.served_backend(studio, model=MODEL, **options) as url:
            yield Team(studio, project, url)

    return serve


@pytest.mark.thorough
def test_annotations_and_new_tasks_are_found(
    studio: LabelStudioProcess,
    new_project: Callable[..., int],
    served: Callable[..., AbstractContextManager[Team]],
) -> None:
    settings = {"ADAPT_EVERY": "3", "AUTO_PRELABEL": "all"}
    project = new_project(list(CALLED.values()), seeds=SEEDS[:6])
    with served(project, **settings) as team:
        demo.connect(studio, project, team.url)
        assert sdk(studio).webhooks.list(project=str(project)) == []
        demo.retrieve_predictions(studio, project)
        predicted = team.predictions(team.version())

        def compared() -> int:
            return int(team.report()["annotations"]["compared"])

        made = [team.correct(task, predicted[task]) for task in team.tasks[:4]]
        wait_for(lambda: compared() == 4, "the last annotation")
        wait_for(lambda: bool(team.learned()["versions"]), "a version")

        sdk(studio).annotations.delete(id=made[0])
        studio.post(f"/api/annotations/{made[1]}/convert-to-draft")
        wait_for(lambda: compared() == 2, "the deletion, or the draft")

        demo.upload(studio, project, [demo.scene_file(10_000_900)])
        new = max(int(task.id) for task in sdk(studio).tasks.list(project=project))
        wait_for(lambda: bool(sdk(studio).predictions.list(task=new)), "the new prediction")

    for task in team.tasks[4:6]:
        team.correct(task, predicted[task])
    sdk(studio).tasks.delete(id=str(team.tasks[2]))
    with served(project, **settings):
        wait_for(lambda: compared() == 3, "what happened while the backend was away")
        status = requests.get(f"{team.url}/status", timeout=60).json()["connection"]
        polled = {each["project"]: each["trouble"] for each in status["polled"]}
        assert polled[project] == ""


def predicted_team(
    studio: LabelStudioProcess, backend_url: str, new_project: Callable[..., int]
) -> Team:
    """Connect a new project with a dozen scenes more than others have, and let words predict it."""
    seeds = [*SEEDS, *range(SEEDS[-1] + 1, SEEDS[-1] + 13)]
    project = new_project(list(CALLED.values()), seeds=seeds)
    demo.connect(studio, project, backend_url)
    demo.retrieve_predictions(studio, project)
    return Team(studio, project, backend_url)


@pytest.mark.thorough
def test_it_learns_from_unlabelled_pictures_is_used_judged_and_replaced(
    page: Page, studio: LabelStudioProcess, backend_url: str, new_project: Callable[..., int]
) -> None:
    team = predicted_team(studio, backend_url, new_project)
    words, done, rest = team.version(), team.tasks[:CORRECTED], team.tasks[CORRECTED : len(SEEDS)]

    visit(page, team.learning)
    page.get_by_role("button", name="Learn from unlabelled pictures").click()
    wait_for(lambda: team.learned()["waits"], "a version that waits")
    assert team.version() == words, "somebody has to look at it"
    visit(page, team.learning)
    expect(page.get_by_text("nobody has corrected one").first).to_be_visible()
    expect(page.locator("#before-after .compared")).to_have_count(6)
    (version,) = team.learned()["versions"]
    assert version["unlabelled"] >= 20
    assert sorted(version["areas"]) == sorted(CALLED.values())
    page.get_by_role("button", name="Use version 1").click()
    wait_for(lambda: team.version().endswith(" +0 v1"), "the version in use")
    team.retrieve(team.tasks)
    used = team.version()
    shown = team.predictions(used)
    before, after = (np.mean([*team.quality(each, rest).values()]) for each in (words, used))
    print(f"mean IoU with the words {before:.3f}, with unlabelled pictures {after:.3f}")

    for task in done:
        result = corrected(shown[task].result, true_masks(team.images[task]))
        known = {"parent_prediction": shown[task].id, "lead_time": 20.0}
        sdk(studio).annotations.create(id=task, result=result, **known)
    wait_for(lambda: team.learned()["waits"] == 2, "a version of corrections")
    newest, first = team.learned()["versions"]
    assert newest["annotations"] >= CORRECTED - 1
    assert newest["unlabelled_gain"] is not None
    assert first["live"] != newest["unlabelled_lost"]
    visit(page, team.learning)
    expect(page.locator("#learned")).to_contain_text("the version from unlabelled pictures has")
    page.get_by_role("button", name="Use version 2").click()
    wait_for(lambda: team.version().endswith(" v2"), "what corrections teach")


@pytest.mark.thorough
def test_what_is_corrected_from_a_version_makes_the_next_one_no_worse(
    page: Page, studio: LabelStudioProcess, backend_url: str, new_project: Callable[..., int]
) -> None:
    """Three generations: the words, ten corrections of their masks, ten of version 1's."""
    team = predicted_team(studio, backend_url, new_project)
    rest = [task for task in team.tasks[2 * CORRECTED :] if true_masks(team.images[task])]
    generations = [team.version()]

    for turn in range(2):
        stored = team.predictions(generations[-1])
        done = team.tasks[turn * CORRECTED : (turn + 1) * CORRECTED]
        for task in done:
            team.correct(task, stored[task], kept_above=0.85)
        if turn == 0:
            wait_for(lambda: team.learned()["waits"], "the first version")
            visit(page, team.learning)
            page.get_by_role("button", name=re.compile("^Use version")).click()
        wait_for(lambda: team.version() not in generations, "a version of these corrections")
        generations.append(team.version())
        team.retrieve(team.tasks[CORRECTED:])

    quality = [np.mean([*team.quality(each, rest).values()]) for each in generations]
    print("mean IoU of three generations:", ", ".join(f"{each:.3f}" for each in quality))
    kept = [each["origin"] for made in team.exported() for each in made["result"]]
    assert "prediction" in kept, "some stood as version 1 showed them"
    assert quality[1] > quality[0] + 0.05
    assert quality[2] >= quality[1] - 0.003
    first, second = (each["annotations"] for each in reversed(team.learned()["versions"][:2]))
    assert first < second
