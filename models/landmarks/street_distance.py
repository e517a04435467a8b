"""Ways along streets: distances over a street network, one-ways kept."""

from __future__ import annotations

import numpy as np

from ..trajectory.streets import RouteSearch, Streets
from .map_distance import KnownLengths, Spots, straight_m

#: Nodes in squares of this side are searched together [m].
_TILE_M = 500.0


class StreetDistance:
    """Distances along streets, from one place to another in the direction of travel.

    Parameters
    ----------
    streets
        The network.
    snap_m
        A point is put on streets up to this far away [m].
    most
        Most streets that a point is put on, the nearest: a candidate between two carriageways stands for a spot on each.
    """

    def __init__(self, streets: Streets, snap_m: float = 50.0, most: int = 3) -> None:
        self.streets, self.snap_m, self.most = streets, snap_m, most
        self.known = KnownLengths(self._searched)
        self._search = RouteSearch(streets)

    def spots(self, xy_m: np.ndarray) -> Spots:
        """See `MapDistance`; `place` is the edge."""
        near = self.streets.near(np.asarray(xy_m, dtype=float).reshape(-1, 2), self.snap_m, self.most)
        owner, rank = np.nonzero(near.edge >= 0)
        edge, along = near.edge[owner, rank].astype(np.int64), near.along_m[owner, rank]
        return Spots(owner, self.streets.points_at(edge, along), edge, along, near.distance_m[owner, rank])

    def lengths_m(self, spots: Spots, start: np.ndarray, end: np.ndarray, limit_m: np.ndarray) -> np.ndarray:
        """See `MapDistance`."""
        limit = np.broadcast_to(limit_m, start.shape)
        length = np.full(len(start), np.inf)
        near = np.flatnonzero(straight_m(spots.xy_m, start, end) <= limit)
        length[near] = self._lengths(spots, start[near], end[near], limit[near]).min(axis=0)
        length[length > limit] = np.inf
        return length

    def route(self, spots: Spots, start: int, end: int, limit_m: float) -> np.ndarray:
        """See `MapDistance`."""
        streets = self.streets
        lengths = self._lengths(spots, np.array([start]), np.array([end]), np.array([limit_m]))[:, 0]
        best = int(np.argmin(lengths))
        edges, along = spots.place[[start, end]].tolist(), spots.along_m[[start, end]].tolist()
        if best == 0:
            return self._piece(edges[0], along[0], along[1])
        by_head, to_tail = best in (1, 2), best in (1, 3)
        leave = int((streets.head if by_head else streets.tail)[edges[0]])
        enter = int((streets.tail if to_tail else streets.head)[edges[1]])
        length = streets.length_m
        pieces = [self._piece(edges[0], along[0], length[edges[0]] if by_head else 0.0)]
        self._enter(streets.node_xy_m[[leave]], limit_m)
        ends = self._search.local(np.array([leave, enter]))
        nodes = self._search.paths(int(ends[0]), ends[1:], limit_m * 1.01)[0] or []
        for tail, head in zip(nodes, nodes[1:]):
            arc = streets.arc_between(tail, head)
            edge = int(streets.arc_edge[arc])
            ways = (0.0, float(length[edge]))
            pieces.append(self._piece(edge, *(ways if streets.arc_forward[arc] else ways[::-1])))
        pieces.append(self._piece(edges[1], 0.0 if to_tail else length[edges[1]], along[1]))
        return np.concatenate(pieces)

    def nearest(self, xy_m: np.ndarray) -> np.ndarray:
        """See `MapDistance`; points farther than `snap_m` from any street stay."""
        result = np.asarray(xy_m, dtype=float).copy()
        near = self.streets.near(result, self.snap_m, 1)
        there = near.edge[:, 0] >= 0
        result[there] = self.streets.points_at(near.edge[there, 0].astype(np.int64), near.along_m[there, 0])
        return result

    def _lengths(self, spots: Spots, start: np.ndarray, end: np.ndarray, limit_m: np.ndarray) -> np.ndarray:
        """Metres [m], shape (5, k): along one edge; by head to tail, head to head, tail to tail, tail to head of the other edge."""
        streets = self.streets
        from_edge, to_edge = spots.place[start], spots.place[end]
        from_m, to_m = spots.along_m[start], spots.along_m[end]
        lengths = np.full((5, len(start)), np.inf)
        ahead = to_m - from_m
        open_ = np.where(ahead >= 0, streets.forward[from_edge], streets.backward[from_edge]) | (ahead == 0)
        same = (from_edge == to_edge) & open_
        lengths[0, same] = np.abs(ahead[same])
        rest_from, rest_to = streets.length_m_of(from_edge) - from_m, streets.length_m_of(to_edge) - to_m
        leaving = ((streets.head, streets.forward, rest_from), (streets.tail, streets.backward, from_m))
        entering = ((streets.tail, streets.forward, to_m), (streets.head, streets.backward, rest_to))
        row = 1
        for leave, may_leave, out_m in leaving:
            for enter, may_enter, in_m in entering:
                possible = np.flatnonzero(may_leave[from_edge] & may_enter[to_edge] & (out_m + in_m <= limit_m))
                key = leave[from_edge[possible]] * len(streets.node_xy_m) + enter[to_edge[possible]]
                between = self.known.of(key, limit_m[possible])
                lengths[row, possible] = out_m[possible] + between + in_m[possible]
                row += 1
        return lengths

    def _enter(self, xy_m: np.ndarray, reach_m: float) -> None:
        """Search among the nodes within `reach_m` of the box around places."""
        low, high = xy_m.min(axis=0) - reach_m - 1, xy_m.max(axis=0) + reach_m + 1
        self._search.enter(self.streets.nearest_nodes(self.streets.nodes_within(low, high), (low + high) / 2))

    def _searched(self, key: np.ndarray, limit_m: np.ndarray) -> np.ndarray:
        """Metres between pairs of nodes, inf beyond `limit_m`."""
        start, end = np.divmod(key, len(self.streets.node_xy_m))
        metres = np.full(len(key), np.inf)
        if not len(key):
            return metres
        tile = np.floor(self.streets.node_xy_m[start] / _TILE_M)
        order = np.lexsort(tile.T)
        changes = np.flatnonzero((np.diff(tile[order], axis=0) != 0).any(axis=1)) + 1
        for part in np.split(order, changes):
            reach = float(limit_m[part].max())
            self._enter(self.streets.node_xy_m[start[part]], reach)
            local, target = self._search.local(start[part]), self._search.local(end[part])
            sources, which = np.unique(local[local >= 0], return_inverse=True)
            row = np.full(len(part), -1)
            row[local >= 0] = which
            for first, stop, found in self._search.distances(sources, reach):
                mine = np.flatnonzero((row >= first) & (row < stop) & (target >= 0))
                metres[part[mine]] = found[row[mine] - first, target[mine]]
        return metres

    def _piece(self, edge: int, from_m: float, to_m: float) -> np.ndarray:
        """Vertices of an edge from one place along it to another, both ends in it, shape (v, 2)."""
        streets = self.streets
        low, high = min(from_m, to_m), max(from_m, to_m)
        part = slice(int(streets.first[edge]), int(streets.first[edge + 1]))
        along = streets.position_m[part] - streets.position_m[part.start]
        inside = streets.xy_m[part][(along > low) & (along < high)]
        ends = streets.points_at(np.array([edge, edge]), np.array([low, high]))
        piece = np.concatenate([ends[:1], inside, ends[1:]])
        return piece if to_m >= from_m else piece[::-1]
