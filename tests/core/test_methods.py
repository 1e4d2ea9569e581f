import dataclasses

import pytest

from clearclip_core import METHODS, Method
from clearclip_core.methods import resolve_method


def test_presets_are_the_papers() -> None:
    assert dict(METHODS) == {
        "clip": Method("qk", residual=True, ffn=True),
        "maskclip": Method("identity", residual=True, ffn=True),
        "sclip": Method("qq+kk", residual=True, ffn=True),
        "clearclip": Method("qq", residual=False, ffn=False),
    }


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ValueError, match="clip, maskclip, sclip, clearclip, but got 'clearclp'"):
        resolve_method("clearclp")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"attention": "xx"}, "`attention`"),
        ({"alpha": 2}, "ln_post cancels it"),
        ({"alpha": 0}, "ln_post cancels it"),
        ({"alpha": 0, "ffn": True}, "above 0 without a residual"),
        ({"alpha": -1, "residual": True}, ">= 0"),
        ({"alpha": float("nan"), "residual": True}, "finite"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Method(**arguments)  # type: ignore[arg-type]


def test_alpha_zero_with_a_residual_is_the_residual_alone() -> None:
    assert Method(alpha=0, residual=True).alpha == 0


def test_a_method_says_what_it_is() -> None:
    assert str(METHODS["sclip"]) == "sclip"
    assert str(Method("vv", residual=True, alpha=2)) == "vv-res-a2"


def test_a_method_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Method().alpha = 2  # type: ignore[misc]
