"""The conventions of the code that neither ruff nor import-linter knows."""

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_a_folder_has_a_docstring_and_hands_nothing_on() -> None:
    for package in ("clearclip_core", "backend"):
        for path in (ROOT / package).glob("*/**/__init__.py"):
            (sentence,) = ast.parse(path.read_text(encoding="utf-8")).body
            assert isinstance(sentence, ast.Expr), path
            assert isinstance(sentence.value, ast.Constant), path


def imported(path: Path) -> Iterator[str]:
    """Name what a file imports, in functions and for types too: modules, or what is in one."""
    nodes: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.Import):
            yield from (each.name for each in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{each.name}" for each in node.names)
        nodes += ast.iter_child_nodes(node)


def test_no_two_modules_import_each_other_not_even_by_way_of_others() -> None:
    """`TopologicalSorter` raises an error that names a circle; imports for types count."""
    paths = [
        path for name in ("backend", "clearclip_core") for path in ROOT.glob(f"{name}/**/*.py")
    ]
    modules = {".".join(path.relative_to(ROOT).with_suffix("").parts): path for path in paths}
    graph = {
        module: {
            found
            for name in imported(path)
            for found in (name, name.rpartition(".")[0])
            if found in modules and found != module
        }
        for module, path in modules.items()
    }
    assert graph["backend.web.server"] >= {"backend.web.app", "backend.web.middleware.guards"}
    TopologicalSorter(graph).prepare()
