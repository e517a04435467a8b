"""Walks and drives over a street graph: routes, and where a traveller is when.

A traveller keeps to the speed limit and to his own, slows down in turns, and stops at some junctions (and, in a bus, at its stops),
with bounded acceleration. Positions are metres in any plane.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components, dijkstra

from ..errors import InputError

#: A speed profile is computed at places at most this far apart [m].
_STEP_M = 2.0
#: Directions that differ by more than this are a turn [°].
_TURN_DEG = 40.0
#: Slowest mean speed between two places of the profile [m/s]: where both are stops.
_CREEP_M_S = 0.3


@dataclass(frozen=True)
class Motion:
    """How one means of transport moves.

    Parameters
    ----------
    pace_m_s
        Its own highest speed [m/s], however high the limit of the street.
    pace_spread
        Standard deviation of the logarithm of the pace between journeys.
    limit_share
        Share of a street's speed limit that traffic lets one reach.
    acceleration_m_s2
        For speeding up and for braking [m/s²].
    turn_m_s
        Speed in turns [m/s].
    halt_probability
        Of a halt at a junction.
    halt_s
        Mean length of these halts, exponentially distributed [s].
    stop_every_m
        Distance between the stops of a line [m], 0 for none.
    stop_s
        Mean length of these stops, exponentially distributed [s].
    drives
        Whether one-way streets bind it.
    """

    pace_m_s: float
    pace_spread: float
    limit_share: float
    acceleration_m_s2: float
    turn_m_s: float
    halt_probability: float
    halt_s: float
    stop_every_m: float
    stop_s: float
    drives: bool


#: Walking: 1.3 m/s is the comfortable speed of adults (Bohannon and Andrews, Physiotherapy 97, 2011: 1.2 to 1.45). Cycling: 4.5 m/s in
#: towns. Cars and buses: comfortable accelerations of 1 to 1.5 m/s² (Transit Capacity and Quality of Service Manual, 3rd ed., for
#: buses); stops every 300 to 400 m and 10 to 20 s long are a town bus's. The rest: usual practice.
MOTIONS: Mapping[str, Motion] = MappingProxyType(
    {
        "walk": Motion(1.3, 0.08, 1.0, 0.5, 1.3, 0.06, 10.0, 0.0, 0.0, False),
        "bike": Motion(4.5, 0.12, 1.0, 0.6, 2.5, 0.08, 10.0, 0.0, 0.0, True),
        "car": Motion(40.0, 0.10, 0.85, 1.5, 4.0, 0.15, 20.0, 0.0, 0.0, True),
        "bus": Motion(14.0, 0.08, 0.75, 1.0, 3.5, 0.08, 12.0, 350.0, 15.0, True),
    }
)


@dataclass(frozen=True)
class Route:
    """A way through the streets.

    Parameters
    ----------
    xy_m
        Its vertices [m], shape (k, 2), k ≥ 2.
    limit_m_s
        Speed limit of each piece [m/s], shape (k − 1,).
    junction
        Whether a vertex is a node of the graph, shape (k,).
    """

    xy_m: np.ndarray
    limit_m_s: np.ndarray
    junction: np.ndarray


@dataclass(frozen=True)
class Journey:
    """Where a traveller is when.

    Parameters
    ----------
    time_s
        Ascending [s], shape (n,).
    xy_m
        Position at these times [m], shape (n, 2).
    """

    time_s: np.ndarray
    xy_m: np.ndarray


@dataclass(frozen=True)
class StreetGraph:
    """Streets that meet at their ends only. Build it with `of`.

    Parameters
    ----------
    lines
        Vertices of each street [m], each of shape (k, 2).
    tail, head
        Nodes where a street begins and ends, shape (n_streets,).
    oneway
        Whether vehicles may travel it only in the order of its vertices, shape (n_streets,), bool.
    limit_m_s
        Speed limit [m/s], shape (n_streets,).
    node_xy_m
        Nodes [m], shape (n_nodes, 2).
    """

    lines: tuple[np.ndarray, ...]
    tail: np.ndarray
    head: np.ndarray
    oneway: np.ndarray
    limit_m_s: np.ndarray
    node_xy_m: np.ndarray

    @classmethod
    def of(
        cls, lines: Sequence[np.ndarray], oneway: np.ndarray, limit_kmh: np.ndarray, snap_m: float = 0.1
    ) -> StreetGraph:
        """Build the graph; ends that are alike to `snap_m` [m] are one node. Speed limits in [km/h].

        Raises
        ------
        InputError
            When there is no street.
        """
        if not len(lines):
            raise InputError("A street graph needs at least one street.")
        points = tuple(np.asarray(line, dtype=float) for line in lines)
        ends = np.array([[line[0], line[-1]] for line in points]).reshape(-1, 2)
        _, first, node = np.unique(
            np.round(ends / snap_m).astype(np.int64), axis=0, return_index=True, return_inverse=True
        )
        tail, head = node.reshape(-1, 2).T
        limit = np.asarray(limit_kmh, dtype=float) / 3.6
        return cls(points, tail, head, np.asarray(oneway, dtype=bool), limit, ends[first])

    def part(self, streets: np.ndarray) -> StreetGraph:
        """Return the graph of some streets, a mask or indices of shape (m,)."""
        kept = np.arange(len(self.lines))[streets]
        lines = [self.lines[street] for street in kept]
        return StreetGraph.of(lines, self.oneway[kept], self.limit_m_s[kept] * 3.6)

    def well_connected(self) -> StreetGraph:
        """Return the largest part in which vehicles get from everywhere to everywhere."""
        graph = self._graph(drives=True)[0]
        _, label = connected_components(graph, directed=True, connection="strong")
        largest = np.bincount(label).argmax()
        return self.part((label[self.tail] == largest) & (label[self.head] == largest))

    def route(self, places: Sequence[int], drives: bool) -> Route:
        """Return the quickest way (the shortest one, when not driving) through nodes in turn.

        Raises
        ------
        InputError
            When a place cannot be reached from the one before it.
        """
        graph, street_of = self._graph(drives)
        pieces: list[np.ndarray] = []
        limits: list[np.ndarray] = []
        junctions: list[np.ndarray] = []
        for start, goal in zip(places[:-1], places[1:]):
            _, before = dijkstra(graph, indices=start, return_predecessors=True)
            path = [int(goal)]
            while path[-1] != start:
                if before[path[-1]] < 0:
                    raise InputError(f"Junction {goal} cannot be reached from junction {start}.")
                path.append(int(before[path[-1]]))
            for tail, head in zip(path[:0:-1], path[-2::-1]):
                street = street_of[tail, head]
                line = self.lines[street] if self.tail[street] == tail else self.lines[street][::-1]
                pieces.append(line[:-1])
                limits.append(np.full(len(line) - 1, self.limit_m_s[street]))
                junctions.append(np.arange(len(line) - 1) == 0)
        if not pieces:
            raise InputError("A route needs two different junctions.")
        xy_m = np.concatenate([*pieces, self.node_xy_m[[places[-1]]]])
        return Route(xy_m, np.concatenate(limits), np.concatenate([*junctions, [True]]))

    def _graph(self, drives: bool) -> tuple[csr_matrix, dict[tuple[int, int], int]]:
        """Cost of each arc, and its street: between two nodes the one of least cost."""
        length = np.array([np.hypot(*np.diff(line, axis=0).T).sum() for line in self.lines])
        cost = length / self.limit_m_s if drives else length
        every = np.arange(len(self.lines))
        back = ~self.oneway if drives else np.ones(len(self.lines), dtype=bool)
        tail = np.concatenate([self.tail, self.head[back]])
        head = np.concatenate([self.head, self.tail[back]])
        street = np.concatenate([every, every[back]])
        arc_cost = cost[street]
        order = np.argsort(arc_cost, kind="stable")
        pair = tail[order] * len(self.node_xy_m) + head[order]
        _, first = np.unique(pair, return_index=True)
        kept = order[first]
        kept = kept[tail[kept] != head[kept]]
        shape = (len(self.node_xy_m), len(self.node_xy_m))
        graph = coo_matrix((arc_cost[kept], (tail[kept], head[kept])), shape=shape).tocsr()
        return graph, {(int(tail[arc]), int(head[arc])): int(street[arc]) for arc in kept}


@dataclass(frozen=True)
class Timetable:
    """Where along a route a traveller is when: linear between the entries; a halt is two entries at one place.

    Parameters
    ----------
    time_s
        Since the start [s], shape (m,), ascending.
    along_m
        From the start [m], shape (m,), ascending.
    route
        The route.
    """

    time_s: np.ndarray
    along_m: np.ndarray
    route: Route

    def at(self, time_s: np.ndarray) -> np.ndarray:
        """Positions [m], shape (n, 2), at times since the start [s], shape (n,); before and after it those of its ends."""
        along = np.interp(time_s, self.time_s, self.along_m)
        vertices = _along(self.route.xy_m)
        return np.column_stack([np.interp(along, vertices, self.route.xy_m[:, axis]) for axis in range(2)])


def travel(route: Route, motion: Motion, rng: np.random.Generator) -> Timetable:
    """Draw how one journey along a route goes."""
    vertices = _along(route.xy_m)
    pace = motion.pace_m_s * np.exp(motion.pace_spread * rng.standard_normal())
    halts, halts_s = _halts(route, vertices, motion, rng)
    along = np.unique(np.concatenate([np.arange(0.0, vertices[-1], _STEP_M), vertices, halts]))
    piece = np.clip(np.searchsorted(vertices, along, side="right") - 1, 0, len(route.limit_m_s) - 1)
    before = np.clip(np.searchsorted(vertices, along, side="left") - 1, 0, len(route.limit_m_s) - 1)
    limit = np.minimum(route.limit_m_s[piece], route.limit_m_s[before])
    most = np.minimum(limit * motion.limit_share, pace)
    turns = np.searchsorted(along, vertices[1:-1][_turns(route.xy_m)])
    most[turns] = np.minimum(most[turns], motion.turn_m_s)
    most[[0, -1]] = 0.0
    stands = np.searchsorted(along, halts)
    most[stands] = 0.0
    # The greatest speed that bounded acceleration allows: v² grows by at most 2 a per metre, seen from both ends.
    ramp = 2 * motion.acceleration_m_s2 * along
    squared = np.minimum.accumulate(most**2 - ramp) + ramp
    squared = np.minimum.accumulate((squared + ramp)[::-1])[::-1] - ramp
    speed = np.sqrt(np.maximum(squared, 0.0))
    spent = np.diff(along) / np.maximum((speed[1:] + speed[:-1]) / 2, _CREEP_M_S)
    arrival = np.concatenate([[0.0], np.cumsum(spent)])
    waited = np.zeros(len(along))
    np.add.at(waited, stands, halts_s)
    departure = arrival + np.cumsum(waited)
    arrival = departure - waited
    kept = np.stack([np.ones(len(along), dtype=bool), waited > 0], axis=1).ravel()
    time_s = np.stack([arrival, departure], axis=1).ravel()[kept]
    return Timetable(time_s, np.repeat(along, 2)[kept], route)


def journey(
    timetable: Timetable, start_s: float, interval_s: float, jitter_s: float, rng: np.random.Generator
) -> Journey:
    """Sample a journey: one position about every `interval_s` [s] (standard deviation `jitter_s`) from `start_s` [s] to its end."""
    duration = float(timetable.time_s[-1])
    count = int(duration / interval_s) + 1
    steps = np.maximum(interval_s + jitter_s * rng.standard_normal(count), interval_s / 4)
    since = np.concatenate([[0.0], np.cumsum(steps)])
    since = since[since <= duration]
    return Journey(start_s + since, timetable.at(since))


def _along(xy_m: np.ndarray) -> np.ndarray:
    """Distance of each vertex from the first along a polyline [m], shape (k,)."""
    return np.concatenate([[0.0], np.cumsum(np.hypot(*np.diff(xy_m, axis=0).T))])


def _turns(xy_m: np.ndarray) -> np.ndarray:
    """Whether a polyline turns at its inner vertices, shape (k − 2,)."""
    heading = np.degrees(np.arctan2(*np.diff(xy_m, axis=0).T))
    return np.asarray(np.abs((np.diff(heading) + 180) % 360 - 180) > _TURN_DEG)


def _halts(
    route: Route, vertices: np.ndarray, motion: Motion, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Where a traveller halts [m] and how long [s], shape (n_halts,) each."""
    junctions = vertices[1:-1][route.junction[1:-1]]
    junctions = junctions[rng.random(len(junctions)) < motion.halt_probability]
    places, lengths = [junctions], [rng.exponential(motion.halt_s, len(junctions))]
    if motion.stop_every_m > 0:
        stops = np.arange(motion.stop_every_m, vertices[-1] - _STEP_M, motion.stop_every_m)
        places.append(stops)
        lengths.append(rng.exponential(motion.stop_s, len(stops)))
    return np.concatenate(places), np.concatenate(lengths)
