"""Names of methods as text; reading back is tested with `Method` itself."""

from __future__ import annotations

from clearclip_core.clip.methods import parse


def test_every_part_has_its_place() -> None:
    name = "kk+affinity-affinity.middle-repair.density-layers.middle-second.affinity"
    assert parse(name) == {
        "attention": "kk+affinity",
        "affinity": "middle",
        "repair": "density",
        "layers": "middle",
        "second": "affinity",
    }
    assert parse("vv-res-b6-bilinear-surgery-k0.5") == {
        "attention": "vv",
        "residual": True,
        "blocks": 6,
        "positions": "bilinear",
        "remove_redundancy": True,
        "key_weight": 0.5,
    }
