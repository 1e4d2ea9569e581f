"""Say why the tree is no release: `python -m tests.deploy.release v0.3.0`.

A release has one version: its tag's, that of `pyproject.toml`, and the newest one of the changelog.
Its database has no revision of a later version: revision 0301 is of version 0.3.
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]

_HEADING = re.compile(r"^## \[(?P<name>[^\]]+)\]", re.MULTILINE)
_VERSION = re.compile(r'^version = "(?P<name>[^"]+)"', re.MULTILINE)
_NUMBERS = re.compile(r"(?P<major>\d+)\.(?P<minor>\d+)\.\d+")


@dataclass(frozen=True)
class Tree:
    """What a checkout says of its version."""

    version: str  # of pyproject.toml, such as "0.3.0" or "0.3.0.dev0"
    converter: str  # the same, of packages/dataset
    changelog: str
    revisions: tuple[str, ...]  # numbers of the database's migrations, such as "0300"

    @classmethod
    def read(cls, root: Path = ROOT) -> Tree:
        """Read the files of a checkout."""
        migrations = (root / "backend/database/migrations/versions").glob("[0-9]*_*.py")
        return cls(
            version=_version(root / "pyproject.toml"),
            converter=_version(root / "packages/dataset/pyproject.toml"),
            changelog=(root / "CHANGELOG.md").read_text(encoding="utf-8"),
            revisions=tuple(sorted(file.name.partition("_")[0] for file in migrations)),
        )

    @property
    def newest_entry(self) -> str:
        """Return the newest version that has changes in the changelog, or "Unreleased"."""
        headings = [*_HEADING.finditer(self.changelog)]
        ends = [heading.start() for heading in headings[1:]] + [len(self.changelog)]

        for heading, end in zip(headings, ends, strict=True):
            if self.changelog[heading.end() : end].count("\n- "):
                return heading["name"]
        return ""


def _version(file: Path) -> str:
    found = _VERSION.search(file.read_text(encoding="utf-8"))
    assert found is not None, f"{file} has a version"
    return found["name"]


def faults(tree: Tree, tag: str | None = None) -> list[str]:
    """Return a sentence for each fault of a tree; with a tag, also what is wrong for a release.

    Args:
        tree: what the checkout says.
        tag: the tag that is to be released, such as "v0.3.0"; None on the way to a release.
    """
    numbers = _NUMBERS.match(tree.version)
    if numbers is None:
        return [f"The version of pyproject.toml, {tree.version}, does not have three numbers."]

    found = []
    own = f"{numbers['major']}{numbers['minor']}"  # "03" of 0.3.0: its revisions are 0300 to 0399
    newest = tree.revisions[-1]
    if newest[: len(own)] > own:
        found.append(f"The database's revision {newest} is of a later version than {tree.version}.")

    if tree.converter != tree.version:
        found.append(
            f"packages/dataset has version {tree.converter}, and pyproject.toml {tree.version}."
        )

    if tag is None:
        return found
    if tag != f"v{tree.version}":
        found.append(f"The tag is {tag}, and pyproject.toml has version {tree.version}.")
    if numbers[0] != tree.version:
        found.append(
            f"{tree.version} is on the way to a release: take off what follows {numbers[0]}."
        )
    if tree.newest_entry != tree.version:
        found.append(
            f"The changelog's newest changes are those of {tree.newest_entry or 'no version'}: "
            f"give them the heading [{numbers[0]}] with today's date."
        )
    return found


if __name__ == "__main__":
    said = faults(Tree.read(), sys.argv[1])
    print("\n".join(said) or f"{sys.argv[1]} can be released.")
    sys.exit(bool(said))
