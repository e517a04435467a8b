"""The normal form of measurements, splits, calibration and error figures."""

from __future__ import annotations

import numpy as np
import pytest
from telcoloc.models.errors import InputError
from telcoloc.models.trajectory.evaluate import distance_m, errors_of
from telcoloc.models.trajectory.localizer import Calibration
from telcoloc.models.trajectory.measurements import CellSites, LocalFrame, Measurements, measurements
from telcoloc.models.trajectory.splits import folds, groups, held_out


def table(
    device=("b", "a", "a", "a"), time_s=(5.0, 30.0, 10.0, 2000.0), trajectory=None, lon=None, lat=None, **more
) -> Measurements:
    n = len(time_s)
    cell = np.array([[f"c{row}", "shared"] for row in range(n)])
    rss_dbm = -60 - np.arange(2 * n, dtype=np.float32).reshape(n, 2)
    return measurements(
        np.array(device),
        np.array(time_s),
        cell,
        rss_dbm,
        trajectory=None if trajectory is None else np.array(trajectory),
        lon=None if lon is None else np.array(lon, dtype=float),
        lat=None if lat is None else np.array(lat, dtype=float),
        **more,
    )


def random_walks(n_trajectories=12, n=30, seed=0) -> Measurements:
    rng = np.random.default_rng(seed)
    trajectory = np.repeat(np.arange(n_trajectories), n)
    time_s = trajectory * 86_400.0 + np.tile(np.arange(n) * 2.0, n_trajectories)
    lon, lat = 10 + 0.001 * rng.standard_normal((2, len(trajectory)))
    return table(trajectory.astype(str), time_s, trajectory.astype(str), lon, lat)


class TestLocalFrame:
    @pytest.mark.parametrize("lat", [-60.0, 0.0, 31.28, 69.6])
    def test_metres_are_those_of_the_ellipsoid(self, lat):
        pyproj = pytest.importorskip("pyproj")
        frame = LocalFrame(12.0, lat)
        x_m, y_m = frame.to_xy(np.array([12.2]), np.array([lat + 0.1]))
        geod = pyproj.Geod(ellps="WGS84")
        _, _, length_m = geod.inv(12.0, lat, 12.2, lat + 0.1)
        assert np.hypot(x_m, y_m)[0] == pytest.approx(length_m, rel=2e-3)

    def test_there_and_back(self):
        frame = LocalFrame(179.99, -41.0)
        lon, lat = np.array([179.5, -179.6]), np.array([-41.2, -40.9])
        x_m, y_m = frame.to_xy(lon, lat)
        assert x_m[1] > 0 > x_m[0]
        np.testing.assert_allclose(frame.to_lonlat(x_m, y_m), (lon, lat), atol=1e-9)

    def test_lies_amid_positions_on_both_sides_of_the_antimeridian(self):
        frame = LocalFrame.around(np.array([179.9, -179.9, np.nan]), np.array([1.0, 3.0, np.nan]))
        assert abs(abs(frame.lon) - 180) < 1e-6
        assert frame.lat == 2

    def test_says_when_nothing_is_known(self):
        with pytest.raises(InputError, match="nothing says where on earth"):
            LocalFrame.around(np.array([np.nan]), np.array([np.nan]))


class TestMeasurements:
    def test_are_sorted_by_trajectory_and_time(self):
        data = table()
        assert data.devices == ("a", "b")
        assert data.trajectories == ("a #1", "a #2", "b")
        np.testing.assert_array_equal(data.time_s, [10, 30, 2000, 5])
        np.testing.assert_array_equal(data.row, [2, 1, 3, 0])
        np.testing.assert_array_equal(data.starts, [0, 2, 3, 4])
        assert [data.cells[code] for code in data.cell[:, 0]] == ["c2", "c1", "c3", "c0"]
        np.testing.assert_array_equal(data.rss_dbm[0, :2], [-64, -65])
        np.testing.assert_array_equal(data.n_heard, 2)

    def test_the_cells_that_some_records_heard(self):
        data = table()
        for rows in (slice(0, 0), slice(1, 3), np.array([0, 3]), np.arange(4) > 0):
            heard = {data.cells[code] for record in data.cell[rows] for code in record if code >= 0}
            assert data.heard_in(rows) == tuple(name for name in data.cells if name in heard)

    def test_a_long_gap_begins_a_trajectory_only_where_none_is_given(self):
        assert table(max_gap_s=1e6).trajectories == ("a", "b")
        assert table(trajectory=["x", "x", "x", "x"]).trajectories == ("x",)

    def test_empty_names_are_no_cells(self):
        data = measurements(
            np.array(["a"]), np.zeros(1), np.array([["one", ""]]), np.array([[-70, np.nan]], dtype=np.float32)
        )
        assert data.cells == ("one",)
        np.testing.assert_array_equal(data.cell[0], [0] + 6 * [-1])
        assert np.isnan(data.rss_dbm[0, 1:]).all()

    def test_none_at_all(self):
        data = measurements(np.empty(0, dtype=str), np.empty(0), np.empty((0, 2), dtype=str), np.empty((0, 2)))
        assert len(data) == 0
        np.testing.assert_array_equal(data.starts, [0])

    def test_recoding_loses_what_the_model_does_not_know(self):
        data = table(signals={"rsrq_db": np.arange(8.0).reshape(4, 2)})
        coded = data.recoded(("shared", "c0", "elsewhere"))
        np.testing.assert_array_equal(coded.cell[:, 0], [-1, -1, -1, 1])
        np.testing.assert_array_equal(coded.cell[:, 1], 0)
        assert np.isnan(coded.rss_dbm[0, 0])
        assert coded.rss_dbm[0, 1] == data.rss_dbm[0, 1]
        assert np.isnan(coded.signals["rsrq_db"][0, 0])
        assert data.recoded(data.cells) is data

    def test_refuses_times_that_are_none(self):
        with pytest.raises(InputError, match="Record 1 has no time"):
            table(time_s=(1.0, np.nan, 2.0, 3.0))

    def test_positions_of_cells(self):
        sites = CellSites(("x", "y"), np.array([1.0, 2.0]), np.array([3.0, 4.0]))
        lon, lat = sites.positions_of(("y", "unknown"))
        assert (lon[0], lat[0]) == (2, 4)
        assert np.isnan([lon[1], lat[1]]).all()
        assert np.isnan(CellSites.none().positions_of(("y",))[0]).all()


class TestSplits:
    @pytest.mark.parametrize("split", ["trajectory", "day"])
    def test_no_trajectory_is_on_both_sides(self, split):
        data = random_walks()
        code = groups(data, split)
        test = held_out(code, 0.25, np.random.default_rng(1))
        assert 0.15 < test.mean() < 0.35
        assert not set(data.trajectory[test]) & set(data.trajectory[~test])

    def test_samples_are_a_share(self):
        data = random_walks()
        test = held_out(groups(data, "sample"), 0.2, np.random.default_rng(0))
        assert test.sum() == round(0.2 * len(data))

    def test_folds_hold_out_each_record_once(self):
        data = random_walks()
        parts = folds(groups(data, "trajectory"), 5, np.random.default_rng(0))
        np.testing.assert_array_equal(np.sum(parts, axis=0), 1)
        assert all(part.any() for part in parts)

    def test_records_without_truth_are_never_judged(self):
        data = random_walks().without_truth(np.arange(360) % 3 == 0)
        for split in ("sample", "trajectory"):
            test = held_out(groups(data, split), 0.3, np.random.default_rng(0))
            assert not (test & ~data.has_truth).any()

    def test_a_drive_across_midnight_of_greenwich_is_one_day(self):
        hours = 3600.0
        time_s = (
            np.array([22, 23, 25, 26, 45, 46]) * hours
        )  # two drives of one afternoon in Los Angeles, one of the next
        data = table(list("aabbcc"), time_s, list("aabbcc"), [-118.4] * 6, [34.0] * 6)
        np.testing.assert_array_equal(groups(data, "day"), [0, 0, 0, 0, 1, 1])

    def test_one_trajectory_only(self):
        data = random_walks(n_trajectories=1)
        with pytest.raises(InputError, match=r"belong to one trajectory \('0'\)"):
            groups(data, "trajectory")
        with pytest.raises(InputError, match="one day"):
            groups(data, "day")

    def test_whatever_the_share_something_is_left(self):
        code = np.array([0, 0, 1, 1])
        for share in (0.01, 0.99):
            test = held_out(code, share, np.random.default_rng(0))
            assert 0 < test.sum() < 4


class TestCalibration:
    def test_circles_hold_what_they_claim_on_new_records(self):
        rng = np.random.default_rng(0)
        sigma_m = rng.uniform(5, 80, 4000)
        error_m = np.hypot(*rng.standard_normal((2, 4000))) * sigma_m
        found = Calibration.of(error_m[:2000], 0.3 * sigma_m[:2000])
        radius_50_m, radius_90_m = found.radii_m(0.3 * sigma_m[2000:])
        assert (error_m[2000:] <= radius_50_m).mean() == pytest.approx(0.5, abs=0.04)
        assert (error_m[2000:] <= radius_90_m).mean() == pytest.approx(0.9, abs=0.03)
        assert found.power > 0.8

    def test_spreads_that_tell_nothing_are_not_believed(self):
        rng = np.random.default_rng(0)
        error_m = np.hypot(*rng.standard_normal((2, 4000))) * 20
        assert Calibration.of(error_m, rng.uniform(1, 100, 4000)).power <= 0.1

    def test_needs_records(self):
        with pytest.raises(InputError, match="No held-out record"):
            Calibration.of(np.empty(0), np.empty(0))


class TestErrors:
    def test_figures(self):
        found = errors_of(np.arange(101.0), np.full(101, 30.0), np.full(101, np.nan))
        assert (found.count, found.median_m, found.mean_m) == (101, 50, 50)
        assert (found.p67_m, found.p80_m, found.p90_m, found.p95_m) == (67, 80, 90, 95)
        assert found.inside_50 == pytest.approx(31 / 101)
        assert np.isnan(found.inside_90)

    def test_none(self):
        with pytest.raises(InputError, match="nothing can be judged"):
            errors_of(np.empty(0))

    def test_distances_are_those_of_the_ellipsoid(self):
        geod = pytest.importorskip("pyproj").Geod(ellps="WGS84")
        lon, lat = np.array([121.2, 121.25, 121.3]), np.array([31.2, 31.3, 31.25])
        to_lon, to_lat = lon + 0.01, lat - 0.02
        np.testing.assert_allclose(
            distance_m(lon, lat, to_lon, to_lat), geod.inv(lon, lat, to_lon, to_lat)[2], rtol=1e-3
        )

    def test_across_the_antimeridian(self):
        across = distance_m(np.array([179.999]), np.array([0.0]), np.array([-179.999]), np.array([0.0]))
        assert across[0] == pytest.approx(222.6, abs=0.5)

    def test_unknown_is_nan(self):
        assert np.isnan(distance_m(np.array([1.0]), np.array([1.0]), np.array([np.nan]), np.array([np.nan]))).all()
