"""How good a geolocation method is on networks whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ..geolocation.engine import GeolocationJob, geolocate
from ..geolocation.ks2 import compare_maps
from ..geolocation.learned import maps_of_student
from ..geolocation.sites import URBANISATIONS
from ..progress import Progress, no_progress, span
from .truth import TruthNetwork


def targets_of(network: TruthNetwork, most: int, seed: int = 0) -> TruthNetwork:
    """Return the network with at most `most` of its targets, chosen at random by `seed`."""
    if len(network.targets) <= most:
        return network
    chosen = np.random.default_rng(seed).choice(network.targets, most, replace=False)
    return replace(network, targets=np.sort(chosen))


def ks2_of(network: TruthNetwork, job: GeolocationJob, progress: Progress = no_progress) -> np.ndarray:
    """KS2 of the maps that `job` makes of the network's positions against its truth, shape (n_targets,); NaN without a map.

    The job's positions, grid and mask are replaced by the network's.
    """
    job = replace(job, sites_m=network.sites_m, grid=network.grid, mask=network.mask)
    drawing = span(progress, 0, 0.7)
    if job.method in ("deepmend", "direct"):  # these draw each map by itself
        maps = maps_of_student(job, network.targets, drawing)[0]
    else:
        maps = geolocate(job, drawing).location_given_bs()
    maps = maps[network.targets]
    return compare_maps(network.maps[network.targets], maps, network.grid, span(progress, 0.7, 1))[0]


def median_by_urbanisation(ks2: np.ndarray, urbanisation: np.ndarray) -> dict[str, float]:
    """Medians of all and of each class that occurs, by name, rounded to four digits."""
    found = {"all": float(np.nanmedian(ks2))}
    for index, name in enumerate(URBANISATIONS):
        if (urbanisation == index).any():
            found[name] = float(np.nanmedian(ks2[urbanisation == index]))
    return {name: round(value, 4) for name, value in found.items()}
