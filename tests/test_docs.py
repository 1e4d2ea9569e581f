"""What README and pages show runs; links within docs/ are checked by `make docs`."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

from backend.cli.main import main as backend_main
from clearclip_core import HELD_OUT_SEEDS, Example, Segmenter, render_scene
from clearclip_core.cli.main import main as core_main

ROOT = Path(__file__).parents[1]
PAGES = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]
PROGRAMS: dict[str, click.Command] = {"clearclip": core_main, "clearclip-backend": backend_main}

_FENCE = re.compile(r"^```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\((?!https?://)([^()\s#]+)")
_MODULE = re.compile(r"`([\w/]+\.py|(?:backend|clearclip_core)/[\w/]*)`")


def blocks(page: Path, language: str) -> list[str]:
    """Return the text of each fenced block of a language."""
    found = _FENCE.findall(page.read_text(encoding="utf-8"))
    return [text for name, text in found if name == language]


def command_lines(text: str) -> Iterator[list[str]]:
    """Yield the words of each command line of the two programs in a shell's text."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line, posix=True, punctuation_chars="();<>|&")
        lexer.wordchars += ":$[]…,%{}"
        words: list[str] = []
        for word in [*lexer, ";"]:
            if not set(word) <= set("();<>|&"):
                words.append(word)
                continue
            starts = [i for i, each in enumerate(words) if each in PROGRAMS]
            if starts:
                yield words[starts[0] :]
            words = []


def understand(command: click.Command, words: list[str]) -> None:
    """Parse a command line as click does, without looking for its files."""
    context = click.Context(command, info_name=command.name)
    values, rest, _ = command.make_parser(context).parse_args(list(words))
    for parameter in command.get_params(context):
        value = values.get(parameter.name or "")
        is_given = isinstance(value, str | bool | list | tuple) and value != ()
        assert is_given or not parameter.required, parameter.name
        if is_given and isinstance(parameter.type, click.Choice | click.types.IntParamType):
            for each in [value] if isinstance(value, str) else value or []:
                parameter.type.convert(each, parameter, context)
    if isinstance(command, click.Group):
        below = command.get_command(context, rest[0])
        assert below is not None, rest[0]
        understand(below, rest[1:])
    else:
        assert not rest, rest


def test_command_lines_are_understood() -> None:
    for page in PAGES:
        for text in blocks(page, ""):
            for program, *words in command_lines(text):
                try:
                    understand(PROGRAMS[program], words)
                except (click.ClickException, AssertionError, IndexError) as error:
                    pytest.fail(f"{page.relative_to(ROOT)}: {program} {shlex.join(words)}: {error}")


#: What begins a call that takes as long as all other blocks of the pages together.
_SLOW_CALL = ".export("


def run_python_blocks(page: Path, names: dict[str, Any], slow_ones: bool) -> None:
    """Run a page's blocks one after another, those with a slow call only where asked for."""
    for text in blocks(page, "python"):
        if slow_ones or _SLOW_CALL not in text:
            exec(text.replace('"ViT-B-16/openai"', '"demo"'), names)


@pytest.mark.parametrize("slow_ones", [False, pytest.param(True, marks=pytest.mark.thorough)])
def test_python_blocks_run_with_the_demo_model(
    slow_ones: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # they write files
    scenes = [render_scene(seed) for seed in HELD_OUT_SEEDS[:2]]
    mask = np.zeros(scenes[0].image.shape[:2], np.bool_)
    mask[: len(mask) // 2] = True
    other = Segmenter.load("demo").encode(scenes[1].image)
    others = [Example.of(other, {"horse": mask}, known=["horse", "grass"])]

    pages = [page for page in PAGES if blocks(page, "python")]
    if slow_ones:
        pages = [page for page in pages if _SLOW_CALL in page.read_text(encoding="utf-8")]
    assert pages

    for page in pages:
        names: dict[str, Any] = {"image": scenes[0].image, "mask": mask, "others": others}
        names["images"] = [scene.image for scene in scenes]
        run_python_blocks(page, names, slow_ones)
        assert names["result"].label_map.shape == scenes[0].image.shape[:2]


def test_files_that_pages_link_to_exist() -> None:
    for page in PAGES:
        text = _FENCE.sub("", page.read_text(encoding="utf-8"))
        for target in _LINK.findall(text):
            assert (page.parent / target).is_file(), (page, target)


def test_modules_that_pages_name_exist() -> None:
    packages = (ROOT / name for name in ("backend", "clearclip_core", "tests"))
    paths = [path.as_posix() for package in packages for path in package.rglob("*.py")]
    for page in PAGES:
        for name in _MODULE.findall(_FENCE.sub("", page.read_text(encoding="utf-8"))):
            is_there = (ROOT / name).exists() or any(path.endswith(f"/{name}") for path in paths)
            assert is_there, (page, name)
