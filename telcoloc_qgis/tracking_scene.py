"""What a map of landmark-assisted tracking shows: layers of 'Track with landmarks' read for some instants, in a metric CRS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsExpression,
    QgsFeatureRequest,
    QgsGeometry,
    QgsProcessingFeatureSource,
    QgsWkbTypes,
)

from ..models.errors import InputError
from ..models.landmarks.true_positions import positions_at
from ..models.progress import span
from .columns import checked_layer, recognised
from .crs import metric_crs
from .landmarks import DEVICE_NAMES
from .sites import id_text
from .temporal import seconds_of, utc
from .tracks import RECOGNISED

if TYPE_CHECKING:
    from ..models.progress import Progress
    from .algorithm import Run

TIME_NAMES, TRAJECTORY_NAMES = RECOGNISED["TIME_FIELD"], RECOGNISED["TRAJECTORY_FIELD"]
#: Times within so much of a window's ends are in it [s]: QGIS keeps milliseconds.
TIME_TOLERANCE_S = 0.002
_GEOMETRY = QgsWkbTypes.GeometryType


@dataclass(frozen=True)
class Rows:
    """Features of a layer, in the CRS they were asked for.

    Parameters
    ----------
    name
        Of the layer.
    geometry
        Of each feature.
    xy_m
        A point of each: of lines the middle of their box [m], shape (n, 2).
    time_s
        Seconds since 1970-01-01 UTC, shape (n,).
    group
        (device, trajectory) of each; "" where the layer does not tell.
    columns
        Values of further fields, each of length n.
    """

    name: str
    geometry: list[QgsGeometry]
    xy_m: np.ndarray
    time_s: np.ndarray
    group: list[tuple[str, str]]
    columns: dict[str, list[Any]]

    def __len__(self) -> int:
        return len(self.time_s)

    def taken(self, rows: np.ndarray) -> Rows:
        """Some of the features: a mask or row numbers."""
        picked = np.flatnonzero(rows) if rows.dtype == bool else rows
        return Rows(
            self.name,
            [self.geometry[row] for row in picked],
            self.xy_m[picked],
            self.time_s[picked],
            [self.group[row] for row in picked],
            {name: [values[row] for row in picked] for name, values in self.columns.items()},
        )

    def numbers(self, name: str) -> np.ndarray:
        """A column as numbers, shape (n,); NaN where there is none or the layer has no such field."""
        values = self.columns.get(name, [None] * len(self))
        return np.array([_number(value) for value in values], dtype=float)

    def sorted(self) -> Rows:
        """By device, trajectory and time."""
        return self.taken(
            np.array(sorted(range(len(self)), key=lambda row: (self.group[row], self.time_s[row])), dtype=int)
        )


@dataclass(frozen=True)
class Window:
    """The instants that are shown, from the first to the last [s since 1970]; `whole` where that is all of the path."""

    begin_s: float
    end_s: float
    whole: bool

    def holds(self, time_s: np.ndarray) -> np.ndarray:
        """Which times lie in it, shape (n,)."""
        return (time_s >= self.begin_s - TIME_TOLERANCE_S) & (time_s <= self.end_s + TIME_TOLERANCE_S)


@dataclass(frozen=True)
class TrackingScene:
    """What is drawn.

    Parameters
    ----------
    crs
        Metric; all positions are in it.
    path
        All instants, by device, trajectory and time.
    parts
        First row of each unbroken part of the path and the number of rows at the end.
    edges, candidates
        Those of the window; None where not given.
    truth
        All true positions, by device, trajectory and time; None where not given.
    error_m
        Distance of the path to the truth, shape (n,), NaN where it is not known.
    true_xy_m
        Where the device was, shape (n, 2), NaN where that is not known.
    candidate_error_m
        Distance of the candidates to the truth, NaN where it is not known; empty without candidates.
    """

    crs: QgsCoordinateReferenceSystem = field(compare=False)
    window: Window
    path: Rows
    parts: np.ndarray
    edges: Rows | None
    candidates: Rows | None
    truth: Rows | None
    error_m: np.ndarray
    true_xy_m: np.ndarray
    candidate_error_m: np.ndarray

    @property
    def shown(self) -> np.ndarray:
        """Which instants of the path lie in the window, shape (n,), bool."""
        return self.window.holds(self.path.time_s)


def read_scene(run: Run, progress: Progress) -> TrackingScene:
    """Read PATH, EDGES, CANDIDATES and TRUTH for the instants that FROM and TO, or AROUND and INSTANTS, ask for.

    Raises
    ------
    InputError
        When a layer is not what it should be, or its times and those of PATH do not overlap.
    """
    device = str(run.parameters.values.get("DEVICE") or "").strip()
    source = run.parameters.source("PATH")
    _checked(source, "PATH", _GEOMETRY.PointGeometry, ())
    crs, why = metric_crs(source.sourceCrs(), source.sourceExtent(), run.context.transformContext())
    run.info(why.replace(", and outputs use it", ""))
    points = _GEOMETRY.PointGeometry
    path = _rows(run, "PATH", crs, span(progress, 0.0, 0.1), points, (), ("part", "kind", "truth_error_m"), device)
    path = path.sorted()
    part = [(owner, id_text(value)) for owner, value in zip(path.group, path.columns.get("part", [""] * len(path)))]
    changes = [row for row in range(1, len(path)) if part[row] != part[row - 1]]
    window = _window(run, path)
    further = {
        "CANDIDATES": (points, ("error_db",), ("rank", "truth_error_m", "chosen")),
        "EDGES": (_GEOMETRY.LineGeometry, ("time_to",), ("forwarding", "chosen")),
        "TRUTH": (points, (), ()),
    }
    read: dict[str, Rows | None] = {}
    for number, (name, (kind, needed, known)) in enumerate(further.items()):
        given = _rows(
            run, name, crs, span(progress, 0.1 + 0.3 * number, 0.4 + 0.3 * number), kind, needed, known, device
        )
        if given is not None:
            _check_overlap(name, given, path)
        read[name] = given
    edges, candidates, truth = read["EDGES"], read["CANDIDATES"], read["TRUTH"]
    truth = truth.sorted() if truth is not None else None
    true_xy = _true_positions(path, truth)
    if edges is not None:
        edges = edges.taken(window.holds(edges.time_s) & window.holds(seconds_of(edges.columns["time_to"])))
    candidate_error = np.empty(0)
    if candidates is not None:
        candidates = candidates.taken(window.holds(candidates.time_s))
        candidate_error = _error(candidates, _true_positions(candidates, truth))
    parts = np.array([0, *changes, len(path)])
    return TrackingScene(
        crs, window, path, parts, edges, candidates, truth, _error(path, true_xy), true_xy, candidate_error
    )


def _error(rows: Rows, true_xy_m: np.ndarray) -> np.ndarray:
    """Distance to the truth [m], shape (n,): as the layer tells, else to the true positions."""
    told = rows.numbers("truth_error_m")
    return np.where(np.isfinite(told), told, np.hypot(*(rows.xy_m - true_xy_m).T))


def moment(run: Run, name: str) -> float | None:
    """A parameter that holds a date and time [s since 1970, UTC unless it names a zone], None where it is not given.

    Raises
    ------
    InputError
        When it is no time.
    """
    if not run.parameters.given(name):
        return None
    value = run.parameters.values.get(name)
    time_s = float(seconds_of([value])[0])
    if not np.isfinite(time_s):
        raise InputError(f"{name} is '{value}'; it must be a date and time such as 2024-03-07T17:50:00.")
    return time_s


def _window(run: Run, path: Rows) -> Window:
    """Instants that the parameters ask for.

    Raises
    ------
    InputError
        When there are none in PATH, or FROM and TO are given beside AROUND.
    """
    begin, end, around = (moment(run, name) for name in ("FROM", "TO", "AROUND"))
    times = np.unique(path.time_s)
    first, last = float(times[0]), float(times[-1])
    extent = f"which goes from {utc(first)} to {utc(last)} (UTC)"
    if around is not None:
        if begin is not None or end is not None:
            raise InputError("AROUND and FROM or TO are given; give AROUND alone, or FROM and TO.")
        if not first - TIME_TOLERANCE_S <= around <= last + TIME_TOLERANCE_S:
            raise InputError(f"AROUND is {utc(around)} (UTC), outside PATH '{path.name}', {extent}.")
        nearest = int(np.abs(times - around).argmin())
        count = run.parameters.integer("INSTANTS")
        low = max(0, min(nearest - count // 2, len(times) - count))
        kept = times[low : low + count]
        return Window(float(kept[0]), float(kept[-1]), False)
    window = Window(first if begin is None else begin, last if end is None else end, begin is None and end is None)
    if not window.holds(times).any():
        limits = f"FROM {utc(window.begin_s)} TO {utc(window.end_s)} (UTC)"
        raise InputError(f"{limits} holds no instant of PATH '{path.name}', {extent}.")
    return window


def _check_overlap(parameter: str, rows: Rows, path: Rows) -> None:
    """Refuse a layer of other times than the path's."""
    if rows.time_s.max() < path.time_s.min() or rows.time_s.min() > path.time_s.max():
        raise InputError(
            f"{parameter}: layer '{rows.name}' goes from {utc(rows.time_s.min())} to {utc(rows.time_s.max())} (UTC), PATH "
            f"'{path.name}' from {utc(path.time_s.min())} to {utc(path.time_s.max())}: they share no time."
        )


def _rows(
    run: Run,
    parameter: str,
    crs: QgsCoordinateReferenceSystem,
    progress: Progress,
    kind: QgsWkbTypes.GeometryType,
    needed: Sequence[str],
    known: Sequence[str],
    device: str,
) -> Rows | None:
    """Read the layer of a parameter, None when it was not given.

    Parameters
    ----------
    needed, known
        Fields that must and that may be there beside the time.
    device
        Only rows of this device or trajectory; "" for all.

    Raises
    ------
    InputError
        No features, other geometries than `kind`, unknown CRS, a missing field, no usable row.
    """
    source = run.parameters.source(parameter)
    if source is None:
        return None
    layer = source.sourceName()
    time = _checked(source, parameter, kind, needed)
    columns = {name: found for name in (*needed, *known) if (found := recognised(source, (name,)))}
    who = recognised(source, DEVICE_NAMES), recognised(source, TRAJECTORY_NAMES)
    request = QgsFeatureRequest()
    request.setSubsetOfAttributes([name for name in (time, *who, *columns.values()) if name], source.fields())
    request.setDestinationCrs(crs, run.context.transformContext())
    lost: list[int] = []
    request.setTransformErrorCallback(lambda feature: lost.append(feature.id()))
    geometry, places, stamps, group = [], [], [], []
    values: dict[str, list[Any]] = {name: [] for name in columns}
    count, nowhere = max(source.featureCount(), 1), 0
    unchecked = QgsProcessingFeatureSource.Flag.FlagSkipGeometryValidityChecks  # standing still is a line of no length
    if device and any(who):
        tests = [QgsExpression.createFieldEqualityExpression(name, device) for name in who if name]
        request.setFilterExpression(" OR ".join(tests))
    for done, feature in enumerate(source.getFeatures(request, unchecked)):
        if done % 256 == 0:
            progress(min(done / count, 1.0))
        owner = (id_text(feature[who[0]]) if who[0] else "", id_text(feature[who[1]]) if who[1] else "")
        place = feature.geometry()
        if place.isNull():  # an instant without a candidate
            continue
        centre = place.boundingBox().center()
        if place.isEmpty() or not np.isfinite([centre.x(), centre.y()]).all():
            nowhere += 1
            continue
        geometry.append(place)
        places.append((centre.x(), centre.y()))
        stamps.append(feature[time])
        group.append(owner)
        for name, column in columns.items():
            values[name].append(feature[column])
    if device and not geometry and not nowhere + len(lost):
        raise InputError(f"{parameter}: layer '{layer}' holds nothing of DEVICE '{device}'.")
    rows = Rows(layer, geometry, np.array(places).reshape(-1, 2), seconds_of(stamps), group, values)
    timed = np.isfinite(rows.time_s)
    left_out = nowhere + len(lost) + int((~timed).sum())
    if not timed.any():
        raise InputError(f"{parameter}: no row of layer '{layer}' has a place on the map and a time in '{time}'.")
    if left_out:
        run.warn(f"{parameter}: {left_out:,} rows of '{layer}' have no place on the map or no time and are left out.")
    return rows.taken(timed)


def _checked(
    source: QgsProcessingFeatureSource, parameter: str, kind: QgsWkbTypes.GeometryType, needed: Sequence[str]
) -> str:
    """The time field of a usable layer."""
    wanted = "points" if kind == _GEOMETRY.PointGeometry else "lines"
    layer = checked_layer(parameter, source, kind, wanted)
    time = recognised(source, TIME_NAMES)
    missing = ["time"] if time is None else []
    missing += [name for name in needed if recognised(source, (name,)) is None]
    if missing:
        raise InputError(
            f"{parameter}: layer '{layer}' has no field '{missing[0]}', only {', '.join(source.fields().names()) or 'none'}; give one that "
            "has it, such as those that 'Track with landmarks' writes."
        )
    return time


def _true_positions(rows: Rows, truth: Rows | None) -> np.ndarray:
    """Where a device was at the time of each feature, shape (n, 2), on the straight line between two known positions."""
    if truth is None:
        return np.full((len(rows), 2), np.nan)
    told = all(any(device for device, _ in each.group) for each in (rows, truth))
    codes: dict[str, int] = {}
    keys = [
        np.array([codes.setdefault(device if told else "", len(codes)) for device, _ in each.group])
        for each in (rows, truth)
    ]
    return positions_at(keys[0], rows.time_s, keys[1], truth.time_s, truth.xy_m)


def _number(value: object) -> float:
    try:
        return float(id_text(value))
    except ValueError:
        return float("nan")
