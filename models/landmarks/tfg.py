"""The Time-Forwarding Graph (TFG): candidates of consecutive instants, the motion that the map allows between them, shortest paths.

Equation numbers are those of landmark_tfg.txt (sections 2.2 and 4.2). Nodes are candidates; an edge's weight is its length over the map
where that is within reach of a top speed (1). Edges are made in two steps. First those between consecutive instants. Then, for
each node p(i, t) from which no node of instants t+1 … t+k−1 can be reached (M = +∞ of (3)), *forwarding edges* to all nodes of
the first later instant t+k that can be. An instant of a location-oriented landmark has no other node (4), and no edge leads over it. A
forwarding edge that ends in one "is permitted": where no path reaches it otherwise, it comes from every node that can.

Ours, where the paper leaves it open: a path begins at any node of its first instant and ends at the best node of the last instant
that can be reached. What lies behind begins a new part.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..progress import Progress, no_progress
from .map_distance import MapDistance, Spots

#: Pairs of nodes measured at once.
_PAIRS = 200_000


@dataclass(frozen=True)
class Graph:
    """A TFG of n instants.

    Parameters
    ----------
    first
        First node of each instant, and the number of nodes at the end, shape (n + 1,).
    start, end
        Nodes that each edge leads from and to, shape (e,), sorted by `end`, then `start`.
    weight_m
        Equation (1), shape (e,) [m]; edges of weight +∞ are left out.
    forwarding
        Whether an edge leads over instants, shape (e,), bool.
    """

    first: np.ndarray
    start: np.ndarray
    end: np.ndarray
    weight_m: np.ndarray
    forwarding: np.ndarray

    @cached_property
    def instant(self) -> np.ndarray:
        """Instant of each node, shape (nodes,)."""
        return np.repeat(np.arange(len(self.first) - 1), np.diff(self.first))

    @cached_property
    def into(self) -> np.ndarray:
        """First edge into each node, and the number of edges at the end, shape (nodes + 1,)."""
        return np.searchsorted(self.end, np.arange(self.first[-1] + 1))


@dataclass(frozen=True)
class Paths:
    """The shortest path, in parts where it is broken.

    Parameters
    ----------
    node
        Node chosen at each instant, shape (n,), −1 where an instant is skipped or has none.
    edge
        Edge that leads to that node, shape (n,), −1 where none does.
    part
        Part of the path that an instant lies in, from 0, shape (n,), −1 where it lies in none (no candidate reaches over it).
    """

    node: np.ndarray
    edge: np.ndarray
    part: np.ndarray


def build_graph(
    distance: MapDistance,
    spots: Spots,
    first: np.ndarray,
    time_s: np.ndarray,
    mandatory: np.ndarray,
    top_speed_m_s: float,
    slack_m: float,
    most_forward: int,
    tolerance_m: np.ndarray | float = 0.0,
    open_to_all: np.ndarray | None = None,
    progress: Progress = no_progress,
) -> Graph:
    """Build the TFG of one trajectory.

    Parameters
    ----------
    distance, spots
        The map, and its spots: the nodes.
    first
        First node of each instant, and the end, shape (n + 1,).
    time_s
        Ascending, shape (n,) [s].
    mandatory
        Whether an instant has a location-oriented landmark, shape (n,), bool.
    top_speed_m_s, slack_m
        Th(Δ) = `top_speed_m_s` · Δt + `slack_m`, where Δt is the time between two instants; the slack is for the error of candidates.
    most_forward
        Most instants that an edge spans; 1 for no forwarding edges.
    tolerance_m
        Further slack at each end of an edge, by instant, shape (n,) [m]: how far from its landmark somebody was.
    open_to_all
        Instants to which forwarding edges lead from every node, shape (n,), bool; None for no such instant.
    """
    n = len(time_s)
    wanted = np.zeros(n, bool) if open_to_all is None else open_to_all
    tolerance = np.broadcast_to(np.asarray(tolerance_m, dtype=float), (n,))
    count = np.diff(first)
    found: list[tuple[np.ndarray, ...]] = []
    open_ = np.ones(len(spots), bool)  # from these nothing was reached yet
    clear = np.ones(len(spots), bool)  # between these and where they look lies no location-oriented landmark
    instant = np.repeat(np.arange(n), count)
    for span in range(1, min(most_forward, n - 1) + 1):
        if span > 1:
            clear &= ~mandatory[np.minimum(instant + span - 1, n - 1)]
        there = clear & (instant + span < n)
        if not there.any():
            break
        nodes = np.flatnonzero(there & (open_ | wanted[np.minimum(instant + span, n - 1)]))
        if not len(nodes):
            continue
        reached = np.zeros(len(spots), bool)
        done = 0
        for start, end in _pairs(nodes, instant, first, span):
            limit = top_speed_m_s * (time_s[instant[end]] - time_s[instant[start]]) + slack_m
            limit += tolerance[instant[start]] + tolerance[instant[end]]
            weight = distance.lengths_m(spots, start, end, limit)
            kept = np.isfinite(weight)
            found.append((start[kept], end[kept], weight[kept], np.full(int(kept.sum()), span > 1)))
            reached[start[kept]] = True
            done += len(start)
            progress((span - 1 + min(done / (1 + int(count[instant[nodes] + span].sum())), 1.0)) / most_forward)
        open_ &= ~reached
    if not found:
        none = np.empty(0, np.int64)
        return Graph(first, none, none, np.empty(0), np.empty(0, bool))
    start, end, weight, forwarding = (np.concatenate(column) for column in zip(*found))
    order = np.argsort(end * len(spots) + start)
    return Graph(first, start[order], end[order], weight[order], forwarding[order])


def _pairs(
    nodes: np.ndarray, instant: np.ndarray, first: np.ndarray, span: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield pairs of each of `nodes` and every node `span` instants later, at most about `_PAIRS` at once."""
    later = first[instant[nodes] + span]
    count = first[instant[nodes] + span + 1] - later
    upto = np.cumsum(count)
    begin = 0
    while begin < len(nodes):
        base = int(upto[begin - 1]) if begin else 0
        stop = max(begin + 1, int(np.searchsorted(upto, base + _PAIRS, side="right")))
        many = count[begin:stop]
        if many.sum():
            rank = np.arange(int(many.sum())) - np.repeat(np.cumsum(many) - many, many)
            yield np.repeat(nodes[begin:stop], many), np.repeat(later[begin:stop], many) + rank
        begin = stop


def shortest_paths(
    graph: Graph,
    node_cost_m: np.ndarray | None = None,
    skip_cost_m: np.ndarray | None = None,
    window: int | None = None,
) -> Paths:
    """Choose the path of least total weight.

    Parameters
    ----------
    node_cost_m, skip_cost_m
        What a node, and leading over an instant, cost besides [m], shapes (nodes,) and (n,); None for the paper's weights alone.
    window
        The m of the paper: the node of an instant is chosen when m instants, it the first, are known, and the path goes on from it
        (what a live position can use). None solves the whole trajectory at once, which is never longer.
    """
    solver = _Solver(graph, node_cost_m, skip_cost_m)
    n = len(graph.first) - 1
    node, edge, part = np.full(n, -1), np.full(n, -1), np.full(n, -1)
    begin, number = 0, 0
    while begin < n:
        if graph.first[begin] == graph.first[begin + 1]:
            begin += 1
            continue
        node[begin], chosen = solver.part(begin, n if window is None else max(window, 2))
        last = begin
        for each in chosen:
            last = int(solver.instant[graph.end[each]])
            node[last], edge[last] = graph.end[each], each
        part[begin : last + 1] = number
        begin, number = last + 1, number + 1
    return Paths(node, edge, part)


class _Solver:
    """Dynamic programming over the instants of a graph."""

    def __init__(self, graph: Graph, node_cost_m: np.ndarray | None, skip_cost_m: np.ndarray | None) -> None:
        self.graph, self.first = graph, graph.first.tolist()
        nodes = self.first[-1]
        self.instant = graph.instant
        self.node_cost = np.zeros(nodes) if node_cost_m is None else node_cost_m
        self.cost_of_edge = graph.weight_m
        if node_cost_m is not None:
            self.cost_of_edge = self.cost_of_edge + node_cost_m[graph.end]
        if skip_cost_m is not None:
            upto = np.concatenate([[0.0], np.cumsum(skip_cost_m)])
            leaps = np.flatnonzero(graph.forwarding)
            over = upto[self.instant[graph.end[leaps]]] - upto[self.instant[graph.start[leaps]] + 1]
            self.cost_of_edge = self.cost_of_edge.copy()
            self.cost_of_edge[leaps] += over
        self.into = graph.into
        self.ends = np.flatnonzero(np.diff(self.into))
        self.end_first = self.into[self.ends]
        self.edges_of = self.into[graph.first].tolist()  # first edge into each instant
        self.ends_of = np.searchsorted(self.ends, graph.first).tolist()
        leaps = np.flatnonzero(graph.forwarding)
        self.longest = int((self.instant[graph.end[leaps]] - self.instant[graph.start[leaps]]).max(initial=1))
        self.cost = np.full(nodes, np.inf)

    def part(self, begin: int, window: int) -> tuple[int, list[int]]:
        """First node, and the edges in their order, of the path that begins at instant `begin` and goes as far as it can."""
        n = len(self.first) - 1
        nodes = np.arange(self.first[begin], self.first[begin + 1])
        path: list[int] = []
        start = -1
        while True:
            last = self._forward(nodes, begin, min(n, begin + window))
            ahead = self._back(last, begin)
            if start < 0:
                final = self.first[last] + int(np.argmin(self.cost[self.first[last] : self.first[last + 1]]))
                start = int(self.graph.start[ahead[0]]) if ahead else final
            if not ahead:
                return start, path
            if begin + window >= n:
                return start, path + ahead
            path.append(ahead[0])
            nodes = self.graph.end[ahead[:1]]
            begin = int(self.instant[nodes[0]])

    def _forward(self, nodes: np.ndarray, begin: int, stop: int) -> int:
        """Costs of all nodes of instants `begin` to `stop` from `nodes`; returns the last instant that is reached."""
        cost, start, weight = self.cost, self.graph.start, self.cost_of_edge
        cost[self.first[begin] : self.first[stop]] = np.inf
        cost[nodes] = self.node_cost[nodes]
        # Edges from before the part must not lead into it.
        cost[self.first[max(begin - self.longest, 0)] : self.first[begin]] = np.inf
        last = begin
        for instant in range(begin + 1, stop):
            if instant - last > self.longest:
                break
            low, high = self.edges_of[instant], self.edges_of[instant + 1]
            if low == high:
                continue
            total = cost.take(start[low:high], mode="clip")  # within range; without a check
            total += weight[low:high]
            ends = slice(self.ends_of[instant], self.ends_of[instant + 1])
            best = np.minimum.reduceat(total, self.end_first[ends] - low)
            cost[self.ends[ends]] = best
            if best.min() < np.inf:
                last = instant
        return last

    def _back(self, last: int, begin: int) -> list[int]:
        """Edges, in their order, of the cheapest path to instant `last`."""
        node = self.first[last] + int(np.argmin(self.cost[self.first[last] : self.first[last + 1]]))
        path: list[int] = []
        while self.instant[node] > begin:
            low, high = self.into[node], self.into[node + 1]
            edge = int(low + np.argmin(self.cost[self.graph.start[low:high]] + self.cost_of_edge[low:high]))
            path.append(edge)
            node = int(self.graph.start[edge])
        return path[::-1]
