"""Statements about path loss, antennas, shadowing and layouts. Oracles: TR 38.901 by hand, autocorrelations, counting."""

from math import exp, log10, pi, sqrt

import numpy as np
import pytest
from scipy.spatial import cKDTree
from telcoloc.models.radio import path_loss
from telcoloc.models.radio.antennas import sector_gain_db, vertical_loss_db
from telcoloc.models.radio.layouts import LayoutSettings, random_layout
from telcoloc.models.radio.path_loss import SCENARIOS, los_probability, path_loss_db
from telcoloc.models.radio.shadowing import correlated_field

# Path loss: each line of TR 38.901 table 7.4.1-1 written out with its numbers put in, for a device at 1.5 m


def uma_los_2_ghz_25_m(d):
    d3 = sqrt(d**2 + 23.5**2)
    if d <= 4 * 24 * 0.5 * 2e9 / 3e8:  # d'_BP = 320 m
        return 28 + 22 * log10(d3) + 20 * log10(2)
    return 28 + 40 * log10(d3) + 20 * log10(2) - 9 * log10(320**2 + 23.5**2)


def uma_nlos_2_ghz_25_m(d):
    return max(uma_los_2_ghz_25_m(d), 13.54 + 39.08 * log10(sqrt(d**2 + 23.5**2)) + 20 * log10(2))


def umi_los_3_5_ghz_10_m(d):
    d3 = sqrt(d**2 + 8.5**2)
    if d <= 4 * 9 * 0.5 * 3.5e9 / 3e8:  # d'_BP = 210 m
        return 32.4 + 21 * log10(d3) + 20 * log10(3.5)
    return 32.4 + 40 * log10(d3) + 20 * log10(3.5) - 9.5 * log10(210**2 + 8.5**2)


def umi_nlos_3_5_ghz_10_m(d):
    return max(umi_los_3_5_ghz_10_m(d), 35.3 * log10(sqrt(d**2 + 8.5**2)) + 22.4 + 21.3 * log10(3.5))


def rma_pl1_800_mhz(d3):
    """With h = 5 m: 5^1.72 = 15.93, so 0.03 h^1.72 = 0.478 < 10 and 0.044 h^1.72 = 0.701 < 14.77."""
    return 20 * log10(40 * pi * d3 * 0.8 / 3) + 0.03 * 5**1.72 * log10(d3) - 0.044 * 5**1.72 + 0.002 * log10(5) * d3


def rma_los_800_mhz_35_m(d):
    d3 = sqrt(d**2 + 33.5**2)
    breakpoint_m = 2 * pi * 35 * 1.5 * 0.8e9 / 3e8  # 879.6 m
    if d <= breakpoint_m:
        return rma_pl1_800_mhz(d3)
    return rma_pl1_800_mhz(breakpoint_m) + 40 * log10(d3 / breakpoint_m)


def rma_nlos_800_mhz_35_m(d):
    d3 = sqrt(d**2 + 33.5**2)
    loss = 161.04 - 7.1 * log10(20) + 7.5 * log10(5) - (24.37 - 3.7 * (5 / 35) ** 2) * log10(35)
    loss += (43.42 - 3.1 * log10(35)) * (log10(d3) - 3) + 20 * log10(0.8)
    return max(rma_los_800_mhz_35_m(d), loss - (3.2 * log10(11.75 * 1.5) ** 2 - 4.97))


CASES = {
    "UMa": (2000.0, 25.0, uma_los_2_ghz_25_m, uma_nlos_2_ghz_25_m, lambda d: 18 / d + exp(-d / 63) * (1 - 18 / d)),
    "UMi": (3500.0, 10.0, umi_los_3_5_ghz_10_m, umi_nlos_3_5_ghz_10_m, lambda d: 18 / d + exp(-d / 36) * (1 - 18 / d)),
    "RMa": (800.0, 35.0, rma_los_800_mhz_35_m, rma_nlos_800_mhz_35_m, lambda d: exp(-(d - 10) / 1000)),
}
DISTANCES_M = (20.0, 100.0, 200.0, 319.0, 321.0, 800.0, 900.0, 3000.0, 9000.0)


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("sight", ["LOS", "NLOS"])
def test_losses_with_and_without_line_of_sight_are_those_of_table_7_4_1_1(monkeypatch, scenario, sight):
    mhz, height, los, nlos, _ = CASES[scenario]
    monkeypatch.setattr(path_loss, "los_probability", lambda _, d: np.full(np.shape(d), float(sight == "LOS")))
    found = path_loss_db(scenario, np.array(DISTANCES_M), mhz, height)
    np.testing.assert_allclose(found, [(los if sight == "LOS" else nlos)(d) for d in DISTANCES_M], rtol=0, atol=1e-9)


@pytest.mark.parametrize(
    ("scenario", "distance_m", "with_sight_db", "without_db"),
    # Term by term, e.g. UMa, 200 m: d3 = 201.376, 28 + 22 · 2.30401 + 6.0206 and 13.54 + 39.08 · 2.30401 + 6.0206;
    # RMa, 200 m: d3 = 202.786, 76.644 + 1.103 − 0.701 + 0.283 and 119.533 − 26.771 − 1.938 + 0.001.
    [
        ("UMa", 200, 84.71, 109.60),
        ("UMa", 1000, 108.90, 136.81),
        ("UMi", 200, 91.61, 115.23),
        ("UMi", 1000, 119.15, 139.89),
        ("RMa", 200, 77.33, 90.82),
        ("RMa", 1000, 93.56, 117.60),
    ],
)
def test_the_hand_written_losses_are_these_numbers(scenario, distance_m, with_sight_db, without_db):
    """The oracle above, held against numbers."""
    _, _, los, nlos, _ = CASES[scenario]
    assert los(distance_m) == pytest.approx(with_sight_db, abs=0.02)
    assert nlos(distance_m) == pytest.approx(without_db, abs=0.02)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_the_mean_loss_weighs_both_by_the_probability_of_sight(scenario):
    mhz, height, los, nlos, probability = CASES[scenario]
    expected = [probability(d) * los(d) + (1 - probability(d)) * nlos(d) for d in DISTANCES_M]
    found = path_loss_db(scenario, np.array(DISTANCES_M).reshape(3, 3), mhz, height)
    np.testing.assert_allclose(found, np.reshape(expected, (3, 3)), rtol=0, atol=1e-9)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_probability_of_sight_is_that_of_table_7_4_2_1(scenario):
    far = np.array(DISTANCES_M)
    np.testing.assert_allclose(los_probability(scenario, far), [CASES[scenario][4](d) for d in far], rtol=1e-12)
    assert (los_probability(scenario, np.array([0.0, 3.0, 10.0])) == 1).all()
    if scenario != "RMa":
        assert los_probability(scenario, np.array([18.0])) == 1
        np.testing.assert_allclose(los_probability(scenario, np.array([18.001])), 1, atol=1e-3)
    rising = los_probability(scenario, np.linspace(0, 5000, 2000))
    assert (np.diff(rising) <= 0).all()


def test_sight_ends_after_sixty_metres_in_the_city_and_a_kilometre_in_the_country():
    assert los_probability("UMa", np.array([63.0])) == pytest.approx(18 / 63 + (1 - 18 / 63) / np.e)
    assert los_probability("RMa", np.array([1010.0])) == pytest.approx(1 / np.e)


@pytest.mark.parametrize("scenario", SCENARIOS)
@pytest.mark.parametrize("mhz", [806.0, 1840.0, 2650.0])
@pytest.mark.parametrize("height", [10.0, 28.0, 60.0])
def test_loss_rises_with_distance_and_frequency_and_is_flat_within_ten_metres(scenario, mhz, height):
    distance = np.geomspace(10, 30_000, 3000)
    loss = path_loss_db(scenario, distance, mhz, height)
    assert (np.diff(loss) > 0).all()
    assert np.diff(loss).max() < 0.5  # no jump at the breakpoint: 0.23 dB a step is 200 dB a decade
    near = path_loss_db(scenario, np.array([0.0, 4.0, 10.0]), mhz, height)
    assert (near == near[0]).all()
    assert (path_loss_db(scenario, distance, 1.2 * mhz, height) > loss).all()


def test_float32_distances_lose_no_more_than_a_hundredth_of_a_decibel():
    distance = np.geomspace(10, 30_000, 200)
    for scenario in SCENARIOS:
        single = path_loss_db(scenario, distance.astype(np.float32), 1840.0, 30.0)
        np.testing.assert_allclose(single, path_loss_db(scenario, distance, 1840.0, 30.0), rtol=0, atol=0.01)


# Antennas: TR 38.901 table 7.3-1, A = −min(12 (φ / 65°)² + vertical, 30)


def gain(offset_deg, depression_deg=4.0, tilt_deg=4.0):
    return float(sector_gain_db(np.array(offset_deg), np.array(depression_deg), tilt_deg))


def test_the_beams_axis_has_the_full_gain_and_half_the_power_half_the_width_away():
    assert gain(0) == 0
    for half in (-32.5, 32.5):
        assert gain(half) == pytest.approx(-3)
    for whole in (-65.0, 65.0):
        assert gain(whole) == pytest.approx(-12)
    assert gain(0, 4 + 5) == pytest.approx(-3)
    assert gain(0, 4 - 10) == pytest.approx(-12)
    assert gain(32.5, 4 + 5) == pytest.approx(-6)


def test_the_gain_never_falls_below_its_floors():
    offset, depression = np.meshgrid(np.arange(-180, 181), np.arange(-90, 91))
    found = sector_gain_db(offset, depression, 6.0)
    assert found.max() == 0
    assert found.min() == -30
    assert gain(180) == -30
    assert gain(0, 80) == -20  # side lobes
    assert vertical_loss_db(np.array([6.0, 11.0, 90.0]), 6.0) == pytest.approx([0, 3, 20])


def test_the_gain_is_even_about_the_axis_and_turns_with_the_compass():
    offset = np.linspace(-180, 180, 97)
    depression = np.full(97, 7.0)
    found = sector_gain_db(offset, depression, 4.0)
    np.testing.assert_allclose(found, found[::-1], atol=1e-9)
    for turns in (-720, 360, 1080):
        np.testing.assert_allclose(sector_gain_db(offset + turns, depression, 4.0), found, atol=1e-9)


# Shadowing: standard normal, autocorrelation e^(−d / L)


def autocorrelation(fields, rows, columns):
    ahead = fields[:, rows:, columns:]
    return float((ahead * fields[:, : fields.shape[1] - rows, : fields.shape[2] - columns]).mean())


@pytest.fixture(scope="module")
def fields():
    """Forty of 300 × 200 cells of 10 m, correlation distance 100 m."""
    return np.array([correlated_field((300, 200), 10.0, 100.0, np.random.default_rng(seed)) for seed in range(40)])


def test_shadowing_is_standard_normal(fields):
    assert fields.mean() == pytest.approx(0, abs=0.03)
    assert fields.var() == pytest.approx(1, abs=0.03)
    assert (abs(fields) < 1).mean() == pytest.approx(0.683, abs=0.02)
    assert (abs(fields) < 2).mean() == pytest.approx(0.954, abs=0.01)


def test_shadowing_decays_exponentially_and_alike_in_all_directions(fields):
    for rows, columns in ((5, 0), (10, 0), (0, 10), (7, 7), (6, 8), (20, 0), (0, 30)):
        expected = exp(-sqrt(rows**2 + columns**2) / 10)
        assert autocorrelation(fields, rows, columns) == pytest.approx(expected, abs=0.05), (rows, columns)


def test_opposite_edges_are_not_alike(fields):
    assert (fields[:, 0] * fields[:, -1]).mean() == pytest.approx(0, abs=0.1)
    assert (fields[:, :, 0] * fields[:, :, -1]).mean() == pytest.approx(0, abs=0.1)


@pytest.mark.parametrize("shape", [(7, 7), (8, 7), (7, 8), (64, 1), (1, 64)])
def test_variance_is_one_whatever_the_shape(shape):
    some = [correlated_field(shape, 100.0, 50.0, np.random.default_rng(seed)) for seed in range(1500)]
    assert some[0].shape == shape
    assert some[0].dtype == np.float32
    assert np.var(some) == pytest.approx(1, abs=0.06)


def test_equal_generators_make_equal_shadowing_and_each_call_another():
    one, two = (np.random.default_rng(5) for _ in range(2))
    first = correlated_field((20, 30), 100.0, 120.0, one)
    np.testing.assert_array_equal(correlated_field((20, 30), 100.0, 120.0, two), first)
    assert abs(np.corrcoef(correlated_field((20, 30), 100.0, 120.0, one).ravel(), first.ravel())[0, 1]) < 0.3


# Layouts

PLAIN = LayoutSettings(
    side_m=40_000.0,
    core_spacing_m=(1e6, 1e6),  # no city
    core_radius_m=(2_000.0, 2_000.0),
    rural_spacing_m=(2_000.0, 2_000.0),
    towns=(0, 0),
    roughness=0.0,
)
CITY = LayoutSettings(
    side_m=40_000.0,
    core_spacing_m=(500.0, 500.0),
    core_radius_m=(3_000.0, 3_000.0),
    rural_spacing_m=(5_000.0, 5_000.0),
    towns=(0, 0),
    roughness=0.0,
)


def layout(settings, seed):
    return random_layout(settings, np.random.default_rng(seed))


def test_equal_seeds_make_equal_layouts_within_the_square():
    first = layout(LayoutSettings(), 1)
    np.testing.assert_array_equal(layout(LayoutSettings(), 1), first)
    assert not np.array_equal(layout(LayoutSettings(), 2)[:5], first[:5])
    assert abs(first).max() <= 30_000
    assert len(np.unique(first, axis=0)) == len(first)


def test_open_land_has_one_base_station_per_spacing_squared():
    counts = [len(layout(PLAIN, seed)) for seed in range(30)]
    assert np.mean(counts) == pytest.approx(
        (40 / 2) ** 2, rel=0.03
    )  # ± 4 standard errors of a Poisson number are 3.7 %
    assert np.std(counts) == pytest.approx(20, rel=0.5)


def test_open_land_is_filled_evenly():
    points = np.concatenate([layout(PLAIN, seed) for seed in range(10)])
    counts = np.histogram2d(*points.T, bins=4, range=[[-20_000, 20_000]] * 2)[0]
    assert (abs(counts / 250 - 1) < 0.25).all()


@pytest.mark.parametrize("repulsion", [0.0, 0.3, 0.6])
def test_no_two_base_stations_are_nearer_than_the_hard_core(repulsion):
    settings = LayoutSettings(**{**vars(PLAIN), "repulsion": repulsion})
    nearest = np.concatenate(
        [cKDTree(points).query(points, k=2)[0][:, 1] for points in (layout(settings, seed) for seed in range(3))]
    )
    assert nearest.min() > repulsion * 2_000
    assert nearest.min() < repulsion * 2_000 + 100  # which is not more than is asked for


def test_in_a_city_the_hard_core_shrinks_with_the_spacing():
    points = layout(CITY, 0)
    nearest = cKDTree(points).query(points, k=2)[0][:, 1]
    densest = 1 / 500**2 + 1 / 5_000**2
    assert nearest.min() > 0.3 / sqrt(densest)
    assert nearest.min() < 2 * 0.3 * 500


def test_the_city_is_near_the_middle_and_dense_and_the_land_is_open():
    points = [layout(CITY, seed) for seed in range(5)]
    expected = 2 * pi * (3_000 / 500) ** 2 + (40 / 5) ** 2  # ∫ e^(−r/w) / s² over the plane, and the land
    assert np.mean([len(one) for one in points]) == pytest.approx(expected, rel=0.15)
    middles = np.array([np.median(one, axis=0) for one in points])
    assert (abs(middles) < 0.1 * 40_000 + 1_000).all()
    for one, middle in zip(points, middles):
        away = np.linalg.norm(one - middle, axis=1)
        assert (away < 3_000).sum() / 3_000**2 > 20 * (away > 10_000).sum() / (40_000**2 / pi - 10_000**2)
        nearest = cKDTree(one).query(one, k=2)[0][:, 1]
        assert np.median(nearest[away < 3_000]) < 0.4 * np.median(nearest[away > 12_000])


def test_towns_and_roughness_make_clusters():
    def clustering(**change):
        settings = LayoutSettings(**{**vars(PLAIN), **change})
        counts = np.array(
            [np.histogram2d(*layout(settings, seed).T, bins=20, range=[[-20_000, 20_000]] * 2)[0] for seed in range(6)]
        )
        return counts.var() / counts.mean()

    plain = clustering()
    assert plain < 1.1  # a hard core spreads more evenly than Poisson, 1
    assert clustering(roughness=1.0) > 1.5 * plain
    assert clustering(rural_spacing_m=(5_000.0, 5_000.0), towns=(6, 6)) > 1.5 * plain
