"""Methods: presets, what makes no sense, and their names as text."""

import pytest

from clearclip_core import METHODS, Method
from clearclip_core.clip.methods import MAPS

#: Presets, spelled out; see `Method.of`.
PAPERS = {
    "clip": "qk-res-ffn",
    "maskclip": "identity-res-ffn",
    "sclip": "qq+kk-res-ffn",
    "clearclip": "qq",
    "clipsurgery": "vv-res-b6-bilinear-surgery",
    "gem": "ensemble-res-b6-size",
    "naclip": "neighbour",
    "pearl": "procrustes-k0.08",
    "proxyclip": "proxy",
    "scclip": "kk+affinity-affinity.middle-repair.density-layers.middle",
    "sfp": "kk+qq+affinity-affinity.sparse-repair.attention-layers.middle-second.affinity",
    "rfclip": "kk+earlier-affinity.mean-repair.sinks-layers.mean",
}


def test_presets_are_the_papers() -> None:
    assert dict(METHODS) == {name: Method.of(parts) for name, parts in PAPERS.items()}


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"attention": "xx"}, "`attention`"),
        ({"alpha": 2}, "ln_post cancels it"),
        ({"alpha": 0, "ffn": True}, "above 0 without a residual"),
        ({"alpha": -1, "residual": True}, ">= 0"),
        ({"alpha": float("nan"), "residual": True}, "finite"),
        ({"positions": "nearest"}, "`positions` to be one of factor, size, bilinear"),
        ({"blocks": 0}, "`blocks` to be 1 or more"),
        ({"blocks": 2, "residual": True, "ffn": True}, "`ffn` to be False with several `blocks`"),
        ({"attention": "procrustes", "key_weight": -1}, "`key_weight` to be a finite number >= 0"),
        ({"affinity": "far"}, "`affinity` to be one of middle, sparse, mean"),
        ({"affinity": "mean", "repair": "glue"}, "`repair` to be one of density, attention, sinks"),
        ({"affinity": "mean", "layers": "odd"}, "`layers` to be one of middle, mean"),
        ({"attention": "kk+affinity"}, "`affinity` to be named"),
        ({"repair": "density"}, "`affinity` to be named"),
        ({"affinity": "mean", "second": "kk"}, "`layers` to be named beside `second`"),
        ({"affinity": "mean", "second": "zz", "layers": "mean"}, "`attention` to be a sum"),
        ({"affinity": "middle", "attention": "identity"}, "`attention` to be a sum of qk, qq"),
        ({"affinity": "middle", "residual": True}, "left out with an affinity"),
    ],
)
def test_what_makes_no_sense_is_refused(arguments: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Method(**arguments)  # type: ignore[arg-type]


def test_a_method_says_what_it_is() -> None:
    assert str(METHODS["sclip"]) == "sclip"
    assert str(METHODS["gem"]) == "gem"
    assert str(Method("vv", residual=True, alpha=2)) == "vv-res-a2"
    assert str(Method("qq+kk", ffn=True)) == "qq+kk-ffn"
    surgery = Method("vv", blocks=3, positions="size", remove_redundancy=True)
    assert str(surgery) == "vv-b3-size-surgery"
    parts = Method("qq+affinity", affinity="sparse", repair="density", layers="mean", second="kk")
    name = "qq+affinity-affinity.sparse-repair.density-layers.mean-second.kk"
    assert (str(parts), Method.of(name)) == (name, parts)
    assert str(Method("procrustes", key_weight=0.5)) == "procrustes-k0.5"


@pytest.mark.parametrize(
    "method",
    [
        *METHODS.values(),
        *MAPS.values(),
        Method("ensemble"),
        Method("qk", True, True, alpha=0.1 + 0.2),
        Method("identity+qk", True, alpha=1e-7),
        Method("qq+kk", True, False, 1e22, 11, "size", True),
        Method("vv", residual=True, positions="bilinear"),
        Method("vv", ffn=True, alpha=0.5),
        Method("procrustes", key_weight=0.3),
    ],
    ids=str,
)
def test_what_a_method_says_reads_back(method: Method) -> None:
    assert Method.of(str(method)) == method
