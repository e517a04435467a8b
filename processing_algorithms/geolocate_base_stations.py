"""`telcoloc:geolocatebasestations`: a base-station layer becomes geolocation probability rasters."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from qgis.core import (
    Qgis,
    QgsCoordinateReferenceSystem,
    QgsFeature,
    QgsField,
    QgsFields,
    QgsProcessing,
    QgsProcessingOutputNumber,
    QgsProcessingOutputString,
    QgsProcessingParameterEnum,
    QgsProcessingParameterExtent,
    QgsProcessingParameterFeatureSink,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterDestination,
    QgsRectangle,
    QgsWkbTypes,
)
from qgis.PyQt.QtCore import QMetaType

from ..models.errors import InputError
from ..models.geolocation.coverage import mass_levels
from ..models.grid import Grid
from ..models.progress import Progress
from ..telcoloc_qgis import polygons, rasters, styles
from ..telcoloc_qgis.algorithm import Run, TelcoLocAlgorithm
from ..telcoloc_qgis.crs import name_of
from ..telcoloc_qgis.sites import listed, read_sites

if TYPE_CHECKING:  # the engine needs scipy, which nothing but a run should load
    from ..models.geolocation.engine import GeolocationJob
    from ..models.geolocation.result import Geolocation
    from ..models.geolocation.sites import Sites

METHODS = ("voronoi", "spdi")
LEVELS = (0.5, 0.75, 0.95)
FORMS = ("location_given_bs", "bs_given_location")


class GeolocateBaseStations(TelcoLocAlgorithm):
    """See the module's docstring."""

    NAME = "geolocatebasestations"
    TITLE = "Geolocate base stations"
    SUMMARY = "From base-station positions to the probability of where each one's devices are."
    DESCRIPTION = (
        "For every base station (BS) of a point layer, computes the probability that a device served by it is at each cell of a "
        "grid, from the positions of all BSs alone.\n\n"
        "voronoi gives every cell to its nearest BS, evenly. spdi is the probabilistic model of Traag et al. (2011) in the exact "
        "form of the DeepMEND paper, equation (2): near a BS its share is large, between BSs shares mix, and BETA says how fast "
        "the signal weakens with distance. All BSs that matter at a cell are used, not a fixed few.\n\n"
        "Sectors at equal coordinates count as one BS. Layers in degrees, feet or Web Mercator are projected to a metric CRS, "
        "which the log and the outputs name. Outer BSs serve an area without an end: the share of their mass that the margin cuts "
        "off is measured and reported."
    )
    EXAMPLE = (
        "qgis_process run telcoloc:geolocatebasestations --INPUT=stations.gpkg --ID_FIELD=bs_id --METHOD=spdi "
        "--OUTPUT=stack.tif --BEST_SERVER=best_server.tif --COVERAGE=coverage.gpkg"
    )
    TAGS = (
        "telecom",
        "cell",
        "base station",
        "bts",
        "antenna",
        "voronoi",
        "spdi",
        "coverage",
        "best server",
        "probability",
    )
    ICON = "geolocate.svg"

    def define(self) -> None:
        number = QgsProcessingParameterNumber
        point = QgsProcessing.SourceType.TypeVectorPoint
        self.add(
            QgsProcessingParameterFeatureSource("INPUT", self.tr("Base stations"), [point]),
            self.tr("Point layer of base stations in any CRS. Points at equal coordinates are sectors of one BS."),
        )
        self.add(
            QgsProcessingParameterField(
                "ID_FIELD", self.tr("Id field"), parentLayerParameterName="INPUT", optional=True
            ),
            self.tr(
                "Field that names the BS; it becomes the band's name. One id must not stand at two places. Without it the feature id "
                "is used."
            ),
        )
        self.add(
            QgsProcessingParameterEnum(
                "METHOD", self.tr("Method"), list(METHODS), defaultValue="spdi", usesStaticStrings=True
            ),
            self.tr("voronoi (nearest BS takes all, evenly) or spdi (probabilistic, smooth)."),
        )
        self.add(
            number("BETA", self.tr("Attenuation β (spdi)"), number.Type.Double, 4.0, False, 0.01, 20.0),
            self.tr(
                "How fast the signal weakens with distance. The literature uses 5 for urban, 4 for suburban and 3 for rural areas; "
                "large values approach the Voronoi cells, small ones spread each BS widely."
            ),
        )
        self.add(
            number("NEIGHBOURS", self.tr("Nearest base stations per cell (spdi)"), number.Type.Integer, None, True, 2),
            self.tr(
                "Look only at this many nearest BSs at each cell. Empty: all that matter (the paper's shortcut is 5)."
            ),
        )
        self.add(
            number("CELL_SIZE", self.tr("Cell size [m]"), number.Type.Double, None, True, 0.01),
            self.tr(
                "Side of the grid's cells in metres. Empty: a fifth of the lower-quartile BS spacing, rounded to 1, 2 or 5."
            ),
        )
        self.add(
            QgsProcessingParameterFeatureSource(
                "BOUNDARY", self.tr("Boundary"), [QgsProcessing.SourceType.TypeVectorPolygon], optional=True
            ),
            self.tr("Polygons where devices can be; sea and abroad outside of them hold no mass."),
        )
        self.add(
            QgsProcessingParameterExtent("EXTENT", self.tr("Extent"), optional=True),
            self.tr("Area of the grid. Empty: all BSs plus the margin, cut to the boundary."),
        )
        self.add(
            number("MARGIN", self.tr("Margin [m]"), number.Type.Double, None, True, 0.0),
            self.tr(
                "Width around the outermost BSs when no extent is given. Empty: the 95 % quantile of the nearest-neighbour distance. "
                "Beyond the network spdi spreads every BS's mass ever further, so a wide margin thins out the inner BSs; where the "
                "land ends, give a boundary instead."
            ),
        )
        self.add(
            QgsProcessingParameterEnum(
                "CONDITIONAL",
                self.tr("Probability in the stack"),
                list(FORMS),
                defaultValue=FORMS[0],
                usesStaticStrings=True,
            ),
            self.tr(
                "location_given_bs: P(location | BS), each band sums to one over cells. bs_given_location: P(BS | location), bands sum "
                "to one at each cell."
            ),
            advanced=True,
        )
        self.add(
            number("MIN_PROBABILITY", self.tr("Smallest probability kept"), number.Type.Double, 1e-4, False, 0.0, 0.1),
            self.tr(
                "P(BS | location) below this is dropped and the cell scaled back to one. Smaller values make larger files."
            ),
            advanced=True,
        )
        self.add(
            number("MAX_MEMORY_MB", self.tr("Memory budget [MB]"), number.Type.Integer, 4096, False, 64),
            self.tr(
                "Most memory the job may take. A job that would need more is refused before it starts, with a way out."
            ),
            advanced=True,
        )
        self.add_device()
        self.add(
            QgsProcessingParameterRasterDestination("OUTPUT", self.tr("Geolocation stack")),
            self.tr("GeoTIFF with one band per BS, named by its id; nodata 0."),
        )
        self.add(
            QgsProcessingParameterRasterDestination("BEST_SERVER", self.tr("Best server"), optional=True),
            self.tr(
                "GeoTIFF: the BS with the largest probability at each cell (raster attribute table with id, position, sectors and mass "
                "cut off), that probability, and the entropy of the choice in bits."
            ),
        )
        self.add(
            QgsProcessingParameterFeatureSink(
                "COVERAGE", self.tr("Coverage"), QgsProcessing.SourceType.TypeVectorPolygon, optional=True
            ),
            self.tr("Per BS the smallest areas that hold 50, 75 and 95 % of its mass."),
        )
        for name, label, text in (
            ("BS_COUNT", "Base stations", "Number of distinct base stations."),
            ("MERGED", "Duplicates merged", "Number of points that joined a base station at the same coordinates."),
            ("SKIPPED", "Without mass", "Number of base stations without mass on the grid; their bands are empty."),
            (
                "MASS_CUT_MEDIAN",
                "Median mass cut off",
                "Median over BSs of the share of mass in a ring one margin wide around the grid.",
            ),
            ("MASS_CUT_MAX", "Largest mass cut off", "Largest of these shares."),
            ("SECONDS", "Seconds", "Wall time of the run [s]."),
        ):
            self.add_result(QgsProcessingOutputNumber(name, self.tr(label)), self.tr(text))
        self.add_result(QgsProcessingOutputString("DEVICE_USED", self.tr("Device used")), self.tr("cpu or cuda."))
        self.add_result(
            QgsProcessingOutputString("CRS", self.tr("CRS of the outputs")), self.tr("The metric CRS used.")
        )

    def work(self, run: Run) -> dict[str, Any]:
        from ..models.geolocation.engine import GeolocationJob, geolocate

        parameters = run.parameters
        source = parameters.source("INPUT")
        sites, crs = read_sites(run, source, parameters.field("ID_FIELD", source))
        frame = _frame(run, sites, crs)
        grid = frame.grid
        run.info(f"{len(sites):,} base stations on {grid.describe()} in {name_of(crs)}.")
        method = parameters.choice("METHOD")
        device = run.device() if method == "spdi" else "cpu"
        job = GeolocationJob(
            sites_m=sites.xy_m,
            grid=grid,
            mask=frame.mask,
            surroundings=frame.surroundings,
            surroundings_mask=frame.surroundings_mask,
            method=method,
            beta=parameters.number("BETA"),
            neighbours=parameters.integer("NEIGHBOURS"),
            min_probability=parameters.number("MIN_PROBABILITY"),
            device=device,
            threads=run.threads,
            memory_mb=parameters.number("MAX_MEMORY_MB"),
        )
        result = geolocate(job, run.progress.phase(self.tr("Computing probabilities"), 0.02, 0.5))
        run.info(
            f"Computed in {run.seconds:.1f} s; base stations looked at per cell: {_range_text(result.neighbours)}."
        )
        facts = _report_mass(run, sites, result)
        _write_stack(run, job, sites, result)
        _write_best_server(run, sites, result)
        _write_coverage(run, sites, result, crs)
        return {
            "BS_COUNT": len(sites),
            "MERGED": sites.merged,
            **facts,
            "SECONDS": round(run.seconds, 2),
            "DEVICE_USED": device,
            "CRS": name_of(crs),
        }


@dataclass(frozen=True)
class _Frame:
    grid: Grid
    mask: np.ndarray | None
    surroundings: Grid | None
    surroundings_mask: np.ndarray | None


def _frame(run: Run, sites: Sites, crs: QgsCoordinateReferenceSystem) -> _Frame:
    """Choose the grid, and a coarser one around it on which the mass cut off is measured."""
    from ..models.geolocation.sites import default_cell_size_m, default_margin_m

    parameters = run.parameters
    extent = parameters.extent("EXTENT", crs)
    cell_size = parameters.number("CELL_SIZE")
    margin = parameters.number("MARGIN")
    boundary_source = parameters.source("BOUNDARY")
    boundary = None
    if boundary_source is not None:
        usable, rejected = polygons.polygon_features(boundary_source, crs, run.context, "BOUNDARY")
        if rejected:
            run.warn(f"BOUNDARY: {len(rejected):,} polygons cannot be used: {listed(rejected)}.")
        boundary = [geometry for _, geometry in usable]
    if len(sites) == 1 and (cell_size is None or (extent is None and boundary is None)):
        rows = int(sites.sectors.sum())
        what = "There is only one base station" if rows == 1 else f"All {rows:,} points have the same coordinates"
        raise InputError(
            f"{what}, so no spacing can be derived. Give CELL_SIZE and EXTENT or BOUNDARY, or use a layer with at least two places."
        )
    if margin is None:
        margin = default_margin_m(sites.xy_m) if len(sites) > 1 else 0.0
    around = QgsRectangle(*sites.xy_m.min(axis=0), *sites.xy_m.max(axis=0)).buffered(margin)
    if extent is None:
        extent = around
        if boundary is not None:
            inner = QgsRectangle()
            for geometry in boundary:
                inner.combineExtentWith(geometry.boundingBox())
            extent = inner if len(sites) == 1 else around.intersect(inner)
            if extent.isEmpty():
                raise InputError(
                    "BOUNDARY lies wholly outside the base stations and their margin, so no cell can hold mass. "
                    "Check its CRS, use another boundary, or leave it empty."
                )
    bounds = (extent.xMinimum(), extent.yMinimum(), extent.xMaximum(), extent.yMaximum())
    if cell_size is None:
        cell_size = default_cell_size_m(sites.xy_m, bounds)
        run.info(f"Cell size {cell_size:g} m, from the spacing of the base stations.")
    n_cells = (bounds[2] - bounds[0]) * (bounds[3] - bounds[1]) / cell_size**2
    budget_mb = parameters.number("MAX_MEMORY_MB")
    if n_cells * 40 / 2**20 > budget_mb or n_cells > 2**31 - 1:
        least = cell_size * math.sqrt(max(n_cells * 40 / 2**20 / budget_mb, n_cells / 2**31))
        raise InputError(
            f"CELL_SIZE {cell_size:g} m makes {n_cells:,.0f} cells, which need {n_cells * 40 / 2**20:,.0f} MB; {budget_mb:,.0f} MB "
            f"are allowed. Use CELL_SIZE {least * 1.05:.3g} or more, or a smaller EXTENT."
        )
    grid = Grid.covering(bounds, cell_size, crs.toWkt(Qgis.CrsWktVariant.Preferred) if crs.isValid() else "")
    mask = None if boundary is None else polygons.inside_mask(boundary, grid)
    if mask is not None and not mask.any():
        raise InputError(
            "BOUNDARY holds the centre of no cell of the grid. Use a smaller CELL_SIZE, or another boundary."
        )
    if len(sites) == 1 or margin <= 0:
        return _Frame(grid, mask, None, None)
    x_min, y_min, x_max, y_max = grid.bounds
    wide = (x_min - margin, y_min - margin, x_max + margin, y_max + margin)
    coarse = max(4 * cell_size, math.sqrt((wide[2] - wide[0]) * (wide[3] - wide[1]) / 60_000))
    surroundings = Grid.covering(wide, coarse, grid.crs_wkt, snap=False)
    in_columns = (surroundings.x_m > x_min) & (surroundings.x_m < x_max)
    in_rows = (surroundings.y_m > y_min) & (surroundings.y_m < y_max)
    beyond = ~(in_rows[:, None] & in_columns)
    if boundary is not None:
        beyond &= polygons.inside_mask(boundary, surroundings)
    return _Frame(grid, mask, surroundings, beyond)


def _range_text(values: tuple[int, int, int]) -> str:
    low, middle, high = values
    return f"{low}" if low == high else f"{low} to {high}, median {middle}"


def _report_mass(run: Run, sites: Sites, result: Geolocation) -> dict[str, Any]:
    """Log BSs without mass and the mass that the grid cuts off."""
    empty = np.flatnonzero(result.mass == 0)
    if len(empty) == len(sites):
        raise InputError("No base station has any mass on the grid. Check EXTENT and BOUNDARY.")
    if len(empty):
        names = listed([sites.ids[index] for index in empty])
        run.warn(
            f"{len(empty):,} base stations have no mass on the grid (bands stay empty): {names}. Smaller cells may help."
        )
    cut = result.mass_cut[np.isfinite(result.mass_cut)]
    facts: dict[str, Any] = {"SKIPPED": len(empty), "MASS_CUT_MEDIAN": None, "MASS_CUT_MAX": None}
    if cut.size:
        facts.update(MASS_CUT_MEDIAN=float(np.median(cut)), MASS_CUT_MAX=float(cut.max()))
        run.info(
            f"Mass cut off by the grid, measured in a ring one margin wide around it: median {np.median(cut):.2%}, "
            f"95 % of base stations under {np.quantile(cut, 0.95):.1%}, largest {cut.max():.1%}."
        )
    return facts


def _metadata(job: GeolocationJob, form: str) -> dict[str, str]:
    facts = {"TELCOLOC_METHOD": job.method, "TELCOLOC_CONTENT": rasters.CONTENTS[form], "TELCOLOC_FORM": form}
    if job.method == "spdi":
        facts["TELCOLOC_BETA"] = f"{job.beta:g}"
        facts["TELCOLOC_MIN_PROBABILITY"] = f"{job.min_probability:g}"
    return facts


def _write_stack(run: Run, job: GeolocationJob, sites: Sites, result: Geolocation) -> None:
    form = run.parameters.choice("CONDITIONAL")
    maps = result.location_given_bs() if form == FORMS[0] else result.association
    path = run.outputs.file("OUTPUT", ".tif")
    rasters.write_stack(
        path,
        result.grid,
        maps,
        sites.ids,
        sites.members,
        _metadata(job, form),
        run.threads,
        run.progress.phase("Writing the stack", 0.5, 0.8),
    )
    filled = np.flatnonzero(np.diff(maps.indptr))
    middle = np.median(sites.xy_m[filled], axis=0)
    shown = int(filled[np.argmin(((sites.xy_m[filled] - middle) ** 2).sum(axis=1))])
    largest = float(maps.data[maps.indptr[shown] : maps.indptr[shown + 1]].max())
    run.style("OUTPUT", run.outputs.results["OUTPUT"], styles.probability_qml(shown + 1, largest))


def _write_best_server(run: Run, sites: Sites, result: Geolocation) -> None:
    if not run.parameters.wants("BEST_SERVER"):
        return
    path = run.outputs.file("BEST_SERVER", ".tif")
    colours = styles.neighbour_colours(result.best_server, len(sites))
    red, green, blue = (
        np.array([int(styles.AREAS[colour][start : start + 2], 16) for colour in colours]) for start in (1, 3, 5)
    )
    table = {
        "value": np.arange(len(sites)),
        "bs_id": sites.ids,
        "x_m": sites.xy_m[:, 0],
        "y_m": sites.xy_m[:, 1],
        "sectors": sites.sectors,
        "best_server_cells": np.bincount(result.best_server[result.best_server >= 0], minlength=len(sites)),
        "mass_cut": np.nan_to_num(result.mass_cut, nan=-1.0),
        "red": red,
        "green": green,
        "blue": blue,
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


def _write_coverage(run: Run, sites: Sites, result: Geolocation, crs: QgsCoordinateReferenceSystem) -> None:
    if not run.parameters.wants("COVERAGE"):
        return
    fields = QgsFields()
    for name, kind in (
        ("bs_id", QMetaType.Type.QString),
        ("level", QMetaType.Type.Int),
        ("mass", QMetaType.Type.Double),
        ("area_km2", QMetaType.Type.Double),
        ("sectors", QMetaType.Type.Int),
    ):
        fields.append(QgsField(name, kind))
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
