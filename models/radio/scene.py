"""A whole simulated network in one call: its positions, its equipment, its true maps."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from ..errors import MemoryBudgetError
from ..geolocation.result import normalised_rows
from ..geolocation.sites import local_spacing_m
from ..grid import Grid
from ..progress import Progress, no_progress
from .layouts import LayoutSettings, random_layout
from .parameters import SimulatorParameters, error_matched_parameters
from .simulator import Equipment, equip, simulate

#: Tunings of the simulator by name.
CALIBRATIONS = {"default": SimulatorParameters, "paper_errors": error_matched_parameters}
#: Bytes a cell of the grid takes, and one that a site is computed at beside four a carrier.
_BYTES_PER_CELL, _BYTES_PER_HEARD_CELL = 80, 12


@dataclass(frozen=True)
class Scene:
    """What a simulated network is made of.

    Parameters
    ----------
    sites_m
        BS positions [m] in the grid's CRS, all different, on the grid, shape (n_bs, 2).
    grid, mask
        The cells, and those where devices can be, shape (height, width), bool; None for all.
    calibration
        One of `CALIBRATIONS`.
    seed
        Of equipment and shadowing.
    memory_mb
        Most memory the simulation may take [MiB].
    """

    sites_m: np.ndarray
    grid: Grid
    mask: np.ndarray | None = None
    calibration: str = "default"
    seed: int = 0
    memory_mb: float = 4096.0


def layout_within(bounds: tuple[float, float, float, float], seed: int) -> np.ndarray:
    """Draw a random layout that fills a rectangle (x_min, y_min, x_max, y_max) [m], shape (n_bs, 2)."""
    x_min, y_min, x_max, y_max = bounds
    settings = replace(LayoutSettings(), side_m=max(x_max - x_min, y_max - y_min))
    sites_m = random_layout(settings, np.random.default_rng([seed, 0]))
    sites_m += [(x_min + x_max) / 2, (y_min + y_max) / 2]
    inside = ((sites_m > [x_min, y_min]) & (sites_m < [x_max, y_max])).all(axis=1)
    return np.asarray(sites_m[inside])


def simulate_scene(scene: Scene, progress: Progress = no_progress) -> tuple[sparse.csr_matrix, Equipment]:
    """Return P(ℓ|i), CSR float32, shape (n_bs, n_cells), each row summing to one or empty; and what stands at each site.

    Raises
    ------
    InputError
        When there are fewer than two BSs.
    MemoryBudgetError
        When it would take too much memory; said before the work starts.
    Cancelled
        From `progress`.
    """
    parameters = CALIBRATIONS[scene.calibration]()
    if len(scene.sites_m) > 1:
        _check_memory(scene, parameters)
    association = simulate(scene.sites_m, scene.grid, parameters, scene.seed, scene.mask, progress)
    equipment = equip(scene.sites_m, parameters, np.random.default_rng(scene.seed))
    return normalised_rows(association), equipment


def _check_memory(scene: Scene, parameters: SimulatorParameters) -> None:
    reach_m = np.maximum(parameters.reach_spacings * local_spacing_m(scene.sites_m), parameters.least_reach_m)
    size = 2 * reach_m / scene.grid.cell_size_m
    heard = np.minimum(size, scene.grid.height) * np.minimum(size, scene.grid.width)
    per_heard = 4 * len(parameters.carriers) + _BYTES_PER_HEARD_CELL
    needed_mb = (float(heard.sum()) * per_heard + scene.grid.size * _BYTES_PER_CELL) / 2**20
    if needed_mb > scene.memory_mb:
        factor = np.sqrt(needed_mb / scene.memory_mb)
        raise MemoryBudgetError(
            f"Simulating {len(scene.sites_m):,} base stations on {scene.grid.describe()} needs about {needed_mb:,.0f} MB; "
            f"{scene.memory_mb:,.0f} MB are allowed. Use CELL_SIZE {scene.grid.cell_size_m * factor * 1.05:.3g} or more, a smaller "
            "extent, or allow more memory."
        )
