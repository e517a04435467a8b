"""sPDI over a grid: tiles of cells that look at the same base stations (BSs), computed in chunks on threads or a GPU."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Callable

import numpy as np
from scipy.spatial import cKDTree

from ..chunks import run_chunks
from ..grid import Grid
from ..progress import Progress, span
from . import reach, spdi
from .job import GeolocationJob
from .result import CellShares

#: Values (BSs × cells) a chunk holds on the CPU: its few float32 buffers stay in the cache of a core.
_CHUNK_VALUES_CPU = 1 << 17
_CHUNK_VALUES_CUDA = 1 << 25
#: The result's size is estimated from at most so many cells, and so many values, of each group of tiles.
_SAMPLED_CELLS, _SAMPLED_VALUES = 2048, 1 << 19
#: Side of the largest tile [cells], a power of two.
_LARGEST_TILE = 32
#: Distances (tiles × BSs) a chunk of the search for the BSs that matter may have to look at.
_FINDER_VALUES = 1 << 18
#: A tile is small enough when its radius is at most this share of the distance to its third nearest BS.
_TILE_RADIUS_SHARE = 0.15
#: From so many BSs on, those behind the nearest few are taken together where only some BSs' values are asked for.
CROWD = 64
_SINGLE = 16
#: Probabilities below this are what the clipping of λ leaves of zero.
_NOTHING = 1e-20


def run_groups(job: GeolocationJob, groups: list[TileGroup], progress: Progress) -> list[CellShares]:
    """Compute all tiles of `groups`."""
    costs = np.array([group.neighbours.size * group.side**2 for group in groups], float)
    ends = np.cumsum(costs) / costs.sum()
    chunk_values = _CHUNK_VALUES_CPU if job.device == "cpu" else _CHUNK_VALUES_CUDA
    shares: list[CellShares] = []
    begin = 0.0
    for group, end in zip(groups, ends):
        shares += run_chunks(
            group.worker(job),
            len(group.neighbours),
            max(1, chunk_values // (group.neighbours.shape[1] * group.side**2)),
            job.threads if job.device == "cpu" else 1,
            span(progress, begin, end),
        )
        begin = end
    return shares


def looked_at(job: GeolocationJob, groups: list[TileGroup]) -> tuple[int, int, int]:
    """(smallest, median, largest) number of BSs looked at per cell."""
    if job.neighbours is not None:
        return (min(job.neighbours, len(job.sites_m)),) * 3
    numbers = np.concatenate([np.full(group.n_cells, group.neighbours.shape[1]) for group in groups])
    return int(numbers.min()), int(np.median(numbers)), int(numbers.max())


def grouped_tiles(
    job: GeolocationJob, tree: cKDTree, progress: Progress, steps: Sequence[int] = reach.STEPS
) -> list[TileGroup]:
    """Cut the grid into tiles, small ones near BSs and large ones far away, and find the BSs that matter in each.

    `steps` are the numbers of BSs to try, see `reach.group_tiles`.
    """
    height, width = job.grid.shape
    padded_shape = tuple(math.ceil(n / _LARGEST_TILE) * _LARGEST_TILE for n in (height, width))
    mask = np.zeros(padded_shape, bool)
    mask[:height, :width] = True if job.mask is None else job.mask
    negligible = max(reach.NEGLIGIBLE[job.dtype], job.min_probability)
    reaching = _reach(job, tree)
    side = _LARGEST_TILE
    rows, columns = (axis.ravel() for axis in np.indices((padded_shape[0] // side, padded_shape[1] // side)) * side)
    found: dict[tuple[int, int], list[tuple[np.ndarray, np.ndarray, np.ndarray]]] = {}
    n_levels = _LARGEST_TILE.bit_length()
    chunk = min(1024, max(16, _FINDER_VALUES // tree.n))
    for level in range(n_levels):
        blocks = mask.reshape(padded_shape[0] // side, side, padded_shape[1] // side, side)
        filled = np.asarray(blocks.any(axis=(1, 3)))
        keep = filled[rows // side, columns // side]
        rows, columns = rows[keep], columns[keep]
        centres = _tile_centres(job.grid, rows, columns, side)
        radius_m = (side - 1) / 2 * math.sqrt(2) * job.grid.cell_size_m + 1e-6
        third = tree.query(centres, k=min(3, tree.n))[0][:, -1]
        alike = (third > radius_m / _TILE_RADIUS_SHARE) | (side == 1)

        accepted = np.flatnonzero(alike)
        work = _finder(reaching, accepted, centres, radius_m, negligible, steps)
        chunks = run_chunks(
            work, len(accepted), chunk, job.threads, span(progress, level / n_levels, (level + 1) / n_levels)
        )
        for group in (group for chunk in chunks for group in chunk):
            key = (side, group.neighbours.shape[1])
            found.setdefault(key, []).append((rows[group.tiles], columns[group.tiles], group.neighbours))
        half = side // 2
        rows = (rows[~alike, None] + np.array([0, 0, half, half])).ravel()
        columns = (columns[~alike, None] + np.array([0, half, 0, half])).ravel()
        side = half
    return [
        TileGroup(job.grid, mask, key[0], *(np.concatenate(parts) for parts in zip(*found[key])))
        for key in sorted(found)
    ]


def _reach(job: GeolocationJob, tree: cKDTree) -> reach.Reach:
    if job.neighbours is not None:
        return reach.NearestReach(tree, job.neighbours)
    if job.components:
        return reach.WeightedReach(tree, job.components)
    return reach.UniformReach(tree, float(job.beta))


def _finder(
    reaching: reach.Reach,
    tiles: np.ndarray,
    centres_m: np.ndarray,
    radius_m: float,
    negligible: float,
    steps: Sequence[int],
) -> Callable[[int, int], list[reach.TileNeighbours]]:
    """Return the function that finds the BSs that matter in `tiles[start:stop]`."""

    def work(start: int, stop: int) -> list[reach.TileNeighbours]:
        some = tiles[start:stop]
        groups = reach.group_tiles(reaching, centres_m[some], radius_m, negligible, steps)
        return [reach.TileNeighbours(some[group.tiles], group.neighbours) for group in groups]

    return work


def _tile_centres(grid: Grid, rows: np.ndarray, columns: np.ndarray, side: int) -> np.ndarray:
    """Centres (x, y) [m] of tiles given by their first row and column, shape (n_tiles, 2)."""
    size = grid.cell_size_m
    return np.column_stack([grid.x_min + (columns + side / 2) * size, grid.y_max - (rows + side / 2) * size])


@dataclass(frozen=True)
class TileGroup:
    """Tiles of `side` × `side` cells that look at the same number of BSs.

    `mask` is the grid's, padded to whole tiles; `first_row` and `first_column` have shape (n_tiles,), `neighbours`
    (n_tiles, n_neighbours). With `targets`, shape (n_bs,), bool, only those BSs' values are kept, and cells not scaled to one.
    """

    grid: Grid
    mask: np.ndarray
    side: int
    first_row: np.ndarray
    first_column: np.ndarray
    neighbours: np.ndarray
    targets: np.ndarray | None = None

    @property
    def n_cells(self) -> int:
        return len(self.neighbours) * self.side**2

    def sample(self, tiles: np.ndarray) -> TileGroup:
        return replace(
            self,
            first_row=self.first_row[tiles],
            first_column=self.first_column[tiles],
            neighbours=self.neighbours[tiles],
        )

    def only(self, targets: np.ndarray) -> TileGroup:
        """Return the tiles that look at any of `targets`, shape (n_bs,), bool, with nothing but the targets' values."""
        some = self.sample(np.flatnonzero(targets[self.neighbours].any(axis=1)))
        return replace(some, targets=targets)

    def worker(self, job: GeolocationJob) -> Callable[[int, int], CellShares]:
        """Return the function that computes tiles [start, stop)."""
        offset = (np.arange(self.side) - (self.side - 1) / 2) * self.grid.cell_size_m
        centres = _tile_centres(self.grid, self.first_row, self.first_column, self.side)
        crowded = self.targets if self._crowded(job) else None

        def work(start: int, stop: int) -> CellShares:
            bs = self.neighbours[start:stop]
            relative = job.sites_m[bs] - centres[start:stop, None, :]
            if crowded is not None:
                order = np.argsort((relative**2).sum(axis=2), axis=1)
                bs, relative = (
                    np.take_along_axis(bs, order, axis=1),
                    np.take_along_axis(relative, order[:, :, None], axis=1),
                )
            dx2 = ((relative[:, :, 0].T[:, :, None] - offset) ** 2).astype(job.dtype)
            dy2 = ((relative[:, :, 1].T[:, :, None] + offset) ** 2).astype(job.dtype)
            squared = (dy2[:, :, :, None] + dx2[:, :, None, :]).reshape(bs.shape[1], -1)
            if job.neighbours is not None:
                reach.keep_nearest(squared, job.neighbours)
            if crowded is not None:
                asked, probability = _of_targets(crowded, bs, relative, squared, float(job.beta))
                return self._pack(job, start, stop, probability, asked)
            if not job.components:
                return self._pack(job, start, stop, _on_device(_uniform, squared, job))
            distance_m = np.maximum(
                np.hypot(relative[:, :, 0], relative[:, :, 1]), self.grid.cell_size_m * self.side / 2
            )
            probability = np.zeros_like(squared)
            for one in job.components:
                log_rate = one.log_rates_of_tiles(squared, bs, distance_m)
                probability += one.share * _on_device(_of_rates, log_rate, job)
            return self._pack(job, start, stop, probability)

        return work

    def _crowded(self, job: GeolocationJob) -> bool:
        """Whether the few targets are worth a kernel of their own, good to 1e-5."""
        plain = job.device != "cpu" or job.dtype != "float32" or job.neighbours is not None
        return not plain and self.neighbours.shape[1] >= CROWD

    def _pack(
        self, job: GeolocationJob, start: int, stop: int, probability: np.ndarray, bs: np.ndarray | None = None
    ) -> CellShares:
        """Drop small values and masked cells, scale cells back to one, and lay the rest out cell by cell.

        `bs` are the BSs of the tiles' rows, −1 for none, shape (n_tiles, n_rows); None for all neighbours.
        """
        steps = np.arange(self.side)
        rows = (self.first_row[start:stop, None, None] + steps[:, None]).repeat(self.side, axis=2)
        columns = (self.first_column[start:stop, None, None] + steps).repeat(self.side, axis=1)
        inside = self.mask[rows, columns].ravel()
        keep = probability >= max(job.min_probability, _NOTHING)
        keep &= inside
        bs = self.neighbours[start:stop] if bs is None else bs
        if self.targets is not None:
            keep &= np.repeat((self.targets[bs] & (bs >= 0)).T, self.side**2, axis=1)
        probability *= keep
        kept = probability.sum(axis=0)
        if self.targets is None:
            probability /= np.maximum(kept, _NOTHING)
        keep_by_cell = np.ascontiguousarray(keep.T)
        counts = keep_by_cell.sum(axis=1, dtype=np.int32)[inside]
        values = np.ascontiguousarray(probability.T)[keep_by_cell].astype(np.float32)
        by_cell = np.broadcast_to(bs[:, None, :], (len(bs), self.side**2, bs.shape[1]))
        owners = by_cell.reshape(keep_by_cell.shape)[keep_by_cell]
        cells = (rows.astype(np.int64) * self.grid.width + columns).ravel()[inside]
        return CellShares(cells, counts, owners, values, float(np.sum(1 - kept[inside], dtype=np.float64)))


def _of_targets(
    targets: np.ndarray, bs: np.ndarray, relative_m: np.ndarray, squared: np.ndarray, beta: float
) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities of the targets among `bs`.

    Parameters
    ----------
    targets
        Shape (n_all_bs,), bool.
    bs, relative_m
        BSs of each tile, rising in distance, and their positions [m] from its centre, shapes (n_tiles, n_bs) and (n_tiles, n_bs, 2).
    squared
        ‖ℓ − j‖² [m²], shape (n_bs, n_tiles * n_cells).

    Returns
    -------
    tuple[numpy.ndarray, numpy.ndarray]
        The targets of each tile, filled up with −1, shape (n_tiles, n_targets), and their probabilities, shape (n_targets, n_tiles *
        n_cells).
    """
    n_bs = bs.shape[1]
    log_rate = beta / 2 * np.log((relative_m[:, _SINGLE:] ** 2).sum(axis=2))
    groups = []
    first = 0
    while first < n_bs - _SINGLE:
        groups.append(first + _SINGLE)
        width = (log_rate[:, first:] - log_rate[:, first, None]).max(axis=0)
        first += int(np.searchsorted(width, spdi.GROUP_WIDTH, side="right"))
    # The targets' rows come first, in their order, whatever number a tile has.
    wanted = targets[bs]
    n_targets = int(wanted.sum(axis=1).max())
    rows = np.argsort(~wanted, axis=1, kind="stable")[:, :n_targets]
    there = np.take_along_axis(wanted, rows, axis=1)
    asked = np.repeat(np.where(there, rows, -1).T, squared.shape[1] // len(bs), axis=1)
    probability = spdi.target_probabilities(squared, beta, np.array(groups), asked)
    return np.where(there, np.take_along_axis(bs, rows, axis=1), -1), probability


def _uniform(squared: Any, job: GeolocationJob) -> Any:  # noqa: ANN401 - numpy array or torch tensor
    return spdi.association_probabilities(squared, float(job.beta))


def _of_rates(log_rate: Any, job: GeolocationJob) -> Any:  # noqa: ANN401, ARG001 - numpy array or torch tensor
    return spdi.association_of_rates(log_rate)


def _on_device(kernel: Callable[[Any, GeolocationJob], Any], values: np.ndarray, job: GeolocationJob) -> np.ndarray:
    if job.device == "cpu":
        return kernel(values, job)
    import torch

    return kernel(torch.from_numpy(values).to(job.device), job).cpu().numpy()


def estimated_values(job: GeolocationJob, groups: list[TileGroup]) -> int:
    """Number of probabilities the job will keep, from a few random tiles of each group."""
    on_cpu = replace(job, device="cpu")

    def kept(start: int, stop: int) -> float:
        total = 0.0
        for number in range(start, stop):
            group = groups[number]
            n_tiles, n_neighbours = group.neighbours.shape
            n_cells = min(_SAMPLED_CELLS, _SAMPLED_VALUES // n_neighbours)
            n_sampled = min(n_tiles, max(1, n_cells // group.side**2))
            sample = np.sort(np.random.default_rng(number).choice(n_tiles, n_sampled, replace=False))
            total += group.sample(sample).worker(on_cpu)(0, n_sampled).counts.sum() * n_tiles / n_sampled
        return total

    return int(sum(run_chunks(kept, len(groups), 1, job.threads)))
