"""Predictions are judged on the review page, beside the real Label Studio and its editor."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import requests
from label_studio_sdk import Prediction
from playwright.sync_api import Page, expect

from backend.cli import demo, demo_servers
from backend.cli.demo_servers import LabelStudioProcess
from backend.review.verdicts import Reviewed
from tests.backend.fakes.local_server import free_port
from tests.backend.fakes.waiting import wait_for
from tests.e2e.editor import DESK, PHONE, keep_picture, no_complaints, open_task, resize, visit
from tests.e2e.servers import get, run_command, sdk, wait_for_json

LABELS = ["sky", "grass", "tree", "house"]


def annotations(studio: LabelStudioProcess, project: int) -> dict[int, dict[str, Any]]:
    exported = get(studio, f"/api/projects/{project}/export?exportType=JSON").json()
    return {task["id"]: each for task in exported for each in task["annotations"]}


def html(url: str) -> str:
    return requests.get(url, headers={"Accept": "text/html"}, timeout=60).text


def shown(url: str, seat: str) -> list[int]:
    """Return the tasks that another person's page shows."""
    return [int(each) for each in re.findall(r'data-task="(\d+)"', html(f"{url}?seat={seat}"))]


@pytest.mark.thorough
def test_a_page_is_judged_by_keys_and_what_is_corrected_later_is_no_review_any_more(
    page: Page,
    studio: LabelStudioProcess,
    backend_url: str,
    new_project: Callable[..., int],
    tmp_path: Path,
) -> None:
    project = new_project(LABELS, seeds=list(range(20_000, 20_046)))
    demo.connect(studio, project, backend_url)
    demo.retrieve_predictions(studio, project)
    predicted = {each.task: each for each in sdk(studio).predictions.list(project=project)}
    by_score = sorted(predicted, key=lambda task: -predicted[task].score)
    url = f"{backend_url}/projects/{project}/review"

    # ---- a page by keys --------------------------------------------------------------------------
    resize(page, DESK)
    with no_complaints(page, backend_url):
        visit(page, url)
        cards = page.locator("#page .card")
        expect(cards).to_have_count(40)
        expect(page.locator("#ahead .card")).to_have_count(6)
        tasks = [int(str(each.get_attribute("data-task"))) for each in cards.all()]
        assert [predicted[e].score for e in tasks] == [predicted[e].score for e in by_score[:40]]
        assert len(shown(url, "other")) == 6, "two people share the work, what is ahead as well"
        leaves = {"seat": "other", "since": 1.0, "verdicts": [], "next": []}
        requests.post(url, json=leaves, timeout=60)
        size = "each => [each.naturalWidth, each.clientWidth]"
        natural, on_screen = cards.first.locator("img").evaluate(size)
        assert natural >= 2 * on_screen or natural == 480
        is_checked = [
            Reviewed(task, predicted[task].id, "good").is_checked  # type: ignore[arg-type]
            for task in tasks
        ]
        for _ in range(5):
            page.wait_for_timeout(800)
            page.keyboard.press("g")
        page.keyboard.press("w")
        page.keyboard.press("s")
        cards.nth(15).click(modifiers=["Shift"])
        for _ in range(3):
            page.keyboard.press("Shift+ArrowRight")
        page.keyboard.press("g")
        marked = page.locator("#page [data-verdict=good]")
        expect(marked).to_have_count(15)  # a range has ten at most
        keep_picture(page, "review.png", tmp_path, DESK)
        resize(page, PHONE)
        ends = "card => card.getBoundingClientRect().bottom + scrollY"
        assert cards.first.evaluate(ends) < PHONE[1], "a phone shows a picture at once"
        resize(page, DESK)
        expect(page.locator("#page #said")).to_contain_text("23 not marked")
        taken = next(e for e, drawn in zip(tasks[:5], is_checked) if not drawn)  # noqa: B905
        sdk(studio).annotations.create(id=taken, result=[])
        page.keyboard.press("Enter")
        expect(cards).to_have_count(6)
        expect(page.locator("#page #said")).to_contain_text("17 sent. 10 took you less than 0.7 s")

    accepted = [
        task
        for task, is_checked in zip(tasks[:5] + tasks[7:17], is_checked[:5] + is_checked[7:17])  # noqa: B905
        if not is_checked and task != taken
    ]
    wait_for(lambda: len(annotations(studio, project)) > len(accepted), "annotations")
    made = annotations(studio, project)
    assert sorted(made) == sorted([*accepted, taken])
    assert made[taken]["result"] == []
    whoami = get(studio, "/api/current-user/whoami").json()["id"]
    for task in accepted:
        one = made[task]
        assert one["parent_prediction"] == predicted[task].id
        assert (one["completed_by"], one["ground_truth"]) == (whoami, False)
        assert {each["source"] for each in one["result"]} == {"review"}
        kept, shown_ = ([e["value"] for e in r] for r in (one["result"], predicted[task].result))
        assert kept == shown_
        assert (one["lead_time"] > 0.7) == (task in tasks[:5])
    report = f"{backend_url}/projects/{project}/report.json"
    told = wait_for_json(report, lambda told: told["annotations"]["reviewed"] == len(accepted))
    assert told["all"]["annotations"] == 0, "they are in no figure"
    learning = requests.get(f"{backend_url}/projects/{project}/learning", timeout=60).json()
    assert learning["annotations"] == 0

    # ---- what needs work, and a person's correction ----------------------------------------------
    why = "It has an annotation since."
    wait_for(lambda: why in html(page.url), "the annotation that is refused")
    visit(page, page.url)
    expect(page.locator("#page #not-done")).to_contain_text(why)
    page.once("dialog", lambda question: question.accept())
    page.get_by_role("button", name="in Label Studio").click()
    expect(page.locator(".said")).to_contain_text("lists these tasks now, by their numbers")
    links = [str(each.get_attribute("href")) for each in page.locator(".said a").all()]
    view, *worst = [int(link.rpartition("=")[2]) for link in links]
    listed = get(studio, f"/api/tasks?view={view}&project={project}").json()["tasks"]
    checked = [task for task, drawn in zip(tasks, is_checked, strict=True) if drawn]
    to_correct = {tasks[5], *(task for task in checked if task in tasks[:5] + tasks[7:17])}
    assert [each["id"] for each in listed] == sorted(to_correct)
    assert worst == sorted(to_correct, key=lambda each: predicted[each].score)[:8]
    corrected = accepted[-1]
    open_task(page, studio, project, corrected)
    page.locator("[class*=outliner-item]").first.click()
    page.keyboard.press("Backspace")
    with page.expect_response(lambda answer: answer.request.method == "PATCH"):  # and no draft
        page.click("[data-testid=bottombar-update-button]")
    assert "source" not in json.dumps(annotations(studio, project)[corrected]["result"])
    told = wait_for_json(report, lambda told: told["annotations"]["compared"] == 1)
    assert told["annotations"]["reviewed"] == len(accepted) - 1
    assert told["all"]["total"]["false"] == 1
    folder = str(tmp_path / "set")
    run_command(studio, "dataset", "--project", project, "--to", folder, "--without-reviewed")
    report_of_set = json.loads((tmp_path / "set" / "report.json").read_text())
    assert report_of_set["pictures"] == 2  # the one that was corrected, and the one of the editor

    # ---- taken back ------------------------------------------------------------------------------
    seat = {"seat": "b", "since": 1.0}
    rest = [task for task in by_score if task not in tasks]
    good = {"verdict": "good", "seconds": 2}
    verdicts = [{"task": task, "prediction": predicted[task].id} | good for task in rest]
    saved = requests.post(url, json={**seat, "verdicts": verdicts}, timeout=60).json()
    assert saved == {"saved": 6, "others": [], "foreign": [], "too_fast": 0}
    n_checked = sum(Reviewed(each, predicted[each].id, "good").is_checked for each in rest)  # type: ignore[arg-type]
    wanted = len(accepted) + 1 + 6 - n_checked
    wait_for(lambda: len(annotations(studio, project)) == wanted, "annotations of the second page")
    visit(page, f"{url}?seat=b")
    page.get_by_role("button", name="Undo the last page (6)").click()
    expect(page.locator("#page #undone")).to_have_text("6 verdicts are taken back.")
    assert not set(annotations(studio, project)) & set(rest)


def as_checked(studio: LabelStudioProcess, made: Prediction) -> Prediction:
    """Write a prediction again until its number is one of those that the editor gets."""
    while not Reviewed(made.task, made.id, "good").is_checked:  # type: ignore[arg-type]
        same = {"result": made.result, "score": made.score, "model_version": made.model_version}
        sdk(studio).predictions.delete(id=made.id)  # type: ignore[arg-type]
        made = sdk(studio).predictions.create(task=made.task, **same)
    return made


def test_what_the_editor_makes_of_checked_pictures_says_how_far_a_reviewer_can_be_trusted(
    page: Page, studio: LabelStudioProcess, backend_url: str, new_project: Callable[..., int]
) -> None:
    project = new_project(LABELS, seeds=list(range(21_000, 21_004)))
    config = sdk(studio).projects.get(id=project).label_config
    kind = '<Choices name="kind" toName="image" required="true"><Choice value="day"/></Choices>'
    config = config.replace("</View>", f"{kind}</View>")
    sdk(studio).projects.update(id=project, label_config=config)
    demo.connect(studio, project, backend_url)
    demo.retrieve_predictions(studio, project)
    predicted = [*sdk(studio).predictions.list(project=project)]
    url = f"{backend_url}/projects/{project}/review"
    assert "requires “kind” beside the masks" in html(f"{url}?seat=z")
    _, low, high, _ = sorted(each.score for each in predicted)
    slider = f"{url}?seat=z&least={(low + high) / 2}"
    wait_for(lambda: html(slider).count(' data-task="') == 2, "those with a higher score")
    requests.post(url, json={"seat": "z", "since": 1.0, "verdicts": [], "next": []}, timeout=60)

    checked = [as_checked(studio, each) for each in predicted[:3]]
    good = {"verdict": "good", "seconds": 1, "version": predicted[0].model_version}
    verdicts = [{"task": each.task, "prediction": each.id} | good for each in checked]
    requests.post(url, json={"seat": "a", "since": 1.0, "verdicts": verdicts}, timeout=60)
    first, *others = checked
    known = {"parent_prediction": first.id, "lead_time": 20.0}
    sdk(studio).annotations.create(id=first.task, result=first.result, **known)
    for each in others:
        known = {"parent_prediction": each.id, "lead_time": 20.0}
        sdk(studio).annotations.create(id=each.task, result=each.result[2:], **known)
    report = f"{backend_url}/projects/{project}/report.json"
    wait_for_json(report, lambda told: told["annotations"]["compared"] == len(checked))
    visit(page, url)
    share = round(100 / len(checked))
    expect(page.locator("#page #tally tbody")).to_contain_text(f"{share} %")

    # ---- a crop with other labels: the whole picture is looked at first --------------------------
    labels = [str(each) for each in LABELS if json.dumps(each) in json.dumps(predicted[3].result)]
    assert len(labels) > 1
    visit(page, f"{url}?person=Ann&label={labels[0]}")
    page.locator("#page .card img").first.evaluate("each => each.decode()")
    page.keyboard.press("g")
    expect(page.locator("#page #said")).to_contain_text("G accepts it there")
    page.keyboard.press(" ")
    image = page.locator("#large img")
    expect(image).to_be_visible()
    image.evaluate("each => each.decode()")
    page.keyboard.press("g")
    expect(page.locator("#page [data-verdict=good]")).to_have_count(1)
    page.keyboard.press(" ")
    expect(page.locator("#large")).to_be_hidden()
    page.keyboard.press("s")
    page.keyboard.press("Enter")
    expect(page.locator("#page #said")).to_have_text("1 sent.")


@pytest.mark.thorough
def test_a_page_is_taken_back_though_the_backend_is_killed_meanwhile(
    page: Page, studio: LabelStudioProcess, new_project: Callable[..., int], tmp_path: Path
) -> None:
    project = new_project(LABELS, seeds=list(range(22_000, 22_014)))
    port, log = free_port(), tmp_path / "backend.log"
    url = f"http://127.0.0.1:{port}/projects/{project}/review"

    def serve() -> AbstractContextManager[subprocess.Popen[bytes]]:
        return demo_servers.running(
            [sys.executable, "-m", "backend", "serve", "--port", str(port), "--model", "demo"],
            variables={
                "LABEL_STUDIO_URL": studio.url,
                "LABEL_STUDIO_API_KEY": studio.token,
                "DATABASE_URL": f"sqlite:///{tmp_path}/backend.db",
            },
            health=f"http://127.0.0.1:{port}/ready",
            log=log,
            timeout_s=120,
        )

    with serve() as backend:
        demo.connect(studio, project, f"http://127.0.0.1:{port}")
        demo.retrieve_predictions(studio, project)
        predicted = [*sdk(studio).predictions.list(project=project)]
        good = {"verdict": "good", "seconds": 2}
        said = [{"task": each.task, "prediction": each.id} | good for each in predicted]
        requests.post(url, json={"seat": "a", "since": 1.0, "verdicts": said}, timeout=60)
        are_checked = [Reviewed(e.task, e.id, "good").is_checked for e in predicted]  # type: ignore[arg-type]
        accepted = are_checked.count(False)
        assert accepted >= 10
        wait_for(lambda: len(annotations(studio, project)) == accepted, "annotations")
        visit(page, f"{url}?seat=a")
        page.get_by_role("button", name="Undo the last page (14)").click()
        wait_for(lambda: len(annotations(studio, project)) < accepted, "the first that is deleted")
        backend.kill()
        backend.wait()
        assert annotations(studio, project)

    with serve():
        expect(page.locator("#page #undone")).to_have_text("14 verdicts are taken back.")
        assert not annotations(studio, project)
        expect(page.locator("#page .card")).to_have_count(14)


@pytest.mark.thorough
def test_a_large_picture_is_repaired_by_key_and_by_click(
    page: Page,
    studio: LabelStudioProcess,
    backend_url: str,
    new_project: Callable[..., int],
    tmp_path: Path,
) -> None:
    project = new_project(LABELS, seeds=list(range(20_100, 20_103)))
    demo.connect(studio, project, backend_url)
    demo.retrieve_predictions(studio, project)
    predicted = {each.task: each for each in sdk(studio).predictions.list(project=project)}

    resize(page, DESK)
    with no_complaints(page, backend_url):
        visit(page, f"{backend_url}/projects/{project}/review")
        card = page.locator("#page .card").first
        expect(page.locator("#page .card")).to_have_count(3)
        task = int(str(card.get_attribute("data-task")))
        page.keyboard.press(" ")
        told, picture = page.locator("#repaired"), page.locator("#large img")
        expect(picture).to_be_visible()

        # the sky goes by its key, comes back, and goes again
        page.keyboard.press("1")
        expect(told).to_contain_text("1 change.")
        page.keyboard.press("1")
        expect(page.locator("#back")).to_be_disabled()
        page.keyboard.press("1")
        expect(told).to_contain_text("1 change.")

        # a click at the top adds a piece of it; another one is taken back
        page.keyboard.press("Shift+1")
        box = picture.bounding_box()
        assert box is not None
        picture.click(position={"x": box["width"] / 2, "y": box["height"] / 20})
        expect(told).to_contain_text("2 changes.")
        keep_picture(page, "repair.png", tmp_path, DESK)
        at = {"x": box["width"] / 20, "y": box["height"] * 0.9}  # on the grass
        picture.click(position=at, modifiers=["Alt"])  # type: ignore[arg-type]
        expect(told).to_contain_text("3 changes.")
        page.keyboard.press("z")
        expect(told).to_contain_text("2 changes.")

        page.keyboard.press("g")
        expect(card.locator("b")).to_have_text("good, repaired")
        page.keyboard.press("Enter")
        expect(page.locator("#page .card")).to_have_count(2)

    wait_for(lambda: task in annotations(studio, project), "the annotation")
    made = annotations(studio, project)[task]
    assert made["parent_prediction"] == predicted[task].id
    told_by = {"labels_removed": ["sky"], "pieces_added": ["sky"], "pieces_taken": []}
    assert all(each["repaired"] == told_by for each in made["result"])
    kept = [each for each in made["result"] if each["origin"] == "prediction"]
    added = [each for each in made["result"] if each["origin"] == "manual"]
    assert len({each["id"] for each in added}) == 1, "a region, as its mask and its label"
    assert [each["value"]["labels"] for each in added if each["type"] == "labels"] == [["sky"]]
    assert all(each["meta"] == {"text": ["Added in a review"]} for each in added)
    before = {(each["id"], each["type"]): each["value"] for each in predicted[task].result}
    assert kept
    assert all(each["value"] == before[each["id"], each["type"]] for each in kept)
    report = f"{backend_url}/projects/{project}/report.json"
    wait_for_json(report, lambda told: told["annotations"]["repaired"] == 1)
    open_task(page, studio, project, task)
    expect(page.locator("[class*=outliner-item]").first).to_be_visible()
