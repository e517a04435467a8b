"""Statements about the forests: numpy walks them as scikit-learn does, they learn a simulated town, and odd records are ordinary."""

import importlib.util
import sys
import time

import numpy as np
import pytest
from telcoloc.models.errors import Cancelled, InputError
from telcoloc.models.trajectory import forests
from telcoloc.models.trajectory.features import CellTable, known_cells, record_features, rss_vectors
from telcoloc.models.trajectory.localizer import FitSettings
from telcoloc.models.trajectory.measurements import CellSites
from telcoloc.models.trees import Forest
from town import FRAME, errors, jiading, odd_records, walks

NEEDS_SKLEARN = pytest.mark.skipif(not importlib.util.find_spec("sklearn"), reason="needs scikit-learn")
FEW = {"trees": 12, "fold_trees": 6}


# The trees


@NEEDS_SKLEARN
@pytest.mark.parametrize("kind", ["RandomForestRegressor", "ExtraTreesRegressor"])
def test_numpy_walks_as_scikit_learn_does(kind):
    from sklearn import ensemble

    rng = np.random.default_rng(1)
    x = rng.normal(size=(1500, 7)).astype(np.float32)
    y = np.column_stack([300 * np.sin(x[:, 0]), 200 * x[:, 1] * x[:, 2]]) + rng.normal(0, 5, (1500, 2))
    regressor = getattr(ensemble, kind)(20, min_samples_leaf=2, random_state=0).fit(x, y - y.mean(axis=0))
    forest = forests.forest_of(regressor, y.mean(axis=0))
    new = np.concatenate([x, rng.normal(size=(20_000, 7)).astype(np.float32)])  # those on thresholds too
    mean, spread = forest.predict(new)
    np.testing.assert_allclose(mean, regressor.predict(new) + y.mean(axis=0), rtol=0, atol=1e-3)
    each = np.stack([tree.predict(new) for tree in regressor.estimators_])
    np.testing.assert_allclose(spread, np.sqrt(each.var(axis=0).sum(axis=1)), rtol=1e-3, atol=1e-2)
    again = Forest.from_tensors(forest.tensors("f."), "f.").predict(new[:50])[0]
    np.testing.assert_array_equal(again, mean[:50])


@NEEDS_SKLEARN
def test_batches_and_threads_do_not_change_a_forest(monkeypatch):
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(300, 4)).astype(np.float32), rng.normal(size=(300, 2))
    one = forests.grow_forest(x, y, trees=9, seed=5)
    monkeypatch.setattr(forests, "_BATCH_S", 1e9)
    other = forests.grow_forest(x, y, trees=9, seed=5, threads=2)
    assert all(np.array_equal(array, other.tensors()[name]) for name, array in one.tensors().items())
    assert not np.array_equal(one.value, forests.grow_forest(x, y, trees=9, seed=6).value)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"value": np.zeros((3, 3), np.float32)}, "one base value per output"),
        ({"left": np.array([0, 1, 2], np.int32), "right": np.array([2, 1, 2], np.int32)}, "stand behind it"),
        ({"roots": np.array([7], np.int32)}, "stand behind it"),
        ({"threshold": np.zeros(2)}, "different lengths"),
    ],
)
def test_broken_forests_are_refused(change, sentence):
    tensors = {
        "feature": np.zeros(3, np.int16),
        "threshold": np.zeros(3, np.float32),
        "left": np.array([1, 1, 2], np.int32),
        "right": np.array([2, 1, 2], np.int32),
        "value": np.array([[0, 0], [1, 2], [3, 4]], np.float32),
        "roots": np.array([0], np.int32),
        "base": np.zeros(2),
    }
    np.testing.assert_array_equal(Forest.from_tensors(tensors).predict([[-1.0], [1.0]])[0], [[1, 2], [3, 4]])
    with pytest.raises(InputError, match=sentence):
        Forest.from_tensors({**tensors, **change})


# The features


def test_the_rss_vector_says_who_was_heard_how():
    data, sites = walks(2)
    rows = np.arange(len(data))
    data = data.recoded(known_cells(data, rows, sites, FRAME))
    table = CellTable.of(data, sites, FRAME, rows)
    wide = rss_vectors(data.cell, data.rss_dbm, table)
    assert wide.dtype == np.float32
    for row in (0, 71, 119):
        heard = {data.cells[code]: rss for code, rss in zip(data.cell[row], data.rss_dbm[row]) if code >= 0}
        for code, name in enumerate(data.cells):
            if table.column[code] >= 0:
                assert wide[row, table.column[code]] == heard.get(name, table.floor_dbm[0])
    odd = odd_records().recoded(data.cells)
    wide = rss_vectors(odd.cell, odd.rss_dbm, table)
    assert wide[-1].max() == max(-200, table.floor_dbm[0])  # weaker than the floor reads as the floor
    twice = np.flatnonzero((odd.cell == odd.cell[:, [0]]).sum(axis=1) == 2)
    assert table.column[data.cells.index("c3")] < 0 or wide[odd.time_s == 9000].max() == -60
    assert len(twice) <= 1
    columns = record_features(odd.cell, odd.rss_dbm, table)
    assert columns.shape == (6, table.n_features)
    assert np.isfinite(columns).all()


def test_cells_without_a_position_stand_amid_those_who_heard_them():
    data, _ = walks(4)
    rows = np.arange(len(data))
    table = CellTable.of(data, CellSites.none(), FRAME, rows)
    x, _ = FRAME.to_xy(data.lon, data.lat)
    code = int(np.bincount(data.cell[data.cell >= 0]).argmax())
    assert table.x_m[code] == pytest.approx(x[(data.cell == code).any(axis=1)].mean(), abs=0.1)


def test_context_is_of_the_same_trajectory_only():
    data, _ = walks(3, 5)
    place = np.arange(30.0).reshape(15, 2)
    context = forests.contextual_features(data, place, np.ones(15))
    assert np.isfinite(context).all()
    alone = forests.contextual_features(data.take(np.arange(5, 10)), place[5:10], np.ones(5))
    np.testing.assert_allclose(context[5:10], alone, rtol=1e-4, atol=1e-3)


# The methods


@NEEDS_SKLEARN
@pytest.mark.parametrize("kind", [forests.Raf, forests.Ccr])
@pytest.mark.parametrize("sites", [True, False])
def test_learns_a_town(kind, sites):
    data, known = walks(sites=sites)
    test = np.isin(data.trajectory, [3, 7])
    model = kind().fit(data.take(~test), known, FitSettings(options=FEW))
    error, fixes = errors(model, data.take(test))
    x, y = FRAME.to_xy(data.lon, data.lat)
    centre = np.hypot(x - x[~test].mean(), y - y[~test].mean())[test]
    assert np.median(error) < 0.5 * np.median(centre)
    same = kind.restore(model.frame_, model.cells_, model.tensors(), model.card()).predict(data.take(test))
    np.testing.assert_array_equal(same.x_m, fixes.x_m)
    np.testing.assert_array_equal(same.spread_m, fixes.spread_m)
    again = kind().fit(data.take(~test), known, FitSettings(options=FEW, threads=2)).predict(data.take(test), threads=2)
    np.testing.assert_array_equal(again.x_m, fixes.x_m)


@NEEDS_SKLEARN
@pytest.mark.parametrize("kind", [forests.Raf, forests.Ccr])
def test_odd_records_get_a_fix(kind):
    model = kind().fit(*walks(4), FitSettings(options=FEW))
    odd = odd_records()
    fixes = model.predict(odd)
    assert all(np.isfinite(values).all() and len(values) == 6 for values in (fixes.x_m, fixes.y_m, fixes.spread_m))
    assert (fixes.spread_m > 0).all()
    assert len(model.predict(odd.take(np.zeros(6, dtype=bool))).x_m) == 0


@NEEDS_SKLEARN
@pytest.mark.parametrize("split", ["trajectory", "day", "sample"])
def test_one_trajectory_is_enough_to_learn_from(split):
    data, sites = walks(1)
    model = forests.Ccr().fit(data, sites, FitSettings(options=FEW, split=split))
    assert np.median(errors(model, data)[0]) < 30


@NEEDS_SKLEARN
def test_the_second_layer_learns_honest_errors(monkeypatch):
    """Its training rows have first-layer positions as far off as those of strangers, not as those learned by heart."""
    data, sites = walks(6)
    seen = {}
    kept = forests.contextual_features

    def spy(records, place, spread):
        seen.setdefault("place", place.copy())
        return kept(records, place, spread)

    monkeypatch.setattr(forests, "contextual_features", spy)
    model = forests.Ccr().fit(data, sites, FitSettings(options=FEW))
    x, y = model.frame_.to_xy(data.lon, data.lat)
    taught = np.median(np.hypot(seen["place"][:, 0] - x, seen["place"][:, 1] - y))
    by_heart = np.median(np.hypot(*(model._first_layer(data.recoded(model.cells_), 1)[0].T - [x, y])))
    assert taught > 2 * by_heart


def test_too_little_to_learn_from():
    data, sites = walks(1, 9)
    with pytest.raises(InputError, match=r"Only 9 of 9 records have both a true position and a cell; at least 10"):
        forests.Raf().fit(data, sites)


def test_without_scikit_learn_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.ensemble", None)
    with pytest.raises(InputError, match=r"'scikit-learn', which is not installed.*\.$"):
        forests.Raf().fit(*walks(2))


@NEEDS_SKLEARN
def test_cancel_is_prompt():
    data, sites = walks()
    calls = []

    def progress(fraction):
        calls.append((time.monotonic(), fraction))
        if fraction > 0.3:
            raise Cancelled

    with pytest.raises(Cancelled):
        forests.Ccr().fit(data, sites, FitSettings(), progress)
    assert np.diff([moment for moment, _ in calls]).max() < 2.0  # the goal is 0.5 s on an idle machine
    assert [fraction for _, fraction in calls] == sorted(fraction for _, fraction in calls)


@NEEDS_SKLEARN
@pytest.mark.real_data
def test_jiading_a_forest_is_as_good_as_the_readme_of_the_data_says(shared_data):
    data, sites = jiading()
    few = data.take(np.arange(0, len(data), 2))
    test = np.random.default_rng(0).random(len(few)) < 0.2
    model = forests.Raf().fit(few.without_truth(test), sites, FitSettings(split="sample", options={"trees": 20}))
    error, fixes = errors(model, few, test)
    assert np.median(error) < 45
    unsure = fixes.spread_m[test] > np.median(fixes.spread_m[test])
    assert np.median(error[unsure]) > 2 * np.median(error[~unsure])
