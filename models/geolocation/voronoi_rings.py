"""Maps of rings: scaled copies of a Voronoi cell inside each other, with the same density between two neighbouring ones."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from ..chunks import run_chunks
from ..errors import InputError
from ..grid import Grid
from ..progress import Progress, no_progress
from .voronoi_cells import ConvexPolygons

#: Probabilities τ whose scales VoronoiBoost learns; the rings between hold .25, .25, .25, .1 and .1 of the mass.
TAUS = (0.25, 0.5, 0.75, 0.85, 0.95)
#: Scales are rounded to so many digits, as published.
_DIGITS = 3
#: BSs worked on at a time.
_CHUNK = 32


def ring_edges(scales: np.ndarray) -> np.ndarray:
    """Outer edges of the rings, shape (n, 5), rising: scales rounded to three digits, each at most the next.

    Walking down from τ = .95, a τ whose scale is not strictly smaller than the last one kept is dropped. It gets the edge of that one:
    a ring of no width, whose mass goes to the ring inside. NaN counts as dropped.

    Raises
    ------
    InputError
        When the outermost scale of a BS is not a positive number.
    """
    edges = np.round(np.asarray(scales, dtype=float).reshape(-1, len(TAUS)), _DIGITS)
    outermost = edges[:, -1]
    if not (np.isfinite(outermost) & (outermost > 0)).all():
        raise InputError(f"The scale for τ = {TAUS[-1]} of a base station is {outermost.min():g}; it must be positive.")
    edges = np.where(edges > 0, edges, np.where(np.isnan(edges), np.inf, 10.0**-_DIGITS))
    return np.minimum.accumulate(edges[:, ::-1], axis=1)[:, ::-1]


def ring_masses(edges: np.ndarray) -> np.ndarray:
    """Mass of each ring, shape (n, 5): τ less the τ before, that of rings without width moved to the one inside; rows sum to .95."""
    masses = np.tile(np.diff(TAUS, prepend=0.0), (len(edges), 1))
    return _gathered(masses, np.diff(edges, axis=1, prepend=0.0) > 0)


def spread(gauge: np.ndarray, edges: np.ndarray, masses: np.ndarray) -> np.ndarray:
    """Mass of each cell, from its gauge: the masses of the rings, each evenly over the cells whose centre it holds.

    A ring that holds none gives its mass to the nearest ring inside that does, or else to the nearest outside; only when no ring
    holds a cell is everything 0.

    Parameters
    ----------
    gauge
        Scale at which each cell's centre lies on the edge of the scaled polygon, any shape.
    edges, masses
        Outer edges and masses of the rings of this BS, both of shape (5,).
    """
    ring = np.searchsorted(edges, gauge)
    held = np.bincount(ring.ravel(), minlength=len(edges) + 1)[:-1]
    density = np.zeros(len(edges) + 1)
    density[:-1] = _gathered(masses[None, :], held[None, :] > 0)[0] / np.maximum(held, 1)
    return np.asarray(density[ring])


def ring_maps(
    cells: ConvexPolygons,
    scales: np.ndarray,
    grid: Grid,
    mask: np.ndarray | None = None,
    normalise: bool = True,
    threads: int = 1,
    progress: Progress = no_progress,
) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Spread each BS over rings of its Voronoi cell, scaled about the centre of its bounding box.

    A ring has one density; what of it lies beyond the grid is cut off. A mask only says which cells share a ring's mass, since scales
    are learned from devices that were where they can be. Rings smaller than a cell: see `spread`; a BS none of whose rings holds a
    cell's centre puts all into the cell that it is the middle of, where that may hold mass.

    Parameters
    ----------
    cells
        Voronoi cells [m], one per BS; without corners for a BS that has none.
    scales
        Per BS one scale per τ of `TAUS`, NaN for a dropped τ, shape (n_bs, 5).
    grid
        The cells to fill.
    mask
        Cells that may hold mass, shape (height, width), bool; None for all.
    normalise
        Whether rows sum to one, as P(ℓ|i) does; else to .95 less what is cut off, as published.
    threads
        Threads.
    progress
        Called at least every 0.1 s.

    Returns
    -------
    maps
        CSR float32, shape (n_bs, n_cells), sorted indices; a row is empty when no cell may hold the BS's mass.
    mass_cut
        Share of each BS's rings that lies beyond the grid, shape (n_bs,).

    Raises
    ------
    InputError
        When scales are missing or a mask has another shape than the grid.
    Cancelled
        From `progress`.
    """
    n_bs = len(cells)
    if np.shape(scales) != (n_bs, len(TAUS)):
        raise InputError(f"There are {n_bs} base stations but scales of shape {np.shape(scales)}.")
    if mask is not None and mask.shape != grid.shape:
        raise InputError(f"The mask has shape {mask.shape}, the grid {grid.shape}.")
    edges = ring_edges(scales)
    masses = ring_masses(edges)
    inside = masses * _inside_shares(cells, edges, grid)

    def some(start: int, stop: int) -> list[tuple[np.ndarray, np.ndarray]]:
        return [_one(cells, bs, edges[bs], inside[bs], grid, mask) for bs in range(start, stop)]

    rows = [row for part in run_chunks(some, n_bs, _CHUNK, threads, progress) for row in part]
    if normalise:
        rows = [(columns, values / values.sum() if len(values) else values) for columns, values in rows]
    maps = sparse.csr_matrix(
        (
            np.concatenate([values for _, values in rows]).astype(np.float32),
            np.concatenate([columns for columns, _ in rows]),
            np.concatenate([[0], np.cumsum([len(columns) for columns, _ in rows])]),
        ),
        shape=(n_bs, grid.size),
    )
    maps.has_sorted_indices = True
    return maps, np.clip(1.0 - inside.sum(axis=1) / TAUS[-1], 0.0, 1.0)


def _one(
    cells: ConvexPolygons, bs: int, edges: np.ndarray, masses: np.ndarray, grid: Grid, mask: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Flat cells and masses of one BS, looked for in the window of cells around its outermost ring."""
    nothing = np.zeros(0, np.int64), np.zeros(0)
    if cells.counts[bs] == 0 or not masses.sum() > 0:
        return nothing
    corners = cells.corners_m[cells.starts[bs] : cells.starts[bs + 1]]
    low, high = corners.min(axis=0), corners.max(axis=0)
    middle, reach = (low + high) / 2, edges[-1] * (high - low) / 2
    columns = np.flatnonzero(np.abs(grid.x_m - middle[0]) <= reach[0])
    rows = np.flatnonzero(np.abs(grid.y_m - middle[1]) <= reach[1])
    if len(columns) and len(rows):
        window = slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)
        gauge = cells.gauge(bs, grid.x_m[None, window[1]], grid.y_m[window[0], None])
        if mask is not None:
            gauge[~mask[window]] = np.inf
        mass = spread(gauge, edges, masses)
        north, east = np.nonzero(mass)
        if len(north):
            return (north + rows[0]) * grid.width + east + columns[0], mass[north, east]
    cell = grid.cells_of(middle[None])
    if cell[0] < 0 or (mask is not None and not mask.flat[cell[0]]):
        return nothing
    return cell, masses.sum(keepdims=True)


def _inside_shares(cells: ConvexPolygons, edges: np.ndarray, grid: Grid) -> np.ndarray:
    """Share of each ring's area inside the grid, 0 for rings without width, shape (n, 5)."""
    areas = cells.areas_m2[:, None] * edges**2
    inside = np.column_stack([cells.scaled(outer).clipped(grid.bounds).areas_m2 for outer in edges.T])
    area, inside = np.diff(areas, axis=1, prepend=0.0), np.diff(inside, axis=1, prepend=0.0)
    return np.clip(np.divide(inside, area, out=np.zeros_like(area), where=area > 0), 0.0, 1.0)


def _gathered(masses: np.ndarray, holds: np.ndarray) -> np.ndarray:
    """Move the masses of rings that hold nothing to the nearest ring inside that does, else to the nearest outside; (n, 5) each."""
    masses = masses.copy()
    last = masses.shape[1] - 1
    for source, target in [
        *((ring, ring - 1) for ring in range(last, 0, -1)),
        *((ring, ring + 1) for ring in range(last)),
    ]:
        moved = np.where(holds[:, source], 0.0, masses[:, source])
        masses[:, target] += moved
        masses[:, source] -= moved
    return np.where(holds, masses, 0.0)
