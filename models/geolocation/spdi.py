"""sPDI: P(i|ℓ) from distances alone, equation (2) of the DeepMEND paper for all base stations (BSs) that matter at a cell.

With λ_j = ‖ℓ − j‖^β, substituting r = λ_i t in equation (2) gives::

    P(i|ℓ) = ∫ λ_i e^(−λ_i t) ∏_(j≠i) (1 − e^(−λ_j t)) dt

the probability that X_i is the largest of independent exponentials X_j with rates λ_j; so Σ_i P(i|ℓ) = 1. On the grid
t = e^s the trapezoid rule converges exponentially, and all BSs of a cell share its nodes. Three things make it exact and cheap:

* the nodes run from where ∏ min(1, λ_j t) falls below a tolerance to where Σ e^(−λ_j t) does, found per cell;
* the nearest BS, whose λ may be as small as one likes (a BS on a cell centre has λ = 0), takes what the others leave;
* BSs are dropped only where the probability that any of them is the largest is provably below a tolerance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

#: Nodes of the trapezoid rule and integrand cut-off, chosen so that the quadrature is one digit better than the promise
#: (1e-6 in float32, 1e-9 in float64); measured by tests/models/test_spdi.py.
_NODES = {"float32": 24, "float64": 48}
_CUT_OFF = {"float32": 1e-8, "float64": 1e-12}
#: Largest probability, summed over all dropped BSs, that a cell may lose by looking at its nearest BSs only.
NEGLIGIBLE = {"float32": 2e-7, "float64": 2e-10}
#: log λ relative to the second nearest BS is clipped here: beyond, a BS holds all or nothing of a cell in any precision.
_LOG_RATE_MIN, _LOG_RATE_MAX = -60.0, 60.0
#: λt beyond which e^(−λt) counts as nothing.
_FAR = 60.0
_NEIGHBOUR_STEPS = (
    8,
    12,
    16,
    24,
    32,
    48,
    64,
    96,
    128,
    192,
    256,
    384,
    512,
    768,
    1024,
    1536,
    2048,
    3072,
    4096,
    6144,
    8192,
)


def association_probabilities(squared_distances: Any, beta: float) -> Any:  # noqa: ANN401 - numpy array or torch tensor
    """Return P(i|ℓ) of equation (2) for BSs i and cells ℓ.

    Parameters
    ----------
    squared_distances
        ‖ℓ − i‖², any unit, shape (n_bs, n_cells), float32 or float64; a numpy array, or a torch tensor on any device. `inf`
        takes a BS out of a cell.
    beta
        Attenuation β > 0.

    Returns
    -------
    numpy.ndarray or torch.Tensor
        Same shape, type and device; columns sum to one.
    """
    if isinstance(squared_distances, np.ndarray):
        return _probabilities_numpy(squared_distances, beta)
    return _probabilities_torch(squared_distances, beta)


def _nodes(dtype: str, n_bs: int) -> int:
    """Number of nodes: ∏ (1 − e^(−λt)) of n alike BSs rises within 1 / log n of s, so hundreds of them need a finer grid."""
    return math.ceil(_NODES[dtype] * max(1.0, math.log(n_bs) / math.log(64)))


def _probabilities_numpy(squared: np.ndarray, beta: float) -> np.ndarray:
    n_bs, n_cells = squared.shape
    dtype = squared.dtype
    nodes, cut_off = _nodes(dtype.name, n_bs), _CUT_OFF[dtype.name]
    if n_bs == 1:
        return np.ones_like(squared)
    columns = np.arange(n_cells)
    nearest = squared.argmin(axis=0)
    ratio = squared.copy()
    ratio[nearest, columns] = np.inf
    second = ratio.min(axis=0)
    ratio[nearest, columns] = squared[nearest, columns]
    # Dividing before the logarithm keeps log λ small where it matters, so float32 loses nothing to 50 km spacings.
    ratio /= second
    with np.errstate(divide="ignore"):
        log_rate = np.log(ratio, out=ratio)
    log_rate *= dtype.type(beta / 2)
    np.clip(log_rate, _LOG_RATE_MIN, _LOG_RATE_MAX, out=log_rate)

    # Both log ∏ min(1, λt) and log ∏ (1 − e^(−λt)) are concave in s = log t, so Newton's steps from the left never pass the
    # root: each is a safe lower limit of the nodes. The second one is tighter where many BSs are alike.
    log_cut_off = math.log(cut_off)
    end = math.log(math.log(n_bs / cut_off))
    start = (log_cut_off - log_rate.sum(axis=0)) / n_bs
    buffer = np.empty_like(log_rate)
    for _ in range(3):
        np.add(log_rate, start, out=buffer)
        active = np.count_nonzero(buffer < 0, axis=0)
        np.minimum(buffer, 0, out=buffer)
        start -= (buffer.sum(axis=0) - log_cut_off) / np.maximum(active, 1)
    x = np.exp(log_rate, out=log_rate)
    complement = np.empty_like(x)
    for _ in range(2):
        np.minimum(start, end, out=start)  # or a BS on the cell centre would send x beyond float32
        np.multiply(x, np.exp(start), out=buffer)
        np.clip(buffer, 1e-30, _FAR, out=buffer)
        np.expm1(buffer, out=complement)
        np.divide(buffer, complement, out=complement)
        slope = complement.sum(axis=0)
        np.negative(buffer, out=buffer)
        np.log(np.negative(np.expm1(buffer, out=buffer), out=buffer), out=buffer)
        start += np.clip((log_cut_off - buffer.sum(axis=0)) / slope, 0, 20)
    np.minimum(start, end, out=start)
    step = (end - start) / nodes

    # x = −λ_j t at the node; each node multiplies t by e^step. u = 1 − e^(−λt) needs no expm1: where it is imprecise, ∏u is ~0.
    # Beyond _FAR, e^(−λt) is nothing; stopping there keeps all values normal numbers (denormal ones cost 30 times as much).
    x *= np.negative(np.exp(start + step / 2))
    growth = np.exp(step).astype(dtype)
    step = np.log(growth, dtype=np.float64).astype(dtype)  # of the rounded growth: one bias less
    probability = np.zeros_like(x)
    tiny = dtype.type(1e-30)
    for _ in range(nodes):
        np.maximum(x, -_FAR, out=x)
        np.exp(x, out=buffer)
        np.subtract(1, buffer, out=complement)
        np.maximum(complement, tiny, out=complement)
        all_of_them = np.multiply.reduce(complement, axis=0)
        all_of_them *= step
        buffer /= complement
        buffer *= x
        buffer *= all_of_them
        probability -= buffer
        x *= growth
    probability[nearest, columns] = 0
    rest = probability.sum(axis=0, dtype=np.float64)
    probability[nearest, columns] = np.maximum(1 - rest, 0)
    return probability


def _probabilities_torch(squared: Any, beta: float) -> Any:  # noqa: ANN401 - torch is imported lazily
    """Do the same as `_probabilities_numpy`, in torch, on the device of `squared`."""
    import torch

    n_bs = squared.shape[0]
    name = str(squared.dtype).replace("torch.", "")
    nodes, cut_off = _nodes(name, n_bs), _CUT_OFF[name]
    if n_bs == 1:
        return torch.ones_like(squared)
    two_smallest, nearest = squared.topk(2, dim=0, largest=False)
    nearest = nearest[:1]
    log_rate = (squared / two_smallest[1]).log_().mul_(beta / 2).clamp_(_LOG_RATE_MIN, _LOG_RATE_MAX)
    log_cut_off = math.log(cut_off)
    end = math.log(math.log(n_bs / cut_off))
    start = (log_cut_off - log_rate.sum(0)) / n_bs
    for _ in range(3):
        shifted = log_rate + start
        active = (shifted < 0).sum(0).clamp_(min=1)
        start = start - (shifted.clamp_(max=0).sum(0) - log_cut_off) / active
    rate = log_rate.exp_()
    for _ in range(2):
        start = start.clamp_(max=end)
        here = (rate * start.exp()).clamp_(1e-30, _FAR)
        slope = (here / here.expm1()).sum(0)
        start = start + ((log_cut_off - here.neg().expm1().neg().log().sum(0)) / slope).clamp_(0, 20)
    start = start.clamp_(max=end)
    step = (end - start) / nodes
    x = rate * (start + step / 2).exp().neg()
    growth = step.exp()
    step = growth.double().log().to(step.dtype)
    probability = torch.zeros_like(x)
    for _ in range(nodes):
        x = x.clamp_(min=-_FAR)
        value = x.exp()
        complement = (1 - value).clamp_(min=1e-30)
        probability -= value.div_(complement).mul_(x).mul_(complement.prod(0) * step)
        x = x.mul_(growth)
    probability.scatter_(0, nearest, 0)
    rest = probability.sum(0, keepdim=True, dtype=torch.float64)
    return probability.scatter_(0, nearest, (1 - rest).clamp_(min=0).to(probability.dtype))


@dataclass(frozen=True)
class TileNeighbours:
    """Tiles that look at the same number of BSs.

    Parameters
    ----------
    tiles
        Indices into the tile list, shape (n_tiles,).
    neighbours
        The BSs each tile looks at, nearest to its centre first, shape (n_tiles, n_neighbours).
    """

    tiles: np.ndarray
    neighbours: np.ndarray


def group_tiles(
    tree: cKDTree, centres_m: np.ndarray, radius_m: float, beta: float, neighbours: int | None, negligible: float
) -> list[TileNeighbours]:
    """Find the BSs that matter in each tile.

    With `neighbours` set, these are all that can be among the `neighbours` nearest of any point in the tile. Otherwise as many
    as it takes to make the rest negligible: P(a dropped X_j is the largest) ≤ Σ_dropped ∫ λ_j e^(−λ_j t) ∏_kept (1 − e^(−λ_k t)) dt,
    with the kept rates at their largest and the dropped ones at their smallest over the tile.

    Parameters
    ----------
    tree
        The BSs' positions [m].
    centres_m
        Tile centres (x, y) [m], shape (n_tiles, 2).
    radius_m
        Half the diagonal of a tile [m].
    negligible
        Largest probability that all dropped BSs together may have at any point of a tile.
    """
    n_bs = tree.n
    pending: np.ndarray = np.arange(len(centres_m))
    groups: list[TileNeighbours] = []
    for n_kept in [step for step in _NEIGHBOUR_STEPS if step < n_bs]:
        if not pending.size:
            return groups
        n_seen = min(2 * n_kept, n_bs)
        distance, index = tree.query(centres_m[pending], k=n_seen, workers=1)
        if neighbours is None:
            enough = _lost(distance, n_kept, n_bs, radius_m, beta) <= negligible
        elif neighbours > n_kept:
            enough = np.zeros(len(pending), bool)
        else:
            enough = distance[:, n_kept] > distance[:, neighbours - 1] + 2 * radius_m
        if enough.any():
            groups.append(TileNeighbours(pending[enough], index[enough, :n_kept].astype(np.int32)))
        pending = pending[~enough]
    if pending.size:
        _, index = tree.query(centres_m[pending], k=n_bs, workers=1)
        groups.append(TileNeighbours(pending, index.reshape(len(pending), n_bs).astype(np.int32)))
    return groups


def _lost(distance: np.ndarray, n_kept: int, n_bs: int, radius_m: float, beta: float) -> np.ndarray:
    """Upper bound of the probability that any dropped BS serves a cell of the tile, shape (n_tiles,)."""
    nearest_dropped = distance[:, n_kept] - radius_m
    kept = beta * np.log(distance[:, :n_kept] + radius_m)
    dropped = beta * np.log(np.maximum(distance[:, n_kept:] - radius_m, 1e-3))
    scale = kept[:, 1:2].copy()
    kept -= scale
    dropped -= scale
    np.exp(np.clip(kept, -60, 60, out=kept), out=kept)
    np.exp(np.clip(dropped, -60, 60, out=dropped), out=dropped)
    lost = np.zeros(len(distance))
    step = 0.3
    for log_t in np.arange(-13, 4.5, step):
        t = math.exp(log_t)
        all_kept_small = (-np.expm1(-kept * t)).prod(axis=1)
        beyond = dropped * np.exp(-np.minimum(dropped * t, _FAR))
        lost += step * t * all_kept_small * (beyond.sum(axis=1) + (n_bs - distance.shape[1]) * beyond[:, -1])
    # Beyond the last t there is at most Σ e^(−λt): much where a dropped BS may come closer to a cell than the kept ones.
    beyond = np.exp(-np.minimum(dropped * t * math.exp(step / 2), _FAR))
    lost += beyond.sum(axis=1) + (n_bs - distance.shape[1]) * beyond[:, -1]
    lost[nearest_dropped <= 1e-3] = np.inf
    return lost


def keep_nearest(squared: np.ndarray, neighbours: int) -> None:
    """Set all but the `neighbours` smallest of each column of `squared` to infinity, in place."""
    if neighbours < squared.shape[0]:
        limit = np.partition(squared, neighbours - 1, axis=0)[neighbours - 1]
        squared[squared > limit] = np.inf
