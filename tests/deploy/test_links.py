"""Links of the README where it is shown outside of the repository."""

from pathlib import Path

import pytest

from tests.deploy.links import absolute_links, broken_links

ROOT = Path(__file__).parents[2]
ADDRESS = "https://code.example/owner/name"


@pytest.mark.parametrize(
    ("link", "absolute"),
    [
        ("[a](docs/a.md)", f"[a]({ADDRESS}/blob/v1.0.0/docs/a.md)"),
        ("[a](docs/a.md#part-two)", f"[a]({ADDRESS}/blob/v1.0.0/docs/a.md#part-two)"),
        ("[a](LICENSE)", f"[a]({ADDRESS}/blob/v1.0.0/LICENSE)"),
        ("![a](docs/images/a.png)", f"![a]({ADDRESS}/raw/v1.0.0/docs/images/a.png)"),
        ("[a](https://other.example/a.md)", "[a](https://other.example/a.md)"),
        ("[a](#below)", "[a](#below)"),
    ],
)
def test_a_link_into_the_repository_gets_its_address(link: str, absolute: str) -> None:
    assert absolute_links(link, ADDRESS, "v1.0.0") == absolute


def test_every_link_of_the_readme_leads_somewhere_from_outside() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    assert broken_links(absolute_links(readme, ADDRESS, "main"), ROOT, ADDRESS, "main") == []
    assert len(broken_links(readme, ROOT, ADDRESS, "main")) > 20


def test_a_file_and_a_heading_that_are_not_there_are_found(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# One two\n\n```\n# no heading\n```\n")
    place = f"{ADDRESS}/blob/main"
    links = [f"[1]({place}/{each})" for each in ("a.md#one-two", "a.md#no-heading", "b.md")]
    said = broken_links(" ".join(links), tmp_path, ADDRESS, "main")
    assert said == ["a.md has no heading no-heading.", "b.md is not there."]
