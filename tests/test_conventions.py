"""The conventions of the code that no linter knows: imports, environment, pickle, stored names."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]

#: The packages of the product.
PACKAGES = ("clearclip_core", "backend")
#: What the torch library must not know of.
OUTSIDE = {
    "backend",
    "flask",
    "gunicorn",
    "httpx",
    "requests",
    "label_studio_ml",
    "label_studio_sdk",
}

FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


def room(path: Path) -> tuple[str, str]:
    """Package and room of a file: `clearclip_core/demo/train.py` is in the room `demo`."""
    package, *rest = path.relative_to(ROOT).with_suffix("").parts
    return package, rest[0]


def imported_modules(path: Path) -> Iterator[str]:
    """Every module that a file imports, at the top or inside a function, with absolute names."""
    package = list(path.relative_to(ROOT).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            yield from (f"{module}.{alias.name}" for alias in node.names)


def ids(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_folders_import_in_one_direction() -> None:
    """The contracts stand in pyproject.toml, under `tool.importlinter`."""
    command = [
        sys.executable,
        "-c",
        "from importlinter.cli import lint_imports_command as run; run()",
    ]
    done = subprocess.run(
        [*command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "path", [p for p in FILES if p.name == "__init__.py" and p.parents[1] != ROOT], ids=ids
)
def test_a_folder_says_what_it_is_for_and_hands_nothing_on(path: Path) -> None:
    (sentence,) = ast.parse(path.read_text(encoding="utf-8")).body
    assert isinstance(sentence, ast.Expr), "a docstring and nothing else"
    assert isinstance(sentence.value, ast.Constant)
    assert str(sentence.value.value).rstrip().endswith(".")


@pytest.mark.parametrize("path", [p for p in FILES if room(p)[0] == "clearclip_core"], ids=ids)
def test_clearclip_core_knows_nothing_of_what_serves_it(path: Path) -> None:
    assert not {module.split(".")[0] for module in imported_modules(path)} & OUTSIDE


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_only_the_settings_read_the_environment(path: Path) -> None:
    if room(path) in {("backend", "settings"), ("backend", "__main__")}:  # the latter sets one
        return
    readers = {"environ", "environb", "getenv"}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    found = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr in readers
        and ast.unparse(node.value) != "request"  # WSGI's, which is of one request
    ]
    found += [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and readers & {alias.name for alias in node.names}
    ]
    assert not found, f"{ids(path)} reads the environment in line {found}"


#: Modules that run what a file says when they read one; and what is asked of torch and numpy,
#: which can do so.
UNPICKLERS = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
WITHOUT_PICKLE = {"torch.load": ("weights_only", True), "np.load": ("allow_pickle", False)}


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_nothing_is_unpickled(path: Path) -> None:
    """`pickle.UnpicklingError` alone has a use: it is what torch raises for what it refuses."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) in UNPICKLERS:
            assert node.attr == "UnpicklingError", f"{ids(path)} line {node.lineno}"
        if isinstance(node, ast.Call) and ast.unparse(node.func) in WITHOUT_PICKLE:
            name, safe = WITHOUT_PICKLE[ast.unparse(node.func)]
            given = {keyword.arg: keyword.value for keyword in node.keywords}
            value = given.get(name)
            assert isinstance(value, ast.Constant), f"{ids(path)} line {node.lineno}"
            assert value.value is safe, f"{ids(path)} line {node.lineno}"
    unpicklers = {
        module
        for module in imported_modules(path)
        if module.split(".")[0] in UNPICKLERS and module != "pickle"
    }
    assert not unpicklers, f"{ids(path)} imports {unpicklers}"


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_images_are_opened_in_one_place(path: Path) -> None:
    """`PIL.Image.open` tries all of Pillow's decoders, of which one starts Ghostscript."""
    if ids(path) == "clearclip_core/images/opening.py":
        return
    tree = ast.parse(path.read_text(encoding="utf-8"))
    opened = [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr == "open"
        and ast.unparse(node.value).endswith("Image")
    ]
    imported = {"PIL.Image.open", "cv2.imread", "cv2.imdecode"} & set(imported_modules(path))
    assert not opened, f"{ids(path)} opens an image in line {opened}"
    assert not imported, f"{ids(path)} imports {imported}"


#: What takes its words from the names of Python: what is stored or answered spells its own out.
NAME_READERS = {"asdict", "astuple", "fields", "_asdict", "_fields", "__dict__", "vars", "repr"}
#: Files that have another use for them -> which, and why nothing of it is stored or answered.
NAME_READERS_ALLOWED = {
    "clearclip_core/cli/options.py": {"fields"},  # pairs a command's options with a dataclass
    "clearclip_core/cli/data_options.py": {"fields"},  # pairs options, too
    "clearclip_core/cli/evaluate_folder.py": {"fields"},  # pairs options, too
    "clearclip_core/clip/method_name.py": {"repr"},  # of a number
    "backend/telemetry/logs.py": {"repr"},  # of a control character
}


def name_readers(source: str) -> set[str]:
    """What a file calls or imports to read the names of Python classes and attributes."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "dataclasses":
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.Attribute):
            found |= {node.attr} if node.attr.startswith("_") else set()
            found |= {node.attr} if ast.unparse(node.value) == "dataclasses" else set()
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found.add(node.func.id)
    return found & NAME_READERS


@pytest.mark.parametrize("path", FILES, ids=ids)
def test_nothing_stored_or_answered_depends_on_a_name_of_python(path: Path) -> None:
    found = name_readers(path.read_text(encoding="utf-8"))
    assert found == NAME_READERS_ALLOWED.get(ids(path), set())


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from dataclasses import asdict, dataclass", {"asdict"}),
        ("import dataclasses\ndataclasses.fields(x)", {"fields"}),
        ("x._asdict()", {"_asdict"}),
        ("dict(vars(x), **y.__dict__)", {"vars", "__dict__"}),
        ("repr((x, y)).encode()", {"repr"}),
        ("x.fields()\nfield(repr=False)", set()),
    ],
)
def test_readers_of_names_are_found(source: str, expected: set[str]) -> None:
    assert name_readers(source) == expected


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("import clearclip_core.text", {"clearclip_core.text"}),
        ("from clearclip_core import text", {"clearclip_core.text"}),
        ("from . import text", {"clearclip_core.text"}),
        (
            "def f():\n    from .text import Label",
            {"clearclip_core.text.Label"},
        ),
    ],
)
def test_the_import_reader_sees_every_spelling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, expected: set[str]
) -> None:
    monkeypatch.setattr(__name__ + ".ROOT", tmp_path)
    path = tmp_path / "clearclip_core" / "file.py"
    path.parent.mkdir()
    path.write_text(source)
    assert set(imported_modules(path)) == expected


@pytest.mark.parametrize(
    ("name", "too_old", "first"),
    [
        # Without HTTPAdapter.get_connection_with_tls_context, which checks each address.
        ("requests", "2.32.1", "2.32.2"),
        # Without HTTPResponse.read1, which reads a download.
        ("urllib3", "2.1.0", "2.2.0"),
    ],
)
def test_no_release_is_admitted_that_lacks_what_is_called(
    name: str, too_old: str, first: str
) -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    (asked,) = re.findall(rf'^  "({name}\W[^"]*)"', project, re.MULTILINE)
    assert not Requirement(asked).specifier.contains(too_old)
    assert Requirement(asked).specifier.contains(first)
