"""Weights of networks as arrays, and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ...errors import InputError

if TYPE_CHECKING:
    from torch import nn


def as_arrays(network: nn.Module, prefix: str) -> dict[str, np.ndarray]:
    """Copies of the weights by `prefix` and their names in the state dict, float32."""
    return {
        prefix + name: value.detach().cpu().numpy().astype(np.float32).copy()
        for name, value in network.state_dict().items()
    }


def load_arrays(network: nn.Module, arrays: Mapping[str, np.ndarray], prefix: str) -> None:
    """Put weights back.

    Raises
    ------
    InputError
        When one is missing, too many, of another shape, or not finite.
    """
    import torch

    wanted = {prefix + name: tuple(value.shape) for name, value in network.state_dict().items()}
    found = {name: tuple(array.shape) for name, array in arrays.items() if name.startswith(prefix)}
    for name in sorted({*wanted, *found}):
        if wanted.get(name) != found.get(name):
            raise InputError(
                f"The model is damaged: array '{name}' is {found.get(name, 'missing')}, expected {wanted.get(name, 'none')}."
            )
        if not np.isfinite(arrays[name]).all():
            raise InputError(f"The model is damaged: array '{name}' holds numbers that are not finite.")
    network.load_state_dict(
        {name[len(prefix) :]: torch.from_numpy(np.array(arrays[name], dtype=np.float32)) for name in wanted}
    )
