"""Adaptations: their bytes, their digest, and what they refuse."""

from dataclasses import replace

import numpy as np
import pytest

from clearclip_core import Adaptation
from clearclip_core.adaptation.example import facts_digest, to_safetensors

WIDTH = 6


def adaptation() -> Adaptation:
    rng = np.random.default_rng(0)
    numbers = rng.normal(size=(2, WIDTH)).astype(np.float32), np.ones(2, np.float32)
    return Adaptation(("dog", "sky"), *numbers, 3)


def test_an_adaptation_keeps_whether_its_scores_are_propagated() -> None:
    made = adaptation()
    propagated = replace(made, propagate=True)
    read = Adaptation.from_bytes(propagated.to_bytes())
    assert (read.propagate, read.digest) == (True, propagated.digest)
    assert made.digest != propagated.digest
    assert not Adaptation.from_bytes(made.to_bytes()).propagate


def test_facts_of_a_stored_adaptation_that_are_no_more_are_passed_over() -> None:
    """Such as those of a filter of scores that learned versions could use for a day."""
    made = adaptation()
    facts = {"names": list(made.names), "pictures": made.pictures, "bilateral": True}
    arrays = {"directions": made.directions, "offsets": made.offsets}
    read = Adaptation.from_bytes(to_safetensors("adaptation", facts, arrays))
    assert (read.propagate, read.digest) == (False, made.digest)


def test_an_adaptation_without_propagation_has_the_digest_that_0_2_0_gave_it() -> None:
    facts = {"names": ["sky"], "pictures": 2}
    arrays = {"directions": np.ones((1, 3), np.float32), "offsets": np.zeros(1, np.float32)}
    made = Adaptation(("sky",), arrays["directions"], arrays["offsets"], 2)
    assert made.digest == facts_digest(facts, arrays)


def test_adaptations_survive_their_bytes_and_check_themselves() -> None:
    made = adaptation()
    read = Adaptation.from_bytes(made.to_bytes())
    assert (read.digest, read.names, read.pictures) == (made.digest, made.names, 3)
    for wrong in ({"names": ("sky", "dog")}, {"offsets": np.ones(3, np.float32)}):
        with pytest.raises(ValueError, match="sorted" if "names" in wrong else "offsets"):
            replace(made, **wrong)


def test_other_bytes_are_refused() -> None:
    data = adaptation().to_bytes()
    other = to_safetensors("number", {}, {"directions": np.ones(3)})
    for wrong in (b"", b"{}", data[:-9], other):
        with pytest.raises(ValueError, match="Expected the bytes of an adaptation"):
            Adaptation.from_bytes(wrong)


def test_its_repr_fills_no_notebook() -> None:
    assert "array" not in repr(adaptation())
