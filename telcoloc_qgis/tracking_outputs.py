"""What 'Track with landmarks' writes: the path as points and lines, and the edges of the graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from qgis.core import QgsCoordinateReferenceSystem, QgsFeature, QgsGeometry, QgsLineString, QgsWkbTypes
from qgis.PyQt.QtCore import QMetaType

from . import tracking_styles
from .columns import features_of
from .localization import names_at, numbers_at, seconds_shown, slices
from .outputs import fields_of
from .temporal import date_time
from .tracks import line_m

if TYPE_CHECKING:
    from ..models.landmarks.candidates import Candidates
    from ..models.landmarks.landmark_set import Landmarks
    from ..models.landmarks.track import Track
    from ..models.progress import Progress
    from .algorithm import Run


@dataclass(frozen=True)
class Tracked:
    """A track and what it belongs to.

    Parameters
    ----------
    crs
        Metric CRS of all positions.
    landmarks
        None where none were given.
    true_xy_m
        Where the device was at each instant [m], shape (n, 2), NaN where unknown; None where no truth was given.
    """

    candidates: Candidates
    track: Track
    crs: QgsCoordinateReferenceSystem
    landmarks: Landmarks | None
    true_xy_m: np.ndarray | None

    @property
    def error_m(self) -> np.ndarray:
        """Distance of the path to the truth [m], shape (n,), NaN where unknown."""
        if self.true_xy_m is None:
            return np.full(len(self.candidates), np.nan)
        return np.asarray(np.hypot(*(self.track.xy_m - self.true_xy_m).T))


def write_path(run: Run, tracked: Tracked, progress: Progress) -> None:
    """Write PATH: a point per instant, and the predicted ones behind each trajectory."""
    from ..models.landmarks.track import KIND_NAMES, PREDICTED

    candidates, track = tracked.candidates, tracked.track
    rows = np.flatnonzero(np.isfinite(track.xy_m[:, 0]))
    ahead = len(track.predicted_time_s)
    ends = np.array([candidates.starts[1:] - 1]).ravel()
    last = {int(candidates.trajectory[end]): int(end) for end in ends.tolist()}
    of = np.array([last[code] for code in track.predicted_trajectory.tolist()], dtype=np.int64)
    instant = np.concatenate([rows, of])
    nothing = np.full(ahead, np.nan)
    time_s = np.concatenate([candidates.time_s[rows], track.predicted_time_s])
    order = np.lexsort((time_s, candidates.trajectory[instant]))
    chosen = track.candidate[rows]
    error_db = np.where(chosen >= 0, candidates.error_db[chosen] if len(candidates.error_db) else np.nan, np.nan)
    columns_of = {
        "kind": np.concatenate([track.kind[rows], np.full(ahead, PREDICTED)]),
        "part": np.concatenate([track.part[rows], np.full(ahead, -1)]),
        "error_db": np.concatenate([error_db, nothing]),
        "truth_error_m": np.concatenate([tracked.error_m[rows], nothing]),
        "landmark": np.concatenate([track.landmark[rows], np.full(ahead, -1)]),
        "row": np.concatenate([candidates.row[rows], np.full(ahead, -1)]),
    }
    xy_m = np.concatenate([track.xy_m[rows], track.predicted_xy_m])[order]
    instant, time_s = instant[order], time_s[order]
    columns_of = {name: values[order] for name, values in columns_of.items()}
    number = np.arange(len(candidates)) - np.repeat(candidates.starts[:-1], np.diff(candidates.starts))
    with_truth = tracked.true_xy_m is not None
    kind = QMetaType.Type
    fields = fields_of(
        ("device", kind.QString),
        ("trajectory", kind.QString),
        ("time", kind.QDateTime),
        ("time_s", kind.Double),
        ("instant", kind.Int),
        ("part", kind.Int),
        ("kind", kind.QString),
        ("landmark_id", kind.QString),
        ("error_db", kind.Double),
        *([("truth_error_m", kind.Double)] if with_truth else []),
        ("row", kind.LongLong),
    )
    names = tracked.landmarks.ids if tracked.landmarks is not None else ()

    def features() -> Iterator[QgsFeature]:
        for part in slices(len(order)):
            at, what = instant[part], columns_of["kind"][part]
            every = slice(0, len(at))
            columns: list[Sequence[Any]] = [
                names_at((candidates.devices, candidates.device[at]), every),
                names_at((candidates.trajectories, candidates.trajectory[at]), every),
                [date_time(value) for value in time_s[part].tolist()],
                time_s[part].tolist(),
                [None if kind == PREDICTED else value for kind, value in zip(what.tolist(), number[at].tolist())],
                [value + 1 if value >= 0 else None for value in columns_of["part"][part].tolist()],
                [KIND_NAMES[code] for code in what.tolist()],
                names_at((names, columns_of["landmark"]), part),
                numbers_at(columns_of["error_db"], part, 3),
                *([numbers_at(columns_of["truth_error_m"], part)] if with_truth else []),
                [value if value >= 0 else None for value in columns_of["row"][part].tolist()],
            ]
            yield from features_of(fields, columns, xy_m[part, 0], xy_m[part, 1])

    layer = run.outputs.table(
        "PATH", fields, features(), QgsWkbTypes.Type.Point, tracked.crs, progress, max(len(order), 1)
    )
    run.style("PATH", layer, tracking_styles.path_qml(with_truth, seconds_shown(candidates.time_s)))


def write_lines(run: Run, tracked: Tracked, progress: Progress) -> None:
    """Write LINES: a LineStringM per part of the path that has two instants or more."""
    if not run.parameters.wants("LINES"):
        return
    candidates, track = tracked.candidates, tracked.track
    kind = QMetaType.Type
    fields = fields_of(
        ("device", kind.QString),
        ("trajectory", kind.QString),
        ("part", kind.Int),
        ("begin", kind.QDateTime),
        ("end", kind.QDateTime),
        ("instants", kind.Int),
        ("length_m", kind.Double),
    )
    new = np.diff(track.part, prepend=-2) != 0
    new[candidates.starts[:-1]] = True
    starts = np.append(np.flatnonzero(new), len(new))

    def features() -> Iterator[QgsFeature]:
        for start, stop in zip(starts.tolist(), starts[1:].tolist()):
            if track.part[start] < 0 or stop - start < 2:
                continue
            (x, y), time_s = track.xy_m[start:stop].T, candidates.time_s[start:stop]
            feature = QgsFeature(fields)
            feature.setGeometry(line_m(x, y, time_s))
            feature.setAttributes(
                [
                    candidates.devices[candidates.device[start]],
                    candidates.trajectories[candidates.trajectory[start]],
                    int(track.part[start]) + 1,
                    date_time(float(time_s[0])),
                    date_time(float(time_s[-1])),
                    stop - start,
                    round(float(np.hypot(np.diff(x), np.diff(y)).sum()), 1),
                ]
            )
            yield feature

    layer = run.outputs.table(
        "LINES", fields, features(), QgsWkbTypes.Type.LineStringM, tracked.crs, progress, max(len(starts) - 1, 1)
    )
    run.style("LINES", layer, tracking_styles.path_lines_qml())


def write_edges(run: Run, tracked: Tracked, progress: Progress) -> None:
    """Write EDGES: a line per edge of the graph, from candidate to candidate."""
    if not run.parameters.wants("EDGES"):
        return
    candidates, edges = tracked.candidates, tracked.track.edges
    kind = QMetaType.Type
    fields = fields_of(
        ("device", kind.QString),
        ("trajectory", kind.QString),
        ("time", kind.QDateTime),
        ("time_to", kind.QDateTime),
        ("weight_m", kind.Double),
        ("forwarding", kind.Int),
        ("chosen", kind.Int),
    )
    x, y = np.stack([edges.xy_m, edges.xy_to_m], axis=2).transpose(1, 0, 2)  # (e, 2) each

    def features() -> Iterator[QgsFeature]:
        for part in slices(len(edges)):
            at, to = edges.instant[part], edges.instant_to[part]
            every = slice(0, len(at))
            columns = zip(
                names_at((candidates.devices, candidates.device[at]), every),
                names_at((candidates.trajectories, candidates.trajectory[at]), every),
                map(date_time, candidates.time_s[at].tolist()),
                map(date_time, candidates.time_s[to].tolist()),
                numbers_at(edges.weight_m, part),
                edges.forwarding[part].astype(int).tolist(),
                edges.chosen[part].astype(int).tolist(),
            )
            for values, xs, ys in zip(columns, x[part].tolist(), y[part].tolist()):
                feature = QgsFeature(fields)
                feature.setAttributes(list(values))
                feature.setGeometry(QgsGeometry(QgsLineString(xs, ys)))
                yield feature

    layer = run.outputs.table(
        "EDGES", fields, features(), QgsWkbTypes.Type.LineString, tracked.crs, progress, max(len(edges), 1)
    )
    run.style("EDGES", layer, tracking_styles.edges_qml())
