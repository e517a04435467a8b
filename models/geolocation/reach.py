"""How far base stations (BSs) reach: which of them matter in a tile, with a bound on what the others could still win.

A tile may leave BSs out only where the probability that any of them is the largest is provably below a tolerance, at every
point of the tile.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from scipy.spatial import cKDTree

from ..errors import InputError

#: Largest attenuation β.
MAX_BETA = 20.0
#: Largest probability, summed over all dropped BSs, that a cell may lose by looking at its nearest BSs only.
NEGLIGIBLE = {"float32": 2e-7, "float64": 2e-10}
#: Numbers of BSs a tile may look at, below all of them.
_STEPS = tuple(step for power in range(3, 14) for step in (1 << power, 3 << (power - 1)))
#: Points of a tile may be this close to a BS [m] as far as the bound is concerned; one that may come closer is never dropped.
_CLOSEST_M = 1e-3
_FARTHEST_M = 1e8
#: Nodes of the bound's integral, in log t, relative to the second smallest kept rate.
_LOG_T_STEP = 0.6
_LOG_T = np.arange(-13, 4.5, _LOG_T_STEP)
_LOG_RATE_LIMIT = 60.0
#: Sizes of the classes of BSs, those that reach farthest first.
_CLASS_SIZES = 4 ** np.arange(1, 16)
#: Where the bunches begin into which dropped BSs are gathered.
_BUNCHES = np.array([0, 1, 2, 3, 4, 6, *_STEPS])
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


class Reach(Protocol):
    """What a tile loses by looking at some BSs only."""

    n_bs: int

    def keep(self, centres_m: np.ndarray, radius_m: float, n_kept: int) -> tuple[np.ndarray, np.ndarray]:
        """Choose `n_kept` BSs for each tile, fewer than there are.

        Parameters
        ----------
        centres_m
            Tile centres (x, y) [m], shape (n_tiles, 2).
        radius_m
            Half the diagonal of a tile [m].

        Returns
        -------
        tuple[numpy.ndarray, numpy.ndarray]
            The BSs kept, shape (n_tiles, n_kept), and an upper bound of the probability that any other serves a point of the
            tile, shape (n_tiles,).
        """


class NearestReach:
    """Reach where only the `neighbours` nearest BSs of a point count."""

    def __init__(self, tree: cKDTree, neighbours: int) -> None:
        self.n_bs = tree.n
        self._tree = tree
        self._neighbours = neighbours

    def keep(self, centres_m: np.ndarray, radius_m: float, n_kept: int) -> tuple[np.ndarray, np.ndarray]:
        """Keep nothing less than all that can be among the nearest of any point of a tile."""
        distance, index = self._tree.query(centres_m, k=n_kept + 1, workers=1)
        if n_kept < self._neighbours:
            return index[:, :n_kept], np.ones(len(centres_m))
        return index[:, :n_kept], np.where(distance[:, -1] > distance[:, self._neighbours - 1] + 2 * radius_m, 0.0, 1.0)


class UniformReach:
    """Reach under one β for all BSs: the nearest matter most."""

    def __init__(self, tree: cKDTree, beta: float) -> None:
        self.n_bs = tree.n
        self._tree = tree
        self._beta = beta

    def keep(self, centres_m: np.ndarray, radius_m: float, n_kept: int) -> tuple[np.ndarray, np.ndarray]:
        """Keep the nearest; those not seen are no nearer than the last one seen."""
        distance, index = self._tree.query(centres_m, k=min(2 * n_kept, self.n_bs), workers=1)
        kept = self._beta * np.log(distance[:, :n_kept] + radius_m)
        dropped = self._beta * np.log(np.maximum(distance[:, n_kept:] - radius_m, _CLOSEST_M))
        many = np.ones(dropped.shape[1])
        many[-1] += self.n_bs - distance.shape[1]
        lost = _bound(kept, dropped, many)
        lost[distance[:, n_kept] - radius_m <= _CLOSEST_M] = np.inf
        return index[:, :n_kept], lost


class WeightedReach:
    """Reach under a mixture of `WeightedSpdi`: those of the smallest rates matter most.

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

    def keep(self, centres_m: np.ndarray, radius_m: float, n_kept: int) -> tuple[np.ndarray, np.ndarray]:
        """Keep those that come first in any of the mixed sPDIs."""
        found = [tree.query(centres_m, k=np.arange(1, min(tree.n, n_kept + 1) + 1), workers=1) for tree in self._trees]
        distance = np.concatenate([part[0] for part in found], axis=1)
        index = np.concatenate([members[part[1]] for members, part in zip(self._classes, found)], axis=1)
        may_touch = distance - radius_m <= _CLOSEST_M
        low, high = np.log(np.maximum(distance - radius_m, _CLOSEST_M)), np.log(distance + radius_m)
        lowest = [one.log_rate(low, index) for one in self._components]
        highest = [one.log_rate(high, index) for one in self._components]
        urgency = np.minimum.reduce([rate - np.partition(rate, 1, axis=1)[:, 1:2] for rate in lowest])
        urgency[may_touch] = -np.inf
        order = np.argsort(urgency, axis=1)
        lost = np.zeros(len(centres_m))
        # Many dropped BSs are bounded by the first of each bunch.
        bunches = _BUNCHES[: np.searchsorted(_BUNCHES, index.shape[1] - n_kept)]
        sizes = np.diff(np.append(bunches, index.shape[1] - n_kept)).astype(float)
        for one, low_rate, high_rate, smallest in zip(self._components, lowest, highest, self._smallest):
            kept = np.take_along_axis(high_rate, order[:, :n_kept], axis=1)
            seen = np.take_along_axis(low_rate, order[:, n_kept:], axis=1)
            dropped = [np.minimum.reduceat(seen, bunches, axis=1)]
            many = [sizes]
            for tree, rates, (far, _) in zip(self._trees, smallest, found):
                if far.shape[1] < tree.n:
                    # The table holds the rates at discrete distances; the one below is a lower limit, as rates rise with distance.
                    nearest = np.log(np.maximum(far[:, -1] - radius_m, _CLOSEST_M))
                    dropped.append(rates[np.searchsorted(self._log_m, nearest, side="right") - 1, None])
                    many.append(np.array([float(tree.n - far.shape[1])]))
            lost += one.share * _bound(kept, np.concatenate(dropped, axis=1), np.concatenate(many))
        touched = np.take_along_axis(may_touch, order[:, n_kept:], axis=1).any(axis=1)
        for tree, (far, _) in zip(self._trees, found):
            touched |= (far.shape[1] < tree.n) & (far[:, -1] - radius_m <= _CLOSEST_M)
        lost[touched] = np.inf
        return np.take_along_axis(index, order[:, :n_kept], axis=1), lost


def _bound(kept: np.ndarray, dropped: np.ndarray, many: np.ndarray) -> np.ndarray:
    """Upper bound of P(a dropped X_j is the largest) ≤ Σ_dropped ∫ λ_j e^(−λ_j t) ∏_kept (1 − e^(−λ_k t)) dt.

    Parameters
    ----------
    kept, dropped
        Largest log rates of the BSs kept, smallest ones of those dropped, shapes (n_tiles, n_kept) and (n_tiles, n_dropped);
        both are overwritten.
    many
        How many BSs each dropped rate stands for, shape (n_dropped,).

    Returns
    -------
    numpy.ndarray
        Shape (n_tiles,).
    """
    scale = np.partition(kept, 1, axis=1)[:, 1:2]
    kept -= scale
    dropped -= scale
    np.exp(np.clip(kept, -_LOG_RATE_LIMIT, _LOG_RATE_LIMIT, out=kept), out=kept)
    np.exp(np.clip(dropped, -_LOG_RATE_LIMIT, _LOG_RATE_LIMIT, out=dropped), out=dropped)
    weight = dropped * many
    lost = np.zeros(len(kept))
    for t in np.exp(_LOG_T):
        all_kept_small = (-np.expm1(-kept * t)).prod(axis=1)
        beyond = np.exp(-np.minimum(dropped * t, _LOG_RATE_LIMIT))
        lost += _LOG_T_STEP * t * all_kept_small * np.einsum("ij,ij->i", weight, beyond)
    # Beyond the last t there is at most Σ e^(−λt): much where a dropped BS may come closer to a cell than the kept ones.
    last = math.exp(_LOG_T[-1] + _LOG_T_STEP / 2)
    beyond = np.exp(-np.minimum(dropped * last, _LOG_RATE_LIMIT))
    return np.asarray(lost + (beyond * many).sum(axis=1))


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


def group_tiles(reach: Reach, centres_m: np.ndarray, radius_m: float, negligible: float) -> list[TileNeighbours]:
    """Find the BSs that matter in each tile: as many as it takes to make the rest negligible.

    Parameters
    ----------
    centres_m
        Tile centres (x, y) [m], shape (n_tiles, 2).
    radius_m
        Half the diagonal of a tile [m].
    negligible
        Largest probability that all dropped BSs together may have at any point of a tile.
    """
    pending: np.ndarray = np.arange(len(centres_m))
    groups: list[TileNeighbours] = []
    for n_kept in [step for step in _STEPS if step < reach.n_bs]:
        if not pending.size:
            return groups
        kept, lost = reach.keep(centres_m[pending], radius_m, n_kept)
        enough = lost <= negligible
        if enough.any():
            groups.append(TileNeighbours(pending[enough], kept[enough].astype(np.int32)))
        pending = pending[~enough]
    if pending.size:
        every = np.broadcast_to(np.arange(reach.n_bs, dtype=np.int32), (len(pending), reach.n_bs))
        groups.append(TileNeighbours(pending, every))
    return groups


def keep_nearest(squared: np.ndarray, neighbours: int) -> None:
    """Set all but the `neighbours` smallest of each column of `squared` to infinity, in place."""
    if neighbours < squared.shape[0]:
        limit = np.partition(squared, neighbours - 1, axis=0)[neighbours - 1]
        squared[squared > limit] = np.inf
