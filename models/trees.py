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
_WALKING_ROWS = 8192
#: Levels walked before those that have arrived leave.
_LEVELS = 8

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
    def _tables(self) -> _Tables:
        return _Tables.of(self)

    def _samples(self, columns: np.ndarray) -> np.ndarray:
        samples = np.ascontiguousarray(columns, dtype=np.float32)
        if samples.ndim != 2 or samples.shape[1] < self.n_features:
            raise InputError(
                f"The trees look at {self.n_features} features, but the samples have shape {samples.shape}."
            )
        return samples


@dataclass(frozen=True)
class _Tables:
    """The nodes in the order and types that numpy looks up quickly.

    Roots come first, then the children of each inner node, the right one before the left, so that one number says where both stand.

    Parameters
    ----------
    feature, threshold
        Of each node; the threshold of a leaf is NaN, which nothing is at most.
    children
        Where the children of each node stand; a leaf's is the leaf.
    node
        Row of each node in `_Trees`.
    """

    feature: np.ndarray
    threshold: np.ndarray
    children: np.ndarray
    node: np.ndarray

    @classmethod
    def of(cls, trees: _Trees) -> _Tables:
        inner = np.flatnonzero(trees.left != np.arange(len(trees.left)))
        n_trees = len(trees.roots)
        node = np.empty(n_trees + 2 * len(inner), dtype=np.intp)
        node[:n_trees] = trees.roots
        node[n_trees::2], node[n_trees + 1 :: 2] = trees.right[inner], trees.left[inner]
        pair = np.full(len(trees.left), -1, dtype=np.intp)
        pair[inner] = n_trees + 2 * np.arange(len(inner))
        leaf = pair[node] < 0
        children = np.where(leaf, np.arange(len(node)), pair[node])
        threshold = np.where(leaf, trees.threshold.dtype.type(np.nan), trees.threshold[node])
        return cls(trees.feature[node].astype(np.intp), threshold, children, node)

    def walk(self, samples: np.ndarray, row: np.ndarray, tree: np.ndarray) -> np.ndarray:
        """Positions of the leaves that samples `row[k]` reach in trees `tree[k]`, shape (m,), level by level."""
        values, first = samples.ravel(), row * samples.shape[1]
        node = tree.astype(np.intp)
        arrived = node.copy()
        walking = np.arange(len(node))
        while len(walking):
            for _ in range(_LEVELS):  # who has arrived stays
                column = self.feature.take(node)
                column += first
                limit = self.threshold.take(node)
                goes_left = values.take(column) <= limit
                node = self.children.take(node)
                node += goes_left
            arrived[walking] = node
            on = np.flatnonzero(limit == limit)  # not NaN: a leaf was not yet where the last step began
            walking, node, first = walking.take(on), node.take(on), first.take(on)
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
            leaves = self._tables.walk(part, row, np.tile(np.arange(len(self.roots)), len(part)))
            values = self.value.reshape(-1)[self._tables.node[leaves]].reshape(len(part), len(self.roots))
            sums[start : start + chunk] = values.sum(axis=1, dtype=np.float64)
        return self.base[0] + sums


@dataclass(frozen=True)
class Forest(_Trees):
    """A random forest with several outputs: base + the mean over trees of the leaf that a sample falls into.

    `value` is what a leaf says about each output, shape (n_nodes, n_outputs), and `base` has shape (n_outputs,); for the rest see
    `_Trees`.
    """

    def votes(self, columns: np.ndarray) -> np.ndarray:
        """What each tree says of samples of shape (n, n_features); shape (n, n_trees, n_outputs), float32.

        Raises
        ------
        InputError
            When there are fewer features than the trees look at.
        """
        samples = self._samples(columns)
        said = np.empty((len(samples), len(self.roots), len(self.base)), dtype=np.float32)
        for start in range(0, len(samples), _WALKING_ROWS):
            part = samples[start : start + _WALKING_ROWS]
            row = np.arange(len(part))
            for tree in range(len(self.roots)):
                leaf = self._tables.walk(part, row, np.full(len(part), tree))
                said[start : start + len(part), tree] = self.value[self._tables.node.take(leaf)]
        said += self.base.astype(np.float32)
        return said

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
        outputs = [self.value[self._tables.node, output] for output in range(len(self.base))]
        for start in range(0, len(samples), _WALKING_ROWS):
            part = samples[start : start + _WALKING_ROWS]
            row = np.arange(len(part))
            sums, squares = np.zeros((len(self.base), len(part))), np.zeros(len(part))
            for tree in range(len(self.roots)):
                leaf = self._tables.walk(part, row, np.full(len(part), tree))
                for output, values in enumerate(outputs):
                    said = values.take(leaf)
                    sums[output] += said
                    squares += np.square(said, dtype=np.float64)
            sums /= len(self.roots)
            mean[start : start + _WALKING_ROWS] = self.base + sums.T
            variance = squares / len(self.roots) - (sums**2).sum(axis=0)
            spread[start : start + _WALKING_ROWS] = np.sqrt(np.maximum(variance, 0.0))
        return mean, spread
