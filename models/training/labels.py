"""DeepMEND's soft labels: the teacher's maps of a network (section IV-A of the paper)."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from ..geolocation.engine import GeolocationJob, geolocate
from ..geolocation.teacher import teach
from ..progress import Progress, no_progress, span
from .truth import TruthNetwork


def soft_labels(
    network: TruthNetwork, *, threads: int = 2, device: str = "cpu", progress: Progress = no_progress
) -> sparse.csr_matrix:
    """Return P(ℓ|i) of sPDI with the best β of each target, shape (n_bs, n_cells); rows of other BSs are empty."""
    rows = network.targets
    taught = teach(
        network.sites_m,
        network.grid,
        network.maps,
        rows,
        mask=network.mask,
        threads=threads,
        progress=span(progress, 0, 0.6),
    )
    beta = np.full(len(network.sites_m), 2.0)
    beta[rows] = taught.beta
    job = GeolocationJob(
        network.sites_m, network.grid, network.mask, beta=beta, min_probability=1e-4, device=device, threads=threads
    )
    maps = geolocate(job, span(progress, 0.6, 1)).location_given_bs()
    wanted = np.zeros(maps.shape[0])
    wanted[rows] = 1
    result = sparse.diags(wanted) @ maps
    result.eliminate_zeros()
    return result.tocsr().astype(np.float32)
