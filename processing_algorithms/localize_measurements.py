"""`telcoloc:localizemeasurements`: measurement reports become points with an uncertainty, and trajectories that play over the map."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qgis.core import (
    QgsFeature,
    QgsProcessing,
    QgsProcessingOutputNumber,
    QgsProcessingOutputString,
    QgsProcessingParameterFeatureSink,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterFile,
    QgsWkbTypes,
)
from qgis.PyQt.QtCore import QMetaType

from ..telcoloc_qgis import styles
from ..telcoloc_qgis.algorithm import Run, TelcoLocAlgorithm
from ..telcoloc_qgis.columns import features_of
from ..telcoloc_qgis.localization import (
    check_method,
    device_of,
    first_of,
    names_at,
    numbers_at,
    seconds_shown,
    slices,
    wgs84,
)
from ..telcoloc_qgis.measurements import read_measurements
from ..telcoloc_qgis.outputs import fields_of
from ..telcoloc_qgis.sites import counted
from ..telcoloc_qgis.temporal import date_time, timed_qml
from ..telcoloc_qgis.tracks import write_trajectories

if TYPE_CHECKING:
    from ..models.progress import Progress
    from ..models.trajectory.measurements import Measurements
    from ..models.trajectory.training import Located, TrainedLocalizer


class LocalizeMeasurements(TelcoLocAlgorithm):
    """See the module's docstring."""

    NAME = "localizemeasurements"
    TITLE = "Localize measurements"
    GROUP = "Trajectories"
    SUMMARY = "Where devices were, by their measurement reports: points with an uncertainty, and trajectories."
    DESCRIPTION = (
        "Gives each measurement report (MR) a position and two radii: the circles that hold the true position in about 50 % and 90 % of "
        "all cases, as calibrated in training. Both layers play in QGIS's Temporal Controller as they open. The circles of 50 % are drawn "
        "around selected points, and around all that are there while it plays.\n\n"
        "The model must come from the same area and network, from 'Train localizer'; with methods _m it also holds the streets. True "
        "positions in the table are not looked at. A record that heard no cell which the model knows lies between its neighbours in time, "
        "less sure the farther they are; where no record of the trajectory heard one, it has no position, and the log counts these.\n\n"
        "A trajectory of one record is a point, but no line."
    )
    EXAMPLE = (
        "qgis_process run telcoloc:localizemeasurements --INPUT=measurements.gpkg --MODEL=localizer.safetensors --POINTS=points.gpkg "
        "--TRAJECTORIES=trajectories.gpkg"
    )
    TAGS = ("telecom", "measurement reports", "mr", "localisation", "localization", "positioning", "fingerprinting", "deeploc",
            "trajectory", "temporal", "animation", "cuda")  # fmt: skip
    ICON = "localize.svg"

    def define(self) -> None:
        kinds = QgsProcessing.SourceType
        self.add(
            QgsProcessingParameterFeatureSource("INPUT", self.tr("Measurements"), [kinds.TypeVector]),
            self.tr("Measurement reports in the normal form, as 'Import measurements' writes it."),
        )
        self.add(
            QgsProcessingParameterFile("MODEL", self.tr("Model"), extension="safetensors"),
            self.tr("Model file of 'Train localizer'."),
        )
        self.add_device()
        self.add(
            QgsProcessingParameterFeatureSink("POINTS", self.tr("Points"), kinds.TypeVectorPoint),
            self.tr(
                "A point per record in EPSG:4326: device, trajectory, time (UTC), uncertainty_m and uncertainty_90_m (radii of the circles "
                "that hold 50 % and 90 %), method, serving_cell, cells_heard, cells_known (to the model), source_row."
            ),
        )
        self.add(
            QgsProcessingParameterFeatureSink(
                "TRAJECTORIES", self.tr("Trajectories"), kinds.TypeVectorLine, optional=True, createByDefault=True
            ),
            self.tr(
                "A LineStringM per trajectory in EPSG:4326, M is the time in seconds since 1970 UTC: device, trajectory, begin, end, "
                "points, length_m, median_uncertainty_m."
            ),
        )
        for name, label, text in (
            ("POINT_COUNT", "Points", "Number of records localised."),
            ("TRAJECTORY_COUNT", "Trajectories", "Number of trajectories with a localised record."),
            ("NOT_LOCALIZED", "Not localised", "Number of records without a position."),
            ("MRS_PER_SECOND", "Records per second", "Records localised per second, without reading and writing."),
        ):
            self.add_result(QgsProcessingOutputNumber(name, self.tr(label)), self.tr(text))
        for name, label, text in (
            ("METHOD_USED", "Method used", "Method of the model."),
            ("DEVICE_USED", "Device used", "cpu or cuda."),
        ):
            self.add_result(QgsProcessingOutputString(name, self.tr(label)), self.tr(text))

    def work(self, run: Run) -> dict[str, Any]:
        from ..models.trajectory.model_file import load_localizer

        parameters = run.parameters
        model = load_localizer(Path(str(parameters.file("MODEL"))))
        check_method(model.method)
        _say_model(run, model)
        device = device_of(run, model.method)
        reading = run.progress.phase(self.tr("Reading the measurements"), 0.0, 0.15)
        data = read_measurements(run, parameters.source("INPUT"), progress=reading)
        _say_cells(run, data, model)
        devices = list(dict.fromkeys(data.device[data.starts[:-1]].tolist()))
        order = {code: place for place, code in enumerate(devices, 1)}

        def begun(first: int, last: int) -> None:
            one, other = (int(data.device[data.starts[trajectory]]) for trajectory in (first, last))
            name = data.trajectories[int(data.trajectory[data.starts[first]])]
            place = f"Device {order[one]}" if one == other else f"Devices {order[one]} to {order[other]}"
            which = f"trajectory {name}" if first == last else f"{last - first + 1:,} trajectories from {name} on"
            run.feedback.setProgressText(f"{place} of {len(devices):,}: {which}")

        began = time.monotonic()
        localizing = run.progress.phase(self.tr("Localising"), 0.15, 0.6)
        located = model.localize(data, localizing, device, run.threads, begun)
        seconds = time.monotonic() - began
        fixed = np.isfinite(located.lon) & np.isfinite(located.lat)
        _say_not_localized(run, data, fixed)
        _write_points(run, data, located, fixed, model.method, run.progress.phase(self.tr("Writing points"), 0.6, 0.95))
        known = data.take(fixed)
        if parameters.wants("TRAJECTORIES"):
            writing = run.progress.phase(self.tr("Writing trajectories"), 0.95, 1.0)
            _write_lines(run, known, located.lon[fixed], located.lat[fixed], located.radius_50_m[fixed], writing)
        run.info(
            f"Localised: {counted(len(known), 'record')} in {counted(len(known.starts) - 1, 'trajectory', 'trajectories')}, "
            f"{len(data) / max(seconds, 1e-9):,.0f} records a second; median uncertainty "
            f"{np.median(located.radius_50_m[fixed]):.0f} m (50 % circle)."
        )
        return {
            "POINT_COUNT": len(known),
            "TRAJECTORY_COUNT": len(known.starts) - 1,
            "NOT_LOCALIZED": int((~fixed).sum()),
            "MRS_PER_SECOND": round(len(data) / max(seconds, 1e-9), 1),
            "METHOD_USED": model.method,
            "DEVICE_USED": device,
        }


def _say_model(run: Run, model: TrainedLocalizer) -> None:
    errors = model.card.get("errors") or {}
    judged = (
        f"held out by {model.card.get('split')} its median error was {errors['median_m']:.0f} m, its 90 % error {errors['p90_m']:.0f} m"
        if errors
        else "it was not judged"
    )
    run.info(
        f"The model is of method {model.method}, learned from {model.card.get('records', 0):,} records and "
        f"{len(model.localizer.cells_):,} cells; {judged}."
    )


def _say_cells(run: Run, data: Measurements, model: TrainedLocalizer) -> None:
    """Warn when most of the cells are strange to the model; when all are, the engine refuses."""
    known = set(model.localizer.cells_).intersection(data.cells)
    text = f"The model knows {len(known):,} of the {len(data.cells):,} cells of the table"
    if known and 2 * len(known) < len(data.cells):
        run.warn(
            f"{text}, less than half, so positions rest on few cells; train a model of this area, with these cells in it."
        )
    else:
        run.info(f"{text}.")


def _say_not_localized(run: Run, data: Measurements, fixed: np.ndarray) -> None:
    lost = np.flatnonzero(~fixed)
    if len(lost):
        rows = (f"source_row {data.row[row]} of {data.devices[data.device[row]]}" for row in lost.tolist())
        run.warn(
            f"{len(lost):,} of {len(data):,} records have no position, because no record of their trajectory heard a cell that the model "
            f"knows: {first_of(rows, len(lost))}."
        )


def _write_points(
    run: Run, data: Measurements, located: Located, fixed: np.ndarray, method: str, progress: Progress
) -> None:
    kind = QMetaType.Type
    fields = fields_of(
        ("device", kind.QString),
        ("trajectory", kind.QString),
        ("time", kind.QDateTime),
        ("uncertainty_m", kind.Double),
        ("uncertainty_90_m", kind.Double),
        ("method", kind.QString),
        ("serving_cell", kind.QString),
        ("cells_heard", kind.Int),
        ("cells_known", kind.Int),
        ("source_row", kind.LongLong),
    )
    at = np.flatnonzero(fixed)
    heard = data.n_heard

    def features() -> Iterator[QgsFeature]:
        for part in slices(len(at)):
            rows = at[part]
            every = slice(0, len(rows))
            columns = [
                names_at((data.devices, data.device[rows]), every),
                names_at((data.trajectories, data.trajectory[rows]), every),
                [date_time(value) for value in data.time_s[rows].tolist()],
                numbers_at(located.radius_50_m[rows], every),
                numbers_at(located.radius_90_m[rows], every),
                [method] * len(rows),
                names_at((data.cells, data.cell[rows, 0]), every),
                heard[rows].tolist(),
                located.n_known[rows].tolist(),
                data.row[rows].tolist(),
            ]
            yield from features_of(fields, columns, located.lon[rows], located.lat[rows])

    layer = run.outputs.table("POINTS", fields, features(), QgsWkbTypes.Type.Point, wgs84(), progress, len(at))
    qml = styles.uncertain_points_qml("uncertainty_m", located.radius_50_m[fixed])
    run.style("POINTS", layer, timed_qml(qml, "Point", "time", seconds=_sampling_s(data)))


def _sampling_s(data: Measurements) -> float:
    """Usual time between two records of a trajectory [s], so that a point stays until the next one."""
    same = np.diff(data.trajectory) == 0
    gaps = np.diff(data.time_s)[same]
    return seconds_shown(np.concatenate([[0.0], np.cumsum(gaps)]))


def _write_lines(
    run: Run, data: Measurements, lon: np.ndarray, lat: np.ndarray, radius_m: np.ndarray, progress: Progress
) -> None:
    from ..models.trajectory.evaluate import distance_m

    starts = data.starts
    step_m = np.zeros(len(data))
    step_m[1:] = distance_m(lon[1:], lat[1:], lon[:-1], lat[:-1])
    step_m[starts[:-1]] = 0.0
    length_m = np.add.reduceat(step_m, starts[:-1]) if len(data) else np.empty(0)
    medians = [
        round(float(np.median(radius_m[begin:end])), 2) for begin, end in zip(starts.tolist(), starts[1:].tolist())
    ]
    first = starts[:-1]
    write_trajectories(
        run,
        "TRAJECTORIES",
        wgs84(),
        starts,
        [data.devices[code] for code in data.device[first].tolist()],
        [data.trajectories[code] for code in data.trajectory[first].tolist()],
        lon,
        lat,
        data.time_s,
        progress,
        {"median_uncertainty_m": (QMetaType.Type.Double, medians)},
        length_m.tolist(),
    )
