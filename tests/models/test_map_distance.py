"""Distances over a map: exact visibility graphs of small scenes, brute-force sight lines, and Dijkstra on explicit street graphs."""

import heapq
import itertools

import numpy as np
import pytest
from scipy.sparse.csgraph import dijkstra
from telcoloc.models.errors import InputError
from telcoloc.models.grid import Grid
from telcoloc.models.landmarks import map_distance
from telcoloc.models.landmarks.free_cells import FreeSpace
from telcoloc.models.landmarks.map_distance import KnownLengths, Straight
from telcoloc.models.landmarks.street_distance import StreetDistance
from telcoloc.models.radio.buildings import Buildings
from telcoloc.models.trajectory.streets import BACKWARD, BOTH, FORWARD, build_streets

CELL_M = 5.0


def town(seed, side=26, houses=14):
    """Free cells between houses of 2 to 6 cells a side."""
    rng = np.random.default_rng(seed)
    free = np.ones((side, side), bool)
    for _ in range(houses):
        row, column = rng.integers(0, side - 3, 2)
        free[row : row + rng.integers(2, 7), column : column + rng.integers(2, 7)] = False
    return Grid(side, side, 100.0, 900.0, CELL_M), free


def crosses_house(free, one, other, samples=841):
    """Whether the straight line between two places (row, column; cells are unit squares) leaves what is free.

    A sample on a border needs one free cell beside it, one on a corner more than two that only touch there.
    """
    shares = np.linspace(0, 1, samples)[1:-1, None]
    points = np.asarray(one, float) * (1 - shares) + np.asarray(other, float) * shares + 1.0
    points = np.where(np.abs(points - np.round(points)) < 1e-6, np.round(points), points)
    padded = np.pad(free, 1)
    low, high = np.ceil(points).astype(int) - 1, np.floor(points).astype(int)
    a, b, c, d = (padded[rows, columns] for rows in (low[:, 0], high[:, 0]) for columns in (low[:, 1], high[:, 1]))
    open_ = a | b | c | d
    corner = (low != high).all(axis=1)
    open_ &= ~corner | ((a | d) & (b | c))
    return not open_.all()


def exact_distances(free, places):
    """Shortest ways [cells] between cell centres around blocked cells: a visibility graph over all their corners."""
    height, width = free.shape
    padded = np.pad(free, 1)
    corners = [
        (row, column)
        for row, column in itertools.product(range(height + 1), range(width + 1))
        if (~padded[row : row + 2, column : column + 2]).sum() == 1
    ]
    nodes = [(row + 0.5, column + 0.5) for row, column in places] + corners
    graph = np.full((len(nodes), len(nodes)), np.inf)
    for a, b in itertools.combinations(range(len(nodes)), 2):
        if not crosses_house(free, nodes[a], nodes[b]):
            graph[a, b] = graph[b, a] = np.hypot(*np.subtract(nodes[a], nodes[b]))
    return dijkstra(graph)[: len(places), : len(places)]


def all_pairs(distance, xy_m, limit_m):
    spots = distance.spots(xy_m)
    start, end = (each.ravel() for each in np.indices((len(spots), len(spots))))
    return distance.lengths_m(spots, start, end, np.full(len(start), limit_m)).reshape(len(spots), -1)


@pytest.mark.parametrize("seed", [1, 2])
def test_ways_around_houses_are_those_of_the_visibility_graph(seed):
    grid, free = town(seed, side=18, houses=7)
    rng = np.random.default_rng(seed)
    cells = rng.choice(np.flatnonzero(free.ravel()), 16, replace=False)
    true = CELL_M * exact_distances(free, [divmod(cell, grid.width) for cell in cells.tolist()])
    found = all_pairs(FreeSpace(grid, free), grid.centres(cells), 1e4)
    np.testing.assert_array_equal(np.isfinite(found), np.isfinite(true))
    straight = np.hypot(*(grid.centres(cells)[:, None] - grid.centres(cells)).transpose(2, 0, 1))
    around = np.isfinite(true) & (true > straight + 1e-9)
    assert around.sum() > 60
    np.testing.assert_allclose(found[~around & np.isfinite(true)], true[~around & np.isfinite(true)], rtol=1e-9)
    ratio = found[around] / true[around]
    assert ratio.min() > 1 - 1e-9  # it is a way that can be walked
    assert ratio.max() < 1.015
    assert ratio.mean() < 1.005


def test_cells_see_each_other_where_no_sample_of_the_line_lies_in_a_house():
    grid, free = town(3)
    space = FreeSpace(grid, free)
    rng = np.random.default_rng(0)
    cells = rng.choice(np.flatnonzero(free.ravel()), (400, 2))
    seen = space._in_sight(cells[:, 0], cells[:, 1])
    for (one, other), sees in zip(cells.tolist(), seen.tolist()):
        ends = [tuple(np.array(divmod(cell, grid.width)) + 0.5) for cell in (one, other)]
        (row, column), step = ends[0], np.subtract(*ends[::-1])
        on_lines = 2 * max(1, abs(int(step[0])) * abs(int(step[1]))) * 4 + 1  # so many that every border is sampled
        assert sees != crosses_house(free, *ends, samples=on_lines), (row, column, step)


def test_what_was_found_within_a_small_limit_is_not_taken_for_all_there_is():
    grid, free = town(4)
    cells = np.random.default_rng(1).choice(np.flatnonzero(free.ravel()), 40, replace=False)
    xy = grid.centres(cells)
    grown = FreeSpace(grid, free)
    for limit in (20.0, 60.0, 45.0, 400.0, 30.0):
        fresh = all_pairs(FreeSpace(grid, free), xy, limit)
        np.testing.assert_allclose(all_pairs(grown, xy, limit), fresh, rtol=1e-12)
        assert (fresh[np.isfinite(fresh)] <= limit).all()
    whole = all_pairs(grown, xy, 1e4)
    np.testing.assert_allclose(np.where(whole <= 45.0, whole, np.inf), all_pairs(grown, xy, 45.0))
    np.testing.assert_allclose(whole, whole.T)


def test_known_lengths_are_searched_once():
    asked = []

    def search(key, limit):
        asked.append(key.tolist())
        return np.where(key <= limit, key.astype(float), np.inf)

    known = KnownLengths(search)
    assert known.of(np.array([5, 3, 5, 9]), np.array([4.0, 4.0, 6.0, 4.0])).tolist() == [5.0, 3.0, 5.0, np.inf]
    assert known.of(np.array([3, 9, 7]), np.array([9.0, 4.0, 9.0])).tolist() == [3.0, np.inf, 7.0]
    assert known.of(np.array([9, 5]), np.array([9.5, 1.0])).tolist() == [9.0, 5.0]
    assert asked == [[3, 5, 9], [7], [9]]


def test_of_too_many_known_lengths_the_older_ones_are_forgotten(monkeypatch):
    monkeypatch.setattr(map_distance, "_MOST_KNOWN", 10)
    searched = []

    def search(key, limit_m):
        searched.extend(key.tolist())
        return key.astype(float)

    known = KnownLengths(search)
    for begin in range(0, 60, 6):
        keys = np.arange(begin, begin + 6)
        for _ in range(2):
            np.testing.assert_array_equal(known.of(keys, np.full(6, 100.0)), keys)
        assert len(known) <= 10
    assert searched == list(range(60))


def test_points_inside_buildings_are_put_beside_the_wall_or_nowhere():
    grid = Grid(20, 20, 0.0, 100.0, CELL_M)
    square = np.array([[20.0, 20.0], [80.0, 20.0], [80.0, 80.0], [20.0, 80.0]])
    yard = np.array([[45.0, 45.0], [45.0, 55.0], [55.0, 55.0], [55.0, 45.0]])
    house = Buildings(np.concatenate([square, yard]), np.array([0, 4, 8]), np.array([0, 0]), np.array([10.0]))
    space = FreeSpace.around(house, grid, snap_m=10.0)
    spots = space.spots(np.array([[10.0, 10.0], [23.0, 50.0], [50.0, 50.0], [35.0, 35.0], [40.0, 50.0], [-5.0, 3.0]]))
    assert spots.owner.tolist() == [0, 1, 2, 4]  # not from the middle of the house, nor from outside the map
    assert spots.xy_m[1, 0] == 17.5
    length = space.lengths_m(spots, np.array([0]), np.array([2]), np.array([1e4]))
    assert np.isinf(length[0])  # there is no way into the courtyard
    np.testing.assert_allclose(space.nearest(np.array([[50.0, 30.0], [3.0, 4.0]]))[1], [3.0, 4.0])
    moved = space.nearest(np.array([[50.0, 30.0]]))
    assert space.free.ravel()[grid.cells_of(moved)[0]]


def test_routes_stay_outside_houses_and_are_as_long_as_said():
    grid, free = town(5)
    space = FreeSpace(grid, free)
    cells = np.random.default_rng(2).choice(np.flatnonzero(free.ravel()), 24, replace=False)
    spots = space.spots(grid.centres(cells))
    start, end = (each.ravel() for each in np.triu_indices(24, 1))
    lengths = space.lengths_m(spots, start, end, np.full(len(start), 300.0))
    for a, b, length in zip(start.tolist(), end.tolist(), lengths.tolist()):
        if not np.isfinite(length):
            continue
        route = space.route(spots, a, b, length + 1e-6)
        np.testing.assert_allclose(route[[0, -1]], spots.xy_m[[a, b]])
        way = np.hypot(*np.diff(route, axis=0).T).sum()
        assert way == pytest.approx(length)
        for one, other in zip(route, route[1:]):
            ends = [((grid.y_max - y) / CELL_M, (x - grid.x_min) / CELL_M) for x, y in (one, other)]
            assert not crosses_house(free, *ends)


def test_a_map_without_a_free_cell_is_refused():
    with pytest.raises(InputError, match="No cell of the map is free"):
        FreeSpace(Grid(2, 2, 0, 0, 5.0), np.zeros((2, 2), bool))


def test_without_a_map_the_straight_line_counts():
    found = all_pairs(Straight(), np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 10.0]]), 8.0)
    np.testing.assert_allclose(found, [[0, 5, np.inf], [5, 0, np.hypot(3, 6)], [np.inf, np.hypot(3, 6), 0]])


def street_town(seed, side=5, spacing=60.0):
    """A bent grid of streets; a third are one-way, either way."""
    rng = np.random.default_rng(seed)
    row, column = np.indices((side, side))
    nodes = np.stack([column, row], axis=-1) * spacing + rng.normal(0, 8, (side, side, 2))
    lines, direction = [], []
    for (r, c), (dr, dc) in itertools.product(itertools.product(range(side), repeat=2), ((0, 1), (1, 0))):
        if r + dr < side and c + dc < side and rng.random() > 0.1:
            a, b = nodes[r, c], nodes[r + dr, c + dc]
            lines.append(np.array([a, (a + b) / 2 + rng.normal(0, 4, 2), b]))
            direction.append(rng.choice([BOTH, BOTH, FORWARD, BACKWARD]))
    return lines, np.array(direction)


def own_lengths(lines, direction, places):
    """Directed ways between places (line, metres along): Dijkstra with a heap over line ends and places."""
    arcs = {}

    def add(a, b, metres):
        arcs.setdefault(a, []).append((b, metres))

    def end(point):
        return ("node", round(point[0], 3), round(point[1], 3))

    for number, line in enumerate(lines):
        length = np.hypot(*np.diff(line, axis=0).T).sum()
        stops = [(0.0, end(line[0])), (length, end(line[-1]))]
        stops += [(along, ("place", rank)) for rank, (of, along) in enumerate(places) if of == number]
        stops.sort(key=lambda stop: stop[0])
        for (from_m, one), (to_m, other) in zip(stops, stops[1:]):
            if direction[number] in (BOTH, FORWARD):
                add(one, other, to_m - from_m)
            if direction[number] in (BOTH, BACKWARD):
                add(other, one, to_m - from_m)
    result = np.full((len(places), len(places)), np.inf)
    for source in range(len(places)):
        best, heap = {}, [(0.0, ("place", source))]
        while heap:
            metres, at = heapq.heappop(heap)
            if at in best:
                continue
            best[at] = metres
            for other, more in arcs.get(at, []):
                heapq.heappush(heap, (metres + more, other))
        for target in range(len(places)):
            result[source, target] = best.get(("place", target), np.inf)
    return result


@pytest.mark.parametrize("limit_m", [80.0, 200.0, 1e4])
def test_street_distances_are_those_of_dijkstra_with_one_ways(limit_m):
    lines, direction = street_town(1)
    streets = build_streets(np.concatenate(lines), np.arange(len(lines) + 1) * 3, direction)
    rng = np.random.default_rng(2)
    places = [(int(rng.integers(len(lines))), float(rng.uniform(1, 35))) for _ in range(40)]
    places.append((places[0][0], places[0][1] + 3.0))  # two on one street
    xy = []
    for line, along in places:
        way = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(lines[line], axis=0).T))])
        xy.append([np.interp(along, way, lines[line][:, axis]) for axis in range(2)])
    distance = StreetDistance(streets, snap_m=0.5, most=1)
    true = own_lengths(lines, direction, places)
    true[true > limit_m] = np.inf
    found = all_pairs(distance, np.array(xy), limit_m)
    np.testing.assert_allclose(found, true, atol=1e-3)
    assert not np.allclose(true, true.T)
    spots = distance.spots(np.array(xy))
    for a, b in np.argwhere(np.isfinite(true))[:200]:
        route = distance.route(spots, a, b, true[a, b] + 1e-3)
        np.testing.assert_allclose(np.hypot(*np.diff(route, axis=0).T).sum(), true[a, b], atol=1e-3)
        np.testing.assert_allclose(route[[0, -1]], spots.xy_m[[a, b]], atol=1e-6)


def test_a_point_between_two_carriageways_has_a_spot_on_each_and_one_off_the_road_none():
    lines = np.array([[0, 0], [100, 0], [100, 12], [0, 12]], float)
    distance = StreetDistance(build_streets(lines, np.array([0, 2, 4]), np.array([FORWARD, FORWARD])), snap_m=20.0)
    spots = distance.spots(np.array([[50.0, 6.0], [50.0, 90.0], [60.0, 5.0]]))
    assert spots.owner.tolist() == [0, 0, 2, 2]
    assert sorted(spots.xy_m[:2, 1].tolist()) == [0.0, 12.0]
    found = all_pairs(distance, np.array([[50.0, 6.0], [60.0, 5.0]]), 1e3)
    assert sorted(found[:2, 2:].ravel().tolist()) == [
        10.0,
        np.inf,
        np.inf,
        np.inf,
    ]  # ahead on the street that runs east
    np.testing.assert_allclose(distance.nearest(np.array([[50.0, 5.0], [50.0, 90.0]])), [[50.0, 0.0], [50.0, 90.0]])
