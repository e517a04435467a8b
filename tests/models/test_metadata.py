"""Statements about spreading KPIs, and about which field names are times."""

from datetime import datetime, timedelta, timezone

import numpy as np
import pytest
import scipy.sparse
from telcoloc.models.geolocation.metadata import spread, times_of_fields

DAY = datetime(2024, 5, 1, 17, 30, 12)


def at(*parts):
    return datetime(*parts, tzinfo=timezone.utc)


def hours(*values, length=1):
    return [
        (at(2024, 5, 1) + timedelta(hours=value), at(2024, 5, 1) + timedelta(hours=value + length)) for value in values
    ]


def test_spreading_conserves_totals_and_puts_each_share_where_the_base_station_is():
    rng = np.random.default_rng(0)
    given = rng.gamma(0.3, size=(30, 500)) * (rng.random((30, 500)) < 0.2)
    given /= given.sum(axis=1, keepdims=True)
    kpis = 10 ** rng.uniform(-3, 9, (30, 4))
    found = spread(scipy.sparse.csr_matrix(given), kpis)
    assert found.shape == (4, 500)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found.sum(axis=1), kpis.sum(axis=0), rtol=1e-9)
    for field in range(4):
        expected = sum(given[bs] * kpis[bs, field] for bs in range(30))
        np.testing.assert_allclose(found[field], expected, rtol=1e-12)


def test_large_totals_are_not_added_in_single_precision():
    given = scipy.sparse.csr_matrix(np.full((2, 4), 0.25, np.float32))
    found = spread(given, np.array([[2.0**40], [1.0]]))
    assert found.sum() == 2.0**40 + 1


def test_a_base_station_without_a_map_gives_nothing_and_integers_are_taken():
    given = scipy.sparse.csr_matrix(np.array([[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]))
    np.testing.assert_array_equal(spread(given, np.array([[10, -4], [99, 99]])), [[5, 5, 0], [-2, -2, 0]])


@pytest.mark.parametrize(
    "form",
    [
        "h{:02d}",
        "h{}",
        "H{:02d}",
        "hour_{}",
        "hr{}",
        "traffic_h{:02d}",
        "mean_mb_hour_{}",
        "{:02d}:00",
        "{}:00",
        "{}h",
        "{:02d}h00",
    ],
)
def test_hours_of_the_day(form):
    names = [form.format(hour) for hour in range(24)]
    assert times_of_fields(names, DAY) == hours(*range(24))


@pytest.mark.parametrize(
    ("name", "begin"),
    [
        ("20240501_13", (2024, 5, 1, 13)),
        ("mb_20240501_13", (2024, 5, 1, 13)),
        ("2024-05-01T13:00", (2024, 5, 1, 13)),
        ("2024-05-01 13:45", (2024, 5, 1, 13, 45)),
        ("2024-05-01T13:00:00Z", (2024, 5, 1, 13)),
        ("users_2024_05_01_13", (2024, 5, 1, 13)),
        ("2024050113", (2024, 5, 1, 13)),
        ("20240229T0630", (2024, 2, 29, 6, 30)),
        ("traffic_20240501_h00", (2024, 5, 1, 0)),
        ("traffic_20240601_h07", (2024, 6, 1, 7)),
        ("20240601h23", (2024, 6, 1, 23)),
        ("traffic_20240601_hour_7", (2024, 6, 1, 7)),
        ("2024-06-01_total_h7", (2024, 6, 1, 7)),
    ],
)
def test_dates_with_a_time_last_an_hour(name, begin):
    assert times_of_fields([name], DAY) == [(at(*begin), at(*begin) + timedelta(hours=1))]


@pytest.mark.parametrize("name", ["2024-05-01", "20240501", "traffic_20240501", "users_2024_05_01"])
def test_dates_alone_last_a_day(name):
    assert times_of_fields([name], DAY) == [(at(2024, 5, 1), at(2024, 5, 2))]


def test_hours_last_an_hour_and_dates_a_day_in_the_order_of_the_names():
    assert times_of_fields(["h20", "h08"], DAY) == [*hours(20), *hours(8)]
    assert times_of_fields(["h12", "h06", "h18", "h07"], DAY) == hours(12, 6, 18, 7)
    assert times_of_fields(["mb_20240501_h23", "mb_20240502_h00", "mb_20240503_h05"], DAY) == hours(23, 24, 53)
    assert times_of_fields(["2024-02-28", "2024-02-29", "2024-03-02"], DAY) == [
        (at(2024, 2, 28), at(2024, 2, 29)),
        (at(2024, 2, 29), at(2024, 3, 1)),
        (at(2024, 3, 2), at(2024, 3, 3)),
    ]


def test_times_closer_than_an_hour_end_where_the_next_begins():
    names = [f"2024-05-01T13:{minute:02d}" for minute in (0, 15, 30, 45)]
    assert times_of_fields(names, DAY) == [
        (at(2024, 5, 1, 13) + timedelta(minutes=minute), at(2024, 5, 1, 13) + timedelta(minutes=minute + 15))
        for minute in (0, 15, 30, 45)
    ]


@pytest.mark.parametrize(
    "names",
    [
        [],
        ["h07", "users"],
        ["users", "h07"],
        ["2024-05-01", "traffic"],
        ["h07", "2024-05-01T13:00"],  # an hour of which day?
        ["h07", "hour_7"],  # equal
        ["20240501", "2024-05-01"],
        ["2024-13-01"],
        ["2024-02-30"],
        ["2024-05-01T25:00"],
        ["h24"],
        ["24:00"],
        ["07:30"],
        ["dl_h08", "ul_h09"],
        ["h08", "dl_h09"],
        ["dl_20240501", "ul_20240502"],
        ["20240501_08_dl", "20240501_09_ul"],
        ["dl_20240501_h08", "ul_20240501_h09"],
        ["mb_20240501", "mb_20240502_h09"],  # a day and an hour
    ],
)
def test_a_mixture_equal_times_and_impossible_ones_are_no_times(names):
    assert times_of_fields(names, DAY) is None


@pytest.mark.parametrize(
    "name",
    [
        "users", "kpi_1", "height_m", "x2024", "band_1800", "", "h", "traffic", "hours", "band_1800_2100", "eirp_dbm", "rsrp_95",
        "azimuth_120", "id_1234567890", "youth_12", "width7", "2024", "202405", "lte_20_mhz", "month12", "throughput_h", "12", "7",
        "sector_12060715", "imsi_310120240501", "eci_26201105",
    ],
)  # fmt: skip
def test_kpi_names_are_no_times(name):
    assert times_of_fields([name], DAY) is None
