"""Statements about journeys and what is heard on them. Oracles: kinematics by finite differences, autocorrelations, routes by hand."""

from dataclasses import replace

import numpy as np
import pytest
from telcoloc.models.errors import InputError
from telcoloc.models.radio.drive_test import (
    MOST_CELLS,
    DriveTestParameters,
    RadioField,
    Sectors,
    draw_device_offset_db,
    draw_vehicle_loss_db,
    measurement_reports,
)
from telcoloc.models.radio.journeys import MOTIONS, Journey, StreetGraph, journey, travel
from telcoloc.models.radio.path_loss import SCENARIOS, path_loss_db

BOUNDS = (0.0, 0.0, 2000.0, 2000.0)
QUIET = DriveTestParameters(fading_db=0.0, journey_db=0.0, alone_probability=0.0, missed_probability=0.0)


def town(side=6, block_m=100.0, oneway_column=None):
    """Streets of a chessboard; the streets of one column lead north only."""
    lines, oneway = [], []
    for i in range(side):
        for j in range(side - 1):
            lines += [np.array([[i, j], [i, j + 1.0]]) * block_m, np.array([[j, i], [j + 1.0, i]]) * block_m]
            oneway += [i == oneway_column, False]
    return StreetGraph.of(lines, np.array(oneway), np.full(len(lines), 50.0))


def node_at(graph, x, y):
    return int(np.hypot(*(graph.node_xy_m - (x, y)).T).argmin())


def network(omni=False):
    """Nine sites of three sectors (or of one without direction) on a square of 800 m."""
    sites = np.array([(x, y) for x in (200.0, 1000.0, 1800.0) for y in (200.0, 1000.0, 1800.0)])
    per_site = 1 if omni else 3
    n = len(sites) * per_site
    return Sectors(
        site=np.repeat(np.arange(len(sites)), per_site),
        xy_m=np.repeat(sites, per_site, axis=0),
        height_m=np.full(n, 25.0),
        azimuth_deg=np.tile(np.arange(per_site) * 120.0, len(sites)),
        tilt_deg=np.full(n, 4.0),
        beam_width_deg=np.full(n, 360.0 if omni else 65.0),
        eirp_dbm=np.full(n, 28.0),
        freq_mhz=np.full(n, 1800.0),
        scenario=np.full(n, SCENARIOS.index("UMa")),
    )


@pytest.fixture(scope="module")
def radio():
    return RadioField(network(), BOUNDS, DriveTestParameters(), seed=3)


@pytest.fixture(scope="module")
def walk():
    """900 reports through the middle of the network."""
    time_s = np.arange(900) * 2.0
    along = np.linspace(0, 1, 900)[:, None]
    return Journey(time_s, (100.0, 300.0) * (1 - along) + np.array((1900.0, 1500.0)) * along)


# Journeys


def test_the_route_is_the_shortest_and_keeps_to_one_ways():
    graph = town(oneway_column=2)
    up, down = (node_at(graph, 200, y) for y in (0, 500))

    def length(route):
        return np.hypot(*np.diff(route.xy_m, axis=0).T).sum()

    assert length(graph.route([up, down], drives=True)) == pytest.approx(500)
    assert length(graph.route([down, up], drives=True)) == pytest.approx(700)  # round the block
    assert length(graph.route([down, up], drives=False)) == pytest.approx(500)
    there_and_back = graph.route([up, down, up], drives=True)
    assert length(there_and_back) == pytest.approx(1200)
    np.testing.assert_array_equal(there_and_back.xy_m[[0, -1]], graph.node_xy_m[[up, up]])


def test_driving_prefers_the_quicker_street():
    slow, quick = np.array([[0.0, 0], [100, 0]]), np.array([[0.0, 0], [50, 40], [100, 0]])
    graph = StreetGraph.of([slow, quick], np.zeros(2, bool), np.array([20.0, 50.0]))
    ends = [node_at(graph, 0, 0), node_at(graph, 100, 0)]
    assert len(graph.route(ends, drives=True).xy_m) == 3
    assert len(graph.route(ends, drives=False).xy_m) == 2


def test_what_cannot_be_reached_is_said_and_can_be_left_out():
    dead_end = np.array([[100.0, 0], [200, 0]])
    loop = [np.array(line, float) for line in ([[0, 0], [100, 0]], [[100, 0], [50, 50]], [[50, 50], [0, 0]])]
    graph = StreetGraph.of([*loop, dead_end], np.ones(4, bool), np.full(4, 30.0))
    with pytest.raises(InputError, match="cannot be reached"):
        graph.route([node_at(graph, 200, 0), node_at(graph, 0, 0)], drives=True)
    assert len(graph.well_connected().lines) == 3
    with pytest.raises(InputError, match="two different"):
        graph.route([0, 0], drives=True)
    with pytest.raises(InputError, match="at least one street"):
        StreetGraph.of([], np.empty(0, bool), np.empty(0))


@pytest.mark.parametrize("kind", MOTIONS)
def test_speed_and_acceleration_are_bounded_and_the_route_is_kept(kind):
    motion, graph = replace(MOTIONS[kind], pace_spread=0.0), town()
    corners = [node_at(graph, *corner) for corner in ((0, 0), (500, 500), (0, 500), (500, 0))]
    route = graph.route(corners, motion.drives)
    timetable = travel(route, motion, np.random.default_rng(1))
    assert (np.diff(timetable.time_s) >= 0).all()
    assert (np.diff(timetable.along_m) >= 0).all()
    duration = timetable.time_s[-1]
    tick = 2.0
    along = np.interp(np.arange(0, duration, tick), timetable.time_s, timetable.along_m)
    speed = np.diff(along) / tick
    assert speed.max() <= min(motion.pace_m_s, 50 / 3.6 * motion.limit_share) + 1e-6
    # Halts begin and end between two places of the profile.
    assert np.abs(np.diff(speed) / tick).max() < 1.25 * motion.acceleration_m_s2
    driven = journey(timetable, 1000.0, 2.0, 0.1, np.random.default_rng(2))
    assert driven.time_s[0] == 1000.0
    assert np.diff(driven.time_s).min() > 0.4
    assert np.median(np.diff(driven.time_s)) == pytest.approx(2.0, abs=0.05)
    off_street = np.abs(driven.xy_m / 100 - np.round(driven.xy_m / 100)).min(axis=1)
    assert off_street.max() < 1e-9
    assert np.allclose(driven.xy_m[0], route.xy_m[0])


def test_a_bus_stops_and_a_walker_keeps_his_pace():
    graph = town()
    places = [node_at(graph, *corner) for corner in ((0, 0), (500, 500), (0, 0))]
    rng = np.random.default_rng(4)
    bus = travel(graph.route(places, True), replace(MOTIONS["bus"], halt_probability=0.0), rng)
    still = np.diff(bus.time_s)[np.diff(bus.along_m) == 0]
    assert (still > 0).sum() == 5  # every 350 m of 2 km
    walker = travel(graph.route(places, False), replace(MOTIONS["walk"], pace_spread=0.0, halt_probability=0.0), rng)
    assert 2000 / walker.time_s[-1] == pytest.approx(1.3, rel=0.01)


# What is heard


def test_same_seeds_same_reports(walk):
    first, again = (
        measurement_reports(RadioField(network(), BOUNDS, DriveTestParameters(), 3), walk, np.random.default_rng(5))
        for _ in range(2)
    )
    other = measurement_reports(RadioField(network(), BOUNDS, DriveTestParameters(), 4), walk, np.random.default_rng(5))
    np.testing.assert_array_equal(first.sector, again.sector)
    np.testing.assert_array_equal(first.rss_dbm, again.rss_dbm)
    assert (first.sector != other.sector).mean() > 0.2


def test_power_falls_with_distance_as_the_path_loss_says():
    one = network(omni=True)
    alone = replace(one, **{name: getattr(one, name)[:1] for name in one.__dataclass_fields__})
    field = RadioField(alone, BOUNDS, replace(QUIET, shadowing_db=dict.fromkeys(SCENARIOS, 0.0)), seed=1)
    distance = np.array([300.0, 500.0, 900.0, 1500.0])
    places = np.column_stack([200 + distance, np.full(4, 200.0)])
    received = field.local_mean_dbm(places)[:, 0]
    assert (np.diff(received) < 0).all()
    expected = 28 - path_loss_db("UMa", distance, 1800.0, 25.0)
    np.testing.assert_allclose(received, expected, atol=2.0)  # up to the vertical pattern of a beam tilted by 4°
    heard = measurement_reports(field, Journey(np.arange(4.0), places), np.random.default_rng(0))
    with_noise = 10 * np.log10(10 ** (received / 10) + 10 ** (QUIET.noise_dbm / 10))
    np.testing.assert_allclose(heard.rss_dbm[:, 0], with_noise, atol=0.5)
    assert (heard.sector[:, 1:] == -1).all()


def test_a_sector_is_strongest_along_its_azimuth(radio):
    centre, angle = np.array([1000.0, 1000.0]), np.radians([0.0, 120.0, 240.0])
    places = centre + 300 * np.column_stack([np.sin(angle), np.cos(angle)])
    own = np.flatnonzero((radio.sectors.xy_m == centre).all(axis=1))
    np.testing.assert_array_equal(radio.mean_dbm(places)[:, own].argmax(axis=1), [0, 1, 2])


def test_shadowing_belongs_to_the_place_and_to_the_site(radio):
    rng = np.random.default_rng(6)
    places = rng.uniform(0, 2000, (4000, 2))
    shadowing = radio.shadowing_db(places)
    np.testing.assert_array_equal(shadowing[:, 0], shadowing[:, 1])  # sectors of one site
    np.testing.assert_array_equal(radio.shadowing_db(places[::-1])[::-1], shadowing)
    sites = shadowing[:, ::3]
    assert sites.std() == pytest.approx(6.0, rel=0.1)
    between = np.corrcoef(sites.T)[np.triu_indices(9, 1)]
    assert between.mean() == pytest.approx(0.5, abs=0.1)


@pytest.mark.parametrize("distance_m", [25.0, 50.0, 100.0])
def test_shadowing_is_forgotten_over_its_correlation_distance(radio, distance_m):
    places = np.random.default_rng(7).uniform(100, 1900, (20_000, 2))
    angle = np.random.default_rng(8).uniform(0, 2 * np.pi, 20_000)
    near = places + distance_m * np.column_stack([np.cos(angle), np.sin(angle)])
    a, b = radio.shadowing_db(places)[:, ::3], radio.shadowing_db(np.clip(near, 0, 2000))[:, ::3]
    correlation = (a * b).mean() / np.sqrt((a**2).mean() * (b**2).mean())
    assert correlation == pytest.approx(np.exp(-distance_m / 50), abs=0.08)


def test_a_further_site_leaves_the_others_alone():
    every = network()
    fewer = replace(every, **{name: getattr(every, name)[:-3] for name in every.__dataclass_fields__})
    places = np.random.default_rng(9).uniform(0, 2000, (50, 2))
    parameters = DriveTestParameters()
    np.testing.assert_array_equal(
        RadioField(fewer, BOUNDS, parameters, 2).local_mean_dbm(places),
        RadioField(every, BOUNDS, parameters, 2).local_mean_dbm(places)[:, :-3],
    )


def differences(field, walk):
    """What a device 4 dB above another one reports more of each cell, on the same walk."""
    first, second = (
        measurement_reports(field, walk, np.random.default_rng(seed), offset) for seed, offset in ((10, 0.0), (11, 4.0))
    )
    found = [
        b - a
        for row in range(len(walk.time_s))
        for sector, a in zip(first.sector[row], first.rss_dbm[row])
        if sector >= 0
        for b in second.rss_dbm[row][second.sector[row] == sector]
    ]
    assert len(found) > 2000
    return np.array(found)


@pytest.mark.parametrize(("fading_db", "journey_db"), [(2.0, 0.0), (0.0, 2.0), (1.0, 2.0)])
def test_two_devices_agree_up_to_offset_and_fading(walk, fading_db, journey_db):
    parameters = replace(QUIET, fading_db=fading_db, journey_db=journey_db)
    found = differences(RadioField(network(), BOUNDS, parameters, seed=3), walk)
    assert np.mean(found) == pytest.approx(4.0, abs=0.5)
    # Two fadings and two roundings; cells near the end of the list are there when they fade upwards.
    assert np.std(found) == pytest.approx(np.sqrt(2 * (fading_db**2 + journey_db**2) + 2 / 12), rel=0.2)


def lag_one(parameters, step_s, step_m):
    """Correlation of the reports of the strongest cell with those before, back and forth between two places."""
    field = RadioField(network(), BOUNDS, parameters, seed=3)
    n = 4000
    places = np.array([1100.0, 1100.0]) + np.column_stack([np.arange(n) % 2 * step_m, np.zeros(n)])
    heard = measurement_reports(field, Journey(np.arange(n) * step_s, places), np.random.default_rng(1))
    strongest = np.bincount(heard.sector[:, 0]).argmax()
    value = np.where(heard.sector == strongest, heard.rss_dbm, 0).sum(axis=1)
    value[::2] -= value[::2].mean()
    value[1::2] -= value[1::2].mean()
    return (value[1:] * value[:-1]).mean() / (value**2).mean()


def test_fading_is_forgotten_on_the_move_and_kept_in_a_halt():
    parameters = replace(QUIET, fading_db=2.0)
    assert lag_one(parameters, 0.5, 0.0) == pytest.approx(np.exp(-0.25), abs=0.08)
    assert abs(lag_one(parameters, 2.0, 15.0)) < 0.08


def test_surroundings_change_slowly():
    parameters = replace(QUIET, journey_db=2.0)
    assert lag_one(parameters, 15.0, 0.0) == pytest.approx(np.exp(-0.5), abs=0.1)
    assert lag_one(parameters, 3.0, 30.0) == pytest.approx(np.exp(-0.6), abs=0.1)


def test_reports_are_what_tables_hold(walk):
    field = RadioField(network(), BOUNDS, replace(DriveTestParameters(), least_share_db=60.0), seed=3)
    reports = measurement_reports(field, walk, np.random.default_rng(12))
    assert reports.sector.shape == reports.rss_dbm.shape == (900, MOST_CELLS)
    there = reports.sector >= 0
    np.testing.assert_array_equal(np.isfinite(reports.rss_dbm), there)
    assert (reports.rss_dbm[there] == np.round(reports.rss_dbm[there])).all()
    assert (np.diff(there.astype(int), axis=1) <= 0).all()  # no holes
    neighbours = np.where(there, reports.rss_dbm, -np.inf)[:, 1:]
    assert (neighbours[:, :-1] >= neighbours[:, 1:]).all()
    for row in reports.sector:
        heard = row[row >= 0]
        assert len(set(heard)) == len(heard)
    alone = there.sum(axis=1) == 1
    assert 0.005 < alone.mean() < 0.05
    assert 4 < there.sum(axis=1).mean() < 7


def test_the_serving_cell_is_the_strongest_within_the_margin(radio, walk):
    reports = measurement_reports(
        RadioField(network(), BOUNDS, replace(DriveTestParameters(), missed_probability=0.0), 3),
        walk,
        np.random.default_rng(13),
    )
    behind = np.nanmax(reports.rss_dbm, axis=1) - reports.rss_dbm[:, 0]
    assert behind.max() <= DriveTestParameters().margin_db + 1  # and a rounding
    assert (behind > 0).any()

    def changes(margin_db):
        field = RadioField(network(), BOUNDS, replace(DriveTestParameters(), margin_db=margin_db), 3)
        return np.diff(measurement_reports(field, walk, np.random.default_rng(13)).sector[:, 0]).astype(bool).sum()

    assert changes(6.0) < changes(3.0) < changes(0.0)


def test_far_away_nothing_is_heard_and_nobody_fails():
    weak = replace(network(), eirp_dbm=np.full(27, -40.0))
    field = RadioField(weak, BOUNDS, DriveTestParameters(), seed=1)
    reports = measurement_reports(field, Journey(np.arange(5.0), np.full((5, 2), 600.0)), np.random.default_rng(0))
    assert (reports.sector == -1).all()
    assert np.isnan(reports.rss_dbm).all()
    with pytest.raises(InputError, match="outside of the bounds"):
        field.shadowing_db(np.array([[2500.0, 100.0]]))


def test_long_journeys_are_cut_into_pieces_unseen(radio, walk, monkeypatch):
    whole = measurement_reports(radio, walk, np.random.default_rng(14))
    monkeypatch.setattr("telcoloc.models.radio.drive_test._REPORTS_AT_ONCE", 7)
    pieces = measurement_reports(radio, walk, np.random.default_rng(14))
    np.testing.assert_array_equal(whole.sector, pieces.sector)
    np.testing.assert_array_equal(whole.rss_dbm, pieces.rss_dbm)


def test_devices_and_vehicles_differ_as_said():
    rng, parameters = np.random.default_rng(15), DriveTestParameters()
    offsets = [draw_device_offset_db(parameters, rng) for _ in range(2000)]
    assert np.std(offsets) == pytest.approx(3.0, rel=0.06)
    losses = [draw_vehicle_loss_db(parameters, rng) for _ in range(2000)]
    assert min(losses) >= 0
    assert np.mean(losses) == pytest.approx(9.0, abs=0.5)
