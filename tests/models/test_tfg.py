"""The Time-Forwarding Graph against its rules written out: every pair of nodes, every path."""

import time

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import dijkstra
from telcoloc.models.landmarks.map_distance import Straight
from telcoloc.models.landmarks.tfg import Graph, build_graph, shortest_paths

SPEED, SLACK = 2.0, 1.0


def scene(seed, n=7, most=4, spread=5.0):
    """Places of n instants at uneven times; some have none, some a location-oriented landmark alone."""
    rng = np.random.default_rng(seed)
    count = rng.integers(0, most + 1, n)
    mandatory = rng.random(n) < 0.2
    count[mandatory] = 1
    first = np.concatenate([[0], np.cumsum(count)])
    xy = rng.uniform(0, spread, (first[-1], 2))
    return xy, first, np.cumsum(rng.uniform(0.5, 1.5, n)), mandatory


def rules(xy, first, time_s, mandatory, most_forward, tolerance=None, open_to_all=None):
    """All edges as section 4.2 has them: {(node, node): weight}, looking at each node and span by itself."""
    n, edges = len(time_s), {}
    tolerance = np.zeros(n) if tolerance is None else tolerance
    for t in range(n):
        for i in range(first[t], first[t + 1]):
            stopped = False
            for k in range(1, most_forward + 1):
                if t + k >= n or any(mandatory[t + 1 : t + k]):
                    break
                if stopped and not (open_to_all is not None and open_to_all[t + k]):
                    continue
                limit = SPEED * (time_s[t + k] - time_s[t]) + SLACK + tolerance[t] + tolerance[t + k]
                mu = {j: np.hypot(*(xy[j] - xy[i])) for j in range(first[t + k], first[t + k + 1])}
                reachable = {j: length for j, length in mu.items() if length <= limit}
                edges.update({(i, j): length for j, length in reachable.items()})
                stopped = stopped or bool(reachable)  # M(p, S_{t+k}) is finite: no further forwarding
    return edges


def graph_of(xy, first, time_s, mandatory, most_forward, *more):
    distance = Straight()
    return build_graph(distance, distance.spots(xy), first, time_s, mandatory, SPEED, SLACK, most_forward, *more)


def every_path(edges, node):
    yield [node]
    for one, other in edges:
        if one == node:
            for rest in every_path(edges, other):
                yield [node, *rest]


def best_parts(edges, first, node_cost, skip_cost):
    """Parts by trying all paths: from any node of the first instant as far as possible, and then the cheapest."""
    instant = np.repeat(np.arange(len(first) - 1), np.diff(first))
    parts, begin = [], 0
    while begin < len(first) - 1:
        starts = range(first[begin], first[begin + 1])
        if not starts:
            begin += 1
            continue
        paths = [path for node in starts for path in every_path(edges, node)]
        last = max(instant[path[-1]] for path in paths)

        def cost(path):
            between = [skip_cost[instant[a] + 1 : instant[b]].sum() for a, b in zip(path, path[1:])]
            motion = sum(edges[pair] for pair in zip(path, path[1:]))
            return motion + node_cost[path].sum() + sum(between)

        parts.append(min((path for path in paths if instant[path[-1]] == last), key=cost))
        begin = last + 1
    return parts


@pytest.mark.parametrize("most_forward", [1, 3, 6])
def test_edges_are_those_of_the_rules(most_forward):
    forwarding = 0
    for seed in range(60):
        world = scene(seed)
        graph = graph_of(*world, most_forward)
        found = dict(zip(zip(graph.start.tolist(), graph.end.tolist()), graph.weight_m.tolist()))
        true = rules(*world, most_forward)
        assert found.keys() == true.keys()
        for pair, weight in true.items():
            assert found[pair] == pytest.approx(weight)
        spans = graph.instant[graph.end] - graph.instant[graph.start]
        np.testing.assert_array_equal(graph.forwarding, spans > 1)
        forwarding += int(graph.forwarding.sum())
        for start, end in zip(graph.instant[graph.start], graph.instant[graph.end]):
            assert not world[3][start + 1 : end].any()  # nothing leads over a location-oriented landmark
    assert (forwarding > 20) == (most_forward > 1)


def test_edges_to_landmarks_that_are_open_to_all_and_reach_farther_are_those_of_the_rules():
    more = 0
    for seed in range(60):
        world = scene(seed)
        rng = np.random.default_rng(seed)
        mandatory = world[3]
        tolerance, open_to_all = (
            rng.uniform(0, 2, len(mandatory)) * mandatory,
            mandatory & (rng.random(len(mandatory)) < 0.7),
        )
        graph = graph_of(*world, 5, tolerance, open_to_all)
        found = dict(zip(zip(graph.start.tolist(), graph.end.tolist()), graph.weight_m.tolist()))
        true = rules(*world, 5, tolerance, open_to_all)
        assert found == pytest.approx(true)
        more += len(true) - len(rules(*world, 5))
    assert more > 20


@pytest.mark.parametrize("weighted", [False, True])
def test_paths_are_the_best_of_all_paths(weighted):
    broken = 0
    for seed in range(80):
        world = scene(seed)
        xy, first, _, _ = world
        rng = np.random.default_rng(seed)
        node_cost = rng.uniform(0, 3, len(xy)) if weighted else np.zeros(len(xy))
        skip_cost = rng.uniform(0, 3, len(first) - 1) if weighted else np.zeros(len(first) - 1)
        graph = graph_of(*world, 4)
        paths = shortest_paths(graph, *((node_cost, skip_cost) if weighted else (None, None)))
        edges = rules(*world, 4)
        parts = best_parts(edges, first, node_cost, skip_cost)
        broken += len(parts) > 1
        assert paths.part.max(initial=-1) + 1 == len(parts)
        for number, part in enumerate(parts):
            rows = np.flatnonzero((paths.part == number) & (paths.node >= 0))
            mine = paths.node[rows].tolist()
            assert all(pair in edges for pair in zip(mine, mine[1:]))
            instant = graph.instant[mine]
            total = sum(edges[pair] for pair in zip(mine, mine[1:])) + node_cost[mine].sum()
            total += sum(skip_cost[a + 1 : b].sum() for a, b in zip(instant, instant[1:]))
            other = graph.instant[part]
            true = sum(edges[pair] for pair in zip(part, part[1:])) + node_cost[part].sum()
            true += sum(skip_cost[a + 1 : b].sum() for a, b in zip(other, other[1:]))
            assert total == pytest.approx(true)
            assert (instant[0], instant[-1]) == (other[0], other[-1])
        for row in np.flatnonzero(paths.edge >= 0):
            edge = paths.edge[row]
            assert graph.end[edge] == paths.node[row]
            before = paths.node[:row][paths.node[:row] >= 0][-1]
            assert graph.start[edge] == before
    assert broken > 10


def test_a_long_walk_costs_what_dijkstra_says():
    rng = np.random.default_rng(1)
    n, each = 120, 12
    first = np.arange(n + 1) * each
    xy = np.repeat(np.cumsum(rng.normal(0, 1, (n, 2)), axis=0), each, axis=0) + rng.normal(0, 1.5, (n * each, 2))
    graph = graph_of(xy, first, np.arange(n, dtype=float), np.zeros(n, bool), 5)
    paths = shortest_paths(graph)
    assert paths.part.tolist() == [0] * n
    nodes = n * each
    start = np.concatenate([graph.start, np.full(each, nodes)])
    end = np.concatenate([graph.end, np.arange(each)])
    arcs = csr_matrix(
        (np.concatenate([graph.weight_m, np.full(each, 1e-6)]), (start, end)), shape=(nodes + 1, nodes + 1)
    )
    shortest = dijkstra(arcs, indices=nodes)[first[-2] : nodes].min() - 1e-6
    assert graph.weight_m[paths.edge[paths.edge >= 0]].sum() == pytest.approx(shortest, abs=1e-9)


def test_a_landmark_that_is_a_mandatory_crossing_is_crossed_or_splits_the_path():
    line = np.array([[0.0, 0], [1, 0], [1.5, 30], [2, 0], [3, 0]])
    first, times = np.arange(6), np.arange(5, dtype=float)
    free = shortest_paths(graph_of(line, first, times, np.zeros(5, bool), 4))
    assert free.node.tolist() == [0, 1, -1, 3, 4]  # the outlier is led over
    assert free.part.tolist() == [0] * 5
    nailed = shortest_paths(graph_of(line, first, times, np.arange(5) == 2, 4))
    assert nailed.node.tolist() == [0, 1, 2, 3, 4]
    assert nailed.part.tolist() == [0, 0, 1, 2, 2]


def test_a_forwarding_edge_may_end_in_a_landmark():
    line = np.array([[0.0, 0], [40, 40], [50, 0], [3, 0]])
    graph = graph_of(line, np.arange(5), np.arange(4, dtype=float), np.arange(4) == 3, 4)
    assert (0, 3) in zip(graph.start.tolist(), graph.end.tolist())


def test_a_window_as_long_as_the_trajectory_is_the_whole_and_short_ones_are_longer_paths():
    n, each, windows = 25, 6, (2, 5, 10, 25)
    length = np.zeros(len(windows))
    for seed in range(30):
        rng = np.random.default_rng(seed)
        graph = graph_of(
            rng.uniform(0, 4, (n * each, 2)), np.arange(n + 1) * each, np.arange(n, dtype=float), np.zeros(n, bool), 3
        )
        cost = rng.uniform(0, 2, n * each)
        for which, window in enumerate(windows):
            paths = shortest_paths(graph, cost, window=window)
            assert paths.part.tolist() == [0] * n
            nodes, edges = paths.node[paths.node >= 0], paths.edge[paths.edge >= 0]
            np.testing.assert_array_equal(graph.start[edges], nodes[:-1])
            np.testing.assert_array_equal(graph.end[edges], nodes[1:])
            length[which] += graph.weight_m[edges].sum() + cost[nodes].sum()
        np.testing.assert_array_equal(paths.node, shortest_paths(graph, cost).node)
    assert length[0] > length[1] > length[2] >= length[3]


def test_a_window_knows_nothing_of_what_comes_later():
    for seed in range(20):
        xy, first, times, mandatory = scene(seed, n=12, most=5, spread=4.0)
        early = slice(0, first[8])
        whole = shortest_paths(graph_of(xy, first, times, mandatory, 3), window=4)
        cut = shortest_paths(graph_of(xy[early], first[:9], times[:8], mandatory[:8], 3), window=4)
        known = np.arange(12) <= 8 - 4  # their windows end before instant 8
        np.testing.assert_array_equal(whole.node[:8][known[:8]], cut.node[known[:8]])


def test_500_instants_of_60_candidates_are_solved_in_ten_milliseconds():
    rng = np.random.default_rng(0)
    n, each = 500, 60
    first = np.arange(n + 1) * each
    xy = np.repeat(np.cumsum(rng.normal(0, 1, (n, 2)), axis=0), each, axis=0) + rng.uniform(-5, 5, (n * each, 2))
    graph = graph_of(xy, first, np.arange(n, dtype=float), np.zeros(n, bool), 5)
    assert len(graph.start) > 100_000
    taken = []
    for _ in range(5):
        begun = time.perf_counter()
        shortest_paths(graph)
        taken.append(time.perf_counter() - begun)
    assert min(taken) < 0.05  # 10 ms on an idle core; benchmarks/tfg_speed.py measures it


def test_without_instants_or_candidates_there_is_no_path():
    none = np.empty(0, np.int64)
    empty = Graph(np.zeros(4, np.int64), none, none, np.empty(0), np.empty(0, bool))
    paths = shortest_paths(empty)
    assert paths.node.tolist() == paths.part.tolist() == [-1, -1, -1]
