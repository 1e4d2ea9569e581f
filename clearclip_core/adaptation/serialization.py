"""Facts and arrays as bytes that tell of damage, and what the values made of them check."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

#: Part of all bytes; another number when they are read in another way.
_FORMAT = 1

T = TypeVar("T")

Arrays = Mapping[str, npt.NDArray[Any]]


def to_safetensors(kind: str, facts: Mapping[str, Any], arrays: Arrays) -> bytes:
    """A safetensors file's bytes.

    Args:
        kind: what they hold, a word.
        facts: what JSON can say.
        arrays: by name; none is called "facts".

    >>> packed = to_safetensors("example", {"names": ["sky"]}, {"areas": np.ones(2)})
    >>> facts, arrays = from_safetensors(packed, "example")
    >>> facts, arrays["areas"].tolist()
    ({'names': ['sky']}, [1.0, 1.0])
    """
    known = {"kind": kind, "format": _FORMAT, "digest": digest_of(facts, arrays), "facts": facts}
    text = np.frombuffer(json.dumps(known).encode(), np.uint8)
    whole = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    packed: bytes = save({"facts": text, **whole})
    return packed


def from_safetensors(data: bytes, kind: str) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """What `to_safetensors` was given.

    Raises:
        ValueError: damaged bytes, another format, or another kind.
    """
    try:
        arrays = dict(load(data))
        known = json.loads(arrays.pop("facts").tobytes())
        found, version, digest, facts = (known[k] for k in ("kind", "format", "digest", "facts"))
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ValueError(f"Expected the bytes of an {kind}, but got others ({error}).") from None
    if (found, version) != (kind, _FORMAT):
        raise ValueError(
            f"Expected the bytes of an {kind} in format {_FORMAT}, but got {found!r} in format "
            f"{version!r}."
        )
    if digest != digest_of(facts, arrays):
        raise ValueError(f"Expected the bytes of an {kind}, but some of them are damaged.")
    return facts, arrays


def unpack_as(
    data: bytes,
    kind: str,
    names: Collection[str],
    make: Callable[[dict[str, Any], dict[str, npt.NDArray[Any]]], T],
) -> T:
    """The value that is made of what `to_safetensors` was given.

    Args:
        data: see `from_safetensors`.
        kind: see `from_safetensors`.
        names: of the arrays that there must be, and no others.
        make: facts and arrays -> the value.

    Raises:
        ValueError: see `from_safetensors`, or not what such a value is made of.
    """
    facts, arrays = from_safetensors(data, kind)
    try:
        if set(arrays) != set(names):
            raise KeyError(f"{sorted(arrays)} in place of {sorted(names)}")
        return make(facts, arrays)
    except (KeyError, TypeError) as error:
        raise ValueError(f"Expected the bytes of an {kind}, but got others ({error}).") from None


def digest_of(facts: Mapping[str, Any], arrays: Arrays) -> str:
    """Hex digest of the content."""
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def check_names(names: tuple[str, ...]) -> None:
    """Refuse names that are not sorted, or not all different."""
    if list(names) != sorted(set(names)):
        raise ValueError(f"Expected names to be sorted and all different, but got {names}.")


def check_shape(name: str, array: npt.NDArray[Any], shape: tuple[int, ...]) -> None:
    """Refuse an array of another shape, by the argument's name."""
    if array.shape != shape:
        raise ValueError(
            f"Expected argument `{name}` to be of shape {shape}, but got {array.shape}."
        )


def check_width(width: int, wanted: int | None) -> None:
    """Refuse features of another model; None takes all."""
    if wanted is not None and width != wanted:
        raise ValueError(
            f"Expected features of {wanted} numbers, but got {width}: they are another model's."
        )
