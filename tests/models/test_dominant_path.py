"""Shortest ways around buildings against closed forms and a brute-force visibility graph; the dominant path model's formula."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.sparse.csgraph import dijkstra
from telcoloc.models.errors import Cancelled, InputError
from telcoloc.models.grid import Grid
from telcoloc.models.radio import free_space
from telcoloc.models.radio.buildings import Buildings, buildings_of_polygons
from telcoloc.models.radio.dominant_path import (
    dominant_path_loss_db,
    find_paths,
    path_length_m,
    paths_to,
    prepare_at,
    prepare_dominant_paths,
)
from telcoloc.models.radio.dominant_path_settings import DominantPathSettings
from telcoloc.models.radio.free_space import triangulate
from telcoloc.models.radio.maps import RadioMapJob, radio_maps
from telcoloc.models.radio.obstacles import Walls
from telcoloc.models.radio.patterns import Pattern
from telcoloc.models.radio.rooftops import knife_edge_db, over_roofs_db
from telcoloc.models.radio.transmitters import Transmitters
from telcoloc.models.radio.walls import SNAP_M, noded_walls

FREQ_MHZ = 2000.0
#: A wall moves by at most this when it is snapped [m], and a way along it by a few times as much.
SNAPPED_M = 0.15


def block(x_min: float, y_min: float, x_max: float, y_max: float) -> np.ndarray:
    return np.array([[x_min, y_min], [x_max, y_min], [x_max, y_max], [x_min, y_max]], float)


def blocks(*polygons: np.ndarray, height_m: float = 20.0) -> Buildings:
    return buildings_of_polygons([[polygon] for polygon in polygons], np.full(len(polygons), height_m))


def length_m(buildings: Buildings, start: tuple[float, float], end: tuple[float, float]) -> float:
    return float(path_length_m(prepare_at(buildings, np.array([end], float)), np.array(start, float))[0])


def scene(seed: int, count: int = 9) -> Buildings:
    """Convex and concave footprints on whole metres in a square of 100 m; some overlap."""
    rng = np.random.default_rng(seed)
    polygons = []
    for _ in range(count):
        corners = int(rng.integers(3, 7))
        angle = 2 * np.pi * (np.arange(corners) + rng.uniform(0, 0.7, corners)) / corners
        radius = rng.uniform(4, 16, corners)
        centre = rng.uniform(10, 90, 2)
        polygons.append(np.round(centre + radius[:, None] * np.column_stack([np.cos(angle), np.sin(angle)])))
    return blocks(*polygons)


def brute_force_m(buildings: Buildings, start: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Shortest free ways by a visibility graph of all vertices and all crossings of walls, with GEOS."""
    geometry = pytest.importorskip("shapely.geometry")
    prepared = pytest.importorskip("shapely.prepared")
    union = pytest.importorskip("shapely.ops").unary_union(
        [geometry.Polygon(buildings.xy_m[a:b]).buffer(0) for a, b in zip(buildings.first[:-1], buildings.first[1:])]
    )
    parts = union.geoms if union.geom_type == "MultiPolygon" else [union]
    vertices = np.concatenate(
        [np.array(ring.coords)[:-1] for part in parts for ring in (part.exterior, *part.interiors)]
    )
    # touching a wall is free: what is crossed is the inside
    inside = prepared.prep(union.buffer(-1e-6))
    points = np.concatenate([start[None], ends, vertices])
    n = len(points)
    graph = np.zeros((n, n))
    for i in range(n):
        for j in range(i):
            if not inside.intersects(geometry.LineString([points[i], points[j]])):
                graph[i, j] = graph[j, i] = np.hypot(*(points[i] - points[j]))
    return dijkstra(graph, indices=0)[1 : 1 + len(ends)]


def free_points(buildings: Buildings, count: int, seed: int) -> np.ndarray:
    """Points at least a metre from all buildings."""
    rng = np.random.default_rng(seed)
    points = rng.uniform(0, 100, (20 * count, 2))
    around = [points + np.array(step) for step in ((0, 0), (1, 0), (-1, 0), (0, 1), (0, -1))]
    free = ~np.any([buildings.inside(moved) for moved in around], axis=0)
    return points[free][:count]


def test_around_one_block_and_two_blocks_the_way_is_the_closed_form() -> None:
    one = blocks(block(10, -10, 20, 10))
    assert length_m(one, (0, 0), (5, 3)) == pytest.approx(math.hypot(5, 3), abs=1e-3)
    # over both corners of the nearer side
    assert length_m(one, (0, 4), (30, 4)) == pytest.approx(2 * math.hypot(10, 6) + 10, abs=1e-3)
    two = blocks(block(10, -10, 20, 10), block(40, 0, 50, 60))
    # above the first, below the second: one corner of each
    expected = math.hypot(10, 5) + 10 + math.hypot(20, 10) + 10 + math.hypot(10, 5)
    assert length_m(two, (0, 5), (60, 5)) == pytest.approx(expected, abs=1e-3)


def test_a_way_into_a_closed_courtyard_does_not_exist_and_inside_there_is_no_value() -> None:
    ring = buildings_of_polygons([[block(10, 10, 50, 50), block(20, 20, 40, 40)]], [20.0])
    prepared = prepare_at(ring, np.array([[30.0, 30.0], [15.0, 15.0], [60.0, 60.0]]))
    outside = path_length_m(prepared, np.array([0.0, 0.0]))
    np.testing.assert_array_equal(np.isinf(outside), [True, False, False])
    np.testing.assert_array_equal(np.isnan(outside), [False, True, False])
    # the antenna's own building is no obstacle to its first leg, both ways out
    own = path_length_m(prepared, np.array([15.0, 30.0]))
    assert own[0] == pytest.approx(15.0, abs=1e-3)
    assert own[2] == pytest.approx(math.hypot(45, 30), abs=1e-3)
    loss_db = dominant_path_loss_db(prepared, np.array([0.0, 0.0]), 30.0, FREQ_MHZ)
    np.testing.assert_array_equal(np.isnan(loss_db), [False, True, False])  # over the roof into the courtyard


def test_touching_buildings_leave_no_slit() -> None:
    """Two blocks 2 cm apart, or overlapping by 2 cm, are one wall: the way goes around both."""
    for gap_m in (-0.02, 0.0, 0.02):
        pair = blocks(block(10, -20, 20, 0), block(10, gap_m, 20, 20))
        assert length_m(pair, (0, 0), (30, 0)) == pytest.approx(2 * math.hypot(10, 20) + 10, abs=SNAPPED_M)


@pytest.mark.parametrize("seed", range(6))
def test_lengths_equal_a_brute_force_visibility_graph(seed: int) -> None:
    buildings = scene(seed)
    points = free_points(buildings, 25, seed)
    expected = brute_force_m(buildings, points[0], points[1:])
    found = path_length_m(prepare_at(buildings, points[1:]), points[0])
    np.testing.assert_array_equal(np.isinf(found), np.isinf(expected))
    reached = np.isfinite(expected)
    assert reached.sum() > 10
    # overlapping footprints cross off the lattice, where walls bend a little
    np.testing.assert_allclose(found[reached], expected[reached], atol=5 * SNAPPED_M)
    assert np.median(np.abs(found - expected)[reached]) < 0.02


@pytest.mark.parametrize("seed", range(3))
def test_the_way_drawn_is_as_long_as_said_and_free(seed: int) -> None:
    buildings = scene(seed)
    points = free_points(buildings, 40, seed)
    prepared = prepare_at(buildings, points[1:])
    lengths = path_length_m(prepared, points[0])
    for way, length, end in zip(paths_to(prepared, points[0]), lengths, points[1:]):
        if np.isinf(length):
            assert len(way) == 0
            continue
        assert np.hypot(*np.diff(way, axis=0).T).sum() == pytest.approx(length, abs=1e-6)
        np.testing.assert_allclose(way[[0, -1]], [points[0], end], atol=2e-3)
        share = np.linspace(0, 1, 200)[:, None]
        along = np.concatenate([a + share * (b - a) for a, b in zip(way[:-1], way[1:])])
        deep = np.all(
            [buildings.inside(along + np.array(s)) for s in ((0.3, 0), (-0.3, 0), (0, 0.3), (0, -0.3))], axis=0
        )
        assert not deep.any()


def test_ways_are_as_long_forth_as_back() -> None:
    buildings = scene(11)
    points = free_points(buildings, 12, 11)
    prepared = prepare_at(buildings, points)
    matrix = np.stack([path_length_m(prepared, point) for point in points])
    np.testing.assert_allclose(matrix, matrix.T, atol=1e-6)


def test_without_a_building_no_way_is_longer() -> None:
    buildings = scene(12)
    points = free_points(buildings, 60, 12)
    all_m = path_length_m(prepare_at(buildings, points[1:]), points[0])
    for gone in range(len(buildings)):
        fewer = buildings.take(np.arange(len(buildings)) != gone)
        fewer_m = path_length_m(prepare_at(fewer, points[1:]), points[0])
        assert (fewer_m <= all_m + 5 * SNAPPED_M).all()
        assert (fewer_m >= np.hypot(*(points[1:] - points[0]).T) - 2e-3).all()


def test_a_grid_has_the_values_of_its_centres() -> None:
    buildings = scene(3)
    grid = Grid(20, 25, 0.0, 100.0, 4.0)
    antenna = free_points(buildings, 1, 3)[0]
    on_grid = dominant_path_loss_db(prepare_dominant_paths(buildings, grid), antenna, 10.0, FREQ_MHZ)
    at = prepare_at(buildings, grid.centres(np.arange(grid.size)))
    np.testing.assert_array_equal(np.isnan(on_grid), buildings.heights_on(grid) > 0)
    settings = DominantPathSettings(over_roofs=False)
    around = dominant_path_loss_db(prepare_dominant_paths(buildings, grid), antenna, 10.0, FREQ_MHZ, settings)
    np.testing.assert_allclose(around.ravel(), dominant_path_loss_db(at, antenna, 10.0, FREQ_MHZ, settings), atol=0.05)


def test_an_antenna_far_outside_looks_in() -> None:
    buildings = blocks(block(10, -10, 20, 10))
    prepared = prepare_at(buildings, np.array([[0.0, 0.0], [30.0, 0.0]]))
    lengths = path_length_m(prepared, np.array([-5000.0, 0.0]))
    assert lengths[0] == pytest.approx(5000.0, abs=1e-2)
    assert lengths[1] == pytest.approx(math.hypot(5010, 10) + 10 + math.hypot(10, 10), abs=1e-2)


def test_a_map_without_buildings_is_seen_everywhere() -> None:
    nothing = buildings_of_polygons([], [])
    prepared = prepare_dominant_paths(nothing, Grid(5, 6, 0.0, 50.0, 10.0))
    lengths = path_length_m(prepared, np.array([3.0, 4.0]))
    np.testing.assert_allclose(lengths[4, 0], math.hypot(2, 1), atol=2e-3)
    assert np.isfinite(lengths).all()


def test_the_loss_where_the_antenna_is_seen_is_the_closed_form() -> None:
    buildings = blocks(block(10, -10, 20, 10))
    prepared = prepare_at(buildings, np.array([[5.0, 3.0], [-300.0, 40.0]]))
    settings = DominantPathSettings(exponent_seen=2.3)
    loss_db = dominant_path_loss_db(prepared, np.array([0.0, 0.0]), 10.0, FREQ_MHZ, settings, 1.5)
    for found, (x, y) in zip(loss_db, ((5, 3), (-300, 40))):
        metres = math.sqrt(x * x + y * y + 8.5**2)
        wavelength = 299_792_458 / 2e9
        assert found == pytest.approx(20 * math.log10(4 * math.pi / wavelength) + 23 * math.log10(metres), abs=1e-3)


def test_the_loss_around_two_corners_is_the_sum_of_its_terms() -> None:
    buildings = blocks(block(10, -40, 20, 10))
    prepared = prepare_at(buildings, np.array([[30.0, 4.0]]))
    settings = DominantPathSettings(
        exponent_hidden=3.0, most_diffraction_db=18.0, least_diffraction_db=2.0, full_angle_deg=80.0,
        repeated_share=0.5, over_roofs=False,
    )  # fmt: skip
    found = dominant_path_loss_db(prepared, np.array([0.0, 4.0]), 1.5, FREQ_MHZ, settings, 1.5)[0]
    turn = math.degrees(math.atan2(6, 10))
    metres = 2 * math.hypot(10, 6) + 10
    one_db = 2 + 16 * turn / 80
    expected = 20 * math.log10(4 * math.pi * 2e9 / 299_792_458) + 30 * math.log10(metres) + one_db + 0.5 * one_db
    assert found == pytest.approx(expected, abs=0.01)


def test_guiding_only_lowers_the_loss_and_stays_below_its_limit() -> None:
    buildings = scene(5)
    points = free_points(buildings, 80, 5)
    prepared = prepare_at(buildings, points[1:])
    plain = DominantPathSettings(over_roofs=False)
    guided = DominantPathSettings(over_roofs=False, guiding=True, reflection_loss_db=6.0)
    gain_db = dominant_path_loss_db(prepared, points[0], 5.0, FREQ_MHZ, plain) - dominant_path_loss_db(
        prepared, points[0], 5.0, FREQ_MHZ, guided
    )
    gain_db = gain_db[np.isfinite(gain_db)]
    reflected = 10**-0.6
    assert (gain_db >= -1e-4).all()
    assert (gain_db > 0.1).any()
    assert gain_db.max() <= 10 * math.log10(1 + 2 * reflected / (1 - reflected)) + 1e-4


def test_guiding_in_a_street_is_the_closed_form() -> None:
    street = blocks(block(0, 5, 200, 30), block(0, -30, 200, -5))
    prepared = prepare_at(street, np.array([[180.0, 0.0]]))
    settings = DominantPathSettings(guiding=True, reflection_loss_db=3.0, guiding_reach_m=20.0)
    path = find_paths(prepared, np.array([20.0, 0.0]), 5.0, FREQ_MHZ, settings, 1.5)
    reflected = 10**-0.3
    # cells of 1 m: the distance to a wall 5 m away is known to half of one
    assert path.guiding_db[0] == pytest.approx(10 * math.log10(1 + 2 * 0.75 * reflected / (1 - reflected)), abs=0.15)


def test_a_low_building_does_not_block_and_a_high_one_costs_its_knife_edge() -> None:
    antenna, place = np.array([0.0, 0.0]), np.array([[200.0, 0.0]])
    wall = block(99.9, -500, 100.1, 500)
    for roof_m, clear in ((5.0, True), (60.0, False)):
        walls = Walls.of(blocks(wall, height_m=roof_m))
        loss_db, seen = over_roofs_db(walls, antenna, 40.0, FREQ_MHZ, place, 1.5, 1.0)
        assert seen[0] == clear
        above = roof_m - (40 + 1.5) / 2
        nu = above * math.sqrt(2 * 200 / (299_792_458 / 2e9 * 100 * 100))
        single = 6.9 + 20 * math.log10(math.sqrt((nu - 0.1) ** 2 + 1) + nu - 0.1) if nu > -0.78 else 0.0
        assert loss_db[0] == pytest.approx(single, abs=0.05)


def test_the_rays_of_a_map_find_the_roofs_that_a_ray_of_its_own_finds() -> None:
    walls = Walls.of(scene(6, 12))
    centres = Grid(50, 50, 0.0, 100.0, 2.0).centres(np.arange(2500))
    antenna = np.array([-20.0, 43.0])
    shared_db, shared_clear = over_roofs_db(walls, antenna, 30.0, FREQ_MHZ, centres, 1.5, 2.0)
    alone = [over_roofs_db(walls, antenna, 30.0, FREQ_MHZ, centres[i : i + 1], 1.5, 2.0) for i in range(0, 2500, 5)]
    difference = shared_db[::5] - np.concatenate([loss for loss, _ in alone])
    assert np.quantile(np.abs(difference), 0.9) < 0.5
    assert (shared_clear[::5] == np.concatenate([clear for _, clear in alone])).mean() > 0.97


def test_knife_edge_at_grazing_costs_six_decibels() -> None:
    """Figure 9 of ITU-R P.526: J(0) = 6 dB, J(1) = 13.9 dB, J(2.4) = 20.5 dB, and nothing below −0.78."""
    np.testing.assert_allclose(knife_edge_db(np.array([0.0, 1.0, 2.4, -0.8])), [6.0, 13.9, 20.5, 0.0], atol=0.1)


def test_the_dominant_path_is_the_one_with_less_loss() -> None:
    buildings = scene(8)
    points = free_points(buildings, 80, 8)
    prepared = prepare_at(buildings, points[1:])
    both = dominant_path_loss_db(prepared, points[0], 45.0, FREQ_MHZ)
    around = dominant_path_loss_db(prepared, points[0], 45.0, FREQ_MHZ, DominantPathSettings(over_roofs=False))
    assert (both <= around + 1e-4).all()
    assert (both < around - 1).any()


def test_a_higher_antenna_on_its_own_roof_loses_nothing_to_it() -> None:
    buildings = blocks(block(-10, -10, 10, 10), block(60, -5, 70, 5), height_m=20.0)
    prepared = prepare_at(buildings, np.array([[30.0, 0.0], [90.0, 0.0]]))
    path = find_paths(prepared, np.array([2.0, 3.0]), 23.0, FREQ_MHZ, DominantPathSettings(), 1.5)
    np.testing.assert_array_equal(path.seen, [True, False])
    assert path.roofs_db[1] > 6


def test_walls_after_noding_meet_only_at_their_ends() -> None:
    for seed in range(4):
        points, walls = noded_walls(scene(seed, 20), np.zeros(2))
        a, b = points[walls[:, 0]], points[walls[:, 1]]
        d = b - a
        cross = lambda u, v: u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]  # noqa: E731
        side_a = np.sign(cross(d[:, None], a[None] - a[:, None]))
        side_b = np.sign(cross(d[:, None], b[None] - a[:, None]))
        crossing = (side_a * side_b < 0) & (side_a * side_b < 0).T
        assert not crossing.any()
        assert (points % round(SNAP_M / 0.001) == 0).all()


def test_the_engine_makes_the_same_maps_with_threads_and_torch() -> None:
    buildings = scene(4, 14)
    grid = Grid(50, 50, 0.0, 100.0, 2.0)
    antennas = np.concatenate([free_points(buildings, 3, 4), [[-400.0, 30.0]], buildings.xy_m[:1] + 0.01])
    n = len(antennas)
    network = Transmitters(
        tuple(f"c{i}" for i in range(n)), antennas, np.linspace(5, 45, n), np.full(n, np.nan), np.zeros(n), np.full(n, 360.0),
        np.linspace(800, 2600, n), np.full(n, 50.0),
    )  # fmt: skip
    job = RadioMapJob(network, grid, "dominantpath", buildings=buildings, pattern=Pattern("omni"))
    maps = radio_maps(job)
    assert maps.warnings == ()
    inside = buildings.heights_on(grid) > 0
    prepared = prepare_dominant_paths(buildings, grid)
    for i in range(n):
        np.testing.assert_array_equal(np.isnan(maps.loss_db[i]), inside)
        expected = dominant_path_loss_db(prepared, antennas[i], network.height_m[i], network.freq_mhz[i])
        np.testing.assert_allclose(maps.loss_db[i], expected, atol=0.05)
    np.testing.assert_array_equal(radio_maps(replace(job, threads=2)).loss_db, maps.loss_db)
    pytest.importorskip("torch")
    np.testing.assert_allclose(radio_maps(replace(job, device="torch")).loss_db, maps.loss_db, atol=1e-3)


@pytest.mark.real_data
def test_munich_has_no_way_shorter_than_the_straight_line() -> None:
    path = Path(__file__).parents[3] / "shared/data/buildings/munich_buildings.gpkg"
    if not path.exists():
        pytest.skip("needs ../shared/data")
    ogr = pytest.importorskip("osgeo.ogr")
    ogr.UseExceptions()
    source = ogr.Open(str(path))
    polygons, heights = [], []
    for feature in source.GetLayer(0):
        shape = feature.GetGeometryRef()
        for part in range(shape.GetGeometryCount()):
            rings = shape.GetGeometryRef(part)
            polygons.append(
                [np.array(rings.GetGeometryRef(k).GetPoints())[:, :2] for k in range(rings.GetGeometryCount())]
            )
            heights.append(feature.GetField("height_m"))
    buildings = buildings_of_polygons(polygons, heights)
    grid = Grid.covering((-760, -646, 646, 465), 10.0)
    prepared = prepare_dominant_paths(buildings, grid)
    antenna = grid.centres(prepared.places.row[[1000]])[0]
    lengths = path_length_m(prepared, antenna).ravel()
    np.testing.assert_array_equal(np.isnan(lengths), buildings.inside(grid.centres(np.arange(grid.size))))
    straight = np.hypot(*(grid.centres(np.arange(grid.size)) - antenna).T)
    reached = np.isfinite(lengths)
    assert reached.mean() > 0.4
    assert (lengths[reached] >= straight[reached] - 0.3).all()


def test_antennas_without_a_position_and_absurd_settings_are_refused() -> None:
    prepared = prepare_at(blocks(block(10, -10, 20, 10)), np.array([[0.0, 0.0]]))
    with pytest.raises(InputError, match="position of an antenna"):
        path_length_m(prepared, np.array([np.nan, 0.0]))
    with pytest.raises(InputError, match="repeated_share"):
        DominantPathSettings(repeated_share=2.0)
    with pytest.raises(InputError, match="points"):
        prepare_at(blocks(block(10, -10, 20, 10)), np.zeros((0, 2)))
    broken = blocks(np.array([[0, 0], [10, 0], [np.nan, 10]]))
    with pytest.raises(InputError, match="not finite"):
        prepare_at(broken, np.array([[0.0, 0.0]]))


def test_antenna_device_and_roof_of_one_height_are_grazed() -> None:
    walls = Walls.of(blocks(block(40, -5, 50, 5), height_m=15.0))
    loss_db, _ = over_roofs_db(walls, np.zeros(2), 15.0, FREQ_MHZ, np.array([[100.0, 0.0]]), 15.0, 1.0)
    assert loss_db[0] == pytest.approx(6.03, abs=0.01)


def test_points_are_found_in_their_triangles_also_where_walks_lead_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    space = triangulate(scene(3), (0.0, 0.0, 100.0, 100.0))
    points = space.units(np.random.default_rng(0).uniform(0, 100, (200, 2)))
    found = space.locate(points)
    corners = space.points[space.triangles[found]] - points[:, None]
    after = np.roll(corners, -1, axis=1)
    assert (corners[..., 0] * after[..., 1] - corners[..., 1] * after[..., 0] >= 0).all()
    monkeypatch.setattr(free_space, "_MOST_STEPS", 1)
    np.testing.assert_array_equal(space.building[space.locate(points)], space.building[found])


def test_cancel_stops_the_search_of_one_antenna() -> None:
    prepared = prepare_at(scene(2), free_points(scene(2), 50, 2))
    for stop_at in (1, 2, 5):
        calls = []

        def progress(fraction: float, calls: list = calls, stop_at: int = stop_at) -> None:
            calls.append(fraction)
            if len(calls) == stop_at:
                raise Cancelled

        with pytest.raises(Cancelled):
            find_paths(prepared, np.zeros(2), 10.0, FREQ_MHZ, DominantPathSettings(), 1.5, progress)
        assert len(calls) == stop_at
