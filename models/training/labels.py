"""DeepMEND's soft labels: the teacher's maps of a network (section IV-A of the paper)."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from ..geolocation.teacher import teach
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
    counts = np.zeros(len(network.sites_m), np.int64)
    counts[network.targets] = np.diff(taught.maps.indptr)
    ends = np.concatenate([[0], np.cumsum(counts)])
    return sparse.csr_matrix((taught.maps.data, taught.maps.indices, ends), shape=network.maps.shape)
