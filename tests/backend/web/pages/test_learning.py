"""The routes of what projects learn, their page, and the same from the command line."""

from typing import Any

import msgspec

from backend.database.database import Database
from backend.feedback.annotation_store import AnnotationStore
from backend.feedback.annotation_table import ReadAnnotation
from backend.learning.compared_images import MOST_IMAGES, BeforeAfter, ComparedImage, Work
from backend.learning.next_pictures import NextPicture, NextPictures, NextPictureStore
from backend.learning.versions import Person, model_key
from backend.runs.label_errors import LABEL_ERRORS, ConfirmedAnnotations, LabelErrors, Suspicion
from backend.runs.run_store import AskedNothing, RunStore
from backend.settings import Adapt, Settings
from tests.backend.fakes.colour_segmenter import brush_config, teach
from tests.backend.fakes.label_studio import TOKEN, FakeStudio
from tests.backend.fakes.learning_stores import LearningStores, version_with
from tests.backend.web.browser import PEOPLE, Dashboard, Page

LEARNING = "/projects/7/learning"


def stores_of(model: str = "") -> LearningStores:
    """What a backend with the stand-in keeps, in the database of the test."""
    settings = Settings()
    key = model or model_key(settings, "colours-1")
    return LearningStores.of(Database.from_settings(settings), "who learns", lambda: key)


def learn(
    stores: LearningStores,
    *colours: str,
    adapt: Adapt = "auto",
    pictures: BeforeAfter | None = None,
    **changes: Any,
) -> None:
    """Make a version for each colour that wine is said to have; "" passes no gate."""
    stores.replace_all(1)
    for number, colour in enumerate(colours or ["red"]):
        lease = stores.lease()
        scores = teach(wine=colour) if colour else None
        version = msgspec.structs.replace(version_with(scores, 20 + 5 * number), **changes)
        stores.versions.commit(lease, version, scores, adapt, pictures)
        if adapt == "auto":
            stores.use_first()


URL = "data:image/jpeg;base64,AAAA"
PICTURES = BeforeAfter(
    (ComparedImage(3, URL + "a", URL + "b", URL + "c", Work(0.125, 0.05), Work(0.04, 0.036)),),
    {"wine": "#ff8000"},
)
#: Of "wine", which loses, and "<i>rose</i>", whose words find little.
FIGURES: Any = {
    "text_ious": {"wine": 0.625, "<i>rose</i>": 0.0625},
    "adapted_ious": {"wine": 0.3125, "<i>rose</i>": 0.875},
    "shown": {"wine": 17, "<i>rose</i>": 4, "plum": 2, "fig": 2},
    "found": {"wine": 0.1, "<i>rose</i>": 0.9, "plum": 0.25, "fig": 0.35},
}


def turns_of(page: Page) -> list[str]:
    """Return where the buttons lead by which people steer."""
    return [str(each["formaction"]) for each in page.all("button") if "formaction" in each]


def test_versions_with_figures_have_a_plot(dashboard: Dashboard) -> None:
    learn(stores_of(), "red", pictures=PICTURES, **FIGURES)
    assert not dashboard.page(LEARNING).all("polyline"), "one is no curve"
    learn(stores_of(), "red", "blue", pictures=PICTURES, **FIGURES)
    assert len(dashboard.page(LEARNING).all("polyline")) == 1, "the gain of the versions"


def test_the_page_shows_before_and_after(dashboard: Dashboard) -> None:
    learn(stores_of(), "red", "blue", pictures=PICTURES, **FIGURES)
    told = dashboard.client.get(LEARNING).get_json(force=True)
    assert [(v["number"], v["live"]) for v in told["versions"]] == [(2, True), (1, False)]
    page = dashboard.page(LEARNING)
    for each in ("version 2 in use", "62.5 %", "31.2 %", "12.5 %", "3.6 %", "17", "+25 v2"):
        assert each in page.text
    assert [each["src"] for each in page.all("img")] == [URL + "a", URL + "b", URL + "c"]
    assert {each["fill"] for each in page.all("rect")} == {"#ff8000"}, "those of the legend"
    buttons = [each for each in page.all("button") if "formaction" in each]
    asks = {str(each["formaction"]).rsplit("/", 1)[1]: "data-confirm" in each for each in buttons}
    assert {turn for turn, is_asked in asks.items() if is_asked} == {"use", "reset"}
    assert {*asks} - {"use", "reset"} == {"step"}
    assert f"{LEARNING}/keep-words" in {form.get("action") for form in page.all("form")}
    assert told["weak_words"] == ["<i>rose</i>", "plum"], "of plum little was drawn"
    assert "/projects/7/words?label=%3Ci%3Erose%3C/i%3E" in page.links


def test_a_version_that_has_not_passed_shows_why_and_its_pictures(dashboard: Dashboard) -> None:
    refused = {"refused": {"wine": "On held-out pictures “wine” may lose."}}
    learn(stores_of(), "red", "", pictures=PICTURES, **FIGURES | refused)
    page = dashboard.page(LEARNING)
    assert "version 2, which is not used" in page.text
    assert "“wine” may lose" in page.text
    assert len(page.all("img")) == 3
    assert "/projects/7/label-errors" in {form.get("action") for form in page.all("form")}
    link = f"{LEARNING}?version=1#before-after"
    assert link in page.links
    first = dashboard.page(link.partition("#")[0])
    assert "the words, and version 1\n" in first.text


def test_a_label_on_two_pictures_has_no_figure(dashboard: Dashboard) -> None:
    """Also in a version that an earlier backend has made, which stored one."""
    few = {
        "shown": {"wine": 17, "plum": 2},
        "text_ious": {"wine": 0.625, "plum": 0.5},
        "adapted_ious": {"wine": 0.75, "plum": 0.125},
    }
    learn(stores_of(), **few)
    (told,) = dashboard.client.get(LEARNING).get_json(force=True)["versions"]
    assert told["too_few"] == {"plum": "2 pictures: too few to tell"}
    assert told["text_ious"] == {"wine": 0.625}
    page = dashboard.page(LEARNING)
    assert "2 pictures: too few to tell" in page.text
    assert "12.5 %" not in page.text
    assert "loses more than a point" not in page.text, "a label without a figure loses nothing"


def test_the_largest_page_stays_within_30_kb_beside_its_pictures(dashboard: Dashboard) -> None:
    """Twenty versions, twenty labels with figures (three lose), pictures and a plot."""
    names = [f"label number {number}" for number in range(20)]
    figures = {
        "text_ious": dict.fromkeys(names, 0.5),
        "adapted_ious": dict.fromkeys(names[:3], 0.25) | dict.fromkeys(names[3:], 0.75),
        "shown": dict.fromkeys(names, 12),
        "refused": dict.fromkeys(names[:3], "On held-out pictures it may lose."),
        "people": (Person("a1", "Ada", "Her labels seem to be exchanged.", is_left_out=False),),
    }
    image = ComparedImage(
        3, URL, URL, URL, Work(0.1, 0.1), Work(0.1, 0.1), URL, changed=0.2, gained=0.1, lost=0.1
    )
    colours = dict.fromkeys(names, "#ff8000")
    shown = BeforeAfter((image,) * MOST_IMAGES, colours)
    stores = stores_of()
    learn(stores, *["red", "blue"] * 10, pictures=shown, **figures)

    nexts = NextPictures(tuple(NextPicture(4 + n, URL, 0.5) for n in range(6)), colours, 12, 24)
    store = NextPictureStore(stores.versions._database, stores.versions._model_key)
    store.keep(7, nexts, newest=20, changed=1, took_s=1.0)
    suspicion = Suspicion(
        task=5,
        annotation=105,
        updated=1.0,
        item_index=None,
        kind="label",
        label=names[0],
        other=names[1],
        sentence=f"Painted “{names[0]}”, but it looks like “{names[1]}”.",
        preview=URL,
        suggestion=URL,
        colours=dict.fromkeys(names[:2], "#ff8000"),
    )
    runs = RunStore(Database.from_settings(Settings()), "me")
    found = LabelErrors(40, 13, 30, (suspicion,) * 3)
    runs.add_done(LABEL_ERRORS, 7, AskedNothing(), found, 1.0)

    page = dashboard.page(LEARNING)
    assert len(page.all("img")) == 4 * MOST_IMAGES + 2 * 3 + 6
    assert len(page.all("polyline")) == 1
    html = dashboard.client.get(LEARNING, headers=PEOPLE).get_data(as_text=True)
    assert len(html.replace(URL, "").encode()) <= 30_000


def test_people_whose_pictures_speak_against_their_work_are_named(dashboard: Dashboard) -> None:
    learn(stores_of(), people=(Person("a1", "Ada <B>", "Mirrored.", is_left_out=True),))
    assert "Ada <B>: Mirrored." in dashboard.page(LEARNING).text
    (told,) = dashboard.client.get(LEARNING).get_json(force=True)["versions"]
    assert [each["name"] for each in told["people"]] == ["Ada <B>"]


def test_label_errors_name_who_exchanges_labels_and_which(dashboard: Dashboard) -> None:
    reason = "On 4 of 5 pictures “<i>sky</i>” and “sofa” seem to be exchanged."
    learn(stores_of(), people=(Person("a1", "Ada <B>", reason, is_left_out=False),))
    runs = RunStore(Database.from_settings(Settings()), "me")
    runs.add_done(LABEL_ERRORS, 7, AskedNothing(), LabelErrors(40, 13, 30, ()), 1.0)
    page = dashboard.page("/projects/7/label-errors")
    assert f"Ada <B>: {reason}" in page.text
    assert LEARNING in page.links, "where the lead may learn without that person"
    told = dashboard.client.get("/projects/7/label-errors").get_json(force=True)
    assert told["people"] == [f"Ada <B>: {reason}"]


def test_one_press_learns_without_somebody_and_one_with_them_again(dashboard: Dashboard) -> None:
    stores = stores_of()
    learn(stores, people=(Person("a1", "Ada", "She exchanges them.", is_left_out=False),))
    for turn, left_out in (("learn-without", {"a1": "Ada"}), ("learn-with", {})):
        path = f"{LEARNING}/{turn}"
        assert turns_of(dashboard.page(LEARNING)).count(path) == 1
        sent = {"data": {"person": "a1"}, "content_type": "application/x-www-form-urlencoded"}
        assert dashboard.client.post(path, **sent).status_code == 303
        assert stores.versions.state(7).left_out == left_out


def test_where_labels_lose_the_annotations_to_check_are_linked(dashboard: Dashboard) -> None:
    learn(stores_of(), **FIGURES)
    page = dashboard.page(LEARNING)
    assert "/projects/7/label-errors" in {form.get("action") for form in page.all("form")}
    runs = RunStore(Database.from_settings(Settings()), "me")
    runs.request(LABEL_ERRORS, 7, AskedNothing())
    run = runs.lease([LABEL_ERRORS.name])
    assert run is not None
    found = [Suspicion(n, 100 + n, 1.0, None, "label", "sky", "road") for n in range(1, 8)]
    found[6] = msgspec.structs.replace(found[6], other="wine", sentence="It looks like “wine”.")
    runs.finish(run, LabelErrors(40, 13, 30, tuple(found)))
    confirmed = ConfirmedAnnotations(Database.from_settings(Settings()))
    confirmed.confirm(7, 101, 1.0)
    page = dashboard.page(LEARNING)
    numbers = [each.partition("#")[2] for each in page.links if "#annotation-" in each]
    assert numbers[:2] == ["annotation-107-6", "annotation-102-1"]
    assert len(numbers) == 3
    assert "It looks like “wine”." in page.text


def press(dashboard: Dashboard, turn: str, **form: str) -> Any:
    kind = "application/x-www-form-urlencoded"
    return dashboard.client.post(f"{LEARNING}/{turn}", data=form, content_type=kind)


def test_people_choose_a_version_with_buttons(dashboard: Dashboard) -> None:
    stores = stores_of()
    learn(stores, "red", "blue")
    for turn, form, live, pinned in (
        ("use", {"number": "1"}, 1, True),
        ("unpin", {}, 1, False),
        ("use", {"number": "2"}, 2, True),
        ("use", {"number": "0"}, None, True),
        ("unpin", {}, None, False),
    ):
        assert f"{LEARNING}/{turn}" in turns_of(dashboard.page(LEARNING))
        response = press(dashboard, turn, **form)
        assert response.status_code == 303
        said = dashboard.page(response.headers["Location"])
        assert ("new version" in " ".join(said.text.split()).lower()) == (turn == "unpin")
        state = stores.versions.state(7)
        assert (state.live, state.pinned) == (live, pinned)


def test_people_leave_a_label_to_its_words_and_take_that_back(dashboard: Dashboard) -> None:
    stores = stores_of()
    learn(stores, "red")
    for turn, kept in (("keep-words", ("<b>car</b>",)), ("learn-label", ())):
        assert press(dashboard, turn, label="<b>car</b>").status_code == 303
        assert stores.versions.state(7).as_words == kept
    assert press(dashboard, "keep-words").status_code == 400


def test_people_ask_for_a_step(dashboard: Dashboard) -> None:
    stores = stores_of()
    learn(stores, "red")
    assert press(dashboard, "step").status_code == 303
    assert stores.versions.state(7).asked


def test_people_forget_all_and_then_no_step_can_be_made(dashboard: Dashboard) -> None:
    stores = stores_of()
    learn(stores, "red")
    assert press(dashboard, "reset").status_code == 303
    assert (stores.versions.versions(7), stores.versions.state(7).annotations) == ([], 0)
    refused = press(dashboard, "step")
    assert refused.status_code == 409
    assert "no corrections to learn from" in Page(refused).text


def test_start_training_in_label_studio_asks_for_a_version(dashboard: Dashboard) -> None:
    body = {"action": "START_TRAINING", "project": {"id": 7, "title": "Streets"}}
    refused = dashboard.client.post("/webhook", json=body)
    assert (refused.status_code, stores_of().versions.state(7).asked) == (409, False)
    stores_of().replace_all(1)
    assert dashboard.client.post("/webhook", json=body | {"action": "OTHER"}).status_code == 200
    assert not stores_of().versions.state(7).asked
    closed = Dashboard(basic_auth_user="ann", basic_auth_pass="secret")
    assert closed.client.post("/webhook", json=body).status_code == 401
    assert not stores_of().versions.state(7).asked, "anybody may send a webhook"
    assert closed.client.post("/webhook", json=body, auth=("ann", "secret")).status_code == 200
    assert stores_of().versions.state(7).asked


def test_what_has_taught_nothing_is_read_again_and_then_learned_from(dashboard: Dashboard) -> None:
    stores, annotations = stores_of(), AnnotationStore(Database.from_settings(Settings()), "me")
    learn(stores)
    annotations.mark(7, [1, 2])
    for pending in annotations.lease(2):
        annotations.complete(pending, ReadAnnotation(pending.annotation, 7, 1, "scratch"))
    assert annotations.count_open(7) == 0

    def press(action: str) -> Page:
        form = {"content_type": "application/x-www-form-urlencoded"}
        pressed = dashboard.client.post(f"{LEARNING}/{action}", data=b"", **form)
        return dashboard.page(pressed.headers["Location"])

    page = press("reset")
    assert "2 annotations are still to be read again" in page.text
    assert (annotations.count_open(7), stores.versions.state(7).asked) == (2, False)
    page = press("step")
    assert stores.versions.state(7).asked
    assert page.next_page == LEARNING, "it loads itself until the version is there"


def test_unlabelled_pictures_are_asked_for_from_twenty_on(dashboard: Dashboard) -> None:
    stores, tasks = stores_of(), {number: {"image": "a"} for number in range(1, 20)}
    studio = FakeStudio(brush_config("red", "blue"), tasks)
    with studio.served() as server:
        lead = Dashboard(label_studio_url=server.url, label_studio_api_key=TOKEN)
        refused = lead.client.post(f"{LEARNING}/unlabelled")
        assert refused.status_code == 409
        assert "takes 20 tasks or more, and the project has 19 tasks" in refused.text
        studio.tasks[20] = {"image": "a"}
        assert "unlabelled" in lead.page(LEARNING).text
        assert lead.client.post(f"{LEARNING}/unlabelled").status_code == 200
        lease = stores.versions.lease_step(1)
        assert lease is not None
        assert lease.unlabelled
        stores.replace_all(1)
        refused = lead.client.post(f"{LEARNING}/unlabelled")
        assert "corrections, which teach more" in refused.get_data(as_text=True)


def test_a_version_of_unlabelled_pictures_shows_areas_and_its_gain(dashboard: Dashboard) -> None:
    stores, scores = stores_of(), teach(wine="red")
    stores.versions.request_step(7, unlabelled=True)
    lease = stores.versions.lease_step(1)
    assert lease is not None
    areas = {"wine": (0.3, 0.09), "blue": (0.1, 0.155), "sky": (0.2, 0.29)}
    own = msgspec.structs.replace(
        version_with(scores, 0), text_ious={}, shown={}, unlabelled=25, areas=areas
    )
    blank = ComparedImage(3, "", URL + "b", URL + "c")
    stores.versions.commit(lease, own, scores, "auto", BeforeAfter((blank,)))
    page = dashboard.page(LEARNING)
    for each in ("25 of your pictures, nobody has corrected one", "30.0 %", "9.0 %"):
        assert each in page.text
    assert page.text.count("look for it") == 2
    assert [each["src"] for each in page.all("img")] == [URL + "b", URL + "c"]
    project = dashboard.page("/projects/7").text
    assert "not measured yet: version 1 waits for you" in " ".join(project.split())
    stores.use_first()
    judged = {"unlabelled_gain": -0.021, "unlabelled_lost": True, "unlabelled_losing": ("wine",)}
    learn(stores, "blue", **judged)
    told = " ".join(dashboard.page(LEARNING).text.split())
    assert "2.1 points below that of the words: it was taken back." in told
    assert "The words do better on wine." in told


def test_programs_steer_with_json(dashboard: Dashboard) -> None:
    learn(stores_of())
    client = dashboard.client
    answer = client.post(f"{LEARNING}/use", json={"number": 0})
    assert (answer.status_code, answer.get_json(force=True)["live"]) == (200, None)
    assert client.post(f"{LEARNING}/unpin").status_code == 200
    for body, status in (({"number": -1}, 400), ({"no": 1}, 400), ({}, 400), ({"number": 9}, 409)):
        assert client.post(f"{LEARNING}/use", json=body).status_code == status
    assert client.post(f"{LEARNING}/use", data=b"x" * (1 << 17)).status_code == 413


def test_a_project_has_learned_nothing_and_a_step_needs_a_method_that_can() -> None:
    told = Dashboard().client.get(LEARNING).get_json()
    assert (told["live"], told["versions"], told["waits"], told["every"]) == (None, [], None, 10)
    surgery = Dashboard(method="clipsurgery")
    response = surgery.client.post(f"{LEARNING}/step")
    assert response.status_code == 409
    assert "cannot learn" in surgery.page(LEARNING).text
