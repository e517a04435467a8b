"""Statements about sPDI. Oracles: the paper's adaptive integration and equation (3), and brute force (`exact`, see conftest)."""

import math

import numpy as np
import pytest
from telcoloc.models.geolocation import spdi
from telcoloc.models.geolocation.spdi import GROUP_WIDTH, association_probabilities, target_probabilities
from telcoloc.models.geolocation.spdi_reference import adaptive_integration, inclusion_exclusion

BETAS = (0.1, 0.5, 1.0, 2.0, 4.0, 6.0)
#: What the module promises. Measured over this sweep: 3.1e-7 and 2.6e-11.
PROMISE = {"float32": 1e-6, "float64": 1e-9}


def layout(kind, n_bs, rng, n_cells=60):
    """Distances [m] of `n_cells` cells to `n_bs` BSs, spacings between 1 m and 50 km."""
    spacing = 10 ** rng.uniform(0, math.log10(50_000), (1, n_cells))
    distances = spacing * np.sqrt(rng.uniform(1e-4, 1, (n_bs, n_cells)) * n_bs)
    if kind == "all scales at once":
        distances = 10 ** rng.uniform(0, math.log10(50_000), (n_bs, n_cells))
    elif kind == "very near one":
        distances[0] = 10 ** rng.uniform(-3, 0, n_cells)
    elif kind == "exactly on one":
        distances[0] = 0
    elif kind == "two 1 m apart, the others 50 km away":
        distances = 50_000 * (1 + rng.uniform(0, 0.5, (n_bs, n_cells)))
        distances[0] = rng.uniform(0, 1, n_cells)
        distances[1] = 1 - distances[0]
    elif kind == "on one of two 1 m apart, the others 50 km away":
        distances = 50_000 * (1 + rng.uniform(0, 0.5, (n_bs, n_cells)))
        distances[:2] = [[0], [1]]
    elif kind == "all alike":
        distances = spacing * (1 + rng.uniform(0, 1e-3, (n_bs, n_cells)))
    return distances


KINDS = (
    "random",
    "all scales at once",
    "very near one",
    "exactly on one",
    "two 1 m apart, the others 50 km away",
    "on one of two 1 m apart, the others 50 km away",
    "all alike",
)


def torch_or_skip(cuda=False):
    torch = pytest.importorskip("torch", reason="torch is not installed; the GPU kernel cannot be compared")
    if cuda and not torch.cuda.is_available():
        pytest.skip("no CUDA device here; run this test on a machine with an NVIDIA GPU")
    return torch


def test_the_brute_force_oracle_equals_adaptive_integration(exact):
    rng = np.random.default_rng(0)
    for beta in BETAS:
        for kind in KINDS:
            distances = layout(kind, int(rng.integers(2, 12)), rng, n_cells=1)
            expected = adaptive_integration(distances[:, 0], beta)
            np.testing.assert_allclose(exact(distances, beta)[:, 0], expected, rtol=0, atol=1e-12)


def test_the_brute_force_oracle_equals_equation_3(exact):
    rng = np.random.default_rng(1)
    for beta in BETAS:
        distances = layout("all scales at once", 8, rng)
        np.testing.assert_allclose(exact(distances, beta), inclusion_exclusion(distances, beta), rtol=0, atol=1e-12)


@pytest.mark.parametrize("n_bs", [2, 17, 60])
@pytest.mark.parametrize("beta", [0.1, 1.5, 4.0, 6.0])
def test_equals_adaptive_integration(n_bs, beta):
    rng = np.random.default_rng(n_bs)
    for kind in ("random", "very near one", "two 1 m apart, the others 50 km away"):
        distances = layout(kind, n_bs, rng, n_cells=1)
        expected = adaptive_integration(distances[:, 0], beta, 1e-10)
        for dtype, promise in PROMISE.items():
            found = association_probabilities((distances**2).astype(dtype), beta)
            assert found.dtype == dtype
            np.testing.assert_allclose(found[:, 0], expected, rtol=0, atol=promise)


@pytest.mark.parametrize("beta", BETAS)
@pytest.mark.parametrize("kind", KINDS)
def test_keeps_its_promise_in_every_layout(exact, kind, beta):
    rng = np.random.default_rng(2)
    for n_bs in (2, 3, 4, 7, 13, 30, 60):
        distances = layout(kind, n_bs, rng, n_cells=30)
        expected = exact(distances, beta)
        for dtype, promise in PROMISE.items():
            found = association_probabilities((distances**2).astype(dtype), beta)
            np.testing.assert_allclose(found, expected, rtol=0, atol=promise, err_msg=f"{n_bs} base stations, {dtype}")
            assert found.min() >= 0
            np.testing.assert_allclose(
                found.sum(axis=0, dtype=float), 1, rtol=0, atol=1e-6 if dtype == "float32" else 1e-12
            )


@pytest.mark.parametrize("kind", KINDS)
def test_a_thousand_base_stations_cost_no_digit_in_double_precision(exact, kind):
    rng = np.random.default_rng(3)
    for beta in (0.2, 0.5, 2.0):
        distances = layout(kind, 1000, rng, n_cells=8)
        expected = exact(distances, beta)
        np.testing.assert_allclose(association_probabilities(distances**2, beta), expected, rtol=0, atol=1e-9)
        single = association_probabilities((distances**2).astype(np.float32), beta)
        np.testing.assert_allclose(single, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("beta", BETAS)
def test_equals_equation_3_for_few_base_stations(beta):
    rng = np.random.default_rng(4)
    for n_bs in range(2, 9):
        distances = layout("all scales at once", n_bs, rng)
        found = association_probabilities(distances**2, beta)
        np.testing.assert_allclose(found, inclusion_exclusion(distances, beta), rtol=0, atol=1e-9)


def test_two_base_stations_have_a_closed_form():
    distances = np.array([[1.0, 10.0, 300.0], [2.0, 10.0, 100.0]])
    for beta in BETAS:
        power = distances**beta
        expected = power[::-1] / power.sum(axis=0)
        np.testing.assert_allclose(association_probabilities(distances**2, beta), expected, rtol=0, atol=1e-10)


def test_one_base_station_serves_everything():
    for dtype in PROMISE:
        assert (association_probabilities(np.array([[0.0, 1.0, 1e12]], dtype), 4.0) == 1).all()


def test_infinity_takes_a_base_station_out_of_a_cell(exact):
    rng = np.random.default_rng(5)
    for beta in BETAS:
        distances = layout("random", 60, rng)
        left = rng.permuted(np.arange(60) < 5)
        few = np.where(left[:, None], distances, np.inf)
        found = association_probabilities(few**2, beta)
        np.testing.assert_allclose(found[left], exact(distances[left], beta), rtol=0, atol=1e-9)
        assert found[~left].max() < 1e-20


@pytest.mark.parametrize("dtype", PROMISE)
def test_the_order_of_the_base_stations_does_not_matter(dtype):
    rng = np.random.default_rng(6)
    squared = (layout("random", 25, rng) ** 2).astype(dtype)
    order = rng.permutation(25)
    straight = association_probabilities(squared, 4.0)
    np.testing.assert_allclose(
        association_probabilities(squared[order], 4.0), straight[order], rtol=0, atol=PROMISE[dtype]
    )


@pytest.mark.parametrize("dtype", PROMISE)
@pytest.mark.parametrize("factor", [1e-6, 0.3048, 1e-3 / 7, 1e6])
def test_the_unit_of_distance_does_not_matter(dtype, factor):
    distances = layout("random", 25, np.random.default_rng(7))
    metres = association_probabilities((distances**2).astype(dtype), 4.0)
    others = association_probabilities(((distances * factor) ** 2).astype(dtype), 4.0)
    np.testing.assert_allclose(others, metres, rtol=0, atol=PROMISE[dtype])


def test_a_large_beta_is_voronoi_and_a_tiny_one_is_equal_shares():
    rng = np.random.default_rng(8)
    distances = rng.permuted(np.linspace(1, 2, 9)[:, None].repeat(40, axis=1), axis=0)
    hard = association_probabilities(distances**2, 200.0)
    np.testing.assert_allclose(hard, distances == distances.min(axis=0), rtol=0, atol=1e-9)
    soft = association_probabilities(distances**2, 1e-6)
    np.testing.assert_allclose(soft, 1 / 9, rtol=0, atol=1e-6)
    nearest = [association_probabilities(distances**2, beta).max(axis=0).mean() for beta in (0.5, 1, 2, 4, 8)]
    assert nearest == sorted(nearest)  # the nearest one's share grows with beta


def test_a_base_station_on_the_cell_centre_takes_the_cell():
    distances = layout("on one of two 1 m apart, the others 50 km away", 9, np.random.default_rng(9))
    for beta in BETAS:
        for dtype in PROMISE:
            assert (association_probabilities((distances**2).astype(dtype), beta)[0] == 1).all()


def test_leaves_its_argument_as_it_was():
    squared = layout("random", 9, np.random.default_rng(10)) ** 2
    before = squared.copy()
    association_probabilities(squared, 4.0)
    np.testing.assert_array_equal(squared, before)
    torch = torch_or_skip()
    association_probabilities(torch.from_numpy(squared), 4.0)
    np.testing.assert_array_equal(squared, before)


@pytest.mark.parametrize("dtype", PROMISE)
@pytest.mark.parametrize("kind", KINDS)
def test_the_torch_kernel_keeps_the_promise_too(exact, kind, dtype):
    torch = torch_or_skip()
    rng = np.random.default_rng(11)
    for beta in (0.1, 2.0, 6.0):
        for n_bs in (1, 2, 9, 60):
            distances = layout(kind, max(n_bs, 2), rng, n_cells=25)[:n_bs]
            squared = (distances**2).astype(dtype)
            found = association_probabilities(torch.from_numpy(squared), beta)
            assert found.dtype == getattr(torch, dtype)
            np.testing.assert_allclose(found.numpy(), exact(distances, beta), rtol=0, atol=PROMISE[dtype])
            plain = association_probabilities(squared, beta)
            np.testing.assert_allclose(found.numpy(), plain, rtol=0, atol=PROMISE[dtype])


@pytest.mark.parametrize("dtype", PROMISE)
@pytest.mark.parametrize("kind", KINDS)
def test_cuda_equals_the_cpu(kind, dtype):
    torch = torch_or_skip(cuda=True)
    for n_bs in (1, 2, 9, 60):
        squared = torch.from_numpy((layout(kind, max(n_bs, 2), np.random.default_rng(12))[:n_bs] ** 2).astype(dtype))
        found = association_probabilities(squared.cuda(), 4.0)
        assert found.is_cuda
        expected = association_probabilities(squared, 4.0)
        np.testing.assert_allclose(found.cpu().numpy(), expected.numpy(), rtol=0, atol=PROMISE[dtype])


@pytest.mark.parametrize("n_bs", [20, 100, 700])
@pytest.mark.parametrize("beta", [0.1, 0.4, 1.0, 2.0, 4.0])
def test_a_crowd_taken_together_changes_no_target(exact, n_bs, beta):
    rng = np.random.default_rng(n_bs)
    xy = rng.normal(size=(n_bs, 2)) * np.exp(rng.normal(size=(n_bs, 1))) * 5000
    for centre in (xy[3] + 200, np.array([15_000.0, -9000.0])):
        away = np.linalg.norm(xy - centre, axis=1)
        order = np.argsort(away)
        points = centre + rng.uniform(-0.05, 0.05, (60, 2)) * away[order[2]]
        distances = np.linalg.norm(points[None] - xy[order][:, None], axis=2)
        groups = [12]
        log_rate = beta * np.log(away[order])
        for row in range(12, n_bs):
            if log_rate[row] > log_rate[groups[-1]] + GROUP_WIDTH:
                groups.append(row)
        targets = np.vstack([rng.integers(0, n_bs, (5, 60)), np.zeros((1, 60), int), np.full((1, 60), -1)])
        found = target_probabilities((distances**2).astype(np.float32), beta, np.array(groups), targets)
        expected = np.take_along_axis(exact(distances, beta), targets, axis=0)
        np.testing.assert_allclose(found[:-1], expected[:-1], rtol=0, atol=1e-5)
        assert (found[-1] == 0).all()


def test_the_number_of_nodes_does_not_change_below_64_base_stations():
    assert spdi._nodes("float32", 2) == spdi._nodes("float32", 64) < spdi._nodes("float32", 65)
