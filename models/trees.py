"""Gradient-boosted regression trees as arrays: predicted with numpy alone, learned elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np

from .errors import InputError

#: Samples × trees worked on at a time.
_CHUNK_VALUES = 1 << 18


@dataclass(frozen=True)
class TreeEnsemble:
    """base + Σ over trees of the value of the leaf that a sample falls into.

    Nodes of all trees stand one after the other, each tree's root first. `left` and `right` are the rows of a node's children in the
    whole array, always behind the node; a leaf is its own child.

    Parameters
    ----------
    feature
        Column a node looks at, shape (n_nodes,), int16.
    threshold
        A sample goes left when its value, rounded to float32, is at most this, shape (n_nodes,), float64.
    left, right
        Children, shape (n_nodes,), int32.
    value
        What a leaf adds, learning rate included, shape (n_nodes,), float32.
    roots
        First node of each tree, shape (n_trees,), int32.
    base
        Start of the sum, shape (1,), float64.
    """

    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    value: np.ndarray
    roots: np.ndarray
    base: np.ndarray

    def __post_init__(self) -> None:
        n = len(self.feature)
        if any(len(column) != n for column in (self.threshold, self.left, self.right, self.value)):
            raise InputError("The trees cannot be used: their arrays of nodes have different lengths.")
        here = np.arange(n)
        leaf = (self.left == here) & (self.right == here)
        behind = (self.left > here) & (self.left < n) & (self.right > here) & (self.right < n)
        if not (leaf | behind).all() or (self.roots < 0).any() or (self.roots >= n).any():
            raise InputError("The trees cannot be used: a node's children do not stand behind it.")
        if (self.feature < 0).any() or len(self.base) != 1:
            raise InputError("The trees cannot be used: they need columns counted from 0 and one base value.")

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray], prefix: str = "") -> TreeEnsemble:
        """Build from arrays named `prefix` + field.

        Raises
        ------
        InputError
            When one is missing or they do not fit together.
        """
        names = [field.name for field in fields(cls)]
        missing = [name for name in names if prefix + name not in tensors]
        if missing:
            raise InputError(f"The trees cannot be used: array '{prefix}{missing[0]}' is missing.")
        return cls(**{name: np.asarray(tensors[prefix + name]).reshape(-1) for name in names})

    @property
    def n_features(self) -> int:
        """Number of columns a sample needs."""
        return int(self.feature.max(initial=-1)) + 1

    def tensors(self, prefix: str = "") -> dict[str, np.ndarray]:
        """Arrays named `prefix` + field, for `from_tensors`."""
        return {prefix + field.name: getattr(self, field.name) for field in fields(self)}

    def predict(self, columns: np.ndarray) -> np.ndarray:
        """Predict samples of shape (n, n_features); shape (n,), float64.

        Raises
        ------
        InputError
            When there are fewer features than the trees look at.
        """
        samples = np.asarray(columns, dtype=np.float32)
        if samples.ndim != 2 or samples.shape[1] < self.n_features:
            raise InputError(
                f"The trees look at {self.n_features} features, but the samples have shape {samples.shape}."
            )
        sums = np.zeros(len(samples))
        chunk = max(1, _CHUNK_VALUES // max(1, len(self.roots)))
        for start in range(0, len(samples), chunk):
            sums[start : start + chunk] = self._leaves(samples[start : start + chunk])
        return self.base[0] + sums

    def _leaves(self, samples: np.ndarray) -> np.ndarray:
        """Sum over trees of the leaf values of a few samples."""
        row = np.arange(len(samples))[:, None]
        nodes = np.repeat(self.roots[None, :].astype(np.int64), len(samples), axis=0)
        while True:
            goes_left = samples[row, self.feature[nodes]] <= self.threshold[nodes]
            below = np.where(goes_left, self.left[nodes], self.right[nodes])
            if (below == nodes).all():
                return np.asarray(self.value[nodes].sum(axis=1, dtype=np.float64))
            nodes = below.astype(np.int64)
