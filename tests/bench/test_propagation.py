"""What spreading scores over alike patches gains beside refined borders, on photographs."""

import os

import pytest

from clearclip_core.segmentation.propagation import propagate
from clearclip_core.segmentation.refined_argmax import decide_refined
from tests.bench.conftest import Report
from tests.bench.corrections import street


@pytest.mark.parametrize("encoder", ["", "STREET_ENCODER"])
def test_masks_of_photographs(report: Report, encoder: str) -> None:
    """The scores alone, refined, propagated, and both, on half of the photographs of a world."""
    if encoder and encoder not in os.environ:
        pytest.skip(f"set {encoder} to NAME@FILE")
    world = street(os.environ[encoder] if encoder else None)
    words = world.embed(world.vocabulary.queries)
    pictures = list(zip(world.corrected, world.images, strict=True))[::3]

    def measured(refine: bool, spread: bool) -> float:
        decided = []
        for (features, truth), rgb in pictures:
            made = world.scores(features)
            patch_px = made.plan.patch_image_px
            made = propagate(made, rgb, words) if spread else made
            shown = decide_refined(made, rgb, patch_px=patch_px)[0] if refine else made.label_map()
            decided.append((shown, truth))
        return float(world.ious_of(decided).mean())

    plain, refined = measured(False, False), measured(True, False)
    propagated, both = measured(False, True), measured(True, True)
    report.add(
        f"PROPAGATE over REFINE, {world.name}",
        "≥ +1",
        f"{max(propagated, both) - refined:+.1f}",
        f"mIoU {plain:.1f}; REFINE {refined:.1f}, PROPAGATE {propagated:.1f}, both {both:.1f}; "
        f"{len(pictures)} pictures",
    )
    assert max(propagated, both) >= refined + 1
