"""Statements about maps from one world per β. Oracle: the single-β engine, one β at a time."""

from dataclasses import replace

import numpy as np
import pytest
from telcoloc.models.errors import MemoryBudgetError
from telcoloc.models.geolocation.engine import GeolocationJob, geolocate
from telcoloc.models.grid import Grid

SIDE_M = 4000.0


def job_of(n_bs=40, cells=40, betas=(0.3, 1.0, 2.5, 4.0, 5.9), **settings):
    rng = np.random.default_rng(n_bs)
    return GeolocationJob(
        **{
            "sites_m": rng.uniform(0, SIDE_M, (n_bs, 2)),
            "grid": Grid(cells, cells, 0.0, SIDE_M, SIDE_M / cells),
            "beta": rng.choice(betas, n_bs),
            "min_probability": 0.0,
            **settings,
        }
    )


def rows_of_single_worlds(job):
    rows = np.zeros((len(job.sites_m), job.grid.size))
    for beta in np.unique(job.beta):
        some = job.beta == beta
        rows[some] = geolocate(replace(job, beta=float(beta))).association.toarray()[some]
    return rows


@pytest.mark.parametrize(("n_bs", "cells"), [(2, 20), (40, 40), (300, 24)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_map_of_each_base_station_is_that_of_its_own_world(n_bs, cells, dtype):
    job = job_of(n_bs, cells, dtype=dtype)
    expected = rows_of_single_worlds(job)
    result = geolocate(job)
    np.testing.assert_allclose(result.maps.toarray(), expected, rtol=0, atol=4e-6)
    maps = expected / expected.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(result.location_given_bs().toarray(), maps, rtol=1e-3, atol=1e-6)
    np.testing.assert_allclose(result.association.toarray(), expected / expected.sum(axis=0), rtol=0, atol=1e-5)


def test_equal_betas_are_one_world():
    job = job_of(betas=(3.0,))
    single = replace(job, beta=3.0)
    np.testing.assert_allclose(
        geolocate(job).association.toarray(), geolocate(single).association.toarray(), rtol=0, atol=1e-6
    )


def test_mask_neighbours_and_smallest_probability_count_in_every_world():
    mask = (np.indices((40, 40)).sum(axis=0) % 3) != 0
    job = job_of(mask=mask, neighbours=5, min_probability=1e-3)
    found = geolocate(job)
    expected = rows_of_single_worlds(replace(job, min_probability=0.0))
    expected[expected < 1e-3] = 0
    np.testing.assert_allclose(found.maps.toarray(), expected, rtol=0, atol=2e-5)
    assert found.neighbours == (5, 5, 5)
    assert (found.best_server[~mask] == -1).all()
    np.testing.assert_allclose(found.association.toarray().sum(axis=0).reshape(40, 40)[mask], 1, atol=1e-6)


def test_the_mass_cut_is_that_of_each_world():
    n = 24
    size = 3 * SIDE_M / n
    around = Grid(n, n, -SIDE_M, 2 * SIDE_M, size)
    x, y = np.meshgrid(around.x_m, around.y_m)
    beyond = ~((x > 0) & (x < SIDE_M) & (y > 0) & (y < SIDE_M))
    job = job_of(surroundings=around, surroundings_mask=beyond)
    found = geolocate(job).mass_cut
    for beta in np.unique(job.beta):
        expected = geolocate(replace(job, beta=float(beta))).mass_cut
        np.testing.assert_allclose(found[job.beta == beta], expected[job.beta == beta], rtol=0, atol=1e-3)
    assert (geolocate(replace(job, surroundings_mask=np.zeros_like(beyond))).mass_cut == 0).all()
    assert np.isnan(geolocate(replace(job, surroundings=None)).mass_cut).all()


def test_too_much_for_the_memory_is_said_before_the_work():
    job = job_of(200, 400, memory_mb=20.0)
    fractions = []
    with pytest.raises(MemoryBudgetError, match=r"would hold about [\d,]+ kept probabilities .* 20 MB are allowed"):
        geolocate(job, fractions.append)
    assert not fractions


def test_progress_rises_to_one():
    fractions = []
    geolocate(job_of(), fractions.append)
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1
