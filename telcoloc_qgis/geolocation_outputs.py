"""The layers of a geolocation: stack, best server and coverage, with their styles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np
from qgis.core import QgsCoordinateReferenceSystem, QgsFeature, QgsFields, QgsWkbTypes
from qgis.PyQt.QtCore import QMetaType

from ..models.geolocation.coverage import mass_levels
from ..models.grid import Grid
from ..models.progress import Progress
from . import polygons, rasters, styles
from .outputs import fields_of

if TYPE_CHECKING:
    from scipy import sparse

    from ..models.geolocation.result import Geolocation
    from ..models.geolocation.sites import Sites
    from .algorithm import Run

LEVELS = (0.5, 0.75, 0.95)
FORMS = tuple(rasters.CONTENTS)


def write_geolocation(run: Run, sites: Sites, result: Geolocation, facts: Mapping[str, str]) -> None:
    """Write OUTPUT in the form that CONDITIONAL asks for."""
    form = run.parameters.choice("CONDITIONAL")
    maps = result.location_given_bs() if form == FORMS[0] else result.association
    write_stack(run, "OUTPUT", result.grid, maps, sites, facts, run.progress.phase("Writing the stack", 0.5, 0.8), form)


def write_stack(
    run: Run,
    name: str,
    grid: Grid,
    maps: sparse.csr_matrix,
    sites: Sites,
    facts: Mapping[str, str],
    progress: Progress,
    form: str = FORMS[0],
) -> None:
    """Write output `name`: one band per BS, opening on one near the middle of the network; `facts` become metadata."""
    rasters.write_stack(
        run.outputs.file(name, ".tif"),
        grid,
        maps,
        sites.ids,
        sites.members,
        {**facts, "TELCOLOC_CONTENT": rasters.CONTENTS[form], "TELCOLOC_FORM": form},
        run.threads,
        progress,
    )
    filled = np.flatnonzero(np.diff(maps.indptr))
    middle = np.median(sites.xy_m[filled], axis=0)
    shown = int(filled[np.argmin(((sites.xy_m[filled] - middle) ** 2).sum(axis=1))])
    largest = float(maps.data[maps.indptr[shown] : maps.indptr[shown + 1]].max())
    run.style(name, run.outputs.results[name], styles.probability_qml(shown + 1, largest))


def write_best_server(run: Run, sites: Sites, result: Geolocation) -> None:
    """Write BEST_SERVER with its attribute table, if it is asked for."""
    if not run.parameters.wants("BEST_SERVER"):
        return
    path = run.outputs.file("BEST_SERVER", ".tif")
    colours = styles.neighbour_colours(result.best_server, len(sites))
    table = {
        "value": np.arange(len(sites)),
        "bs_id": sites.ids,
        "x_m": sites.xy_m[:, 0],
        "y_m": sites.xy_m[:, 1],
        "sectors": sites.sectors,
        "best_server_cells": np.bincount(result.best_server[result.best_server >= 0], minlength=len(sites)),
        "mass_cut": np.nan_to_num(result.mass_cut, nan=-1.0),
        **styles.area_rgb(colours),
    }
    rasters.write_bands(
        path,
        result.grid,
        [
            result.best_server,
            np.where(result.best_server >= 0, result.best_probability, -1),
            np.where(result.best_server >= 0, result.entropy_bits, -1),
        ],
        ["Best server (row of the attribute table)", "Probability of the best server", "Entropy [bit]"],
        {"TELCOLOC_CONTENT": "best server, its probability, entropy of the choice"},
        nodata=-1,
        table=table,
        threads=run.threads,
        progress=run.progress.phase("Writing the best server", 0.8, 0.85),
    )
    run.style("BEST_SERVER", run.outputs.results["BEST_SERVER"], styles.best_server_qml(sites.ids, colours))


def write_coverage(run: Run, sites: Sites, result: Geolocation, crs: QgsCoordinateReferenceSystem) -> None:
    """Write COVERAGE: per BS the smallest areas that hold each of `LEVELS`, if it is asked for."""
    if not run.parameters.wants("COVERAGE"):
        return
    kind = QMetaType.Type
    fields = fields_of(
        ("bs_id", kind.QString),
        ("level", kind.Int),
        ("mass", kind.Double),
        ("area_km2", kind.Double),
        ("sectors", kind.Int),
    )
    progress = run.progress.phase("Drawing coverage areas", 0.85, 1.0)
    rows = [
        feature for index in range(len(sites)) for feature in _coverage_features(sites, result, index, fields, progress)
    ]
    layer = run.outputs.table("COVERAGE", fields, rows, QgsWkbTypes.Type.MultiPolygon, crs, progress, len(rows))
    run.style("COVERAGE", layer, styles.coverage_qml())


def _coverage_features(
    sites: Sites, result: Geolocation, index: int, fields: QgsFields, progress: Progress
) -> Iterator[QgsFeature]:
    progress(index / len(sites))
    low, high = result.association.indptr[index], result.association.indptr[index + 1]
    if low == high:
        return
    cells = result.association.indices[low:high]
    share = result.association.data[low:high].astype(np.float64)
    share /= share.sum()
    levels = mass_levels(share, LEVELS)
    shapes = polygons.areas_of(levels, cells, len(LEVELS), result.grid)
    for level in reversed(range(len(LEVELS))):
        feature = QgsFeature(fields)
        feature.setGeometry(shapes[level])
        held = levels <= level
        area = int(held.sum()) * result.grid.cell_area_m2 / 1e6
        feature.setAttributes(
            [sites.ids[index], round(100 * LEVELS[level]), float(share[held].sum()), area, int(sites.sectors[index])]
        )
        yield feature
