"""`telcoloc:matchtostreets`: points of devices are put on the streets they took."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from qgis.core import (
    QgsCategorizedSymbolRenderer,
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsFeature,
    QgsMarkerSymbol,
    QgsProcessing,
    QgsProcessingFeatureSource,
    QgsProcessingOutputNumber,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterFeatureSink,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
    QgsProcessingParameterNumber,
    QgsRectangle,
    QgsRendererCategory,
    QgsVectorLayer,
    QgsWkbTypes,
)
from qgis.PyQt.QtCore import QMetaType
from qgis.PyQt.QtGui import QColor

from ..models.errors import InputError
from ..telcoloc_qgis.algorithm import Run, TelcoLocAlgorithm
from ..telcoloc_qgis.outputs import fields_of
from ..telcoloc_qgis.sites import counted
from ..telcoloc_qgis.streets import StreetLayer, read_streets
from ..telcoloc_qgis.temporal import date_time, exported, lines_qml, timed_qml
from ..telcoloc_qgis.tracks import (
    Tracks,
    add_track_parameters,
    field_of,
    fields_with,
    line_m,
    moved_features,
    read_tracks,
    transformed,
)

if TYPE_CHECKING:
    from ..models.trajectory.map_matching import Matched

#: Of a Gaussian with σ per axis, the circle that holds one half has this radius in σ: sqrt(2 ln 2).
HALF_RADIUS_IN_SIGMAS = math.sqrt(2 * math.log(2))
#: A point of a layer of moments is shown for so long [s].
SHOWN_S = 10.0


class MatchToStreets(TelcoLocAlgorithm):
    """See the module's docstring."""

    NAME = "matchtostreets"
    TITLE = "Match to streets"
    GROUP = "Trajectories"
    SUMMARY = "Points of devices become paths along streets."
    DESCRIPTION = (
        "Finds the likeliest way of each device along a layer of streets, with the hidden Markov model of Newson and Krumm (2009): near "
        "its points, and with routes as long as the steps between them. One-way streets are kept.\n\n"
        "The path is split where no route leads on or nothing was heard for longer than MAX_GAP, and goes on behind. Points without a "
        "street within RADIUS stay where they are. Costs are bounded: dense junctions, large networks and wide radii take longer, but "
        "nothing freezes.\n\n"
        "Streets are joined where they share a vertex, as OpenStreetMap has it; bridges, which only cross, are not. Lines that cross "
        "without a vertex are joined by 'Split with lines' and 'Snap geometries to layer' of QGIS.\n\n"
        "Also reads GNSS fixes: SIGMA 5, and RADIUS 30."
    )
    EXAMPLE = (
        "qgis_process run telcoloc:matchtostreets --INPUT=walks.gpkg --STREETS=streets.gpkg --SIGMA=10 --POINTS=matched.gpkg "
        "--TRAJECTORIES=paths.gpkg"
    )
    TAGS = (
        "telecom",
        "map matching",
        "hmm",
        "newson",
        "krumm",
        "viterbi",
        "snap",
        "roads",
        "gps",
        "trajectory",
        "measurement report",
    )
    ICON = "match.svg"

    def define(self) -> None:
        number = QgsProcessingParameterNumber
        add_track_parameters(self, time_optional=True)
        self.add(
            QgsProcessingParameterFeatureSource(
                "STREETS", self.tr("Streets"), [QgsProcessing.SourceType.TypeVectorLine]
            ),
            self.tr(
                "Line layer of streets in any CRS. A line given twice, once each way, is one street open both ways. Lines of several "
                "parts are taken apart; those without a length are left out and counted."
            ),
        )
        self.add(
            QgsProcessingParameterField(
                "ONEWAY_FIELD", self.tr("One-way field"), parentLayerParameterName="STREETS", optional=True
            ),
            self.tr(
                "Field that tells one-way streets: yes, true, 1, F or FT for the direction of the line; -1, reverse, T or TF against it; "
                "no, false, 0, B or nothing for both. By default it is recognised by its name (oneway, one_way, dir_travel). What is "
                "not known counts as both and is listed."
            ),
        )
        for name, label, default, low, high, text in (
            (
                "SIGMA",
                "Error of positions [m]",
                10.0,
                1.0,
                5000.0,
                "Standard deviation of positions, along each axis [m]: about 5 for GNSS. Points with a value in the uncertainty field "
                "have their own.",
            ),
            (
                "RADIUS",
                "Search radius [m]",
                50.0,
                1.0,
                2000.0,
                "Points farther than this from any street are off the road [m]. For points with an uncertainty of their own it is at "
                "least four times their standard deviation.",
            ),
        ):
            self.add(number(name, self.tr(label), number.Type.Double, default, False, low, high), self.tr(text))
        self.add(
            number("BETA", self.tr("Scale of detours [m]"), number.Type.Double, None, True, 0.1, 10_000.0),
            self.tr(
                "How much longer or shorter than a step between points its route may well be [m]: β of the paper. By default as large as "
                "the error of positions."
            ),
            advanced=True,
        )
        self.add(
            number("MAX_SPEED", self.tr("Highest speed [m/s]"), number.Type.Double, 70.0, False, 0.5, 400.0),
            self.tr("Routes that would need more speed than this are impossible [m/s]; used where times are known."),
            advanced=True,
        )
        self.add(
            number("MAX_DETOUR", self.tr("Longest detour [m]"), number.Type.Double, 2000.0, False, 10.0, 10_000.0),
            self.tr(
                "A route may be this much longer than the step between its points [m]; otherwise the path is split there. Steps of "
                "more than 5 km always split it."
            ),
            advanced=True,
        )
        self.add(
            number("CANDIDATES", self.tr("Streets per point"), number.Type.Integer, None, True, 1, 64),
            self.tr(
                "How many streets, the nearest, are looked at per point. By default 8, or 16 where positions are coarse (standard "
                "deviation above 20 m). Time grows with its square."
            ),
            advanced=True,
        )
        self.add(
            QgsProcessingParameterBoolean("SKIP_CLOSE", self.tr("Skip close points"), defaultValue=False),
            self.tr(
                "Use only points at least two standard deviations from the last one used, as the paper does, and place the others along "
                "the route. Quicker for devices that stand still."
            ),
            advanced=True,
        )
        point, line = QgsProcessing.SourceType.TypeVectorPoint, QgsProcessing.SourceType.TypeVectorLine
        self.add(
            QgsProcessingParameterFeatureSink("POINTS", self.tr("Matched points"), point, optional=True),
            self.tr(
                "The points of INPUT on their streets, with all their fields and: matched, street_id (feature id of the street), offset_m "
                "(how far they were moved), stretch (number of the path, as in TRAJECTORIES) and confidence (probability of "
                "the street among those near, given all points of the stretch). Points off the road are where they were."
            ),
        )
        self.add(
            QgsProcessingParameterFeatureSink("TRAJECTORIES", self.tr("Paths"), line, optional=True),
            self.tr(
                "The paths along the streets, one per stretch, as LineStringM: M is the time in seconds since 1970, by distance between "
                "points (the number of the point where times are not known). With device, trajectory, stretch, begin, end, points and "
                "length_m. Stretches that lie at one place make no line."
            ),
        )
        for name, label, text in (
            ("MATCHED", "Points matched", "Number of points on a street."),
            ("OFF_ROAD", "Points off the road", "Number of points without a street near them, and of outliers."),
            ("REJECTED", "Points not used", "Number of points without a position or a time."),
            ("STRETCHES", "Stretches", "Number of unbroken paths."),
            ("LENGTH", "Length [m]", "Length of all paths [m]."),
            ("MEDIAN_OFFSET", "Median offset [m]", "Median distance between points and their places on streets [m]."),
            ("STREET_EDGES", "Edges of streets", "Number of edges of the street network near the points."),
            ("POINTS_PER_SECOND", "Points per second", "Points matched per second, without reading and writing."),
            ("SECONDS", "Seconds", "Wall time of the run [s]."),
        ):
            self.add_result(QgsProcessingOutputNumber(name, self.tr(label)), self.tr(text))

    def work(self, run: Run) -> dict[str, Any]:
        from ..models.trajectory.map_matching import match

        source = run.parameters.source("INPUT")
        tracks = read_tracks(
            run,
            run.progress.phase(self.tr("Reading points"), 0.0, 0.15),
            needs_time=False,
            outputs_in_it=False,
        )
        settings = _settings(run)
        sigma = tracks.uncertainty_m / HALF_RADIUS_IN_SIGMAS
        known = np.isfinite(sigma)
        if known.any():
            run.info(
                f"{known.sum():,} points have an uncertainty of their own; their standard deviations are {np.nanmin(sigma):.3g} to "
                f"{np.nanmax(sigma):.3g} m, {np.nanmedian(sigma):.3g} m in the middle."
            )
        margin = settings.max_detour_m + settings.radius_m + 4 * float(np.nanmax(sigma, initial=0.0))
        around = QgsRectangle(
            tracks.x_m.min() - margin, tracks.y_m.min() - margin, tracks.x_m.max() + margin, tracks.y_m.max() + margin
        )
        reading = run.progress.phase(self.tr("Reading streets"), 0.15, 0.3)
        layer = read_streets(run, "STREETS", tracks.crs, around, "ONEWAY_FIELD", reading)
        timed = bool(np.isfinite(tracks.time_s).all())
        begun = time.perf_counter()
        matched = match(
            layer.streets,
            np.column_stack([tracks.x_m, tracks.y_m]),
            tracks.time_s if timed else None,
            np.repeat(np.arange(len(tracks.names)), np.diff(tracks.starts)),
            sigma if known.any() else None,
            settings,
            run.threads,
            run.progress.phase(self.tr("Matching"), 0.3, 0.8),
        )
        per_second = len(tracks) / max(time.perf_counter() - begun, 1e-9)
        on_road = matched.edge >= 0
        if not on_road.any():
            raise InputError(_nothing_near(layer, tracks, settings.radius_m))
        _report(run, tracks, matched, per_second)
        length = _write_lines(run, source.sourceCrs(), tracks, matched, timed)
        _write_points(run, source, tracks, matched, layer, timed)
        return {
            "MATCHED": int(on_road.sum()),
            "OFF_ROAD": int((~on_road).sum()),
            "REJECTED": tracks.rejected,
            "STRETCHES": matched.stretches,
            "LENGTH": round(length, 1),
            "MEDIAN_OFFSET": round(float(np.nanmedian(matched.offset_m)), 2),
            "STREET_EDGES": len(layer.streets),
            "POINTS_PER_SECOND": round(per_second),
            "SECONDS": round(run.seconds, 2),
        }


def _settings(run: Run):  # noqa: ANN202 - Matching, which needs scipy
    from ..models.trajectory.map_matching import Matching

    parameters = run.parameters
    return Matching(
        sigma_m=parameters.number("SIGMA"),
        beta_m=parameters.number("BETA"),
        radius_m=parameters.number("RADIUS"),
        max_gap_s=parameters.number("MAX_GAP"),
        candidates=parameters.integer("CANDIDATES"),
        max_detour_m=parameters.number("MAX_DETOUR"),
        max_speed_m_s=parameters.number("MAX_SPEED"),
        skip_close=parameters.flag("SKIP_CLOSE"),
    )


def _nothing_near(layer: StreetLayer, tracks: Tracks, radius_m: float) -> str:
    """The sentence for points that no street is near."""
    points = np.column_stack([tracks.x_m, tracks.y_m])
    points = points[:: max(1, len(points) // 1000)]
    nearest = float(layer.streets.near(points, 1e7, 1).distance_m.min())
    return (
        f"No street of layer '{layer.name}' is within {radius_m:g} m of any of the {len(tracks):,} points; the nearest is about "
        f"{nearest:,.0f} m away. Check the CRS of both layers, or give a larger RADIUS."
    )


def _report(run: Run, tracks: Tracks, matched: Matched, per_second: float) -> None:
    off = int((matched.edge < 0).sum())
    run.info(
        f"{len(tracks) - off:,} of {len(tracks):,} points are on streets, in "
        f"{counted(matched.stretches, 'stretch', 'stretches')}; "
        f"{per_second:,.0f} points/s."
    )
    if off:
        run.info(f"{counted(off, 'point is', 'points are')} off the road and not moved.")
    split = matched.stretches - len(set(matched_trajectories(tracks, matched).tolist()))
    if split > 0:
        run.info(
            f"Paths were split at {counted(split, 'place')} where no route leads on within MAX_DETOUR and MAX_SPEED."
        )


def matched_trajectories(tracks: Tracks, matched: Matched) -> np.ndarray:
    """Index of the trajectory of each stretch, shape (stretches,)."""
    trajectory = np.repeat(np.arange(len(tracks.names)), np.diff(tracks.starts))
    result = np.zeros(matched.stretches, dtype=int)
    there = matched.stretch >= 0
    result[matched.stretch[there]] = trajectory[there]
    return result


def _write_lines(run: Run, crs: QgsCoordinateReferenceSystem, tracks: Tracks, matched: Matched, timed: bool) -> float:
    """Write TRAJECTORIES and return the length of all paths [m]."""
    kind = QMetaType.Type
    fields = fields_of(
        ("device", kind.QString),
        ("trajectory", kind.QString),
        ("stretch", kind.Int),
        ("begin", kind.QDateTime),
        ("end", kind.QDateTime),
        ("points", kind.Int),
        ("length_m", kind.Double),
    )
    first = matched.route_first
    steps = np.hypot(*np.diff(matched.route_xy_m, axis=0).T)
    way = np.concatenate([[0.0], np.cumsum(steps)])
    lengths = way[np.maximum(first[1:] - 1, first[:-1])] - way[first[:-1]]
    if not run.parameters.wants("TRAJECTORIES"):
        return float(lengths.sum())
    points = np.bincount(matched.stretch[matched.stretch >= 0], minlength=matched.stretches)
    trajectory = matched_trajectories(tracks, matched)
    x, y = _in_crs(run, tracks.crs, crs, matched.route_xy_m)
    there = np.flatnonzero(lengths > 0)
    progress = run.progress.phase(run.parameters.algorithm.tr("Writing paths"), 0.8, 0.9)

    def features() -> Iterator[QgsFeature]:
        for index in there.tolist():
            part = slice(int(first[index]), int(first[index + 1]))
            feature = QgsFeature(fields)
            feature.setGeometry(line_m(x[part], y[part], matched.route_m[part]))
            ends = [date_time(float(matched.route_m[row])) if timed else None for row in (part.start, part.stop - 1)]
            feature.setAttributes(
                [
                    tracks.devices[trajectory[index]],
                    tracks.names[trajectory[index]],
                    index + 1,
                    *ends,
                    int(points[index]),
                    round(float(lengths[index]), 1),
                ]
            )
            yield feature

    layer = run.outputs.table(
        "TRAJECTORIES", fields, features(), QgsWkbTypes.Type.LineStringM, crs, progress, max(len(there), 1)
    )
    style = lines_qml(width_mm=0.7)
    run.style("TRAJECTORIES", layer, timed_qml(style, "LineStringM", "begin", "end") if timed else style)
    return float(lengths.sum())


def _write_points(
    run: Run, source: QgsProcessingFeatureSource, tracks: Tracks, matched: Matched, layer: StreetLayer, timed: bool
) -> None:
    if not run.parameters.wants("POINTS"):
        return
    kind = QMetaType.Type
    column = field_of(run, source, "TIME_FIELD")
    is_moment = timed and source.fields().field(column).type() == kind.QDateTime
    moments = [("time_utc", kind.QDateTime)] if timed and not is_moment else []
    fields, kept = fields_with(
        source,
        *moments,
        ("matched", kind.Bool),
        ("street_id", kind.LongLong),
        ("offset_m", kind.Double),
        ("stretch", kind.Int),
        ("confidence", kind.Double),
    )
    on_road = (matched.edge >= 0).tolist()
    street = np.where(matched.line >= 0, layer.feature_ids[np.maximum(matched.line, 0)], -1).tolist()
    offset, stretch = matched.offset_m.round(2).tolist(), (matched.stretch + 1).tolist()
    confidence = [None if math.isnan(value) else value for value in matched.confidence.round(4).tolist()]

    def added(row: int) -> list[Any]:
        moment = [date_time(float(tracks.time_s[row]))] if moments else []
        if not on_road[row]:
            return [*moment, False, None, None, None, None]
        return [*moment, True, street[row], offset[row], stretch[row], confidence[row]]

    crs = source.sourceCrs()
    x, y = _in_crs(run, tracks.crs, crs, matched.xy_m)
    features = moved_features(source, fields, kept, tracks, x, y, added)
    progress = run.progress.phase(run.parameters.algorithm.tr("Writing points"), 0.9, 1.0)
    target = run.outputs.table("POINTS", fields, features, QgsWkbTypes.Type.Point, crs, progress, len(tracks))
    style = _points_qml()
    if timed:
        style = timed_qml(style, "Point", column if is_moment else "time_utc", seconds=SHOWN_S)
    run.style("POINTS", target, style)


def _in_crs(
    run: Run, crs: QgsCoordinateReferenceSystem, target: QgsCoordinateReferenceSystem, xy_m: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Positions in the CRS `target`, shape (n,) each."""
    if crs == target:
        return xy_m[:, 0], xy_m[:, 1]
    transform = QgsCoordinateTransform(crs, target, run.context.transformContext())
    x, y = transformed(transform, xy_m[:, 0], xy_m[:, 1])
    return x, y


def _points_qml() -> str:
    """Style of matched points: small and full on streets, hollow off the road."""
    layer = QgsVectorLayer("Point?field=matched:bool", "style", "memory")
    looks = (
        ("on a street", "#982d6c", "#ffffff", "1.8", "0.2"),
        ("off the road", "#00000000", "#5f6b73", "2.2", "0.4"),
    )
    categories = []
    for name, fill, outline, size, width in looks:
        symbol = QgsMarkerSymbol.createSimple(
            {"name": "circle", "size": size, "outline_color": outline, "outline_width": width}
        )
        symbol.symbolLayer(0).setFillColor(QColor(fill))
        categories.append(QgsRendererCategory(name, symbol, name))
    rule = "CASE WHEN \"matched\" THEN 'on a street' ELSE 'off the road' END"
    layer.setRenderer(QgsCategorizedSymbolRenderer(rule, categories))
    return exported(layer)
