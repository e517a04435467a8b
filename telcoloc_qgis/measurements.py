"""Layers in the normal form of measurements, and layers of cells, as what `models.trajectory` works with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
from qgis.core import QgsCoordinateReferenceSystem, QgsFeature, QgsFields, QgsProcessingFeatureSource, QgsWkbTypes
from qgis.PyQt.QtCore import QDateTime, QMetaType, Qt

from ..models.errors import InputError
from ..models.progress import Progress
from . import styles
from .columns import (
    PART_ROWS,
    Part,
    features_of,
    fields_by_lower,
    is_points,
    need_crs,
    need_rows,
    no_rows,
    parts_of,
    recognised,
    to_lonlat,
)
from .outputs import fields_of
from .temporal import timed_qml

if TYPE_CHECKING:
    from ..models.trajectory.measurements import CellSites, Measurements
    from .algorithm import Run

#: Field sets that name a cell, in lower case, the surest first; several are joined as "6188-26051".
CELL_ID_FIELDS = (
    ("cell_id",),
    ("rncid", "cellid"),
    ("lac", "cellid"),
    ("lac", "ci"),
    ("mcc", "mnc", "lac", "cellid"),
    ("mcc", "net", "area", "cell"),
    ("mcc", "mnc", "lac", "ci"),
    ("mcc", "mnc", "tac", "ci"),
    ("ecgi",),
    ("cgi",),
    ("ci",),
    ("eci",),
    ("nci",),
    ("cellid",),
    ("cell",),
    ("freq", "cid"),
    ("bs_id",),
    ("bsid",),
    ("site_id",),
    ("id",),
    ("name",),
)
#: Fields of what else is known of a cell, in lower case.
_DETAILS = {
    "azimuth_deg": ("azimuth_deg", "azimuth", "bearing"),
    "height_m": ("height_m", "height", "antenna_height"),
    "power_dbm": ("power_dbm", "tx_power_dbm"),
}
_LON, _LAT = ("lon", "longitude", "lng", "long", "x"), ("lat", "latitude", "y")


def read_measurements(
    run: Run,
    source: QgsProcessingFeatureSource,
    parameter: str = "INPUT",
    max_gap_s: float = 600.0,
    progress: Progress | None = None,
) -> Measurements:
    """Read a layer or table in the normal form, as 'Import measurements' writes it, in any file format.

    The truth is the point geometry, in any CRS, or else `truth_lon` and `truth_lat`. Rows without a device, time or cell are left out
    and counted in the log; records out of order are sorted; two records of one device at one time are both kept.

    Parameters
    ----------
    max_gap_s
        Where the layer has no trajectories, a device's records are one until such a gap [s].

    Returns
    -------
    Measurements
        `row` is the layer's `source_row`, or the feature id where it has none.

    Raises
    ------
    InputError
        No features, not the normal form, no usable row, RSS that no phone measures, a truth off the earth.
    """
    from ..models.trajectory import dialects, normal_form
    from ..models.trajectory.measurements import measurements_of_codes

    layer = source.sourceName()
    need_rows(parameter, source)
    there = source.fields().names()
    lacks = normal_form.missing(there)
    if lacks:
        raise InputError(
            f"{parameter}: layer '{layer}' is not in the normal form of measurements (it has no {', no '.join(lacks)}). Run 'Import "
            "measurements' on it first."
        )
    points = is_points(source)
    if points:
        need_crs(parameter, source)
    cells = [name for name in normal_form.counted("cell") if name in there]
    k = len(cells)
    signals = normal_form.signals(there)
    wanted = ["device", "trajectory", "time_s", "time", "truth_lon", "truth_lat", "source_row", *cells]
    for name in ("rss_dbm", *signals):
        wanted += normal_form.counted(name, k)
    wanted = [name for name in wanted if name in there]
    if "time_s" in wanted and "time" in wanted:
        wanted.remove("time")

    names = {name: dialects.Names() for name in ("device", "trajectory", "cell")}
    columns: dict[str, list[np.ndarray]] = {}
    unusable = dict.fromkeys(("without a device", "without a time that can be read", "without a cell"), 0)
    total = 0
    for part in parts_of(run, source, parameter, wanted, points, progress):
        total += len(part)
        read = _records(run, part, source, parameter, names, cells, signals, points)
        usable = np.ones(len(part), dtype=bool)
        for reason, bad in (
            ("without a device", read["device"] < 0),
            ("without a time that can be read", ~np.isfinite(read["time_s"])),
            ("without a cell", (read["cell"] < 0).all(axis=1)),
        ):
            unusable[reason] += int((usable & bad).sum())
            usable &= ~bad
        for name, values in read.items():
            columns.setdefault(name, []).append(values[usable] if not usable.all() else values)
    if not columns:
        raise no_rows(parameter, source)
    said = ", ".join(f"{count:,} {reason}" for reason, count in unusable.items() if count)
    table = {name: np.concatenate(columns.pop(name)) for name in list(columns)}
    if not len(table["time_s"]):
        raise InputError(f"{parameter}: none of the {total:,} rows of layer '{layer}' can be used ({said}).")
    if said:
        run.warn(f"{parameter}: {sum(unusable.values()):,} of {total:,} rows cannot be used: {said}.")
    trajectory = None
    if "trajectory" in table:
        trajectory = (names["trajectory"].texts, table["trajectory"])
        if (table["trajectory"] < 0).any():  # some rows name none: theirs is their device
            texts = [*names["trajectory"].texts, *names["device"].texts]
            own = len(names["trajectory"].texts) + table["device"]
            trajectory = (texts, np.where(table["trajectory"] < 0, own, table["trajectory"]))
    _say_order(run, parameter, table, trajectory)
    return measurements_of_codes(
        (names["device"].texts, table["device"]),
        table["time_s"],
        (names["cell"].texts, table["cell"]),
        table["rss_dbm"],
        trajectory=trajectory,
        lon=table["lon"],
        lat=table["lat"],
        row=table["row"],
        signals={name: table[f"signal {name}"] for name in signals},
        max_gap_s=max_gap_s,
    )


def _records(
    run: Run,
    part: Part,
    source: QgsProcessingFeatureSource,
    parameter: str,
    names: dict,
    cells: list[str],
    signals: list[str],
    points: bool,
) -> dict[str, np.ndarray]:
    """The columns of one part: codes, float64 times and positions, float32 signals of shape (n, k)."""
    from ..models.trajectory import dialects

    columns, n, k = part.columns, len(part), len(cells)

    def numbers(name: str) -> np.ndarray:
        if name not in columns:
            return np.full(n, np.nan)
        return dialects.numbers(columns[name])[0]

    read: dict[str, np.ndarray] = {"device": names["device"].add(*dialects.names(columns["device"]))}
    if "trajectory" in columns:
        read["trajectory"] = names["trajectory"].add(*dialects.names(columns["trajectory"]))
    read["time_s"] = numbers("time_s") if "time_s" in columns else dialects.times(columns["time"])[0]
    codes = [names["cell"].add(*dialects.names(columns[cell], dialects.MISSING_IDS)) for cell in cells]
    read["cell"] = np.stack(codes, axis=1)
    heard = read["cell"] >= 0
    for name in ("rss_dbm", *signals):
        values = np.stack([numbers(f"{name}_{index}") for index in range(1, k + 1)], axis=1)
        values[~heard] = np.nan
        if name == "rss_dbm":
            _check_rss(values, part, source, parameter)
        read[name if name == "rss_dbm" else f"signal {name}"] = values.astype(np.float32)
    lon, lat = numbers("truth_lon"), numbers("truth_lat")
    wrong = (np.abs(lon) > 180) | (np.abs(lat) > 90)
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        raise InputError(
            f"{parameter}: truth_lon, truth_lat of feature {part.rows[row]} of '{source.sourceName()}' are {lon[row]:.10g}, "
            f"{lat[row]:.10g}, but must be degrees; run 'Import measurements' with the TRUTH_CRS they are in."
        )
    if points:
        east, north = to_lonlat(run, part.x, part.y, source.sourceCrs())
        known = np.isfinite(east) & np.isfinite(north)
        lon, lat = np.where(known, east, lon), np.where(known, north, lat)
    unknown = np.isnan(lon) | np.isnan(lat)
    read["lon"], read["lat"] = np.where(unknown, np.nan, lon), np.where(unknown, np.nan, lat)
    own = numbers("source_row")
    read["row"] = np.where(np.isnan(own), part.rows, np.nan_to_num(own)).astype(np.int64)
    return read


def _check_rss(values: np.ndarray, part: Part, source: QgsProcessingFeatureSource, parameter: str) -> None:
    from ..models.trajectory.normal_form import RSS_RANGE_DBM

    low, high = RSS_RANGE_DBM
    absurd = (values < low) | (values > high)
    if absurd.any():
        row, column = np.argwhere(absurd)[0]
        raise InputError(
            f"{parameter}: rss_dbm_{column + 1} of feature {part.rows[row]} of '{source.sourceName()}' is {values[row, column]:g} dBm, but "
            f"a phone measures {low:g} to {high:g} dBm. Correct it, or run 'Import measurements' on the table it came from."
        )


def _say_order(
    run: Run, parameter: str, table: dict[str, np.ndarray], trajectory: tuple[Sequence[str], np.ndarray] | None
) -> None:
    """Log what is out of order and what is there twice."""
    group = trajectory[1] if trajectory is not None else table["device"]
    time_s = table["time_s"]
    back = int(((np.diff(time_s) < 0) & (np.diff(group) == 0)).sum())
    if back:
        run.info(
            f"{parameter}: records that came after a later one of their trajectory and were sorted by time: {back:,}."
        )
    order = np.lexsort((time_s, table["device"]))
    twice = (np.diff(table["device"][order]) == 0) & (np.diff(time_s[order]) == 0)
    if twice.any():
        run.info(f"{parameter}: records with the time of another one of their device, all kept: {int(twice.sum()):,}.")


def read_cell_sites(
    run: Run,
    source: QgsProcessingFeatureSource,
    id_fields: Sequence[str] = (),
    parameter: str = "BASE_STATIONS",
    cells: Sequence[str] = (),
) -> CellSites:
    """Read where cells are from a layer of base stations (BSs) or of cells, or from a table with longitudes and latitudes.

    Parameters
    ----------
    id_fields
        Fields that name a cell, joined with "-"; without them they are recognised, see `CELL_ID_FIELDS`.
    cells
        Ids that the measurements hold; when given, those fields are recognised that name most of them, and one at least must be there.

    Raises
    ------
    InputError
        No features, nothing that could hold positions, no id field or id, none of `cells`.
    """
    from ..models.trajectory.measurements import CellSites

    layer = source.sourceName()
    need_rows(parameter, source)
    by_lower = fields_by_lower(source)
    points = is_points(source)
    place = [recognised(source, options) for options in (_LON, _LAT)]
    if points:
        need_crs(parameter, source)
    elif None in place:
        raise InputError(
            f"{parameter}: layer '{layer}' has neither points nor fields lon and lat, so nothing says where its cells are."
        )
    choices = [tuple(id_fields)] if id_fields else []
    if not id_fields:
        choices = [
            tuple(by_lower[name] for name in names)
            for names in CELL_ID_FIELDS
            if all(name in by_lower for name in names)
        ]
    if not choices:
        raise InputError(
            f"{parameter}: nothing says which field of layer '{layer}' names a cell (its fields: {', '.join(by_lower.values())}). Give "
            "BS_ID_FIELD."
        )
    details = {name: recognised(source, options) for name, options in _DETAILS.items()}
    wanted = list(dict.fromkeys([field for choice in choices for field in choice]))
    extra = [field for field in (*details.values(), *([] if points else place)) if field and field not in wanted]
    columns = _whole(run, source, parameter, [*wanted, *extra], points)
    if points:
        lon, lat = to_lonlat(run, columns["x"], columns["y"], source.sourceCrs())
    else:
        lon, lat = (_numbers(columns[str(field)]) for field in place)
        if (np.abs(lon) > 180).any() or (np.abs(lat) > 90).any():
            raise InputError(
                f"{parameter}: {place[0]}, {place[1]} of table '{layer}' are no degrees. Make points of it with 'Create points layer from "
                "table' first."
            )
    ids, used = _best_ids(choices, columns, cells)
    known = set(cells)
    if known and not known.intersection(ids):
        theirs = next((name for name in ids if name), "none")
        raise InputError(
            f"{parameter}: layer '{layer}' has none of the {len(known):,} cells of the measurements: its ids ({'-'.join(used)}) are such "
            f"as '{theirs}', theirs such as '{min(known)}'. Choose another layer or BS_ID_FIELD."
        )
    run.info(f"{parameter}: cells of '{layer}' are named by {' and '.join(used)}.")
    return _sites(run, parameter, ids, lon, lat, {k: _numbers(columns[v]) for k, v in details.items() if v}, CellSites)


def _numbers(column: np.ndarray) -> np.ndarray:
    from ..models.trajectory.dialects import numbers

    return numbers(column)[0]


def _whole(
    run: Run, source: QgsProcessingFeatureSource, parameter: str, fields: list[str], points: bool
) -> dict[str, np.ndarray]:
    """All rows of some fields, and x and y."""
    parts = list(parts_of(run, source, parameter, fields, points, lambda _: run.progress(0.0)))
    if not parts:
        raise no_rows(parameter, source)
    columns = {name: np.ma.concatenate([part.columns[name] for part in parts]) for name in fields}
    if points:
        columns["x"], columns["y"] = (np.concatenate([getattr(part, name) for part in parts]) for name in "xy")
    return columns


def _best_ids(
    choices: list[tuple[str, ...]], columns: dict[str, np.ndarray], cells: Sequence[str]
) -> tuple[list[str], tuple[str, ...]]:
    """Ids of all rows by those fields that name most of `cells`, the first ones where equal."""
    from ..models.trajectory import dialects

    best: tuple[int, list[str], tuple[str, ...]] | None = None
    known = set(cells)
    for choice in choices:
        codes, texts = dialects.joined([dialects.names(columns[field], dialects.MISSING_IDS) for field in choice])
        hits = len(known.intersection(texts))
        if best is None or hits > best[0]:
            best = hits, [texts[code] if code >= 0 else "" for code in codes.tolist()], choice
        if not known:
            break
    return ([], ()) if best is None else best[1:]


def _sites(
    run: Run,
    parameter: str,
    ids: list[str],
    lon: np.ndarray,
    lat: np.ndarray,
    details: dict[str, np.ndarray],
    make: type[CellSites],
) -> CellSites:
    """One site per id: the first row of an id counts."""
    first: dict[str, int] = {}
    apart = nameless = placeless = 0
    for row, name in enumerate(ids):
        if not name:
            nameless += 1
        elif not (np.isfinite(lon[row]) and np.isfinite(lat[row])):
            placeless += 1
        elif name not in first:
            first[name] = row
        elif abs(lon[row] - lon[first[name]]) + abs(lat[row] - lat[first[name]]) > 1e-3:
            apart += 1
    for count, what in (
        (nameless, "that name no cell"),
        (placeless, "without a position"),
        (apart, "more than 100 m from an earlier row of their cell, which counts"),
    ):
        if count:
            run.warn(f"{parameter}: rows {what}: {count:,} of {len(ids):,}.")
    if nameless == len(ids):
        raise InputError(f"{parameter}: none of the {len(ids):,} rows names a cell.")
    if not first:
        run.warn(f"{parameter}: no row has a position, so where the cells stand is left to what the measurements tell.")
    rows = np.fromiter(first.values(), dtype=int)
    return make(tuple(first), lon[rows], lat[rows], **{name: values[rows] for name, values in details.items()})


def write_measurements(run: Run, name: str, records: Measurements, progress: Progress) -> None:
    """Write records in the normal form to the output `name`: points of the truth, NULL where it is unknown, styled and playable."""
    from ..models.trajectory import normal_form

    kind = QMetaType.Type
    widest = int(records.n_heard.max(initial=1))
    fields = fields_of(
        ("device", kind.QString),
        ("trajectory", kind.QString),
        ("time", kind.QDateTime),
        ("time_s", kind.Double),
        ("n_cells", kind.Int),
        *((column, kind.QString) for column in normal_form.counted("cell")),
        *((column, kind.Double) for column in normal_form.counted("rss_dbm")),
        *((column, kind.Double) for signal in records.signals for column in normal_form.counted(signal, widest)),
        ("truth_lon", kind.Double),
        ("truth_lat", kind.Double),
        ("source_row", kind.LongLong),
    )
    layer = run.outputs.table(
        name,
        fields,
        _features(records, fields, widest),
        QgsWkbTypes.Type.Point,
        QgsCoordinateReferenceSystem("EPSG:4326"),
        progress,
        len(records),
        coordinates=False,  # truth_lon and truth_lat are they
    )
    same = np.diff(records.trajectory) == 0
    steps = np.diff(records.time_s)[same]
    shown_s = max(1.0, 1.5 * float(np.median(steps[steps > 0]))) if (steps > 0).any() else 1.0
    qml = styles.points_qml("rss_dbm_1", records.rss_dbm[:, 0])
    run.style(name, layer, timed_qml(qml, "Point", "time", seconds=shown_s))


def _features(records: Measurements, fields: QgsFields, widest: int) -> Iterator[QgsFeature]:
    """The records as features, some thousand at a time."""
    cells = np.array([*records.cells, None], dtype=object)
    utc = Qt.TimeSpec.UTC
    devices, trajectories = (np.array(names, dtype=object) for names in (records.devices, records.trajectories))
    for start in range(0, len(records), PART_ROWS):
        rows = slice(start, start + PART_ROWS)
        time_s, lon, lat = records.time_s[rows], records.lon[rows], records.lat[rows]
        known = np.isfinite(lon) & np.isfinite(lat)
        columns = [
            devices[records.device[rows]].tolist(),
            trajectories[records.trajectory[rows]].tolist(),
            [QDateTime.fromMSecsSinceEpoch(ms, utc) for ms in np.round(time_s * 1000).astype(np.int64).tolist()],
            time_s.tolist(),
            (records.cell[rows] >= 0).sum(axis=1).tolist(),
            *(cells[records.cell[rows, slot]].tolist() for slot in range(records.cell.shape[1])),
            *(_or_null(records.rss_dbm[rows, slot]) for slot in range(records.cell.shape[1])),
            *(_or_null(values[rows, slot]) for values in records.signals.values() for slot in range(widest)),
            _or_null(np.where(known, lon, np.nan)),
            _or_null(np.where(known, lat, np.nan)),
            records.row[rows].tolist(),
        ]
        yield from features_of(fields, columns, lon, lat)


def _or_null(values: np.ndarray) -> list[float | None]:
    """Numbers for QGIS, None for NaN; single precision as the shortest decimal that gives it back."""
    if values.dtype == np.float32:
        values = values.astype(float).round(4)
    objects = values.astype(object)
    objects[np.isnan(values)] = None
    return objects.tolist()
