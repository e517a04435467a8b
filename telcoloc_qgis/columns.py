"""Layers and tables as columns of numpy arrays, part by part, so that millions of rows need little time and memory.

A plain file is read by GDAL's column-wise stream (Arrow); everything else (memory layers, databases, filters, selections, edits,
joined or computed fields) feature by feature through QGIS.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from qgis.core import (
    Qgis,
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsCsException,
    QgsFeature,
    QgsFeatureRequest,
    QgsFields,
    QgsMapLayer,
    QgsPoint,
    QgsProcessingFeatureSource,
    QgsProcessingFeatureSourceDefinition,
    QgsProviderRegistry,
    QgsVectorLayer,
    QgsWkbTypes,
)
from qgis.PyQt.QtCore import QDate, QDateTime, Qt, QTime

from ..models.errors import InputError
from ..models.progress import Progress

if TYPE_CHECKING:
    from .algorithm import Run

#: Rows of one part: half a second of reading, so that cancelling is prompt.
PART_ROWS = 16_384
#: A point as WKB: byte order, kind, x, y.
_POINT_BYTES = 21
#: Characters that a Shapefile keeps of a field's name.
_SHAPEFILE_NAME = 10


@dataclass(frozen=True)
class Part:
    """Some rows of a table.

    Parameters
    ----------
    rows
        Feature ids, shape (n,), int64.
    columns
        By field: numbers with NaN, datetime64[ms], bytes or text with "" for NULL, shape (n,), perhaps masked.
    x, y
        Position of point geometries in the layer's CRS, shape (n,), NaN for none; None when not asked for.
    """

    rows: np.ndarray
    columns: dict[str, np.ndarray]
    x: np.ndarray | None = None
    y: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.rows)


@dataclass(frozen=True)
class PlainFile:
    """A table in a file that GDAL can read just as QGIS shows it."""

    path: str
    layer: str
    options: tuple[str, ...]


def plain_file(value: object, layer: QgsMapLayer | None) -> PlainFile | None:
    """The file behind a feature source, None when QGIS shows something else than what the file holds.

    Parameters
    ----------
    value
        Of the parameter, as given.
    layer
        It names.
    """
    if isinstance(value, QgsProcessingFeatureSourceDefinition):
        whole = not value.selectedFeaturesOnly and value.featureLimit < 0 and not value.filterExpression
    else:
        whole = isinstance(value, (str, QgsMapLayer))
    if not whole or not isinstance(layer, QgsVectorLayer) or layer.providerType() != "ogr":
        return None
    if layer.isEditable() or layer.subsetString():
        return None
    parts = QgsProviderRegistry.instance().decodeUri("ogr", layer.source())
    if not parts.get("path") or parts.get("vsiPrefix") or parts.get("authcfg") or parts.get("layerId") is not None:
        return None
    return PlainFile(parts["path"], parts.get("layerName") or "", tuple(parts.get("openOptions") or ()))


def parts_of(
    run: Run,
    source: QgsProcessingFeatureSource,
    parameter: str,
    fields: Sequence[str],
    points: bool = False,
    progress: Progress | None = None,
) -> Iterator[Part]:
    """Read some fields of a source, part by part.

    Parameters
    ----------
    fields
        Names of fields of `source`.
    points
        Whether the positions of point geometries are wanted.

    Raises
    ------
    InputError
        When a file ends before its end.
    """
    progress = progress or run.progress
    file = run.parameters.algorithm.plain_files().get(parameter)
    total = max(_expected_rows(file, source), 1)
    done = 0
    parts = _by_gdal(file, source, fields, points) if file else None
    for part in parts if parts is not None else _by_qgis(source, fields, points):
        yield part
        done += len(part)
        progress(min(done / total, 1.0))


def _expected_rows(file: PlainFile | None, source: QgsProcessingFeatureSource) -> float:
    """About how many rows a source has; those of a large CSV are not counted, which would cost as much as to read it."""
    path = Path(file.path) if file else Path()
    if path.suffix.lower() not in (".csv", ".tsv", ".txt") or not path.is_file():
        return source.featureCount()
    with path.open("rb") as table:
        head = table.read(1 << 16)
    return path.stat().st_size * head.count(b"\n") / max(len(head), 1)


def _by_gdal(
    file: PlainFile, source: QgsProcessingFeatureSource, fields: Sequence[str], points: bool
) -> Iterator[Part] | None:
    """The parts of a plain file, None where GDAL is too old for streams or would read something else than QGIS."""
    from osgeo import gdal, ogr

    if not hasattr(ogr.Layer, "GetArrowStreamAsNumPy"):  # before GDAL 3.6
        return None
    try:
        from osgeo import gdal_array  # noqa: F401 - the stream needs it, and some builds lack it

        dataset = gdal.OpenEx(file.path, gdal.OF_VECTOR | gdal.OF_READONLY, open_options=list(file.options))
    except (RuntimeError, ImportError):
        return None
    if dataset is None:
        return None
    layer = dataset.GetLayerByName(file.layer) if file.layer else dataset.GetLayer(0)
    if layer is None or (not file.layer and dataset.GetLayerCount() > 1):
        return None
    definition = layer.GetLayerDefn()
    kinds = {
        definition.GetFieldDefn(index).GetName(): definition.GetFieldDefn(index).GetType()
        for index in range(definition.GetFieldCount())
    }
    driver = dataset.GetDriver().ShortName
    id_column = layer.GetFIDColumn() or "OGC_FID"
    readable = {ogr.OFTString, ogr.OFTInteger, ogr.OFTInteger64, ogr.OFTReal}
    if driver == "GPKG":  # its times are UTC; elsewhere the stream drops their zone
        readable.add(ogr.OFTDateTime)
    if any(kinds.get(name) not in readable for name in fields) or id_column in kinds:
        return None
    kind = QgsWkbTypes.flatType(source.wkbType())
    if points and kind != QgsWkbTypes.Type.Point:
        return None
    layer.SetIgnoredFields([name for name in kinds if name not in fields] + ([] if points else ["OGR_GEOMETRY"]))
    stamped = [name for name in fields if kinds[name] == ogr.OFTDateTime]
    return _stream(dataset, layer, id_column, list(fields), stamped, points)


def _stream(
    dataset: object, layer: object, id_column: str, fields: list[str], stamped: list[str], points: bool
) -> Iterator[Part]:
    geometry_column = layer.GetGeometryColumn() or "wkb_geometry"
    stream = layer.GetArrowStreamAsNumPy(options=[f"MAX_FEATURES_IN_BATCH={PART_ROWS}"])
    try:
        for batch in stream:
            columns = {name: batch[name] for name in fields}
            for name in stamped:  # no zone is theirs but UTC: seconds say so
                column = np.ma.asarray(columns[name])
                seconds = column.data.astype("datetime64[ms]").astype(np.int64) / 1e3
                columns[name] = np.where(np.ma.getmaskarray(column) | np.isnat(column.data), np.nan, seconds)
            x = y = None
            if points:
                x, y = _xy(np.ma.asarray(batch[geometry_column]))
            yield Part(np.asarray(batch[id_column]).astype(np.int64), columns, x, y)
    finally:  # also when cancelled: GDAL owns the stream by its layer, and the layer by its dataset
        del stream
        del layer
        del dataset


def _xy(shapes: np.ma.MaskedArray) -> tuple[np.ndarray, np.ndarray]:
    """Positions of a column of points as WKB; what is NULL, empty or no point is NaN."""
    xy = np.full((len(shapes), 2), np.nan)
    known = ~np.ma.getmaskarray(shapes)
    if shapes.dtype.kind == "V":  # all of one length
        heads = np.ascontiguousarray(shapes.data).view(np.uint8).reshape(len(shapes), -1)
        rows = np.flatnonzero(known) if heads.shape[1] >= _POINT_BYTES else np.empty(0, dtype=int)
        heads = heads[rows, :_POINT_BYTES]
    else:
        rows = np.array(
            [row for row in np.flatnonzero(known) if len(shapes.data[row] or b"") >= _POINT_BYTES], dtype=int
        )
        raw = b"".join(bytes(shapes.data[row][:_POINT_BYTES]) for row in rows)
        heads = np.frombuffer(raw, dtype=np.uint8).reshape(-1, _POINT_BYTES)
    for order, kind in ((1, "<f8"), (0, ">f8")):
        such = heads[:, 0] == order
        xy[rows[such]] = np.ascontiguousarray(heads[such, 5:]).view(kind)
    return xy[:, 0], xy[:, 1]


def _by_qgis(source: QgsProcessingFeatureSource, fields: Sequence[str], points: bool) -> Iterator[Part]:
    request = QgsFeatureRequest()
    request.setSubsetOfAttributes(list(fields), source.fields())
    if not points:
        request.setFlags(QgsFeatureRequest.Flag.NoGeometry)
    indices = [source.fields().lookupField(name) for name in fields]
    numeric = [source.fields().at(index).isNumeric() for index in indices]
    waiting: list[tuple] = []
    for feature in source.getFeatures(request):
        waiting.append((feature.id(), feature.attributes(), _point(feature) if points else None))
        if len(waiting) >= PART_ROWS // 4:
            yield _part(waiting, fields, indices, numeric, points)
            waiting = []
    if waiting:
        yield _part(waiting, fields, indices, numeric, points)


def _part(waiting: list[tuple], fields: Sequence[str], indices: list[int], numeric: list[bool], points: bool) -> Part:
    columns = {}
    for name, index, number in zip(fields, indices, numeric):
        values = [attributes[index] for _, attributes, _ in waiting]
        if number:
            columns[name] = np.array(
                [value if isinstance(value, (int, float)) else np.nan for value in values],
            )
        else:
            columns[name] = np.array([_text(value) for value in values], dtype=str)
    rows = np.array([row for row, _, _ in waiting], dtype=np.int64)
    if not points:
        return Part(rows, columns)
    xy = np.array([point for _, _, point in waiting], dtype=float).reshape(-1, 2)
    return Part(rows, columns, xy[:, 0], xy[:, 1])


def _text(value: object) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, QDateTime):
        return value.toString(Qt.DateFormat.ISODateWithMs) if value.isValid() else ""
    if isinstance(value, (QDate, QTime)):
        return value.toString(Qt.DateFormat.ISODate) if value.isValid() else ""
    return str(value) if isinstance(value, (int, float)) else ""


def _point(feature: QgsFeature) -> tuple[float, float]:
    geometry = feature.geometry()
    if geometry.isNull() or geometry.isEmpty():
        return (np.nan, np.nan)
    if geometry.isMultipart():
        points = geometry.asMultiPoint()
        return (points[0].x(), points[0].y()) if len(points) == 1 else (np.nan, np.nan)
    point = geometry.asPoint()
    return (point.x(), point.y())


def is_points(source: QgsProcessingFeatureSource) -> bool:
    """Whether a source has point geometries."""
    return QgsWkbTypes.geometryType(source.wkbType()) == QgsWkbTypes.GeometryType.PointGeometry


def to_lonlat(
    run: Run, x: np.ndarray, y: np.ndarray, crs: QgsCoordinateReferenceSystem
) -> tuple[np.ndarray, np.ndarray]:
    """Longitude and latitude [°, EPSG:4326] of positions (n,) in `crs`; NaN stays, and is what cannot be placed."""
    wgs84 = QgsCoordinateReferenceSystem("EPSG:4326")
    if crs == wgs84:
        return x, y
    transform = QgsCoordinateTransform(crs, wgs84, run.context.transformContext())
    lon, lat = np.full(len(x), np.nan), np.full(len(y), np.nan)
    for row in np.flatnonzero(np.isfinite(x) & np.isfinite(y)):
        try:
            point = transform.transform(float(x[row]), float(y[row]))
        except QgsCsException:
            continue
        if np.isfinite(point.x()) and np.isfinite(point.y()):
            lon[row], lat[row] = point.x(), point.y()
    return lon, lat


def no_rows(parameter: str, source: QgsProcessingFeatureSource) -> InputError:
    """Say that a source is empty."""
    return InputError(f"{parameter}: layer '{source.sourceName()}' has no features (check its filter and selection).")


def need_rows(parameter: str, source: QgsProcessingFeatureSource) -> None:
    """Refuse a source that is empty, without counting its rows.

    Raises
    ------
    InputError
        When it is.
    """
    if source.hasFeatures() == Qgis.FeatureAvailability.NoFeaturesAvailable:
        raise no_rows(parameter, source)


def need_crs(parameter: str, source: QgsProcessingFeatureSource) -> None:
    """Refuse a source whose CRS nobody knows.

    Raises
    ------
    InputError
        When it has none.
    """
    if not source.sourceCrs().isValid():
        layer = source.sourceName()
        raise InputError(f"{parameter}: layer '{layer}' has no known CRS. Set it with Layer > Set CRS of Layer.")


def checked_layer(
    parameter: str, source: QgsProcessingFeatureSource, geometry: QgsWkbTypes.GeometryType, wanted: str
) -> str:
    """The name of a layer that has rows, a CRS and geometries of one type.

    Parameters
    ----------
    wanted
        Ends the sentence "… holds MultiPolygon, not", e.g. "lines; give a layer of streets".

    Raises
    ------
    InputError
        Other geometries, no features, unknown CRS.
    """
    layer = source.sourceName()
    if QgsWkbTypes.geometryType(source.wkbType()) != geometry:
        kind = QgsWkbTypes.displayString(source.wkbType())
        raise InputError(f"{parameter}: layer '{layer}' holds {kind}, not {wanted}.")
    need_rows(parameter, source)
    need_crs(parameter, source)
    return layer


def fields_by_lower(source: QgsProcessingFeatureSource) -> dict[str, str]:
    """Names of the fields by how they read in lower case; of those that read alike the first."""
    return {name.lower(): name for name in reversed(source.fields().names())}


def recognised(source: QgsProcessingFeatureSource, names: Iterable[str]) -> str | None:
    """The field that is known by the first of `names`, in lower case, that occurs; None when none does.

    Shapefiles keep ten characters of a name, so these count as the name, too.
    """
    by_lower = fields_by_lower(source)
    written = (kept for name in names for kept in (name, name[:_SHAPEFILE_NAME]))
    return next((by_lower[name] for name in written if name in by_lower), None)


def features_of(
    fields: QgsFields, columns: Sequence[Sequence], lon: np.ndarray, lat: np.ndarray
) -> Iterator[QgsFeature]:
    """Point features from columns of values for QGIS (None for NULL) and positions (n,), NaN for no geometry."""
    known = (np.isfinite(lon) & np.isfinite(lat)).tolist()
    for values, x, y, there in zip(zip(*columns), lon.tolist(), lat.tolist(), known):
        feature = QgsFeature(fields)
        feature.setAttributes(list(values))
        if there:
            feature.setGeometry(QgsPoint(x, y))
        yield feature
