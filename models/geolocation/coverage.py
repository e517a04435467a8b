"""Smallest areas that hold a given share of a base station's mass."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def mass_levels(probability: np.ndarray, levels: Sequence[float]) -> np.ndarray:
    """Rank cells by probability and say which level each one completes.

    Parameters
    ----------
    probability
        P(ℓ|i) of the cells of one BS, shape (n,), summing to one.
    levels
        Shares of the mass, rising, e.g. (0.5, 0.75, 0.95).

    Returns
    -------
    numpy.ndarray
        Per cell the index of the smallest level whose area holds it, `len(levels)` for cells outside all areas, shape (n,), uint8.
        The cells with index ≤ k are the fewest that hold `levels[k]`. Equal probabilities enter in the order given.
    """
    order = np.argsort(-probability, kind="stable")
    before = np.cumsum(probability[order], dtype=np.float64) - probability[order]
    # A cell belongs to a level as long as the cells before it do not reach it (up to the rounding of the sums).
    level = np.searchsorted(np.asarray(levels) - 1e-7, before, side="right")
    result = np.empty(len(probability), np.uint8)
    result[order] = level
    return result
