"""The checks for a reader find what they should, and the tree holds them."""

from pathlib import Path

import pytest

from tests import readability
from tests.readability import Place, check_changelog, check_module, check_template


def rules(source: str) -> set[str]:
    return {place.rule for place in check_module("a.py", source)}


@pytest.mark.parametrize(
    ("rule", "source"),
    [
        ("complexity", "def f(x):\n    return x and [y for y in x if y]" + " or x" * 7),
        ("positional", "def f(a, b, c, d, e, g): ..."),
        ("statement", "def f(x):\n    return " + " + ".join("x" * 16)),
        ("statement", "def f(x):\n    return A(a=" + " + ".join("x" * 16) + ")"),
        ("paragraphs", "def f(x):\n" + "    x += 1\n" * 20),
        ("splat", "f(*(a, b))"),
        ("splat", "names = (*(A, B),)"),
        ("splat", "def f(a, b):\n    parts = a, b\n    return g(*parts)"),
        ("trick", "for x in xs[:1]: ..."),
        ("trick", "for x in (y,): ..."),
        ("trick", "[x for y in ys for x in (y.z,)]"),
        ("trick", "rows.extend(filter(None, (entry,)))"),
        ("trick", "(*xs, None)[0]"),
        ("row", "row[3]"),
        ("any", "def f(x):\n    given: Any = x"),
    ],
)
def test_a_fault_is_found(rule: str, source: str) -> None:
    assert rules(source) == {rule}


@pytest.mark.parametrize(
    "source",
    [
        "def f(x):\n    return x and [y for y in x if y]" + " or x" * 6,
        "def f(self, a, b, c, d, e, *, g): ...",
        "def f(x):\n    return " + " + ".join("x" * 15),
        "LONG = " + " + ".join("x" * 30),
        "def f(x):\n    return A(" + ", ".join(f"a{n}=x.a{n}" for n in range(20)) + ")",
        "def f(x):\n" + "    x += 1\n" * 10 + "\n" + "    x += 1\n" * 10,
        "def f(x):\n    '''Do it.\n" + "\n" * 20 + "    '''\n    return x",
        "def f(a, b):\n    parts = a, b\n    return len(parts), g(*parts)",
        "f(*xs)\nfor x in xs[:2]: ...\nfor x in (*xs,): ...\n[*xs, None]",
        "def f(rows):\n    return rows[3]",
        "def f(x: Any): ...",
    ],
)
def test_what_reads_well_is_let_through(source: str) -> None:
    assert rules(source) == set()


def test_a_fault_stands_at_its_function_and_line() -> None:
    source = "class A:\n    def f(self):\n        def g():\n            return h(*(a, b))\n"
    assert list(check_module("a.py", source)) == [Place("a.py", "A.f.g", "splat", 4)]


@pytest.mark.parametrize(
    "line",
    [
        "<p>Labels{% if n %}, {{ n }} of them{% endif %} are read.</p>",
        "<p>{{ n }} task{% if n != 1 %}s{% endif %} wait.</p>",
        "<p>It reads {{ 'all' if n else 'no' }} labels.</p>",
        "<p>Read <a href='{{ url }}'>this</a>{% if n %} or that{% endif %}</p>",
    ],
)
def test_a_condition_inside_a_sentence_is_found(line: str) -> None:
    found = list(check_template("a.html", f"<p>One.</p>\n{line}"))
    assert found == [Place("a.html", "-", "condition", 2)]


@pytest.mark.parametrize(
    "line",
    [
        "<p>All is read.</p>{% if n %}<p>Some wait.</p>{% endif %}<p>Go on.</p>",
        "<p>All is read. {% if n %}Some wait.{% else %}None waits.{% endif %} Go on.</p>",
        "<td>{% if n %}Some{% else %}None{% endif %}</td><td>more</td>",
        "<option value='a'{% if n %} selected{% endif %}>all of them</option>",
        "{# <p>Labels{% if n %} x{% endif %} are read. #}",
    ],
)
def test_a_condition_between_sentences_is_let_through(line: str) -> None:
    assert list(check_template("a.html", line)) == []


def test_a_long_line_of_a_template_is_found() -> None:
    found = check_template("a.html", f"<p>One.</p>\n{'x' * 161}\n{'x' * 160}")
    assert list(found) == [Place("a.html", "-", "long-line", 2)]


def test_a_long_entry_of_the_changelog_is_found_where_it_is_of_the_newest_version() -> None:
    text = f"# Changelog\n\n## [Unreleased]\n\n- {'x' * 159}\n\n## [0.2.0]\n\n- {'x' * 300}\n"
    assert list(check_changelog("a.md", text)) == [Place("a.md", "-", "long-line", 5)]
    assert list(check_changelog("a.md", text.replace("x" * 159, "x"))) == []


@pytest.mark.parametrize(
    ("docstring", "holds"),
    [
        ("Add.", False),
        ("Add.\n\n    Args:\n        a: a number.\n    ", False),
        ("Add.\n\n    Args:\n        a: a number.\n        b: another.\n    ", True),
    ],
)
def test_a_public_name_needs_each_argument(tmp_path: Path, docstring: str, holds: bool) -> None:
    core = tmp_path / "clearclip_core"
    core.mkdir()
    (core / "__init__.pyi").write_text("from .sums import add\n")
    (core / "sums.py").write_text(f'def add(a, b):\n    """{docstring}"""\n\ndef other(c): ...\n')
    found = list(readability.check_public_names(tmp_path))
    assert found == ([] if holds else [Place("clearclip_core/sums.py", "add", "arguments", 1)])


def test_a_source_file_needs_a_test_file_of_its_name(tmp_path: Path) -> None:
    for path in ("backend/jobs/worker.py", "backend/web/worker.py", "clearclip_core/clip/sums.py"):
        (tmp_path / path).parent.mkdir(parents=True)
        (tmp_path / path).write_text("def f(): ...\n")
    (tmp_path / "tests/backend/jobs").mkdir(parents=True)
    (tmp_path / "tests/backend/jobs/test_worker.py").touch()

    found = sorted(place.path for place in readability.check_test_files(tmp_path))
    assert found == ["backend/web/worker.py", "clearclip_core/clip/sums.py"]


@pytest.mark.parametrize(
    "source", ["A = 3\n\nclass B:\n    c: int\n", 'def f():\n    """Go.\n\n    >>> f()\n    """\n']
)
def test_a_file_without_functions_or_with_an_example_of_each_needs_none(
    tmp_path: Path, source: str
) -> None:
    (tmp_path / "backend").mkdir()
    (tmp_path / "backend/columns.py").write_text(source)
    assert list(readability.check_test_files(tmp_path)) == []


def test_a_place_is_told_with_its_line_and_what_to_do() -> None:
    told = str(Place("a.py", "f", "row", 3))
    assert told.startswith("a.py:3: f ")
    assert readability.RULES["row"] in told


def test_the_tree_holds() -> None:
    """What stands here is said by `make check` too."""
    assert readability.check_tree(readability.ROOT) == []
