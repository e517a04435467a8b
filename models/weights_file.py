"""Weights files: safetensors with a card inside, read without any package and never with pickle.

The format (https://huggingface.co/docs/safetensors) is an 8-byte little-endian length, a JSON header and raw little-endian arrays.
Reading it takes a page, and the default method of geolocation must work in a QGIS that has nothing but numpy; tests check against the
safetensors package that both read each other's files.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .errors import InputError, OutputError

#: Weights that ship with the plugin.
SHIPPED = Path(__file__).parent / "weights"
_DTYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}
_NAMES = {np.dtype(code): name for name, code in _DTYPES.items()}
_MOST_HEADER_BYTES = 10_000_000
_KIND, _CARD = "telcoloc_kind", "telcoloc_card"


@dataclass(frozen=True)
class Weights:
    """What a model has learned.

    Parameters
    ----------
    kind
        Which model the arrays belong to, e.g. "deepmend_beta".
    tensors
        The arrays by name.
    card
        Where they come from: data, seed, command, epochs, hardware, metrics, licence; JSON values.
    """

    kind: str
    tensors: Mapping[str, np.ndarray]
    card: Mapping[str, Any] = field(default_factory=dict)


def shipped(kind: str) -> Path:
    """Path of the weights of `kind` that ship with the plugin."""
    return SHIPPED / f"{kind}.safetensors"


def write_weights(path: str | os.PathLike[str], weights: Weights) -> None:
    """Write a safetensors file; equal weights make equal bytes. The file appears complete or not at all.

    Raises
    ------
    InputError
        When an array has a type the format does not know.
    OutputError
        When the file cannot be written.
    """
    header: dict[str, Any] = {
        "__metadata__": {_KIND: weights.kind, _CARD: json.dumps(weights.card, sort_keys=True, ensure_ascii=False)}
    }
    blobs: list[bytes] = []
    end = 0
    for name in sorted(weights.tensors):
        array = np.asarray(weights.tensors[name], order="C")
        little = array.astype(array.dtype.newbyteorder("<"), copy=False)
        if little.dtype not in _NAMES:
            raise InputError(f"Array '{name}' has type {array.dtype}, which a weights file cannot hold.")
        blob = little.tobytes()
        header[name] = {
            "dtype": _NAMES[little.dtype],
            "shape": list(array.shape),
            "data_offsets": [end, end + len(blob)],
        }
        end += len(blob)
        blobs.append(blob)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    target = Path(path)
    partial = target.with_name(target.name + ".part")
    try:
        with open(partial, "wb") as file:
            file.write(len(text).to_bytes(8, "little") + text + b"".join(blobs))
        os.replace(partial, target)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise OutputError(f"The weights could not be written to {target}: {error.strerror or error}.") from error


def read_weights(path: str | os.PathLike[str], kinds: str | tuple[str, ...] = (), finite: bool = True) -> Weights:
    """Read a weights file and check that it belongs to one of `kinds` (any, when empty).

    Parameters
    ----------
    finite
        Whether arrays with values that are not finite are refused.

    Raises
    ------
    InputError
        When the file is missing, no safetensors file, truncated, made by another program, or of another kind.
    """
    path = Path(path)
    kinds = (kinds,) if isinstance(kinds, str) else kinds
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"The weights file {path} cannot be read: {error.strerror or error}.") from error
    size = int.from_bytes(content[:8], "little")
    if len(content) < 10 or size > _MOST_HEADER_BYTES or content[8:9] != b"{":
        raise InputError(f"{path} is no weights file: it does not begin as a .safetensors file does.")
    if 8 + size > len(content):
        raise InputError(f"The weights file {path} is truncated within its header; copy or download it again.")
    try:
        header = json.loads(content[8 : 8 + size])
        metadata = dict(header.pop("__metadata__", {}))
        layout: dict[str, tuple[np.dtype[Any], tuple[int, ...], int, int]] = {}
        for name, entry in header.items():
            begin, end = (int(value) for value in entry["data_offsets"])
            shape = tuple(map(int, entry["shape"]))
            layout[name] = (np.dtype(_DTYPES[entry["dtype"]]), shape, begin, end)
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise InputError(
            f"{path} is no weights file that can be read here: its header is damaged ({error!r})."
        ) from error
    kind = metadata.get(_KIND)
    if not kind:
        raise InputError(
            f"{path} is a .safetensors file of another program. Use weights that 'Train DeepMEND' wrote, or those that ship with the "
            "plugin."
        )
    if kinds and kind not in kinds:
        wanted = " or ".join(f"'{one}'" for one in kinds)
        raise InputError(
            f"{path} holds weights for '{kind}', but {wanted} is asked for. Choose that method, or another file."
        )
    body = memoryview(content)[8 + size :]
    tensors: dict[str, np.ndarray] = {}
    for name, (dtype, shape, begin, end) in layout.items():
        if end > len(body):
            raise InputError(
                f"The weights file {path} is truncated: {len(body):,} bytes of arrays, but '{name}' ends at {end:,}. "
                "Copy or download it again."
            )
        if min((*shape, begin)) < 0 or end - begin != dtype.itemsize * math.prod(shape):
            raise InputError(f"The weights file {path} is damaged: array '{name}' does not fit its place.")
        tensors[name] = np.frombuffer(body[begin:end], dtype).reshape(shape).copy()
        if finite and tensors[name].dtype.kind == "f" and not np.isfinite(tensors[name]).all():
            raise InputError(
                f"The weights file {path} cannot be used: array '{name}' holds values that are not finite."
            )
    try:
        card = dict(json.loads(metadata.get(_CARD, "{}")))
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"The weights file {path} is damaged: its card is no JSON object ({error}).") from error
    return Weights(kind, tensors, card)


def expect_shapes(weights: Weights, shapes: Mapping[str, tuple[int, ...]], path: str | os.PathLike[str]) -> None:
    """Check that `weights` holds exactly the arrays of `shapes`.

    Raises
    ------
    InputError
        When one is missing, unknown, or has another shape.
    """
    found = {name: tuple(array.shape) for name, array in weights.tensors.items()}
    for name in sorted({*found, *shapes}):
        if found.get(name) != shapes.get(name):
            raise InputError(
                f"The weights file {path} does not fit this version of '{weights.kind}': array '{name}' is "
                f"{found.get(name, 'missing')}, expected {shapes.get(name, 'none')}."
            )
