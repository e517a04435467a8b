"""Statements about DeepMEND-β and its training. Oracles: symmetry, quadrature, brute force (`exact_rates`), worlds that are sPDI."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse
from scipy.integrate import quad
from telcoloc.models.errors import Cancelled, InputError
from telcoloc.models.geolocation.deepmend_beta import (
    BETA_RANGE,
    FEATURES,
    KIND,
    MOST_SHIFT,
    OUTPUTS,
    DeepMendBeta,
    surroundings,
)
from telcoloc.models.geolocation.engine import GeolocationJob, geolocate
from telcoloc.models.geolocation.ks2 import ks2
from telcoloc.models.geolocation.reach import WeightedSpdi
from telcoloc.models.geolocation.sites import local_spacing_m
from telcoloc.models.geolocation.spdi import association_probabilities
from telcoloc.models.grid import Grid
from telcoloc.models.radio.layouts import LayoutSettings
from telcoloc.models.training import deepmend_beta as training
from telcoloc.models.training.deepmend_beta import BetaSettings, fit_deepmend_beta
from telcoloc.models.training.networks import simulated_network
from telcoloc.models.training.truth import TruthNetwork
from telcoloc.models.weights_file import Weights, write_weights


def random_weights(seed=0, hidden=8, n_out_scale=0.5):
    """A network that says something else of every BS."""
    rng = np.random.default_rng(seed)
    n_in, n_out = len(FEATURES), len(OUTPUTS)
    tensors = {
        "gamma": np.array(1.7),
        "mean": rng.normal(0, 0.2, n_in),
        "std": rng.uniform(0.3, 1, n_in),
        "layer_1.weight": rng.normal(0, 0.3, (hidden, n_in)),
        "layer_1.bias": rng.normal(0, 0.3, hidden),
        "layer_2.weight": rng.normal(0, 0.4, (hidden, hidden)),
        "layer_2.bias": rng.normal(0, 0.3, hidden),
        "layer_3.weight": rng.normal(0, n_out_scale, (n_out, hidden)),
        "layer_3.bias": np.array([-0.5, -0.2, 0.2, 0.0, 0.3, -0.3]),
    }
    return Weights(KIND, {name: np.asarray(value, np.float32) for name, value in tensors.items()})


def layout(n=60, seed=0):
    """Dense in the middle, metres."""
    rng = np.random.default_rng(seed)
    return rng.normal(0, 3000, (n, 2)) * rng.uniform(0.2, 1, (n, 1))


def weighted(found):
    return WeightedSpdi(found.beta, found.reach_m, beta_far=found.beta_far, strength=found.strength)


def turned(angle, mirror=False):
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return turn @ np.diag([-1.0, 1.0]) if mirror else turn


MOVES = {
    "translation": (np.eye(2), 1.0, np.array([691_000.0, 5_334_000.0])),
    "rotation": (turned(0.7), 1.0, np.zeros(2)),
    "mirroring": (turned(2.1, mirror=True), 1.0, np.zeros(2)),
    "growing": (np.eye(2), 3.7, np.zeros(2)),
    "shrinking": (np.eye(2), 0.01, np.zeros(2)),
    "all at once": (turned(-1.2, mirror=True), 2.3, np.array([-4e5, 6e6])),
}


# What it sees


@pytest.mark.parametrize("n", [2, 3, 7, 60])
@pytest.mark.parametrize("move", MOVES)
def test_the_features_do_not_change_when_the_layout_is_moved_turned_mirrored_or_scaled(move, n):
    matrix, factor, offset = MOVES[move]
    sites = layout(n)
    before, after = surroundings(sites), surroundings(factor * sites @ matrix.T + offset)
    assert before.features.shape == (n, len(FEATURES))
    np.testing.assert_allclose(after.features, before.features, rtol=0, atol=1e-6)
    np.testing.assert_allclose(after.spacing_m, factor * before.spacing_m, rtol=1e-9)
    np.testing.assert_allclose(after.towards, before.towards @ matrix.T, rtol=0, atol=1e-6)


def test_features_are_what_their_names_say_by_brute_force():
    sites = layout()
    seen = surroundings(sites)
    spacing = local_spacing_m(sites)
    for bs in (0, 17, 59):
        order = np.argsort(np.linalg.norm(sites - sites[bs], axis=1))[1:]
        distance = np.linalg.norm(sites[order] - sites[bs], axis=1)
        found = dict(zip(FEATURES, seen.features[bs]))
        for rank in (1, 6, 48):
            assert found[f"log_distance_{rank}"] == pytest.approx(np.log(distance[rank - 1] / spacing[bs]))
        for size in (6, 24):
            others = np.log(spacing[order[:size]]).mean()
            assert found[f"log_spacing_of_{size}"] == pytest.approx(others - np.log(spacing[bs]))
            centroid = sites[order[:size]].mean(axis=0) - sites[bs]
            assert found[f"centroid_{size}"] == pytest.approx(np.linalg.norm(centroid) / spacing[bs])
        moments = (sites[order[:6]] - sites[bs]).T @ (sites[order[:6]] - sites[bs])
        least, most = np.linalg.eigvalsh(moments)
        assert found["anisotropy_6"] == pytest.approx(1 - least / most)


def test_anisotropy_is_nothing_among_equals_and_all_on_a_line():
    angles = np.arange(6) * np.pi / 3
    hexagon = np.vstack([[0.0, 0.0], 1000 * np.column_stack([np.cos(angles), np.sin(angles)])])
    assert dict(zip(FEATURES, surroundings(hexagon).features[0]))["anisotropy_6"] == pytest.approx(0, abs=1e-9)
    assert dict(zip(FEATURES, surroundings(hexagon).features[0]))["centroid_6"] == pytest.approx(0, abs=1e-9)
    line = np.column_stack([np.arange(8) * 700.0, np.arange(8) * 400.0])
    np.testing.assert_allclose(surroundings(line).features[:, FEATURES.index("anisotropy_6")], 1)


# What it says


@pytest.mark.parametrize("n", [2, 3, 7, 60])
@pytest.mark.parametrize("move", MOVES)
def test_the_parameters_go_along_when_the_layout_is_moved_turned_mirrored_or_scaled(move, n):
    matrix, factor, offset = MOVES[move]
    model = DeepMendBeta(random_weights())
    sites = layout(n)
    before, after = model.predict(sites), model.predict(factor * sites @ matrix.T + offset)
    scale = factor * before.reach_m.max()
    np.testing.assert_allclose(after.sites_m, factor * before.sites_m @ matrix.T + offset, rtol=0, atol=1e-5 * scale)
    np.testing.assert_allclose(after.reach_m, factor * before.reach_m, rtol=1e-5)
    np.testing.assert_allclose(after.beta, before.beta, rtol=1e-5)
    np.testing.assert_allclose(after.beta_far, before.beta_far, rtol=1e-5)
    common = after.strength - before.strength  # a factor common to all rates does not matter
    np.testing.assert_allclose(common, -1.7 * np.log(factor), rtol=0, atol=1e-5)


@pytest.mark.parametrize("n", [2, 3, 7, 60])
def test_the_parameters_stay_within_their_limits_and_draw_maps(n):
    sites = layout(n)
    for found in (DeepMendBeta(random_weights(seed, n_out_scale=5.0)).predict(sites) for seed in range(3)):
        weighted(found).check(n)
        for beta in (found.beta, found.beta_far):
            assert ((beta >= BETA_RANGE[0]) & (beta <= BETA_RANGE[1])).all()
        farthest = MOST_SHIFT * np.linalg.norm(surroundings(sites).towards, axis=2).sum(axis=1) * local_spacing_m(sites)
        assert (np.linalg.norm(found.sites_m - sites, axis=1) <= farthest * (1 + 1e-9)).all()
    grid = Grid(20, 20, -5000.0, 5000.0, 500.0)
    maps = geolocate(GeolocationJob(found.sites_m, grid, components=(weighted(found),))).association
    np.testing.assert_allclose(np.asarray(maps.sum(axis=0)).ravel(), 1, rtol=0, atol=1e-5)


def test_base_stations_in_alike_surroundings_get_alike_parameters():
    sites = np.array([[0.0, 0.0], [1000.0, 0.0], [1000.0, 1000.0], [0.0, 1000.0]]) + 50.0
    found = DeepMendBeta(random_weights()).predict(sites)
    for values in (found.beta, found.beta_far, found.reach_m, found.strength):
        np.testing.assert_allclose(values, values[0], rtol=1e-6)
    away = np.linalg.norm(found.sites_m - 550, axis=1)
    np.testing.assert_allclose(away, away[0])


def test_engine_maps_equal_adaptive_quadrature_of_the_rates_of_the_docstring():
    """λ_j = s_j^γ e^(−g_j) r^β_j (1 + r^4)^((β'_j − β_j) / 4), the layers written as sums over units."""
    sites = layout(5, seed=4)
    weights = random_weights(3)
    found = DeepMendBeta(weights).predict(sites)
    grid = Grid(8, 8, -4000.0, 4000.0, 1000.0)
    job = GeolocationJob(found.sites_m, grid, components=(weighted(found),), min_probability=0.0, dtype="float64")
    shares = geolocate(job).association.toarray()
    assert np.ptp(found.beta) > 0.3  # or nothing was tested
    assert np.ptp(found.beta_far) > 0.3

    array = weights.tensors
    seen = surroundings(sites)
    strength = np.empty(5)
    for bs in range(5):
        units = [
            min(max((seen.features[bs, k] - array["mean"][k]) / array["std"][k], -4), 4) for k in range(len(FEATURES))
        ]
        for layer in ("layer_1", "layer_2"):
            matrix, bias = array[f"{layer}.weight"], array[f"{layer}.bias"]
            units = [
                np.tanh(sum(matrix[j, k] * unit for k, unit in enumerate(units)) + bias[j]) for j in range(len(bias))
            ]
        raw = [
            sum(array["layer_3.weight"][j, k] * unit for k, unit in enumerate(units)) + array["layer_3.bias"][j]
            for j in range(len(OUTPUTS))
        ]
        assert found.beta[bs] == pytest.approx(0.3 + 7.7 / (1 + np.exp(-raw[0])), rel=1e-5)
        assert found.beta_far[bs] == pytest.approx(0.3 + 7.7 / (1 + np.exp(-raw[1])), rel=1e-5)
        assert found.reach_m[bs] == pytest.approx(seen.spacing_m[bs] * np.exp(raw[2]), rel=1e-5)
        shift = np.tanh(raw[4]) / 2 * seen.towards[bs, 0] + np.tanh(raw[5]) / 2 * seen.towards[bs, 1]
        np.testing.assert_allclose(found.sites_m[bs], sites[bs] + shift * seen.spacing_m[bs], rtol=1e-5)
        strength[bs] = seen.spacing_m[bs] ** 1.7 * np.exp(-raw[3])

    for cell in (0, 11, 27, 36, 63):
        r = np.linalg.norm(grid.centres(np.array([cell])) - found.sites_m, axis=1) / found.reach_m
        rate = strength * r**found.beta * (1 + r**4) ** ((found.beta_far - found.beta) / 4)
        rate /= rate.min()

        def integrand(s, i, rate=rate):
            x = np.minimum(rate * np.exp(s), 700)
            return x[i] * np.exp(-x[i]) * np.prod(np.delete(-np.expm1(-x), i))

        edges = np.unique(np.concatenate([[-40.0, 6.0], (-np.log(rate)).clip(-39, 5)]))
        expected = [
            sum(quad(integrand, low, high, args=(i,), epsabs=1e-10)[0] for low, high in zip(edges[:-1], edges[1:]))
            for i in range(5)
        ]
        np.testing.assert_allclose(shares[:, cell], expected, rtol=0, atol=1e-5)


# Files


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"gamma": np.zeros(1)}, r"array 'gamma' is \(1,\), expected \(\)"),
        ({"mean": np.zeros(3)}, rf"array 'mean' is \(3,\), expected \({len(FEATURES)},\)"),
        ({"layer_2.weight": np.zeros((8, 9))}, r"array 'layer_2.weight' is \(8, 9\), expected \(8, 8\)"),
        ({"layer_3.bias": np.zeros(7)}, rf"array 'layer_3.bias' is \(7,\), expected \({len(OUTPUTS)},\)"),
        ({"layer_1.weight": None}, r"array 'layer_1.bias' is \(8,\), expected \(0,\)"),
        ({"std": None}, rf"array 'std' is missing, expected \({len(FEATURES)},\)"),
        ({"layer_4.weight": np.zeros(2)}, r"array 'layer_4.weight' is \(2,\), expected none"),
    ],
)
def test_weights_of_another_shape_are_refused_in_one_sentence(change, sentence):
    tensors = {name: one for name, one in {**random_weights().tensors, **change}.items() if one is not None}
    with pytest.raises(
        InputError, match=rf"^The weights file FILE does not fit this version of '{KIND}': {sentence}\.$"
    ):
        DeepMendBeta(Weights(KIND, tensors), "FILE")


def test_weights_of_another_method_are_refused(tmp_path):
    write_weights(tmp_path / "other", Weights("deepmend", {"a": np.zeros(2)}))
    with pytest.raises(InputError, match=r"holds weights for 'deepmend', but 'deepmend_beta' is asked for"):
        DeepMendBeta.load(tmp_path / "other")


def test_weights_that_were_written_are_loaded(tmp_path):
    write_weights(tmp_path / "some", random_weights())
    before, after = (
        DeepMendBeta(random_weights()).predict(layout()),
        DeepMendBeta.load(tmp_path / "some").predict(layout()),
    )
    np.testing.assert_array_equal(after.strength, before.strength)


# The integral that is learned through


@pytest.fixture(scope="module")
def torch():
    """With one thread, on which torch computes the same each time."""
    torch = pytest.importorskip("torch", reason="torch is not installed; DeepMEND-β cannot be trained")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch
    torch.set_num_threads(threads)


#: Fourteen nodes leave up to 0.003, which falls with their number's square: the midpoint rule where a nearest BS ends the integral.
@pytest.mark.parametrize(("nodes", "tolerance"), [(14, 3e-3), (24, 1e-3), (80, 3e-4)])
@pytest.mark.parametrize("n_bs", [2, 3, 17])
@pytest.mark.parametrize("spread", [0.5, 2.0, 8.0])
def test_the_integral_of_the_target_equals_spdi(torch, exact_rates, n_bs, spread, nodes, tolerance):
    log_rate = np.random.default_rng(0).normal(0, spread, (n_bs, 500))
    found = training._target_probability(torch.from_numpy(log_rate), nodes).numpy()
    expected = association_probabilities(np.exp(log_rate), 2.0)[0]  # β = 2 and squared distances that are the rates
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)
    np.testing.assert_allclose(found, exact_rates(log_rate)[0], rtol=0, atol=tolerance)
    single = training._target_probability(torch.from_numpy(log_rate.astype(np.float32)), nodes).numpy()
    np.testing.assert_allclose(single, found, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("nodes", "tolerance"), [(14, 5e-3), (24, 2e-3), (80, 1e-3)])
@pytest.mark.parametrize("spread", [0.5, 2.0, 8.0])
def test_the_gradient_equals_finite_differences_of_the_exact_integral(torch, exact_rates, spread, nodes, tolerance):
    log_rate = np.random.default_rng(1).normal(0, spread, (6, 300))
    rates = torch.from_numpy(log_rate).requires_grad_()
    training._target_probability(rates, nodes).sum().backward()
    for bs in range(6):
        step = 1e-4 * (np.arange(6) == bs)[:, None]
        expected = (exact_rates(log_rate + step)[0] - exact_rates(log_rate - step)[0]) / 2e-4
        np.testing.assert_allclose(rates.grad[bs].numpy(), expected, rtol=0, atol=tolerance)
    assert (rates.grad[0] <= 0).all()  # a BS that fades faster loses
    assert (rates.grad[1:] >= 0).all()


# Training draws the maps that inference draws

SMALL = LayoutSettings(
    side_m=12_000.0, core_spacing_m=(900.0, 1_000.0), core_radius_m=(2_500.0, 2_600.0), towns=(0, 0), roughness=0.3
)
QUICK = BetaSettings(epochs=3, batch=8, hidden=8, side=16, blocks_per_spacing=2.0, neighbours=8)


@pytest.fixture(scope="module")
def networks():
    return [simulated_network(seed, layout=SMALL) for seed in (1, 2)]


def drawn_in_training(torch, network, settings, weights):
    """The windows, and the KS2 of the targets' maps."""
    examples = training._examples(network, settings, np.random.default_rng(0))
    parameters = {name: torch.tensor(value) for name, value in weights.tensors.items()}
    with torch.no_grad():
        distance, _ = training._distances(examples, np.arange(len(network.targets)), parameters, settings, "cpu")
    return examples, distance.numpy()


def drawn_at_inference(examples, weights, exact_rates, softening):
    """The same from predicted parameters, all BSs and the exact integral."""
    found = DeepMendBeta(weights).predict(examples.sites_m)
    distances = []
    for number, bs in enumerate(examples.targets):
        points = examples.centres[number] + examples.sites_m[bs]
        squared = ((points[None] - found.sites_m[:, None]) ** 2).sum(axis=2)
        squared += (softening * examples.block_m[number]) ** 2
        log_rate = weighted(found).log_rate(np.log(squared) / 2, np.arange(len(found.beta))[:, None])
        map_ = exact_rates(log_rate)[bs].reshape(examples.truth[number].shape) * examples.valid[number]
        distances.append(ks2(examples.truth[number], map_ / map_.sum()))
    return np.array(distances)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_loss_is_the_ks2_of_the_maps_that_inference_draws(torch, networks, exact_rates, seed):
    weights = random_weights(seed)
    settings = BetaSettings(side=20, blocks_per_spacing=3.0, neighbours=100, nodes=60)
    network = replace(networks[0], targets=networks[0].targets[::3])
    examples, found = drawn_in_training(torch, network, settings, weights)
    exact = drawn_at_inference(examples, weights, exact_rates, softening=0.3)
    np.testing.assert_allclose(found, exact, rtol=0, atol=5e-4)
    # What training leaves out, blocks' means, distant BSs and fine nodes, changes little.
    _, rough = drawn_in_training(torch, network, replace(settings, neighbours=16, nodes=14), weights)
    np.testing.assert_allclose(rough, drawn_at_inference(examples, weights, exact_rates, 0.0), rtol=0, atol=0.03)


def test_training_begins_with_the_same_for_all_and_plain_spdi_is_a_special_case(torch, networks):
    weights, history = fit_deepmend_beta(networks, settings=replace(QUICK, epochs=0))
    assert history.train_loss == history.validation_ks2 == []
    sites = layout(20)
    found = DeepMendBeta(weights).predict(sites)
    np.testing.assert_allclose(found.sites_m, sites)
    for values in (found.beta, found.beta_far, found.reach_m / local_spacing_m(sites)):
        np.testing.assert_allclose(values, values[0], rtol=1e-6)
    one_beta = np.zeros_like(weights.tensors["layer_3.bias"])
    one_beta[:2] = -np.log(7.7 / (1.5 - 0.3) - 1)
    found = DeepMendBeta(
        replace(weights, tensors={**weights.tensors, "layer_3.bias": one_beta, "gamma": np.array(1.5, np.float32)})
    ).predict(sites)
    np.testing.assert_allclose(found.beta, 1.5, rtol=1e-6)
    job = GeolocationJob(sites, Grid(10, 10, -5000.0, 5000.0, 1000.0), beta=1.5, min_probability=0.0)
    plain = geolocate(job).association.toarray()
    np.testing.assert_allclose(
        geolocate(replace(job, components=(weighted(found),))).association.toarray(), plain, rtol=0, atol=2e-6
    )


# It learns


def loss_of(networks, weights=None):
    """The loss without learning."""
    still = replace(QUICK, epochs=1, learning_rate=1e-12)
    return fit_deepmend_beta(networks, settings=still, start=weights)[1].train_loss[0]


def test_the_loss_falls_below_that_of_the_start_and_start_goes_on_from_there(torch, networks):
    settings = replace(QUICK, epochs=6)
    weights, history = fit_deepmend_beta(networks, settings=settings)
    before, after = loss_of(networks), loss_of(networks, weights)
    assert len(history.train_loss) == 6
    assert after < 0.95 * before
    assert after <= history.train_loss[-1] + 0.01
    again, more = fit_deepmend_beta(networks, settings=settings, start=weights)
    assert more.train_loss[0] < history.train_loss[0]
    assert loss_of(networks, again) < after


@pytest.mark.parametrize("beta", [2.5, 4.0])
def test_in_a_world_that_is_spdi_it_learns_its_beta(torch, beta):
    sites = layout(14, seed=2)
    grid = Grid(60, 60, -6000.0, 6000.0, 200.0)
    squared = ((grid.centres(np.arange(grid.size))[None] - sites[:, None]) ** 2).sum(axis=2)
    maps = association_probabilities(squared, beta)
    maps = sparse.csr_matrix((maps / maps.sum(axis=1, keepdims=True)).astype(np.float32))
    world = TruthNetwork("sPDI", sites, grid, maps, np.arange(14))
    settings = replace(QUICK, epochs=60, learning_rate=2e-2, side=24, blocks_per_spacing=4.0)
    weights, history = fit_deepmend_beta([world], [world], settings)
    assert min(history.validation_ks2) < 0.02 < 0.1 < history.validation_ks2[0]
    found = DeepMendBeta(weights).predict(sites)
    assert np.median(found.beta) == pytest.approx(beta, abs=0.8)
    assert np.median(found.beta_far) == pytest.approx(beta, abs=0.8)


def test_the_epoch_that_is_best_on_validation_is_kept(torch, networks):
    settings = replace(QUICK, epochs=5, learning_rate=0.3)  # too much, so that epochs get worse
    weights, history = fit_deepmend_beta(networks[:1], networks[1:], settings)
    assert min(history.validation_ks2) < history.validation_ks2[-1]  # or nothing was tested
    still = replace(settings, epochs=1, learning_rate=1e-12)
    _, kept = fit_deepmend_beta(networks[:1], networks[1:], still, start=weights)
    assert kept.validation_ks2[0] == pytest.approx(min(history.validation_ks2), abs=1e-5)


# The same each time


def test_equal_seeds_write_equal_bytes_and_others_do_not(torch, networks, tmp_path):
    """On one thread; see `torch`. On several, torch adds up gradients in any order, and the last digits differ."""

    def written(seed):
        weights, _ = fit_deepmend_beta(networks, settings=replace(QUICK, seed=seed))
        write_weights(tmp_path / "some", weights)
        return (tmp_path / "some").read_bytes()

    first = written(0)
    assert written(0) == first
    assert written(1) != first


def test_on_several_threads_the_weights_are_the_same_but_for_the_last_digits(torch, networks):
    settings = BetaSettings(epochs=1, side=32, blocks_per_spacing=3.0, hidden=8)
    one, _ = fit_deepmend_beta(networks[:1], settings=settings)
    torch.set_num_threads(2)
    try:
        two, _ = fit_deepmend_beta(networks[:1], settings=settings)
    finally:
        torch.set_num_threads(1)
    for name, array in one.tensors.items():
        np.testing.assert_allclose(two.tensors[name], array, rtol=0, atol=1e-3, err_msg=name)


def test_torchs_own_random_numbers_are_left_alone(torch, networks):
    state = torch.get_rng_state()
    fit_deepmend_beta(networks[:1], settings=replace(QUICK, epochs=1))
    assert torch.equal(torch.get_rng_state(), state)


def test_progress_rises_to_one_and_cancels_at_the_next_batch(torch, networks):
    seen = []
    fit_deepmend_beta(networks, settings=QUICK, progress=seen.append)
    assert seen == sorted(seen)
    assert seen[0] == 0
    assert seen[-1] == 1
    assert np.diff(seen).max() < 0.15
    for at in (0.0, 0.05, 0.5):
        calls = []

        def cancel(fraction, at=at, calls=calls):
            calls.append(fraction)
            if fraction >= at:
                raise Cancelled

        with pytest.raises(Cancelled):
            fit_deepmend_beta(networks, settings=QUICK, progress=cancel)
        assert all(fraction < at for fraction in calls[:-1])
