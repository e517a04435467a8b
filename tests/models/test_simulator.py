"""Statements about the network simulator. Oracles: Monte Carlo, closed forms for two sites, symmetry, variances over seeds."""

from dataclasses import fields, replace
from math import erf, pi, sqrt

import numpy as np
import pytest
from telcoloc.models.errors import Cancelled, InputError
from telcoloc.models.geolocation.sites import URBANISATIONS, local_spacing_m
from telcoloc.models.grid import Grid
from telcoloc.models.radio import simulator
from telcoloc.models.radio.layouts import LayoutSettings
from telcoloc.models.radio.parameters import SimulatorParameters, error_matched_parameters
from telcoloc.models.radio.path_loss import path_loss_db
from telcoloc.models.radio.simulator import equip, simulate
from telcoloc.models.training.networks import CELL_SIZE_M, EDGE_SPACINGS, network_of_layout, simulated_network

DEFAULT = SimulatorParameters()
RESIDUAL_DB = 8.0
LTE1800 = replace(DEFAULT.carriers[1], present=dict.fromkeys(URBANISATIONS, 1.0))
LTE800 = replace(DEFAULT.carriers[2], present=dict.fromkeys(URBANISATIONS, 1.0))


def calm(**change):
    """No randomness but the residual: one carrier, omnidirectional antennas, all equipment alike, no horizon."""
    sectors = (1.0, 0.0, 0.0, 0.0, 0.0)
    classes = {
        name: replace(one, sectors=sectors, shadowing_db=0.0, directional_db=0.0)
        for name, one in DEFAULT.classes.items()
    }
    same = {
        "carriers": (LTE1800,),
        "classes": classes,
        "height_spread": 0.0,
        "eirp_spread_db": 0.0,
        "tilt_error_deg": 0.0,
        "residual_db": dict.fromkeys(URBANISATIONS, RESIDUAL_DB),
        "beyond_db": 0.0,
        "min_probability": 1e-9,
    }
    return replace(DEFAULT, **{**same, **change})


def every_class(parameters, **change):
    return {name: replace(one, **change) for name, one in parameters.classes.items()}


#: Two urban sites 800 m apart, 28 m high, and cells of 50 m around them.
PAIR = np.array([[-400.0, 0.0], [400.0, 0.0]])
AROUND = Grid(30, 40, -1000.0, 750.0, 50.0)
FEW = Grid(3, 4, -160.0, 100.0, 50.0)


def dense(association):
    return association.toarray().astype(float)


def distances(sites_m, grid):
    return np.linalg.norm(grid.centres(np.arange(grid.size))[None] - sites_m[:, None], axis=2)


def rsrp_dbm(distance, carrier=LTE1800, height=28.0, spacing=800.0):
    """Written again from the parameters' descriptions, for a calm urban site."""
    tilt = min(np.degrees(np.arctan((height - 1.5) / (0.7 * spacing))), 10)
    depression = np.degrees(np.arctan2(height - 1.5, distance))
    vertical = np.minimum(12 * ((depression - tilt) / 10) ** 2, 20)
    return carrier.eirp_dbm - vertical - path_loss_db("UMa", distance, carrier.freq_mhz, height)


def advantage_db(association):
    """How much stronger site 0 must be than site 1, by the odds of two Gumbel variables."""
    share = dense(association)
    return np.log(share[0] / share[1]) * RESIDUAL_DB * sqrt(6) / pi


@pytest.fixture(scope="module")
def region():
    """Forty sites of all kinds, and cells of 200 m over 12 km."""
    rng = np.random.default_rng(3)
    sites = np.concatenate([rng.normal(0, 900, (20, 2)), rng.uniform(-6000, 6000, (20, 2))])
    return sites, Grid(60, 60, -6000.0, 6000.0, 200.0)


# A probability per cell


def test_the_shares_of_every_cell_sum_to_one_and_none_is_tiny(region):
    sites, grid = region
    association = simulate(sites, grid, DEFAULT, 1)
    assert association.shape == (40, 3600)
    assert association.dtype == np.float32
    assert association.has_sorted_indices
    np.testing.assert_allclose(dense(association).sum(axis=0), 1, rtol=0, atol=1e-6)
    assert association.data.min() >= DEFAULT.min_probability
    assert association.data.max() <= 1 + 1e-6


def test_equal_seeds_make_equal_networks_and_others_do_not(region):
    sites, grid = region
    one, same, other = (simulate(sites, grid, DEFAULT, seed) for seed in (1, 1, 2))
    for name in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(one, name), getattr(same, name))
    assert abs(dense(one) - dense(other)).sum(axis=0).mean() > 0.3


def test_masked_cells_are_empty_and_the_others_as_without_a_mask(region):
    sites, grid = region
    mask = np.random.default_rng(0).random(grid.shape) < 0.5
    free, masked = (dense(simulate(sites, grid, DEFAULT, 1, one)) for one in (None, mask))
    assert (masked[:, ~mask.ravel()] == 0).all()
    np.testing.assert_array_equal(masked[:, mask.ravel()], free[:, mask.ravel()])


def test_a_site_beyond_its_reach_serves_nobody(region):
    sites, grid = region
    with_far = np.vstack([sites, 2e6 + np.random.default_rng(1).normal(0, 500, (8, 2))])
    association = simulate(with_far, grid, DEFAULT, 1)
    assert (np.diff(association.indptr)[40:] == 0).all()
    np.testing.assert_allclose(dense(association).sum(axis=0), 1, rtol=0, atol=1e-6)


# Two sites, one carrier: the stronger one wins by as much as the residual lets it


def test_shares_are_how_often_a_site_is_the_strongest_under_gumbel_noise():
    share = dense(simulate(PAIR, AROUND, calm(), 0))
    mean = rsrp_dbm(distances(PAIR, AROUND))
    rng = np.random.default_rng(0)
    for cell in (0, 333, 615, 620, 1000):
        noise = rng.gumbel(scale=RESIDUAL_DB * sqrt(6) / pi, size=(2, 200_000))
        assert noise.std() == pytest.approx(RESIDUAL_DB, rel=0.01)
        wins = (mean[0, cell] + noise[0] > mean[1, cell] + noise[1]).mean()
        assert share[0, cell] == pytest.approx(wins, abs=0.005)


def test_the_odds_are_those_of_the_received_powers():
    mean = rsrp_dbm(distances(PAIR, AROUND))
    np.testing.assert_allclose(advantage_db(simulate(PAIR, AROUND, calm(), 0)), mean[0] - mean[1], rtol=0, atol=0.01)


def test_beyond_the_horizon_a_site_falls_by_so_much_more_per_decade():
    mean = rsrp_dbm(distances(PAIR, AROUND))
    ratio = distances(PAIR, AROUND) / (0.5 * 800)
    expected = mean - 40 / 4 * np.log10(1 + ratio**4)
    found = advantage_db(simulate(PAIR, AROUND, calm(beyond_db=40.0, horizon_spacings=0.5), 0))
    np.testing.assert_allclose(found, expected[0] - expected[1], rtol=0, atol=0.01)


@pytest.mark.parametrize(("azimuth", "towards"), [(0, (0, 1)), (90, (1, 0)), (180, (0, -1)), (270, (-1, 0))])
def test_a_sector_looks_where_the_compass_says_and_falls_off_by_table_7_3_1(monkeypatch, azimuth, towards):
    drawn = equip

    def aimed(*arguments):
        return replace(drawn(*arguments), azimuths_deg=((float(azimuth),), ()))

    everywhere = advantage_db(simulate(PAIR, AROUND, calm(), 0))
    monkeypatch.setattr(simulator, "equip", aimed)
    lost = everywhere - advantage_db(simulate(PAIR, AROUND, calm(), 0))
    away = AROUND.centres(np.arange(AROUND.size)) - PAIR[0]
    offset = np.degrees(np.arccos(away @ towards / np.linalg.norm(away, axis=1)))
    far = (
        np.linalg.norm(away, axis=1) > 500
    )  # where little is lost below the beam, so that the floor of both together is far
    near_axis = far & (offset < 80)
    np.testing.assert_allclose(lost[near_axis], 12 * (offset[near_axis] / 65) ** 2, rtol=0, atol=0.01)
    assert near_axis.sum() > 50
    assert lost[far & (offset > 120)].min() > 20


def test_equal_sites_on_a_symmetric_layout_have_symmetric_maps():
    sites = np.array([[300.0, 700.0], [-700.0, 300.0], [-300.0, -700.0], [700.0, -300.0]])
    grid = Grid(40, 40, -1000.0, 1000.0, 50.0)
    maps = dense(simulate(sites, grid, calm(carriers=(LTE1800, LTE800)), 0)).reshape(4, 40, 40)
    for turn in (1, 2, 3):  # counter-clockwise, as the sites
        np.testing.assert_allclose(maps[turn], np.rot90(maps[0], turn), rtol=0, atol=1e-5)
    lined_up = dense(simulate(PAIR, AROUND, calm(), 0)).reshape(2, 30, 40)
    np.testing.assert_allclose(lined_up[0], lined_up[1, :, ::-1], rtol=0, atol=1e-5)
    np.testing.assert_allclose(lined_up, lined_up[:, ::-1], rtol=0, atol=1e-5)


def test_a_stronger_site_gains_in_every_cell_and_the_others_lose(monkeypatch, region):
    sites, grid = region
    one_carrier = replace(DEFAULT, carriers=(LTE1800,), min_probability=1e-9)
    before = dense(simulate(sites, grid, one_carrier, 1))
    drawn = equip

    def stronger(*arguments):
        equipment = drawn(*arguments)
        return replace(equipment, eirp_offset_db=equipment.eirp_offset_db + 6 * (np.arange(40) == 4))

    monkeypatch.setattr(simulator, "equip", stronger)
    after = dense(simulate(sites, grid, one_carrier, 1))
    assert (after[4] >= before[4] - 1e-6).all()
    assert after[4].sum() > 1.2 * before[4].sum()
    assert (np.delete(after - before, 4, axis=0) <= 1e-6).all()


# Carriers and their priorities


def normal(x):
    return np.array([0.5 * (1 + erf(value / sqrt(2))) for value in x])


@pytest.mark.parametrize("first", [0, 1])
def test_devices_stay_on_the_carrier_of_priority_while_it_is_strong_enough_indoors_too(monkeypatch, first):
    """One site has the 1,800 MHz, the other the 800 MHz; the carrier, not the strength, decides."""
    drawn = equip

    def split(*arguments):
        return replace(drawn(*arguments), carriers=np.array([[first == 0, first == 1], [first == 1, first == 0]]))

    monkeypatch.setattr(simulator, "equip", split)
    high = replace(LTE1800, threshold_dbm=-95.0)
    share = dense(simulate(PAIR, AROUND, calm(carriers=(high, LTE800)), 0))
    power = rsrp_dbm(distances(PAIR, AROUND), high)[first]
    stay = sum(devices * normal((power - loss + 95) / 6) for loss, devices in ((0, 0.3), (12, 0.4), (20, 0.3)))
    np.testing.assert_allclose(share[first], stay, rtol=0, atol=1e-4)
    assert stay.min() < 0.5  # or nothing was tested
    assert stay.max() > 0.99


def test_where_one_carrier_is_all_there_is_devices_stay_on_it_however_weak(monkeypatch):
    weak = replace(LTE1800, threshold_dbm=100.0)
    np.testing.assert_allclose(
        dense(simulate(PAIR, AROUND, calm(carriers=(weak,)), 0)), dense(simulate(PAIR, AROUND, calm(), 0)), atol=1e-6
    )


# What is random has the spread it says


def spread_db(parameters, n=300):
    """Variance over seeds of the advantage in a dozen cells about the middle [dB²]."""
    return np.var([advantage_db(simulate(PAIR, FEW, parameters, seed)) for seed in range(n)], axis=0).mean()


def test_eirp_differs_between_sites_by_its_spread():
    assert spread_db(calm(eirp_spread_db=4.0)) == pytest.approx(2 * 4**2, rel=0.2)


def test_the_directional_gain_has_its_spread():
    assert spread_db(calm(classes=every_class(calm(), directional_db=6.0))) == pytest.approx(2 * 6**2, rel=0.2)


@pytest.mark.parametrize("correlation", [0.0, 0.5, 1.0])
def test_shadowing_common_to_all_sites_does_not_matter(correlation):
    shadowed = calm(classes=every_class(calm(), shadowing_db=5.0), site_correlation=correlation)
    assert spread_db(shadowed) == pytest.approx(2 * 5**2 * (1 - correlation), rel=0.2, abs=1e-3)


def test_equipment_is_drawn_as_the_parameters_say():
    rng = np.random.default_rng(0)
    sites = rng.uniform(0, 60_000, (4000, 2)) * rng.choice([0.3, 1.0, 4.0], (4000, 1))
    equipment = equip(sites, DEFAULT, np.random.default_rng(1))
    np.testing.assert_array_equal(equipment.spacing_m, local_spacing_m(sites))
    assert equipment.eirp_offset_db.std() == pytest.approx(4, rel=0.05)
    assert equipment.tilt_deg.min() >= 0
    assert equipment.tilt_deg.max() <= 10
    assert equipment.carriers.any(axis=1).all()
    for index, name in enumerate(URBANISATIONS):
        here = equipment.kind == index
        assert here.sum() > 100
        one = DEFAULT.classes[name]
        np.testing.assert_allclose(np.median(equipment.height_m[here]), one.height_m, rtol=0.05)
        sectors = [len(azimuths) for azimuths, is_here in zip(equipment.azimuths_deg, here) if is_here]
        np.testing.assert_allclose(np.bincount(sectors, minlength=5) / here.sum(), one.sectors, atol=0.06)
        shares = [carrier.present[name] for carrier in DEFAULT.carriers]
        np.testing.assert_allclose(equipment.carriers[here].mean(axis=0), shares, atol=0.06)
    gaps = np.concatenate(
        [np.diff(azimuths, append=azimuths[0] + 360) % 360 for azimuths in equipment.azimuths_deg if len(azimuths) == 3]
    )
    assert np.mean(gaps) == pytest.approx(120)
    assert np.std(gaps) == pytest.approx(sqrt(2) * 10, rel=0.1)


def test_the_tilt_points_the_beam_at_its_share_of_the_spacing():
    equipment = equip(PAIR * 2, calm(), np.random.default_rng(0))
    assert np.tan(np.radians(equipment.tilt_deg)) == pytest.approx(np.full(2, (30 - 1.5) / (0.7 * 1600)))


# The parameters


def test_the_parameters_are_what_their_sources_say():
    for carrier in DEFAULT.carriers:
        assert carrier.eirp_dbm == pytest.approx(46 - 10 * np.log10(1200) + 18 - 3, abs=0.5)
        assert set(carrier.present) == set(URBANISATIONS)
    for one in DEFAULT.classes.values():
        assert sum(one.sectors) == pytest.approx(1)
        assert 0 <= one.terrain_share <= 1
    assert set(DEFAULT.classes) == set(DEFAULT.residual_db) == set(URBANISATIONS)
    assert sum(devices for _, devices in DEFAULT.penetration) == pytest.approx(1)
    frequencies = [carrier.freq_mhz for carrier in DEFAULT.carriers]
    assert frequencies == sorted(frequencies, reverse=True)  # capacity first, coverage last
    assert DEFAULT.carriers[-1].present["rural"] == 1


def test_the_second_tuning_differs_in_what_it_says_only():
    other = error_matched_parameters()
    changed = {one.name for one in fields(other) if getattr(other, one.name) != getattr(DEFAULT, one.name)}
    assert changed == {"residual_db", "beyond_db", "reach_spacings"}


# What is refused, reported, cancelled


def test_one_site_is_no_network():
    with pytest.raises(InputError, match=r"^A network needs at least two base stations, not 1\.$"):
        simulate(PAIR[:1], AROUND, DEFAULT, 0)


def test_progress_rises_to_one_and_can_cancel(region):
    sites, grid = region
    seen = []
    simulate(sites, grid, DEFAULT, 1, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[0] == 0
    assert seen[-1] == 1
    assert len(seen) > len(sites)
    for at in (0.0, 0.4, 0.9):

        def cancel(fraction, at=at):
            if fraction >= at:
                raise Cancelled

        with pytest.raises(Cancelled):
            simulate(sites, grid, DEFAULT, 1, progress=cancel)


# Networks to learn from

SMALL = LayoutSettings(
    side_m=12_000.0, core_spacing_m=(900.0, 1_000.0), core_radius_m=(2_500.0, 2_600.0), towns=(0, 0), roughness=0.3
)


def test_a_simulated_network_has_maps_and_targets_away_from_the_edge():
    network = simulated_network(1, layout=SMALL)
    assert network.grid.bounds == (-6000, -6000, 6000, 6000)
    assert network.grid.cell_size_m == CELL_SIZE_M == 100  # 0.01 km²
    sums = np.asarray(network.maps.sum(axis=1)).ravel()
    np.testing.assert_allclose(sums[sums > 0], 1, rtol=0, atol=1e-5)
    assert network.maps.has_sorted_indices
    assert 5 < len(network.targets) < len(network.sites_m)
    for target in range(len(network.sites_m)):
        clear = (6000 - abs(network.sites_m[target])).min() > EDGE_SPACINGS * network.spacing_m[target]
        assert (target in network.targets) == (clear and sums[target] > 0)
    again, other = simulated_network(1, layout=SMALL), simulated_network(2, layout=SMALL)
    np.testing.assert_array_equal(again.sites_m, network.sites_m)
    np.testing.assert_array_equal(again.maps.data, network.maps.data)
    assert len(other.sites_m) != len(network.sites_m) or not np.array_equal(other.sites_m, network.sites_m)


def test_the_maps_are_bayes_of_the_simulated_shares(region):
    sites, grid = region
    mask = np.ones(grid.shape, bool)
    mask[:, 40:] = False
    network = network_of_layout("a place", sites, grid, 7, mask=mask)
    share = dense(simulate(sites, grid, DEFAULT, 7, mask))
    expected = share / np.maximum(share.sum(axis=1, keepdims=True), 1e-30)
    np.testing.assert_allclose(dense(network.maps), expected, rtol=1e-5, atol=1e-9)
    assert network.name == "a place"
    assert (share[network.targets].sum(axis=1) > 0).all()
