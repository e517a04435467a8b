"""A street network as arrays: built from polylines, searched for the streets near points, and for routes of bounded length.

Streets are polylines in metric coordinates. They become *edges* between *nodes*: ends of lines, and vertices where lines branch.
Two lines are joined where they share a vertex, as OpenStreetMap does; lines that only cross (a bridge) are not. The same line
given twice, as directed networks have it, once each way, becomes one edge open in both directions.

A *position* is one number [m]: how far along all edges, laid end to end, a place is. Every cost is bounded: a point looks at most
at `PIECES_LOOKED_AT[-1]` pieces of street, and a route search at most at `MOST_NODES` nodes.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from scipy.sparse import coo_matrix, csr_matrix
from scipy.sparse.csgraph import connected_components, dijkstra
from scipy.spatial import cKDTree

from ..errors import InputError
from ..progress import Progress, no_progress

#: Vertices closer than this are one place [m].
SNAP_M = 0.05
#: Streets are searched in straight pieces of at most this length [m].
LONGEST_PIECE_M = 50.0
#: Nearest pieces looked at for a point: first the few, then, where these are not enough, the many.
PIECES_LOOKED_AT = (32, 128)
#: A route is searched among at most this many nodes, the nearest to where it begins.
MOST_NODES = 20_000
#: Distances held at once: sources times nodes.
_MOST_DISTANCES = 2_000_000
#: Points searched at once.
_POINTS_AT_ONCE = 4096

BOTH, FORWARD, BACKWARD = 0, 1, -1


@dataclass(frozen=True)
class Candidates:
    """The nearest place on each of the nearest edges of n points, nearest first; without one, edge −1 at distance inf.

    Attributes
    ----------
    edge
        Edge, shape (n, k).
    along_m
        Distance from the edge's first vertex [m], shape (n, k).
    distance_m
        Distance from the point [m], shape (n, k).
    """

    edge: np.ndarray
    along_m: np.ndarray
    distance_m: np.ndarray


@dataclass(frozen=True)
class Streets:
    """A street network; make one with `build_streets`.

    Attributes
    ----------
    xy_m
        Vertices of all edges, one edge after the other [m], shape (v, 2).
    position_m
        Position of each vertex [m], shape (v,); the last vertex of an edge and the first of the next share theirs.
    first
        Index of each edge's first vertex, and v at the end, shape (e + 1,).
    tail, head
        Node at an edge's first and last vertex, shape (e,).
    forward, backward
        Whether an edge may be travelled in, and against, the order of its vertices, shape (e,).
    line_forward, line_backward
        The input line that an edge comes from when travelled so, shape (e,).
    node_xy_m
        Nodes [m], shape (n, 2).
    arc_first, arc_head, arc_length_m, arc_edge, arc_forward
        Directed arcs by node of departure (CSR): the shortest one where several lead from a node to another.
    """

    xy_m: np.ndarray
    position_m: np.ndarray
    first: np.ndarray
    tail: np.ndarray
    head: np.ndarray
    forward: np.ndarray
    backward: np.ndarray
    line_forward: np.ndarray
    line_backward: np.ndarray
    node_xy_m: np.ndarray
    arc_first: np.ndarray
    arc_head: np.ndarray
    arc_length_m: np.ndarray
    arc_edge: np.ndarray
    arc_forward: np.ndarray
    _piece_edge: np.ndarray = field(repr=False)
    _piece_start_m: np.ndarray = field(repr=False)
    _piece_step_m: np.ndarray = field(repr=False)
    _piece_position_m: np.ndarray = field(repr=False)
    _pieces: cKDTree = field(repr=False)
    _nodes_by_x: np.ndarray = field(repr=False)
    _nodes_x_m: np.ndarray = field(repr=False)
    _arc_keys: np.ndarray = field(repr=False)

    def __len__(self) -> int:
        return len(self.tail)

    @property
    def begin_m(self) -> np.ndarray:
        """Position of each edge's first vertex [m], shape (e,)."""
        return self.position_m[self.first[:-1]]

    @property
    def end_m(self) -> np.ndarray:
        """Position of each edge's last vertex [m], shape (e,)."""
        return self.position_m[self.first[1:] - 1]

    @property
    def length_m(self) -> np.ndarray:
        """Length of each edge [m], shape (e,)."""
        return self.end_m - self.begin_m

    def length_m_of(self, edge: np.ndarray) -> np.ndarray:
        """Length of some edges [m], of the shape of `edge`; any length for edge −1."""
        edge = np.maximum(edge, 0)
        return self.position_m[self.first[edge + 1] - 1] - self.position_m[self.first[edge]]

    def points_at(self, edge: np.ndarray, along_m: np.ndarray) -> np.ndarray:
        """Coordinates [m], shape (n, 2), of the places `along_m` from the first vertices of edges, both shape (n,)."""
        position = self.position_m[self.first[edge]] + along_m
        before = np.searchsorted(self.position_m, position, side="right") - 1
        before = np.clip(before, self.first[edge], self.first[edge + 1] - 2)
        length = self.position_m[before + 1] - self.position_m[before]
        share = np.clip((position - self.position_m[before]) / length, 0.0, 1.0)[:, None]
        return self.xy_m[before] * (1 - share) + self.xy_m[before + 1] * share

    def near(
        self,
        xy_m: np.ndarray,
        radius_m: float | np.ndarray,
        most: int,
        threads: int = 1,
        progress: Progress = no_progress,
    ) -> Candidates:
        """Find the places on at most `most` edges within `radius_m` (one or shape (n,)) of points `xy_m`, shape (n, 2)."""
        n = len(xy_m)
        radius = np.broadcast_to(np.asarray(radius_m, float), (n,))
        edge = np.full((n, most), -1, np.int32)
        position = np.zeros((n, most))
        distance = np.full((n, most), np.inf)
        half = float(np.hypot(self._piece_step_m[:, 0], self._piece_step_m[:, 1]).max(initial=0.0)) / 2
        for start in range(0, n, _POINTS_AT_ONCE):
            progress(start / n)
            rows = np.arange(start, min(start + _POINTS_AT_ONCE, n))
            for looked_at in PIECES_LOOKED_AT:
                count = min(looked_at, len(self._piece_edge))
                limit = float(radius[rows].max()) + half
                middle, piece = self._pieces.query(
                    xy_m[rows], k=np.arange(1, count + 1), distance_upper_bound=limit, workers=threads
                )
                found = self._nearest_of_pieces(xy_m[rows], radius[rows], piece, most)
                edge[rows], position[rows], distance[rows] = found
                # A piece that was not looked at is at least this far away.
                beyond = middle[:, -1] - half
                rows = rows[(beyond < radius[rows]) & (beyond < distance[rows, -1])]
                if not len(rows) or count == len(self._piece_edge):
                    break
        along = np.clip(position - self.position_m[self.first[np.maximum(edge, 0)]], 0.0, self.length_m_of(edge))
        return Candidates(edge, np.where(edge < 0, 0.0, along), distance)

    def _nearest_of_pieces(
        self, xy_m: np.ndarray, radius_m: np.ndarray, piece: np.ndarray, most: int
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Edge, position and distance of the `most` nearest edges among the pieces of each point, shape (n, pieces)."""
        n, count = piece.shape
        missing = piece == len(self._piece_edge)
        piece = np.where(missing, 0, piece)
        step_x, step_y = self._piece_step_m[piece, 0], self._piece_step_m[piece, 1]
        off_x = xy_m[:, :1] - self._piece_start_m[piece, 0]
        off_y = xy_m[:, 1:] - self._piece_start_m[piece, 1]
        length2 = step_x**2 + step_y**2
        share = np.clip((off_x * step_x + off_y * step_y) / length2, 0.0, 1.0)
        distance = np.hypot(off_x - share * step_x, off_y - share * step_y)
        distance[missing | (distance > radius_m[:, None])] = np.inf
        position = self._piece_position_m[piece] + share * np.sqrt(length2)
        edges = self._piece_edge[piece]
        every = np.arange(n)
        result_edge = np.full((n, most), -1, np.int32)
        result_position, result_distance = np.zeros((n, most)), np.full((n, most), np.inf)
        for rank in range(min(most, count)):
            best = distance.argmin(axis=1)
            least = distance[every, best]
            there = np.isfinite(least)
            if not there.any():
                break
            chosen = edges[every, best]
            result_edge[there, rank] = chosen[there]
            result_position[there, rank] = position[every, best][there]
            result_distance[:, rank] = least
            distance[edges == chosen[:, None]] = np.inf
        return result_edge, result_position, result_distance

    def nodes_within(self, low_m: np.ndarray, high_m: np.ndarray) -> np.ndarray:
        """Nodes in the box from `low_m` to `high_m` (x, y)."""
        start, stop = np.searchsorted(self._nodes_x_m, (low_m[0], high_m[0] + 1e-9))
        nodes = self._nodes_by_x[start:stop]
        y = self.node_xy_m[nodes, 1]
        return nodes[(y >= low_m[1]) & (y <= high_m[1])]

    def nearest_nodes(self, nodes: np.ndarray, centre_m: np.ndarray) -> np.ndarray:
        """At most `MOST_NODES` of `nodes`, those nearest to a place (x, y)."""
        if len(nodes) <= MOST_NODES:
            return nodes
        away = ((self.node_xy_m[nodes] - centre_m) ** 2).sum(axis=1)
        return nodes[np.argpartition(away, MOST_NODES)[:MOST_NODES]]

    def arc_between(self, tail: int, head: int) -> int:
        """Index of the shortest arc between two neighbouring nodes."""
        return int(np.searchsorted(self._arc_keys, tail * len(self.node_xy_m) + head))


class RouteSearch:
    """Bounded shortest routes between nodes, among the nodes of one neighbourhood at a time."""

    def __init__(self, streets: Streets) -> None:
        self.streets = streets
        self._local = np.full(len(streets.node_xy_m) + 1, -1, np.int32)
        self._nodes = np.empty(0, np.int64)
        self._graph = csr_matrix((0, 0))

    def enter(self, nodes: np.ndarray) -> None:
        """Search among `nodes` from now on."""
        streets, local = self.streets, self._local
        local[self._nodes] = -1
        self._nodes = nodes
        local[nodes] = np.arange(len(nodes), dtype=np.int32)
        count = streets.arc_first[nodes + 1] - streets.arc_first[nodes]
        row = np.repeat(np.arange(len(nodes)), count)
        arc = (
            np.arange(len(row))
            - np.repeat(np.cumsum(count) - count, count)
            + np.repeat(streets.arc_first[nodes], count)
        )
        head = local[streets.arc_head[arc]]
        inside = head >= 0
        per_row = np.bincount(row[inside], minlength=len(nodes))
        first = np.concatenate([[0], np.cumsum(per_row)]).astype(np.int32)
        self._graph = csr_matrix(
            (streets.arc_length_m[arc[inside]], head[inside], first), shape=(len(nodes), len(nodes))
        )

    def local(self, nodes: np.ndarray) -> np.ndarray:
        """Index of nodes in the neighbourhood, −1 for those outside; a node −1 is outside."""
        return self._local[nodes]

    def distances(self, sources: np.ndarray, limit_m: float) -> Iterator[tuple[int, int, np.ndarray]]:
        """Yield (start, stop, distances) for batches of local `sources`: lengths [m] to every node, inf beyond `limit_m`."""
        batch = max(1, _MOST_DISTANCES // max(len(self._nodes), 1))
        for start in range(0, len(sources), batch):
            stop = min(start + batch, len(sources))
            yield start, stop, dijkstra(self._graph, indices=sources[start:stop], limit=limit_m)

    def paths(self, source: int, targets: np.ndarray, limit_m: float) -> list[list[int] | None]:
        """Return the nodes of the shortest route from local `source` to each of local `targets`, both ends in it; None beyond `limit_m`."""
        _, before = dijkstra(self._graph, indices=source, limit=limit_m, return_predecessors=True)
        result: list[list[int] | None] = []
        for target in targets.tolist():
            path = [target]
            while path[-1] != source and before[path[-1]] >= 0:
                path.append(int(before[path[-1]]))
            result.append(self._nodes[path[::-1]].tolist() if path[-1] == source else None)
        return result


def build_streets(
    xy_m: np.ndarray,
    first: np.ndarray,
    direction: np.ndarray | None = None,
    split: bool = True,
    snap_m: float = SNAP_M,
    progress: Progress = no_progress,
) -> Streets:
    """Build the network of polylines.

    Parameters
    ----------
    xy_m
        Vertices of all lines, one line after the other [m], shape (v, 2).
    first
        Index of each line's first vertex, and v at the end, shape (lines + 1,).
    direction
        `BOTH`, `FORWARD` (only in the order of its vertices) or `BACKWARD` for each line; None for `BOTH`.
    split
        Whether lines are also joined at vertices inside them; otherwise only at their ends.
    snap_m
        Vertices closer than this are one place.
    progress
        May raise `Cancelled`.

    Raises
    ------
    InputError
        When no line has a length.
    """
    xy_m, first = np.asarray(xy_m, float).reshape(-1, 2), np.asarray(first, np.int64)
    line = np.repeat(np.arange(len(first) - 1), np.diff(first))
    travel = np.zeros(len(first) - 1, np.int8) if direction is None else np.asarray(direction, np.int8)
    place, places_m = _places(xy_m, snap_m)
    progress(0.3)
    # Repeated places within a line, and lines of one place, are left out.
    new = np.ones(len(place), bool)
    new[1:] = (place[1:] != place[:-1]) | (line[1:] != line[:-1])
    place, line = place[new], line[new]
    per_line = np.bincount(line, minlength=len(travel))
    usable = per_line[line] > 1
    place, line = place[usable], line[usable]
    if not len(place):
        raise InputError("No street has a length; a network needs at least one line with two different points.")
    is_first = np.ones(len(line), bool)
    is_first[1:] = line[1:] != line[:-1]
    is_last = np.roll(is_first, -1)
    is_node = _ends_or_branches(place, is_first, is_last, len(places_m), split)[place] | is_first | is_last
    progress(0.4)
    # Edges run from node to node; a vertex between two edges of a line belongs to both.
    edge_from = np.flatnonzero(is_node & ~is_last)
    edge_to = np.flatnonzero(is_node & ~is_first)
    merged = _merge_equal(place, edge_from, edge_to, line, travel)
    edge_from, edge_to = edge_from[merged.kept], edge_to[merged.kept]
    progress(0.6)
    count = edge_to - edge_from + 1
    edge_first = np.concatenate([[0], np.cumsum(count)])
    vertex = np.arange(edge_first[-1]) - np.repeat(edge_first[:-1] - edge_from, count)
    vertex_xy = places_m[place[vertex]]
    step = np.hypot(*np.diff(vertex_xy, axis=0).T)
    step[edge_first[1:-1] - 1] = 0.0
    position = np.concatenate([[0.0], np.cumsum(step)])
    node_places, node = np.unique(np.concatenate([place[edge_from], place[edge_to]]), return_inverse=True)
    tail, head = node[: len(edge_from)], node[len(edge_from) :]
    length = position[edge_first[1:] - 1] - position[edge_first[:-1]]
    arcs = _arcs(tail, head, length, merged.forward, merged.backward, len(node_places))
    progress(0.8)
    pieces = _pieces(vertex_xy, position, edge_first)
    return Streets(
        vertex_xy,
        position,
        edge_first,
        tail,
        head,
        merged.forward,
        merged.backward,
        merged.line_forward,
        merged.line_backward,
        places_m[node_places],
        *arcs[1:],
        *pieces,
        cKDTree(pieces[1] + pieces[2] / 2),
        np.argsort(places_m[node_places, 0], kind="stable"),
        np.sort(places_m[node_places, 0]),
        arcs[0],
    )


def _places(xy_m: np.ndarray, snap_m: float) -> tuple[np.ndarray, np.ndarray]:
    """Place of each vertex, shape (v,), and coordinates of the places: vertices closer than `snap_m` share one."""
    origin = xy_m.min(axis=0) if len(xy_m) else np.zeros(2)
    rounded = np.round((xy_m - origin) / (snap_m / 10)).astype(np.int64)
    order = np.lexsort(rounded.T)
    different = np.ones(len(order), bool)
    different[1:] = (rounded[order][1:] != rounded[order][:-1]).any(axis=1)
    place = np.empty(len(order), np.int64)
    place[order] = np.cumsum(different) - 1
    places_m = xy_m[order[different]]
    close = cKDTree(places_m).query_pairs(snap_m, output_type="ndarray") if len(places_m) else np.empty((0, 2), int)
    if not len(close):
        return place, places_m
    shape = (len(places_m), len(places_m))
    _, group = connected_components(coo_matrix((np.ones(len(close)), close.T), shape=shape), directed=False)
    _, leader = np.unique(group, return_index=True)
    return group[place].astype(np.int64), places_m[leader]


def _ends_or_branches(
    place: np.ndarray, is_first: np.ndarray, is_last: np.ndarray, n_places: int, split: bool
) -> np.ndarray:
    """Which places are nodes, shape (n_places,): ends of lines and, when lines are split, places with other than two neighbours."""
    node = np.zeros(n_places, bool)
    if not split:
        return node
    node[place[is_first | is_last]] = True
    pairs = np.stack([place[:-1], place[1:]])[:, ~is_last[:-1]]
    key = np.unique(pairs.min(axis=0) * n_places + pairs.max(axis=0))
    degree = np.bincount(key // n_places, minlength=n_places) + np.bincount(key % n_places, minlength=n_places)
    return node | (degree != 2)


@dataclass(frozen=True)
class _Merged:
    """Edges after equal ones became one."""

    kept: np.ndarray
    forward: np.ndarray
    backward: np.ndarray
    line_forward: np.ndarray
    line_backward: np.ndarray


def _merge_equal(
    place: np.ndarray, edge_from: np.ndarray, edge_to: np.ndarray, line: np.ndarray, travel: np.ndarray
) -> _Merged:
    """Make one of edges along the same places, in either order."""
    start, end = place[edge_from], place[edge_to]
    second, last_but_one = place[edge_from + 1], place[edge_to - 1]
    turned = (start > end) | ((start == end) & (second > last_but_one))
    total = np.concatenate([[0], np.cumsum(place)])
    between = total[edge_to] - total[edge_from + 1]  # the sum of the places inside
    low, high = np.where(turned, end, start), np.where(turned, start, end)
    near_low, near_high = np.where(turned, last_but_one, second), np.where(turned, second, last_but_one)
    key = np.stack([low, high, near_low, near_high, edge_to - edge_from, between])
    order = np.lexsort(key)
    different = np.ones(len(order), bool)
    different[1:] = (key[:, order[1:]] != key[:, order[:-1]]).any(axis=0)
    group = np.empty(len(order), np.int64)
    group[order] = np.cumsum(different) - 1
    _, kept = np.unique(group, return_index=True)  # the first of each, in no particular order
    rank = np.empty(len(kept), np.int64)
    rank[np.argsort(kept, kind="stable")] = np.arange(len(kept))
    group, kept = rank[group], np.sort(kept)
    against = turned != turned[kept][group]
    own = travel[line[edge_from]]
    along = np.where(against, own != FORWARD, own != BACKWARD)
    back = np.where(against, own != BACKWARD, own != FORWARD)
    forward, backward = np.zeros(len(kept), bool), np.zeros(len(kept), bool)
    forward[group[along]] = True
    backward[group[back]] = True
    line_forward, line_backward = line[edge_from[kept]], line[edge_from[kept]]
    for lines, members in ((line_forward, along), (line_backward, back)):
        chosen = np.flatnonzero(members)[::-1]  # the first one given wins
        lines[group[chosen]] = line[edge_from[chosen]]
    return _Merged(kept, forward, backward, line_forward, line_backward)


def _arcs(
    tail: np.ndarray, head: np.ndarray, length_m: np.ndarray, forward: np.ndarray, backward: np.ndarray, n_nodes: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Keys, CSR starts, heads, lengths, edges and directions of the arcs, the shortest of parallel ones; loops lead nowhere else."""
    edges = np.concatenate([np.flatnonzero(forward), np.flatnonzero(backward)])
    ahead = np.arange(len(edges)) < forward.sum()
    start, end = np.where(ahead, tail[edges], head[edges]), np.where(ahead, head[edges], tail[edges])
    key = start * n_nodes + end
    order = np.lexsort((length_m[edges], key))
    order = order[start[order] != end[order]]
    shortest = np.ones(len(order), bool)
    shortest[1:] = key[order[1:]] != key[order[:-1]]
    order = order[shortest]
    first = np.searchsorted(start[order], np.arange(n_nodes + 1))
    return key[order], first, end[order], length_m[edges[order]], edges[order], ahead[order]


def _pieces(
    xy_m: np.ndarray, position_m: np.ndarray, first: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Edge, start, step and position of straight pieces of at most `LONGEST_PIECE_M`."""
    within = np.ones(len(xy_m), bool)
    within[first[1:] - 1] = False
    start = np.flatnonzero(within)
    edge = np.repeat(np.arange(len(first) - 1), np.diff(first) - 1)
    step = xy_m[start + 1] - xy_m[start]
    length = position_m[start + 1] - position_m[start]
    count = np.maximum(np.ceil(length / LONGEST_PIECE_M), 1).astype(np.int64)
    part = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    share = part / np.repeat(count, count)
    begin = np.repeat(xy_m[start], count, axis=0) + np.repeat(step, count, axis=0) * share[:, None]
    position = np.repeat(position_m[start], count) + np.repeat(length, count) * share
    return (
        np.repeat(edge, count).astype(np.int32),
        begin,
        np.repeat(step / count[:, None], count, axis=0),
        position,
    )


_ONEWAY = {
    **dict.fromkeys(("yes", "true", "1", "y", "f", "ft", "forward", "along"), FORWARD),
    **dict.fromkeys(("-1", "reverse", "t", "tf", "backward", "against"), BACKWARD),
    **dict.fromkeys(("", "no", "false", "0", "n", "b", "both", "alternating", "reversible", "none", "null"), BOTH),
}


def oneway_of(value: object) -> int | None:
    """Read a one-way mark: `FORWARD`, `BACKWARD` or `BOTH`, None for what is none.

    OpenStreetMap's yes, true, 1, -1, reverse, no, false, 0, alternating and reversible; truth values; F, T and B (from, to, both) and
    FT and TF of commercial maps; upper and lower case are alike, and nothing means both ways.
    """
    if value is None:
        return BOTH
    if isinstance(value, bool):
        return FORWARD if value else BOTH
    if isinstance(value, (int, float)):
        value = int(value) if np.isfinite(value) and value == int(value) else value
    return _ONEWAY.get(str(value).strip().lower())
