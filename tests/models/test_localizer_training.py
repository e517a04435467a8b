"""Training, judging, keeping and using localizers, on generated walks with the cheapest methods."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from generated_measurements import CELLS, FRAME, SIDE_M, sites, walks
from telcoloc.models.errors import Cancelled, InputError
from telcoloc.models.trajectory import training
from telcoloc.models.trajectory.evaluate import distance_m
from telcoloc.models.trajectory.measurements import CellSites, Measurements, measurements
from telcoloc.models.trajectory.methods import PLAIN, class_of
from telcoloc.models.trajectory.model_file import load_localizer, save_localizer
from telcoloc.models.trajectory.street_lines import StreetLines
from telcoloc.models.trajectory.training import TrainJob, train_localizer
from telcoloc.models.weights_file import read_weights, write_weights

pytest.importorskip("sklearn", reason="scikit-learn is not installed; no forest can be learned")
QUICK = {"trees": 12}


def job(**more) -> TrainJob:
    return TrainJob(**{"method": "raf", "options": QUICK, "refit": False, **more})


@pytest.fixture(scope="module")
def data() -> Measurements:
    return walks()


@pytest.fixture(scope="module")
def trained(data):
    return train_localizer(data, sites(), job())


def renamed(data: Measurements, name: str) -> Measurements:
    """The same records with other cells."""
    return replace(data, cells=tuple(f"{name}{cell}" for cell in data.cells))


def streets_of_the_grid() -> StreetLines:
    """The streets that the walks follow."""
    at = np.arange(0.0, SIDE_M + 1, 200.0)
    lines = [[(x, 0.0), *((x, y) for y in at[1:])] for x in at] + [[(0.0, y), *((x, y) for x in at[1:])] for y in at]
    xy_m = np.array([point for line in lines for point in line])
    first = np.arange(0, len(xy_m) + 1, len(at))
    return StreetLines(np.column_stack(FRAME.to_lonlat(*xy_m.T)), first, np.zeros(len(lines), np.int8))


class TestHoldingOut:
    @pytest.mark.parametrize("split", ["trajectory", "day"])
    def test_no_group_is_on_both_sides(self, data, split):
        found = train_localizer(data, sites(), job(split=split))
        test = np.zeros(len(data), dtype=bool)
        test[found.test_rows] = True
        left = training.what_is_left(data, test, split)
        assert 0.1 * len(data) <= test.sum() <= 0.35 * len(data)
        assert not set(left.trajectory) & set(data.trajectory[test])
        assert len(left) + test.sum() == len(data)

    def test_with_samples_the_records_stay_without_their_truth(self, data):
        found = train_localizer(data, sites(), job(split="sample"))
        test = np.isin(np.arange(len(data)), found.test_rows)
        left = training.what_is_left(data, test, "sample")
        assert len(left) == len(data)
        assert not left.has_truth[test].any()

    @pytest.mark.parametrize("split", ["trajectory", "day", "sample"])
    @pytest.mark.parametrize("method", ["raf", "ccr", "nbl", "hmm", "auto", "nbl_f"])
    def test_held_out_truths_are_not_looked_at(self, data, split, method):
        """Fixes are equal, byte for byte, when the held-out truths are scrambled."""
        quick = {"raf": QUICK, "ccr": {**QUICK, "fold_trees": 12}, "auto": QUICK}
        asked = job(split=split, method=method, options=quick.get(method, {}))
        before = train_localizer(data, sites(), asked)
        rows = before.test_rows
        lon, lat = data.lon.copy(), data.lat.copy()
        other = np.random.default_rng(3).permutation(rows)
        lon[rows], lat[rows] = lon[other] + 0.01, lat[other] - 0.01
        after = train_localizer(replace(data, lon=lon, lat=lat), sites(), asked)
        np.testing.assert_array_equal(after.test_rows, rows)
        for name in ("lon", "lat", "radius_50_m", "radius_90_m"):
            np.testing.assert_array_equal(getattr(after.located, name), getattr(before.located, name))
        assert after.errors != before.errors

    def test_errors_are_those_of_the_fixes(self, data, trained):
        rows = trained.test_rows
        error_m = distance_m(trained.located.lon, trained.located.lat, data.lon[rows], data.lat[rows])
        assert trained.errors.median_m == np.median(error_m)
        assert trained.errors.count == len(rows)
        assert trained.errors.inside_90 == (error_m <= trained.located.radius_90_m).mean()

    def test_learning_again_from_all_changes_the_model_and_not_the_errors(self, data, trained):
        again = train_localizer(data, sites(), job(refit=True))
        assert again.errors == trained.errors
        assert again.model.card["learned_from_all"]
        assert not trained.model.card["learned_from_all"]
        of_test = data.take(trained.test_rows)
        mean = {
            name: distance_m(found.lon, found.lat, of_test.lon, of_test.lat).mean()
            for name, found in (
                ("seen", again.model.localize(of_test)),
                ("not seen", trained.model.localize(of_test)),
            )
        }
        assert mean["seen"] < 0.8 * mean["not seen"]

    def test_without_a_test_nothing_is_judged(self, data):
        found = train_localizer(data, sites(), job(test_share=0.0))
        assert found.errors is None
        assert found.located is None
        assert len(found.test_rows) == 0


class TestRadii:
    def test_circles_hold_what_they_claim(self):
        """Over several splits of many walks: the share of held-out truths inside, within what 400 dependent records allow."""
        many = walks(40, 40, seed=5)
        shares = [
            (found.errors.inside_50, found.errors.inside_90)
            for found in (train_localizer(many, sites(), job(seed=seed)) for seed in range(3))
        ]
        inside_50, inside_90 = np.mean(shares, axis=0)
        assert 0.42 < inside_50 < 0.58
        assert 0.84 < inside_90 < 0.95


class TestKeeping:
    def test_equal_seeds_make_equal_files(self, data, tmp_path):
        paths = [tmp_path / f"{name}.safetensors" for name in "ab"]
        for path in paths:
            found = train_localizer(data, sites(), job()).model
            save_localizer(path, replace(found, card={**found.card, "seconds": {}}))
        assert paths[0].read_bytes() == paths[1].read_bytes()

    def test_a_file_gives_the_same_fixes(self, data, trained, tmp_path):
        save_localizer(tmp_path / "m.safetensors", trained.model)
        again = load_localizer(tmp_path / "m.safetensors")
        assert again.method == "raf"
        assert again.card["errors"]["median_m"] == pytest.approx(trained.errors.median_m)
        before, after = trained.model.localize(data), again.localize(data)
        for name in ("lon", "lat", "radius_50_m", "radius_90_m", "n_known"):
            assert getattr(after, name).tobytes() == getattr(before, name).tobytes()

    def test_another_format_is_refused(self, trained, tmp_path):
        path = tmp_path / "m.safetensors"
        save_localizer(path, trained.model)
        weights = read_weights(path, finite=False)
        write_weights(path, replace(weights, card={**weights.card, "format": 99}))
        with pytest.raises(InputError, match="has format 99, but this version of TelcoLoc reads format 1"):
            load_localizer(path)
        write_weights(path, replace(weights, card={**weights.card, "method": "oracle"}))
        with pytest.raises(InputError, match="is of method 'oracle'"):
            load_localizer(path)
        write_weights(path, replace(weights, kind="deepmend"))
        with pytest.raises(InputError, match="holds weights for 'deepmend', not a localizer"):
            load_localizer(path)

    def test_a_file_that_lacks_something_is_damaged(self, trained, tmp_path):
        path = tmp_path / "m.safetensors"
        save_localizer(path, trained.model)
        weights = read_weights(path, finite=False)
        for name in [*weights.tensors][:3]:
            write_weights(
                path, replace(weights, tensors={key: weights.tensors[key] for key in weights.tensors if key != name})
            )
            with pytest.raises(InputError, match=r"is damaged|is missing"):
                load_localizer(path)
        for name in ("cells", "frame", "calibration", "learned"):
            write_weights(path, replace(weights, card={key: weights.card[key] for key in weights.card if key != name}))
            with pytest.raises(InputError, match=r"is damaged|is missing"):
                load_localizer(path)


class TestUsing:
    def test_the_order_of_rows_does_not_matter(self, data, trained):
        rng = np.random.default_rng(7)
        order = rng.permutation(len(data))
        names = np.array([*data.cells, ""])
        mixed = measurements(
            np.array(data.devices)[data.device[order]],
            data.time_s[order],
            names[data.cell[order]],
            data.rss_dbm[order],
            trajectory=np.array(data.trajectories)[data.trajectory[order]],
            row=data.row[order],
        )
        np.testing.assert_array_equal(mixed.row, data.row)
        before, after = trained.model.localize(data), trained.model.localize(mixed)
        np.testing.assert_array_equal(after.lon, before.lon)
        np.testing.assert_array_equal(after.radius_90_m, before.radius_90_m)

    def test_batches_do_not_matter(self, data, trained, monkeypatch):
        whole = trained.model.localize(data)
        monkeypatch.setattr(training, "_RECORDS_AT_ONCE", 50)
        begun = []
        parts = trained.model.localize(data, begun=lambda first, last: begun.append((first, last)))
        np.testing.assert_array_equal(parts.lon, whole.lon)
        np.testing.assert_array_equal(parts.radius_50_m, whole.radius_50_m)
        assert begun == [(walk, walk) for walk in range(10)]

    def test_cells_that_are_not_known_are_bridged_or_left_without_a_fix(self, data, trained):
        """In one walk every second record, in another all records hear strange cells only."""
        cells = (*data.cells, "strange")
        cell = data.cell.copy()
        strange = (data.trajectory == 0) & (np.arange(len(data)) % 2 == 1)
        cell[strange | (data.trajectory == 1)] = [len(cells) - 1, *[-1] * 6]
        found = trained.model.localize(replace(data, cells=cells, cell=cell))
        plain = trained.model.localize(data)
        assert (found.n_known[strange] == 0).all()
        assert np.isfinite(found.lon[data.trajectory == 0]).all()
        assert np.isnan(found.lon[data.trajectory == 1]).all()
        rows = np.flatnonzero(strange)[:-1]
        np.testing.assert_allclose(found.lon[rows], (plain.lon[rows - 1] + plain.lon[rows + 1]) / 2, atol=1e-9)
        assert (found.radius_50_m[rows] >= np.minimum(found.radius_50_m[rows - 1], found.radius_50_m[rows + 1])).all()

    def test_a_model_of_another_network_is_refused(self, data, trained):
        sentence = r"The model knows none of the 12 cells of the table \(e\.g\. 'x100-1'; the model has '100-1'\)\."
        with pytest.raises(InputError, match=sentence):
            trained.model.localize(renamed(data, "x"))

    def test_one_record_is_enough(self, data, trained):
        found = trained.model.localize(data.take(np.arange(1)))
        assert np.isfinite([found.lon, found.lat, found.radius_50_m, found.radius_90_m]).all()

    def test_cancel(self, data, trained):
        def cancel(fraction):
            raise Cancelled("enough")

        with pytest.raises(Cancelled):
            trained.model.localize(data, cancel)
        with pytest.raises(Cancelled):
            train_localizer(data, sites(), job(), progress=cancel)


class TestStreets:
    def test_fixes_lie_on_the_streets_and_the_file_keeps_them(self, data, tmp_path):
        found = train_localizer(data, sites(), job(method="raf_m"), streets_of_the_grid())
        save_localizer(tmp_path / "m.safetensors", found.model)
        model = load_localizer(tmp_path / "m.safetensors")
        assert model.method == "raf_m"
        located = model.localize(data)
        x_m, y_m = FRAME.to_xy(located.lon, located.lat)
        off_m = np.minimum(*(np.abs(values - 200 * np.round(values / 200)) for values in (x_m, y_m)))
        assert (off_m < 0.5).mean() > 0.95

    def test_without_streets_and_with_those_of_another_place(self, data):
        with pytest.raises(InputError, match="Method 'raf_m' matches to streets, but there is no street layer"):
            train_localizer(data, sites(), job(method="raf_m"))
        streets = streets_of_the_grid()
        far = StreetLines(streets.lonlat + 1.0, streets.first, streets.direction)
        with pytest.raises(InputError, match="No street lies within 2,000 m of the measurements"):
            train_localizer(data, sites(), job(method="raf_m"), far)


class TestRefusals:
    def test_no_truth(self, data):
        hidden = data.without_truth(np.ones(len(data), dtype=bool))
        with pytest.raises(InputError, match="None of the 400 records has a true position"):
            train_localizer(hidden, sites(), job())

    def test_one_trajectory(self, data):
        one = data.take(data.trajectory == 2)
        with pytest.raises(InputError, match=r"belong to one trajectory \('d1 2'\), so none can be held out"):
            train_localizer(one, sites(), job())
        found = train_localizer(one, sites(), job(test_share=0.0))  # calibrated on its end
        assert np.isfinite(found.model.localize(one).radius_90_m).all()

    def test_one_day(self, data):
        sentence = r"belong to one day \('2020-09-15'\), so none can be held out by day\. .* or use SPLIT=trajectory or sample\."
        with pytest.raises(InputError, match=sentence):
            train_localizer(data.take(data.trajectory == 2), sites(), job(split="day"))

    def test_an_option_that_the_method_does_not_have(self, data):
        with pytest.raises(InputError, match=r"Method 'raf' has no option 'tree'\. Did you mean 'trees'\?"):
            train_localizer(data, sites(), job(options={"tree": 3}))
        with pytest.raises(InputError, match=r"Method 'raf' has no option 'x'\. Its options: trees, "):
            train_localizer(data, sites(), job(options={"x": 3}))

    @pytest.mark.parametrize(
        ("option", "value", "sentence"),
        [
            ("trees", "abc", r"Option 'trees' is 'abc', but must be a whole number from 1 to 10,000\."),
            ("trees", -5, r"Option 'trees' is -5, but must be a whole number from 1 to 10,000\."),
            ("trees", 2.5, r"Option 'trees' is 2\.5, but must be a whole number from 1 to 10,000\."),
            ("trees", 10**9, r"Option 'trees' is 1e\+09, but must be a whole number from 1 to 10,000\."),
            ("min_leaf", 0, r"Option 'min_leaf' is 0, but must be a whole number from 1 to 100,000\."),
            ("max_features", 2, r"Option 'max_features' is 2, but must be a number above 0, 1 at most\."),
            ("max_features", float("nan"), r"Option 'max_features' is nan, but must be a number above 0, 1 at most\."),
        ],
    )
    def test_an_option_of_an_absurd_value(self, data, option, value, sentence):
        with pytest.raises(InputError, match=sentence):
            train_localizer(data, sites(), job(options={option: value}))

    def test_every_option_that_a_method_reads_is_one_that_it_states(self):
        stated = {name: class_of(name).OPTIONS for name in PLAIN}
        known = set().union(*(options or () for options in stated.values()))
        silent = {f"{name}.py" for name, options in stated.items() if options is None}
        for path in Path(training.__file__).parent.rglob("*.py"):
            read = set(re.findall(r"""settings\.option\(\s*"(\w+)\"""", path.read_text(encoding="utf-8")))
            assert read <= known or path.name in silent, path.name
        assert {"w1", "configuration", "reduced", "epochs"} <= set(stated["deeploc"])

    def test_no_such_method(self, data):
        with pytest.raises(InputError, match="There is no localisation method 'oracle'"):
            train_localizer(data, sites(), job(method="oracle"))


def test_sites_are_optional(data):
    found = train_localizer(data, CellSites.none(), job())
    assert found.errors.median_m < SIDE_M / 4
    assert found.model.localizer.cells_ == tuple(sorted(CELLS))
