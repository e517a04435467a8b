"""One spelling for numpy and torch: formulas take whichever arrays they are given."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np

#: A numpy array, or a torch tensor on any device (torch is imported lazily, so the type is not named).
Array = Any


def namespace(values: Array) -> Any:  # noqa: ANN401 - the module numpy or torch
    """Return the module whose functions fit `values`: torch for a tensor, numpy for anything else."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and isinstance(values, torch.Tensor) else np


def to_device(values: np.ndarray, device: str) -> Array:
    """Return `values` as they are for "cpu", else as a tensor on a torch device ("cuda", or "torch" for torch on the CPU)."""
    if device == "cpu":
        return values
    import torch

    return torch.from_numpy(np.ascontiguousarray(values)).to("cpu" if device == "torch" else device)


def to_numpy(values: Array) -> np.ndarray:
    """Return a numpy array, from wherever the values are."""
    return values if isinstance(values, np.ndarray) else values.cpu().numpy()


def interpolate(table: np.ndarray, position: Array) -> Array:
    """Look up an evenly spaced table between its entries.

    Parameters
    ----------
    table
        Values at positions 0, 1, …, n − 1, shape (n,).
    position
        Where to look, in [0, n − 1], any shape.
    """
    xp = namespace(position)
    if xp is not np:
        table = xp.as_tensor(table, dtype=position.dtype, device=position.device)
    below = xp.floor(position).clip(0, len(table) - 2)
    row = below.astype(np.int64) if xp is np else below.long()
    share = position - below
    return table[row] * (1 - share) + table[row + 1] * share


def at_most(values: Array, most: float) -> Array:
    """Return `values`, none above `most`."""
    return np.minimum(values, most) if namespace(values) is np else values.clip(max=most)


def at_least(values: Array, least: float) -> Array:
    """Return `values`, none below `least`."""
    return np.maximum(values, least) if namespace(values) is np else values.clip(min=least)
