"""Statements about path loss from distance alone. Oracles: published examples, formulas written again, free space by definition."""

from math import log10, pi

import numpy as np
import pytest
import torch
from telcoloc.models.radio import empirical
from telcoloc.models.radio.empirical import free_space_db, hata_db, log_distance_db
from telcoloc.models.radio.model_settings import noise_floor_dbm

KM = np.array([0.3, 1.0, 2.0, 5.0, 10.0])
CASES = [("urban", "medium"), ("urban", "large"), ("suburban", "medium"), ("open", "medium")]


def hata(km, mhz, height_m, device_m=1.5, area="urban", city="medium"):
    return hata_db(
        np.asarray(km, float) * 1000, np.full(1, float(mhz)), np.full(1, float(height_m)), device_m, area, city
    )


def test_free_space_is_the_area_of_a_sphere_in_wavelengths():
    metres, mhz = np.array([1.0, 20.0, 3500.0]), np.full(1, 1800.0)
    expected = 20 * np.log10(4 * pi * metres / (299_792_458 / 1800e6))
    np.testing.assert_allclose(free_space_db(metres, mhz), expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("mhz", "height_m", "area", "at_1_km", "per_decade"),
    [
        # 3GPP TS 43.030 (GSM 03.30), large cells: GSM 900 and DCS 1800, towns with 50 m and open land with 100 m
        (900, 50, "urban", 123.3, 33.7),
        (1800, 50, "urban", 133.2, 33.8),
        (900, 100, "open", 90.7, 31.8),
        # Holma and Toskala, "WCDMA for UMTS", section 8.2.1: 1950 MHz, 30 m, device 1.5 m
        (1950, 30, "urban", 137.4, 35.2),
    ],
)
def test_published_examples(mhz, height_m, area, at_1_km, per_decade):
    np.testing.assert_allclose(hata(KM, mhz, height_m, area=area), at_1_km + per_decade * np.log10(KM), atol=0.11)


@pytest.mark.parametrize(("mhz", "height_m", "device_m"), [(160, 40, 1.0), (460, 200, 3.0), (1490, 30, 10.0)])
def test_okumura_hata_written_out_again(mhz, height_m, device_m):
    f, h = log10(mhz), log10(height_m)
    base = 69.55 + 26.16 * f - 13.82 * h + (44.9 - 6.55 * h) * np.log10(KM)
    medium = base - ((1.1 * f - 0.7) * device_m - (1.56 * f - 0.8))
    low, high = 8.29 * log10(1.54 * device_m) ** 2 - 1.1, 3.2 * log10(11.75 * device_m) ** 2 - 4.97
    expected = {
        ("urban", "medium"): medium,
        ("urban", "large"): base - (low if mhz < 300 else high),
        ("suburban", "medium"): medium - 2 * log10(mhz / 28) ** 2 - 5.4,
        ("open", "medium"): medium - 4.78 * f**2 + 18.33 * f - 40.94,
    }
    for (area, city), loss in expected.items():
        np.testing.assert_allclose(hata(KM, mhz, height_m, device_m, area, city), loss, rtol=0, atol=1e-9)


def test_cost_hata_in_metropolitan_centres_is_3_db_more_and_bands_meet_within_2_db():
    np.testing.assert_allclose(hata(KM, 1800, 40, city="large") - hata(KM, 1800, 40), 3.0, atol=1e-9)
    for area, _ in CASES:
        jump = hata(KM, 1500.001, 40, area=area) - hata(KM, 1500, 40, area=area)
        assert np.abs(jump).max() < 2


@pytest.mark.parametrize(("area", "city"), CASES)
def test_loss_grows_with_distance_and_frequency_and_falls_with_height(area, city):
    def loss(**other):
        return hata(**{"km": KM, "mhz": 900, "height_m": 40, "device_m": 1.5, "area": area, "city": city, **other})

    assert (np.diff(loss()) > 0).all()
    assert (loss(height_m=60) < loss()).all()
    assert (loss(device_m=3.0) < loss()).all()
    assert area == "open" or (loss(mhz=1400) > loss()).all()
    assert (loss() <= hata(KM, 900, 40) + 0.02).all()


def test_log_distance_without_an_intercept_starts_in_free_space():
    metres, mhz = np.array([0.2, 1.0, 10.0, 1000.0]), np.full(1, 2000.0)
    start = free_space_db(np.ones(1), mhz)[0]
    np.testing.assert_allclose(log_distance_db(metres, mhz, 3.0, 1.0), start + np.array([0, 0, 30, 90]), atol=1e-9)
    np.testing.assert_allclose(log_distance_db(metres, mhz, 2.0, 50.0), free_space_db(metres, mhz), atol=1e-9)
    # mobloc: a loss of 37.5 dB per decade from an intercept
    np.testing.assert_allclose(log_distance_db(metres, mhz, 3.75, 1.0, 40.0), 40 + np.array([0, 0, 37.5, 112.5]))


@pytest.mark.parametrize(("area", "city"), CASES)
def test_torch_agrees_with_numpy(area, city):
    generator = np.random.default_rng(0)
    arrays = generator.uniform(1, 20_000, (3, 50)), np.array([[160.0], [900], [1900]]), np.array([[30.0], [50], [90]])
    tensors = [torch.from_numpy(values) for values in arrays]
    np.testing.assert_allclose(hata_db(*tensors, 1.5, area, city).numpy(), hata_db(*arrays, 1.5, area, city), atol=1e-9)
    found = log_distance_db(*tensors[:2], 3.1, 10.0)
    np.testing.assert_allclose(found.numpy(), log_distance_db(*arrays[:2], 3.1, 10.0), atol=1e-9)


def test_noise_of_textbooks():
    assert noise_floor_dbm(10, 9) == pytest.approx(-95)
    assert noise_floor_dbm(0.2, 5) == pytest.approx(-116, abs=0.02)


def test_the_ranges_of_the_sources_are_there():
    assert empirical.HATA_VALIDITY.freq_mhz == (150, 2000)
    assert empirical.HATA_VALIDITY.distance_m == (1_000, 20_000)
