"""Building footprints as arrays."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError


@dataclass(frozen=True)
class Buildings:
    """Footprints with heights, in a metric CRS.

    Parameters
    ----------
    xy_m
        Vertices of all rings, one ring after the other, without the closing vertex [m], shape (v, 2). The inside lies to the left:
        outer rings run counter-clockwise, courtyards clockwise.
    first
        Index of each ring's first vertex, and v at the end, shape (r + 1,).
    building
        The building each ring belongs to, shape (r,), ascending.
    height_m
        Height of each building [m], shape (n,).
    """

    xy_m: np.ndarray
    first: np.ndarray
    building: np.ndarray
    height_m: np.ndarray

    def __post_init__(self) -> None:
        if len(self.first) != len(self.building) + 1 or self.first[-1] != len(self.xy_m):
            raise InputError("The rings of the buildings do not fit their vertices.")

    def __len__(self) -> int:
        return len(self.height_m)
