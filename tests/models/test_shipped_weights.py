"""The weights that ship: small, with a card that says how to make them again, and better than what needs no learning."""

from __future__ import annotations

import numpy as np
import pytest
from telcoloc.models.geolocation.engine import GeolocationJob
from telcoloc.models.radio.layouts import LayoutSettings
from telcoloc.models.training.evaluate import ks2_of, targets_of
from telcoloc.models.training.make import FIRST_HELD_OUT, KINDS
from telcoloc.models.training.networks import simulated_network
from telcoloc.models.weights_file import SHIPPED, read_weights, shipped

FILES = sorted(SHIPPED.glob("*.safetensors"))


def test_the_methods_that_need_no_torch_have_weights():
    assert {"deepmend_beta", "voronoiboost", "deepmend", "direct"} <= {path.stem for path in FILES}


def test_they_are_small_together():
    assert sum(path.stat().st_size for path in FILES) < 5_000_000


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_the_card_says_where_they_come_from(path):
    weights = read_weights(path, path.stem)
    assert path.stem in KINDS
    assert weights.card["command"].startswith(f"python -m telcoloc.models.training.make {path.stem}")
    assert {"data", "seed", "hardware", "minutes", "held_out", "licence"} <= set(weights.card)
    assert {"all", "urban", "suburban", "rural"} <= set(weights.card["median_ks2_held_out"])


def test_networks_to_judge_by_are_not_those_learned_from():
    for path in FILES:
        data = read_weights(path).card["data"]
        assert int(data.split("seeds 0 to ")[1].split(",")[0]) < FIRST_HELD_OUT


@pytest.fixture(scope="module")
def unseen():
    layout = LayoutSettings(side_m=16_000.0, towns=(1, 2))
    return targets_of(simulated_network(FIRST_HELD_OUT + 77, layout=layout), 40)


@pytest.mark.parametrize(("method", "share"), [("voronoiboost", 0.95), ("deepmend_beta", 0.75)])
def test_they_beat_voronoi_on_a_network_nobody_has_seen(unseen, method, share):
    job = GeolocationJob(unseen.sites_m, unseen.grid, method=method, min_probability=1e-3)
    learned = ks2_of(unseen, job)
    plain = ks2_of(unseen, GeolocationJob(unseen.sites_m, unseen.grid, method="voronoi"))
    assert np.median(learned) < share * np.median(plain)


@pytest.mark.parametrize("method", ["deepmend", "direct"])
def test_students_beat_voronoi_too(unseen, method):
    pytest.importorskip("torch")
    learned = ks2_of(unseen, GeolocationJob(unseen.sites_m, unseen.grid, method=method))
    plain = ks2_of(unseen, GeolocationJob(unseen.sites_m, unseen.grid, method="voronoi"))
    assert np.median(learned) < 0.9 * np.median(plain)


def test_turning_scaling_and_moving_a_layout_does_so_to_the_maps(unseen):
    from telcoloc.models.geolocation.deepmend_beta import DeepMendBeta

    model = DeepMendBeta.load(shipped("deepmend_beta"))
    turn = np.array([[0.6, -0.8], [0.8, 0.6]])
    one, two = model.predict(unseen.sites_m), model.predict(3 * unseen.sites_m @ turn.T + 500)
    np.testing.assert_allclose(two.beta, one.beta, rtol=1e-6)
    np.testing.assert_allclose(two.reach_m, 3 * one.reach_m, rtol=1e-6)
    np.testing.assert_allclose(two.sites_m, 3 * one.sites_m @ turn.T + 500, rtol=1e-6, atol=1e-3)
