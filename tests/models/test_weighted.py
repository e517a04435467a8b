"""Statements about sPDI with a β and a scale per base station. Oracles: adaptive quadrature, brute force (`exact_rates`), symmetry."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.spatial import cKDTree
from telcoloc.models.errors import InputError
from telcoloc.models.geolocation.engine import GeolocationJob, geolocate
from telcoloc.models.geolocation.reach import WeightedReach, WeightedSpdi, group_tiles
from telcoloc.models.geolocation.spdi import association_of_rates, association_probabilities
from telcoloc.models.grid import Grid

SIDE_M = 4000.0


def weights(n_bs, seed, beta_spread=0.8, scale_spread=0.5, share=1.0, slopes=1):
    rng = np.random.default_rng(seed)
    beta, beta_far = np.clip(3.5 + beta_spread * rng.normal(size=(2, n_bs)), 0.3, 6)
    one = WeightedSpdi(beta, 600 * np.exp(scale_spread * rng.normal(size=n_bs)), share)
    return one if slopes == 1 else replace(one, beta_far=beta_far, strength=scale_spread * rng.normal(size=n_bs))


def mixture(kind, n_bs, *spreads):
    if kind == "mixed":
        return weights(n_bs, 1, *spreads, share=0.7), weights(n_bs, 2, *spreads, share=0.3, slopes=2)
    return (weights(n_bs, 1, *spreads, slopes=1 if kind == "one slope" else 2),)


KINDS = ("one slope", "two slopes", "mixed")


def log_rates_of(one, distance_m):
    """The formula itself; distances [m] of shape (n_bs, n_points)."""
    with np.errstate(divide="ignore"):
        r = distance_m / one.scale_m[:, None]
        result = one.beta[:, None] * np.log(r)
    if one.beta_far is not None:
        result += (one.beta_far - one.beta)[:, None] / 4 * np.log(1 + r**4) - one.strength[:, None]
    return result


def job_of(n_bs=25, cells=30, kind="one slope", **settings):
    rng = np.random.default_rng(n_bs)
    return GeolocationJob(
        **{
            "sites_m": rng.uniform(0, SIDE_M, (n_bs, 2)),
            "grid": Grid(cells, cells, 0.0, SIDE_M, SIDE_M / cells),
            "components": mixture(kind, n_bs),
            "min_probability": 0.0,
            **settings,
        }
    )


def dense(result):
    return result.association.toarray().astype(float)


def expected_of(job, exact_rates):
    centres = job.grid.centres(np.arange(job.grid.size))
    distances = np.linalg.norm(centres[None] - job.sites_m[:, None], axis=2)
    return sum(one.share * exact_rates(log_rates_of(one, distances)) for one in job.components)


# The kernel


def test_any_rates_equal_adaptive_quadrature_of_equation_2():
    rng = np.random.default_rng(0)
    for _ in range(20):
        distance, beta, scale = rng.uniform(50, 3000, 5), rng.uniform(0.5, 6, 5), rng.uniform(200, 2000, 5)
        rate = (distance / scale) ** beta
        log_rate = beta * np.log(distance / scale)

        def integrand(s, i, rate=rate):
            x = np.minimum(rate * np.exp(s), 700)
            return x[i] * np.exp(-x[i]) * np.prod(np.delete(-np.expm1(-x), i))

        edges = np.unique(np.concatenate([[-45.0, 45.0], (-np.log(rate)).clip(-44, 44)]))
        expected = [
            sum(quad(integrand, low, high, args=(i,), epsabs=1e-11)[0] for low, high in zip(edges[:-1], edges[1:]))
            for i in range(5)
        ]
        found = association_of_rates(log_rate[:, None])[:, 0]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
        single = association_of_rates(log_rate[:, None].astype(np.float32))[:, 0]
        np.testing.assert_allclose(single, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("kind", ["numpy", "torch"])
def test_a_constant_per_cell_does_not_matter_and_infinities_take_out_or_all(exact_rates, kind):
    rng = np.random.default_rng(1)
    log_rate = rng.normal(size=(9, 40)) * 3
    torch = pytest.importorskip("torch") if kind == "torch" else None

    def shares(values):
        before = values.copy()
        found = association_of_rates(values if torch is None else torch.from_numpy(values))
        np.testing.assert_array_equal(values, before)
        return found if torch is None else found.numpy()

    expected = exact_rates(log_rate)
    np.testing.assert_allclose(shares(log_rate + rng.normal(size=40) * 50), expected, rtol=0, atol=1e-9)
    out = log_rate.copy()
    out[6:] = np.inf
    np.testing.assert_allclose(shares(out)[:6], exact_rates(log_rate[:6]), rtol=0, atol=1e-9)
    assert shares(out)[6:].max() < 1e-20
    out[1:] = np.inf
    np.testing.assert_allclose(shares(out)[0], 1, rtol=0, atol=1e-9)
    log_rate[3] = -np.inf
    np.testing.assert_allclose(shares(log_rate)[3], 1, rtol=0, atol=1e-9)
    assert (shares(log_rate[:1]) == 1).all()


def test_rates_that_are_powers_of_the_distance_are_plain_spdi():
    distances = np.random.default_rng(2).uniform(10, 9000, (30, 50))
    np.testing.assert_allclose(
        association_of_rates(3.0 * np.log(distances)), association_probabilities(distances**2, 3.0), rtol=0, atol=1e-9
    )


# The engine


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("n_bs", "cells"), [(2, 30), (6, 75), (25, 30), (150, 9)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_cell_equals_the_exact_shares_of_all_base_stations(exact_rates, n_bs, cells, kind, dtype):
    job = job_of(n_bs, cells, kind, dtype=dtype)
    np.testing.assert_allclose(
        dense(geolocate(job)), expected_of(job, exact_rates), rtol=0, atol=1e-6 if dtype == "float32" else 6e-8
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("min_probability", [0.0, 1e-5, 1e-3])
def test_cells_sum_to_one_and_lose_no_more_than_what_is_small(exact_rates, kind, min_probability):
    job = job_of(60, 40, kind, min_probability=min_probability)
    found = dense(geolocate(job))
    np.testing.assert_allclose(found.sum(axis=0), 1, rtol=0, atol=1e-6)
    error = np.abs(found - expected_of(job, exact_rates)).sum(axis=0)
    assert error.max() <= 2 * 60 * min_probability + 2e-5


@pytest.mark.parametrize("kind", KINDS)
def test_neighbours_are_each_cells_nearest_whatever_their_strength(exact_rates, kind):
    job = job_of(25, 20, kind, neighbours=5)
    distances = np.linalg.norm(job.grid.centres(np.arange(job.grid.size))[None] - job.sites_m[:, None], axis=2)
    near = np.where(distances <= np.partition(distances, 4, axis=0)[4], distances, 1e30)
    expected = sum(one.share * exact_rates(log_rates_of(one, near)) for one in job.components)
    np.testing.assert_allclose(dense(geolocate(job)), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("beta", [1.0, 4.0])
def test_equal_betas_and_scales_are_plain_spdi(beta):
    one = WeightedSpdi(np.full(40, beta), np.full(40, 321.0))
    job = job_of(40, 40, components=(one,))
    plain = dense(geolocate(replace(job, beta=beta, components=())))
    np.testing.assert_allclose(dense(geolocate(job)), plain, rtol=0, atol=1e-6)
    same_twice = (replace(one, share=0.6), replace(one, share=0.4))
    np.testing.assert_allclose(dense(geolocate(replace(job, components=same_twice))), plain, rtol=0, atol=1e-6)
    same_slopes = replace(one, beta_far=one.beta, strength=np.full(40, 7.0))
    np.testing.assert_allclose(dense(geolocate(replace(job, components=(same_slopes,)))), plain, rtol=0, atol=1e-6)


@pytest.mark.parametrize("kind", ["one slope", "two slopes"])
def test_false_eastings_and_far_away_macros_cost_no_precision(exact_rates, kind):
    job = job_of(25, 30, kind)
    (one,) = job.components
    with_macro = WeightedSpdi(np.append(one.beta, 6.0), np.append(one.scale_m, 150_000.0))
    if kind == "two slopes":
        with_macro = replace(with_macro, beta_far=np.append(one.beta_far, 3.0), strength=np.append(one.strength, 0.5))
    far = replace(
        job,
        sites_m=np.concatenate([job.sites_m, [[150_000.0, -90_000.0]]]) + np.array([691_000.0, 5_334_000.0]),
        grid=Grid(30, 30, 691_000.0, 5_334_000 + SIDE_M, SIDE_M / 30),
        components=(with_macro,),
    )
    found = dense(geolocate(far))
    np.testing.assert_allclose(found, expected_of(far, exact_rates), rtol=0, atol=1e-6)
    assert found[-1].max() > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_turning_mirroring_and_scaling_the_world_turns_mirrors_and_scales_the_maps(kind):
    job = job_of(25, 30, kind)
    maps = dense(geolocate(job)).reshape(25, 30, 30)
    x, y = job.sites_m.T
    quarter = dense(geolocate(replace(job, sites_m=np.column_stack([SIDE_M - y, x])))).reshape(maps.shape)
    np.testing.assert_allclose(quarter, np.rot90(maps, axes=(1, 2)), rtol=0, atol=1e-6)
    mirrored = dense(geolocate(replace(job, sites_m=np.column_stack([SIDE_M - x, y])))).reshape(maps.shape)
    np.testing.assert_allclose(mirrored, maps[:, :, ::-1], rtol=0, atol=1e-6)
    for factor in (0.01, 3.7):
        scaled = replace(
            job,
            sites_m=job.sites_m * factor,
            grid=Grid(30, 30, 0.0, SIDE_M * factor, SIDE_M * factor / 30),
            components=tuple(replace(one, scale_m=one.scale_m * factor) for one in job.components),
        )
        np.testing.assert_allclose(dense(geolocate(scaled)).reshape(maps.shape), maps, rtol=0, atol=1e-6)


@pytest.mark.parametrize("what", ["scale_m", "strength"])
def test_a_stronger_base_station_takes_more_of_every_cell(what):
    one = weights(25, 1, slopes=1 if what == "scale_m" else 2)
    fourth = np.arange(25) == 4
    other = {"scale_m": one.scale_m * np.where(fourth, 1.5, 1.0)}
    if what == "strength":
        other = {"strength": one.strength + fourth}
    before = dense(geolocate(job_of(25, 30, components=(one,))))
    after = dense(geolocate(job_of(25, 30, components=(replace(one, **other),))))
    assert (after[4] >= before[4] - 1e-6).all()
    assert after[4].sum() > 1.2 * before[4].sum()
    assert (np.delete(after - before, 4, axis=0) <= 1e-6).all()


# Which base stations matter


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("n_bs", [2, 20, 300])
@pytest.mark.parametrize(("beta_spread", "scale_spread"), [(0.0, 0.3), (0.7, 0.3), (1.5, 1.0)])
def test_what_a_tile_drops_is_negligible_everywhere_in_it(exact_rates, n_bs, kind, beta_spread, scale_spread):
    rng = np.random.default_rng(n_bs)
    xy = rng.uniform(0, 20_000, (n_bs, 2)) ** rng.uniform(0.9, 1, (n_bs, 1))
    components = mixture(kind, n_bs, beta_spread, scale_spread)
    reach = WeightedReach(cKDTree(xy), components)
    dropping = 0
    for radius in (1.0, 50.0, 700.0):
        centres = np.concatenate([rng.uniform(-5000, 25_000, (5, 2)), xy[rng.integers(0, n_bs, 4)]])
        for negligible in (1e-2, 2e-7):
            groups = group_tiles(reach, centres, radius, negligible)
            assert sorted(np.concatenate([group.tiles for group in groups])) == list(range(9))
            for group in groups:
                for tile, kept in zip(group.tiles, group.neighbours):
                    assert len(set(kept)) == len(kept)
                    if len(kept) == n_bs:
                        continue
                    dropping += 1
                    angle = rng.uniform(0, 2 * np.pi, 12)
                    away = radius * np.sqrt(rng.uniform(0, 1, 12))
                    away[:6] = radius
                    points = centres[tile] + np.column_stack([away * np.cos(angle), away * np.sin(angle)])
                    distances = np.linalg.norm(points[None] - xy[:, None], axis=2)
                    exact = sum(c.share * exact_rates(log_rates_of(c, distances)) for c in components)
                    dropped = np.setdiff1d(np.arange(n_bs), kept)
                    assert exact[dropped].sum(axis=0).max() <= negligible + 1e-12
    if n_bs >= 150 and scale_spread < 1:
        assert dropping > 10  # or nothing was tested


def test_one_base_station_that_reaches_far_is_seen_from_afar_and_costs_the_others_nothing():
    steps = np.arange(0, 20_000, 1000.0)
    xy = np.column_stack([axis.ravel() for axis in np.meshgrid(steps, steps)]) + np.random.default_rng(5).uniform(
        -200, 200, (400, 2)
    )
    one = WeightedSpdi(np.full(400, 4.0), np.full(400, 1000.0))
    with_macro = replace(one, scale_m=np.where(np.arange(400) == 0, 20_000.0, 1000.0))
    centres = xy[200:230] + 300
    alike = group_tiles(WeightedReach(cKDTree(xy), [one]), centres, 30.0, 1e-4)
    other = group_tiles(WeightedReach(cKDTree(xy), [with_macro]), centres, 30.0, 1e-4)
    assert all((group.neighbours == 0).any(axis=1).all() for group in other)
    assert max(g.neighbours.shape[1] for g in other) <= max(g.neighbours.shape[1] for g in alike)


# What cannot be computed is refused


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"beta": np.full(24, 4.0)}, r"BETA has the shape \(24,\), but there are 25 base stations\."),
        ({"beta_far": np.full(3, 4.0)}, r"The attenuation beyond the scale has the shape \(3,\), but .*\."),
        ({"beta": np.linspace(0, 4, 25)}, r"BETA is 0; it must be above 0 and at most 20 \(.*\)\."),
        ({"beta_far": np.full(25, np.nan)}, r"BETA is nan; it must be above 0 and at most 20 \(.*\)\."),
        ({"scale_m": np.ones(3)}, r"The scale has the shape \(3,\), but there are 25 base stations\."),
        ({"scale_m": np.full(25, -2.0)}, r"The scale of a base station is -2 m; it must be a positive length\."),
        ({"scale_m": np.full(25, np.inf)}, r"The scale of a base station is inf m; it must be a positive length\."),
        ({"strength": np.full(25, np.inf)}, r"The strength of a base station is not finite\."),
        ({"share": 0.5}, r"The shares of the mixed sPDIs must be positive and sum to 1, not to 0\.5\."),
    ],
)
def test_weights_that_make_no_sense_are_refused_in_one_sentence(settings, sentence):
    with pytest.raises(InputError, match=f"^{sentence}$"):
        job_of(components=(replace(weights(25, 2), **settings),))


def test_a_beta_per_base_station_needs_as_many():
    with pytest.raises(InputError, match=r"^BETA has the shape \(3,\), but there are 25 base stations\.$"):
        job_of(components=(), beta=np.array([1.0, 2.0, 3.0]))


@pytest.mark.parametrize("settings", [{"components": (weights(1, 1),)}, {"beta": np.array([3.0])}])
def test_one_base_station_alone_serves_the_world(settings):
    result = geolocate(job_of(1, 9, **{"components": (), **settings}))
    assert (dense(result) == 1).all()
