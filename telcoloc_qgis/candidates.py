"""Candidates of signal strengths as a point layer, and back; an instant that has none is a row without a point."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsFeature,
    QgsProcessingFeatureSource,
    QgsRectangle,
    QgsWkbTypes,
)
from qgis.PyQt.QtCore import QMetaType

from ..models.errors import InputError
from . import tracking_styles
from .columns import checked_layer, features_of, no_rows, parts_of, recognised
from .crs import metric_crs, name_of
from .localization import names_at, numbers_at, seconds_shown, slices
from .outputs import fields_of
from .temporal import date_time
from .tracks import RECOGNISED, transformed

if TYPE_CHECKING:
    from ..models.landmarks.candidates import Candidates
    from ..models.progress import Progress
    from .algorithm import Run

#: Fields that are read, by the names they are known by; upper and lower case are alike.
_KNOWN_AS = {
    "device": RECOGNISED["DEVICE_FIELD"],
    "trajectory": RECOGNISED["TRAJECTORY_FIELD"],
    "time": ("time_s", *(name for name in RECOGNISED["TIME_FIELD"] if name != "time_s")),
    "instant": ("instant",),
    "rank": ("rank",),
    "error_db": ("error_db",),
    "row": ("row", "source_row"),
}


def write_candidates(
    run: Run,
    name: str,
    candidates: Candidates,
    crs: QgsCoordinateReferenceSystem,
    progress: Progress,
    *,
    antennas: np.ndarray | None = None,
    offset_db: np.ndarray | None = None,
    truth_xy_m: np.ndarray | None = None,
    chosen: np.ndarray | None = None,
) -> str:
    """Write output `name`, styled and playable, and return its layer id or path.

    Parameters
    ----------
    crs
        Of the candidates.
    antennas, offset_db
        Antennas compared and the device's offset [dB] of each instant, shape (n,).
    truth_xy_m
        True positions of the instants in `crs` [m], shape (n, 2), NaN where unknown.
    chosen
        Whether each candidate lies on the chosen path, shape (n_candidates,).
    """
    from ..models.landmarks.candidate_rows import in_rows

    kind = QMetaType.Type
    fields = fields_of(
        ("device", kind.QString),
        ("trajectory", kind.QString),
        ("time", kind.QDateTime),
        ("time_s", kind.Double),
        ("instant", kind.Int),
        ("rank", kind.Int),
        ("error_db", kind.Double),
        *([("antennas", kind.Int)] if antennas is not None else []),
        *([("offset_db", kind.Double)] if offset_db is not None else []),
        *([("truth_error_m", kind.Double)] if truth_xy_m is not None else []),
        *([("chosen", kind.Int)] if chosen is not None else []),
        ("row", kind.LongLong),
    )
    instant, rank, at = in_rows(candidates)
    there = at >= 0
    xy_m = np.full((len(at), 2), np.nan)
    xy_m[there] = candidates.xy_m[at[there]]
    error = np.full(len(at), np.nan)
    error[there] = candidates.error_db[at[there]]
    number = np.arange(len(candidates)) - np.repeat(candidates.starts[:-1], np.diff(candidates.starts))

    def features() -> Iterator[QgsFeature]:
        for rows in slices(len(at)):
            of, every = instant[rows], slice(0, len(at[rows]))
            columns: list[Sequence[Any]] = [
                names_at((candidates.devices, candidates.device[of]), every),
                names_at((candidates.trajectories, candidates.trajectory[of]), every),
                [date_time(value) for value in candidates.time_s[of].tolist()],
                candidates.time_s[of].tolist(),
                number[of].tolist(),
                [value if value else None for value in rank[rows].tolist()],
                numbers_at(error, rows, 3),
            ]
            if antennas is not None:
                columns.append(antennas[of].tolist())
            if offset_db is not None:
                columns.append(numbers_at(offset_db[of], every))
            if truth_xy_m is not None:
                columns.append(numbers_at(np.hypot(*(xy_m[rows] - truth_xy_m[of]).T), every))
            if chosen is not None:
                columns.append([int(chosen[one]) if one >= 0 else None for one in at[rows].tolist()])
            columns.append(candidates.row[of].tolist())
            yield from features_of(fields, columns, xy_m[rows, 0], xy_m[rows, 1])

    layer = run.outputs.table(name, fields, features(), QgsWkbTypes.Type.Point, crs, progress, len(at))
    run.style(name, layer, tracking_styles.candidates_qml(candidates.error_db, seconds_shown(candidates.time_s)))
    return layer


def read_candidates(
    run: Run,
    source: QgsProcessingFeatureSource,
    parameter: str = "CANDIDATES",
    crs: QgsCoordinateReferenceSystem | None = None,
    progress: Progress | None = None,
) -> tuple[Candidates, QgsCoordinateReferenceSystem]:
    """Read a point layer of candidates, ours or one of any program that has at least a time.

    Points of one trajectory, device and time (and `instant`, where there is one) are the candidates of one instant, best first by
    `rank`, else by `error_db`, else as they come. A row without a point is an instant that may have no candidate. Rows without a time are
    left out and counted. Without trajectories a device's points are one.

    Parameters
    ----------
    crs
        A metric CRS that positions are wanted in; when not given the layer's own where it is metric, else one that suits.

    Returns
    -------
    (Candidates, QgsCoordinateReferenceSystem)
        `row` is the layer's `row` or `source_row`, else the feature id of an instant's best candidate.

    Raises
    ------
    InputError
        No features, no points, unknown CRS, no time field, no usable row, no point at all or one that cannot be placed.
    """
    from ..models.landmarks.candidate_rows import candidates_of
    from ..models.trajectory import dialects

    points = QgsWkbTypes.GeometryType.PointGeometry
    layer = checked_layer(parameter, source, points, "points; give a layer of candidates")
    field = {role: recognised(source, known) or "" for role, known in _KNOWN_AS.items()}
    if not field["time"]:
        raise InputError(
            f"{parameter}: layer '{layer}' has no field of times (such as time); its fields: "
            f"{', '.join(source.fields().names()) or 'none'}. Make candidates with 'Signal candidates'."
        )
    wanted = list(dict.fromkeys(name for name in field.values() if name))
    names = {role: dialects.Names() for role in ("device", "trajectory")}
    read: dict[str, list[np.ndarray]] = {}
    total = 0
    for part in parts_of(run, source, parameter, wanted, True, progress):
        total += len(part)
        columns: dict[str, np.ndarray] = {"id": part.rows, "x": part.x, "y": part.y}
        for role in ("device", "trajectory"):
            if field[role]:
                columns[role] = names[role].add(*dialects.names(part.columns[field[role]]))
        columns["time"] = dialects.times(part.columns[field["time"]])[0]
        for role in ("instant", "rank", "error_db", "row"):
            if field[role]:
                columns[role] = dialects.numbers(part.columns[field[role]])[0]
        timed = np.isfinite(columns["time"])
        for role, values in columns.items():
            read.setdefault(role, []).append(values[timed])
    if not read:
        raise no_rows(parameter, source)
    table = {role: np.concatenate(parts) for role, parts in read.items()}
    n = len(table["time"])
    if not n:
        raise InputError(
            f"{parameter}: none of the {total:,} rows of layer '{layer}' has a time that can be read in '{field['time']}'."
        )
    if n < total:
        run.warn(f"{parameter}: rows without a time that can be read, which are left out: {total - n:,} of {total:,}.")
    if not np.isfinite(table["x"]).any():
        raise InputError(f"{parameter}: none of the {n:,} rows of layer '{layer}' has a point.")
    chosen, xy_m = _placed(run, source, parameter, table, crs)
    unnamed = np.zeros(n, dtype=np.int64)
    code = {role: table.get(role, unnamed) for role in ("device", "trajectory")}
    texts = {role: list(names[role].texts) or [""] for role in code}
    if not field["trajectory"]:
        code["trajectory"], texts["trajectory"] = code["device"], texts["device"]
    nothing = np.full(n, np.nan)
    found = candidates_of(
        (texts["device"], code["device"]),
        (texts["trajectory"], code["trajectory"]),
        table["time"],
        xy_m,
        instant=table.get("instant"),
        rank=table.get("rank"),
        error_db=table.get("error_db", nothing),
        row=np.where(np.isfinite(table.get("row", nothing)), table.get("row", nothing), table["id"]).astype(np.int64),
    )
    run.info(
        f"{parameter}: {len(found.xy_m):,} candidates of {len(found):,} instants in {len(found.starts) - 1:,} trajectories."
    )
    return found, chosen


def _placed(
    run: Run,
    source: QgsProcessingFeatureSource,
    parameter: str,
    table: dict[str, np.ndarray],
    wanted: QgsCoordinateReferenceSystem | None,
) -> tuple[QgsCoordinateReferenceSystem, np.ndarray]:
    """A metric CRS and the points in it, shape (n, 2), NaN for none."""
    x, y = table["x"], table["y"]
    there = np.flatnonzero(np.isfinite(x) & np.isfinite(y))
    crs = wanted
    if crs is None:
        around = QgsRectangle(x[there].min(), y[there].min(), x[there].max(), y[there].max())
        crs, why = metric_crs(source.sourceCrs(), around, run.context.transformContext())
        run.info(f"{parameter}: {why}")
    xy_m = np.full((len(x), 2), np.nan)
    if crs == source.sourceCrs():
        xy_m[there] = np.column_stack([x[there], y[there]])
        return crs, xy_m
    transform = QgsCoordinateTransform(source.sourceCrs(), crs, run.context.transformContext())
    xy_m[there] = transformed(transform, x[there], y[there]).T
    for row in there[~np.isfinite(xy_m[there]).all(axis=1)][:1].tolist():
        raise InputError(
            f"{parameter}: the point of feature {table['id'][row]} at {x[row]:.6g}, {y[row]:.6g} cannot be placed in {name_of(crs)}. "
            "Check the layer's CRS and coordinates."
        )
    return crs, xy_m
