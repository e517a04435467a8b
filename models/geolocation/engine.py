"""The engine call behind `telcoloc:geolocatebasestations`: positions and a grid in, a `Geolocation` out."""

from __future__ import annotations

from dataclasses import replace
from typing import Callable

import numpy as np
from scipy.spatial import cKDTree

from ..chunks import run_chunks
from ..errors import InputError
from ..progress import Progress, no_progress, span
from . import learned, tiles
from .job import METHODS, GeolocationJob
from .per_target import per_target_maps
from .result import BYTES_PER_VALUE, CellShares, Geolocation, assemble, assemble_maps, row_sums

__all__ = ["METHODS", "GeolocationJob", "Method", "geolocate"]

#: What computes the maps of a method. It need not report the end, nor check that there are cells to fill.
Method = Callable[[GeolocationJob, Progress], Geolocation]


def geolocate(job: GeolocationJob, progress: Progress = no_progress) -> Geolocation:
    """Compute the maps of every BS on the job's grid.

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
    method = _voronoi if len(job.sites_m) == 1 else _METHODS[job.method]
    result = method(job, progress)
    progress(1.0)
    return result


#: The cells' shares and the (smallest, median, largest) number of BSs looked at.
_Found = tuple[list[CellShares], tuple[int, int, int]]
#: Checks that a job fits its memory, and returns what remains to be done.
_Preparation = Callable[[GeolocationJob, cKDTree, Progress], Callable[[Progress], _Found]]


def _voronoi(job: GeolocationJob, progress: Progress) -> Geolocation:
    """Give every cell to the BS nearest to its centre."""
    return _by_cells(_prepared_voronoi, job, progress)


def _spdi(job: GeolocationJob, progress: Progress) -> Geolocation:
    """Share out cells by sPDI in one world, or in one per β."""
    if not job.per_target:
        return _by_cells(_prepared_spdi, job, progress)
    tree = cKDTree(job.sites_m)
    maps, neighbours = per_target_maps(job, tree, span(progress, 0.0, 0.8))
    inside = row_sums(maps)
    outside = np.full(len(job.sites_m), np.nan)
    if job.surroundings is not None:
        around = job.around()
        outside = np.zeros(len(job.sites_m))
        if around.mask is None or around.mask.any():
            beyond, _ = per_target_maps(around, tree, span(progress, 0.8, 0.95))
            outside = row_sums(beyond) * (around.grid.cell_area_m2 / job.grid.cell_area_m2)
    with np.errstate(invalid="ignore"):
        return replace(assemble_maps(job.grid, maps, neighbours=neighbours), mass_cut=outside / (inside + outside))


def _deepmend_beta(job: GeolocationJob, progress: Progress) -> Geolocation:
    return _by_cells(_prepared_spdi, learned.with_learned_rates(job), progress)


#: The function of each of `METHODS`.
_METHODS: dict[str, Method] = {
    "voronoi": _voronoi,
    "voronoiboost": learned.voronoi_boost,
    "spdi": _spdi,
    "direct": learned.student,
    "deepmend": learned.student,
    "deepmend_beta": _deepmend_beta,
}


def _by_cells(prepare: _Preparation, job: GeolocationJob, progress: Progress) -> Geolocation:
    """Geolocate by sharing out each cell, and measure the mass beyond the grid in the same way."""
    n_bs = len(job.sites_m)
    tree = cKDTree(job.sites_m)
    mass_outside = np.full(n_bs, np.nan)
    main = prepare(job, tree, span(progress, 0.0, 0.1))
    begin = 0.1
    if job.surroundings is not None:
        around = job.around()
        mass_outside = np.zeros(n_bs)
        if around.mask is None or around.mask.any():
            shares, _ = prepare(around, tree, span(progress, 0.1, 0.12))(span(progress, 0.12, 0.2))
            for share in shares:
                mass_outside += np.bincount(share.bs, share.probability, minlength=n_bs)
            mass_outside *= around.grid.cell_area_m2 / job.grid.cell_area_m2
        begin = 0.2
    shares, neighbours = main(span(progress, begin, 0.9))
    result = assemble(job.grid, n_bs, shares, neighbours)
    with np.errstate(invalid="ignore"):
        return replace(result, mass_cut=mass_outside / (result.mass + mass_outside))


def _prepared_voronoi(job: GeolocationJob, tree: cKDTree, progress: Progress) -> Callable[[Progress], _Found]:  # noqa: ARG001
    cells = np.arange(job.grid.size) if job.mask is None else np.flatnonzero(job.mask)
    job.check_memory(len(cells), "Voronoi cells", BYTES_PER_VALUE)

    def work(start: int, stop: int) -> CellShares:
        some = cells[start:stop]
        _, nearest = tree.query(job.grid.centres(some), workers=1)
        ones = np.ones(len(some), np.int32)
        return CellShares(some, ones, nearest.astype(np.int32), ones.astype(np.float32))

    return lambda progress: (run_chunks(work, len(cells), 50_000, job.threads, progress), (1, 1, 1))


def _prepared_spdi(job: GeolocationJob, tree: cKDTree, progress: Progress) -> Callable[[Progress], _Found]:
    groups = tiles.grouped_tiles(job, tree, progress)
    job.check_memory(tiles.estimated_values(job, groups), "kept probabilities", BYTES_PER_VALUE)
    neighbours = tiles.looked_at(job, groups)
    return lambda progress: (tiles.run_groups(job, groups, progress), neighbours)
