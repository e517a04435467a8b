"""`telcoloc:simulatenetwork`: a network whose truth is known, simulated on given or random base stations."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from qgis.core import (
    Qgis,
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsCsException,
    QgsFeature,
    QgsFields,
    QgsGeometry,
    QgsPointXY,
    QgsProcessing,
    QgsProcessingOutputNumber,
    QgsProcessingOutputString,
    QgsProcessingParameterCrs,
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
from ..models.grid import Grid
from ..telcoloc_qgis import polygons, styles
from ..telcoloc_qgis.algorithm import Run, TelcoLocAlgorithm
from ..telcoloc_qgis.crs import metric_crs, name_of
from ..telcoloc_qgis.geolocation_outputs import write_stack
from ..telcoloc_qgis.outputs import fields_of
from ..telcoloc_qgis.sites import listed, only, read_sites

if TYPE_CHECKING:
    from ..models.geolocation.sites import Sites
    from ..models.radio.simulator import Equipment

CALIBRATIONS = ("default", "paper_errors")
#: A grid of more cells than this is refused before anything is drawn on it.
MOST_CELLS = 100_000_000


class SimulateNetwork(TelcoLocAlgorithm):
    """See the module's docstring."""

    NAME = "simulatenetwork"
    TITLE = "Simulate a network"
    GROUP = "Training"
    SUMMARY = "A network whose truth is known: simulated maps of where each base station's devices are."
    DESCRIPTION = (
        "Simulates a mobile network and writes where the devices of each base station (BS) are: a truth to compare methods with, to teach "
        "β on and to train on, without an operator's data.\n\n"
        "The positions are those of INPUT, or a random city with suburbs, towns and open land. Sites get sectors, heights, powers, tilts "
        "and carriers by their surroundings; path loss is that of 3GPP TR 38.901, with correlated shadowing; devices take the carrier "
        "of highest priority that is strong enough, and on it the strongest site.\n\n"
        "It is a simulation: its parameters are standard ones, partly tuned to published facts about one operator's network. Equal seeds "
        "make equal networks."
    )
    EXAMPLE = "qgis_process run telcoloc:simulatenetwork --SIDE=6000 --SEED=1 --OUTPUT=simulated.tif --STATIONS=simulated.gpkg"
    TAGS = ("telecom", "simulator", "truth", "synthetic", "propagation", "path loss", "shadowing", "3gpp", "training")
    ICON = "simulate.svg"

    def define(self) -> None:
        number = QgsProcessingParameterNumber
        source_type = QgsProcessing.SourceType
        self.add(
            QgsProcessingParameterFeatureSource(
                "INPUT", self.tr("Base stations"), [source_type.TypeVectorPoint], optional=True
            ),
            self.tr("Point layer of base stations in any CRS. Empty: a random layout."),
        )
        self.add(
            QgsProcessingParameterField(
                "ID_FIELD", self.tr("Id field"), parentLayerParameterName="INPUT", optional=True
            ),
            self.tr("Field that names the BS of INPUT. Without it the feature id is used."),
        )
        self.add(
            number(
                "SIDE", self.tr("Side of a random layout [m]"), number.Type.Double, 30_000.0, False, 2_000.0, 300_000.0
            ),
            self.tr("Side of the square that a random layout fills in metres; not used with INPUT or EXTENT."),
        )
        self.add(
            QgsProcessingParameterCrs("CRS", self.tr("CRS of a random layout"), "EPSG:3035"),
            self.tr(
                "The square lies in the middle of this CRS's area of use. Where its metres are not true there, the UTM zone is used. Not "
                "used with INPUT."
            ),
        )
        self.add(
            QgsProcessingParameterExtent("EXTENT", self.tr("Extent"), optional=True),
            self.tr(
                "Area to simulate; BSs of INPUT outside of it take no part. Without a CRS of its own it is in that of INPUT, else in CRS. "
                "Empty: all BSs of INPUT plus a margin, or the square."
            ),
        )
        self.add(
            QgsProcessingParameterFeatureSource(
                "LAND", self.tr("Land"), [source_type.TypeVectorPolygon], optional=True
            ),
            self.tr("Polygons where devices, and BSs of a random layout, can be; nothing is outside of them."),
        )
        self.add(
            number("CELL_SIZE", self.tr("Cell size [m]"), number.Type.Double, 100.0, False, 1.0),
            self.tr("Side of the grid's cells in metres; the paper's are 100 m."),
        )
        self.add(
            QgsProcessingParameterEnum(
                "CALIBRATION",
                self.tr("Calibration"),
                list(CALIBRATIONS),
                defaultValue=CALIBRATIONS[0],
                usesStaticStrings=True,
            ),
            self.tr(
                "default: tuned to the published sizes of true maps and to the published errors of simple methods together. paper_errors: "
                "to the errors alone, with wider maps."
            ),
            advanced=True,
        )
        self.add(
            number("SEED", self.tr("Seed"), number.Type.Integer, 0, False, 0, 2**31 - 1),
            self.tr("Of the layout, the equipment and the shadowing."),
        )
        self.add(
            number("MAX_MEMORY_MB", self.tr("Memory budget [MB]"), number.Type.Integer, 4096, False, 64),
            self.tr("Most memory the simulation may take. One that would need more is refused before it starts."),
            advanced=True,
        )
        self.add(
            QgsProcessingParameterRasterDestination("OUTPUT", self.tr("Truth")),
            self.tr(
                "GeoTIFF with one band per BS, named by its id: P(location | BS), each band sums to one; nodata 0."
            ),
        )
        self.add(
            QgsProcessingParameterFeatureSink("STATIONS", self.tr("Stations"), source_type.TypeVectorPoint),
            self.tr(
                "The sites: bs_id, urbanisation, local spacing, antenna height [m], power beside the usual [dB], downtilt [°], number of "
                "sectors, their azimuths [°] (none: omnidirectional) and carriers [MHz band]."
            ),
        )
        for name, label, text in (
            ("BS_COUNT", "Base stations", "Number of base stations simulated."),
            ("SKIPPED", "Without mass", "Number of base stations that serve no cell; their bands are empty."),
            ("SECONDS", "Seconds", "Wall time of the run [s]."),
        ):
            self.add_result(QgsProcessingOutputNumber(name, self.tr(label)), self.tr(text))
        self.add_result(
            QgsProcessingOutputString("CRS_USED", self.tr("CRS of the outputs")), self.tr("The metric CRS used.")
        )

    def work(self, run: Run) -> dict[str, Any]:
        from ..models.geolocation.result import row_sums
        from ..models.radio.scene import Scene, simulate_scene

        parameters = run.parameters
        source = parameters.source("INPUT")
        if source is None:
            crs, bounds = _square(run)
            sites = None
        else:
            sites, crs = read_sites(run, source, parameters.field("ID_FIELD", source))
            bounds = _around(run, sites, crs)
        grid = _grid(run, bounds, crs)
        mask = _land(run, grid, crs)
        sites = _random_sites(run, grid, mask) if sites is None else _sites_on(run, sites, grid)
        run.info(f"{len(sites):,} base stations on {grid.describe()} in {name_of(crs)}.")
        seed, calibration = parameters.integer("SEED"), parameters.choice("CALIBRATION")
        scene = Scene(sites.xy_m, grid, mask, calibration, seed, parameters.number("MAX_MEMORY_MB"))
        maps, equipment = simulate_scene(scene, run.progress.phase(self.tr("Simulating"), 0.02, 0.7))
        empty = np.flatnonzero(row_sums(maps) == 0)
        if len(empty) == len(sites):
            raise InputError("No base station serves any cell. Check LAND and EXTENT.")
        if len(empty):
            names = listed([sites.ids[index] for index in empty])
            run.warn(f"{len(empty):,} base stations serve no cell (bands stay empty): {names}.")
        facts = {
            "TELCOLOC_METHOD": "simulated",
            "TELCOLOC_CALIBRATION": calibration,
            "TELCOLOC_SEED": str(seed),
        }
        write_stack(run, "OUTPUT", grid, maps, sites, facts, run.progress.phase("Writing the truth", 0.7, 0.98))
        _write_stations(run, sites, equipment, crs)
        return {
            "BS_COUNT": len(sites),
            "SKIPPED": len(empty),
            "SECONDS": round(run.seconds, 2),
            "CRS_USED": name_of(crs),
        }


_Bounds = tuple[float, float, float, float]


def _square(run: Run) -> tuple[QgsCoordinateReferenceSystem, _Bounds]:
    """The metric CRS of a random layout, and the rectangle it fills."""
    parameters = run.parameters
    given = run.parameters.crs("CRS")
    context = run.context.transformContext()
    extent = parameters.extent("EXTENT", given, given)
    if extent is not None:
        crs, why = metric_crs(given, extent, context)
        run.info(why)
        return crs, _bounds(parameters.extent("EXTENT", crs, given))
    half = parameters.number("SIDE") / 2
    place = given.bounds().center() if not given.bounds().isEmpty() else QgsPointXY(0, 0)
    try:
        transform = QgsCoordinateTransform(QgsCoordinateReferenceSystem("EPSG:4326"), given, context)
        centre = transform.transform(place)
        degrees = given.isGeographic()
        wide = QgsRectangle.fromCenterAndSize(centre, *(2 * [1e-6 if degrees else 2 * half]))
        crs, why = metric_crs(given, wide, context)
        centre = QgsCoordinateTransform(given, crs, context).transform(centre)
    except QgsCsException as error:
        raise InputError(
            f"The middle of {name_of(given)} cannot be placed on the earth. Choose another CRS, or give EXTENT."
        ) from error
    run.info(why)
    x, y = round(centre.x(), -3), round(centre.y(), -3)
    return crs, (x - half, y - half, x + half, y + half)


def _around(run: Run, sites: Sites, crs: QgsCoordinateReferenceSystem) -> _Bounds:
    """EXTENT, or the rectangle of the sites and a margin."""
    from ..models.geolocation.sites import default_margin_m

    extent = run.parameters.extent("EXTENT", crs, run.parameters.source("INPUT").sourceCrs())
    if extent is None:
        margin = default_margin_m(sites.xy_m) if len(sites) > 1 else 0.0
        extent = QgsRectangle(*sites.xy_m.min(axis=0), *sites.xy_m.max(axis=0)).buffered(margin)
    return _bounds(extent)


def _bounds(extent: QgsRectangle) -> _Bounds:
    return extent.xMinimum(), extent.yMinimum(), extent.xMaximum(), extent.yMaximum()


def _grid(run: Run, bounds: _Bounds, crs: QgsCoordinateReferenceSystem) -> Grid:
    cell_size = run.parameters.number("CELL_SIZE")
    n_cells = (bounds[2] - bounds[0]) * (bounds[3] - bounds[1]) / cell_size**2
    if n_cells > MOST_CELLS:
        raise InputError(
            f"CELL_SIZE {cell_size:g} m makes {n_cells:,.0f} cells; at most {MOST_CELLS:,} can be simulated. Use a larger CELL_SIZE or a "
            "smaller area."
        )
    return Grid.covering(bounds, cell_size, crs.toWkt(Qgis.CrsWktVariant.Preferred))


def _land(run: Run, grid: Grid, crs: QgsCoordinateReferenceSystem) -> np.ndarray | None:
    source = run.parameters.source("LAND")
    if source is None:
        return None
    usable, rejected = polygons.polygon_features(source, crs, run.context, "LAND")
    if rejected:
        run.warn(f"LAND: {len(rejected):,} polygons cannot be used: {listed(rejected)}.")
    mask = polygons.inside_mask([geometry for _, geometry in usable], grid)
    if not mask.any():
        raise InputError("LAND holds the centre of no cell of the grid. Check its CRS and place, or give EXTENT.")
    return mask


def _random_sites(run: Run, grid: Grid, mask: np.ndarray | None) -> Sites:
    from ..models.geolocation.sites import Sites
    from ..models.radio.scene import layout_within

    xy_m = layout_within(grid.bounds, run.parameters.integer("SEED"))
    if mask is not None:
        xy_m = xy_m[mask.ravel()[grid.cells_of(xy_m)]]
    digits = len(str(len(xy_m)))
    ids = tuple(f"S{number:0{digits}}" for number in range(1, len(xy_m) + 1))
    return Sites(ids, xy_m, tuple((name,) for name in ids), np.ones(len(ids), int))


def _sites_on(run: Run, sites: Sites, grid: Grid) -> Sites:
    """Leave out sites that do not stand on the grid."""
    inside = grid.cells_of(sites.xy_m) >= 0
    if inside.all():
        return sites
    run.info(f"{(~inside).sum():,} base stations outside of EXTENT take no part.")
    return only(sites, np.flatnonzero(inside))


def _write_stations(run: Run, sites: Sites, equipment: Equipment, crs: QgsCoordinateReferenceSystem) -> None:
    from ..models.geolocation.sites import URBANISATIONS

    kind = QMetaType.Type
    fields = fields_of(
        ("bs_id", kind.QString),
        ("urbanisation", kind.QString),
        ("spacing_m", kind.Double),
        ("height_m", kind.Double),
        ("eirp_offset_db", kind.Double),
        ("tilt_deg", kind.Double),
        ("sectors", kind.Int),
        ("azimuths_deg", kind.QString),
        ("carriers", kind.QString),
    )
    layer = run.outputs.table(
        "STATIONS",
        fields,
        _stations(run, sites, equipment, fields),
        QgsWkbTypes.Type.Point,
        crs,
        run.progress.phase("Writing the stations", 0.98, 1.0),
        len(sites),
    )
    run.style("STATIONS", layer, styles.categories_qml("urbanisation", URBANISATIONS))


def _stations(run: Run, sites: Sites, equipment: Equipment, fields: QgsFields) -> Iterator[QgsFeature]:
    from ..models.geolocation.sites import URBANISATIONS
    from ..models.radio.scene import CALIBRATIONS

    carriers = [carrier.name for carrier in CALIBRATIONS[run.parameters.choice("CALIBRATION")]().carriers]
    for index, name in enumerate(sites.ids):
        azimuths = equipment.azimuths_deg[index]
        feature = QgsFeature(fields)
        feature.setGeometry(QgsGeometry.fromPointXY(QgsPointXY(*sites.xy_m[index])))
        feature.setAttributes(
            [
                name,
                URBANISATIONS[equipment.kind[index]],
                round(float(equipment.spacing_m[index]), 1),
                round(float(equipment.height_m[index]), 1),
                round(float(equipment.eirp_offset_db[index]), 2),
                round(float(equipment.tilt_deg[index]), 1),
                max(len(azimuths), 1),
                ", ".join(f"{azimuth:.0f}" for azimuth in azimuths),
                ", ".join(carrier for carrier, there in zip(carriers, equipment.carriers[index]) if there),
            ]
        )
        yield feature
