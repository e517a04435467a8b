"""`telcoloc:evaluatelocalization`: how far predicted positions are from the true ones, on the map, per device and per serving cell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

import numpy as np
from qgis.core import (
    QgsFeature,
    QgsGeometry,
    QgsPointXY,
    QgsProcessing,
    QgsProcessingFeatureSource,
    QgsProcessingOutputNumber,
    QgsProcessingParameterFeatureSink,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterNumber,
    QgsWkbTypes,
)
from qgis.PyQt.QtCore import QMetaType

from ..models.errors import InputError
from ..telcoloc_qgis import charts
from ..telcoloc_qgis.algorithm import Run, TelcoLocAlgorithm
from ..telcoloc_qgis.columns import is_points, need_crs, need_rows, parts_of, recognised, to_lonlat
from ..telcoloc_qgis.localization import (
    Judged,
    add_figures,
    cdf_section,
    circles_table,
    figures,
    figures_table,
    first_of,
    names_at,
    say_errors,
    slices,
    wgs84,
    write_judged,
)
from ..telcoloc_qgis.outputs import fields_of
from ..telcoloc_qgis.sites import counted
from ..telcoloc_qgis.temporal import lines_qml
from ..telcoloc_qgis.tracks import RECOGNISED

if TYPE_CHECKING:
    from ..models.progress import Progress
    from ..models.trajectory.evaluate import Errors
    from ..models.trajectory.joins import Named

#: Fields by what they hold, in lower case; those of a device, trajectory and time are those of all paths.
_FIELDS = {
    "device": RECOGNISED["DEVICE_FIELD"],
    "trajectory": RECOGNISED["TRAJECTORY_FIELD"],
    "time": ("time_s", *(name for name in RECOGNISED["TIME_FIELD"] if name != "time_s")),
    "cell": ("serving_cell", "cell_1", "cell", "cell_id"),
    "row": ("source_row",),
    "radius_50_m": ("uncertainty_m",),
    "radius_90_m": ("uncertainty_90_m",),
}
_TRUE = ("truth_lon", "truth_lat")
#: Rows of a page's table.
_MOST_ROWS = 25


@dataclass(frozen=True)
class Places:
    """The usable rows of a layer, shape (n,) each; names with their codes, -1 for none.

    Parameters
    ----------
    name
        Of the layer.
    has
        Which of `_FIELDS` it has.
    """

    name: str
    has: frozenset[str]
    id: np.ndarray
    device: Named
    trajectory: Named
    cell: Named
    time_s: np.ndarray
    lon: np.ndarray
    lat: np.ndarray
    row: np.ndarray
    radius_50_m: np.ndarray
    radius_90_m: np.ndarray

    def __len__(self) -> int:
        return len(self.time_s)


class EvaluateLocalization(TelcoLocAlgorithm):
    """See the module's docstring."""

    NAME = "evaluatelocalization"
    TITLE = "Evaluate localisation"
    GROUP = "Trajectories"
    SUMMARY = "How far predicted positions are from the true ones: figures, a curve, the errors on the map, and by device and cell."
    DESCRIPTION = (
        "Compares predicted points with true positions of the same devices at the same times: POINTS of 'Localize measurements', or what a "
        "filter or map matching made of them, or the points of any other positioning; with measurements in the normal form, or any points "
        "with a time such as the fixes of a GNSS receiver. Both layers may be in any CRS.\n\n"
        "A predicted point is compared with the true position of its device that is nearest in time, at most TOLERANCE away. Where both "
        "layers have source_row, the same row of the same device goes first. Trajectories also have to agree when the true layer has all "
        "their names; devices, when both layers name them. Fields are recognised by their names: device, trajectory, time, serving_cell, "
        "source_row, uncertainty_m, uncertainty_90_m.\n\n"
        "What finds no partner is counted and listed, and is not in the figures."
    )
    EXAMPLE = (
        "qgis_process run telcoloc:evaluatelocalization --PREDICTED=points.gpkg --TRUTH=measurements.gpkg --ERRORS=errors.gpkg "
        "--BY_DEVICE=by_device.gpkg --REPORT=errors.html"
    )
    TAGS = ("telecom", "localisation", "localization", "error", "accuracy", "truth", "ground truth", "gnss", "cdf", "metric",
            "trajectory", "benchmark", "uncertainty")  # fmt: skip
    ICON = "evaluate.svg"

    def define(self) -> None:
        number, kinds = QgsProcessingParameterNumber, QgsProcessing.SourceType
        self.add(
            QgsProcessingParameterFeatureSource("PREDICTED", self.tr("Predicted points"), [kinds.TypeVectorPoint]),
            self.tr(
                "Point layer with a time, and a device where there are several, e.g. POINTS of 'Localize measurements'."
            ),
        )
        self.add(
            QgsProcessingParameterFeatureSource("TRUTH", self.tr("True positions"), [kinds.TypeVector]),
            self.tr(
                "Measurements in the normal form with their true positions, or any point layer with a time, and a device where there are "
                "several."
            ),
        )
        self.add(
            number("TOLERANCE", self.tr("Tolerance [s]"), number.Type.Double, 1.0, False, 0.0, 1e9),
            self.tr("Most seconds between a predicted point and its true position."),
        )
        self.add(
            QgsProcessingParameterFeatureSink(
                "ERRORS", self.tr("Errors"), kinds.TypeVectorPoint, optional=True, createByDefault=True
            ),
            self.tr(
                "The predicted points in EPSG:4326: device, trajectory, time, error_m, uncertainty_m, uncertainty_90_m, inside_50, "
                "inside_90, serving_cell, true_lon, true_lat, source_row."
            ),
        )
        for name, label, kind, text in (
            ("LINES", "Lines to the truth", kinds.TypeVectorLine, "Lines from predicted to true positions: device, error_m."),
            ("BY_DEVICE", "Errors by device", kinds.TypeVector, "Table with the figures of each device."),
            ("BY_CELL", "Errors by serving cell", kinds.TypeVector, "Table with the figures of each serving cell."),
        ):  # fmt: skip
            self.add(
                QgsProcessingParameterFeatureSink(name, self.tr(label), kind, optional=True, createByDefault=False),
                self.tr(text),
            )
        self.add(
            QgsProcessingParameterFileDestination(
                "REPORT", self.tr("Report"), self.tr("HTML files (*.html)"), optional=True, createByDefault=True
            ),
            self.tr("Page with the cumulative curve of the errors and their figures, also by device and serving cell."),
        )
        self.add_result(
            QgsProcessingOutputNumber("COUNT", self.tr("Points compared")), self.tr("Number of points compared.")
        )
        add_figures(self, "over the points compared")
        self.add_result(
            QgsProcessingOutputNumber("UNMATCHED", self.tr("Not compared")),
            self.tr("Number of predicted points without a true position of their device and time."),
        )

    def work(self, run: Run) -> dict[str, Any]:
        from ..models.trajectory.evaluate import distance_m, errors_of

        parameters = run.parameters
        predicted = _read(run, "PREDICTED", run.progress.phase(self.tr("Reading the predicted points"), 0.0, 0.2))
        true = _read(run, "TRUTH", run.progress.phase(self.tr("Reading the true positions"), 0.2, 0.4))
        tolerance_s = parameters.number("TOLERANCE") or 0.0
        partner = _partners(run, predicted, true, tolerance_s)
        run.progress(0.5)
        matched = np.flatnonzero(partner >= 0)
        _say_unmatched(run, predicted, true, partner, tolerance_s)
        other = partner[matched]
        cells = predicted.cell if "cell" in predicted.has else (true.cell[0], true.cell[1][partner])
        judged = Judged(
            (predicted.device[0], predicted.device[1][matched]),
            (predicted.trajectory[0], predicted.trajectory[1][matched]),
            (cells[0], cells[1][matched]),
            predicted.time_s[matched],
            predicted.lon[matched],
            predicted.lat[matched],
            true.lon[other],
            true.lat[other],
            distance_m(predicted.lon[matched], predicted.lat[matched], true.lon[other], true.lat[other]),
            predicted.radius_50_m[matched],
            predicted.radius_90_m[matched],
            predicted.row[matched],
        )
        errors = errors_of(judged.error_m, judged.radius_50_m, judged.radius_90_m)
        say_errors(run, errors, "the predicted points")
        by_device = _grouped(judged, judged.devices, run.progress.phase(self.tr("Errors by device"), 0.5, 0.55))
        by_cell = _grouped(judged, judged.cells, run.progress.phase(self.tr("Errors by cell"), 0.55, 0.6))
        if parameters.wants("REPORT"):
            page = _page(predicted, true, errors, judged, by_device, by_cell)
            run.outputs.file("REPORT", ".html").write_text(page, encoding="utf-8")
        if parameters.wants("ERRORS"):
            write_judged(run, "ERRORS", judged, run.progress.phase(self.tr("Writing the errors"), 0.6, 0.85))
        if parameters.wants("LINES"):
            _write_lines(run, judged, run.progress.phase(self.tr("Writing the lines"), 0.85, 0.98))
        for name, first, rows in (("BY_DEVICE", "device", by_device), ("BY_CELL", "serving_cell", by_cell)):
            if parameters.wants(name):
                _write_table(run, name, first, rows)
        return {"COUNT": errors.count, **figures(errors), "UNMATCHED": len(predicted) - len(matched)}


def _read(run: Run, parameter: str, progress: Progress) -> Places:
    """Read the positions, times and names of a layer; what has no position or time is counted in the log."""
    from ..models.trajectory import dialects

    source = run.parameters.source(parameter)
    layer = source.sourceName()
    need_rows(parameter, source)
    fields, places = _fields_of(source, parameter)
    points = not places
    names = {name: dialects.Names() for name in ("device", "trajectory", "cell")}
    columns: dict[str, list[np.ndarray]] = {}
    total = placeless = timeless = 0
    for part in parts_of(run, source, parameter, [*dict.fromkeys(fields.values()), *places], points, progress):
        total += len(part)
        n = len(part)
        if points:
            lon, lat = to_lonlat(run, part.x, part.y, source.sourceCrs())
        else:
            lon, lat = (dialects.numbers(part.columns[name])[0] for name in places)
        read = {"id": part.rows, "lon": lon, "lat": lat, "time_s": dialects.times(part.columns[fields["time"]])[0]}
        for name, known in names.items():
            found = dialects.names(part.columns[fields[name]]) if name in fields else (np.full(n, -1), [])
            read[name] = known.add(*found)
        for name in ("row", "radius_50_m", "radius_90_m"):
            read[name] = dialects.numbers(part.columns[fields[name]])[0] if name in fields else np.full(n, np.nan)
        somewhere, sometime = np.isfinite(lon) & np.isfinite(lat), np.isfinite(read["time_s"])
        placeless, timeless = placeless + int((~somewhere).sum()), timeless + int((somewhere & ~sometime).sum())
        for name, values in read.items():
            columns.setdefault(name, []).append(values[somewhere & sometime])
    table = {name: np.concatenate(columns.pop(name)) for name in list(columns)}
    said = ", ".join(f"{n:,} without a {what}" for n, what in ((placeless, "position"), (timeless, "time")) if n)
    if not len(table["time_s"]):
        kind = "predicted" if parameter == "PREDICTED" else "true"
        raise InputError(
            f"{parameter}: none of the {total:,} rows of layer '{layer}' has a {kind} position and a time ({said})."
        )
    if said:
        run.info(f"{parameter}: {placeless + timeless:,} of {total:,} rows are left out: {said}.")
    table["row"] = np.where(np.isfinite(table["row"]), np.nan_to_num(table["row"]), -1).astype(np.int64)
    run.info(
        f"{parameter}: of '{layer}' these fields are used: {', '.join(dict.fromkeys([*fields.values(), *places]))}."
    )
    named = {name: (known.texts, table.pop(name)) for name, known in names.items()}
    return Places(layer, frozenset(fields), **named, **table)


def _fields_of(source: QgsProcessingFeatureSource, parameter: str) -> tuple[dict[str, str], tuple[str, ...]]:
    """The field of the layer for each of `_FIELDS`, and the two fields of the position where it has no points."""
    layer = source.sourceName()
    found = {what: recognised(source, names) for what, names in _FIELDS.items()}
    fields = {what: name for what, name in found.items() if name}
    places: tuple[str, ...] = ()
    if is_points(source):
        need_crs(parameter, source)
    else:
        places = tuple(name for name in (recognised(source, [one]) for one in _TRUE) if name)
        if parameter == "PREDICTED" or len(places) < 2:
            raise InputError(
                f"{parameter}: layer '{layer}' has neither points nor truth_lon and truth_lat, so it says no position."
            )
    if "time" not in fields:
        raise InputError(
            f"{parameter}: layer '{layer}' has no field that is known to be a time ({', '.join(_FIELDS['time'][:5])}, …), but "
            f"{', '.join(source.fields().names()) or 'none at all'}; rename the one that is."
        )
    return fields, places


def _partners(run: Run, predicted: Places, true: Places, tolerance_s: float) -> np.ndarray:
    """Row of `true` that each predicted point is compared with, shape (n,), -1 for none."""
    from ..models.trajectory.joins import common_codes, joint_keys, nearest_in_time, same_row

    key, true_key = np.zeros(len(predicted), dtype=np.int64), np.zeros(len(true), dtype=np.int64)
    if {"device"} <= predicted.has & true.has:
        key, true_key = common_codes(predicted.device, true.device)
    elif "device" in predicted.has | true.has:
        which = predicted.name if "device" not in predicted.has else true.name
        run.warn(f"Layer '{which}' has no field that names the device, so points are compared by time alone.")
    if {"trajectory"} <= predicted.has & true.has:
        named, true_named = (set(_used(one.trajectory)) for one in (predicted, true))
        if named <= true_named:
            mine, theirs = common_codes(predicted.trajectory, true.trajectory)
            key, true_key = joint_keys(key, mine, true_key, theirs)
        else:
            run.info("The trajectories of both layers have other names, so only devices and times have to agree.")
    partner = np.full(len(predicted), -1, dtype=np.int64)
    if {"row"} <= predicted.has & true.has:
        partner = same_row(key, predicted.row, predicted.time_s, true_key, true.row, true.time_s, tolerance_s)
        run.info(f"{counted(int((partner >= 0).sum()), 'point was', 'points were')} found by source_row.")
    rest = np.flatnonzero(partner < 0)
    partner[rest] = nearest_in_time(key[rest], predicted.time_s[rest], true_key, true.time_s, tolerance_s)
    return partner


def _used(named: Named) -> list[str]:
    texts, codes = named
    return [texts[code] for code in np.unique(codes).tolist() if code >= 0]


def _say_unmatched(run: Run, predicted: Places, true: Places, partner: np.ndarray, tolerance_s: float) -> None:
    """List what has no partner; without any, say why that may be.

    Raises
    ------
    InputError
        When nothing matches.
    """
    lost = np.flatnonzero(partner < 0)
    if len(lost) == len(partner):
        begin, end, true_begin, true_end = (
            _moment(value) for times in (predicted.time_s, true.time_s) for value in (times.min(), times.max())
        )
        hint = ""
        if {"device"} <= predicted.has & true.has and not set(_used(predicted.device)) & set(_used(true.device)):
            hint = f" Their devices have different names, such as '{_first(predicted)}' and '{_first(true)}'."
        raise InputError(
            f"None of the {len(partner):,} predicted points has a true position of its device within {tolerance_s:g} s: '{predicted.name}' "
            f"is from {begin} to {end}, '{true.name}' from {true_begin} to {true_end} (UTC).{hint}"
        )
    if len(lost):
        device, codes = predicted.device
        names = ((row, f" of {device[codes[row]]}" if codes[row] >= 0 else "") for row in lost.tolist())
        rows = (f"feature {predicted.id[row]}{name} at {_moment(predicted.time_s[row])}" for row, name in names)
        run.warn(
            f"{len(lost):,} of {len(partner):,} predicted points have no true position within {tolerance_s:g} s and are not compared: "
            f"{first_of(rows, len(lost))}."
        )


def _first(places: Places) -> str:
    return next(iter(_used(places.device)), "")


def _moment(time_s: float) -> str:
    moment = datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(seconds=float(time_s))
    return f"{moment:%Y-%m-%d %H:%M:%S}"


def _grouped(judged: Judged, named: Named, progress: Progress) -> list[tuple[str, Errors]]:
    """The figures of each name, in the order of names; records without one are left out."""
    from ..models.trajectory.evaluate import errors_of

    texts, codes = named
    order = np.argsort(codes, kind="stable")
    order = order[codes[order] >= 0]
    first = np.flatnonzero(np.diff(codes[order], prepend=-1))
    groups: list[tuple[str, Errors]] = []
    for done, rows in enumerate(np.split(order, first[1:]) if len(order) else []):
        if done % 64 == 0:
            progress(done / len(first))
        found = errors_of(judged.error_m[rows], judged.radius_50_m[rows], judged.radius_90_m[rows])
        groups.append((texts[codes[rows[0]]], found))
    return sorted(groups, key=lambda one: one[0])


def _write_table(run: Run, name: str, first: str, rows: Sequence[tuple[str, Errors]]) -> None:
    kind = QMetaType.Type
    columns = ("median_m", "mean_m", "p67_m", "p80_m", "p90_m", "p95_m", "inside_50", "inside_90")
    fields = fields_of((first, kind.QString), ("count", kind.Int), *((column, kind.Double) for column in columns))

    def features() -> Iterator[QgsFeature]:
        for group, errors in rows:
            values = [getattr(errors, column) for column in columns]
            feature = QgsFeature(fields)
            feature.setAttributes(
                [group, errors.count, *(round(value, 3) if value == value else None for value in values)]
            )
            yield feature

    run.outputs.table(name, fields, features(), count=len(rows))


def _write_lines(run: Run, judged: Judged, progress: Progress) -> None:
    """A line from each predicted to its true position."""
    kind = QMetaType.Type
    fields = fields_of(("device", kind.QString), ("error_m", kind.Double))
    count = len(judged.error_m)

    def features() -> Iterator[QgsFeature]:
        for rows in slices(count):
            places = (values[rows].tolist() for values in (judged.lon, judged.lat, judged.true_lon, judged.true_lat))
            values = zip(names_at(judged.devices, rows), np.round(judged.error_m[rows], 2).tolist(), *places)
            for device, error_m, lon, lat, true_lon, true_lat in values:
                feature = QgsFeature(fields)
                feature.setAttributes([device, error_m])
                feature.setGeometry(QgsGeometry.fromPolylineXY([QgsPointXY(lon, lat), QgsPointXY(true_lon, true_lat)]))
                yield feature

    layer = run.outputs.table("LINES", fields, features(), QgsWkbTypes.Type.LineString, wgs84(), progress, count)
    run.style("LINES", layer, lines_qml("#5f666d", 0.2))


def _page(
    predicted: Places,
    true: Places,
    errors: Errors,
    judged: Judged,
    by_device: Sequence[tuple[str, Errors]],
    by_cell: Sequence[tuple[str, Errors]],
) -> str:
    sections: list[charts.ChartSection | charts.TableSection] = [
        figures_table([(predicted.name, errors)], "Points", "Errors", f"Distance from “{true.name}”."),
        cdf_section(judged.error_m, predicted.name),
    ]
    if np.isfinite(judged.radius_50_m).any() or np.isfinite(judged.radius_90_m).any():
        sections.append(circles_table(errors))
    for first, rows in (("Device", by_device), ("Serving cell", by_cell)):
        largest = sorted(rows, key=lambda one: (-one[1].count, one[0]))[:_MOST_ROWS]
        if largest:
            rest = f"The {len(largest)} of {len(rows):,} with the most records." if len(rows) > len(largest) else ""
            sections.append(figures_table(largest, first, f"By {first.lower()}", rest))
    return charts.html_report("Evaluation of positions", f"{predicted.name} against {true.name}", sections, "TelcoLoc")
