"""What the localisation algorithms share: judged records, their layers, figures and reports, and what a method needs installed."""

from __future__ import annotations

import importlib.util
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsFeature,
    QgsProcessingOutputNumber,
    QgsWkbTypes,
)
from qgis.PyQt.QtCore import QMetaType

from ..models.errors import DeviceError
from . import charts, styles
from .columns import features_of
from .outputs import fields_of
from .sites import NAMED_ROWS
from .temporal import date_time, timed_qml

if TYPE_CHECKING:
    from ..models.progress import Progress
    from ..models.trajectory.evaluate import Errors
    from ..models.trajectory.joins import Named
    from .algorithm import Run, TelcoLocAlgorithm

#: Rows turned into features at a time.
_ROWS_AT_ONCE = 16_384
#: The figures of an error distribution: output, field, label, what it is.
_FIGURES = (
    ("MEDIAN_ERROR", "median_m", "Median error [m]", "Median of the errors [m]"),
    ("MEAN_ERROR", "mean_m", "Mean error [m]", "Mean of the errors [m]"),
    ("P67_ERROR", "p67_m", "67 % error [m]", "Error that 67 % do not exceed [m]"),
    ("P80_ERROR", "p80_m", "80 % error [m]", "Error that 80 % do not exceed [m]"),
    ("P90_ERROR", "p90_m", "90 % error [m]", "Error that 90 % do not exceed [m]"),
    ("P95_ERROR", "p95_m", "95 % error [m]", "Error that 95 % do not exceed [m]"),
    ("INSIDE_50", "inside_50", "Share in the 50 % circles", "Share of the true positions within uncertainty_m, ideally 0.5"),
    ("INSIDE_90", "inside_90", "Share in the 90 % circles", "Share of the true positions within uncertainty_90_m, ideally 0.9"),
)  # fmt: skip


@dataclass(frozen=True)
class Judged:
    """Records with a predicted and a true position.

    Parameters
    ----------
    devices, trajectories, cells
        Of each record; the cell is the serving one.
    time_s
        Seconds since 1970-01-01 UTC, shape (n,).
    lon, lat, true_lon, true_lat
        Predicted and true positions [°], shape (n,).
    error_m
        Distances between them [m], shape (n,).
    radius_50_m, radius_90_m
        Claimed with the predictions [m], shape (n,), NaN where not.
    row
        Where the record came from, shape (n,), -1 where that is unknown.
    """

    devices: Named
    trajectories: Named
    cells: Named
    time_s: np.ndarray
    lon: np.ndarray
    lat: np.ndarray
    true_lon: np.ndarray
    true_lat: np.ndarray
    error_m: np.ndarray
    radius_50_m: np.ndarray
    radius_90_m: np.ndarray
    row: np.ndarray


def check_method(method: str) -> None:
    """Make sure that what a method computes with is installed, before anything is read.

    Raises
    ------
    DeviceError
        When torch is missing or cannot be loaded; the message says what to do.
    """
    from ..models.trajectory.methods import class_of, parts_of

    name = parts_of(method)[0]
    if not class_of(name).needs_torch:
        return
    if importlib.util.find_spec("torch") is None:
        raise DeviceError(
            f"Method '{name}' needs torch, which is not installed in this Python. Install torch into the Python of QGIS (a build for the "
            "CPU is enough) and restart QGIS, or choose a method that needs none, such as raf."
        )
    from ..models.geolocation.student import require_torch

    require_torch()


def device_of(run: Run, method: str) -> str:
    """The device that a method computes on: what DEVICE says where it is a neural one, else the CPU."""
    from ..models.trajectory.methods import class_of, parts_of

    name = parts_of(method)[0]
    if class_of(name).needs_torch or run.parameters.choice("DEVICE") == "cuda":
        device = run.device()  # cuda that cannot be used is refused with every method
        if class_of(name).needs_torch:
            return device
    run.info(f"Method '{name}' computes on the CPU.")
    return "cpu"


def add_figures(algorithm: TelcoLocAlgorithm, of: str, otherwise: str = "") -> None:
    """Declare the figures of an error distribution as outputs."""
    for name, _, label, text in _FIGURES:
        algorithm.add_result(
            QgsProcessingOutputNumber(name, algorithm.tr(label)), algorithm.tr(f"{text}, {of}.{otherwise}")
        )


def figures(errors: Errors | None) -> dict[str, float | None]:
    """The values of these outputs; None for what is unknown."""
    return {name: _known(getattr(errors, field)) if errors else None for name, field, _, _ in _FIGURES}


def _known(value: float, digits: int = 3) -> float | None:
    return round(value, digits) if math.isfinite(value) else None


def say_errors(run: Run, errors: Errors, what: str) -> None:
    """Log an error distribution in one line, and what the circles held in another."""
    run.info(
        f"Error of {what}: median {errors.median_m:.1f} m, mean {errors.mean_m:.1f} m, 67 % {errors.p67_m:.1f} m, 80 % "
        f"{errors.p80_m:.1f} m, 90 % {errors.p90_m:.1f} m, 95 % {errors.p95_m:.1f} m ({errors.count:,} records)."
    )
    if math.isfinite(errors.inside_50) and math.isfinite(errors.inside_90):
        run.info(
            f"The 50 % circles held {errors.inside_50:.0%} of the true positions, the 90 % circles {errors.inside_90:.0%}."
        )


def first_of(texts: Iterable[str], count: int) -> str:
    """The first few of `count` texts, and how many more there are."""
    named = list(itertools.islice(texts, NAMED_ROWS))
    more = count - len(named)
    return "; ".join(named) + (f"; and {more:,} more" if more else "")


def names_at(named: Named, rows: slice) -> list[str | None]:
    """Names of some rows, None for none."""
    texts, codes = named
    return [texts[code] if code >= 0 else None for code in codes[rows].tolist()]


def numbers_at(values: np.ndarray, rows: slice, digits: int = 2) -> list[float | None]:
    """Rounded values of some rows, None for NaN."""
    return [value if value == value else None for value in np.round(values[rows], digits).tolist()]


def write_judged(run: Run, name: str, judged: Judged, progress: Progress, method: str = "") -> None:
    """Write output `name`: a point at each predicted position, with its error."""
    kind = QMetaType.Type
    fields = fields_of(
        ("device", kind.QString),
        ("trajectory", kind.QString),
        ("time", kind.QDateTime),
        ("error_m", kind.Double),
        ("uncertainty_m", kind.Double),
        ("uncertainty_90_m", kind.Double),
        ("inside_50", kind.Bool),
        ("inside_90", kind.Bool),
        ("serving_cell", kind.QString),
        ("true_lon", kind.Double),
        ("true_lat", kind.Double),
        ("source_row", kind.LongLong),
        *([("method", kind.QString)] if method else []),
    )
    count = len(judged.error_m)

    def features() -> Iterator[QgsFeature]:
        for rows in slices(count):
            error = judged.error_m[rows]
            columns: list[Sequence[Any]] = [
                names_at(judged.devices, rows),
                names_at(judged.trajectories, rows),
                [date_time(value) for value in judged.time_s[rows].tolist()],
                numbers_at(judged.error_m, rows),
                numbers_at(judged.radius_50_m, rows),
                numbers_at(judged.radius_90_m, rows),
                *(
                    [bool(within) if radius == radius else None for within, radius in zip(error <= held[rows], held[rows])]
                    for held in (judged.radius_50_m, judged.radius_90_m)
                ),
                names_at(judged.cells, rows),
                numbers_at(judged.true_lon, rows, 7),
                numbers_at(judged.true_lat, rows, 7),
                [row if row >= 0 else None for row in judged.row[rows].tolist()],
            ]  # fmt: skip
            if method:
                columns.append([method] * len(error))
            yield from features_of(fields, columns, judged.lon[rows], judged.lat[rows])

    layer = run.outputs.table(name, fields, features(), QgsWkbTypes.Type.Point, wgs84(), progress, count)
    qml = styles.points_qml("error_m", judged.error_m, styles.metre_edges(judged.error_m))
    run.style(name, layer, timed_qml(qml, "Point", "time", seconds=seconds_shown(judged.time_s)))


def wgs84() -> QgsCoordinateReferenceSystem:
    """Longitude and latitude."""
    return QgsCoordinateReferenceSystem("EPSG:4326")


def slices(count: int) -> Iterator[slice]:
    """Rows a batch at a time."""
    for start in range(0, count, _ROWS_AT_ONCE):
        yield slice(start, min(start + _ROWS_AT_ONCE, count))


def seconds_shown(time_s: np.ndarray) -> float:
    """How long a point stays when its layer is played [s]: until about the next one comes."""
    gaps = np.diff(np.sort(time_s[np.isfinite(time_s)]))
    gaps = gaps[gaps > 0]
    return float(np.clip(np.median(gaps), 1.0, 600.0)) if len(gaps) else 1.0


def figures_table(rows: Sequence[tuple[str, Errors]], first: str, heading: str, caption: str) -> charts.TableSection:
    """One row per error distribution."""
    header = [first, "Records", "Median [m]", "Mean [m]", "67 % [m]", "80 % [m]", "90 % [m]", "95 % [m]"]
    return charts.TableSection(
        heading,
        header,
        [
            [name, f"{one.count:,}"]
            + [f"{value:.1f}" for value in (one.median_m, one.mean_m, one.p67_m, one.p80_m, one.p90_m, one.p95_m)]
            for name, one in rows
        ],
        caption,
    )


def circles_table(errors: Errors) -> charts.TableSection:
    """What the circles of uncertainty claim and what they hold."""
    held = (("50 %", errors.inside_50), ("90 %", errors.inside_90))
    return charts.TableSection(
        "Uncertainty",
        ["Circle", "Holds of the true positions"],
        [[claim, f"{share:.1%}"] for claim, share in held if math.isfinite(share)],
        "How many of the true positions lie within the circles around the predicted ones.",
    )


def cdf_section(error_m: np.ndarray, name: str) -> charts.ChartSection:
    """The cumulative curve of errors; the longest hundredth is drawn at the right edge."""
    longest = float(np.quantile(error_m, 0.99))
    return charts.ChartSection(
        "Cumulative share of records",
        charts.cdf_chart({name: np.minimum(error_m, longest)}, "Error [m]", (0.0, None)),
        f"Share of the records with at most this error. The 1 % over {longest:,.0f} m are drawn there.",
    )
