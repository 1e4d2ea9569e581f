"""The README and the pages of `docs/`: what they name exists, and what they show runs."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import click
import numpy as np
import pytest
from click.testing import CliRunner
from sqlalchemy import create_engine, inspect

from backend import create_app
from backend.errors import BackendError
from backend.settings import Settings, variables
from clearclip_core import HELD_OUT_SEEDS, Example, Segmenter, render_scene

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
MEASUREMENTS = DOCS / "explanation" / "measurements.md"
PAGES = sorted(DOCS.rglob("*.md"))
TEXTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *PAGES]
INCLUDING = [page for page in PAGES if page.read_text(encoding="utf-8").startswith("```{include}")]

_FENCE = re.compile(r"^```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^()\s]+)\)")
_PLACEHOLDER = re.compile(r"<(\w+)>")

#: A number with a unit in which something is measured.
_FIGURE = re.compile(
    r"\d ?(?:ms|kB|mIoU|×|%)(?!\w)| \d+(?:\.\d+)? (?:point|picture|window)s? a second"
)
#: The definition of the boundary IoU.
_NO_FIGURE = "within 2 % of the picture's diagonal"


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path) -> list[tuple[str, str]]:
    """Return the language and the text of each fenced block."""
    return _FENCE.findall(page.read_text(encoding="utf-8"))


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def rows(page: Path, header: str) -> list[list[str]]:
    """Return the cells of all tables with this header."""
    lines, found = page.read_text(encoding="utf-8").splitlines(), []
    for start in (i + 2 for i, line in enumerate(lines) if line == header):
        for line in lines[start:]:
            if not line.startswith("|"):
                break
            found.append([cell.strip() for cell in line.strip("|").split("|")])
    return found


# ---- settings ------------------------------------------------------------------------------------


def test_the_table_has_every_setting_with_its_default_and_description() -> None:
    lines = (DOCS / "reference" / "settings.md").read_text(encoding="utf-8").splitlines()
    start = lines.index("| variable | default | what it does |") + 2
    table = lines[start : start + len(Settings.model_fields)]
    for row, (name, field) in zip(table, Settings.model_fields.items(), strict=True):
        names, default, text = (cell.strip() for cell in row.strip("|").split("|"))
        assert names == " or ".join(f"`{variable}`" for variable in variables(name))
        assert default.strip("`") == ("" if field.default is None else str(field.default))
        assert text == field.description
    assert not lines[start + len(table)].startswith("|")


# ---- pages and links -----------------------------------------------------------------------------


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 200


@pytest.mark.parametrize("page", [p for p in TEXTS[1:] if p not in INCLUDING], ids=name_of)
def test_a_page_begins_with_the_question_that_it_answers(page: Path) -> None:
    title, empty, question = page.read_text(encoding="utf-8").splitlines()[:3]
    assert title.startswith("# ")
    assert not empty
    assert re.fullmatch(r"\*[A-Z].+\?\*", question)


def anchors(page: Path) -> set[str]:
    """Return what a link may name behind ``#``: the headings as GitHub and MyST spell them."""
    headings = re.findall(r"^#{1,6} (.+)$", prose(page), re.MULTILINE)
    words = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {word.replace(" ", "-") for word in words}


@pytest.mark.parametrize("page", TEXTS, ids=name_of)
def test_relative_links_and_their_anchors_resolve(page: Path) -> None:
    for target in _LINK.findall(prose(page)):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        assert file.is_file(), target
        assert file.is_relative_to(ROOT), target
        assert not anchor or anchor in anchors(file), target


@pytest.mark.parametrize("page", INCLUDING, ids=name_of)
def test_what_a_page_includes_is_there(page: Path) -> None:
    (name,) = re.findall(r"^```\{include\} (\S+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    assert (page.parent / name).is_file()


@pytest.mark.parametrize("page", [p for p in TEXTS if p != MEASUREMENTS], ids=name_of)
def test_figures_stand_on_the_measurements_page_alone(page: Path) -> None:
    lines = prose(page).replace(_NO_FIGURE, "").splitlines()
    assert [line for line in lines if _FIGURE.search(line)] == []


# ---- commands ------------------------------------------------------------------------------------


def programs() -> dict[str, click.Group]:
    """Return the click groups of `clearclip` and `clearclip-backend`."""
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (place,) = re.findall(r'^clearclip = "([\w.]+):main"$', pyproject, re.MULTILINE)
    (source,) = re.findall(r"^clearclip-backend = \"([\w.]+):main\"$", pyproject, re.MULTILINE)
    # It imports the command line late, where what torch reads of the environment is set.
    code = Path(importlib.import_module(source).__file__ or "").read_text(encoding="utf-8")
    (late,) = re.findall(r"from ([\w.]+) import main as run", code)
    groups = {"clearclip": place, "clearclip-backend": late}
    return {name: importlib.import_module(module).main for name, module in groups.items()}


PROGRAMS = programs()


def command_lines(text: str) -> Iterator[tuple[str, list[str]]]:
    """Yield the program and the words of each command line in a shell's text."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
        lexer.wordchars += ":$[]…,%{}"
        words: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("();<>|&"):
                starts = [i for i, each in enumerate(words) if each in PROGRAMS]
                if starts:
                    yield words[starts[0]], words[starts[0] + 1 :]
                words = []
            else:
                words.append(word)


def in_blocks() -> Iterator[tuple[str, str, list[str]]]:
    for page in TEXTS:
        for language, text in blocks(page):
            if not language:
                for program, words in command_lines(text):
                    yield name_of(page), program, words


def in_prose() -> Iterator[tuple[str, str, list[str]]]:
    """Yield what stands in code within a sentence; ``COMMAND`` there stands for any."""
    for page in TEXTS:
        for code in _CODE.findall(prose(page)):
            program, *words = code.split(" ", 1)
            if program in PROGRAMS and words and not words[0].startswith(("COMMAND", "…")):
                yield name_of(page), program, shlex.split(words[0])


def check(
    command: click.Command, words: list[str], whole: bool, parent: click.Context | None = None
) -> None:
    """Parse a command line as click does, without looking for its files.

    Args:
        command: what the words belong to.
        words: names, options and arguments.
        whole: whether all that is required must be there.
        parent: the context of the group above.
    """
    context = click.Context(command, parent=parent, info_name=command.name)
    values, rest, _ = command.make_parser(context).parse_args(list(words))
    for parameter in command.get_params(context):
        value = values.get(parameter.name or "")
        is_given = isinstance(value, str | bool | list | tuple) and value != ()
        assert is_given or not (parameter.required and whole), parameter.name
        if is_given and isinstance(parameter.type, click.Choice | click.types.IntParamType):
            for each in [value] if isinstance(value, str) else value or []:
                parameter.type.convert(each, parameter, context)
    if isinstance(command, click.Group):
        assert rest or not whole, "a group needs the name of a command"
        if rest:
            below = command.get_command(context, rest[0])
            assert below is not None, rest[0]
            check(below, rest[1:], whole, context)
    else:
        assert not rest, rest


@pytest.mark.parametrize(
    ("page", "program", "words"),
    [pytest.param(*e, id=f"{e[0]}: {shlex.join(e[1:2] + tuple(e[2]))}") for e in in_blocks()],
)
def test_command_lines_are_understood(page: str, program: str, words: list[str]) -> None:
    check(PROGRAMS[program], words, whole=True)


@pytest.mark.parametrize(
    ("page", "program", "words"),
    [pytest.param(*e, id=f"{e[0]}: {shlex.join(e[1:2] + tuple(e[2]))}") for e in in_prose()],
)
def test_commands_in_sentences_exist(page: str, program: str, words: list[str]) -> None:
    check(PROGRAMS[program], words, whole=False)


def test_wrong_command_lines_would_be_found() -> None:
    for words in (["segmnt"], ["segment", "--lables", "x"], ["eval", "--benchmark", "none"]):
        with pytest.raises((click.ClickException, AssertionError)):
            check(PROGRAMS["clearclip"], words, whole=False)
    with pytest.raises(AssertionError):
        check(PROGRAMS["clearclip"], ["segment", "photos/"], whole=True)  # without --labels


@pytest.mark.parametrize("program", sorted(PROGRAMS))
def test_the_page_of_the_command_line_names_every_command(program: str) -> None:
    cells = rows(DOCS / "library" / "command-line.md", "| command | what it does |")
    named = {words[1] for cell in cells if (words := cell[0].strip("`").split())[0] == program}
    group = PROGRAMS[program]
    assert named == set(group.list_commands(click.Context(group)))


def test_modules_and_make_targets_that_pages_run_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for page in TEXTS:
        text = "\n".join([*(text for _, text in blocks(page)), *_CODE.findall(prose(page))])
        for module in re.findall(r"python3? -m ([\w.]+)", text):
            assert importlib.util.find_spec(module), (page, module)
        for target in re.findall(r"\bmake ([a-z]+)", text):
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), (page, target)


# ---- Python --------------------------------------------------------------------------------------


def python_pages() -> list[Path]:
    return [page for page in TEXTS if any(language == "python" for language, _ in blocks(page))]


def test_python_is_shown_in_the_readme_and_on_the_page_of_the_api() -> None:
    assert {ROOT / "README.md", DOCS / "library" / "python-api.md"} <= set(python_pages())


@pytest.mark.parametrize("page", python_pages(), ids=name_of)
def test_python_blocks_compile_and_what_they_import_is_there(page: Path) -> None:
    for _, text in (block for block in blocks(page) if block[0] == "python"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom):
                module = importlib.import_module(node.module or "")
                assert all(hasattr(module, alias.name) for alias in node.names)
            elif isinstance(node, ast.Import):
                assert all(importlib.util.find_spec(alias.name) for alias in node.names)


@pytest.mark.parametrize("page", python_pages(), ids=name_of)
def test_python_blocks_run_with_the_demo_model(page: Path) -> None:
    scenes = [render_scene(seed) for seed in HELD_OUT_SEEDS[:2]]
    mask = np.zeros(scenes[0].image.shape[:2], np.bool_)
    mask[: len(mask) // 2] = True
    segmenter = Segmenter.load("demo")
    other = segmenter.encode(scenes[1].image)
    others = [Example.of(other, {"horse": mask}, known=["horse", "grass"])]
    names: dict[str, Any] = {"image": scenes[0].image, "mask": mask, "others": others}
    for _, text in (block for block in blocks(page) if block[0] == "python"):
        assert text.count("Segmenter.load(") <= 1
        exec(text.replace('"ViT-B-16/openai"', '"demo"'), names)
    assert names["result"].label_map.shape == scenes[0].image.shape[:2]


def test_modules_and_names_in_them_that_pages_name_exist() -> None:
    for page in TEXTS:
        for place in _CODE.findall(prose(page)):
            if re.fullmatch(r"(?:clearclip_core|backend)(?:\.\w+)+", place):
                module, _, name = place.rpartition(".")
                above = importlib.util.find_spec(module)
                assert above is not None, (page, place)
                is_folder = above.submodule_search_locations is not None
                if not is_folder or importlib.util.find_spec(place) is None:
                    file = Path(above.origin or "")
                    stub = file.with_suffix(".pyi")  # has the names that are imported on first use
                    text = (stub if stub.exists() else file).read_text(encoding="utf-8")
                    assert re.search(rf"\b{name}\b", text), (page, place)


def test_files_and_folders_that_pages_name_exist() -> None:
    folders = [ROOT, ROOT / "clearclip_core", ROOT / "backend", *(ROOT / "backend").glob("*/")]
    tops = {"clearclip_core", "backend", "docs", "tests"} | {
        path.name for folder in folders[1:3] for path in folder.glob("*/")
    }
    tops.remove("images")  # data sets have such a folder, too
    for page in TEXTS:
        for place in _CODE.findall(prose(page)):
            first = place.split("/")[0]
            if first in tops and re.fullmatch(r"\w+(?:/\w+)*/(?:[\w.-]+\.\w+|\w*)", place):
                assert any((folder / place).exists() for folder in folders), (page, place)


# ---- reference pages -----------------------------------------------------------------------------


def below(error: type[BackendError]) -> Iterator[type[BackendError]]:
    yield error
    for child in error.__subclasses__():
        yield from below(child)


def test_the_page_of_errors_has_every_error_with_its_status() -> None:
    named = {
        name.strip("`"): int(status)
        for name, status, _ in rows(DOCS / "reference" / "errors.md", "| error | status | when |")
    }
    assert named == {
        error.code: error.http_status
        for error in below(BackendError)
        if error.__module__ == BackendError.__module__
    }


def test_the_page_of_routes_has_every_route_with_its_methods(tmp_path: Path) -> None:
    app = create_app(Settings(model="demo", model_dir=tmp_path), MagicMock())
    described = app.test_client().get("/openapi.json").get_json()
    (plot,) = {
        parameter["schema"]["enum"][0]
        for path in described["paths"].values()
        for parameter in path.get("get", {}).get("parameters", ())
        if parameter["name"] == "plot"
    }
    values = {"job": "7", "project": "7", "dataset": "7", "run": "7", "plot": plot}
    adapter = app.url_map.bind("localhost")
    found = set()
    page = DOCS / "reference" / "http-api.md"
    for methods, routes, _ in rows(page, "| method | route | what it does |"):
        for route in _CODE.findall(routes):
            path = _PLACEHOLDER.sub(lambda name: values[name[1]], route)
            for method in methods.split(", "):
                rule, _ = adapter.match(path, method=method, return_rule=True)
                found.add((str(rule), method))
    assert found == {
        (str(rule), method)
        for rule in app.url_map.iter_rules()
        for method in rule.methods or ()
        if method not in ("HEAD", "OPTIONS")
    }


def test_the_page_of_the_database_has_every_table_and_column(tmp_path: Path) -> None:
    options = ["--project", "7", "--model", "demo", "--model-dir", str(tmp_path)]
    url = f"sqlite:///{tmp_path}/own.db"
    command = ["adapt", "status", *options, "--database-url", url]
    ran = CliRunner().invoke(PROGRAMS["clearclip-backend"], command)
    assert ran.exit_code == 0, ran.output
    made = inspect(create_engine(url))
    tables = {
        table: {column["name"] for column in made.get_columns(table)}
        for table in made.get_table_names()
        if table not in ("alembic_version", "sqlite_sequence")
    }
    page = (DOCS / "reference" / "database.md").read_text(encoding="utf-8")
    sections = re.findall(r"^### (\w+)\n(.*?)(?=^### |\Z)", page, re.MULTILINE | re.DOTALL)
    named = {
        table: {
            column
            for row in re.findall(r"^\| (`.*?) \|", text, re.MULTILINE)
            for column in _CODE.findall(row)
        }
        for table, text in sections
    }
    assert named == tables
