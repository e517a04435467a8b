"""DeepMEND's teacher: for each base station (BS) the β whose sPDI map comes nearest to the truth (section IV-A of the paper).

The search is done on a window of each BS's own, of blocks of cells, with the target's probability alone: only ∏ (1 − e^(−λt)) needs all
BSs. The paper tries every β; here all of a coarse set, then every step around the best ones, unless `exhaustive` asks for all.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree

from ..chunks import run_chunks
from ..errors import InputError
from ..grid import Grid
from ..progress import Progress, no_progress
from .ks2 import ks2
from .sites import local_spacing_m
from .windows import Window

#: The paper's range (section IV-A), in steps of 0.1.
BETAS = tuple(round(0.1 * step, 1) for step in range(1, 61))
_SIDE, _BLOCKS_PER_SPACING = 64, 5.0
#: A window holds at least this share of the truth, or all of the grid.
_LEAST_MASS = 0.995
_NEIGHBOURS = 16
_NODES, _CUT_OFF = 14, 1e-4
#: Cells worked on at a time, so that their rates stay in a core's cache.
_CELLS = 1024
#: Every so many β are tried first; then all between the neighbours of the best so many of them.
_COARSE_STEP, _BEST_COARSE = 5, 2
_CHUNK = 1


@dataclass(frozen=True)
class Teaching:
    """What the teacher found.

    Parameters
    ----------
    beta
        Best β of each BS, shape (n,).
    ks2
        Its KS2 against the truth, on the BS's window, shape (n,).
    curve
        KS2 of every β tried, NaN where it was not, shape (n, n_betas).
    maps
        P(ℓ|i) with the best β on the BS's window, blocks shared out to their cells, CSR, shape (n, n_cells), float32: soft labels in
        the form a student sees them.
    """

    beta: np.ndarray
    ks2: np.ndarray
    curve: np.ndarray
    maps: sparse.csr_matrix


def teach(
    sites_m: np.ndarray,
    grid: Grid,
    maps: sparse.csr_matrix,
    rows: np.ndarray,
    *,
    betas: tuple[float, ...] = BETAS,
    mask: np.ndarray | None = None,
    exhaustive: bool = False,
    threads: int = 2,
    progress: Progress = no_progress,
) -> Teaching:
    """Find the best β of some BSs.

    Parameters
    ----------
    sites_m
        Positions [m] of all BSs, shape (n_bs, 2).
    grid, maps
        The truth P(ℓ|i), CSR, shape (n_bs, n_cells).
    rows
        The BSs to teach, shape (n,); each has a map.
    betas
        To choose from, rising.
    mask
        Cells that may hold mass, shape (height, width), bool; None for all.
    exhaustive
        Try every β instead of a coarse set and then those around the best.

    Raises
    ------
    InputError
        When there is only one BS, or one to teach has no map.
    Cancelled
        From `progress`.
    """
    if len(sites_m) < 2:
        raise InputError("One base station alone has the same map for every β; the teacher needs at least two.")
    empty = rows[np.diff(maps.indptr)[rows] == 0]
    if len(empty):
        raise InputError(f"Base station {empty[0]} (counted from 0) has no true map, so there is no β to find.")
    spacing = local_spacing_m(sites_m)
    tree = cKDTree(sites_m)
    candidates = np.array(betas)

    def work(start: int, stop: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        found = []
        for row in rows[start:stop]:
            part = slice(maps.indptr[row], maps.indptr[row + 1])
            lesson = _Lesson.of(sites_m, tree, grid, mask, int(row), spacing[row], maps.indices[part], maps.data[part])
            curve = _curve(lesson, candidates, exhaustive)
            cells, values = lesson.window.spread(lesson.map_of(candidates[np.nanargmin(curve)]), grid, mask)
            kept = values > 0
            found.append((curve, cells[kept].astype(np.int32), values[kept].astype(np.float32)))
        return found

    found = [one for part in run_chunks(work, len(rows), _CHUNK, threads, progress) for one in part]
    curve = np.array([one[0] for one in found]).reshape(len(rows), len(candidates))
    best = np.nanargmin(curve, axis=1) if len(rows) else np.zeros(0, int)
    ends = np.concatenate([[0], np.cumsum([len(one[1]) for one in found])]).astype(np.int64)
    cells, values = (np.concatenate([one[part] for one in found]) if found else np.zeros(0) for part in (1, 2))
    labels = sparse.csr_matrix((values, cells, ends), shape=(len(rows), grid.size), dtype=np.float32)
    return Teaching(candidates[best], curve[np.arange(len(rows)), best], curve, labels)


@dataclass(frozen=True)
class _Lesson:
    """One BS's window.

    Parameters
    ----------
    log_distance
        log ‖ℓ − j‖, the target first, then other BSs, less that of the second nearest, shape (n_seen, side²), float32.
    truth, valid
        Mass, and share of cells that may hold mass, of each block, shape (side, side).
    """

    window: Window
    log_distance: np.ndarray
    truth: np.ndarray
    valid: np.ndarray

    def map_of(self, beta: float) -> np.ndarray:
        """P(ℓ|i) of each block with one β, shape (side, side), summing to one."""
        parts = [
            target_probability(np.float32(beta) * self.log_distance[:, start : start + _CELLS])
            for start in range(0, self.truth.size, _CELLS)
        ]
        map_ = np.concatenate(parts).reshape(self.truth.shape) * self.valid
        return np.asarray(map_ / max(map_.sum(dtype=np.float64), 1e-30), np.float64)

    @classmethod
    def of(
        cls,
        sites_m: np.ndarray,
        tree: cKDTree,
        grid: Grid,
        mask: np.ndarray | None,
        row: int,
        spacing_m: float,
        cells: np.ndarray,
        mass: np.ndarray,
    ) -> _Lesson:
        column = (sites_m[row, 0] - grid.x_min) / grid.cell_size_m
        down = (grid.y_max - sites_m[row, 1]) / grid.cell_size_m
        stride = max(1, round(spacing_m / _BLOCKS_PER_SPACING / grid.cell_size_m))
        while True:
            half = stride * _SIDE / 2
            window = Window(round(down - half), round(column - half), stride, _SIDE)
            truth = window.gather(cells, mass, grid)
            if truth.sum() >= _LEAST_MASS * mass.sum() or half > max(grid.shape):
                break
            stride = math.ceil(stride * 1.5)
        x_m, y_m = window.centres(grid)
        points = np.stack(np.meshgrid(x_m, y_m), axis=-1).reshape(-1, 2)
        distance, nearest = tree.query(points, k=min(_NEIGHBOURS, tree.n))
        # A block is as near to a BS inside it as its cells are on average.
        softening = (0.38 * stride * grid.cell_size_m) ** 2
        own = np.hypot(*(points - sites_m[row]).T)
        distance = np.where(nearest == row, np.inf, distance)
        log_distance = 0.5 * np.log(np.column_stack([own, distance]).T ** 2 + softening)
        log_distance -= np.partition(log_distance, 1, axis=0)[1]
        valid = window.valid_cells(grid, mask) / stride**2
        return cls(window, np.ascontiguousarray(log_distance, np.float32), truth / truth.sum(), valid)


def _curve(lesson: _Lesson, betas: np.ndarray, exhaustive: bool) -> np.ndarray:
    """KS2 of each β, NaN where it was not tried."""
    curve = np.full(len(betas), np.nan)

    def attempt(indices: np.ndarray) -> None:
        for index in indices[np.isnan(curve[indices])]:
            curve[index] = ks2(lesson.truth, lesson.map_of(float(betas[index])))

    if exhaustive:
        attempt(np.arange(len(betas)))
        return curve
    coarse = np.unique(np.append(np.arange(0, len(betas), _COARSE_STEP), len(betas) - 1))
    attempt(coarse)
    for index in coarse[np.argsort(curve[coarse])[:_BEST_COARSE]]:
        attempt(np.arange(max(0, index - _COARSE_STEP + 1), min(len(betas), index + _COARSE_STEP)))
    return curve


def target_probability(log_rate: np.ndarray) -> np.ndarray:
    """P(i|ℓ) of equation (2) for the first BS of each cell, good to about 1e-3.

    Parameters
    ----------
    log_rate
        log λ relative to the second smallest of the cell, shape (n_bs, n_cells), float32; `inf` takes a BS out.

    Returns
    -------
    numpy.ndarray
        Shape (n_cells,).
    """
    log_rate = np.clip(log_rate, -30, 30)
    n_bs = len(log_rate)
    if n_bs == 1:
        return np.ones(log_rate.shape[1], np.float32)
    log_cut_off, end = math.log(_CUT_OFF), np.float32(math.log(math.log(n_bs / _CUT_OFF)))
    # ∏ min(1, λt) falls below the cut-off left of `start`: Newton's steps on a concave function from the left.
    start = np.full(log_rate.shape[1], log_cut_off / 2, np.float32)
    for _ in range(3):
        below = np.minimum(log_rate + start, 0)
        start -= (below.sum(axis=0) - log_cut_off) / np.maximum(np.count_nonzero(below, axis=0), 1)
    start = np.clip(start, -30, end - 1)
    step = (end - start) / np.float32(_NODES)
    # Beyond `end` the others are all small, so the rest of the integral of a nearest target is e^(−λt) there.
    last = np.exp(log_rate[0] + end)
    total = np.exp(-last) * (1 + step**2 / 24 * last * (1 - last))  # with the midpoint rule's error at that end
    x = np.exp(log_rate + (start + step / 2))
    growth = np.exp(step)
    for _ in range(_NODES):
        np.clip(x, 1e-12, 40, out=x)
        decay = np.exp(-x)
        total += step * x[0] * decay[0] * (1 - decay[1:]).prod(axis=0)
        x *= growth
    return np.maximum(total, 0)  # the correction takes a little too much where nothing is left
