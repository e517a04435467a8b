"""`auto`: against a town with known path loss, against brute-force smoothing, and on input that people really have."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("sklearn")

from telcoloc.models.errors import Cancelled, InputError
from telcoloc.models.trajectory.auto import Auto, window_features
from telcoloc.models.trajectory.localizer import FitSettings
from telcoloc.models.trajectory.measurements import CellSites, LocalFrame, Measurements, measurements
from telcoloc.models.trajectory.path_smoothing import Moments, Motion, smooth
from telcoloc.models.trajectory.radio_map import Places, RadioMap
from telcoloc.models.trajectory.splits import folds, groups

FRAME = LocalFrame(10.0, 50.0)
SETTINGS = FitSettings(options={"trees": 12})


def town(n_trajectories=10, n=50, seed=0, n_cells=14) -> tuple[Measurements, CellSites]:
    """Drives round a block of 600 m, 5 m/s, a record every 3 s; the seven strongest of cells with exponent 3 and 4 dB of noise."""
    rng = np.random.default_rng(seed)
    sites = np.random.default_rng(99).uniform(-500, 500, (n_cells, 2))
    columns: list[list[np.ndarray]] = [[] for _ in range(6)]
    for number in range(n_trajectories):
        way = (rng.uniform(0, 2400) + 15.0 * rng.choice([-1, 1]) * np.arange(n)) % 2400
        side, along = np.divmod(way, 600)
        corners = np.array([[-300, -300], [300, -300], [300, 300], [-300, 300], [-300, -300]], dtype=float)
        from_, to = corners[side.astype(int)], corners[side.astype(int) + 1]
        xy = from_ + (to - from_) * along[:, None] / 600
        away = np.hypot(xy[:, None, 0] - sites[:, 0], xy[:, None, 1] - sites[:, 1])
        rss = -20 - 30 * np.log10(np.maximum(away, 30)) + rng.normal(0, 4, away.shape)
        order = np.argsort(-rss, axis=1)[:, :7]
        lon, lat = FRAME.to_lonlat(*xy.T)
        for column, values in zip(
            columns,
            (
                np.full(n, f"t{seed}-{number:02d}"),
                1e9 + 86_400.0 * number + 3.0 * np.arange(n),
                np.char.add("c", order.astype(str)),
                np.take_along_axis(rss, order, axis=1),
                lon,
                lat,
            ),
        ):
            column.append(values)
    name, time_s, cell, rss, lon, lat = (np.concatenate(column) for column in columns)
    data = measurements(name, time_s, cell, rss, trajectory=name, lon=lon, lat=lat)
    site_lon, site_lat = FRAME.to_lonlat(*sites.T)
    return data, CellSites(tuple(f"c{number}" for number in range(n_cells)), site_lon, site_lat)


def errors_m(model, data: Measurements) -> np.ndarray:
    fixes = model.predict(data)
    assert np.isfinite([fixes.x_m, fixes.y_m]).all()
    assert (fixes.spread_m > 0).all()
    x_m, y_m = model.frame_.to_xy(data.lon, data.lat)
    return np.hypot(fixes.x_m - x_m, fixes.y_m - y_m)


@pytest.fixture(scope="module")
def learned():
    data, sites = town()
    return Auto().fit(data, sites, SETTINGS)


@pytest.fixture(scope="module")
def unseen():
    return town(4, seed=5)[0]


def test_finds_trajectories_it_never_saw(learned, unseen):
    error_m = errors_m(learned, unseen)
    x_m, y_m = learned.frame_.to_xy(unseen.lon, unseen.lat)
    assert np.median(error_m) < 0.12 * np.median(np.hypot(x_m - x_m.mean(), y_m - y_m.mean()))
    assert np.quantile(error_m, 0.9) < 110


def test_every_ingredient_helps(unseen):
    data, sites = town()

    def median_m(**options):
        settings = FitSettings(options={"trees": 12, **options})
        return np.median(errors_m(Auto().fit(data, sites, settings), unseen))

    assert median_m(vote_weight=0) < 0.8 * median_m(vote_weight=0, smoothing=0)
    assert median_m() < 1.1 * min(median_m(map_weight=0), median_m(vote_weight=0))


def test_needs_no_positions_of_cells_and_survives_wrong_ones(unseen):
    data, sites = town()
    alone = Auto().fit(data, CellSites.none(), SETTINGS)
    wrong = Auto().fit(data, replace(sites, lon=sites.lon[::-1], lat=sites.lat[::-1]), SETTINGS)
    assert np.median(errors_m(alone, unseen)) < 50
    assert np.median(errors_m(wrong, unseen)) < 50


def test_same_seed_same_fixes_and_what_was_saved_comes_back(learned, unseen):
    data, sites = town()
    again = Auto().fit(data, sites, replace(SETTINGS, threads=2))
    restored = Auto.restore(learned.frame_, learned.cells_, learned.tensors(), learned.card())
    one = learned.predict(unseen)
    for other in (again.predict(unseen, threads=2), restored.predict(unseen)):
        np.testing.assert_allclose(other.x_m, one.x_m, atol=1e-3)
        np.testing.assert_allclose(other.spread_m, one.spread_m, atol=1e-3)


def test_truth_of_what_is_asked_is_not_looked_at(learned, unseen):
    hidden = unseen.without_truth(np.ones(len(unseen), dtype=bool))
    np.testing.assert_array_equal(learned.predict(hidden).x_m, learned.predict(unseen).x_m)


def test_trajectories_do_not_speak_for_each_other(learned, unseen):
    first = unseen.starts[1]
    alone = learned.predict(unseen.take(np.arange(first)))
    np.testing.assert_allclose(alone.x_m, learned.predict(unseen).x_m[:first], atol=0.5)


def test_ordinary_input(learned, unseen):
    cases = {
        "no record": unseen.take(np.zeros(len(unseen), dtype=bool)),
        "one record": unseen.take(np.arange(1)),
        "one cell each": replace(unseen, cell=np.where(np.arange(7) == 0, unseen.cell, -1)),
        "no RSS": replace(unseen, rss_dbm=np.full_like(unseen.rss_dbm, np.nan)),
        "nothing heard": replace(unseen, cell=np.full_like(unseen.cell, -1)),
        "unknown cells": replace(unseen, cells=tuple("x" + name for name in unseen.cells)),
        "no serving cell": replace(unseen, cell=np.where(np.arange(7) == 0, -1, unseen.cell)),
        "one time": replace(unseen, time_s=np.zeros(len(unseen))),
        "a cell twice": replace(unseen, cell=np.repeat(unseen.cell[:, :1], 7, axis=1)),
        "years apart": replace(unseen, time_s=unseen.time_s * 1e3),
    }
    for name, data in cases.items():
        fixes = learned.predict(data)
        assert len(fixes.x_m) == len(data), name
        assert np.isfinite([fixes.x_m, fixes.y_m, fixes.spread_m]).all(), name


def test_learns_from_little():
    data, sites = town(1, 12)
    rows = np.arange(len(data))
    assert np.isfinite(Auto().fit(data, sites, SETTINGS).predict(data).x_m).all()
    one_cell = replace(data, cell=np.where(np.arange(7) == 0, data.cell, -1))
    assert np.isfinite(Auto().fit(one_cell, CellSites.none(), SETTINGS).predict(data).x_m).all()
    no_rss = replace(data, rss_dbm=np.full_like(data.rss_dbm, np.nan))
    assert np.isfinite(Auto().fit(no_rss, sites, SETTINGS).predict(data).x_m).all()
    standing = replace(data, lon=np.full(len(data), 10.0), lat=np.full(len(data), 50.0))
    assert np.hypot(Auto().fit(standing, sites, SETTINGS).predict(data).x_m, 0).max() < 60
    with pytest.raises(InputError, match="at least 10 are needed"):
        Auto().fit(data.without_truth(rows > 3), sites, SETTINGS)


def test_long_trajectories_are_cut_without_a_seam(learned, unseen, monkeypatch):
    whole = learned.predict(unseen)
    monkeypatch.setattr("telcoloc.models.trajectory.auto._CHUNK_VALUES", 1)
    monkeypatch.setattr("telcoloc.models.trajectory.auto._LEAST_CHUNK", 20)
    pieces = learned.predict(unseen)
    np.testing.assert_allclose(pieces.x_m, whole.x_m, atol=1)


def test_cancels_while_learning_and_while_predicting(learned, unseen):
    data, sites = town()
    calls = []

    def stop(fraction):
        calls.append(fraction)
        if len(calls) > 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        Auto().fit(data, sites, SETTINGS, stop)
    assert all(0 <= fraction <= 1 for fraction in calls)
    with pytest.raises(Cancelled):
        learned.predict(unseen, stop)


def test_a_file_without_an_array_says_so(learned):
    tensors = learned.tensors()
    del tensors["radio.heard"]
    with pytest.raises(InputError, match=r"array 'radio\.heard' is missing"):
        Auto.restore(learned.frame_, learned.cells_, tensors, learned.card())


def test_smoothing_is_that_of_all_paths():
    """Against the sum over all paths of four moments, with the transition matrix that `ahead` applies."""
    places = Places.around(np.array([[0.0, 0.0], [90.0, 0.0]]))
    motion = Motion(places)
    m = len(places)
    rng = np.random.default_rng(0)
    log = rng.normal(0, 2, (4, m)).astype(np.float32)
    time_s = np.array([0.0, 4.0, 9.0, 49.0])  # short and long steps
    moments = Moments(np.arange(4), np.arange(5), time_s, np.array([0, 4]), time_s)
    codes = motion.classes(np.diff(time_s))
    steps = [motion.ahead(np.eye(m, dtype=np.float32), int(code)) for code in codes]
    for step in steps:
        np.testing.assert_allclose(step.sum(axis=1), 1, atol=1e-5)
    paths = np.einsum(
        "a,ab,b,bc,c,cd,d->abcd",
        *(part for pair in zip(np.exp(log), [*steps, None]) for part in pair if part is not None),
    )
    paths /= paths.sum()
    found = smooth(log, moments, motion)
    for moment in range(4):
        others = tuple(axis for axis in range(4) if axis != moment)
        np.testing.assert_allclose(found[moment], paths.sum(axis=others), atol=1e-5)


def test_map_likelihood_is_the_gaussian_with_a_common_offset():
    """Against scipy's multivariate normal: independent readings plus what the device reads more, 4 dB."""
    stats = pytest.importorskip("scipy.stats")
    level, sure = np.array([[-70.0], [-80.0], [-95.0]]), np.array([[1 / 25], [1 / 40], [1 / 80]])
    heard, silent = np.array([[0.5], [-1.0], [2.0]]), np.array([[-3.0]], dtype=np.float32)
    half = np.float16
    radio = RadioMap(
        np.arange(3, dtype=np.int32),
        level.astype(half),
        sure.astype(half),
        heard.astype(half),
        np.array([0, -1, -1], dtype=np.int32),
        silent,
    )
    cell = np.array([[0, 2, 1, 2, -1, -1, -1]], dtype=np.int32)
    rss = np.array([[-72.0, -90.0, np.nan, -50.0, np.nan, np.nan, np.nan]], dtype=np.float32)
    covariance = np.diag(1 / radio.sureness[[0, 2], 0].astype(float)) + 16.0
    expected = stats.multivariate_normal.logpdf([-72.0, -90.0], level[[0, 2], 0], covariance)
    expected += np.log(2 * np.pi) + heard.sum() - 3.0  # two dimensions: 2 · log(2π) / 2
    assert radio.likelihood(cell, rss)[0, 0] == pytest.approx(expected, abs=0.02)


def test_window_features_are_means_over_time(unseen):
    coded = unseen.take(np.arange(60))
    column = np.arange(len(coded.cells), dtype=np.int32)
    found = window_features(coded, column, -130.0)
    n_columns = len(column)
    above = found[:, :n_columns]
    row = 30
    near = (coded.trajectory == coded.trajectory[row]) & (np.abs(coded.time_s - coded.time_s[row]) <= 15)
    np.testing.assert_allclose(found[row, 2 * n_columns : 3 * n_columns], above[near].mean(axis=0), rtol=1e-5)


@pytest.mark.real_data
def test_real_walks_never_seen(shared_data):
    pandas = pytest.importorskip("pandas")
    table = pandas.read_csv(shared_data / "tongji_mr" / "jiading2g_mr.csv")
    cell = np.column_stack(
        [table[f"RNCID_{slot}"].astype(str) + "-" + table[f"CellID_{slot}"].astype(str) for slot in range(1, 7)]
    )
    rss = table[[f"Dbm_{slot}" for slot in range(1, 7)]].to_numpy(dtype=float)
    missing = (rss >= -10) | (rss < -140)
    name = table["TrajID"].to_numpy().astype(str)
    data = measurements(
        name,
        table["MRTime"].to_numpy() / 1000,
        np.where(missing, "", cell),
        np.where(missing, np.nan, rss),
        trajectory=name,
        lon=table["Longitude"].to_numpy(),
        lat=table["Latitude"].to_numpy(),
    )
    test = folds(groups(data, "trajectory"), 5, np.random.default_rng(0))[0]
    model = Auto().fit(data.take(~test), CellSites.none(), FitSettings(options={"trees": 15}))
    assert np.median(errors_m(model, data.take(test))) < 115  # a random forest on the RSS vector, five folds
