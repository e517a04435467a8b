"""Regression trees as arrays: predicted with numpy alone, learned elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cached_property
from typing import TypeVar

import numpy as np

from .errors import InputError

#: Samples × trees worked on at a time.
_CHUNK_VALUES = 1 << 18
#: Samples that walk one tree together: their features and its nodes stay in the processor's cache.
_WALKING_ROWS = 2048
#: Levels walked before those that have arrived leave.
_LEVELS = 4

_Kind = TypeVar("_Kind", bound="_Trees")


@dataclass(frozen=True)
class _Trees:
    """Trees one behind the other.

    Nodes of all trees stand one after the other, each tree's root first. `left` and `right` are the rows of a node's children in the
    whole array, always behind the node; a leaf is its own child.

    Parameters
    ----------
    feature
        Column a node looks at, shape (n_nodes,), int16.
    threshold
        A sample goes left when its value, rounded to float32, is at most this, shape (n_nodes,), floats.
    left, right
        Children, shape (n_nodes,), int32.
    value
        What a leaf says, float32; see the subclass.
    roots
        First node of each tree, shape (n_trees,), int32.
    base
        Where the trees' values begin, shape (n_outputs,), float64.
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
        if (self.feature < 0).any() or self.value[:1].size not in (0, len(self.base)) or not len(self.base):
            raise InputError(
                "The trees cannot be used: they need columns counted from 0 and one base value per output."
            )

    @classmethod
    def from_tensors(cls: type[_Kind], tensors: Mapping[str, np.ndarray], prefix: str = "") -> _Kind:
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
        columns = {name: np.asarray(tensors[prefix + name]) for name in names}
        return cls(**{name: column if name == "value" else column.reshape(-1) for name, column in columns.items()})

    @property
    def n_features(self) -> int:
        """Number of columns a sample needs."""
        return int(self.feature.max(initial=-1)) + 1

    def tensors(self, prefix: str = "") -> dict[str, np.ndarray]:
        """Arrays named `prefix` + field, for `from_tensors`."""
        return {prefix + field.name: getattr(self, field.name) for field in fields(self)}

    @cached_property
    def _tables(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Column of each node and its two children, one behind the other, in the type numpy looks up by; and whether it is a leaf."""
        children = np.column_stack([self.left, self.right]).ravel().astype(np.intp)
        return self.feature.astype(np.intp), children, self.left == np.arange(len(self.left))

    def _samples(self, columns: np.ndarray) -> np.ndarray:
        samples = np.ascontiguousarray(columns, dtype=np.float32)
        if samples.ndim != 2 or samples.shape[1] < self.n_features:
            raise InputError(
                f"The trees look at {self.n_features} features, but the samples have shape {samples.shape}."
            )
        return samples

    def _walk(self, samples: np.ndarray, row: np.ndarray, node: np.ndarray) -> np.ndarray:
        """Leaves that sample `row[k]` reaches from `node[k]`, shape (m,), level by level."""
        feature, children, is_leaf = self._tables
        values, first = samples.ravel(), row * samples.shape[1]
        arrived = node.copy()
        walking = np.flatnonzero(~is_leaf.take(node))
        node, first = node[walking], first[walking]
        while len(walking):
            for _ in range(_LEVELS):  # who has arrived stays: a leaf is its own child
                goes_right = ~(values.take(first + feature.take(node)) <= self.threshold.take(node))
                node = children.take(2 * node + goes_right)
            arrived[walking] = node
            on = np.flatnonzero(~is_leaf.take(node))
            walking, node, first = walking[on], node[on], first[on]
        return arrived


@dataclass(frozen=True)
class TreeEnsemble(_Trees):
    """Gradient-boosted trees: base + Σ over trees of the value of the leaf that a sample falls into.

    `value` is what a leaf adds, learning rate included, shape (n_nodes,), and `base` has shape (1,); for the rest see `_Trees`.
    """

    def predict(self, columns: np.ndarray) -> np.ndarray:
        """Predict samples of shape (n, n_features); shape (n,), float64.

        Raises
        ------
        InputError
            When there are fewer features than the trees look at.
        """
        samples = self._samples(columns)
        sums = np.zeros(len(samples))
        chunk = max(1, _CHUNK_VALUES // max(1, len(self.roots)))
        for start in range(0, len(samples), chunk):
            part = samples[start : start + chunk]
            row = np.repeat(np.arange(len(part)), len(self.roots))
            leaves = self._walk(part, row, np.tile(self.roots.astype(np.intp), len(part)))
            values = self.value.reshape(-1)[leaves].reshape(len(part), len(self.roots))
            sums[start : start + chunk] = values.sum(axis=1, dtype=np.float64)
        return self.base[0] + sums


@dataclass(frozen=True)
class Forest(_Trees):
    """A random forest with several outputs: base + the mean over trees of the leaf that a sample falls into.

    `value` is what a leaf says about each output, shape (n_nodes, n_outputs), and `base` has shape (n_outputs,); for the rest see
    `_Trees`.
    """

    def predict(self, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predict samples of shape (n, n_features).

        Returns
        -------
        (mean, spread)
            Shape (n, n_outputs), and (n,): how far the trees are from their mean, root mean square.

        Raises
        ------
        InputError
            When there are fewer features than the trees look at, or no tree.
        """
        samples = self._samples(columns)
        if not len(self.roots):
            raise InputError("The trees cannot be used: there are none.")
        mean = np.empty((len(samples), len(self.base)))
        spread = np.empty(len(samples))
        for start in range(0, len(samples), _WALKING_ROWS):
            part = samples[start : start + _WALKING_ROWS]
            row = np.arange(len(part))
            sums, squares = np.zeros((len(part), len(self.base))), np.zeros(len(part))
            for root in self.roots.tolist():
                said = self.value[self._walk(part, row, np.full(len(part), root, dtype=np.intp))].astype(float)
                sums += said
                squares += (said**2).sum(axis=1)
            sums /= len(self.roots)
            mean[start : start + _WALKING_ROWS] = self.base + sums
            variance = squares / len(self.roots) - (sums**2).sum(axis=1)
            spread[start : start + _WALKING_ROWS] = np.sqrt(np.maximum(variance, 0.0))
        return mean, spread
