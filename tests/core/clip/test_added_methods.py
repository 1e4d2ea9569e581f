"""Methods and attentions of other packages, and the example of the page."""

import re

import pytest
import torch

from clearclip_core.clip.attention import attend
from clearclip_core.clip.methods import Method
from clearclip_core.clip.projections import Projections
from tests.packages import Packages, blocks_of_guide


@pytest.fixture
def sharp(packages: Packages) -> None:
    """Install the package of the page."""
    blocks = blocks_of_guide("Add a method")
    attention, method = re.findall(r'^sharp\w* = "clearclip_sharp.*$', blocks["toml"], re.MULTILINE)
    points = (attention, "[clearclip.methods]", method)
    packages.install(
        "clearclip_sharp",
        blocks["py"],
        "clearclip.attentions",
        *(point.replace('"', "") for point in points),
    )


@pytest.mark.usefixtures("sharp")
def test_a_method_of_another_package_is_found_by_its_name() -> None:
    assert Method.of("sharpclip") == Method.of("sharp")


@pytest.mark.usefixtures("sharp")
def test_an_attention_of_another_package_is_computed() -> None:
    torch.manual_seed(0)
    query, value = torch.randn(2, 1, 3, 5, 4).double()
    sharp = attend(Projections(query, None, value), "sharp")
    assert torch.allclose(sharp, attend(Projections(query * 2**0.5, None, value), "qq"))


@pytest.mark.usefixtures("sharp")
def test_it_is_a_term_like_any_other() -> None:
    assert Method.of("sharp+kk-res-a2") == Method("sharp+kk", residual=True, alpha=2)


@pytest.mark.usefixtures("sharp")
def test_an_unknown_method_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ValueError, match=r"one of clip, .*, sharpclip, or one that is spelled"):
        Method.of("nobodys")


def test_an_attention_whose_name_cannot_be_spelled_is_refused(packages: Packages) -> None:
    code = "from clearclip_core.clip.methods import Attention\nA = Attention((), None)\n"
    packages.install("numbered", code, "clearclip.attentions", "a2 = numbered:A")
    with pytest.raises(ValueError, match="The attention a2 of numbered has a name of other"):
        Method("a2")
