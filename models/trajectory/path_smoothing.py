"""Where a device was over time, given how likely each place is at each moment: forward-backward over places, with speeds.

Records that follow each other within seconds are one moment. Between moments a device stands, walks or drives: a mixture of
Gaussians whose width grows with time, so the sampling interval does not matter. They separate into columns and rows of the grid, so
a step costs two small matrix products.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix

from .measurements import Measurements
from .radio_map import Places

#: Records within this time are one moment [s].
MOMENT_S = 4.0
#: Share of those that stand, walk and drive, and their speeds [m/s].
SPEEDS = ((0.25, 0.7), (0.45, 4.0), (0.30, 10.0))
#: Share of squares' widths that a place is unsure by.
_WITHIN_SQUARE = 0.35
#: Probability to be anywhere a moment later: nothing is impossible.
_ANYWHERE = 1e-4
#: Time between moments is rounded to half octaves, at most this many [s].
_LONGEST_S = 128.0
#: Steps whose standard deviation is at most this many squares are sparse matrices that reach this many standard deviations.
_NEAR_SQUARES, _REACH_WIDTHS = 3.0, 3.5
#: Rounds of the search for the median.
_ROUNDS = 2

if TYPE_CHECKING:
    _Kernel = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Moments:
    """Records put together.

    Parameters
    ----------
    of
        Moment of each record, shape (n,).
    first
        First record of each moment, and n, shape (n_moments + 1,).
    time_s
        Mean time since the trajectory began, shape (n_moments,).
    starts
        First moment of each trajectory, and n_moments.
    since_s
        Time since the trajectory began of each record, shape (n,).
    """

    of: np.ndarray
    first: np.ndarray
    time_s: np.ndarray
    starts: np.ndarray
    since_s: np.ndarray

    @classmethod
    def of_records(cls, data: Measurements) -> Moments:
        """Put records together by trajectory and time."""
        starts = data.starts
        part = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        since = data.time_s - data.time_s[starts[:-1]][part]
        tick = np.floor(since / MOMENT_S)
        new = np.ones(len(data), dtype=bool)
        new[1:] = (np.diff(part) != 0) | (np.diff(tick) != 0)
        of = np.cumsum(new) - 1
        first = np.append(np.flatnonzero(new), len(data))
        time_s = np.bincount(of, since) / np.maximum(np.diff(first), 1)
        return cls(of, first, time_s, np.append(of[starts[:-1]], len(first) - 1), since)

    def mean(self, values: np.ndarray) -> np.ndarray:
        """Mean over the records of each moment of values of shape (n, m)."""
        sums = np.add.reduceat(values, self.first[:-1], axis=0)
        return sums / np.diff(self.first)[:, None].astype(values.dtype)

    def between(self, values: np.ndarray) -> np.ndarray:
        """Values of moments at the times of the records: linear in time, constant before the first and after the last moment."""
        part = np.repeat(np.arange(len(self.starts) - 1), np.diff(self.starts))
        apart_s = float(self.since_s.max(initial=0.0)) + 1.0
        key = self.time_s + part * apart_s
        mine = part[self.of]
        low, high = self.time_s[self.starts[:-1]][mine], self.time_s[self.starts[1:] - 1][mine]
        return np.interp(np.clip(self.since_s, low, high) + mine * apart_s, key, values)


class Motion:
    """How a device moves between places; keeps what it has worked out."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self._near: dict[int, tuple[csr_matrix, csr_matrix]] = {}
        self._far: dict[int, list[tuple[float, _Kernel, np.ndarray]]] = {}

    def classes(self, seconds: np.ndarray) -> np.ndarray:
        """Times between moments, rounded: codes of shape (n,)."""
        return np.rint(2 * np.log2(np.clip(seconds, 1.0, _LONGEST_S))).astype(np.int64)

    def ahead(self, now: np.ndarray, code: int) -> np.ndarray:
        """Probabilities (n, m) of where devices are, given where they were."""
        if self._widths(code)[-1] <= _NEAR_SQUARES:
            moved = (self._steps(code)[1] @ now.T).T
        else:
            moved = np.zeros_like(now)
            for share, kernel, total in self._kernels(code):
                moved += np.float32(share) * self.places.blurred(now / total, kernel)
        return (1 - _ANYWHERE) * moved + np.float32(_ANYWHERE / now.shape[1]) * now.sum(axis=1, keepdims=True)

    def back(self, later: np.ndarray, code: int) -> np.ndarray:
        """Likelihoods (n, m) of what is heard later, given where devices are: the transpose of `ahead`."""
        if self._widths(code)[-1] <= _NEAR_SQUARES:
            moved = (self._steps(code)[0] @ later.T).T
        else:
            moved = np.zeros_like(later)
            for share, kernel, total in self._kernels(code):
                moved += np.float32(share) * self.places.blurred(later, kernel) / total
        return (1 - _ANYWHERE) * moved + np.float32(_ANYWHERE / later.shape[1]) * later.sum(axis=1, keepdims=True)

    def _widths(self, code: int) -> list[float]:
        """Standard deviations by speed, in squares."""
        square_m = float(self.places.square_m[0])
        return [float(np.hypot(_WITHIN_SQUARE, speed * 2.0 ** (code / 2) / square_m)) for _, speed in SPEEDS]

    def _steps(self, code: int) -> tuple[csr_matrix, csr_matrix]:
        """Probability to be at a place (column) after having been at another (row), and its transpose: for short steps."""
        if code not in self._near:
            index, m = self.places.index, len(self.places)
            columns, rows = self.places.shape
            widths = self._widths(code)
            reach = int(np.ceil(_REACH_WIDTHS * widths[-1]))
            place_at = np.full((columns + 2 * reach, rows + 2 * reach), -1)
            place_at[index[:, 0] + reach, index[:, 1] + reach] = np.arange(m)
            steps = np.array([(i, j) for i in range(-reach, reach + 1) for j in range(-reach, reach + 1)])
            steps = steps[np.hypot(*steps.T) <= max(_REACH_WIDTHS * widths[-1], 1.0)]
            other = place_at[index[:, :1] + steps[:, 0] + reach, index[:, 1:] + steps[:, 1] + reach]
            there = other >= 0
            chance = np.zeros(other.shape)
            for (share, _), width in zip(SPEEDS, widths):
                part = np.where(there, np.exp(-0.5 * (steps**2).sum(axis=1) / width**2), 0.0)
                chance += share * part / part.sum(axis=1, keepdims=True)
            ends = np.concatenate([[0], np.cumsum(there.sum(axis=1))])
            found = csr_matrix((chance[there].astype(np.float32), other[there], ends), shape=(m, m))
            self._near[code] = found, found.T.tocsr()
        return self._near[code]

    def _kernels(self, code: int) -> list[tuple[float, _Kernel, np.ndarray]]:
        """For long steps, by speed: its share, weights between columns and rows, and their sum for each place."""
        if code not in self._far:
            found = []
            for (share, _), width in zip(SPEEDS, self._widths(code)):
                kernel = self.places.blur(width * float(self.places.square_m[0]))
                total = self.places.blurred(np.ones((1, len(self.places)), dtype=np.float32), kernel)
                found.append((share, kernel, total))
            self._far[code] = found
        return self._far[code]


def smooth(likelihood: np.ndarray, moments: Moments, motion: Motion) -> np.ndarray:
    """Probability of each place at each moment given all that a trajectory heard, shape (n_moments, m), float32.

    Parameters
    ----------
    likelihood
        Logarithm, shape (n_moments, m).
    """
    chance = np.exp(likelihood - likelihood.max(axis=1, keepdims=True)).astype(np.float32)
    chance /= chance.sum(axis=1, keepdims=True)
    codes = motion.classes(np.diff(moments.time_s, prepend=0.0))
    starts, length = moments.starts[:-1], np.diff(moments.starts)
    past = chance.copy()
    for step in range(1, int(length.max(initial=0))):
        rows = starts[length > step] + step
        for code in np.unique(codes[rows]):
            here = rows[codes[rows] == code]
            past[here] = _normal(motion.ahead(past[here - 1], int(code)) * chance[here])
    future = np.ones_like(chance)
    for step in range(int(length.max(initial=0)) - 1, 0, -1):
        rows = starts[length > step] + step
        for code in np.unique(codes[rows]):
            here = rows[codes[rows] == code]
            future[here - 1] = _normal(motion.back(future[here] * chance[here], int(code)))
    past *= future
    return _normal(past)


def _normal(values: np.ndarray) -> np.ndarray:
    return values / np.maximum(values.sum(axis=1, keepdims=True), np.float32(1e-30))


def middle(chance: np.ndarray, xy_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Geometric median of places by probability, shape (n, 2) [m], and the root mean square distance from it, shape (n,)."""
    xy = xy_m.astype(np.float32)
    square = (xy**2).sum(axis=1)
    at = chance @ xy
    for _ in range(_ROUNDS):
        away = np.maximum((at**2).sum(axis=1)[:, None] + square - 2 * at @ xy.T, 0.0)
        weight = chance / np.sqrt(away + 100.0)
        at = (weight @ xy) / weight.sum(axis=1, keepdims=True)
    away = np.maximum((at**2).sum(axis=1)[:, None] + square - 2 * at @ xy.T, 0.0)
    return at.astype(float), np.sqrt((chance * away).sum(axis=1)).astype(float)
