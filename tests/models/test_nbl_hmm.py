"""Statements about methods on grid squares: scores by Bayes' rule, paths by the forward-backward algorithm, odd records."""

import itertools

import numpy as np
import pytest
from telcoloc.models.errors import InputError
from telcoloc.models.trajectory import nbl
from telcoloc.models.trajectory.filters import Pieces
from telcoloc.models.trajectory.hmm import _JUMP, Hmm, forward_backward
from telcoloc.models.trajectory.localizer import FitSettings
from telcoloc.models.trajectory.measurements import CellSites
from telcoloc.models.trajectory.nbl import Nbl, RadioGrid, posterior_place
from town import FRAME, errors, jiading, odd_records, walks

NONE = CellSites.none()
COARSE = FitSettings(options={"grid_m": 60.0, "smooth_m": 50.0})


def by_bayes(cell, rss, xy, grid_m, record, record_rss, n_cells):
    """log-likelihood of one record in each square, from the definitions and without smoothing, in the order of the squares."""
    squares = sorted({tuple(np.floor(one / grid_m).astype(int)) for one in xy})
    middle = [rss[cell == code].mean() for code in range(n_cells)]
    scores = []
    for square in squares:
        inside = np.array([tuple(np.floor(one / grid_m).astype(int)) == square for one in xy])
        total = 0.0
        for code in range(n_cells):
            values = rss[inside][cell[inside] == code]
            share = np.clip(len(values) / (inside.sum() + 1), nbl._LEAST_SHARE, 1 - nbl._LEAST_SHARE)
            if code not in record:
                total += np.log(1 - share)
                continue
            if len(values):
                weight = nbl._PRIOR_RECORDS
                spread = (len(values) * values.var() + weight * nbl._SHADOWING_DB**2) / (len(values) + weight)
                mean = values.mean()
            else:
                mean, spread = middle[code] - nbl._WEAKER_DB, nbl._WIDE_DB**2
            level = record_rss[list(record).index(code)]
            total += np.log(share) - 0.5 * np.log(spread) - 0.5 * (level - mean) ** 2 / spread
        scores.append(total)
    return np.array(scores)


@pytest.mark.parametrize("full", [True, False])
def test_scores_are_those_of_bayes_rule(full, monkeypatch):
    monkeypatch.setattr(nbl, "_FULL_VALUES", 1e9 if full else 0)
    rng = np.random.default_rng(0)
    xy = rng.uniform(0, 300, (80, 2))
    cell = np.array([rng.permutation(6)[:3] for _ in range(80)])
    rss = rng.normal(-80, 8, cell.shape).astype(np.float32)
    grid = RadioGrid.of(cell, rss, 6, xy, 100.0, 1e-3)
    got = grid.scores(cell[:10], rss[:10], grid.matrix())
    for row in range(10):
        wanted = by_bayes(cell, rss.astype(float), xy, 100.0, cell[row], rss[row].astype(float), 6)
        np.testing.assert_allclose(got[row] - got[row].max(), wanted - wanted.max(), atol=2e-3)
    again = RadioGrid.from_tensors(grid.tensors())
    np.testing.assert_array_equal(again.scores(cell, rss, again.matrix()), grid.scores(cell, rss, grid.matrix()))


def test_the_middle_of_squares_by_probability():
    x, y = np.array([0.0, 100, 100], np.float32), np.array([0.0, 0, 50], np.float32)
    weight = np.array([0.5, 0.25, 0.25])
    got = posterior_place(np.log(weight)[None].astype(np.float32) * 2, x, y, 0.5)[:, 0]
    mean = (weight * x).sum(), (weight * y).sum()
    spread = np.sqrt((weight * ((x - mean[0]) ** 2 + (y - mean[1]) ** 2)).sum())
    np.testing.assert_allclose(got, [*mean, spread], rtol=1e-5)


def test_paths_are_those_of_every_sequence_added_up():
    rng = np.random.default_rng(1)
    n, k = 6, 3
    times, speed = np.array([0, 2, 2, 5, 9, 11.0]), np.full(6, 12.0)
    place = rng.uniform(0, 90, (2, n, k)).astype(np.float32)
    emission = rng.uniform(0.1, 1, (n, k)).astype(np.float32)
    got = np.full((n, k), np.nan)
    states = np.arange(n * k).reshape(n, k)
    flat = place.reshape(2, -1)
    forward_backward(Pieces.of(np.array([0, 4, 6]), 100, 0), times, speed, flat, states, emission, 20.0, got)
    for begin, end in ((0, 4), (4, 6)):
        wanted = np.zeros((n, k))
        for states in itertools.product(range(k), repeat=end - begin):
            weight = 1.0
            for row, state in zip(range(begin, end), states):
                weight *= emission[row, state]
                if row > begin:
                    last = states[row - begin - 1]
                    away2 = ((place[:, row, state] - place[:, row - 1, last]) ** 2).sum()
                    width = speed[row] * (times[row] - times[row - 1]) + 20
                    weight *= _JUMP + (np.exp(-0.5 * away2 / width**2) if away2 < (3 * width) ** 2 else 0)
            for row, state in zip(range(begin, end), states):
                wanted[row, state] += weight
        wanted = wanted[begin:end] / wanted[begin:end].sum(axis=1, keepdims=True)
        np.testing.assert_allclose(got[begin:end], wanted, atol=1e-5)


@pytest.mark.parametrize("kind", [Nbl, Hmm])
def test_learns_a_town(kind):
    data, sites = walks()
    test = np.isin(data.trajectory, [3, 7])
    model = kind().fit(data.take(~test), sites, COARSE)
    error, fixes = errors(model, data.take(test))
    x, y = FRAME.to_xy(data.lon, data.lat)
    centre = np.hypot(x - x[~test].mean(), y - y[~test].mean())[test]
    assert np.median(error) < 0.5 * np.median(centre)
    same = kind.restore(model.frame_, model.cells_, model.tensors(), model.card()).predict(data.take(test), threads=2)
    np.testing.assert_array_equal(same.x_m, fixes.x_m)
    np.testing.assert_array_equal(same.spread_m, fixes.spread_m)


def test_the_path_helps():
    data, sites = walks()
    test = np.isin(data.trajectory, np.arange(0, 20, 3))
    alone, hidden, filtered = (
        np.median(
            errors(
                kind().fit(data.take(~test), sites, FitSettings(options={**COARSE.options, **more})), data.take(test)
            )[0]
        )
        for kind, more in ((Nbl, {}), (Hmm, {"particles": 0}), (Hmm, {}))
    )
    assert hidden < 0.85 * alone
    assert filtered < 0.85 * alone


def test_the_likeliest_square_is_one_with_records():
    data, _ = walks(4)
    model = Nbl().fit(data, NONE, FitSettings(options={**COARSE.options, "estimate": "mle"}))
    fixes = model.predict(data)
    assert np.isin(np.round(fixes.x_m, 2), np.round(model._grid.x_m.astype(float), 2)).all()


@pytest.mark.parametrize("kind", [Nbl, Hmm])
def test_odd_records_get_a_fix(kind):
    model = kind().fit(walks(6)[0], NONE, COARSE)
    fixes = model.predict(odd_records())
    assert all(np.isfinite(values).all() and len(values) == 6 for values in (fixes.x_m, fixes.y_m, fixes.spread_m))
    assert (fixes.spread_m > 0).all()
    assert len(model.predict(odd_records().take(np.zeros(6, dtype=bool))).x_m) == 0


def test_a_record_that_hears_nothing_is_anywhere():
    data, _ = walks(6)
    model = Nbl().fit(data, NONE, COARSE)
    spread = model.predict(odd_records()).spread_m
    nothing = np.flatnonzero(odd_records().n_heard == 0)
    assert spread[nothing[0]] > np.median(model.predict(data).spread_m)


def test_squares_grow_until_they_are_few(monkeypatch):
    monkeypatch.setattr(nbl, "_MOST_SQUARES", 20)
    model = Nbl().fit(walks(6)[0], NONE)
    assert model._grid.n_squares <= 20
    assert model._grid.grid_m > nbl.DEFAULT_GRID_M


@pytest.mark.parametrize(
    ("kind", "options", "sentence"),
    [
        (Nbl, {"estimate": "best"}, r"Option 'estimate' is 'best', but must be one of: wa, mle\."),
        (Nbl, {"grid_m": 0}, r"Option 'grid_m' is 0, but must be a number from 1 to 10,000\."),
        (Hmm, {"smooth_m": -5}, r"'smooth_m' is -5, but must be a number above 0, 10,000 at most\."),
        (Hmm, {"beam": 0}, r"Option 'beam' is 0, but must be a whole number from 1 to 1,000\."),
    ],
)
def test_options_that_make_no_sense(kind, options, sentence):
    with pytest.raises(InputError, match=sentence):
        kind().fit(walks(2)[0], NONE, FitSettings(options=options))


@pytest.mark.parametrize("name", ["grid.base", "grid.indices"])
def test_broken_squares_are_refused(name):
    tensors = Nbl().fit(walks(2)[0], NONE, COARSE).tensors()
    with pytest.raises(InputError, match="is missing"):
        RadioGrid.from_tensors({key: value for key, value in tensors.items() if key != name})
    with pytest.raises(InputError, match="do not fit together"):
        RadioGrid.from_tensors({**tensors, name: tensors[name][:-1]})


@pytest.mark.real_data
@pytest.mark.usefixtures("shared_data")
def test_jiading_an_hmm_is_better_than_single_records_on_new_trajectories():
    data, sites = jiading()
    test = data.trajectory % 5 == 0
    alone, path = (np.median(errors(kind().fit(data.take(~test), sites), data.take(test))[0]) for kind in (Nbl, Hmm))
    assert path < 0.9 * alone
    assert alone < 200
