"""Statements about COST231-Walfisch-Ikegami and the paths it is computed from.

Oracles: published examples, ITU-R P.1411's over-roof terms written out from its text, and straight lines cut with polygons one by one.
"""

from math import log10

import numpy as np
import pytest
import torch
from telcoloc.models.radio import walfisch_ikegami as wi
from telcoloc.models.radio.buildings import buildings_of_polygons
from telcoloc.models.radio.empirical import free_space_db
from telcoloc.models.radio.obstacles import Walls, trace

METRES = np.array([25.0, 100.0, 499.0, 501.0, 1000.0, 4000.0])


def one(value):
    return np.full(1, float(value))


def street(sight=False, roof_m=15.0, separation_m=40.0, width_m=20.0, angle_deg=90.0):
    return wi.Street(np.full(1, sight), *map(one, (roof_m, separation_m, width_m, angle_deg)))


@pytest.mark.parametrize(
    ("mhz", "city", "at_1_km"), [(900, "medium", 132.8), (1800, "medium", 142.9), (1800, "metropolitan", 145.3)]
)
def test_small_cells_of_3gpp_ts_43_030(mhz, city, at_1_km):
    """Roofs at 15 m, antenna at 17 m, device at 1.5 m, roads 20 m wide, 40 m between buildings, 90°: L + 38 log10(d / km)."""
    found = wi.walfisch_ikegami_db(METRES, one(mhz), one(17), 1.5, street(), city)
    np.testing.assert_allclose(found, at_1_km + 38 * np.log10(METRES / 1000), atol=0.1)


def test_a_street_canyon_begins_in_free_space_at_20_m_and_falls_26_db_per_decade():
    assert wi.street_canyon_db(one(20), one(1800))[0] == pytest.approx(free_space_db(one(20), one(1800))[0], abs=0.05)
    assert np.diff(wi.street_canyon_db(np.array([30.0, 300.0]), one(900))) == pytest.approx(26)


def p1411_multi_screen(f, d, h1, h_r, b, metropolitan):
    """L1_msd of ITU-R P.1411-12 section 4.2.2.1 to 2,000 MHz; d in m.

    Read against crc-covlib (helper/itur_p1411.py, `_L1msd`): the same branches and constants.
    """
    dh1 = h1 - h_r
    l_bsh = -18 * log10(1 + dh1) if h1 > h_r else 0
    if h1 > h_r:
        k_a = 54
    elif d >= 500:
        k_a = 54 - 0.8 * dh1
    else:
        k_a = 54 - 1.6 * dh1 * d / 1000
    k_d = 18 if h1 > h_r else 18 - 15 * dh1 / h_r
    k_f = -4 + (1.5 if metropolitan else 0.7) * (f / 925 - 1)
    return l_bsh + k_a + k_d * log10(d / 1000) + k_f * log10(f) - 9 * log10(b)


@pytest.mark.parametrize("city", wi.CITIES)
def test_multi_screen_loss_is_that_of_p1411(city):
    generator = np.random.default_rng(3)
    for _ in range(300):
        f, d = generator.uniform(800, 2000), generator.uniform(20, 5000)
        h, roof, b = generator.uniform(4, 50), generator.uniform(4, 40), generator.uniform(10, 100)
        found = wi.multi_screen_db(one(d), one(f), one(h), one(roof), one(b), city)[0]
        assert found == pytest.approx(p1411_multi_screen(f, d, h, roof, b, city == "metropolitan"), abs=1e-9)


@pytest.mark.parametrize(("angle", "loss"), [(0, -10), (35, 2.5), (55, 4.0), (90, 0.01), (20, -2.92)])
def test_orientation(angle, loss):
    assert wi.orientation_db(one(angle))[0] == pytest.approx(loss, abs=0.12)


def test_terms_are_continuous_where_their_branches_meet():
    for distance, height, roof, angle in [(500, 12, 15, 90), (300, 15, 15, 90), (300, 30, 15, 35), (300, 30, 15, 55)]:
        around = [
            wi.over_roofs_db(
                one(distance + e), one(900), one(height + e), 1.5, street(roof_m=roof, angle_deg=angle + e)
            )
            for e in (-1e-7, 1e-7)
        ]
        assert abs(around[0] - around[1])[0] < (
            0.15 if angle in (35, 55) else 1e-4
        )  # COST 231's own steps of L_ori: 0.11 dB


def test_without_loss_over_roofs_free_space_is_left():
    wide = street(roof_m=2.6, width_m=60, separation_m=4000, angle_deg=0)
    found = wi.over_roofs_db(one(30), one(800), one(50), 1.5, wide)
    assert found[0] == pytest.approx(32.4 + 20 * log10(0.03) + 20 * log10(800))


@pytest.mark.parametrize("city", wi.CITIES)
def test_torch_agrees_with_numpy(city):
    g = np.random.default_rng(4)
    size = (3, 400)
    arrays = (g.uniform(1, 5000, size), np.array([[800.0], [1500], [2000]]), np.array([[8.0], [20], [45]]))
    paths = (g.random(size) < 0.3, *(g.uniform(*limits, size) for limits in ((3, 40), (5, 300), (5, 60), (0, 90))))
    found = wi.walfisch_ikegami_db(*map(torch.from_numpy, arrays), 1.5, wi.Street(*map(torch.from_numpy, paths)), city)
    np.testing.assert_allclose(found.numpy(), wi.walfisch_ikegami_db(*arrays, 1.5, wi.Street(*paths), city), atol=1e-9)


# Paths through footprints


def rectangle(x, y, length, width, turn):
    corners = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) / 2 * [length, width]
    cos, sin = np.cos(turn), np.sin(turn)
    return corners @ np.array([[cos, sin], [-sin, cos]]) + [x, y]


def town(seed, n=6):
    """Houses of all directions on a lattice of 60 m, every third with a courtyard, every fourth with another built to it."""
    g = np.random.default_rng(seed)
    polygons, heights = [], []
    for number, (i, j) in enumerate(np.ndindex(n, n)):
        x, y = 60 * i + g.uniform(-8, 8), 60 * j + g.uniform(-8, 8)
        turn, length, width = g.uniform(0, np.pi), g.uniform(15, 32), g.uniform(12, 30)
        rings = [rectangle(x, y, length, width, turn)]
        if number % 3 == 0:
            rings.append(rectangle(x, y, length / 2, width / 2, turn))
        polygons.append(rings)
        heights.append(g.uniform(4, 30))
        if number % 4 == 0:
            beside = np.array([np.cos(turn), np.sin(turn)]) * (length / 2 + 4)
            polygons.append([rectangle(x + beside[0], y + beside[1], 8, width, turn)])
            heights.append(g.uniform(4, 30))
    return polygons, heights


def cross(a, b):
    return a[0] * b[1] - a[1] * b[0]


def cuts(start, direction, ring):
    """Distances from `start` along the unit vector at which the line crosses the ring, with the walls."""
    found = []
    corners = [(x - start[0], y - start[1]) for x, y in ring.tolist()]
    for a, b in zip(corners, corners[1:] + corners[:1]):
        side_a, side_b = cross(direction, a), cross(direction, b)
        if (side_a > 0) != (side_b > 0):
            share = side_a / (side_a - side_b)
            wall = (b[0] - a[0], b[1] - a[1])
            found.append(((a[0] + share * wall[0]) * direction[0] + (a[1] + share * wall[1]) * direction[1], wall))
    return found


def path_one_by_one(polygons, heights, antenna, height, place, device, least_gap):
    """What `trace` says about one path, from intervals inside each building."""
    vector = place - antenna
    distance = np.hypot(*vector)
    direction = tuple(vector / distance)
    inside, ahead = [], [np.inf]
    for rings, roof in zip(polygons, heights):
        found = sorted(cut for ring in rings for cut in cuts(antenna, direction, ring) if cut[0] > 0)
        for (begin, _), (end, wall) in zip(found[::2], found[1::2]):
            if end < distance:
                inside.append((begin, end, roof, np.array(wall)))
            else:
                ahead.append(begin)
    inside.sort(key=lambda interval: interval[0])
    line = [height + (device - height) * s / distance for begin, end, _, _ in inside for s in (begin, end)]
    sight = all(roof <= z for z, roof in zip(line, [roof for _, _, roof, _ in inside for _ in range(2)]))
    rows, reached = 0, -np.inf
    for begin, end, _, _ in inside:
        rows += begin - reached > least_gap
        reached = max(reached, end)
    if not inside:
        return sight, 0, np.nan, np.inf, 1.0
    lengths = np.array([end - begin for begin, end, _, _ in inside])
    last = max(inside, key=lambda interval: interval[1])
    wall = last[3] / np.hypot(*last[3])
    mean_roof = lengths @ [roof for _, _, roof, _ in inside] / lengths.sum()
    return sight, rows, mean_roof, min(ahead) - last[1], abs(cross(direction, wall))


def scene(seed):
    polygons, heights = town(seed)
    buildings = buildings_of_polygons(polygons, heights)
    g = np.random.default_rng(100 + seed)
    points = g.uniform(-40, 350, (160, 2))
    free = points[~buildings.inside(points)]
    return polygons, heights, buildings, free[0], free[1:]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("height", [6.0, 18.0, 45.0])
def test_paths_are_those_counted_one_by_one(seed, height):
    polygons, heights, buildings, antenna, places = scene(seed)
    found = trace(Walls.of(buildings), antenna, height, places, 1.5, 1e-9, 3.0)
    expected = [path_one_by_one(polygons, heights, antenna, height, place, 1.5, 3.0) for place in places]
    sight, rows, roof, gap, sine = map(np.array, zip(*expected))
    assert 0.02 < sight.mean() < 0.9
    assert rows.max() >= 4
    np.testing.assert_array_equal(found.sight, sight)
    np.testing.assert_array_equal(found.rows, rows)
    np.testing.assert_allclose(found.roof_m, roof, atol=1e-6)
    np.testing.assert_allclose(found.gap_m, gap, atol=1e-6)
    np.testing.assert_allclose(found.facade_sine, sine, atol=1e-9)


def test_paths_are_the_same_seen_from_either_end():
    _, _, buildings, antenna, places = scene(1)
    walls = Walls.of(buildings)
    there = trace(walls, antenna, 20.0, places, 1.5, 1e-9, 3.0)
    back = [trace(walls, place, 1.5, antenna[None], 20.0, 1e-9, 3.0) for place in places]
    np.testing.assert_array_equal(there.sight, [path.sight[0] for path in back])
    np.testing.assert_array_equal(there.rows, [path.rows[0] for path in back])
    np.testing.assert_allclose(there.roof_m, [path.roof_m[0] for path in back], atol=1e-6)


def test_a_map_has_nearly_the_paths_of_its_cells():
    """With one ray per cell's width at the map's edge, cells differ only where a shadow's edge runs through them."""
    _, _, buildings, antenna, _ = scene(2)
    x, y = np.meshgrid(np.arange(-40, 350, 1.0), np.arange(-40, 350, 1.0))
    places = np.column_stack([x.ravel(), y.ravel()])
    places = places[~buildings.inside(places)]
    walls = Walls.of(buildings)
    swept = trace(walls, antenna, 18.0, places, 1.5, 1.0, 3.0)
    exact = [trace(walls, antenna, 18.0, part, 1.5, 1e-9, 3.0) for part in np.array_split(places, 20)]
    assert np.mean(swept.sight != np.concatenate([part.sight for part in exact])) < 0.01
    assert np.mean(swept.rows != np.concatenate([part.rows for part in exact])) < 0.01
    roof = np.concatenate([part.roof_m for part in exact])
    assert np.nanmedian(np.abs(swept.roof_m - roof)) < 0.1


def test_a_wall_between_hides_and_a_roof_below_the_line_does_not():
    """One house 10 m high, 20 m away and 10 m deep: from 30 m up, its far edge hides 15 m behind it, by similar triangles."""
    house = [[np.array([[-50.0, 20.0], [50.0, 20.0], [50.0, 30.0], [-50.0, 30.0]])]]
    walls = Walls.of(buildings_of_polygons(house, [10.0]))
    places = np.array([[0.0, 19.0], [0.0, 30.01], [0.0, 44.9], [0.0, 45.1], [0.0, 200.0], [0.0, -50.0]])
    found = trace(walls, np.zeros(2), 30.0, places, 0.0, 1e-9, 3.0)
    assert found.sight.tolist() == [True, False, False, True, True, True]
    assert found.rows.tolist() == [0, 1, 1, 1, 1, 0]
    assert (found.facade_sine == 1).all()


def test_street_width_and_angle_come_from_the_facades():
    """Two long rows 16 m apart, seen along a path at 30° to them: 32 m of path between the walls."""
    rows = [np.array([[-900.0, y], [900.0, y], [900.0, y + 10], [-900.0, y + 10]]) for y in (50.0, 76.0)]
    walls = Walls.of(buildings_of_polygons([[ring] for ring in rows], [12.0, 15.0]))
    place = np.array([[70 / np.tan(np.pi / 6), 70.0]])
    found = trace(walls, np.zeros(2), 25.0, place, 1.5, 1e-9, 3.0)
    assert found.gap_m[0] == pytest.approx(32)
    assert np.rad2deg(np.arcsin(found.facade_sine[0])) == pytest.approx(30)
    assert found.gap_m[0] * found.facade_sine[0] == pytest.approx(16)
    assert found.roof_m[0] == pytest.approx(12)


def test_a_tower_lifts_the_mean_roof_no_higher_than_it_may_but_still_hides():
    rows = [np.array([[-9.0, y], [9.0, y], [9.0, y + 10], [-9.0, y + 10]]) for y in (20.0, 50.0)]
    walls = Walls.of(buildings_of_polygons([[ring] for ring in rows], [12.0, 100.0]))
    place = np.array([[0.0, 70.0]])
    for tower_m, roof in ((np.inf, 56.0), (20.0, 16.0)):
        found = trace(walls, np.zeros(2), 60.0, place, 1.5, 1e-9, 3.0, tower_m)
        assert found.roof_m[0] == pytest.approx(roof)
        assert not found.sight[0]


@pytest.mark.parametrize("n_places", [1, 5000])
def test_without_walls_everything_is_seen(n_places):
    walls = Walls.of(buildings_of_polygons([], []))
    found = trace(walls, np.zeros(2), 25.0, np.ones((n_places, 2)) * np.arange(1, n_places + 1)[:, None], 1.5, 1.0, 3.0)
    assert found.sight.all()
    assert (found.rows == 0).all()
