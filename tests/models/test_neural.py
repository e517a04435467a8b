"""The neural localizers: equation (1), Table 5 and the windows against independent counts; then learning, odd input and restoring."""

import json
from dataclasses import replace

import numpy as np
import pytest
from telcoloc.models.errors import Cancelled, InputError
from telcoloc.models.trajectory.localizer import FitSettings
from telcoloc.models.trajectory.measurements import CellSites, LocalFrame, measurements
from telcoloc.models.trajectory.neural import Cnn, ConvLstm, DeepLoc, Lstm, RecuLstm, Seq2Seq, StackLstm, scoring
from telcoloc.models.trajectory.neural.configurations import CONFIGURATIONS
from telcoloc.models.trajectory.neural.pixels import PixelGrid, occupied, sparse_tensors
from telcoloc.models.trajectory.neural.records import Scales
from telcoloc.models.trajectory.neural.scoring import Layout
from telcoloc.models.trajectory.neural.sequences import choose_held
from telcoloc.models.trajectory.neural.windows import (
    batches,
    prediction_windows,
    run_lengths,
    training_windows,
    window_sizes,
)
from telcoloc.models.trajectory.pieces import pieces

torch = pytest.importorskip("torch")

ALL = (Cnn, Lstm, StackLstm, Seq2Seq, ConvLstm, RecuLstm, DeepLoc)
FRAME = LocalFrame(121.2, 31.28)
#: Tiny networks that learn in a second or two.
TINY = {
    "hidden": 32,
    "epochs": 18,
    "batch": 128,
    "rate": 6e-3,
    "configuration": 1,
    "cnn_epochs": 5,
    "classes": 40,
    "side": 8,
    "filters": 4,
}


def walks(n_walks=6, length=42, seed=0):
    """Walks through a square kilometre with nine base stations, log-distance path loss and 3 dB of noise."""
    rng = np.random.default_rng(seed)
    sites = np.stack(np.meshgrid([-450.0, 0, 450], [-450.0, 0, 450]), -1).reshape(-1, 2) + rng.normal(0, 60, (9, 2))
    heading = np.cumsum(rng.normal(0, 0.2, (n_walks, length)), 1) + rng.uniform(0, 6.3, (n_walks, 1))
    steps = 25 * np.stack([np.cos(heading), np.sin(heading)], -1)
    xy = rng.uniform(-400, 400, (n_walks, 1, 2)) + np.cumsum(steps, 1)
    xy = 500 - np.abs((xy + 500) % 2000 - 1000)  # reflected at the edges
    xy = xy.reshape(-1, 2)
    distance = np.hypot(*(xy[:, None] - sites).transpose(2, 0, 1))
    rss = -40 - 35 * np.log10(np.maximum(distance, 10) / 10) + rng.normal(0, 3, distance.shape)
    order = np.argsort(-rss, axis=1)[:, :5]
    lon, lat = FRAME.to_lonlat(*xy.T)
    names = np.array([f"c{number}" for number in range(9)])
    trajectory = np.repeat([f"w{number}" for number in range(n_walks)], length)
    strongest = np.take_along_axis(rss, order, 1)
    data = measurements(
        trajectory,
        np.tile(np.arange(length) * 2.0, n_walks),
        names[order],
        strongest,
        trajectory=trajectory,
        lon=lon,
        lat=lat,
        signals={"asu": (strongest + 113) / 2},
    )
    return data, CellSites(tuple(names), *FRAME.to_lonlat(*sites.T))


def errors_m(localizer, data, fixes):
    x_m, y_m = localizer.frame_.to_xy(data.lon, data.lat)
    return np.hypot(fixes.x_m - x_m, fixes.y_m - y_m)


DATA, SITES = walks()


def settings(split="sample", **options):
    return FitSettings(seed=1, split=split, options={**TINY, **options})


# Windows


def sequence(serving, neighbour, trajectory=None, neighbour_dbm=-70.0):
    cell = np.column_stack([serving, neighbour])
    rss = np.where(cell == "", np.nan, np.array([[-60.0, neighbour_dbm]]))
    n = len(serving)
    return measurements(np.zeros(n), np.arange(n), cell, rss, trajectory=trajectory)


def test_window_sizes_of_a_hand_worked_case():
    # serving runs: AAAA BB | BB (a new trajectory) = 3 runs of 8 records; with the neighbour: AA AA B B | BB = 5 runs
    data = sequence(list("AAAABBBB"), list("xxyyxyzz"), trajectory=list("ppppppqq"))
    assert run_lengths(data) == pytest.approx((8 / 3, 8 / 5))
    assert window_sizes(8 / 3, 8 / 5) == (2, 1)


@pytest.mark.parametrize(
    ("c1", "c2", "sizes"),
    [
        (27.53, 8.33, (8, 3)),  # the paper's counts; it found 8 and 3 to be best
        (1.0, 1.0, (1, 1)),
        (1.2, 1.2, (1, 1)),
        (500.0, 400.0, (16, 3)),
        (10.0, 1.0, (1, 10)),
    ],
)
def test_window_sizes(c1, c2, sizes):
    assert window_sizes(c1, c2) == sizes


def test_the_strongest_neighbour_counts_not_its_column():
    cell = np.array([["A", "x", "y"], ["A", "y", "x"]])
    rss = np.array([[-60.0, -70, -80], [-60, -80, -70]])
    assert run_lengths(measurements(np.zeros(2), np.arange(2), cell, rss)) == (2.0, 2.0)


def test_runs_without_neighbours():
    assert run_lengths(sequence(["A", "A", "B"], ["", "", ""])) == (1.5, 1.5)


@pytest.mark.parametrize("length", [1, 4, 7])
def test_every_record_is_in_a_window_of_its_own_trajectory(length):
    starts = np.array([0, 1, 4, 24, 31])
    part = np.repeat(np.arange(4), np.diff(starts))
    made = [training_windows(starts, length, np.random.default_rng(seed)) for seed in range(5)]
    for windows in (*made, prediction_windows(starts, length, max(1, length // 2))):
        assert set(windows[windows >= 0]) == set(range(31))
        for rows in windows:
            kept = rows[rows >= 0]
            assert len(set(part[kept])) == 1
            assert (np.diff(kept) == 1).all()
            assert (rows[len(kept) :] == -1).all()
    joined = batches(made[0], 12)
    assert sum(len(rows) for rows in joined) == len(made[0])
    assert all(rows.size <= max(12, length) and (rows[0] >= 0).all() for rows in joined)


@pytest.mark.parametrize("starts", [[0, 5, 105, 106, 300], [0, 300], [0]])
def test_pieces_cover_all_rows_once(starts):
    found = pieces(np.array(starts), 64, 10)
    assert [row for begin, end, *_ in found for row in range(begin, end)] == list(range(starts[-1]))
    for begin, end, first, last in found:
        assert begin - 10 <= first <= begin < end <= last <= end + 10


# The CNN's tensors


def test_equation_1_against_a_loop():
    data, sites = walks(2, 12)
    data = replace(
        data, rss_dbm=np.where(np.random.default_rng(0).random(data.rss_dbm.shape) < 0.1, np.nan, data.rss_dbm)
    )
    scales = Scales.of(data, sites)
    grid = PixelGrid.over(scales, 3, 4)  # so coarse that several base stations share a pixel
    pixel = grid.pixel_of(scales.cell_xy * scales.scale_m)
    assert len(np.unique(pixel)) < len(pixel)
    found = sparse_tensors(data, scales, pixel, 2).dense(np.arange(len(data)), 12)
    features = scales.features(data)
    for record in range(len(data)):
        for place in range(12):
            values = [
                features[back, slot]
                for back in range(max(record - 2, 0), record + 1)
                if data.trajectory[back] == data.trajectory[record]
                for slot in range(7)
                if data.cell[back, slot] >= 0 and pixel[data.cell[back, slot]] == place
            ]
            for f in range(2):
                known = [value[f] for value in values if np.isfinite(value[f])]
                assert found[record, place, f] == pytest.approx(np.mean(known) if known else 0, abs=1e-6)


def test_tensors_in_pieces_are_the_same(monkeypatch):
    layout = Layout.of(DATA, Scales.of(DATA, SITES), np.arange(len(DATA)), settings())
    whole = layout.inputs(DATA, Scales.of(DATA, SITES))
    monkeypatch.setattr(scoring, "_PIECE", 17)
    parts = layout.inputs(DATA, Scales.of(DATA, SITES))
    for name in ("first", "pixel", "value"):
        np.testing.assert_array_equal(getattr(whole, name), getattr(parts, name))


def test_base_stations_outside_stand_on_the_border():
    scales = Scales.of(DATA, SITES)
    grid = PixelGrid.over(scales, 50, 50)
    found = grid.pixel_of(np.array([[-1e5, 1e5], [1e5, -1e5], [np.nan, 0]]))
    assert found.tolist() == [0, 2499, -1]
    assert grid.pixel_of(grid.centre_m(np.arange(2500))).tolist() == list(range(2500))


def test_grid_cells_are_joined_until_there_are_few_enough():
    scales = Scales.of(DATA, SITES)
    xy_m = np.column_stack(scales.frame.to_xy(DATA.lon, DATA.lat))
    grid = PixelGrid.over(scales, 50, 50)
    many, same = occupied(xy_m, grid, 10_000)
    assert (len(many), same) == (len(np.unique(grid.pixel_of(xy_m))), grid)
    few, joined = occupied(xy_m, grid, 20)
    assert len(few) <= 20
    assert set(joined.pixel_of(xy_m)) == set(few)
    half = 0.5 * np.hypot(joined.width_m, joined.height_m)
    away = np.hypot(*(joined.centre_m(joined.pixel_of(xy_m)) - xy_m).T)
    assert away.max() <= half * 1.001


@pytest.mark.parametrize("configuration", CONFIGURATIONS)
def test_sparse_layers_are_the_dense_convolutions(configuration):
    from telcoloc.models.trajectory.neural.convolution import ScoreCnn
    from telcoloc.models.trajectory.neural.layers import initialise

    side, layers = CONFIGURATIONS[configuration]
    rng = np.random.default_rng(0)
    pixels = np.unique(np.r_[0, side * side - 1, rng.integers(0, side * side, 30)])
    network = ScoreCnn(configuration, 3, 1 / 64, pixels, 11)
    initialise(network, torch.Generator().manual_seed(0))
    with torch.no_grad():
        for layer in network.convolutions:
            layer.bias.uniform_(-0.1, 0.1)
    owner = np.repeat([0, 1, 3], 4)  # the third record has heard nothing
    site = np.concatenate([rng.choice(len(pixels), 4, replace=False) for _ in range(3)])
    value = rng.random((12, 3)).astype(np.float32)
    dense = np.zeros((4, side * side, 3), np.float32)
    dense[owner, pixels[site]] = value
    image = torch.from_numpy(dense).view(4, side, side, 3).permute(0, 3, 1, 2)
    given = (torch.from_numpy(site), torch.from_numpy(value), torch.from_numpy(owner), 4)
    with torch.no_grad():
        expected = network.convolutions[1](torch.max_pool2d(torch.relu(network.convolutions[0](image)), 2))
        np.testing.assert_allclose(network.second(*given), expected, atol=1e-6)
        assert network(*given).shape == (4, 11)
    assert [one.kernel_size[0] for one in network.convolutions] == [kernel for kernel, _, _ in layers]


def test_the_papers_filters_at_full_width():
    from telcoloc.models.trajectory.neural.convolution import ScoreCnn

    network = ScoreCnn(2, 3, 1.0, np.array([7]), 5)
    assert [one.out_channels for one in network.convolutions] == [256, 128, 64, 32]
    assert network.units[0].weight.shape == (256, 12 * 12 * 32)


def test_the_prediction_layer_starts_where_the_cnn_expects_the_record():
    from telcoloc.models.trajectory.neural.layers import GridHead, initialise

    head, generator = GridHead(6, 9, True), torch.Generator().manual_seed(0)
    initialise(head, generator)
    centres = torch.randn(9, 2, generator=generator)
    head.start(centres, generator)
    scores = torch.log_softmax(8 * torch.randn(40, 9, generator=generator), 1)
    with torch.no_grad():
        found = head(0.1 * torch.randn(40, 6, generator=generator), scores).xy
    np.testing.assert_allclose(found, scores.exp() @ centres, atol=0.05)


# Learning


@pytest.fixture(scope="module")
def learned():
    """Each method, learned once from the walks by sample; a fifth of the truths hidden."""
    hidden = np.random.default_rng(3).random(len(DATA)) < 0.2
    more = {ConvLstm: {"epochs": 30}}
    seen = DATA.without_truth(hidden)
    return hidden, {kind: kind().fit(seen, SITES, settings(**more.get(kind, {}))) for kind in ALL}


@pytest.mark.parametrize("kind", ALL)
def test_learns_more_than_the_centre(learned, kind):
    hidden, models = learned
    model = models[kind]
    fixes = model.predict(DATA)
    error = errors_m(model, DATA, fixes)[hidden]
    x_m, y_m = model.frame_.to_xy(DATA.lon, DATA.lat)
    centre = np.hypot(x_m - x_m[~hidden].mean(), y_m - y_m[~hidden].mean())[hidden]
    assert np.median(error) < 0.6 * np.median(centre)
    assert np.isfinite(fixes.spread_m).all()
    assert (fixes.spread_m > 0).all()


@pytest.mark.parametrize("kind", ALL)
def test_out_of_fold_fixes_are_of_some_records_with_truth(learned, kind):
    hidden, models = learned
    found = np.isfinite(models[kind].out_of_fold_.x_m)
    assert 5 <= found.sum() <= 0.2 * len(DATA)
    assert not (found & hidden).any()


@pytest.mark.parametrize("kind", ALL)
def test_restored_predicts_the_same(learned, kind):
    model = learned[1][kind]
    tensors, card = model.tensors(), json.loads(json.dumps(model.card()))
    again = kind.restore(model.frame_, model.cells_, tensors, card)
    first, second = model.predict(DATA), again.predict(DATA)
    for name in ("x_m", "y_m", "spread_m"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))
    for name, array in tensors.items():
        assert np.isfinite(array).all(), name
        if name.startswith(("network.", "cnn")):
            assert array.dtype == np.float32


@pytest.mark.parametrize("kind", [Cnn, Lstm, DeepLoc])
def test_damaged_models_say_so(learned, kind):
    model = learned[1][kind]
    tensors, card = model.tensors(), model.card()
    name = next(name for name in tensors if name.startswith("network."))
    damages = [
        ({**tensors, name: tensors[name][..., :-1]}, card),
        ({key: value for key, value in tensors.items() if key != name}, card),
        ({**tensors, name: np.full_like(tensors[name], np.nan)}, card),
        ({key: value for key, value in tensors.items() if key != "scales.box_m"}, card),
        (tensors, {}),
        (tensors, {**card, "signals": ["a", "b", "c"]}),
    ]
    for broken, text in damages:
        with pytest.raises(InputError, match="damaged"):
            kind.restore(model.frame_, model.cells_, broken, text)
    with pytest.raises(InputError, match="not learned"):
        kind().predict(DATA)


@pytest.mark.parametrize("kind", ALL)
def test_odd_records_get_a_fix(learned, kind):
    model = learned[1][kind]
    cells = np.array([["c1", "c2"], ["c1", ""], ["new", "newer"], ["", ""], ["c5", "new"], ["c3", "c3"]])
    rss = np.array([[-60, np.nan], [np.nan, np.nan], [-60, -70], [np.nan, np.nan], [-500, 60], [-70, -75]])
    odd = measurements(["a", "a", "b", "c", "d", "a"], [0.0, 0, 5, 1e9, 2, 1e7], cells, rss)
    fixes = model.predict(odd)
    assert np.isfinite([fixes.x_m, fixes.y_m, fixes.spread_m]).all()
    x_m, _ = model.frame_.to_xy(DATA.lon, DATA.lat)
    assert np.abs(fixes.x_m).max() < 5 * np.abs(x_m).max()
    assert len(model.predict(DATA.take(np.arange(0))).x_m) == 0


def test_truths_are_not_looked_at_and_trajectories_do_not_mix(learned):
    model = learned[1][DeepLoc]
    whole = model.predict(DATA)
    blind = model.predict(DATA.without_truth(np.ones(len(DATA), bool)))
    np.testing.assert_array_equal(whole.x_m, blind.x_m)
    one = DATA.trajectory == 2
    np.testing.assert_allclose(model.predict(DATA.take(one)).x_m, whole.x_m[one], atol=0.05)


def test_long_trajectories_in_pieces(learned, monkeypatch):
    from telcoloc.models.trajectory import pieces as module

    model = learned[1][DeepLoc]
    one = DATA.take(DATA.trajectory == 0)
    whole = model.predict(one)
    monkeypatch.setattr(module, "CHUNK", 20)
    cut = model.predict(one, threads=3)
    away = np.hypot(cut.x_m - whole.x_m, cut.y_m - whole.y_m)
    assert np.median(away) < 30  # other windows, the same place


@pytest.mark.parametrize("kind", [Cnn, DeepLoc])
def test_one_seed_one_result(kind):
    quick = settings(epochs=2, cnn_epochs=1)
    first, second, other = (
        kind().fit(DATA, SITES, chosen).tensors() for chosen in (quick, quick, replace(quick, seed=2))
    )
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name])
    assert any((array != other[name]).any() for name, array in first.items() if name.startswith("network."))


@pytest.mark.parametrize(
    "options",
    [
        *({"concat": concat} for concat in ("concat", "mean", "max", "last")),
        *({"recursive": layers} for layers in range(5)),
        {"initialise": False},
        {"w1": 1, "w2": 1},
        {"w1": 5, "w2": 7},
        {"refit": False},
    ],
)
def test_every_form_of_the_recursive_network(options):
    model = RecuLstm().fit(DATA, SITES, settings(**{"epochs": 1, "hidden": 8, **options}))
    assert np.isfinite(model.predict(DATA).x_m).all()


def test_joins_by_hand():
    from telcoloc.models.trajectory.neural.sequence import _joined

    values = torch.arange(8.0).view(1, 8, 1)
    for join, wanted in {
        "concat": [0, 1, 2, 3, 4, 5, 6, 7],
        "mean": [0.5, 0.5, 2.5, 2.5, 4.5, 4.5, 6.5, 6.5],
        "max": [1, 1, 3, 3, 5, 5, 7, 7],
        "last": [1, 1, 3, 3, 5, 5, 7, 7],
    }.items():
        assert _joined(values, 1, 2, join).flatten().tolist() == wanted
    # pieces of two records, two pieces to a window: the mean of the pieces, not of all records
    assert _joined(values, 2, 2, "mean").flatten().tolist() == [1, 2, 1, 2, 5, 6, 5, 6]


def test_held_out_are_whole_trajectories(learned):
    usable = DATA.has_truth
    held = choose_held(DATA, usable, settings("trajectory"))
    shares = np.bincount(DATA.trajectory[held], minlength=6) / np.bincount(DATA.trajectory)
    assert set(shares) == {0.0, 1.0}
    assert 0.05 < choose_held(DATA, usable, settings("sample")).mean() < 0.15
    one = DATA.take(DATA.trajectory == 0)
    assert not choose_held(one, one.has_truth, settings("trajectory")).any()


@pytest.mark.parametrize("split", ["trajectory", "day", "sample"])
def test_odd_training_data(split):
    """One trajectory, no position of any cell, no signals, missing RSS, single records, a record without cells."""
    quick = settings(split, epochs=1, cnn_epochs=1, hidden=8)
    data = replace(DATA.take(np.arange(60)), signals={})
    data = replace(data, rss_dbm=np.where(data.cell == 2, np.nan, data.rss_dbm))
    cell = data.cell.copy()
    cell[5] = -1
    alone = replace(data, cell=cell, trajectory=np.where(np.arange(60) < 40, 0, np.arange(60)).astype(np.int32))
    alone = replace(alone, trajectories=tuple(map(str, range(60))))
    one = replace(data, trajectory=np.zeros(60, np.int32))
    silent = replace(data, rss_dbm=np.full_like(data.rss_dbm, np.nan))
    for odd in (alone, one, silent):
        fixes = DeepLoc().fit(odd, CellSites.none(), quick).predict(odd)
        assert np.isfinite([fixes.x_m, fixes.y_m, fixes.spread_m]).all()
    assert np.isfinite(Cnn().fit(alone, CellSites.none(), quick).predict(alone).spread_m).all()


@pytest.mark.parametrize(
    ("kind", "options", "sentence"),
    [
        (Cnn, {"configuration": 6}, "whole number from 1 to 5"),
        (Cnn, {"width": 0}, "number above 0, 1 at most"),
        (Cnn, {"point": "middle"}, "one of: centroid, expected"),
        (RecuLstm, {"concat": "sum"}, "concat, mean, max, last"),
        (RecuLstm, {"recursive": 5}, "whole number from 0 to 4"),
        (RecuLstm, {"w1": 0}, "whole number from 1 to 200"),
        (Lstm, {"window": 0}, "whole number from 1 to 100,000"),
        (Lstm, {"refit": "often"}, "but must be true or false"),
    ],
)
def test_bad_options_say_what_to_choose(kind, options, sentence):
    with pytest.raises(InputError, match=sentence):
        kind().fit(DATA, SITES, settings(**options))


def test_too_few_truths():
    with pytest.raises(InputError, match="at least 10"):
        DeepLoc().fit(DATA.without_truth(np.arange(len(DATA)) > 5), SITES, settings())


@pytest.mark.parametrize("kind", [Cnn, DeepLoc])
def test_cancels(kind):
    calls = []

    def stop(fraction):
        calls.append(fraction)
        if len(calls) > 4:
            raise Cancelled

    before = torch.get_num_threads()
    with pytest.raises(Cancelled):
        kind().fit(DATA, SITES, settings(), stop)
    assert torch.get_num_threads() == before


def test_progress_never_goes_back():
    seen = []
    DeepLoc().fit(DATA, SITES, settings(epochs=2, cnn_epochs=1), seen.append).predict(DATA, seen.append)
    fitted = seen.index(1.0)
    assert (np.diff(seen[: fitted + 1]) >= 0).all()
    assert seen[-1] == 1.0
