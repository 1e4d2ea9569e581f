"""Pack the modules of the repository that the converter's commands import, and no others.

An import inside of a function is not followed: it is of what the converter leaves out, such as the
model of ``--score``.
"""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterator
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py
from setuptools.command.sdist import sdist

HERE = Path(__file__).resolve().parent
COPIES = HERE / "repository"  # in an unpacked sdist; the repository itself has no such folder
ROOT = COPIES if COPIES.is_dir() else HERE.parents[1]
PACKAGES = ("backend", "clearclip_core")
COMMANDS = ("backend.cli.dataset", "backend.cli.import_masks")


def file_of(module: str) -> Path | None:
    """Return the file of a module or a package of the repository; None for any other name."""
    path = ROOT / module.replace(".", "/")
    files = (path / "__init__.py", path.with_suffix(".py"))
    return next((file for file in files if file.is_file()), None)


def imports_of(file: Path) -> Iterator[tuple[str, str]]:
    """Yield the module and the name of each import that runs when a file is imported."""
    pending: list[ast.stmt] = [*ast.parse(file.read_text(encoding="utf-8")).body]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.Import):
            yield from ((each.name, "") for each in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from ((node.module, each.name) for each in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            pending += node.orelse
        elif isinstance(node, (ast.If, ast.Try, ast.With, ast.ClassDef)):
            pending += [each for each in ast.iter_child_nodes(node) if isinstance(each, ast.stmt)]


def lazy_names() -> dict[str, str]:
    """Return name -> module of what `clearclip_core` imports when it is asked for."""
    stub = ast.parse((ROOT / "clearclip_core/__init__.pyi").read_text(encoding="utf-8"))
    froms = [each for each in stub.body if isinstance(each, ast.ImportFrom)]
    return {
        name.asname or name.name: f"clearclip_core.{each.module}"
        for each in froms
        for name in each.names
    }


def closure(modules: tuple[str, ...] = COMMANDS) -> tuple[set[str], set[str]]:
    """Return the modules of the repository that are imported, and the names of other packages."""
    own: set[str] = set()
    others: set[str] = set()
    lazy = lazy_names()
    pending = list(modules)

    while pending:
        module = pending.pop()
        file = file_of(module)
        if file is None:
            others.add(module.partition(".")[0])
            continue
        if module in own:
            continue
        own.add(module)
        parents = module.split(".")[:-1]
        pending += [".".join(parents[: at + 1]) for at in range(len(parents))]

        for source, name in imports_of(file):
            pending.append(source)
            if source == "clearclip_core" and name in lazy:
                pending.append(lazy[name])
            elif file_of(f"{source}.{name}") is not None:
                pending.append(f"{source}.{name}")
    return own, others


def files() -> list[Path]:
    """Return the files of the repository that the package has, in the order of their paths."""
    modules = [file for module in closure()[0] if (file := file_of(module))]
    return sorted([*modules, ROOT / "clearclip_core/__init__.pyi", ROOT / "LICENSE"])


def copy_files(to: Path) -> None:
    """Copy `files` into a folder, each at its path in the repository."""
    for file in files():
        copy = to / file.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)


class PackSources(build_py):
    """Copies the modules into the package's folder `sources`."""

    def run(self) -> None:
        super().run()
        copy_files(Path(self.build_lib, "clearclip_dataset/sources"))


class ShipSources(sdist):
    """Copies the modules into the sdist, which is built where the repository is not."""

    def make_release_tree(self, base_dir: str, files: list[str]) -> None:
        super().make_release_tree(base_dir, files)
        copy_files(Path(base_dir, COPIES.name))


if __name__ == "__main__":
    setup(cmdclass={"build_py": PackSources, "sdist": ShipSources})
