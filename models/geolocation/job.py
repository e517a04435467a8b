"""`GeolocationJob`: all that a geolocation needs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from ..errors import InputError, MemoryBudgetError
from ..grid import Grid
from .reach import WeightedSpdi, check_beta

#: What `geolocate` can do, each with its function in `engine`.
METHODS = ("voronoi", "voronoiboost", "spdi", "direct", "deepmend", "deepmend_beta")
#: Windows of a student: as large as the local spacing asks for, or the paper's 600 × 600 cells of 100 m.
WINDOWS = ("adaptive", "fixed")


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
        Attenuation β of sPDI: one, or one per BS, shape (n_bs,). One per BS means one world per β, as the paper's soft labels: the map
        of BS i is P(i|ℓ) with β_i for all BSs.
    components
        Instead of `beta`, the sPDI to compute, with rates per BS in one world, or several whose mixture it is; none for `beta`.
    neighbours
        Number of nearest BSs sPDI looks at per cell; None for all that matter.
    weights
        Weights file of a learned method; empty for the one that ships.
    window
        Of a student, one of `WINDOWS`.
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
    beta: float | np.ndarray = 4.0
    components: tuple[WeightedSpdi, ...] = ()
    neighbours: int | None = None
    weights: str = ""
    window: str = "adaptive"
    min_probability: float = 1e-5
    device: str = "cpu"
    dtype: str = "float32"
    threads: int = 2
    memory_mb: float = 4096.0

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"Unknown method '{self.method}'. Methods: {', '.join(METHODS)}.")
        if self.window not in WINDOWS:
            raise InputError(f"Unknown window '{self.window}'. Windows: {', '.join(WINDOWS)}.")
        self._check_rates()
        if self.neighbours is not None and self.neighbours < 2:
            raise InputError(f"NEIGHBOURS is {self.neighbours}; sPDI needs at least 2 base stations to compare.")
        if not 0 <= self.min_probability < 0.5:
            raise InputError(f"The smallest probability kept is {self.min_probability:g}; it must be in [0, 0.5).")
        if self.mask is not None and self.mask.shape != self.grid.shape:
            raise InputError(f"The mask has shape {self.mask.shape}, the grid {self.grid.shape}.")

    def _check_rates(self) -> None:
        n_bs = len(self.sites_m)
        if np.ndim(self.beta) and np.shape(self.beta) != (n_bs,):
            raise InputError(f"BETA has the shape {np.shape(self.beta)}, but there are {n_bs} base stations.")
        check_beta(self.beta)
        for one in self.components:
            one.check(n_bs)
        total = sum(one.share for one in self.components)
        if self.components and not (
            min(one.share for one in self.components) > 0 and math.isclose(total, 1, rel_tol=1e-6)
        ):
            raise InputError(f"The shares of the mixed sPDIs must be positive and sum to 1, not to {total:g}.")

    @property
    def per_target(self) -> bool:
        """Whether each BS's map is from a world of its own, so that shares of a cell do not sum to one by themselves."""
        return not self.components and np.ndim(self.beta) > 0

    def around(self) -> GeolocationJob:
        """Return the job that fills the surroundings, roughly; there must be some."""
        if self.surroundings is None:
            raise InputError("This job has no surroundings to fill.")
        return replace(
            self,
            grid=self.surroundings,
            mask=self.surroundings_mask,
            surroundings=None,
            surroundings_mask=None,
            min_probability=1e-4,
        )

    def check_memory(self, n_values: int, what: str, bytes_per_value: int) -> None:
        """Refuse a job of `n_values` that would take too much.

        Raises
        ------
        MemoryBudgetError
            Says how much, and a cell size that fits.
        """
        needed_mb = (n_values * bytes_per_value + self.grid.size * 40) / 2**20
        if needed_mb > self.memory_mb:
            factor = math.sqrt(needed_mb / self.memory_mb)
            raise MemoryBudgetError(
                f"{self.grid.describe()} would hold about {n_values:,} {what} and need {needed_mb:,.0f} MB; {self.memory_mb:,.0f} MB "
                f"are allowed. Use CELL_SIZE {self.grid.cell_size_m * factor * 1.05:.3g} or more, a smaller EXTENT or MARGIN, a larger "
                "smallest probability, or allow more memory."
            )
