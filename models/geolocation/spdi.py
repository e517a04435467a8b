"""sPDI: P(i|ℓ) from rates alone, equation (2) of the DeepMEND paper for all base stations (BSs) that matter at a cell.

With rates λ_j(ℓ), in the paper λ_j = ‖ℓ − j‖^β, substituting r = λ_i t in equation (2) gives::

    P(i|ℓ) = ∫ λ_i e^(−λ_i t) ∏_(j≠i) (1 − e^(−λ_j t)) dt

the probability that X_i is the largest of independent exponentials X_j with rates λ_j; so Σ_i P(i|ℓ) = 1, whatever the rates. On
the grid t = e^s the trapezoid rule converges exponentially, and all BSs of a cell share its nodes. Two things make it exact and cheap:

* the nodes run from where ∏ min(1, λ_j t) falls below a tolerance to where Σ e^(−λ_j t) does, found per cell;
* the BS of the smallest rate, which may be as small as one likes (a BS on a cell centre has λ = 0), takes what the others leave.

Which BSs matter at a cell is the business of `reach`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

#: Nodes of the trapezoid rule and integrand cut-off, chosen so that the quadrature is one digit better than the promise
#: (1e-6 in float32, 1e-9 in float64); measured by tests/models/test_spdi.py.
_NODES = {"float32": 24, "float64": 48}
_CUT_OFF = {"float32": 1e-8, "float64": 1e-12}
#: log λ relative to the second smallest is clipped here: beyond, a BS holds all or nothing of a cell in any precision.
_LOG_RATE_MIN, _LOG_RATE_MAX = -60.0, 60.0
#: Largest difference of log λ in a group of BSs that are taken together.
GROUP_WIDTH = 0.15
#: Stands for an infinite log rate that others are compared with, so that none becomes inf − inf.
_FINITE = 1e30
#: λt beyond which e^(−λt) counts as nothing.
_FAR = 60.0


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
    if squared_distances.shape[0] == 1:
        return squared_distances**0  # ones, whatever the kind of array
    # Dividing before the logarithm keeps log λ small where it matters, so float32 loses nothing to 50 km spacings.
    if isinstance(squared_distances, np.ndarray):
        nearest, second = _two_smallest(squared_distances)
        with np.errstate(divide="ignore"):
            log_rate = np.log(squared_distances / second)
        log_rate *= squared_distances.dtype.type(beta / 2)
        return _shares_numpy(log_rate, nearest)
    two_smallest, order = squared_distances.topk(2, dim=0, largest=False)
    return _shares_torch((squared_distances / two_smallest[1]).log_().mul_(beta / 2), order[:1])


def association_of_rates(log_rate: Any) -> Any:  # noqa: ANN401 - numpy array or torch tensor
    """Return P(i|ℓ) for any rates λ_j(ℓ).

    Parameters
    ----------
    log_rate
        log λ_j(ℓ), up to a constant per cell, shape (n_bs, n_cells), float32 or float64; a numpy array, or a torch tensor on any
        device. `-inf` gives a BS the cell, `inf` takes it out (not all of them). Only differences within a cell matter; in
        float32 they are as good as the numbers are small.

    Returns
    -------
    numpy.ndarray or torch.Tensor
        Same shape, type and device; columns sum to one.
    """
    if log_rate.shape[0] == 1:
        return log_rate**0  # ones, whatever the kind of array
    if isinstance(log_rate, np.ndarray):
        nearest, second = _two_smallest(log_rate)
        return _shares_numpy(log_rate - np.clip(second, -_FINITE, _FINITE), nearest)
    two_smallest, order = log_rate.topk(2, dim=0, largest=False)
    return _shares_torch(log_rate - two_smallest[1].clamp(-_FINITE, _FINITE), order[:1])


def target_probabilities(
    squared_distances: np.ndarray, beta: float, groups: np.ndarray, targets: np.ndarray
) -> np.ndarray:
    """Return P(i|ℓ) of some BSs, at a cost that hardly depends on how many others there are.

    Far away BSs of about the same rate are replaced by two rates that agree with theirs in number, mean, variance and skewness of log λ:
    ∏ (1 − e^(−λ_j t)) is a smooth function of log λ_j, so where those of a group differ by `GROUP_WIDTH` at most, this costs 1e-5.

    Parameters
    ----------
    squared_distances
        ‖ℓ − j‖², shape (n_bs, n_cells), float32 or float64; finite.
    beta
        Attenuation β > 0.
    groups
        First rows of the groups, rising, shape (n_groups,); those before the first of them count one by one.
    targets
        Rows asked for in each cell, shape (n_targets, n_cells), among those that count one by one or not; −1 for none.

    Returns
    -------
    numpy.ndarray
        Shape (n_targets, n_cells).
    """
    n_bs, n_cells = squared_distances.shape
    dtype = squared_distances.dtype
    n_single = int(groups[0])
    # A group starts behind the nearest, so the two smallest are among those that count one by one.
    nearest, second = _two_smallest(squared_distances[:n_single])
    with np.errstate(divide="ignore"):
        log_rate = np.log(squared_distances / second)
    log_rate *= dtype.type(beta / 2)
    asked = np.take_along_axis(log_rate, np.maximum(targets, 0), axis=0)
    far = log_rate[n_single:]
    sizes = np.diff(np.append(groups, n_bs))
    size = sizes[:, None].astype(dtype)
    mean = np.add.reduceat(far, groups - n_single, axis=0) / size
    away = far - np.repeat(mean, sizes, axis=0)
    power = away * away
    deviation = np.sqrt(np.add.reduceat(power, groups - n_single, axis=0) / size) + dtype.type(1e-6)
    power *= away
    skewness = np.add.reduceat(power, groups - n_single, axis=0) / (size * deviation**3)
    half = np.sqrt(1 + skewness**2 / 4)
    up, down = skewness / 2 + half, skewness / 2 - half
    rates = np.concatenate([log_rate[:n_single], mean + up * deviation, mean + down * deviation, asked])
    many = np.concatenate(
        [np.ones((n_single, n_cells), dtype), size * -down / (2 * half), size * up / (2 * half), np.zeros_like(asked)]
    )
    found = _shares_numpy(rates, nearest, many)
    result = found[len(found) - len(targets) :]
    # The nearest one takes what the others leave, and only in its own row.
    single = np.where((targets >= 0) & (targets < n_single), targets, 0)
    result = np.where(targets < n_single, np.take_along_axis(found, single, axis=0), result)
    return np.where(targets >= 0, result, 0)


def _two_smallest(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row of the smallest value of each column and the second smallest value, shape (n_columns,) each."""
    columns = np.arange(values.shape[1])
    smallest = values.argmin(axis=0)
    others = values.copy()
    others[smallest, columns] = np.inf
    return smallest, others.min(axis=0)


def _nodes(dtype: str, n_bs: float) -> int:
    """Number of nodes: ∏ (1 − e^(−λt)) of n alike BSs rises within 1 / log n of s, so hundreds of them need a finer grid."""
    return math.ceil(_NODES[dtype] * max(1.0, math.log(n_bs) / math.log(64)))


def _shares_numpy(log_rate: np.ndarray, nearest: np.ndarray, many: np.ndarray | None = None) -> np.ndarray:
    """Integrate. `log_rate` is relative to the second smallest of its column and overwritten; `nearest` is the smallest's row.

    With `many`, shape (n_bs, n_cells), a row stands for so many BSs of one rate (for none: it is asked for, but in no one's way); the
    result is that of each.
    """
    n_rows, n_cells = log_rate.shape
    dtype = log_rate.dtype
    columns = np.arange(n_cells)
    n_bs = n_rows if many is None else float(many.sum(axis=0).max())
    nodes, cut_off = _nodes(dtype.name, n_bs), _CUT_OFF[dtype.name]
    np.clip(log_rate, _LOG_RATE_MIN, _LOG_RATE_MAX, out=log_rate)

    def total(values: np.ndarray) -> np.ndarray:
        return values.sum(axis=0) if many is None else np.einsum("ij,ij->j", many, values)

    # Both log ∏ min(1, λt) and log ∏ (1 − e^(−λt)) are concave in s = log t, so Newton's steps from the left never pass the
    # root: each is a safe lower limit of the nodes. The second one is tighter where many BSs are alike.
    log_cut_off = math.log(cut_off)
    end = math.log(math.log(n_bs / cut_off))
    start = (log_cut_off - total(log_rate)) / dtype.type(n_bs)
    buffer = np.empty_like(log_rate)
    for _ in range(3):
        np.add(log_rate, start, out=buffer)
        active = np.count_nonzero(buffer < 0, axis=0) if many is None else total((buffer < 0).astype(dtype))
        np.minimum(buffer, 0, out=buffer)
        start -= (total(buffer) - log_cut_off) / np.maximum(active, 1)
    x = np.exp(log_rate, out=log_rate)
    complement = np.empty_like(x)
    for _ in range(2):
        np.minimum(start, end, out=start)  # or a BS on the cell centre would send x beyond float32
        np.multiply(x, np.exp(start), out=buffer)
        np.clip(buffer, 1e-30, _FAR, out=buffer)
        np.expm1(buffer, out=complement)
        np.divide(buffer, complement, out=complement)
        slope = total(complement)
        np.negative(buffer, out=buffer)
        np.log(np.negative(np.expm1(buffer, out=buffer), out=buffer), out=buffer)
        start += np.clip((log_cut_off - total(buffer)) / slope, 0, 20)
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
        if many is None:
            all_of_them = np.multiply.reduce(complement, axis=0)
        else:
            all_of_them = np.exp(np.maximum(total(np.log(complement)), -_FAR))
        all_of_them *= step
        buffer /= complement
        buffer *= x
        buffer *= all_of_them
        probability -= buffer
        x *= growth
    probability[nearest, columns] = 0
    rest = probability.sum(axis=0, dtype=np.float64) if many is None else total(probability)
    probability[nearest, columns] = np.maximum(1 - rest, 0)
    return probability


def _shares_torch(log_rate: Any, nearest: Any) -> Any:  # noqa: ANN401 - torch is imported lazily
    """Do the same as `_shares_numpy`, in torch, on the device of `log_rate`; `nearest` has shape (1, n_cells)."""
    import torch

    n_bs = log_rate.shape[0]
    name = str(log_rate.dtype).replace("torch.", "")
    nodes, cut_off = _nodes(name, n_bs), _CUT_OFF[name]
    log_rate = log_rate.clamp_(_LOG_RATE_MIN, _LOG_RATE_MAX)
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
