"""Windows to train the student on: what it sees of each base station (BS) and what it should say."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree

from ..errors import InputError, MemoryBudgetError
from ..geolocation.student_windows import CHANNELS, StudentWindow, channels, to_target
from ..geolocation.windows import Window
from ..grid import Grid
from ..progress import Progress, no_progress
from .truth import TruthNetwork

#: Bytes a window's cell costs: three channels and the target as float16, its probability as float32 and whether it counts.
_BYTES_PER_CELL = 2 * (CHANNELS + 1) + 4 + 1
#: Cells of a fixed window may be this share larger or smaller than a whole number of the grid's cells.
_SAME_SIZE = 1e-6


@dataclass(frozen=True)
class StudentData:
    """Windows, one per example, row 0 north.

    Parameters
    ----------
    channels
        What the student sees, shape (n, 3, side, side), float16.
    target
        y′, shape (n, side, side), float16.
    valid
        Cells that count: on the grid and inside its mask, shape (n, side, side), bool.
    probability
        The label's share of each cell among the cells that count, shape (n, side, side), float32. Of a crop, it sums to the share of
        the whole window's mass that the crop holds.
    """

    channels: np.ndarray
    target: np.ndarray
    valid: np.ndarray
    probability: np.ndarray

    def __len__(self) -> int:
        return len(self.channels)

    def sample(self, n: int, rng: np.random.Generator) -> StudentData:
        """Return `n` random examples, or all where there are no more."""
        if len(self) <= n:
            return self
        chosen = np.sort(rng.choice(len(self), n, replace=False))
        return StudentData(self.channels[chosen], self.target[chosen], self.valid[chosen], self.probability[chosen])


def student_data(
    networks: Sequence[TruthNetwork],
    labels: Sequence[sparse.csr_matrix],
    window: StudentWindow,
    rng: np.random.Generator,
    *,
    jitter: float = 0.0,
    windows_per_bs: int = 1,
    crop: int = 0,
    memory_mb: float = 4096.0,
    progress: Progress = no_progress,
) -> StudentData:
    """Cut the windows of all targets of all networks.

    The cells of an adaptive window are blocks of a whole number of grid cells, as near as can be to the wanted size, and its middle is
    the grid corner nearest to the BS; the channels are computed for where the BS really stands.

    Parameters
    ----------
    labels
        Per network P(ℓ|i) to learn, shape (n_bs, n_cells); targets with an empty row are left out.
    rng
        Draws the jitter and the crops.
    jitter
        Standard deviation of the log of the cell size of adaptive windows, so that the student knows more than one zoom.
    windows_per_bs
        Examples per BS; more than one makes sense with jitter or crops.
    crop
        Side of a random part of the window around the BS that stands for the whole [cells]; 0 for the whole.
    memory_mb
        Most memory the windows may take [MiB].

    Raises
    ------
    InputError
        When there is nothing to learn from, labels do not fit, or a fixed window's cells are no whole number of the grid's.
    MemoryBudgetError
        When the windows do not fit.
    Cancelled
        From `progress`.
    """
    if len(labels) != len(networks):
        raise InputError(f"There are {len(networks)} networks but labels for {len(labels)}.")
    for network, label in zip(networks, labels):
        if label.shape != (len(network.sites_m), network.grid.size):
            raise InputError(
                f"The labels of network '{network.name}' have shape {label.shape}, its base stations and cells "
                f"{(len(network.sites_m), network.grid.size)}."
            )
    todo = [
        (n, int(bs))
        for n, network in enumerate(networks)
        for bs in network.targets
        if labels[n].indptr[bs + 1] > labels[n].indptr[bs]
        for _ in range(windows_per_bs)
    ]
    if not todo:
        raise InputError("No network has a base station to learn from: none of the targets has a map.")
    side = crop or window.side
    needed_mb = len(todo) * side**2 * _BYTES_PER_CELL / 2**20
    if needed_mb > memory_mb:
        raise MemoryBudgetError(
            f"{len(todo):,} windows of {side} x {side} cells need {needed_mb:,.0f} MB; {memory_mb:,.0f} MB are allowed. Train on at "
            f"most {math.floor(len(todo) * memory_mb / needed_mb):,} base stations, or allow more memory."
        )
    shape = (len(todo), side, side)
    data = StudentData(
        np.empty((len(todo), CHANNELS, side, side), np.float16),
        np.empty(shape, np.float16),
        np.empty(shape, bool),
        np.empty(shape, np.float32),
    )
    trees = [cKDTree(network.sites_m) for network in networks]
    sizes = [window.cell_sizes_m(network.sites_m) for network in networks]
    for index, (n, bs) in enumerate(todo):
        network, label = networks[n], labels[n]
        place = _window(network.grid, network.sites_m[bs], _stride(network, window, sizes[n][bs], jitter, rng), window)
        row = slice(label.indptr[bs], label.indptr[bs + 1])
        mass = place.gather(label.indices[row], label.data[row], network.grid)
        valid = place.valid_cells(network.grid, network.mask) > 0
        mass *= valid
        total = mass.sum()
        x_m, y_m = place.centres(network.grid)
        if crop:
            # Any place where the crop still holds the middle, and hence the BS, a quarter of its side or more from its edge.
            top, left = (window.side - crop) // 2 + rng.integers(-(crop // 4), crop // 4 + 1, 2)
            rows, columns = slice(top, top + crop), slice(left, left + crop)
            mass, valid, x_m, y_m = mass[rows, columns], valid[rows, columns], x_m[columns], y_m[rows]
        cell_size_m = np.array([place.stride * network.grid.cell_size_m])
        seen = channels(trees[n], network.sites_m[bs : bs + 1], x_m[None], y_m[None], cell_size_m)
        data.channels[index] = seen[0]
        data.probability[index] = mass / total if total > 0 else 0
        data.target[index] = to_target(data.probability[index])
        data.valid[index] = valid if total > 0 else False
        progress((index + 1) / len(todo))
    return data


def _stride(
    network: TruthNetwork, window: StudentWindow, wanted_m: float, jitter: float, rng: np.random.Generator
) -> int:
    """Side of a window's cell [grid cells]."""
    cells = wanted_m / network.grid.cell_size_m
    if window.kind == "adaptive":
        return max(1, round(cells * math.exp(jitter * rng.standard_normal())))
    if cells < 1 - _SAME_SIZE or abs(cells - round(cells)) > _SAME_SIZE * cells:
        raise InputError(
            f"The fixed window has cells of {wanted_m:g} m, which is no whole number of the {network.grid.cell_size_m:g} m cells of "
            f"network '{network.name}'. Make its maps with cells of {wanted_m:g} m, or use the adaptive window."
        )
    return round(cells)


def _window(grid: Grid, xy_m: np.ndarray, stride: int, window: StudentWindow) -> Window:
    """Return the window whose middle is the grid corner nearest to the BS."""
    before = window.side * stride / 2
    row = round(float(grid.y_max - xy_m[1]) / grid.cell_size_m - before)
    column = round(float(xy_m[0] - grid.x_min) / grid.cell_size_m - before)
    return Window(row, column, stride, window.side)
