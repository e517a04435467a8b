"""The geolocation methods that learned something: VoronoiBoost, DeepMEND's student, Direct, and DeepMEND-β."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import sparse

from ..progress import Progress, span
from ..weights_file import shipped
from .deepmend_beta import DeepMendBeta
from .job import GeolocationJob
from .reach import WeightedSpdi
from .result import Geolocation, assemble_maps, row_sums
from .student import kind_of, load_student, student_maps
from .student_windows import StudentWindow
from .voronoi_boost import VoronoiBoost, cell_bounds
from .voronoi_cells import voronoi_cells
from .voronoi_rings import ring_maps


def with_learned_rates(job: GeolocationJob) -> GeolocationJob:
    """Return the sPDI job that DeepMEND-β makes of `job`.

    Raises
    ------
    InputError
        When the weights cannot be used.
    """
    model = DeepMendBeta.load(job.weights or shipped("deepmend_beta"))
    found = model.predict(job.sites_m)
    rates = WeightedSpdi(found.beta, found.reach_m, beta_far=found.beta_far, strength=found.strength)
    return replace(job, method="spdi", sites_m=found.sites_m, components=(rates,), neighbours=None)


def voronoi_boost(job: GeolocationJob, progress: Progress) -> Geolocation:
    """Rings around each Voronoi cell, by the learned scales."""
    model = VoronoiBoost.load(job.weights or shipped("voronoiboost"))
    progress(0.0)
    bounds = cell_bounds(job.sites_m)
    scales = model.predict_scales(job.sites_m, bounds)
    progress(0.3)
    cells = voronoi_cells(job.sites_m, bounds)
    maps, mass_cut = ring_maps(
        cells, scales, job.grid, job.mask, threads=job.threads, progress=span(progress, 0.3, 0.9)
    )
    return _of_maps(job, maps, mass_cut)


def student(job: GeolocationJob, progress: Progress) -> Geolocation:
    """The U-Net's maps: DeepMEND's where it learned from the teacher, Direct's where it learned from the truth."""
    return _of_maps(job, *maps_of_student(job, None, span(progress, 0.0, 0.9)))


def maps_of_student(
    job: GeolocationJob, targets: np.ndarray | None, progress: Progress
) -> tuple[sparse.csr_matrix, np.ndarray]:
    """P(ℓ|i) of the BSs `targets` (None: all) by the job's student, as `student.student_maps` returns it."""
    window = StudentWindow.paper() if job.window == "fixed" else StudentWindow()
    path = job.weights or shipped(kind_of(job.method, window))
    return student_maps(
        load_student(path, job.method),
        job.sites_m,
        job.grid,
        job.mask,
        targets=targets,
        device=job.device,
        threads=job.threads,
        memory_mb=job.memory_mb,
        progress=progress,
    )


def _of_maps(job: GeolocationJob, maps: sparse.csr_matrix, mass_cut: np.ndarray) -> Geolocation:
    """Make a geolocation of P(ℓ|i): the mass of a BS, which such maps do not tell, is taken as the area of its Voronoi cell."""
    area = voronoi_cells(job.sites_m, cell_bounds(job.sites_m)).areas_m2 / job.grid.cell_area_m2
    scale = np.divide(np.maximum(area, 1e-6), row_sums(maps), out=np.zeros(len(area)), where=np.diff(maps.indptr) > 0)
    for row, factor in enumerate(scale):
        maps.data[maps.indptr[row] : maps.indptr[row + 1]] *= np.float32(factor)
    return replace(assemble_maps(job.grid, maps), mass_cut=mass_cut)
