"""How far base stations (BSs) reach: which of them matter in a tile, with a bound on what the others could still win.

A tile may leave BSs out only where the probability that any of them is the largest is provably below a tolerance, at every
point of the tile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from scipy.spatial import cKDTree

from ..errors import InputError

#: Largest attenuation β.
MAX_BETA = 20.0
#: Largest probability, summed over all dropped BSs, that a cell may lose by looking at its nearest BSs only.
NEGLIGIBLE = {"float32": 2e-7, "float64": 2e-10}
#: Numbers of BSs a tile may look at, below all of them.
STEPS = tuple(step for power in range(3, 14) for step in (1 << power, 3 << (power - 1)))
#: The BSs around a tile are looked up for so many steps at a time.
_STEPS_PER_LOOK = 3
#: Points of a tile may be this close to a BS [m] as far as the bound is concerned; one that may come closer is never dropped.
_CLOSEST_M = 1e-3
_FARTHEST_M = 1e8
#: Nodes of the bound's integral, in log t, relative to the second smallest kept rate.
_LOG_T_STEP = 0.6
_LOG_T = np.arange(-13, 4.5, _LOG_T_STEP)
_LOG_RATE_LIMIT = 60.0
#: Sizes of the classes of BSs, those that reach farthest first.
_CLASS_SIZES = 4 ** np.arange(1, 16)
#: Ranks at which bunches of BSs begin: one by one up to 16, then in steps of at least 6 %.
_BUNCHES = np.unique(np.floor(np.concatenate([np.arange(17), 16 * 1.06 ** np.arange(1, 130)])).astype(int))
_ALL = slice(None)


@dataclass(frozen=True)
class WeightedSpdi:
    """An sPDI whose rates differ between BSs, with one slope or two.

    With r = ‖ℓ − x_j‖ / s_j, log λ_j(ℓ) = β_j log r + (β'_j − β_j) / 4 log(1 + r⁴) − g_j, which rises with distance.

    Parameters
    ----------
    beta
        Attenuation β_j of each BS, shape (n_bs,), above 0 and at most `MAX_BETA`.
    scale_m
        Scale s_j of each BS [m], its reach: there the slopes meet, shape (n_bs,). Of one slope, it is also its power.
    share
        Weight of this sPDI in the mixture it is part of, in (0, 1].
    beta_far
        Attenuation β'_j beyond the scale, shape (n_bs,), within the limits of `beta`; None where it is the same.
    strength
        g_j: how much stronger a BS is than its scale says, shape (n_bs,); None for 0.
    """

    beta: np.ndarray
    scale_m: np.ndarray
    share: float = 1.0
    beta_far: np.ndarray | None = None
    strength: np.ndarray | None = None

    def check(self, n_bs: int) -> None:
        """Raise an InputError unless this has sensible parameters for `n_bs` BSs."""
        for name, values in (
            ("BETA", self.beta),
            ("The attenuation beyond the scale", self.beta_far),
            ("The scale", self.scale_m),
            ("The strength", self.strength),
        ):
            if values is not None and np.shape(values) != (n_bs,):
                raise InputError(f"{name} has the shape {np.shape(values)}, but there are {n_bs} base stations.")
        check_beta(self.beta)
        if self.beta_far is not None:
            check_beta(self.beta_far)
        wrong = self.scale_m[~((self.scale_m > 0) & np.isfinite(self.scale_m))]
        if wrong.size:
            raise InputError(f"The scale of a base station is {wrong[0]:g} m; it must be a positive length.")
        if self.strength is not None and not np.isfinite(self.strength).all():
            raise InputError("The strength of a base station is not finite.")

    def log_rate(self, log_m: np.ndarray | float, bs: np.ndarray | slice = _ALL) -> np.ndarray:
        """Log λ of BSs at distances e^`log_m` [m], an array that broadcasts with those of the BSs."""
        log_r = log_m - np.log(self.scale_m[bs])
        result = self.beta[bs] * log_r
        if self.beta_far is not None:
            result = result + (self.beta_far[bs] - self.beta[bs]) / 4 * np.logaddexp(0, 4 * log_r)
        return result if self.strength is None else result - self.strength[bs]

    def log_rates_of_tiles(self, squared: np.ndarray, bs: np.ndarray, distance_m: np.ndarray) -> np.ndarray:
        """Return log λ of BSs in the cells of some tiles, up to a constant per tile.

        Parameters
        ----------
        squared
            ‖ℓ − x_j‖² [m²], shape (n_kept, n_tiles * n_cells); may hold 0 and `inf`.
        bs
            The BSs of each tile, shape (n_tiles, n_kept).
        distance_m
            Any length like the distance of each BS to its tile [m], shape (n_tiles, n_kept): ratios to it are taken before
            logarithms, which keeps the numbers small and float32 exact.
        """
        offset = self.log_rate(np.log(distance_m), bs)
        offset -= np.partition(offset, 1, axis=1)[:, 1:2]

        def per_bs(values: np.ndarray) -> np.ndarray:
            return values.T[:, :, None].astype(squared.dtype)

        ratio = squared.reshape(bs.shape[1], len(bs), -1) * per_bs(distance_m**-2)
        bend = None
        if self.beta_far is not None:
            there = np.minimum((distance_m / self.scale_m[bs]) ** 4, 1e30)
            out = np.isinf(ratio)
            bend = np.log((1 + np.where(out, 0, ratio) ** 2 * per_bs(there)) * per_bs(1 / (1 + there)))
            bend *= per_bs((self.beta_far[bs] - self.beta[bs]) / 4)
        with np.errstate(divide="ignore"):
            log_rate = np.log(ratio, out=ratio)
        log_rate *= per_bs(self.beta[bs] / 2)
        if bend is not None:
            log_rate += bend
        log_rate += per_bs(offset)
        return log_rate.reshape(squared.shape)


def check_beta(beta: np.ndarray | float) -> None:
    """Raise an InputError unless all attenuations are above 0 and at most `MAX_BETA`."""
    values = np.asarray(beta, float)
    wrong = values[~((values > 0) & (values <= MAX_BETA))]
    if wrong.size:
        raise InputError(
            f"BETA is {wrong.flat[0]:g}; it must be above 0 and at most {MAX_BETA:g} (the literature uses 0.1 to 6)."
        )


class Sight(Protocol):
    """The BSs that some tiles see."""

    @property
    def index(self) -> np.ndarray:
        """Those first that matter most, shape (n_tiles, n_seen)."""

    def lost(self, tiles: np.ndarray, n_kept: int) -> np.ndarray:
        """Upper bound of the probability that a BS beyond the first `n_kept` < n_seen serves a point of some tiles, shape (n_tiles,)."""


class Reach(Protocol):
    """Knows how far BSs reach."""

    n_bs: int

    def look(self, centres_m: np.ndarray, radius_m: float, n_most: int) -> Sight:
        """Look around from tiles, to tell how many BSs up to `n_most`, fewer than there are, each needs.

        Parameters
        ----------
        centres_m
            Tile centres (x, y) [m], shape (n_tiles, 2).
        radius_m
            Half the diagonal of a tile [m].
        """


@dataclass(frozen=True)
class _NearestSight:
    """Where only the `neighbours` nearest BSs of a point count; distances [m] are those to the tile centres, rising."""

    index: np.ndarray
    distance_m: np.ndarray
    radius_m: float
    neighbours: int

    def lost(self, tiles: np.ndarray, n_kept: int) -> np.ndarray:
        """Nothing where all are kept that can be among the nearest of any point of the tile, else everything."""
        if n_kept < self.neighbours:
            return np.ones(len(tiles))
        last = self.distance_m[tiles, self.neighbours - 1] + 2 * self.radius_m
        return np.where(self.distance_m[tiles, n_kept] > last, 0.0, 1.0)


@dataclass(frozen=True)
class _RatesSight:
    """Where rates count.

    Parameters
    ----------
    lowest, highest
        Limits of the log rates over the tile, per mixed sPDI, shape (n_tiles, n_seen).
    shares
        Weights of the mixed sPDIs.
    touches
        Whether a BS seen may stand in the tile, same shape.
    unseen
        Per mixed sPDI, lower limits of the log rates of those not seen, shape (n_tiles, n_classes).
    many_unseen
        How many these are, shape (n_classes,).
    """

    index: np.ndarray
    lowest: Sequence[np.ndarray]
    highest: Sequence[np.ndarray]
    shares: Sequence[float]
    touches: np.ndarray
    unseen: Sequence[np.ndarray]
    many_unseen: np.ndarray

    def lost(self, tiles: np.ndarray, n_kept: int) -> np.ndarray:
        """With the kept rates at their largest and the dropped ones at their smallest over the tile."""
        lost = np.zeros(len(tiles))
        for share, lowest, highest, unseen in zip(self.shares, self.lowest, self.highest, self.unseen):
            kept, many_kept = _bunched(np.maximum, highest[tiles, :n_kept])
            seen, many_seen = _bunched(np.minimum, lowest[tiles, n_kept:], n_kept)
            dropped, many_dropped = np.hstack([seen, unseen[tiles]]), np.hstack([many_seen, self.many_unseen])
            lost += share * _bound(kept, many_kept, dropped, many_dropped)
        lost[self.touches[tiles, n_kept:].any(axis=1)] = np.inf
        return lost


class NearestReach:
    """Reach where only the `neighbours` nearest BSs of a point count."""

    def __init__(self, tree: cKDTree, neighbours: int) -> None:
        self.n_bs = tree.n
        self._tree = tree
        self._neighbours = neighbours

    def look(self, centres_m: np.ndarray, radius_m: float, n_most: int) -> Sight:
        """Look up the nearest."""
        distance, index = self._tree.query(centres_m, k=n_most + 1, workers=1)
        return _NearestSight(index, distance, radius_m, self._neighbours)


class UniformReach:
    """Reach under one β for all BSs: the nearest matter most, and those not seen are no nearer than the last one seen."""

    def __init__(self, tree: cKDTree, beta: float) -> None:
        self.n_bs = tree.n
        self._tree = tree
        self._beta = beta

    def look(self, centres_m: np.ndarray, radius_m: float, n_most: int) -> Sight:
        """Look up the nearest, and as many again."""
        distance, index = self._tree.query(centres_m, k=min(2 * n_most, self.n_bs), workers=1)
        lowest = self._beta * np.log(np.maximum(distance - radius_m, _CLOSEST_M))
        highest = self._beta * np.log(distance + radius_m)
        many = np.array([float(self.n_bs - distance.shape[1])])
        touches = distance - radius_m <= _CLOSEST_M
        return _RatesSight(index, [lowest], [highest], [1.0], touches, [lowest[:, -1:]], many)


class WeightedReach:
    """Reach under a mixture of `WeightedSpdi`: those of the smallest rates in any of them matter most.

    The BSs are looked up class by class, those with the smallest rates at a typical distance in the first and smallest class, so a few
    that reach far are seen from far away. Those not seen are no nearer than the last one seen of their class.
    """

    def __init__(self, tree: cKDTree, components: Sequence[WeightedSpdi]) -> None:
        self.n_bs = tree.n
        self._components = components
        typical_m = 5 * float(np.median(tree.query(tree.data, k=2)[0][:, 1]))
        self._log_m = np.linspace(math.log(_CLOSEST_M), math.log(_FARTHEST_M), 512)
        order = np.argsort(np.minimum.reduce([one.log_rate(math.log(typical_m)) for one in components]))
        sizes = _CLASS_SIZES[: np.searchsorted(_CLASS_SIZES.cumsum(), tree.n)].cumsum()
        self._classes = np.split(order, sizes)
        self._trees = [cKDTree(tree.data[members]) for members in self._classes]
        # Per component and class, the smallest log rate that a BS of the class has at the distances `_log_m`.
        self._smallest = [
            [np.min(one.log_rate(self._log_m[:, None], members), axis=1) for members in self._classes]
            for one in components
        ]

    def look(self, centres_m: np.ndarray, radius_m: float, n_most: int) -> Sight:
        """Look up the nearest of each class."""
        found = [tree.query(centres_m, k=np.arange(min(tree.n, n_most + 1)) + 1, workers=1) for tree in self._trees]
        distance = np.concatenate([part[0] for part in found], axis=1)
        index = np.concatenate([members[part[1]] for members, part in zip(self._classes, found)], axis=1)
        low, high = np.log(np.maximum(distance - radius_m, _CLOSEST_M)), np.log(distance + radius_m)
        lowest = [one.log_rate(low, index) for one in self._components]
        highest = [one.log_rate(high, index) for one in self._components]
        urgency = np.minimum.reduce([rate - np.partition(rate, 1, axis=1)[:, 1:2] for rate in lowest])
        touches = distance - radius_m <= _CLOSEST_M
        urgency[touches] = -np.inf
        order = np.argsort(urgency, axis=1)

        # A class of which not all are seen: the table holds the rates at discrete distances, the one below is a lower limit.
        in_part = [number for number, part in enumerate(found) if part[0].shape[1] < self._trees[number].n]
        places = [
            np.searchsorted(
                self._log_m, np.log(np.maximum(found[number][0][:, -1] - radius_m, _CLOSEST_M)), side="right"
            )
            - 1
            for number in in_part
        ]
        unseen = [
            np.stack([smallest[number][place] for number, place in zip(in_part, places)], axis=1)
            if in_part
            else np.zeros((len(centres_m), 0))
            for smallest in self._smallest
        ]
        return _RatesSight(
            np.take_along_axis(index, order, axis=1),
            [np.take_along_axis(rate, order, axis=1) for rate in lowest],
            [np.take_along_axis(rate, order, axis=1) for rate in highest],
            [one.share for one in self._components],
            np.take_along_axis(touches, order, axis=1),
            unseen,
            np.array([float(self._trees[number].n - found[number][0].shape[1]) for number in in_part]),
        )


def _bunched(
    limit: Any,  # noqa: ANN401 - a ufunc
    log_rates: np.ndarray,
    first_rank: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Gather BSs, in about rising order of rates, into bunches of about equal ones, and take the `limit` of each.

    Returns
    -------
    tuple[numpy.ndarray, numpy.ndarray]
        Log rates, shape (n_tiles, n_bunches), and the number of BSs in each bunch, shape (n_bunches,).
    """
    n = log_rates.shape[1]
    starts = np.searchsorted(_BUNCHES, [first_rank, first_rank + n])
    edges = np.concatenate([[0], _BUNCHES[slice(*starts)] - first_rank, [n]])
    edges = np.unique(edges)
    return limit.reduceat(log_rates, edges[:-1], axis=1), np.diff(edges).astype(float)


def _bound(kept: np.ndarray, many_kept: np.ndarray, dropped: np.ndarray, many_dropped: np.ndarray) -> np.ndarray:
    """Upper bound of P(a dropped X_j is the largest) ≤ Σ_dropped ∫ λ_j e^(−λ_j t) ∏_kept (1 − e^(−λ_k t)) dt.

    Parameters
    ----------
    kept, dropped
        Largest log rates of the BSs kept, smallest ones of those dropped, shapes (n_tiles, n_kept) and (n_tiles, n_dropped).
    many_kept, many_dropped
        How many BSs each rate stands for, shapes (n_kept,) and (n_dropped,).

    Returns
    -------
    numpy.ndarray
        Shape (n_tiles,).
    """
    scale = np.partition(kept, 1, axis=1)[:, 1:2]
    kept = np.exp(np.clip(kept - scale, -_LOG_RATE_LIMIT, _LOG_RATE_LIMIT))
    dropped = np.exp(np.clip(dropped - scale, -_LOG_RATE_LIMIT, _LOG_RATE_LIMIT))
    single = np.searchsorted(many_kept, 1.5)  # the first bunches are of one
    weight = dropped * many_dropped
    lost = np.zeros(len(kept))
    for t in np.exp(_LOG_T):
        small = -np.expm1(-kept * t)
        all_kept_small = small[:, :single].prod(axis=1)
        if single < len(many_kept):
            all_kept_small *= np.exp(np.log(np.maximum(small[:, single:], 1e-300)) @ many_kept[single:])
        beyond = np.exp(-np.minimum(dropped * t, _LOG_RATE_LIMIT))
        lost += _LOG_T_STEP * t * all_kept_small * np.einsum("ij,ij->i", weight, beyond)
    # Beyond the last t there is at most Σ e^(−λt): much where a dropped BS may come closer to a cell than the kept ones.
    last = math.exp(_LOG_T[-1] + _LOG_T_STEP / 2)
    beyond = np.exp(-np.minimum(dropped * last, _LOG_RATE_LIMIT))
    return np.asarray(lost + beyond @ many_dropped)


@dataclass(frozen=True)
class TileNeighbours:
    """Tiles that look at the same number of BSs.

    Parameters
    ----------
    tiles
        Indices into the tile list, shape (n_tiles,).
    neighbours
        The BSs each tile looks at, shape (n_tiles, n_neighbours).
    """

    tiles: np.ndarray
    neighbours: np.ndarray


def group_tiles(
    reach: Reach, centres_m: np.ndarray, radius_m: float, negligible: float, steps: Sequence[int] = STEPS
) -> list[TileNeighbours]:
    """Find the BSs that matter in each tile: as many as it takes to make the rest negligible.

    Parameters
    ----------
    centres_m
        Tile centres (x, y) [m], shape (n_tiles, 2).
    radius_m
        Half the diagonal of a tile [m].
    negligible
        Largest probability that all dropped BSs together may have at any point of a tile.
    steps
        Numbers of BSs to try, rising; after those, all.
    """
    pending: np.ndarray = np.arange(len(centres_m))
    groups: list[TileNeighbours] = []
    steps = [step for step in steps if step < reach.n_bs]
    for first in range(0, len(steps), _STEPS_PER_LOOK):
        if not pending.size:
            return groups
        some = steps[first : first + _STEPS_PER_LOOK]
        sight = reach.look(centres_m[pending], radius_m, some[-1])
        rows = np.arange(len(pending))
        for n_kept in some:
            enough = sight.lost(rows, n_kept) <= negligible
            if enough.any():
                kept = sight.index[rows[enough], :n_kept].astype(np.int32)
                groups.append(TileNeighbours(pending[rows[enough]], kept))
            rows = rows[~enough]
            if not rows.size:
                break
        pending = pending[rows]
    if pending.size:
        every = np.broadcast_to(np.arange(reach.n_bs, dtype=np.int32), (len(pending), reach.n_bs))
        groups.append(TileNeighbours(pending, every))
    return groups


def keep_nearest(squared: np.ndarray, neighbours: int) -> None:
    """Set all but the `neighbours` smallest of each column of `squared` to infinity, in place."""
    if neighbours < squared.shape[0]:
        limit = np.partition(squared, neighbours - 1, axis=0)[neighbours - 1]
        squared[squared > limit] = np.inf
