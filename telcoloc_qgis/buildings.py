"""Reading building footprints: polygons in any CRS become `Buildings` in metres, and what had to be mended or assumed is said."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from qgis.core import (
    Qgis,
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsCsException,
    QgsFeatureRequest,
    QgsGeometry,
    QgsProcessing,
    QgsProcessingFeatureSource,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
    QgsProcessingParameterNumber,
    QgsRectangle,
    QgsWkbTypes,
)

from ..models.errors import InputError
from .columns import checked_layer, recognised
from .polygons import MENDED_HERE, valid_polygon
from .sites import id_text, listed

if TYPE_CHECKING:
    from ..models.progress import Progress
    from ..models.radio.buildings import Buildings
    from .algorithm import Run, TelcoLocAlgorithm

#: Fields with heights [m] and with numbers of storeys that are recognised, in this order; upper and lower case are alike.
HEIGHT_NAMES = (
    "height_m",
    "height",
    "building:height",
    "building_height",
    "measuredheight",
    "measured_height",
    "hauteur",
    "altura",
)
LEVEL_NAMES = ("building:levels", "building_levels", "levels", "num_floors", "floors", "storeys")
#: Height of a storey, and of a building of which nothing is known: three storeys and a pitched roof (COST 231 final report, clause
#: 4.4.1: 3 m for each floor and 3 m for the roof).
STOREY_M, DEFAULT_HEIGHT_M = 3.0, 12.0
#: No building is as high as this [m]; what a field says beyond it is no height.
MOST_HEIGHT_M = 1000.0
_METRES = re.compile(r"([0-9]+(?:[.,][0-9]+)?)\s*(?:m|metres?|meters?)?", re.IGNORECASE)


def add_building_parameters(algorithm: TelcoLocAlgorithm, text: str) -> None:
    """Declare BUILDINGS (optional; `text` says what they are for), BUILDING_HEIGHT_FIELD and BUILDING_HEIGHT."""
    algorithm.add(
        QgsProcessingParameterFeatureSource(
            "BUILDINGS", algorithm.tr("Buildings"), [QgsProcessing.SourceType.TypeVectorPolygon], optional=True
        ),
        algorithm.tr(text),
    )
    algorithm.add(
        QgsProcessingParameterField(
            "BUILDING_HEIGHT_FIELD",
            algorithm.tr("Building height field [m]"),
            parentLayerParameterName="BUILDINGS",
            optional=True,
        ),
        algorithm.tr(
            "Field with the height above ground in metres. By default it is recognised by its name (height_m, height, building:height, "
            f"…); where it is empty, a number of storeys (building:levels, levels, …) counts {STOREY_M:g} m each."
        ),
        advanced=True,
    )
    number = QgsProcessingParameterNumber
    algorithm.add(
        number(
            "BUILDING_HEIGHT",
            algorithm.tr("Building height where the layer has none [m]"),
            number.Type.Double,
            DEFAULT_HEIGHT_M,
            False,
            0.5,
            MOST_HEIGHT_M,
        ),
        algorithm.tr(
            f"Height above ground of buildings without one; {DEFAULT_HEIGHT_M:g} m are three storeys and a pitched roof. The log says how "
            "many these are."
        ),
        advanced=True,
    )


def read_buildings(
    run: Run,
    crs: QgsCoordinateReferenceSystem,
    around: QgsRectangle,
    progress: Progress,
    parameter: str = "BUILDINGS",
    heights_matter: bool = True,
) -> Buildings | None:
    """Read the buildings in or across the box `around`, in `crs`, which is metric; None when no layer is given.

    Parameters
    ----------
    heights_matter
        Whether heights are read; otherwise all are `DEFAULT_HEIGHT_M`, and the algorithm needs no parameters for them.

    Raises
    ------
    InputError
        No polygons, no features, unknown CRS, no usable footprint near.
    """
    from ..models.radio.buildings import Buildings

    source = run.parameters.source(parameter)
    if source is None:
        return None
    layer = checked_layer(
        parameter, source, QgsWkbTypes.GeometryType.PolygonGeometry, "polygons; give a layer of footprints"
    )
    height, levels = _fields(run, source) if heights_matter else (None, None)
    transform = QgsCoordinateTransform(source.sourceCrs(), crs, run.context.transformContext())
    request = QgsFeatureRequest()
    request.setSubsetOfAttributes([field for field in (height, levels) if field], source.fields())
    try:
        request.setFilterRect(transform.transformBoundingBox(around, Qgis.TransformDirection.Reverse))
    except QgsCsException:
        run.info(f"{parameter}: all of '{layer}' is read, because its CRS does not reach the map.")
    count = max(source.featureCount(), 1)
    rings: list[np.ndarray] = []
    building: list[int] = []
    heights: list[float] = []
    notes = _Notes()
    for done, feature in enumerate(source.getFeatures(request, MENDED_HERE)):
        if done % 256 == 0:
            progress(min(done / count, 1.0))
        where = f"feature {feature.id()}"
        crossing = not feature.geometry().isGeosValid()
        geometry = valid_polygon(feature, transform)
        if isinstance(geometry, str):
            notes.rejected.append(f"{where}: {geometry}")
            continue
        if not geometry.boundingBox().intersects(around):
            continue
        if crossing:
            notes.mended.append(where)
        text = id_text(feature[height]) if height else ""
        height_m = height_of(text)
        if height_m is None and text:
            notes.wrong.append(f"{where}: '{text}'")
        if height_m is None and levels:
            storeys = height_of(id_text(feature[levels]))
            height_m = None if storeys is None else min(storeys * STOREY_M, MOST_HEIGHT_M)
            notes.by_levels += height_m is not None
        if height_m is None and heights_matter:
            notes.bare.append(where)
            height_m = run.parameters.number("BUILDING_HEIGHT")
        parts = rings_of(geometry)
        rings += parts
        building += [len(heights)] * len(parts)
        heights.append(DEFAULT_HEIGHT_M if height_m is None else height_m)
    if not heights:
        raise InputError(
            f"{parameter}: layer '{layer}' has no usable footprint on the map"
            + (f" ({listed(notes.rejected)})" if notes.rejected else "")
            + f". Check the CRS of both layers, or leave {parameter} empty."
        )
    how = f"; heights from '{height}'" if height else "; no field has their heights" if heights_matter else ""
    more = f"; {notes.by_levels:,} from their storeys" if notes.by_levels else ""
    run.info(f"{parameter}: {len(heights):,} buildings of '{layer}' on the map{how}{more}.")
    notes.say(run, parameter, height, len(heights))
    first = np.concatenate([[0], np.cumsum([len(ring) for ring in rings])])
    return Buildings(np.concatenate(rings), first, np.array(building), np.array(heights, dtype=float))


@dataclass
class _Notes:
    """What had to be left out, mended or assumed, a text each."""

    rejected: list[str] = field(default_factory=list)
    mended: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    bare: list[str] = field(default_factory=list)
    by_levels: int = 0

    def say(self, run: Run, parameter: str, height: str | None, count: int) -> None:
        """Warn of each kind in one sentence; `height` is the field, `count` the number of buildings."""
        assumed = (
            f"{run.parameters.number('BUILDING_HEIGHT'):g} m (BUILDING_HEIGHT) is used for them" if self.bare else ""
        )
        which = f"all {count:,}" if len(self.bare) == count else f"{len(self.bare):,} of {count:,}"
        for rows, text in (
            (self.rejected, f"{len(self.rejected):,} features cannot be used and were left out"),
            (self.mended, f"{len(self.mended):,} footprints that cross themselves were mended"),
            (self.wrong, f"{len(self.wrong):,} heights in '{height}' are no number of metres above 0 and do not count"),
            (self.bare, f"{which} buildings have no height; {assumed}"),
        ):
            if rows:
                run.warn(f"{parameter}: {text}: {listed(rows)}.")


def _fields(run: Run, source: QgsProcessingFeatureSource) -> tuple[str | None, str | None]:
    """Fields with heights and with numbers of storeys: the one given, or those recognised by their names."""
    height, levels = recognised(source, HEIGHT_NAMES), recognised(source, LEVEL_NAMES)
    return run.parameters.field("BUILDING_HEIGHT_FIELD", source) or height, levels


def height_of(text: str) -> float | None:
    """Metres (or storeys) that a text such as "12", "12,5" or "12 m" says; None for nothing, other units and what is no height."""
    match = _METRES.fullmatch(text)
    value = float(match.group(1).replace(",", ".")) if match else math.nan
    return value if 0 < value <= MOST_HEIGHT_M else None


def rings_of(geometry: QgsGeometry) -> list[np.ndarray]:
    """Vertices of all rings of polygons without the closing one, shape (k, 2) each: outer rings counter-clockwise, courtyards clockwise."""
    rings = []
    geometry.removeDuplicateNodes(1e-6)
    for polygon in geometry.coerceToType(QgsWkbTypes.Type.MultiPolygon)[0].asMultiPolygon():
        for place, ring in enumerate(polygon):
            xy_m = np.array([(point.x(), point.y()) for point in ring[:-1]])
            x, y = (xy_m - xy_m[0]).T
            left = float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) > 0
            rings.append(xy_m if left == (place == 0) else xy_m[::-1])
    return rings
