"""`telcoloc:filtertrajectory`: paths of devices become smooth, by a particle filter or a Kalman smoother."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from qgis.core import (
    QgsCoordinateTransform,
    QgsProcessing,
    QgsProcessingOutputNumber,
    QgsProcessingParameterEnum,
    QgsProcessingParameterFeatureSink,
    QgsProcessingParameterNumber,
    QgsWkbTypes,
)
from qgis.PyQt.QtCore import QMetaType

from ..models.errors import InputError
from ..telcoloc_qgis import styles
from ..telcoloc_qgis.algorithm import Run, TelcoLocAlgorithm
from ..telcoloc_qgis.sites import counted
from ..telcoloc_qgis.temporal import date_time, timed_qml
from ..telcoloc_qgis.tracks import (
    Tracks,
    add_track_parameters,
    field_of,
    fields_with,
    moved_features,
    read_tracks,
    transformed,
    write_trajectories,
)

METHODS = ("particle", "kalman")
#: Radii of the circles that hold 50 % and 90 % of a Gaussian, in standard deviations along an axis.
RADIUS_50, RADIUS_90 = math.sqrt(2 * math.log(2)), math.sqrt(2 * math.log(10))
#: A second field that our own points have.
FIELD_90 = "uncertainty_90_m"


class FilterTrajectory(TelcoLocAlgorithm):
    """See the module's docstring."""

    NAME = "filtertrajectory"
    TITLE = "Filter trajectories"
    GROUP = "Trajectories"
    SUMMARY = "Points of devices become smooth paths, by a Kalman smoother or a particle filter."
    DESCRIPTION = (
        "Moves the points of each trajectory to where the points before and after make them likeliest, weighed by their uncertainty.\n\n"
        "kalman: a device keeps its velocity but for small pushes (Kalman filter forwards, Rauch-Tung-Striebel smoother backwards). Points "
        "far from the path count less. The better choice for devices that travel.\n\n"
        "particle: the filter of the DeepLoc paper, 500 particles with Gaussian system and observation noise, here run both ways. A "
        "device wanders at random.\n\n"
        "Both take the errors of points that follow each other for independent. Those of radio positions are not: what shifts a whole "
        "street stays, and the uncertainty afterwards is a lower limit."
    )
    EXAMPLE = (
        "qgis_process run telcoloc:filtertrajectory --INPUT=walks.gpkg --METHOD=kalman --POINTS=filtered.gpkg "
        "--TRAJECTORIES=filtered_paths.gpkg"
    )
    TAGS = (
        "telecom",
        "particle filter",
        "kalman",
        "smoother",
        "rts",
        "smoothing",
        "trajectory",
        "gps",
        "outliers",
        "measurement report",
    )
    ICON = "filter.svg"

    def define(self) -> None:
        number = QgsProcessingParameterNumber
        add_track_parameters(self)
        self.add(
            QgsProcessingParameterEnum(
                "METHOD", self.tr("Method"), list(METHODS), defaultValue="kalman", usesStaticStrings=True
            ),
            self.tr("particle (filter) or kalman (smoother), as described above."),
        )
        self.add(
            number("SIGMA", self.tr("Error of positions [m]"), number.Type.Double, 30.0, False, 1.0, 50_000.0),
            self.tr(
                "Standard deviation of positions along each axis [m], for points without an uncertainty of their own: about 5 for GNSS."
            ),
        )
        self.add(
            number("ACCELERATION", self.tr("Acceleration [m/s²]"), number.Type.Double, 0.5, False, 0.001, 100.0),
            self.tr(
                "kalman: standard deviation of the change of velocity within a second, along each axis [m/s²]. Less makes paths smoother."
            ),
            advanced=True,
        )
        self.add(
            number("SPEED", self.tr("Speed [m/s]"), number.Type.Double, None, True, 0.01, 1000.0),
            self.tr(
                "particle: standard deviation of the speed along each axis [m/s]. By default the one of 0.3, 0.7, 1.5, 3, 6, 12 and 24 "
                "that makes the points of a trajectory likeliest."
            ),
            advanced=True,
        )
        self.add(
            number("PARTICLES", self.tr("Particles"), number.Type.Integer, 500, False, 10, 100_000),
            self.tr("particle: number of particles per trajectory. Time grows with it, noise falls with its root."),
            advanced=True,
        )
        self.add(
            number("SEED", self.tr("Seed"), number.Type.Integer, 0, False, 0, 2**31 - 1),
            self.tr("particle: the same seed gives the same result."),
            advanced=True,
        )
        point, line = QgsProcessing.SourceType.TypeVectorPoint, QgsProcessing.SourceType.TypeVectorLine
        self.add(
            QgsProcessingParameterFeatureSink("POINTS", self.tr("Filtered points"), point),
            self.tr(
                "The points of INPUT where the filter puts them, with all their fields and: moved_m (how far that is) and uncertainty_m "
                "(radius of the circle that holds the true position with a probability of one half, as far as errors are independent)."
            ),
        )
        self.add(
            QgsProcessingParameterFeatureSink("TRAJECTORIES", self.tr("Filtered trajectories"), line, optional=True),
            self.tr(
                "The paths through the filtered points as LineStringM, M is the time in seconds since 1970, with device, trajectory, "
                "begin, end, points and length_m."
            ),
        )
        for name, label, text in (
            ("POINT_COUNT", "Points", "Number of points filtered."),
            ("TRAJECTORY_COUNT", "Trajectories", "Number of trajectories, each without a gap longer than MAX_GAP."),
            ("REJECTED", "Points not used", "Number of points without a position or a time."),
            ("MEDIAN_MOVED", "Median distance [m]", "Median distance between points before and after [m]."),
            ("SECONDS", "Seconds", "Wall time of the run [s]."),
        ):
            self.add_result(QgsProcessingOutputNumber(name, self.tr(label)), self.tr(text))

    def work(self, run: Run) -> dict[str, Any]:
        tracks = read_tracks(run, run.progress.phase(self.tr("Reading points"), 0.0, 0.3), outputs_in_it=False)
        sigma = _sigma(run, tracks)
        x, y, spread = _filtered(run, tracks, sigma)
        moved = np.hypot(x - tracks.x_m, y - tracks.y_m)
        run.info(
            f"{counted(len(tracks), 'point')} in {counted(len(tracks.names), 'trajectory', 'trajectories')} moved by "
            f"{np.median(moved):.1f} m in the middle, {moved.max():.1f} m at most."
        )
        source = run.parameters.source("INPUT")
        crs = source.sourceCrs()
        east, north = x, y
        if crs != tracks.crs:
            back = QgsCoordinateTransform(tracks.crs, crs, run.context.transformContext())
            east, north = transformed(back, x, y)
            lost = np.flatnonzero(~np.isfinite(east))
            if len(lost):
                raise InputError(
                    f"INPUT: feature {tracks.ids[lost[0]]} was moved to where {crs.authid()} has no coordinates. Use another CRS, or a "
                    "smaller SIGMA."
                )
        _write_points(run, tracks, east, north, moved, spread / math.sqrt(2))
        if run.parameters.wants("TRAJECTORIES"):
            length = np.hypot(np.diff(x, prepend=x[:1]), np.diff(y, prepend=y[:1]))
            length[tracks.starts[:-1]] = 0.0
            write_trajectories(
                run,
                "TRAJECTORIES",
                crs,
                tracks.starts,
                tracks.devices,
                tracks.names,
                east,
                north,
                tracks.time_s,
                run.progress.phase(self.tr("Writing trajectories"), 0.95, 1.0),
                length_m=np.add.reduceat(length, tracks.starts[:-1]).tolist(),
            )
        return {
            "POINT_COUNT": len(tracks),
            "TRAJECTORY_COUNT": len(tracks.names),
            "REJECTED": tracks.rejected,
            "MEDIAN_MOVED": round(float(np.median(moved)), 2),
            "SECONDS": round(run.seconds, 2),
        }


def _sigma(run: Run, tracks: Tracks) -> np.ndarray:
    """Standard deviation of each point along an axis [m], shape (n,)."""
    default = run.parameters.number("SIGMA")
    known = np.isfinite(tracks.uncertainty_m)
    if known.any():
        run.info(
            f"{known.sum():,} of {len(tracks):,} points have an uncertainty of their own, {np.median(tracks.uncertainty_m[known]):.3g} m "
            f"in the middle; it is read as the radius that holds one half. The others have a standard deviation of {default:g} m."
        )
    return np.where(known, tracks.uncertainty_m / RADIUS_50, default)


def _filtered(run: Run, tracks: Tracks, sigma: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from ..models.trajectory.filters import kalman_smoother, likely_speeds, particle_filter

    parameters = run.parameters
    progress = run.progress.phase("Filtering", 0.3, 0.6)
    given = (tracks.starts, tracks.time_s, tracks.x_m, tracks.y_m, sigma)
    if parameters.choice("METHOD") == "kalman":
        acceleration = parameters.number("ACCELERATION")
        return kalman_smoother(*given, acceleration_m_s2=acceleration, threads=run.threads, progress=progress)
    speed = parameters.number("SPEED")
    if speed is None:
        found = likely_speeds(*given)[tracks.starts[:-1]]
        kinds, counts = np.unique(found, return_counts=True)
        run.info(
            "Speeds that suit the trajectories: "
            + ", ".join(f"{kind:g} m/s ({count:,})" for kind, count in zip(kinds, counts))
            + "."
        )
    return particle_filter(
        *given,
        seed=parameters.integer("SEED"),
        particles=parameters.integer("PARTICLES"),
        speed_m_s=speed,
        threads=run.threads,
        progress=progress,
    )


def _write_points(
    run: Run, tracks: Tracks, x: np.ndarray, y: np.ndarray, moved_m: np.ndarray, sigma_m: np.ndarray
) -> None:
    kind = QMetaType.Type
    source = run.parameters.source("INPUT")
    column = field_of(run, source, "TIME_FIELD")
    is_moment = source.fields().field(column).type() == kind.QDateTime
    moments = [] if is_moment else [("time_utc", kind.QDateTime)]
    wide = [(FIELD_90, kind.Double)] if source.fields().lookupField(FIELD_90) >= 0 else []
    fields, kept = fields_with(source, *moments, ("moved_m", kind.Double), ("uncertainty_m", kind.Double), *wide)
    moved, radius, radius_90 = (
        np.round(values, 2).tolist() for values in (moved_m, sigma_m * RADIUS_50, sigma_m * RADIUS_90)
    )

    def added(row: int) -> list[Any]:
        moment = [date_time(float(tracks.time_s[row]))] if moments else []
        return [*moment, moved[row], radius[row], *([radius_90[row]] if wide else [])]

    features = moved_features(source, fields, kept, tracks, x, y, added)
    progress = run.progress.phase("Writing points", 0.6, 0.95)
    layer = run.outputs.table(
        "POINTS", fields, features, QgsWkbTypes.Type.Point, source.sourceCrs(), progress, len(tracks)
    )
    style = styles.points_qml("uncertainty_m", np.array(radius), styles.metre_edges(np.array(radius)))
    shown_s = _usual_gap_s(tracks)
    run.style("POINTS", layer, timed_qml(style, "Point", column if is_moment else "time_utc", seconds=shown_s))


def _usual_gap_s(tracks: Tracks) -> float:
    """Usual time between two points of a trajectory [s], so that a point stays until the next one."""
    gap = np.diff(tracks.time_s)
    gap[tracks.starts[1:-1] - 1] = 0.0
    gap = gap[gap > 0]
    return float(np.clip(np.median(gap), 1.0, 3600.0)) if len(gap) else 1.0
