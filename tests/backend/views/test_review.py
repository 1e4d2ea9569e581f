"""The sentences of the review page, without a server."""

import pytest
from msgspec.structs import replace

from backend.label_studio.label_config_parser import parse_label_config
from backend.review.queue import AskedPage, Card
from backend.review.verdicts import NotDone, TakingBack, Tally
from backend.views.review import PersonFigures, ReviewPage, ReviewTally
from backend.views.text import plain

CONFIG = parse_label_config(
    """<View>
      <Image name="img" value="$image"/>
      <BrushLabels name="tag" toName="img">
        <Label value="sky" background="#0000ff"/><Label value="tree" background="#00ff00"/>
      </BrushLabels>
      <Choices name="weather" toName="img" required="true"><Choice value="rain"/></Choices>
    </View>""",
    None,
)
ALL = AskedPage()
CARD = Card(7, 70, "v", 0.5, is_old=False, labels=("sky",), has_others=False)


def url_of(route: str, **values: object) -> str:
    return f"{route}?{values}"


def tally(asked: AskedPage = ALL, **changed: object) -> ReviewTally:
    values = {
        "tallies": [],
        "last_page": (0, None),
        "to_correct": 0,
        "taking_back": None,
    } | changed
    return ReviewTally.of(project=3, seat="s", asked=asked, **values)  # type: ignore[arg-type]


def page(asked: AskedPage = ALL, **changed: object) -> ReviewPage:
    values = {
        "cards": [CARD],
        "person": "",
        "since": 1.0,
        "is_measuring": False,
        "is_sorting": False,
        "token_user": "Ann",
        "not_done": [],
    } | changed
    return ReviewPage.of(  # type: ignore[arg-type]
        config=CONFIG, tally=tally(asked), url_of=url_of, **values
    )


def test_nothing_said_shows_no_figures() -> None:
    assert not tally().is_shown


@pytest.mark.parametrize(
    "changed",
    [
        {"tallies": [Tally("Bo", 1, 0, 0, 0)]},
        {"last_page": (1, 5.0)},
        {"to_correct": 1},
        {"taking_back": TakingBack(2, 1)},
    ],
)
def test_anything_said_shows_them(changed: dict[str, object]) -> None:
    assert tally(**changed).is_shown


def test_buttons_name_what_they_change() -> None:
    made = tally(last_page=(12, 5.0), to_correct=1)

    assert (made.undo, made.correct) == (
        "Undo the last page (12)",
        "Correct 1 task in Label Studio",
    )


def test_a_share_comes_with_its_exact_interval() -> None:
    """Of 10 that all stayed, Clopper and Pearson's interval is from 0.025 ** 0.1 = 69.15 % on."""
    made = PersonFigures.of(Tally("", 20, 0, 0, 0, checked=10, unchanged=10))

    assert made.unchanged == "100 % (69 to 100)"


def test_without_a_checked_picture_there_is_no_share() -> None:
    assert PersonFigures.of(Tally("Bo", 20, 0, 0, 0)).unchanged == "–"


def test_an_empty_page_of_all_pictures_leads_nowhere() -> None:
    notice = page(cards=[]).notice

    assert plain(notice).startswith("No picture waits for a review.")
    assert not any(each.url for each in notice)


def test_an_empty_page_of_some_pictures_leads_to_all() -> None:
    notice = page(AskedPage(label="sky"), cards=[]).notice

    assert [each.text for each in notice if each.url] == ["look at all"]


def test_while_time_is_measured_no_picture_is_shown() -> None:
    made = page(is_measuring=True)

    assert not made.cards
    assert any(each.url.startswith("report.page") for each in made.notice)


def test_crops_of_a_label_have_its_colour_alone() -> None:
    assert page(AskedPage(label="sky")).legends == ({"sky": "#0000ff"},)


def test_what_good_leaves_empty_is_named() -> None:
    assert "“weather”" in page().required


def test_verdicts_that_are_not_done_are_counted() -> None:
    assert page(not_done=[NotDone(1, "Gone.")]).not_done_title == "1 verdict not done"


def test_the_filters_are_told_though_they_are_folded() -> None:
    assert page().filters == "Whole pictures · say your name here"
    told = page(AskedPage(label="sky", view=12, least=0.25), person="Bo").filters
    assert told == "Crops of sky · score from 0.25 · view 12 of Label Studio · reviewed by Bo"


def test_a_picture_whose_masks_are_older_says_so() -> None:
    (sign,) = page().signs(replace(CARD, is_old=True, score=0.0))
    assert sign.text == "older masks"


@pytest.mark.parametrize(("shows_scores", "told"), [(True, ["0.50"]), (False, [])])
def test_a_score_is_told_where_it_says_how_sure_the_model_is(
    shows_scores: bool, told: list[str]
) -> None:
    shown = replace(page(), shows_scores=shows_scores)
    assert [each.text for each in shown.signs(CARD)] == told
