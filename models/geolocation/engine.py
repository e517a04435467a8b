"""The engine call behind `telcoloc:geolocatebasestations`: positions and a grid in, a `Geolocation` out."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Callable

import numpy as np
from scipy.spatial import cKDTree

from ..chunks import run_chunks
from ..errors import InputError, MemoryBudgetError
from ..grid import Grid
from ..progress import Progress, no_progress, span
from . import spdi
from .result import CellShares, Geolocation, assemble

METHODS = ("voronoi", "spdi")
#: Bytes a kept probability costs at the peak: value and index, cell-major and BS-major at once, and one index copy.
_BYTES_PER_VALUE = 24
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
#: Probabilities below this are what the clipping of λ leaves of zero.
_NOTHING = 1e-20


@dataclass(frozen=True)
class GeolocationJob:
    """Everything a geolocation needs; plain data, so that it can run in a thread, a worker or on a cluster.

    Parameters
    ----------
    sites_m
        BS positions (x, y) [m] in the grid's CRS, all different, shape (n_bs, 2).
    grid
        The cells to fill.
    mask
        Cells that may hold mass, shape (height, width), bool; None for all.
    surroundings, surroundings_mask
        A coarser grid around `grid`, masked to what lies beyond `grid`, on which the mass cut off is measured; None not to.
    method
        One of `METHODS`.
    beta
        Attenuation β of sPDI.
    neighbours
        Number of nearest BSs sPDI looks at per cell; None for all that matter.
    min_probability
        P(i|ℓ) below this are dropped and the cell is scaled back to one.
    device
        "cpu" or "cuda".
    dtype
        "float32" (1e-6) or "float64" (1e-9): the precision of sPDI.
    threads
        Threads on the CPU.
    memory_mb
        Most memory the job may take [MiB].
    """

    sites_m: np.ndarray
    grid: Grid
    mask: np.ndarray | None = None
    surroundings: Grid | None = None
    surroundings_mask: np.ndarray | None = None
    method: str = "spdi"
    beta: float = 4.0
    neighbours: int | None = None
    min_probability: float = 1e-5
    device: str = "cpu"
    dtype: str = "float32"
    threads: int = 2
    memory_mb: float = 4096.0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"Unknown method '{self.method}'. Methods: {', '.join(METHODS)}.")
        if not 0 < self.beta <= 20:
            raise InputError(
                f"BETA is {self.beta:g}; it must be above 0 and at most 20 (the literature uses 0.1 to 6)."
            )
        if self.neighbours is not None and self.neighbours < 2:
            raise InputError(f"NEIGHBOURS is {self.neighbours}; sPDI needs at least 2 base stations to compare.")
        if not 0 <= self.min_probability < 0.5:
            raise InputError(f"The smallest probability kept is {self.min_probability:g}; it must be in [0, 0.5).")
        if self.mask is not None and self.mask.shape != self.grid.shape:
            raise InputError(f"The mask has shape {self.mask.shape}, the grid {self.grid.shape}.")


def geolocate(job: GeolocationJob, progress: Progress = no_progress) -> Geolocation:
    """Compute P(i|ℓ) of every BS on the job's grid.

    Raises
    ------
    InputError
        When no cell may hold mass.
    MemoryBudgetError
        When the result would not fit the budget; said before the work starts.
    Cancelled
        From `progress`.
    """
    if job.mask is not None and not job.mask.any():
        raise InputError("No cell of the grid lies inside the boundary, so there is nowhere to put mass.")
    n_bs = len(job.sites_m)
    mass_outside = np.full(n_bs, np.nan)
    main = _prepared(job, span(progress, 0.0, 0.1))
    begin = 0.1
    if job.surroundings is not None:
        around = replace(
            job,
            grid=job.surroundings,
            mask=job.surroundings_mask,
            surroundings=None,
            surroundings_mask=None,
            min_probability=1e-4,
        )
        mass_outside = np.zeros(n_bs)
        if job.surroundings_mask is None or job.surroundings_mask.any():
            shares, _ = _prepared(around, span(progress, 0.1, 0.12))(span(progress, 0.12, 0.2))
            for share in shares:
                mass_outside += np.bincount(share.bs, share.probability, minlength=n_bs)
            mass_outside *= job.surroundings.cell_area_m2 / job.grid.cell_area_m2
        begin = 0.2
    shares, neighbours = main(span(progress, begin, 0.9))
    result = assemble(job.grid, n_bs, shares, neighbours)
    inside = result.mass
    with np.errstate(invalid="ignore"):
        result = replace(result, mass_cut=mass_outside / (inside + mass_outside))
    progress(1.0)
    return result


#: The cells' shares and the (smallest, median, largest) number of BSs looked at.
_Found = tuple[list[CellShares], tuple[int, int, int]]


def _prepared(job: GeolocationJob, progress: Progress) -> Callable[[Progress], _Found]:
    """Check that the job fits its memory, and return what remains to be done."""
    tree = cKDTree(job.sites_m)
    if job.method == "voronoi" or len(job.sites_m) == 1:
        return _voronoi(job, tree)
    return _spdi(job, tree, progress)


def _voronoi(job: GeolocationJob, tree: cKDTree) -> Callable[[Progress], _Found]:
    """Give every cell to the BS nearest to its centre."""
    cells = np.arange(job.grid.size) if job.mask is None else np.flatnonzero(job.mask)
    _check_memory(job, len(cells), "Voronoi cells")

    def work(start: int, stop: int) -> CellShares:
        some = cells[start:stop]
        _, nearest = tree.query(job.grid.centres(some), workers=1)
        ones = np.ones(len(some), np.int32)
        return CellShares(some, ones, nearest.astype(np.int32), ones.astype(np.float32))

    return lambda progress: (run_chunks(work, len(cells), 50_000, job.threads, progress), (1, 1, 1))


def _spdi(job: GeolocationJob, tree: cKDTree, progress: Progress) -> Callable[[Progress], _Found]:
    groups = _grouped_tiles(job, tree, progress)
    looked_at = np.concatenate([np.full(group.n_cells, group.neighbours.shape[1]) for group in groups])
    neighbours = (int(looked_at.min()), int(np.median(looked_at)), int(looked_at.max()))
    if job.neighbours is not None:
        neighbours = (min(job.neighbours, len(job.sites_m)),) * 3
    _check_memory(job, _estimated_values(job, groups), "kept probabilities")

    costs = np.array([group.neighbours.size * group.side**2 for group in groups], float)
    ends = np.cumsum(costs) / costs.sum()
    chunk_values = _CHUNK_VALUES_CPU if job.device == "cpu" else _CHUNK_VALUES_CUDA

    def run(progress: Progress) -> _Found:
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
        return shares, neighbours

    return run


def _grouped_tiles(job: GeolocationJob, tree: cKDTree, progress: Progress) -> list[_TileGroup]:
    """Cut the grid into tiles, small ones near BSs and large ones far away, and find the BSs that matter in each."""
    height, width = job.grid.shape
    padded_shape = tuple(math.ceil(n / _LARGEST_TILE) * _LARGEST_TILE for n in (height, width))
    mask = np.zeros(padded_shape, bool)
    mask[:height, :width] = True if job.mask is None else job.mask
    negligible = max(spdi.NEGLIGIBLE[job.dtype], job.min_probability)
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
        work = _finder(job, tree, accepted, centres, radius_m, negligible)
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
        _TileGroup(job.grid, mask, key[0], *(np.concatenate(parts) for parts in zip(*found[key])))
        for key in sorted(found)
    ]


def _finder(
    job: GeolocationJob, tree: cKDTree, tiles: np.ndarray, centres_m: np.ndarray, radius_m: float, negligible: float
) -> Callable[[int, int], list[spdi.TileNeighbours]]:
    """Return the function that finds the BSs that matter in `tiles[start:stop]`."""

    def work(start: int, stop: int) -> list[spdi.TileNeighbours]:
        some = tiles[start:stop]
        groups = spdi.group_tiles(tree, centres_m[some], radius_m, job.beta, job.neighbours, negligible)
        return [spdi.TileNeighbours(some[group.tiles], group.neighbours) for group in groups]

    return work


def _tile_centres(grid: Grid, rows: np.ndarray, columns: np.ndarray, side: int) -> np.ndarray:
    """Centres (x, y) [m] of tiles given by their first row and column, shape (n_tiles, 2)."""
    size = grid.cell_size_m
    return np.column_stack([grid.x_min + (columns + side / 2) * size, grid.y_max - (rows + side / 2) * size])


@dataclass(frozen=True)
class _TileGroup:
    """Tiles of `side` × `side` cells that look at the same number of BSs.

    `mask` is the grid's, padded to whole tiles; `first_row` and `first_column` have shape (n_tiles,), `neighbours`
    (n_tiles, n_neighbours).
    """

    grid: Grid
    mask: np.ndarray
    side: int
    first_row: np.ndarray
    first_column: np.ndarray
    neighbours: np.ndarray

    @property
    def n_cells(self) -> int:
        return len(self.neighbours) * self.side**2

    def sample(self, tiles: np.ndarray) -> _TileGroup:
        return replace(
            self,
            first_row=self.first_row[tiles],
            first_column=self.first_column[tiles],
            neighbours=self.neighbours[tiles],
        )

    def worker(self, job: GeolocationJob) -> Callable[[int, int], CellShares]:
        """Return the function that computes tiles [start, stop)."""
        offset = (np.arange(self.side) - (self.side - 1) / 2) * self.grid.cell_size_m
        centres = _tile_centres(self.grid, self.first_row, self.first_column, self.side)

        def work(start: int, stop: int) -> CellShares:
            bs = self.neighbours[start:stop]
            relative = job.sites_m[bs] - centres[start:stop, None, :]
            dx2 = ((relative[:, :, 0].T[:, :, None] - offset) ** 2).astype(job.dtype)
            dy2 = ((relative[:, :, 1].T[:, :, None] + offset) ** 2).astype(job.dtype)
            squared = (dy2[:, :, :, None] + dx2[:, :, None, :]).reshape(bs.shape[1], -1)
            if job.neighbours is not None:
                spdi.keep_nearest(squared, job.neighbours)
            return self._pack(job, start, stop, _on_device(squared, job.beta, job.device))

        return work

    def _pack(self, job: GeolocationJob, start: int, stop: int, probability: np.ndarray) -> CellShares:
        """Drop small values and masked cells, scale cells back to one, and lay the rest out cell by cell."""
        steps = np.arange(self.side)
        rows = (self.first_row[start:stop, None, None] + steps[:, None]).repeat(self.side, axis=2)
        columns = (self.first_column[start:stop, None, None] + steps).repeat(self.side, axis=1)
        inside = self.mask[rows, columns].ravel()
        keep = probability >= max(job.min_probability, _NOTHING)
        keep &= inside
        probability *= keep
        kept = probability.sum(axis=0)
        probability /= np.maximum(kept, _NOTHING)
        keep_by_cell = np.ascontiguousarray(keep.T)
        counts = keep_by_cell.sum(axis=1, dtype=np.int32)[inside]
        values = np.ascontiguousarray(probability.T)[keep_by_cell].astype(np.float32)
        bs = self.neighbours[start:stop, None, :]
        owners = np.broadcast_to(bs, (stop - start, self.side**2, bs.shape[2])).reshape(keep_by_cell.shape)[
            keep_by_cell
        ]
        cells = (rows.astype(np.int64) * self.grid.width + columns).ravel()[inside]
        return CellShares(cells, counts, owners, values, float(np.sum(1 - kept[inside], dtype=np.float64)))


def _on_device(squared: np.ndarray, beta: float, device: str) -> np.ndarray:
    if device == "cpu":
        return spdi.association_probabilities(squared, beta)
    import torch

    return spdi.association_probabilities(torch.from_numpy(squared).to(device), beta).cpu().numpy()


def _estimated_values(job: GeolocationJob, groups: list[_TileGroup]) -> int:
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


def _check_memory(job: GeolocationJob, n_values: int, what: str) -> None:
    needed_mb = (n_values * _BYTES_PER_VALUE + job.grid.size * 40) / 2**20
    if needed_mb > job.memory_mb:
        factor = math.sqrt(needed_mb / job.memory_mb)
        raise MemoryBudgetError(
            f"{job.grid.describe()} would hold about {n_values:,} {what} and need {needed_mb:,.0f} MB; {job.memory_mb:,.0f} MB "
            f"are allowed. Use CELL_SIZE {job.grid.cell_size_m * factor * 1.05:.3g} or more, a smaller EXTENT or MARGIN, a larger "
            "smallest probability, or allow more memory."
        )
