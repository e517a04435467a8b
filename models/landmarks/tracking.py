"""Landmark-assisted tracking: candidates, a map and recognised landmarks become a position at every instant.

After landmark_tfg.txt, section 4.2. `hybrid` puts landmarks into the graph (4); `nonhybrid` leaves the graph (and its filter) alone and
takes the landmark's place where there is one; `none` knows no landmarks. Instants that a forwarding edge leads over are filled in along
the map's route, so every instant has a position.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from ..progress import Progress, no_progress, span
from ..trajectory.joins import common_codes, nearest_in_time
from .candidates import Candidates
from .constrained_kalman import predicted, smoothed
from .landmark_set import Landmarks, Matches
from .map_distance import MapDistance, Spots, on_the_map
from .tfg import Graph, Paths, build_graph, shortest_paths
from .track import CANDIDATE, FILLED, HYBRID, LANDMARK, NON_HYBRID, Edges, Track, TrackSettings

#: Of ways as long, the one wins whose spots are nearer to their candidates: so much counts a metre between them.
_NEARER = 1e-3
#: Carriageways of one street are at most so far apart [m].
_CARRIAGEWAY_M = 10.0
#: Most sentences about broken paths.
_MOST_MESSAGES = 10
#: Most times that one of them names.
_MOST_TIMES = 5


@dataclass(frozen=True)
class _Nodes:
    """All nodes: the spots of candidates and landmarks, by instant."""

    spots: Spots
    first: np.ndarray
    candidate: np.ndarray
    landmark: np.ndarray
    error_db: np.ndarray

    def part(self, start: int, stop: int) -> Spots:
        """The nodes of the instants from `start` to `stop`."""
        return self.spots.take(slice(int(self.first[start]), int(self.first[stop])))


def track(
    candidates: Candidates,
    landmarks: Landmarks | None,
    matches: Matches | None,
    distance: MapDistance,
    settings: TrackSettings | None = None,
    progress: Progress = no_progress,
) -> Track:
    """Track every trajectory.

    Parameters
    ----------
    candidates
        Several places per instant.
    landmarks, matches
        Known places, and when a photo recognised one; None where there are none.
    distance
        The map; it keeps what it has measured, so use one for many runs.
    settings
        See `TrackSettings`.
    progress
        May raise `Cancelled`.

    Raises
    ------
    InputError
        Matches without landmarks.
    """
    settings = settings or TrackSettings()
    if matches is not None and len(matches) and landmarks is None:
        raise InputError("There are matches of landmarks but no landmarks; give the landmarks they name.")
    seen, instant = np.empty(0, np.int64), np.empty(0, np.int64)  # matches, and where they belong
    used, where = np.zeros(0, bool), np.empty((0, 2))
    if matches is not None and landmarks is not None:
        where = landmarks.xy_m
        on_map = np.isin(np.arange(len(landmarks)), distance.spots(where).owner)
        seen, instant = crossings(candidates, matches, settings.match_s)
        kept = on_map[matches.landmark[seen]]
        seen, instant = seen[kept], instant[kept]
        used = np.isin(np.arange(len(matches)), seen)
    n = len(candidates)
    mandatory = np.zeros(n, bool)
    hybrid = slice(None if settings.mode == HYBRID else 0)
    nodes = _nodes(candidates, distance, matches, seen[hybrid], instant[hybrid], where, mandatory)
    xy = np.full((n, 2), np.nan)
    kind, part = np.full(n, FILLED, np.int8), np.full(n, -1)
    chosen_node = np.full(n, -1)
    graphs: list[tuple[int, Graph, Paths]] = []
    starts = candidates.starts.tolist()
    for start, stop in zip(starts, starts[1:]):
        step = span(progress, 0.8 * start / n, 0.8 * stop / n)
        mine = nodes.part(start, stop)
        time = candidates.time_s[start:stop]
        graph, paths = _solved(distance, nodes, start, stop, time, mandatory[start:stop], settings, step)
        graphs.append((start, graph, paths))
        xy[start:stop] = _positions(distance, mine, graph, paths, time)
        part[start:stop] = paths.part
        at = paths.node >= 0
        chosen_node[start:stop][at] = paths.node[at] + nodes.first[start]
    there = chosen_node >= 0
    candidate, landmark = np.full(n, -1), np.full(n, -1)
    candidate[there], landmark[there] = nodes.candidate[chosen_node[there]], nodes.landmark[chosen_node[there]]
    kind[candidate >= 0] = CANDIDATE
    kind[landmark >= 0] = LANDMARK
    sigma = np.where(landmark >= 0, settings.landmark_sigma_m, settings.sigma_m)
    sigma[kind == FILLED] = np.inf
    ahead: list[list[np.ndarray]] = [[np.empty(0, np.int64)], [np.empty(0)], [np.empty((0, 2))]]
    for start, stop in zip(starts, starts[1:]):
        rows_of, step = slice(start, stop), span(progress, 0.8 + 0.2 * start / n, 0.8 + 0.2 * stop / n)
        if settings.predict_s > 0 and np.isfinite(xy[start, 0]):
            tail = _last_part(part[rows_of]) + start
            when, then = predicted(
                candidates.time_s[tail], xy[tail], sigma[tail], settings.motion, settings.predict_s, distance, step
            )
            for column, values in zip(ahead, (np.full(len(when), candidates.trajectory[start], np.int64), when, then)):
                column.append(values)
        if settings.kalman:
            xy[rows_of] = _filtered(
                candidates.time_s[rows_of], xy[rows_of], sigma[rows_of], part[rows_of], settings, distance, step
            )
    if settings.mode == NON_HYBRID and matches is not None:  # last, so that nothing else hears of landmarks
        order = np.argsort(matches.fiducial[seen], kind="stable")  # a fiducial one has the last word
        landmark[instant[order]] = matches.landmark[seen[order]]
        candidate[instant], kind[instant] = -1, LANDMARK
        xy[instant] = where[landmark[instant]]
    trajectory, when, then = (np.concatenate(column) for column in ahead)
    progress(1.0)
    return Track(
        xy,
        kind,
        candidate,
        landmark,
        part,
        _edges(nodes, graphs),
        trajectory,
        when,
        then,
        used,
        _messages(candidates, part),
    )


def _solved(
    distance: MapDistance,
    nodes: _Nodes,
    start: int,
    stop: int,
    time_s: np.ndarray,
    mandatory: np.ndarray,
    settings: TrackSettings,
    progress: Progress,
) -> tuple[Graph, Paths]:
    """Graph and path of the trajectory of instants `start` to `stop`."""
    first = nodes.first[start : stop + 1] - nodes.first[start]
    spots, costs = nodes.part(start, stop), _costs(nodes, start, stop, settings.error_weight_m)

    def solve(open_to_all: np.ndarray | None) -> tuple[Graph, Paths]:
        graph = build_graph(
            distance,
            spots,
            first,
            time_s,
            mandatory,
            settings.top_speed_m_s,
            settings.slack_m,
            min(settings.most_forward, settings.window or settings.most_forward),
            settings.landmark_range_m * mandatory,
            open_to_all,
            progress,
        )
        return graph, shortest_paths(graph, *costs, window=settings.window)

    graph, paths = solve(None)
    # Where a part ends, the next landmark was missed.
    landmark = np.flatnonzero(mandatory)
    after = np.searchsorted(landmark, np.flatnonzero(np.diff(paths.part) > 0), side="right")
    missed = np.zeros(len(time_s), bool)
    missed[landmark[after[after < len(landmark)]]] = True
    return solve(missed) if missed.any() else (graph, paths)


def candidate_places(candidates: Candidates, found: Track, distance: MapDistance) -> np.ndarray:
    """Where candidates lie on the map, so that edges meet them: at the spot the path takes, else at the nearest; shape (n, 2)."""
    places = on_the_map(distance, candidates.xy_m)
    edges = found.edges
    for candidate, xy_m in ((edges.candidate, edges.xy_m), (edges.candidate_to, edges.xy_to_m)):
        taken = edges.chosen & (candidate >= 0)
        places[candidate[taken]] = xy_m[taken]
    return places


def crossings(candidates: Candidates, matches: Matches, match_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Return which matches belong to which instants, rows of both, shape (k,) each, by match.

    A match belongs to the instant of its device that is nearest in time, up to `match_s`; one without a device to one of each device.
    """
    here, there = common_codes((candidates.devices, candidates.device), (matches.devices, matches.device))
    rows, instants = [], []
    for code in range(len(candidates.devices)):
        of_device = np.where(there == -1, code, there)
        mine = np.flatnonzero(of_device == code)
        nearest = nearest_in_time(of_device[mine], matches.time_s[mine], here, candidates.time_s, match_s)
        rows.append(mine[nearest >= 0])
        instants.append(nearest[nearest >= 0])
    row, instant = (np.concatenate([np.empty(0, np.int64), *each]) for each in (rows, instants))
    order = np.argsort(row, kind="stable")
    return row[order], instant[order]


def _nodes(
    candidates: Candidates,
    distance: MapDistance,
    matches: Matches | None,
    seen: np.ndarray,
    at: np.ndarray,
    where: np.ndarray,
    mandatory: np.ndarray,
) -> _Nodes:
    """Equation (4): S_t of every instant, with matches `seen` at instants `at`; marks in `mandatory` those with a fiducial one."""
    n = len(candidates)
    instant = np.repeat(np.arange(n), np.diff(candidates.first))
    candidate = np.arange(len(instant))
    landmark = np.full(len(instant), -1)
    error = _errors(candidates, instant)
    points = candidates.xy_m
    if matches is not None and len(seen):
        fiducial = matches.fiducial[seen]
        mandatory[at[fiducial]] = True
        wanted = fiducial | ~mandatory[at]
        places, at = matches.landmark[seen[wanted]], at[wanted]
        kept = ~mandatory[instant]
        best = np.full(n, np.inf)  # a service-oriented landmark is trusted like the best candidate
        np.minimum.at(best, instant, error)
        best[np.isinf(best)] = 0.0
        error = np.concatenate([error[kept], best[at]])
        points = np.concatenate([points[kept], where[places]])
        candidate = np.concatenate([candidate[kept], np.full(len(at), -1)])
        landmark = np.concatenate([landmark[kept], places])
        instant = np.concatenate([instant[kept], at])
        order = np.argsort(instant, kind="stable")
        error, points, candidate, landmark, instant = (
            column[order] for column in (error, points, candidate, landmark, instant)
        )
    spots = _landmarks_at_their_street(distance.spots(points), landmark)
    first = np.searchsorted(instant[spots.owner], np.arange(n + 1))
    return _Nodes(spots, first, candidate[spots.owner], landmark[spots.owner], error[spots.owner])


def _landmarks_at_their_street(spots: Spots, landmark: np.ndarray) -> Spots:
    """Leave out spots of landmarks that are farther than the nearest one by more than a carriageway; candidates keep all of theirs."""
    nearest_m = np.full(len(landmark), np.inf)
    np.minimum.at(nearest_m, spots.owner, spots.moved_m)
    return spots.take((landmark[spots.owner] < 0) | (spots.moved_m <= nearest_m[spots.owner] + _CARRIAGEWAY_M))


def _errors(candidates: Candidates, instant: np.ndarray) -> np.ndarray:
    """Error of each candidate [dB]; one not known counts as the worst of its instant."""
    error = np.asarray(candidates.error_db, dtype=float)
    worst = np.zeros(len(candidates))
    np.maximum.at(worst, instant, np.nan_to_num(error))
    return np.where(np.isfinite(error), error, worst[instant])


def _costs(nodes: _Nodes, start: int, stop: int, error_weight_m: float) -> tuple[np.ndarray | None, np.ndarray | None]:
    """What nodes and skipped instants of a trajectory cost besides motion [m]; None for nothing."""
    low, high = int(nodes.first[start]), int(nodes.first[stop])
    moved = nodes.spots.moved_m[low:high]
    if error_weight_m <= 0 and not moved.any():
        return None, None
    cost = error_weight_m * nodes.error_db[low:high] ** 2 + _NEARER * moved
    worst = np.zeros(stop - start)
    np.maximum.at(worst, np.repeat(np.arange(stop - start), np.diff(nodes.first[start : stop + 1])), cost)
    return cost, worst


def _positions(distance: MapDistance, spots: Spots, graph: Graph, paths: Paths, time_s: np.ndarray) -> np.ndarray:
    """Positions of the instants of one trajectory, shape (n, 2): chosen nodes, the way between them, and between parts straight."""
    n = len(time_s)
    xy = np.full((n, 2), np.nan)
    at = np.flatnonzero(paths.node >= 0)
    if not len(at):
        return xy
    xy[at] = spots.xy_m[paths.node[at]]
    for edge in paths.edge[paths.edge >= 0][graph.forwarding[paths.edge[paths.edge >= 0]]].tolist():
        start, end = int(graph.start[edge]), int(graph.end[edge])
        before, after = (int(np.searchsorted(graph.first, node, side="right")) - 1 for node in (start, end))
        route = distance.route(spots, start, end, float(graph.weight_m[edge]) + 1e-6)
        inside = np.arange(before + 1, after)
        whole = max(time_s[after] - time_s[before], 1e-9)
        xy[inside] = _along(route, (time_s[inside] - time_s[before]) / whole)
    missing = np.flatnonzero(np.isnan(xy[:, 0]))
    known = np.flatnonzero(np.isfinite(xy[:, 0]))
    for axis in range(2):
        xy[missing, axis] = np.interp(time_s[missing], time_s[known], xy[known, axis])
    return xy


def _along(route_m: np.ndarray, share: np.ndarray) -> np.ndarray:
    """Points at shares of the length of a route, shape (k, 2)."""
    way = np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(route_m, axis=0).T))])
    return np.column_stack([np.interp(share * way[-1], way, route_m[:, axis]) for axis in range(2)])


def _last_part(part: np.ndarray) -> np.ndarray:
    """Instants of the last part of a trajectory and what follows it."""
    last = int(part.max(initial=-1))
    return np.arange(int(np.argmax(part == last)) if last >= 0 else 0, len(part))


def _filtered(
    time_s: np.ndarray,
    xy_m: np.ndarray,
    sigma_m: np.ndarray,
    part: np.ndarray,
    settings: TrackSettings,
    distance: MapDistance,
    progress: Progress,
) -> np.ndarray:
    """The constrained Kalman filter over each part."""
    result = xy_m.copy()
    for number in range(int(part.max(initial=-1)) + 1):
        rows = np.flatnonzero(part == number)
        result[rows] = smoothed(time_s[rows], xy_m[rows], sigma_m[rows], settings.motion, distance, progress)
    return result


def _edges(nodes: _Nodes, graphs: list[tuple[int, Graph, Paths]]) -> Edges:
    """The edges of all graphs together."""
    columns: list[tuple[np.ndarray, ...]] = []
    for start, graph, paths in graphs:
        chosen = np.zeros(len(graph.start), bool)
        chosen[paths.edge[paths.edge >= 0]] = True
        instant = graph.instant + start
        base = nodes.first[start]
        columns.append(
            (
                instant[graph.start],
                instant[graph.end],
                graph.start + base,
                graph.end + base,
                graph.weight_m,
                graph.forwarding,
                chosen,
            )
        )
    if not columns:
        none = np.empty(0, np.int64)
        columns = [(none, none, none, none, np.empty(0), np.empty(0, bool), np.empty(0, bool))]
    instant, instant_to, one, other, weight, forwarding, chosen = (np.concatenate(each) for each in zip(*columns))
    place, of = nodes.spots.xy_m, nodes.candidate
    return Edges(instant, instant_to, of[one], of[other], place[one], place[other], weight, forwarding, chosen)


def _utc(time_s: float) -> str:
    return str(np.datetime64(round(time_s), "s")).replace("T", " ")


def _messages(candidates: Candidates, part: np.ndarray) -> tuple[str, ...]:
    """What the tracks lack, in sentences."""
    found: list[str] = []
    starts = candidates.starts.tolist()
    more = 0
    for start, stop in zip(starts, starts[1:]):
        name = candidates.trajectories[candidates.trajectory[start]]
        mine = part[start:stop]
        parts = int(mine.max(initial=-1)) + 1
        if parts == 0:
            text = f"Trajectory '{name}': none of its {stop - start:,} instants has a candidate that can be reached on the map."
        elif parts == stop - start and parts > 1:
            text = (
                f"Trajectory '{name}': no candidate can be reached from any other in time, so each of its {parts:,} instants is a "
                "part of its own; give a higher top speed or more slack."
            )
        elif parts > 1:
            begins = [
                int(np.flatnonzero(mine == number)[0]) + start for number in range(1, min(parts, _MOST_TIMES + 1))
            ]
            times = ", ".join(_utc(candidates.time_s[row]) for row in begins)
            rest = parts - 1 - len(begins)
            text = (
                f"Trajectory '{name}' is in {parts:,} parts: the candidates of {times}{f' and {rest:,} further times' if rest else ''} "
                "(UTC) cannot be reached from those before."
            )
        else:
            continue
        if len(found) < _MOST_MESSAGES:
            found.append(text)
        else:
            more += 1
    if more:
        found.append(f"{more:,} further trajectories are in parts or have no position.")
    return tuple(found)
