"""Statements about `train`: what is judged is never learned from, nor amid it; the card tells all; cancel stops it."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse
from telcoloc.models.errors import Cancelled, InputError
from telcoloc.models.geolocation.spdi import association_probabilities
from telcoloc.models.grid import Grid
from telcoloc.models.training import train as module
from telcoloc.models.training.networks import EDGE_SPACINGS
from telcoloc.models.training.train import FEWEST, TrainSettings, split, train
from telcoloc.models.training.truth import TruthNetwork
from telcoloc.models.weights_file import Weights, read_weights, write_weights


def network(seed=0, side=5, margin_m=5_000.0):
    """BSs on a jittered lattice of 1 km, whose truth is sPDI with β = 2.5."""
    rng = np.random.default_rng(seed)
    xy_m = np.stack(np.meshgrid(np.arange(side), np.arange(side)), -1).reshape(-1, 2) * 1000.0
    xy_m += rng.uniform(-300, 300, xy_m.shape)
    wide = 1000 * (side - 1) + 2 * margin_m
    grid = Grid(round(wide / 200), round(wide / 200), -margin_m, wide - margin_m, 200.0)
    x_m, y_m = grid.centres(np.arange(grid.size)).T
    squared = (xy_m[:, :1] - x_m) ** 2 + (xy_m[:, 1:] - y_m) ** 2
    maps = association_probabilities(squared.astype(np.float32), 2.5)
    maps = sparse.csr_matrix((maps / maps.sum(axis=1, keepdims=True)).astype(np.float32))
    return TruthNetwork(f"lattice {seed}", xy_m, grid, maps, np.arange(len(xy_m)))


@pytest.fixture(scope="module")
def one():
    return network()


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason="torch is not installed; nothing can be trained")


# The split


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("share", [0.1, 0.2, 0.5])
def test_a_line_parts_what_is_judged_from_what_is_learned(one, share, seed):
    found = split([one], share, seed)
    assert found.judged == round(share * 25)
    assert sorted([*found.learn[0].targets, *found.judge[0].targets]) == list(range(25))
    bearing = math.radians(float(re.search(r"towards (\d+)°", found.how).group(1)))
    for turn in np.radians(np.linspace(-0.5, 0.5, 11)):  # the text rounds it
        along = one.sites_m @ [math.sin(bearing + turn), math.cos(bearing + turn)]
        if along[found.learn[0].targets].max() < along[found.judge[0].targets].min():
            break
    else:
        pytest.fail("no line parts them")


def test_lines_lie_in_all_directions(one):
    held_out = {tuple(split([one], 0.2, seed).judge[0].targets) for seed in range(8)}
    assert len(held_out) > 4


@pytest.mark.parametrize(("n", "share", "held_out"), [(2, 0.2, 1), (5, 0.2, 1), (5, 0.4, 2), (2, 0.5, 1)])
def test_of_several_networks_whole_ones_are_held_out(n, share, held_out):
    networks = [network(seed) for seed in range(n)]
    found = split(networks, share, 0)
    names = [[each.name for each in part] for part in (found.learn, found.judge)]
    assert len(names[1]) == held_out
    assert sorted(names[0] + names[1]) == [each.name for each in networks]
    assert all(f"'{name}'" in found.how for name in names[1])
    assert all(len(each.targets) == 25 for each in (*found.learn, *found.judge))


def test_nothing_is_held_out_where_nothing_is_asked_for(one):
    found = split([one], 0, 0)
    assert (found.learned, found.judged, found.judge) == (25, 0, ())


def test_what_stands_near_the_edge_of_its_truth_is_left_out():
    cut = network(side=8, margin_m=1_500.0)
    found = split([cut], 0.1, 0)
    x_min, y_min, x_max, y_max = cut.grid.bounds
    kept = np.sort(np.concatenate([found.learn[0].targets, found.judge[0].targets]))
    x, y = cut.sites_m.T
    to_edge = np.min([x - x_min, x_max - x, y - y_min, y_max - y], axis=0)
    np.testing.assert_array_equal(kept, np.flatnonzero(to_edge > EDGE_SPACINGS * cut.spacing_m))
    assert 0 < len(kept) == 64 - found.near_edge < 64


def test_too_few_to_learn_from(one):
    few = replace(one, targets=np.arange(FEWEST))
    assert split([few], 0, 0).learned == FEWEST
    with pytest.raises(
        InputError, match=r"Only 8 base stations are left to learn from, after 0 near .* and 2 to judge by .*"
    ):
        split([few], 0.2, 0)


# Settings


def test_settings_that_make_no_sense():
    with pytest.raises(InputError, match="Unknown method 'spdi' to train"):
        TrainSettings(method="spdi")
    with pytest.raises(InputError, match=r"VALIDATION_SHARE is 0\.7"):
        TrainSettings(validation_share=0.7)
    for method, window in (("deepmend_beta", "adaptive"), ("deepmend", "fixed")):
        with pytest.raises(InputError, match=f"are for 'deepmend', but '{method}.*' is to be trained"):
            TrainSettings(method=method, window=window, start=Weights("deepmend", {}))


def test_going_on_from_weights_takes_smaller_steps():
    _, first, _ = TrainSettings(method="direct").resolved
    _, second, _ = TrainSettings(method="direct", start=Weights("direct", {})).resolved
    assert 0 < second < first
    assert TrainSettings(epochs=3, learning_rate=0.1, batch=7).resolved == (3, 0.1, 7)


# Training


@pytest.fixture(scope="module")
def trained(torch, one):
    return train([one], TrainSettings(epochs=3, data="a lattice"))


def test_it_learns(trained):
    losses = [row["train_loss"] for row in trained.history]
    assert losses[-1] < losses[0]
    assert trained.ks2["all"] < 0.2  # the truth is sPDI, and so are the maps
    scores = [row["validation_ks2"] for row in trained.history]
    assert trained.kept == int(np.argmin(scores))


def test_the_card_tells_where_the_weights_come_from(trained, tmp_path):
    path = tmp_path / "w.safetensors"
    write_weights(path, trained.weights)
    card = read_weights(path, "deepmend_beta").card
    assert json.loads(json.dumps(trained.weights.card)) == card
    assert card["data"] == "a lattice"
    assert card["networks"] == ["lattice 0"]
    assert card["base_stations"] == {"urban": 0, "suburban": 20, "rural": 0}
    assert card["validation_base_stations"] == 5
    assert card["validation_median_ks2"] == trained.ks2
    assert (card["epochs"], card["seed"], card["started_from"]) == (3, 0, "scratch")
    assert card["hardware"].startswith("CPU")


def test_the_same_seed_makes_the_same_file(one, trained, tmp_path):
    paths = [tmp_path / name for name in ("a", "b", "c")]
    again = train([one], TrainSettings(epochs=3, data="a lattice"))
    other = train([one], TrainSettings(epochs=3, data="a lattice", seed=1))
    for path, weights in zip(paths, (trained.weights, again.weights, other.weights)):
        write_weights(path, weights)
    assert paths[0].read_bytes() == paths[1].read_bytes()
    assert paths[0].read_bytes() != paths[2].read_bytes()


def test_without_anything_to_judge_by_the_last_epoch_is_kept(torch, one):
    found = train([one], TrainSettings(epochs=2, validation_share=0))
    assert found.ks2 == {}
    assert found.kept == 1
    assert all("validation_ks2" not in row for row in found.history)


@pytest.mark.parametrize("method", ["deepmend", "direct"])
def test_only_deepmend_has_a_teacher_who_sees_only_what_is_learned(torch, one, monkeypatch, method):
    seen = []

    def labels(of, **options):
        options["progress"](1.0)
        seen.append(of)
        return of.maps

    monkeypatch.setattr(module, "soft_labels", labels)
    found = train([one], TrainSettings(method=method, epochs=1))
    assert found.weights.kind == method
    assert found.weights.card["window"]["kind"] == "adaptive"
    assert seen == (list(found.split.learn) if method == "deepmend" else [])
    assert 0 < found.ks2["all"] < 1


@pytest.mark.parametrize("method", ["deepmend_beta", "deepmend"])
def test_progress_rises_to_one_and_can_stop_the_work(torch, one, method):
    said = []
    train([one], TrainSettings(method=method, epochs=1), said.append)
    assert said == sorted(said)
    assert said[0] >= 0
    assert said[-1] == 1

    def stop(fraction):
        if fraction > 0.5:
            raise Cancelled("enough")

    with pytest.raises(Cancelled):
        train([one], TrainSettings(method=method, epochs=1), stop)
