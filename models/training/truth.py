"""`TruthNetwork`: a network of base stations (BSs) whose geolocation is known, to train and to test on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import sparse

from ..geolocation import sites
from ..grid import Grid


@dataclass(frozen=True)
class TruthNetwork:
    """A network with its true maps.

    Parameters
    ----------
    name
        What people call it; networks, never BSs, are divided into training and test.
    sites_m
        Positions [m] of all BSs, shape (n_bs, 2).
    grid
        The cells.
    maps
        True P(ℓ|i), CSR float32, shape (n_bs, n_cells), sorted indices; rows sum to one or are empty.
    targets
        Indices of the BSs to learn from or to judge: those whose surroundings are inside the grid, shape (n_targets,).
    mask
        Cells where devices can be, shape (height, width), bool; None for all.
    """

    name: str
    sites_m: np.ndarray
    grid: Grid
    maps: sparse.csr_matrix
    targets: np.ndarray
    mask: np.ndarray | None = None

    @property
    def spacing_m(self) -> np.ndarray:
        """Local spacing of each BS [m], shape (n_bs,)."""
        return sites.local_spacing_m(self.sites_m)

    @property
    def urbanisation(self) -> np.ndarray:
        """Index into `sites.URBANISATIONS` of each BS, shape (n_bs,)."""
        return sites.urbanisation(self.spacing_m)
