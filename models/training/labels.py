"""DeepMEND's soft labels: the teacher's maps of a network (section IV-A of the paper)."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from ..geolocation.teacher import Teaching, teach
from ..progress import Progress, no_progress
from .truth import TruthNetwork


def soft_labels(network: TruthNetwork, *, threads: int = 2, progress: Progress = no_progress) -> sparse.csr_matrix:
    """Return P(ℓ|i) of sPDI with the best β of each target, shape (n_bs, n_cells); rows of other BSs are empty."""
    taught = teach(
        network.sites_m,
        network.grid,
        network.maps,
        network.targets,
        mask=network.mask,
        threads=threads,
        progress=progress,
    )
    return by_bs(taught, network.targets, len(network.sites_m))


def by_bs(taught: Teaching, rows: np.ndarray, n_bs: int) -> sparse.csr_matrix:
    """Return the teacher's maps with one row per BS, empty for those it was not asked about."""
    counts = np.zeros(n_bs, np.int64)
    counts[rows] = np.diff(taught.maps.indptr)
    ends = np.concatenate([[0], np.cumsum(counts)])
    return sparse.csr_matrix((taught.maps.data, taught.maps.indices, ends), shape=(n_bs, taught.maps.shape[1]))
