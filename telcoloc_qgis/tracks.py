"""Point layers that hold paths: reading them as trajectories, and writing trajectories as lines with times (`LineStringM`).

Filters, map matching and evaluation all begin with the same kind of layer: one point per record with a device, a time and, where a
method gave one, an uncertainty. They share its parameters (`add_track_parameters`), its reader and its writers.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Callable

import numpy as np
from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsCsException,
    QgsFeature,
    QgsFeatureRequest,
    QgsFields,
    QgsGeometry,
    QgsPointXY,
    QgsProcessing,
    QgsProcessingFeatureSource,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
    QgsProcessingParameterNumber,
    QgsRectangle,
    QgsWkbTypes,
)
from qgis.PyQt.QtCore import QMetaType

from ..models.errors import InputError
from .columns import checked_layer, recognised
from .crs import metric_crs, name_of
from .outputs import fields_of
from .sites import counted, id_text, listed, point_of
from .temporal import date_time, lines_qml, seconds_of, timed_qml

if TYPE_CHECKING:
    from ..models.progress import Progress
    from .algorithm import Run, TelcoLocAlgorithm

#: Names that a field is recognised by when none is given, in this order; upper and lower case are alike.
RECOGNISED = {
    "DEVICE_FIELD": ("device", "device_id", "deviceid", "imei", "imsi", "user", "user_id", "phone"),
    "TRAJECTORY_FIELD": ("trajectory", "trajectory_id", "traj", "trajid", "traj_id", "track", "track_id", "drive"),
    "TIME_FIELD": ("time", "time_s", "timestamp", "datetime", "date_time", "mrtime", "t"),
    "UNCERTAINTY_FIELD": ("uncertainty_m", "uncertainty", "accuracy_m", "accuracy", "sigma_m"),
}


@dataclass(frozen=True)
class Tracks:
    """Points of a layer, sorted by trajectory and time.

    Parameters
    ----------
    ids
        Feature ids, shape (n,), int64.
    x_m, y_m
        Positions in `crs` [m], shape (n,).
    time_s
        Seconds since 1970-01-01 UTC, shape (n,), ascending within a trajectory; NaN in a layer without times.
    uncertainty_m
        As the layer tells, shape (n,), NaN where it does not.
    starts
        First row of each trajectory and the number of rows at the end, shape (n_trajectories + 1,).
    devices, names
        Device and name of each trajectory.
    crs
        The metric CRS of the positions.
    rejected
        Number of features that could not be used.
    """

    ids: np.ndarray
    x_m: np.ndarray
    y_m: np.ndarray
    time_s: np.ndarray
    uncertainty_m: np.ndarray
    starts: np.ndarray
    devices: tuple[str, ...]
    names: tuple[str, ...]
    crs: QgsCoordinateReferenceSystem = field(compare=False)
    rejected: int = 0

    def __len__(self) -> int:
        return len(self.ids)


def add_track_parameters(algorithm: TelcoLocAlgorithm, uncertainty: bool = True, time_optional: bool = False) -> None:
    """Declare INPUT, the fields of a point layer that holds paths, and MAX_GAP."""
    point = QgsProcessing.SourceType.TypeVectorPoint
    algorithm.add(
        QgsProcessingParameterFeatureSource("INPUT", algorithm.tr("Points"), [point]),
        algorithm.tr(
            "Point layer in any CRS, one point per record, e.g. POINTS of 'Localize measurements' or the fixes of a GNSS receiver."
        ),
    )
    without_time = (
        "Without times the points of a trajectory follow each other as the layer has them." if time_optional else ""
    )
    texts = {
        "DEVICE_FIELD": (
            "Device field",
            "Field that tells devices apart",
            "Without one, all points are of one device.",
        ),
        "TRAJECTORY_FIELD": ("Trajectory field", "Field that tells the trajectories of a device apart", ""),
        "TIME_FIELD": (
            "Time field",
            "Field with the time: date and time, ISO 8601 text, or (milli)seconds since 1970; in UTC unless it names a time zone",
            without_time,
        ),
        "UNCERTAINTY_FIELD": (
            "Uncertainty field",
            "Field with the radius [m] of the circle that holds a point's true position with a probability of one half",
            "",
        ),
    }
    for name, (label, text, otherwise) in texts.items():
        if name == "UNCERTAINTY_FIELD" and not uncertainty:
            continue
        algorithm.add(
            QgsProcessingParameterField(name, algorithm.tr(label), parentLayerParameterName="INPUT", optional=True),
            algorithm.tr(
                f"{text}. By default it is recognised by its name ({', '.join(RECOGNISED[name][:3])}, …). {otherwise}".strip()
            ),
            advanced=name in ("TRAJECTORY_FIELD", "UNCERTAINTY_FIELD"),
        )
    number = QgsProcessingParameterNumber
    algorithm.add(
        number("MAX_GAP", algorithm.tr("Longest gap [s]"), number.Type.Double, 600.0, False, 1.0, 1e9),
        algorithm.tr("A trajectory ends where no point follows for longer than this [s]."),
    )


def field_of(run: Run, source: QgsProcessingFeatureSource, name: str) -> str | None:
    """The field that parameter `name` gives, or the first one that is recognised by its name; None when there is none."""
    return run.parameters.field(name, source) or recognised(source, RECOGNISED[name])


def read_tracks(
    run: Run,
    progress: Progress,
    parameter: str = "INPUT",
    uncertainty: bool = True,
    needs_time: bool = True,
    crs: QgsCoordinateReferenceSystem | None = None,
    outputs_in_it: bool = True,
) -> Tracks:
    """Read, project, sort and split the points that `add_track_parameters` asks for.

    Parameters
    ----------
    uncertainty
        Whether the algorithm has UNCERTAINTY_FIELD.
    needs_time
        Whether a layer without times is refused.
    crs
        A CRS in metres that positions are wanted in; None to choose one.
    outputs_in_it
        Whether the outputs will have that CRS too, which the log says.

    Raises
    ------
    InputError
        No features, no points, unknown CRS, no time field, no usable row.
    """
    source = run.parameters.source(parameter)
    points = QgsWkbTypes.GeometryType.PointGeometry
    layer = checked_layer(parameter, source, points, "points; give a layer with one point per record")
    device = field_of(run, source, "DEVICE_FIELD")
    trajectory = field_of(run, source, "TRAJECTORY_FIELD")
    time = field_of(run, source, "TIME_FIELD")
    sigma = field_of(run, source, "UNCERTAINTY_FIELD") if uncertainty else None
    if time is None and needs_time:
        raise InputError(
            f"{parameter}: layer '{layer}' has no field that is known to be a time; give TIME_FIELD one of its fields: "
            f"{', '.join(source.fields().names()) or 'none'}."
        )
    run.info(
        f"Fields of '{layer}': device {device or 'none'}, trajectory {trajectory or 'none'}, time {time or 'none'}"
        + (f", uncertainty {sigma or 'none'}." if uncertainty else ".")
    )
    request = QgsFeatureRequest()
    request.setSubsetOfAttributes([each for each in (device, trajectory, time, sigma) if each], source.fields())
    count = max(source.featureCount(), 1)
    ids: list[int] = []
    rows: list[tuple[float, float, float]] = []
    stamps: list[object] = []
    codes: list[int] = []
    code_of: dict[tuple[str, str], int] = {}
    refused: list[tuple[int, str]] = []
    unknown: list[str] = []
    nameless = 0
    for done, feature in enumerate(source.getFeatures(request)):
        if done % 512 == 0:
            progress(min(done / count, 1.0))
        point = point_of(feature)
        if isinstance(point, str):
            refused.append((feature.id(), str(point)))
            continue
        metres = _positive(feature[sigma]) if sigma else math.nan
        if sigma and not math.isfinite(metres) and id_text(feature[sigma]):
            unknown.append(f"feature {feature.id()}: '{id_text(feature[sigma])}'")
        names = (id_text(feature[device]) if device else "", id_text(feature[trajectory]) if trajectory else "")
        nameless += bool(device) and not names[0]
        ids.append(feature.id())
        rows.append((point.x(), point.y(), metres))
        stamps.append(feature[time] if time else None)
        codes.append(code_of.setdefault(names, len(code_of)))
    id_of, code, (x, y, uncertainty_m) = np.array(ids, dtype=np.int64), np.array(codes, dtype=int), _columns(rows)
    time_s = np.full(len(ids), np.nan)
    if time:
        time_s = seconds_of(stamps)
        timed = np.isfinite(time_s)
        for row in np.flatnonzero(~timed):
            text = id_text(stamps[row])
            refused.append((ids[row], f"{time} " + (f"'{text}' is no time" if text else "is empty")))
        id_of, code, x, y, uncertainty_m, time_s = (
            column[timed] for column in (id_of, code, x, y, uncertainty_m, time_s)
        )
    rejected = [f"feature {row}: {why}" for row, why in sorted(refused)]
    if not len(id_of):
        raise InputError(
            f"{parameter}: none of the {len(rejected):,} rows of layer '{layer}' can be used ({listed(rejected)})."
        )
    if rejected:
        run.warn(f"{len(rejected):,} of {len(rejected) + len(id_of):,} points cannot be used: {listed(rejected)}.")
    if unknown:
        points = counted(len(unknown), "point has", "points have")
        run.warn(
            f"{points} an uncertainty in '{sigma}' that is no number above 0; it counts as unknown: {listed(unknown)}."
        )
    if nameless:
        points = counted(nameless, "point has", "points have")
        run.warn(f"{points} nothing in '{device}'; all such count as those of one device.")
    by_id = np.argsort(id_of, kind="stable")  # selected features come in any order
    order, starts, group = _sorted(run, code[by_id], time_s[by_id], run.parameters.number("MAX_GAP"), bool(time))
    order = by_id[order]
    x, y, metric = _projected(run, source, parameter, id_of, x, y, crs, outputs_in_it)
    groups = list(code_of)
    part = group[starts[:-1]]
    return Tracks(
        id_of[order],
        x[order],
        y[order],
        time_s[order],
        uncertainty_m[order],
        starts,
        tuple(groups[code][0] for code in part),
        _names(groups, part),
        metric,
        len(rejected),
    )


def _columns(rows: list[tuple[float, float, float]]) -> np.ndarray:
    return np.array(rows, dtype=float).reshape(-1, 3).T


def _positive(value: object) -> float:
    """A finite number above 0, else NaN."""
    try:
        number = float(id_text(value).replace(",", "."))
    except ValueError:
        return math.nan
    return number if number > 0 and math.isfinite(number) else math.nan


def _sorted(
    run: Run, codes: np.ndarray, time_s: np.ndarray, max_gap_s: float, timed: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Order (n,) by trajectory and time, `starts`, and the sorted codes (n,); says what was out of order or twice."""
    n = len(codes)
    by_code = np.argsort(codes, kind="stable")
    order = np.lexsort((np.arange(n), np.where(np.isnan(time_s), 0.0, time_s), codes))
    code, times = codes[order], time_s[order]
    same = np.diff(code) == 0
    if timed:
        backwards = int((same & (np.diff(time_s[by_code]) < 0)).sum())
        if backwards:
            points = counted(backwards, "point is", "points are")
            run.info(f"{points} earlier than the one before in the layer; all were sorted by time.")
        twice = int((same & (np.diff(times) == 0)).sum())
        if twice:
            points = counted(twice, "point has", "points have")
            run.warn(f"{points} the same device and time as another; all were kept, in the order of the layer.")
        same &= np.diff(times) <= max_gap_s
    starts = np.concatenate([[0], np.flatnonzero(~same) + 1, [n]]).astype(np.int64)
    return order, starts, code


def _names(groups: list[tuple[str, str]], part: np.ndarray) -> tuple[str, ...]:
    """A name per trajectory: what the layer calls it, numbered where gaps split it."""
    parts = np.bincount(part, minlength=len(groups))
    first = np.zeros(len(groups), dtype=int)
    names = []
    for code in part:
        first[code] += 1
        device, trajectory = groups[code]
        name = trajectory or device or "all"
        names.append(f"{name} #{first[code]}" if parts[code] > 1 else name)
    return tuple(names)


def _projected(
    run: Run,
    source: QgsProcessingFeatureSource,
    parameter: str,
    ids: np.ndarray,
    x: np.ndarray,
    y: np.ndarray,
    crs: QgsCoordinateReferenceSystem | None,
    outputs_in_it: bool,
) -> tuple[np.ndarray, np.ndarray, QgsCoordinateReferenceSystem]:
    """Positions in metres, and their CRS."""
    context = run.context.transformContext()
    if crs is None:
        east = (
            x % 360 if source.sourceCrs().isGeographic() and np.ptp(x) > 180 else x
        )  # on both sides of the antimeridian
        extent = QgsRectangle(east.min(), y.min(), east.max(), y.max())
        crs, why = metric_crs(source.sourceCrs(), extent, context)
        run.info(why if outputs_in_it else why.replace(", and outputs use it", ""))
    transform = QgsCoordinateTransform(source.sourceCrs(), crs, context)
    moved = transformed(transform, x, y)
    for row in np.flatnonzero(~np.isfinite(moved).all(axis=0))[:1]:
        raise InputError(
            f"{parameter}: feature {ids[row]} at {x[row]:.6g}, {y[row]:.6g} cannot be placed in {name_of(crs)}. "
            "Check the layer's CRS and coordinates."
        )
    return moved[0], moved[1], crs


def transformed(transform: QgsCoordinateTransform, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Transform positions all at once, shape (2, n); NaN where PROJ cannot."""
    if not len(x):
        return np.empty((2, 0))
    line = QgsGeometry()
    line.fromWkb(_line_wkb(2, np.column_stack([x, y]) if len(x) > 1 else np.column_stack([x, y]).repeat(2, axis=0)))
    try:
        if line.transform(transform) == QgsGeometry.OperationResult.Success:
            moved = np.frombuffer(bytes(line.asWkb())[9:], dtype="<f8").reshape(-1, 2)[: len(x)].T
            if np.isfinite(moved).all():
                return moved.copy()
    except QgsCsException:
        pass  # one of them cannot; find which
    moved = np.full((2, len(x)), np.nan)
    for row, (east, north) in enumerate(zip(x.tolist(), y.tolist())):
        try:
            point = transform.transform(QgsPointXY(east, north))
        except QgsCsException:
            continue
        moved[:, row] = point.x(), point.y()
    moved[~np.isfinite(moved)] = np.nan
    return moved


def _line_wkb(kind: int, vertices: np.ndarray) -> bytes:
    """Well-known binary of a line of vertices (n, 2 or 3): 2 = LineString, 2002 = LineStringM."""
    return struct.pack("<BII", 1, kind, len(vertices)) + np.ascontiguousarray(vertices, dtype="<f8").tobytes()


def line_m(x_m: np.ndarray, y_m: np.ndarray, time_s: np.ndarray) -> QgsGeometry:
    """Return the LineStringM of a path; M is seconds since 1970."""
    geometry = QgsGeometry()
    geometry.fromWkb(_line_wkb(2002, np.column_stack([x_m, y_m, time_s])))
    return geometry


def fields_with(
    source: QgsProcessingFeatureSource, *columns: tuple[str, QMetaType.Type]
) -> tuple[QgsFields, list[int]]:
    """The fields of a layer and then new ones, and which of the layer's they are: one that a new one is named like is left out."""
    new = {name.lower() for name, _ in columns}
    kept = [index for index, each in enumerate(source.fields()) if each.name().lower() not in new]
    fields = QgsFields()
    for index in kept:
        fields.append(source.fields().at(index))
    for each in fields_of(*columns):
        fields.append(each)
    return fields, kept


def moved_features(
    source: QgsProcessingFeatureSource,
    fields: QgsFields,
    kept: Sequence[int],
    tracks: Tracks,
    x_m: np.ndarray,
    y_m: np.ndarray,
    added: Callable[[int], Sequence[Any]],
) -> Iterator[QgsFeature]:
    """Read a layer a second time and yield its usable features with their attributes at new positions.

    Parameters
    ----------
    fields, kept
        As `fields_with` returns them.
    x_m, y_m
        New positions in `tracks.crs`, shape (n,).
    added
        Values of the new fields of a row of `tracks`.
    """
    row_of = dict(zip(tracks.ids.tolist(), range(len(tracks))))
    for old in source.getFeatures(QgsFeatureRequest().setFlags(QgsFeatureRequest.Flag.NoGeometry)):
        row = row_of.get(old.id())
        if row is None:
            continue
        values = old.attributes()
        feature = QgsFeature(fields)
        feature.setAttributes([*(values[index] for index in kept), *added(row)])
        feature.setGeometry(QgsGeometry.fromPointXY(QgsPointXY(float(x_m[row]), float(y_m[row]))))
        yield feature


def write_trajectories(
    run: Run,
    name: str,
    crs: QgsCoordinateReferenceSystem,
    starts: np.ndarray,
    devices: Sequence[str],
    names: Sequence[str],
    x_m: np.ndarray,
    y_m: np.ndarray,
    time_s: np.ndarray,
    progress: Progress,
    extra: Mapping[str, tuple[QMetaType.Type, Sequence[Any]]] | None = None,
    length_m: Sequence[float] | None = None,
) -> int:
    """Write output `name`: one LineStringM per trajectory of two points or more, which plays in the Temporal Controller.

    Parameters
    ----------
    starts
        First row of each trajectory and the number of rows at the end.
    devices, names
        Of each trajectory.
    x_m, y_m, time_s
        Of each point, shape (n,); times not known (NaN) give 0 as M.
    extra
        Further fields: type, and a value per trajectory.
    length_m
        Of each trajectory, where `crs` is not metric.

    Returns
    -------
    int
        Number of lines.
    """
    kind = QMetaType.Type
    extra = extra or {}
    fields = fields_of(
        ("device", kind.QString),
        ("trajectory", kind.QString),
        ("begin", kind.QDateTime),
        ("end", kind.QDateTime),
        ("points", kind.Int),
        ("length_m", kind.Double),
        *((column, type_) for column, (type_, _) in extra.items()),
    )
    long_enough = np.flatnonzero(np.diff(starts) > 1)

    def lines() -> Iterator[QgsFeature]:
        for index in long_enough.tolist():
            part = slice(int(starts[index]), int(starts[index + 1]))
            x, y, time = x_m[part], y_m[part], time_s[part]
            length = float(np.hypot(np.diff(x), np.diff(y)).sum()) if length_m is None else length_m[index]
            feature = QgsFeature(fields)
            feature.setGeometry(line_m(x, y, np.nan_to_num(time)))
            feature.setAttributes(
                [
                    devices[index],
                    names[index],
                    date_time(float(time[0])),
                    date_time(float(time[-1])),
                    len(x),
                    round(length, 1),
                    *(values[index] for _, values in extra.values()),
                ]
            )
            yield feature

    single = len(starts) - 1 - len(long_enough)
    if single:
        parts = counted(single, "trajectory has", "trajectories have")
        run.info(f"{parts} one point only, which makes no line.")
    layer = run.outputs.table(
        name, fields, lines(), QgsWkbTypes.Type.LineStringM, crs, progress, max(len(long_enough), 1)
    )
    run.style(name, layer, timed_qml(lines_qml(), "LineStringM", "begin", "end"))
    return len(long_enough)
