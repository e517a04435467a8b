"""What is learned from and what is judged by: samples, whole trajectories, or whole days apart."""

from __future__ import annotations

import numpy as np

from ..errors import InputError
from .measurements import Measurements

#: `trajectory` and `day` are what a user will get; `sample` is the paper's, with neighbouring seconds of one walk on both sides.
SPLITS = ("trajectory", "day", "sample")
_DAY_S = 86_400.0


def groups(data: Measurements, split: str) -> np.ndarray:
    """Code of what must stay together for each record, shape (n,); -1 for records without truth.

    A day is the solar day in which a trajectory begins where it is, so that none is cut at midnight of Greenwich.

    Raises
    ------
    InputError
        When `split` is unknown, or all records with truth are of one group.
    """
    known = data.has_truth
    name = data.trajectories[int(data.trajectory[known][0])] if known.any() else "none"
    code = np.full(len(data), -1, dtype=np.int64)
    if split == "sample":
        code[known] = np.arange(int(known.sum()))
    elif split == "trajectory":
        code[known] = np.unique(data.trajectory[known], return_inverse=True)[1]
    elif split == "day":
        starts = data.starts[:-1]
        part = np.repeat(np.arange(len(starts)), np.diff(data.starts))
        lon = np.array([_first(data.lon[begin:end]) for begin, end in zip(starts, data.starts[1:])])
        day = np.floor((data.time_s[starts] + np.nan_to_num(lon) * _DAY_S / 360) / _DAY_S).astype(np.int64)
        code[known] = np.unique(day[part[known]], return_inverse=True)[1]
        name = str(np.datetime64(int(day[part[known]][0]), "D")) if known.any() else "none"
    else:
        raise InputError(f"The split is '{split}'; choose one of: {', '.join(SPLITS)}.")
    found = np.unique(code[known])
    if len(found) < 2 and split != "sample":
        other = "trajectory or sample" if split == "day" else "sample"
        raise InputError(
            f"All records with a true position belong to one {split} ('{name}'), so none can be held out by {split}. Add more, set "
            f"TEST_SHARE to 0 to learn without a test, or use SPLIT={other}."
        )
    return code


def held_out(code: np.ndarray, share: float, rng: np.random.Generator) -> np.ndarray:
    """Mask of the records to judge by, shape (n,): whole groups of `code`, as many as come nearest to `share` of the records.

    At least one group is held out and at least one is left, whatever the share.
    """
    size = np.bincount(code[code >= 0])
    order = rng.permutation(len(size))
    nearest = int(np.argmin(np.abs(np.cumsum(size[order]) - share * size.sum())))
    return np.isin(code, order[: min(nearest + 1, len(size) - 1)])


def folds(code: np.ndarray, n_folds: int, rng: np.random.Generator) -> list[np.ndarray]:
    """Masks of `n_folds` parts of whole groups of `code`, about equal in records, each of shape (n,)."""
    size = np.bincount(code[code >= 0])
    fold_of = np.empty(len(size), dtype=np.int64)
    filled = np.zeros(n_folds, dtype=np.int64)
    for group in sorted(rng.permutation(len(size)).tolist(), key=lambda one: -size[one]):  # the largest first
        fold_of[group] = np.argmin(filled)
        filled[fold_of[group]] += size[group]
    return [np.isin(code, np.flatnonzero(fold_of == fold)) for fold in range(n_folds)]


def _first(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(finite[0]) if len(finite) else float("nan")
