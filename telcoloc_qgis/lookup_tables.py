"""Look-up tables from radio maps, files of fingerprints or measurements with truth, and how reports are compared with them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from osgeo import gdal
from qgis.core import (
    Qgis,
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsProcessing,
    QgsProcessingParameterEnum,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterFile,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterLayer,
    QgsRectangle,
)

from ..models.errors import InputError, OutputError
from ..models.progress import span
from . import rasters
from .crs import metric_crs, name_of
from .measurements import read_measurements
from .radio_maps import read_radio_maps
from .streets import read_streets
from .tracks import transformed

if TYPE_CHECKING:
    from ..models.grid import Grid
    from ..models.landmarks.lookup import LookupTable
    from ..models.landmarks.signal_candidates import CandidateSettings
    from ..models.progress import Progress
    from ..models.trajectory.measurements import Measurements
    from .algorithm import Run, TelcoLocAlgorithm

#: What a look-up table may be made of; one of them is given.
SOURCES = ("RADIO_MAPS", "FINGERPRINTS", "TRAINING")
OFFSETS = ("estimate", "differences", "none")
#: Reports that follow each other faster than this [s] are averaged over this [s] when AVERAGE is not given: fast fluctuation falls, and a
#: car moves some tens of metres.
QUICK_S, AVERAGE_S = 2.0, 5.0
#: Candidates of one instant are at least so far apart by default [m].
SEPARATION_M = 30.0
#: Streets so much farther than the places are still read [m].
_AROUND_M = 100.0


def add_table_parameters(algorithm: TelcoLocAlgorithm) -> None:
    """Declare RADIO_MAPS, FINGERPRINTS, TRAINING and CELL_SIZE."""
    number = QgsProcessingParameterNumber
    algorithm.add(
        QgsProcessingParameterRasterLayer("RADIO_MAPS", algorithm.tr("Look-up table: radio maps"), optional=True),
        algorithm.tr(
            "Output of 'Path loss maps', in either quantity: one band per cell, named by the id that the measurements use. One of "
            "RADIO_MAPS, FINGERPRINTS and TRAINING is needed."
        ),
    )
    algorithm.add(
        QgsProcessingParameterFile(
            "FINGERPRINTS", algorithm.tr("Look-up table: file of fingerprints"), extension="safetensors", optional=True
        ),
        algorithm.tr("Fingerprints that 'Signal candidates' learned and wrote (FINGERPRINTS_OUT)."),
    )
    algorithm.add(
        QgsProcessingParameterFeatureSource(
            "TRAINING",
            algorithm.tr("Look-up table: measurements with truth"),
            [QgsProcessing.SourceType.TypeVector],
            optional=True,
        ),
        algorithm.tr(
            "Measurement reports with true positions, in the normal form, to learn fingerprints from. Use other walks or days than those "
            "of INPUT: what is learned from the same ones looks many times better than it is."
        ),
    )
    algorithm.add(
        number(
            "CELL_SIZE", algorithm.tr("Side of learned squares [m]"), number.Type.Double, 25.0, False, 1.0, 10_000.0
        ),
        algorithm.tr("With TRAINING: reports are collected in squares of this side, in metres."),
        advanced=True,
    )


def read_table(run: Run, progress: Progress) -> tuple[LookupTable, QgsCoordinateReferenceSystem, str]:
    """Read or learn the look-up table, and say where its places are and what it is made of.

    Raises
    ------
    InputError
        When none or several sources are given, or the one given cannot be used.
    """
    from ..models.landmarks.lookup import LookupTable, load_fingerprints

    given = [name for name in SOURCES if run.parameters.given(name)]
    if len(given) != 1:
        what = "none is given" if not given else f"{' and '.join(given)} are given"
        raise InputError(f"The look-up table comes from one of RADIO_MAPS, FINGERPRINTS and TRAINING, but {what}.")
    if given == ["RADIO_MAPS"]:
        path, name = run.parameters.algorithm.raster_sources("RADIO_MAPS")[0]
        maps = read_radio_maps(path, name, progress)
        table = LookupTable.from_radio_maps(maps)
        what = f"radio maps '{name}' ({maps.model or 'unknown model'})"
    elif given == ["FINGERPRINTS"]:
        file = Path(str(run.parameters.file("FINGERPRINTS")))
        table, what = load_fingerprints(file), f"fingerprints of '{file.name}'"
    else:
        table, what = _learned(run, progress)
    crs = QgsCoordinateReferenceSystem.fromWkt(table.grid.crs_wkt)
    if not crs.isValid():
        raise InputError(f"{given[0]}: the look-up table names no CRS that QGIS knows, so its places are nowhere.")
    run.info(
        f"The look-up table, {what}, has {len(table.cells):,} cells at {len(table.places):,} places on {table.grid.describe()} in "
        f"{name_of(crs)}; its noise floor is {table.noise_floor_dbm:g} dBm."
    )
    return table, crs, what


def _learned(run: Run, progress: Progress) -> tuple[LookupTable, str]:
    from ..models.grid import Grid
    from ..models.landmarks.lookup import learn_fingerprints

    source = run.parameters.source("TRAINING")
    records = read_measurements(run, source, "TRAINING", progress=span(progress, 0.0, 0.6))
    known = records.has_truth
    if not known.any():
        raise InputError(
            f"TRAINING: none of the {len(records):,} records of '{source.sourceName()}' has a true position to learn from."
        )
    lon, lat = records.lon[known], records.lat[known]
    around = QgsRectangle(lon.min(), lat.min(), lon.max(), lat.max())
    crs, why = metric_crs(QgsCoordinateReferenceSystem("EPSG:4326"), around, run.context.transformContext())
    run.info(f"TRAINING: {why}")
    xy_m = truth_in(run, records, crs)
    side = run.parameters.number("CELL_SIZE")
    x_min, y_min = np.nanmin(xy_m, axis=0) - 2 * side
    x_max, y_max = np.nanmax(xy_m, axis=0) + 2 * side
    grid = Grid.covering((x_min, y_min, x_max, y_max), side, crs.toWkt(Qgis.CrsWktVariant.Preferred))
    table = learn_fingerprints(records, xy_m, grid, progress=span(progress, 0.6, 1.0))
    return table, f"learned from {int(known.sum()):,} records of '{source.sourceName()}'"


def truth_in(run: Run, records: Measurements, crs: QgsCoordinateReferenceSystem) -> np.ndarray:
    """True positions in a CRS, shape (n, 2), NaN where unknown or where it does not reach."""
    xy_m = np.full((len(records), 2), np.nan)
    known = np.flatnonzero(records.has_truth)
    transform = QgsCoordinateTransform(QgsCoordinateReferenceSystem("EPSG:4326"), crs, run.context.transformContext())
    xy_m[known] = transformed(transform, records.lon[known], records.lat[known]).T
    return xy_m


def add_matching_parameters(algorithm: TelcoLocAlgorithm) -> None:
    """Declare NUMBER, ANTENNAS, OFFSET, AVERAGE, SEPARATION, UNHEARD, STREETS and STREETS_WITHIN."""
    number = QgsProcessingParameterNumber
    algorithm.add(
        number("NUMBER", algorithm.tr("Candidates per instant"), number.Type.Integer, 20, False, 1, 10_000),
        algorithm.tr("How many of the best places are kept of each record."),
    )
    algorithm.add(
        QgsProcessingParameterEnum(
            "OFFSET", algorithm.tr("Offset of devices"), list(OFFSETS), defaultValue=OFFSETS[0], usesStaticStrings=True
        ),
        algorithm.tr(
            "What a device reads too much or too little at all cells alike: estimate (one number per device, that with which its reports "
            "fit the table best), differences (only RSS differences between cells count: any offset cancels, but much is lost), or none."
        ),
    )
    algorithm.add(
        number(
            "SEPARATION",
            algorithm.tr("Distance between candidates [m]"),
            number.Type.Double,
            SEPARATION_M,
            False,
            0.0,
            1e6,
        ),
        algorithm.tr(
            "Candidates of one instant are at least so far apart, so that they do not all fill one block; 0: no matter."
        ),
    )
    algorithm.add(
        number("ANTENNAS", algorithm.tr("Best-serving cells compared"), number.Type.Integer, 6, False, 1, 7),
        algorithm.tr("How many of the strongest cells of a record are compared with the table."),
        advanced=True,
    )
    algorithm.add(
        number("AVERAGE", algorithm.tr("Averaging window [s]"), number.Type.Double, None, True, 0.0, 3600.0),
        algorithm.tr(
            "RSS is averaged over a window of this length around each record, which takes fast fluctuation away. 0: no averaging. Empty: "
            f"{AVERAGE_S:g} s where records usually follow each other within {QUICK_S:g} s, else none."
        ),
        advanced=True,
    )
    algorithm.add(
        number("UNHEARD", algorithm.tr("Weight of cells not heard"), number.Type.Double, None, True, 0.0, 100.0),
        algorithm.tr(
            "A place where the table expects a cell which the record does not name fits less well, with this weight. Empty: 1 with radio "
            "maps; 0 with fingerprints, because they are of the times when a cell was heard. Not used with differences."
        ),
        advanced=True,
    )
    algorithm.add(
        QgsProcessingParameterFeatureSource(
            "STREETS", algorithm.tr("Streets"), [QgsProcessing.SourceType.TypeVectorLine], optional=True
        ),
        algorithm.tr("Line layer in any CRS. When given, only places near it are candidates, which suits vehicles."),
    )
    algorithm.add(
        number("STREETS_WITHIN", algorithm.tr("How near to streets [m]"), number.Type.Double, 10.0, False, 0.0, 1e5),
        algorithm.tr(
            "Places count as near to streets when their centre is within this distance, or half a cell where that is more."
        ),
        advanced=True,
    )


def on_streets(run: Run, table: LookupTable, crs: QgsCoordinateReferenceSystem, progress: Progress) -> LookupTable:
    """The places near STREETS; all when no streets are given.

    Raises
    ------
    InputError
        When no place is near a street.
    """
    if not run.parameters.given("STREETS"):
        return table
    grid = table.grid
    around = QgsRectangle(*grid.bounds).buffered(_AROUND_M)
    layer = read_streets(run, "STREETS", crs, around, None, span(progress, 0.0, 0.5))
    within_m = max(run.parameters.number("STREETS_WITHIN"), grid.cell_size_m / 2)
    near = np.flatnonzero(
        layer.streets.near(table.xy_m, within_m, 1, run.threads, span(progress, 0.5, 1.0)).edge[:, 0] >= 0
    )
    if not len(near):
        raise InputError(
            f"STREETS: no place of the look-up table is within {within_m:g} m of a street of '{layer.name}'. Check both, or STREETS_WITHIN."
        )
    run.info(f"{len(near):,} of {len(table.places):,} places are within {within_m:g} m of a street.")
    return replace(table, places=table.places[near], rss_dbm=table.rss_dbm[near])


def settings_of(run: Run, records: Measurements | None = None, most: int | None = None) -> CandidateSettings:
    """What the parameters of `add_matching_parameters` say.

    Parameters
    ----------
    records
        To be located, whose rate tells whether they are averaged where AVERAGE is not given.
    most
        The most candidates, where a sensibility map drives their number.
    """
    from ..models.landmarks.signal_candidates import CandidateSettings

    parameters = run.parameters
    average_s = parameters.number("AVERAGE")
    if average_s is None:
        average_s = 0.0 if records is None else usual_average_s(run, records)
    return CandidateSettings(
        number=parameters.integer("NUMBER"),
        most=most,
        antennas=parameters.integer("ANTENNAS"),
        offset=parameters.choice("OFFSET"),
        average_s=average_s,
        separation_m=parameters.number("SEPARATION"),
        unheard_weight=parameters.number("UNHEARD"),
    )


def usual_average_s(run: Run, records: Measurements) -> float:
    """Window over which RSS is averaged when nothing is said [s]: none unless records follow each other quickly."""
    gaps = np.diff(records.time_s)[np.diff(records.trajectory) == 0]
    step_s = float(np.median(gaps)) if len(gaps) else np.inf
    if step_s >= QUICK_S:
        return 0.0
    run.info(f"Records follow each other within {step_s:.2g} s, so RSS is averaged over {AVERAGE_S:g} s.")
    return AVERAGE_S


def read_sensibility(
    run: Run, grid: Grid, crs: QgsCoordinateReferenceSystem, parameter: str = "SENSIBILITY"
) -> np.ndarray:
    """The first band of a sensibility raster at the centres of the cells of `grid`, shape (height, width); NaN where it has no value.

    Raises
    ------
    InputError
        When it cannot be read, has no CRS, holds values outside of [0, 1] or lies somewhere else.
    """
    path, name = run.parameters.algorithm.raster_sources(parameter)[0]
    again = "make it with 'Sensibility map'"
    try:
        with rasters.gdal_errors("Reading"):
            dataset = gdal.OpenEx(path.split("|")[0], gdal.OF_RASTER | gdal.OF_READONLY)
            band = dataset.GetRasterBand(1)
            values = band.ReadAsArray().astype(float)
            nodata = band.GetNoDataValue()
    except OutputError as error:
        raise InputError(f"{parameter}: raster '{name}' cannot be read ({error}); {again}.") from error
    values[~np.isfinite(values) | (values == nodata)] = np.nan
    theirs = QgsCoordinateReferenceSystem.fromWkt(dataset.GetProjection())
    if not theirs.isValid():
        raise InputError(f"{parameter}: raster '{name}' has no known CRS; {again}.")
    low, high = np.nanmin(values, initial=0.0), np.nanmax(values, initial=0.0)
    if low < 0 or high > 1:
        raise InputError(
            f"{parameter}: raster '{name}' holds {low:g} to {high:g}, but a sensibility is from 0 to 1; {again}."
        )
    x_m, y_m = grid.centres(np.arange(grid.size)).T
    if theirs != crs:
        transform = QgsCoordinateTransform(crs, theirs, run.context.transformContext())
        x_m, y_m = transformed(transform, x_m, y_m)
    x_min, width, _, y_max, _, height = dataset.GetGeoTransform()
    with np.errstate(invalid="ignore"):
        column, row = np.floor((x_m - x_min) / width), np.floor((y_m - y_max) / height)
        inside = (column >= 0) & (row >= 0) & (column < values.shape[1]) & (row < values.shape[0])
    result = np.full(grid.size, np.nan)
    result[inside] = values[row[inside].astype(int), column[inside].astype(int)]
    if not np.isfinite(result).any():
        raise InputError(
            f"{parameter}: raster '{name}' has no value where the look-up table has places. Check its CRS and extent."
        )
    return result.reshape(grid.shape)
