"""Truths: geolocation stacks that count as what is, matched by id to the base stations (BSs) of a layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from qgis.core import QgsCoordinateReferenceSystem, QgsProcessingFeatureSource

from ..models.errors import InputError
from ..models.progress import Progress
from . import rasters
from .sites import listed, read_sites

if TYPE_CHECKING:
    from ..models.geolocation.sites import Sites
    from ..models.geolocation.stack import Stack
    from ..models.training.truth import TruthNetwork
    from .algorithm import Run

#: How far the sum of a probability may be from one.
SUM_TOLERANCE = 0.02


@dataclass(frozen=True)
class Truth:
    """A layer's BSs with the true maps of one stack.

    Parameters
    ----------
    network
        All BSs of the layer; its targets are those with a band that has mass.
    sites
        The same BSs.
    crs
        The stack's CRS, that of the positions.
    without_band, without_site, empty
        BSs without a band, bands without a BS, and BSs whose band holds no mass.
    """

    network: TruthNetwork
    sites: Sites
    crs: QgsCoordinateReferenceSystem
    without_band: tuple[str, ...]
    without_site: tuple[str, ...]
    empty: tuple[str, ...]


def read_truth(
    run: Run,
    source: QgsProcessingFeatureSource,
    id_field: str | None,
    raster: tuple[str, str],
    progress: Progress,
) -> Truth:
    """Read one stack, as (path, name), of the parameter TRUTH and match it to the BSs of `source`.

    Raises
    ------
    InputError
        When it is no stack of probabilities, has no CRS, or no band is named like a BS.
    """
    from ..models.training.truth import TruthNetwork

    stack = rasters.read_stack(*raster, progress)
    crs = QgsCoordinateReferenceSystem.fromWkt(stack.grid.crs_wkt)
    if not crs.isValid():
        raise InputError(f"TRUTH '{stack.name}' has no known CRS. Set it with 'Assign projection'.")
    maps = _location_given_bs(stack)
    sites, _ = read_sites(run, source, id_field, crs=crs)
    rows = _rows(stack, sites)
    chosen = maps[np.maximum(rows, 0)]
    counts = np.where(rows >= 0, np.diff(chosen.indptr), 0)
    kept = np.repeat(rows >= 0, np.diff(chosen.indptr))
    maps = type(chosen)(
        (chosen.data[kept], chosen.indices[kept], np.concatenate([[0], np.cumsum(counts)])), shape=chosen.shape
    )
    maps.sort_indices()
    served = np.zeros(stack.grid.size, bool)
    served[stack.maps.indices] = True
    network = TruthNetwork(
        stack.name,
        sites.xy_m,
        stack.grid,
        maps,
        np.flatnonzero(counts),
        None if served.all() else served.reshape(stack.grid.shape),
    )
    taken = set(rows.tolist())
    return Truth(
        network,
        sites,
        crs,
        tuple(sites.ids[index] for index in np.flatnonzero(rows < 0)),
        tuple(name for index, name in enumerate(stack.ids) if index not in taken),
        tuple(sites.ids[index] for index in np.flatnonzero((rows >= 0) & (counts == 0))),
    )


def report(run: Run, truths: Sequence[Truth]) -> int:
    """Log what does not match or is empty, and return how much: a BS counts where it has a band with mass in no truth."""
    used = {truth.sites.ids[index] for truth in truths for index in truth.network.targets}
    empty = {name: None for truth in truths for name in truth.empty if name not in used}
    without_band = {name: None for truth in truths for name in truth.without_band if name not in {*used, *empty}}
    if without_band:
        run.warn(f"{len(without_band):,} base stations have no band in TRUTH: {listed(list(without_band))}.")
    if empty:
        run.warn(f"{len(empty):,} base stations have an empty band in TRUTH: {listed(list(empty))}.")
    total = len(without_band) + len(empty)
    for truth in truths:
        if truth.without_site:
            names = listed(list(truth.without_site))
            run.warn(f"{len(truth.without_site):,} bands of '{truth.network.name}' have no base station: {names}.")
        total += len(truth.without_site)
    return total


def _location_given_bs(stack: Stack):  # noqa: ANN202 - a CSR matrix; scipy is loaded by runs only
    """P(ℓ|i) of a stack in either form; where no tag says which, the sums do."""
    from ..models.geolocation.result import normalised_rows, row_sums

    sums = row_sums(stack.maps)
    with_mass = sums > 0
    if not with_mass.any():
        raise InputError(f"TRUTH '{stack.name}' holds no mass in any band.")
    wrong = with_mass & (abs(sums - 1) > SUM_TOLERANCE)
    if wrong.any():
        cells = np.bincount(stack.maps.indices, stack.maps.data, minlength=stack.grid.size)
        if (abs(cells[cells > 0] - 1) > SUM_TOLERANCE).any():
            index = int(np.flatnonzero(wrong)[0])
            raise InputError(
                f"TRUTH '{stack.name}' holds no probabilities: band '{stack.ids[index]}' sums to {sums[index]:.3g}. Every band must sum to "
                "1 over cells (P(location | BS)), or all bands to 1 at each cell (P(BS | location))."
            )
    return normalised_rows(stack.maps)


def _rows(stack: Stack, sites: Sites) -> np.ndarray:
    """Band of each site, −1 for none, shape (n_sites,)."""
    band_of = {name: index for index, names in reversed(list(enumerate(stack.members))) for name in names}
    band_of.update({name: index for index, name in enumerate(stack.ids)})
    rows = np.full(len(sites), -1)
    taken: set[int] = set()
    for index, names in enumerate(sites.members):
        band = next((band_of[name] for name in names if band_of.get(name, -1) not in {-1, *taken}), -1)
        rows[index] = band
        taken.add(band)
    if (rows < 0).all():
        raise InputError(
            f"No band of TRUTH '{stack.name}' is named like a base station of INPUT (bands such as '{stack.ids[0]}'; ids such as "
            f"'{sites.ids[0]}'). Choose the ID_FIELD it was made with."
        )
    return rows
