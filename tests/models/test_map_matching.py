"""Map matching against brute force: every sequence of states on tiny networks, with routes from a Dijkstra of our own."""

import heapq
import itertools
import time

import numpy as np
import pytest
from telcoloc.models.errors import Cancelled, InputError
from telcoloc.models.trajectory import map_matching, streets
from telcoloc.models.trajectory.map_matching import Matching, emission_log, match, snap_sequences, transition_log
from telcoloc.models.trajectory.streets import BACKWARD, BOTH, FORWARD, RouteSearch, build_streets


def network(*lines, direction=None, **options):
    """Streets of lists of (x, y)."""
    first = np.cumsum([0, *map(len, lines)])
    return build_streets(np.array([point for line in lines for point in line], float), first, direction, **options)


def grid(side=6, spacing=100.0, seed=0, one_way=False):
    """A grid of streets, crossings moved a little at random."""
    rng = np.random.default_rng(seed)
    place = {
        (i, j): (i * spacing + rng.normal(0, 8), j * spacing + rng.normal(0, 8))
        for i in range(side)
        for j in range(side)
    }
    lines = [[place[i, j], place[i + 1, j]] for i in range(side - 1) for j in range(side)]
    lines += [[place[i, j], place[i, j + 1]] for i in range(side) for j in range(side - 1)]
    direction = rng.integers(-1, 2, len(lines)) if one_way else None
    return network(*lines, direction=direction)


# An oracle that shares nothing with the code but the network's arrays


def arcs_of(net):
    arcs = {}
    for edge in range(len(net)):
        length = float(net.length_m[edge])
        for open_, a, b in ((net.forward, net.tail, net.head), (net.backward, net.head, net.tail)):
            if open_[edge]:
                arcs.setdefault(int(a[edge]), []).append((int(b[edge]), length))
    return arcs


def dijkstra(arcs, source):
    found, heap = {}, [(0.0, source)]
    while heap:
        way, node = heapq.heappop(heap)
        if node not in found:
            found[node] = way
            for other, length in arcs.get(node, ()):
                heapq.heappush(heap, (way + length, other))
    return found


def nearest_on(net, edge, point):
    """(distance, distance along) of the nearest place of an edge, segment by segment."""
    best, way = (np.inf, 0.0), 0.0
    vertices = net.xy_m[net.first[edge] : net.first[edge + 1]]
    for a, b in zip(vertices[:-1], vertices[1:]):
        length = float(np.hypot(*(b - a)))
        share = min(max(float((point - a) @ (b - a)) / length**2, 0.0), 1.0)
        best = min(best, (float(np.hypot(*(point - a - share * (b - a)))), way + share * length))
        way += length
    return best


def states_of(net, point, radius):
    """[(edge, forward, distance, along)] within the radius."""
    near = [(edge, *nearest_on(net, edge, point)) for edge in range(len(net))]
    return [
        (edge, ahead, distance, along)
        for edge, distance, along in near
        if distance <= radius
        for ahead in (True, False)
        if (net.forward if ahead else net.backward)[edge]
    ]


def steps_between(net, ways, one, other, sigma):
    """(route, number of turns) of each way from one state to another, in the terms of the model."""
    (edge, ahead, _, along), (edge2, ahead2, _, along2) = one, other
    length, length2 = float(net.length_m[edge]), float(net.length_m[edge2])
    found = []
    for turn in (0, 1):
        leaving = ahead != bool(turn)
        if not (net.forward if leaving else net.backward)[edge]:
            continue
        if edge == edge2 and leaving == ahead2:
            onward = (along2 - along) * (1 if leaving else -1)
            if onward >= -3 * np.sqrt(2) * sigma:
                found.append((onward, turn))
                continue
        rest = length - along if leaving else along
        way_in = along2 if ahead2 else length2 - along2
        out, behind = (net.head, net.tail) if leaving else (net.tail, net.head)
        into, beyond = (net.tail, net.head) if ahead2 else (net.head, net.tail)
        way = ways[int(out[edge])].get(int(into[edge2]), np.inf)
        two_way, two_way2 = net.forward[edge] and net.backward[edge], net.forward[edge2] and net.backward[edge2]
        back = edge == edge2 and leaving != ahead2
        back |= bool(two_way and way >= ways[int(behind[edge])].get(int(into[edge2]), np.inf) + length - 1e-6)
        back |= bool(two_way2 and way >= ways[int(out[edge])].get(int(beyond[edge2]), np.inf) + length2 - 1e-6)
        found.append((rest + way + way_in, turn + back))
    return [each for each in found if np.isfinite(each[0])]


def brute_force(net, points, sigma, beta, radius=60.0, turn=8.0):
    """(best log-likelihood, posterior of each edge at each point) over every sequence of states."""
    ways = [dijkstra(arcs_of(net), node) for node in range(len(net.node_xy_m))]
    states = [states_of(net, point, radius) for point in points]
    emissions = [[-0.5 * (s[2] / sigma) ** 2 - np.log(np.sqrt(2 * np.pi) * sigma) for s in each] for each in states]
    moves = []
    for a, b, before, after in zip(points[:-1], points[1:], states[:-1], states[1:]):
        step = float(np.hypot(*(a - b)))
        least = np.sqrt(max(step**2 - 4 * sigma**2, 0.0))

        def cost(x, y, step=step, least=least):
            ways_there = steps_between(net, ways, x, y, sigma)
            differs = [(step if r < 0 else max(r - step, least - r, 0.0), t) for r, t in ways_there]
            return max((-d / beta - np.log(beta) - turn * t for d, t in differs), default=-np.inf)

        moves.append([[cost(x, y) for y in after] for x in before])
    totals = {}
    for path in itertools.product(*(range(len(each)) for each in states)):
        total = sum(emission[state] for emission, state in zip(emissions, path))
        total += sum(move[x][y] for move, x, y in zip(moves, path[:-1], path[1:]))
        totals[path] = total
    best = max(totals.values())
    if not np.isfinite(best):
        return best, [], []
    weight = {path: np.exp(total - best) for path, total in totals.items()}
    posterior = []
    for number, each in enumerate(states):
        share = {}
        for path, value in weight.items():
            edge = each[path[number]][0]
            share[edge] = share.get(edge, 0.0) + value
        posterior.append({edge: value / sum(weight.values()) for edge, value in share.items()})
    paths = [path for path, total in totals.items() if total > best - 1e-9]
    return best, posterior, [[states[n][s][0] for n, s in enumerate(path)] for path in paths]


@pytest.mark.parametrize("one_way", [False, True])
@pytest.mark.parametrize("seed", range(12))
def test_the_path_is_the_likeliest_of_all(seed, one_way, monkeypatch):
    monkeypatch.setattr(map_matching, "_FIRST_M", 5000.0)  # the oracle's routes are as long as they are
    rng = np.random.default_rng(seed)
    net = grid(3, seed=seed, one_way=one_way)
    points = np.cumsum(rng.normal([35, 20], 25, (4, 2)), axis=0) + rng.uniform(0, 60, 2)
    states = [states_of(net, point, 60.0) for point in points]
    if not all(0 < len(each) <= 12 for each in states):
        points = points[[0 < len(each) <= 12 for each in states]]
    if len(points) < 2:
        pytest.skip("no streets near these points")
    best, posterior, paths = brute_force(net, points, 12.0, 9.0)
    settings = Matching(sigma_m=12.0, beta_m=9.0, radius_m=60.0, candidates=12)
    found = match(net, points, settings=settings)
    if not np.isfinite(best):  # no way through: the path is split
        assert found.stretches > 1
        return
    assert found.stretches == 1
    assert found.log_likelihood.sum() == pytest.approx(best, abs=1e-6)
    assert found.edge.tolist() in paths
    for number, edge in enumerate(found.edge.tolist()):
        assert found.confidence[number] == pytest.approx(posterior[number][edge], abs=1e-6)


def test_equations():
    assert emission_log(np.array([0.0]), 4.0)[0] == pytest.approx(np.log(1 / (np.sqrt(2 * np.pi) * 4)))
    assert emission_log(np.array([8.0]), 4.0)[0] - emission_log(np.array([0.0]), 4.0)[0] == pytest.approx(-2)
    assert transition_log(np.array([10.0]), np.array([16.0]), 3.0)[0] == pytest.approx(np.log(np.exp(-2) / 3))


# Networks


def test_lines_join_where_they_share_a_vertex_and_not_where_they_cross():
    main = [(0, 0), (100, 0), (200, 0)]
    net = network(main, [(100, 0), (100, 80)], [(50, -50), (50, 50)])
    assert len(net) == 4
    assert sorted(net.length_m.tolist()) == [80, 100, 100, 100]
    assert len(net.node_xy_m) == 6
    whole = network(main, [(100, 0), (100, 80)], split=False)
    assert sorted(whole.length_m.tolist()) == [80, 200]


def test_vertices_almost_alike_are_one_place():
    for gap in (0.0, 0.004, 0.04):
        net = network([(0, 0), (100, 0)], [(100 + gap, gap / 2), (200, 0)])
        assert len(net.node_xy_m) == 3
    assert len(network([(0, 0), (100, 0)], [(100.2, 0), (200, 0)]).node_xy_m) == 4


def test_a_line_given_once_each_way_is_one_edge():
    there = [(0, 0), (50, 10), (100, 0)]
    net = network(there, there[::-1], [(100, 0), (100, 50)], direction=[FORWARD, FORWARD, BACKWARD])
    assert len(net) == 2
    both = int(np.flatnonzero(net.length_m > 60)[0])
    assert net.forward[both]
    assert net.backward[both]
    assert {int(net.line_forward[both]), int(net.line_backward[both])} == {0, 1}
    one = 1 - both
    assert not net.forward[one]
    assert net.backward[one]
    assert net.line_backward[one] == 2


def test_repeated_vertices_and_lines_of_one_point_do_not_count():
    net = network([(0, 0), (0, 0), (30, 40), (30, 40)], [(5, 5), (5, 5)], [(7, 7)])
    assert net.length_m.tolist() == [50]
    with pytest.raises(InputError, match="No street has a length"):
        network([(5, 5), (5, 5)])


def test_nearest_places_are_those_of_brute_force():
    rng = np.random.default_rng(3)
    net = grid(5, seed=3)
    points = rng.uniform(-50, 450, (60, 2))
    found = net.near(points, 130.0, 8)
    for point, edges, along, distance in zip(points, found.edge, found.along_m, found.distance_m):
        every = sorted((*nearest_on(net, edge, point), edge) for edge in range(len(net)))
        expected = [(d, e, a) for d, a, e in every if d <= 130.0][:8]
        there = edges >= 0
        assert there.sum() == len(expected)
        np.testing.assert_allclose(distance[there], [each[0] for each in expected], atol=1e-9)
        for edge, where, d in zip(edges[there], along[there], distance[there]):
            assert nearest_on(net, edge, point) == pytest.approx((d, where), abs=1e-6)


def test_routes_are_those_of_an_independent_dijkstra():
    net = grid(6, seed=5, one_way=True)
    search = RouteSearch(net)
    nodes = np.arange(len(net.node_xy_m))
    search.enter(nodes)
    for start, stop, lengths in search.distances(nodes[:9], 350.0):
        for source, row in zip(range(start, stop), lengths):
            oracle = dijkstra(arcs_of(net), source)
            expected = [oracle.get(node, np.inf) if oracle.get(node, np.inf) <= 350 else np.inf for node in nodes]
            np.testing.assert_allclose(row, expected)


# Behaviour


def drive(net, seed, points=60, sigma=6.0, step=11.0):
    """A drive along shortest ways: (noisy points, true edges, length)."""
    rng = np.random.default_rng(seed)
    search = RouteSearch(net)
    search.enter(np.arange(len(net.node_xy_m)))
    path = None
    while path is None or len(path) < 8:
        start, end = rng.choice(len(net.node_xy_m), 2, replace=False)
        (path,) = search.paths(int(start), np.array([end]), np.inf)
    arcs = [net.arc_between(a, b) for a, b in zip(path[:-1], path[1:])]
    way = np.concatenate([[0], np.cumsum(net.arc_length_m[arcs])])
    done = np.arange(2, way[-1], step)[:points]
    on = np.searchsorted(way, done, side="right") - 1
    edge = net.arc_edge[arcs][on]
    along = np.where(net.arc_forward[arcs][on], done - way[on], net.arc_length_m[arcs][on] - (done - way[on]))
    true = net.points_at(edge, along)
    return true + rng.normal(0, sigma, true.shape), edge, done[-1] - done[0]


@pytest.mark.parametrize("skip", [False, True])
def test_a_drive_is_found_again(skip):
    net = grid(9, seed=2, one_way=False)
    right, lengths = [], []
    for seed in range(8):
        points, edges, length = drive(net, seed)
        found = match(net, points, settings=Matching(sigma_m=6.0, skip_close=skip))
        assert found.stretches == 1
        assert (found.edge >= 0).all()
        right.append((found.edge == edges).mean())
        lengths.append(np.hypot(*np.diff(found.route_xy_m, axis=0).T).sum() / length)
    assert np.mean(right) > 0.9
    assert np.mean(lengths) == pytest.approx(1, abs=0.06)


def test_routes_lie_on_streets_and_measures_rise_from_point_to_point():
    net = grid(8, seed=4)
    points, _, _ = drive(net, 3, sigma=10.0)
    times = 1_700_000_000 + 2.0 * np.arange(len(points))
    found = match(net, points, times, settings=Matching(sigma_m=10.0))
    assert (np.diff(found.route_m) >= 0).all()
    assert found.route_m[0] == times[0]
    assert found.route_m[-1] == times[-1]
    middles = (found.route_xy_m[1:] + found.route_xy_m[:-1]) / 2
    assert net.near(middles, 5.0, 1).distance_m.max() < 1e-6
    # Each matched point is on the route at its time.
    x, y = (np.interp(times, found.route_m, found.route_xy_m[:, axis]) for axis in range(2))
    np.testing.assert_allclose(np.column_stack([x, y]), found.xy_m, atol=1e-3)
    np.testing.assert_allclose(found.offset_m, np.hypot(*(found.xy_m - points).T))


def test_order_of_the_points_does_not_matter():
    net = grid(8, seed=4)
    points = np.concatenate([drive(net, seed)[0] for seed in (1, 2)])
    code = np.repeat([7, 3], len(points) // 2 + 1)[: len(points)]
    times = np.arange(len(points)) * 3.0
    shuffle = np.random.default_rng(0).permutation(len(points))
    found = match(net, points, times, code)
    again = match(net, points[shuffle], times[shuffle], code[shuffle])
    np.testing.assert_array_equal(found.xy_m[shuffle], again.xy_m)
    np.testing.assert_array_equal(found.stretch[shuffle], again.stretch)


def test_one_way_streets_are_kept():
    block = [(0, 0), (200, 0)], [(200, 0), (200, 100)], [(200, 100), (0, 100)], [(0, 100), (0, 0)]
    eastward = np.column_stack([np.arange(20, 190, 15.0), np.full(12, 3.0)])
    free = match(network(*block), eastward[::-1])
    assert free.forward.tolist() == [False] * 12
    ring = network(*block, direction=[FORWARD] * 4)
    along = match(ring, eastward)
    assert along.forward.all()
    assert along.stretches == 1
    assert along.xy_m[:, 1].tolist() == [0.0] * 12
    against = match(ring, eastward[::-1], settings=Matching(sigma_m=4.0))
    assert against.stretches == 1  # as often around the block as it takes
    west = (
        (np.diff(against.route_xy_m[:, 0]) < 0) & (against.route_xy_m[1:, 1] == 0) & (against.route_xy_m[:-1, 1] == 0)
    )
    assert not west.any()


def test_noise_does_not_send_a_car_around_the_block():
    block = [(0, 0), (200, 0)], [(200, 0), (200, 100)], [(200, 100), (0, 100)], [(0, 100), (0, 0)]
    for direction in ([FORWARD] * 4, [BACKWARD] * 4, None):
        net = network(*block, direction=direction)
        x = np.array([30, 45, 41, 60, 52, 75, 90, 88, 110.0])
        if direction is not None and direction[0] == BACKWARD:
            x = x[::-1]
        found = match(net, np.column_stack([x, np.full(9, 2.0)]), settings=Matching(sigma_m=8.0))
        assert found.stretches == 1
        assert np.hypot(*np.diff(found.route_xy_m, axis=0).T).sum() < 90


def test_a_long_silence_begins_a_new_stretch():
    net = network([(0, 0), (1000, 0)])
    points = np.column_stack([np.arange(0, 1000, 100.0), np.zeros(10)])
    times = np.arange(10) * 10.0
    times[5:] += 500
    found = match(net, points, times)
    assert found.stretch.tolist() == [0] * 5 + [1] * 5
    assert match(net, points, times, settings=Matching(max_gap_s=600)).stretches == 1
    assert match(net, points).stretches == 1


def test_a_gap_in_the_network_does_not_end_the_run():
    """LeuvenMapMatching stops at the first gap (its issues 42 and 45)."""
    net = network([(0, 0), (300, 0)], [(400, 0), (700, 0)])
    points = np.column_stack([np.arange(10, 700, 20.0), np.ones(35)])
    found = match(net, points, settings=Matching(radius_m=30.0))
    assert found.stretches == 2
    assert found.edge[0] != found.edge[-1]
    off = found.edge < 0
    assert off.sum() == 3
    assert ((points[off, 0] > 329) & (points[off, 0] < 371)).all()


def test_points_off_the_road_stay_where_they_are():
    net = network([(0, 0), (500, 0)])
    points = np.array([[10, 2], [30, -1], [50, 300], [70, 1], [5000, 5000], [90, 0]], float)
    found = match(net, points)
    assert found.edge.tolist() == [0, 0, -1, 0, -1, 0]
    np.testing.assert_array_equal(found.xy_m[[2, 4]], points[[2, 4]])
    assert np.isnan(found.offset_m[[2, 4]]).all()
    assert found.line.tolist() == [0, 0, -1, 0, -1, 0]
    assert found.stretches == 1


def test_an_outlier_is_left_out():
    net = network([(0, 0), (500, 0)], [(0, 2000), (500, 2000)])
    points = np.array([[x, 1.0] for x in range(10, 200, 20)])
    points[4] = 60, 2001
    found = match(net, points, np.arange(10) * 2.0)
    assert found.stretches == 1
    assert found.edge.tolist() == [0] * 4 + [-1] + [0] * 5


def test_a_route_longer_than_first_looked_for_is_found():
    detour = [(0, 0), (300, 0)], [(300, 0), (300, 900), (340, 900), (340, 0)], [(340, 0), (700, 0)]
    net = network(*detour)
    points = np.array([[280, 0], [290, 0], [350, 0], [360, 0]], float)
    found = match(net, points, settings=Matching(radius_m=20.0, sigma_m=4.0))
    assert found.stretches == 1
    assert np.hypot(*np.diff(found.route_xy_m, axis=0).T).sum() > 1800
    assert match(net, points, settings=Matching(radius_m=20.0, sigma_m=4.0, max_detour_m=900.0)).stretches == 2
    fast = match(net, points, np.arange(4) * 5.0, settings=Matching(radius_m=20.0, sigma_m=4.0))
    assert fast.stretches == 2  # 1,800 m in 5 s


def test_coarse_points_are_trusted_less():
    net = network([(0, 0), (1000, 0)], [(0, 60), (1000, 60)])
    points = np.array([[x, 2.0] for x in range(0, 300, 20)])
    points[7, 1] = 59
    sigma = np.full(15, 5.0)
    sigma[7] = 80.0
    found = match(net, points, sigma_m=sigma)
    assert (found.edge == 0).all()


def test_snapping_sequences():
    net = grid(8, seed=4)
    points, _, _ = drive(net, 3)
    code, times = np.zeros(len(points), int), np.arange(len(points)) * 1.0
    x, y = snap_sequences(code, times, points[:, 0], points[:, 1], net, np.full(len(points), 6.0))
    assert net.near(np.column_stack([x, y]), 1.0, 1).distance_m.max() < 1e-6
    x, y = snap_sequences(code, times, points[:, 0] + 1e5, points[:, 1], net)
    np.testing.assert_array_equal(x, points[:, 0] + 1e5)


@pytest.mark.parametrize("points", [np.empty((0, 2)), [[3.0, 4.0]], [[1e6, 0.0]], [[3.0, 4.0]] * 5])
def test_few_points(points):
    found = match(grid(3), np.array(points))
    assert len(found.edge) == len(points)
    assert found.stretches == (1 if len(points) and points[0][0] < 1e5 else 0)
    assert len(found.route_first) == found.stretches + 1


def test_what_is_not_finite_is_refused():
    with pytest.raises(InputError, match="finite"):
        match(grid(3), np.array([[np.nan, 0.0]]))
    with pytest.raises(InputError, match="finite"):
        match(grid(3), np.zeros((1, 2)), np.array([np.inf]))


@pytest.mark.parametrize("skip", [False, True])
def test_a_run_cut_into_chunks_is_one_stretch(monkeypatch, skip):
    net = grid(9, seed=2)
    points, _, _ = drive(net, 5)
    points = np.concatenate([points, points[::-1], points, points[::-1]])
    points[33] += 5000
    settings = Matching(sigma_m=6.0, skip_close=skip)
    whole = match(net, points, settings=settings)
    monkeypatch.setattr(map_matching, "_CHUNK", 1)
    monkeypatch.setattr(map_matching, "_SMALLEST_CHUNK", 30)
    cut = match(net, points, settings=settings)
    assert cut.stretches == whole.stretches == 1
    assert (np.diff(cut.route_m) >= 0).all()
    assert len(cut.edge) == len(points)
    assert (cut.edge == whole.edge).mean() > 0.97
    assert (np.isfinite(cut.offset_m) == np.isfinite(whole.offset_m)).all()


def test_cancelled_at_once():
    calls = []

    def progress(fraction):
        assert 0 <= fraction <= 1
        calls.append(fraction)
        if len(calls) > 5:
            raise Cancelled("stop")

    net = grid(9, seed=2)
    points = np.concatenate([drive(net, seed)[0] for seed in range(5)])
    with pytest.raises(Cancelled):
        match(net, points, progress=progress)


def test_a_dense_knot_of_streets_does_not_freeze():
    """20,000 streets within 40 m, all joined: what froze Offline-MapMatching (its issues 32 and 49)."""
    rng = np.random.default_rng(0)
    ends = rng.uniform(0, 40, (20_000, 2, 2))
    ends[:, 0] = ends[rng.integers(0, 500, 20_000), 0]
    net = build_streets(ends.reshape(-1, 2), np.arange(20_001) * 2)
    points = rng.uniform(0, 40, (200, 2))
    start = time.monotonic()
    calls = [start]
    found = match(net, points, np.arange(200.0), progress=lambda fraction: calls.append(time.monotonic()))
    assert time.monotonic() - start < 60
    assert (found.edge >= 0).all()
    assert max(np.diff(calls)) < 3


def test_speed_is_not_that_of_a_snail():
    """The goal is 5,000 points/s on an idle machine (benchmarks/match_speed.py); this holds on a busy one."""
    net = grid(40, seed=6)
    points = np.concatenate([drive(net, seed, points=400)[0] for seed in range(20)])
    code = np.arange(len(points)) // 300
    start = time.perf_counter()
    match(net, points, np.arange(len(points)) * 1.0, code)
    assert len(points) / (time.perf_counter() - start) > 1000


def test_constants_are_bounded():
    assert streets.PIECES_LOOKED_AT[-1] <= 128
    assert streets.MOST_NODES <= 20_000
    assert BOTH == 0
