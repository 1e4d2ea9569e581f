"""Safetensors bytes with metadata and a digest, and checks of the values read from them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

#: Version of the format, stored in the bytes; changes with the meaning of the content.
_FORMAT = 1

T = TypeVar("T")

Arrays = Mapping[str, npt.NDArray[Any]]


def to_safetensors(kind: str, metadata: Mapping[str, Any], arrays: Arrays) -> bytes:
    """Serialize metadata and arrays as the bytes of a safetensors file, with a digest.

    Args:
        kind: name of the type of the content, such as "example".
        metadata: values that JSON can hold.
        arrays: by name; the name "facts" is reserved for the metadata.

    >>> data = to_safetensors("example", {"names": ["sky"]}, {"areas": np.ones(2)})
    >>> metadata, arrays = from_safetensors(data, "example")
    >>> metadata, arrays["areas"].tolist()
    ({'names': ['sky']}, [1.0, 1.0])
    """
    header = {
        "kind": kind,
        "format": _FORMAT,
        "digest": digest_of(metadata, arrays),
        "facts": metadata,
    }
    text = np.frombuffer(json.dumps(header).encode(), np.uint8)
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    packed: bytes = save({"facts": text, **contiguous})
    return packed


def from_safetensors(data: bytes, kind: str) -> tuple[dict[str, Any], dict[str, npt.NDArray[Any]]]:
    """Read metadata and arrays from the bytes of `to_safetensors`.

    Raises:
        ValueError: damaged bytes, another format, or another kind.
    """
    try:
        arrays = dict(load(data))
        header = json.loads(arrays.pop("facts").tobytes())
        found, version, digest, metadata = (
            header[k] for k in ("kind", "format", "digest", "facts")
        )
    except (SafetensorError, KeyError, ValueError, TypeError) as error:
        raise ValueError(f"Expected the bytes of an {kind}, but got others ({error}).") from None
    if (found, version) != (kind, _FORMAT):
        raise ValueError(
            f"Expected the bytes of an {kind} in format {_FORMAT}, but got {found!r} in format "
            f"{version!r}."
        )
    if digest != digest_of(metadata, arrays):
        raise ValueError(f"Expected the bytes of an {kind}, but some of them are damaged.")
    return metadata, arrays


def unpack_as(
    data: bytes,
    kind: str,
    names: Collection[str],
    make: Callable[[dict[str, Any], dict[str, npt.NDArray[Any]]], T],
    optional: Collection[str] = (),
) -> T:
    """Read a value from the bytes of `to_safetensors`.

    Args:
        data: the bytes.
        kind: name of the type of the content.
        names: names of the arrays that the bytes must hold.
        make: metadata and arrays -> the value.
        optional: names of the arrays that they may hold; there are no others.

    Raises:
        ValueError: damaged bytes, another format, another kind, or other content.
    """
    metadata, arrays = from_safetensors(data, kind)
    try:
        if set(arrays) - set(optional) != set(names):
            raise KeyError(f"{sorted(arrays)} in place of {sorted(names)}")
        return make(metadata, arrays)
    except (KeyError, TypeError) as error:
        raise ValueError(f"Expected the bytes of an {kind}, but got others ({error}).") from None


def digest_of(metadata: Mapping[str, Any], arrays: Arrays) -> str:
    """Return a hex digest of metadata and arrays, whatever their order."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, array in sorted(arrays.items()):
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


def check_names(names: tuple[str, ...]) -> None:
    """Check that names are sorted and all different.

    Raises:
        ValueError: they are not.
    """
    if list(names) != sorted(set(names)):
        raise ValueError(f"Expected names to be sorted and all different, but got {names}.")


def check_shape(name: str, array: npt.NDArray[Any], shape: tuple[int, ...]) -> None:
    """Check the shape of an array.

    Raises:
        ValueError: another shape; the message names the argument.
    """
    if array.shape != shape:
        raise ValueError(
            f"Expected argument `{name}` to be of shape {shape}, but got {array.shape}."
        )


def check_width(width: int, wanted: int | None) -> None:
    """Check the dimension of features; `wanted` None accepts any.

    Raises:
        ValueError: features of another model.
    """
    if wanted is not None and width != wanted:
        raise ValueError(
            f"Expected features of {wanted} numbers, but got {width}: they are another model's."
        )
