"""The teacher: it finds the β a map was made with, whatever the layout's size and direction."""

from __future__ import annotations

import numpy as np
import pytest
from telcoloc.models.errors import Cancelled, InputError
from telcoloc.models.geolocation.engine import GeolocationJob, geolocate
from telcoloc.models.geolocation.spdi import association_probabilities
from telcoloc.models.geolocation.teacher import BETAS, target_probability, teach
from telcoloc.models.grid import Grid
from telcoloc.models.training.labels import soft_labels
from telcoloc.models.training.truth import TruthNetwork

GRID = Grid.covering((-6000, -6000, 6000, 6000), 100.0)


@pytest.fixture(scope="module")
def sites():
    steps = np.arange(-4, 5) * 1200.0
    xy = np.stack(np.meshgrid(steps, steps), axis=-1).reshape(-1, 2)
    return xy + np.random.default_rng(0).uniform(-250, 250, xy.shape)


def truth(sites, beta):
    maps = geolocate(GeolocationJob(sites, GRID, beta=beta, min_probability=0)).location_given_bs()
    maps.sort_indices()
    return maps


@pytest.mark.parametrize(
    ("beta", "off"), [(1.5, 0.1), (2.0, 0.1), (3.5, 0.2)]
)  # steep maps show less of it on blocks of 200 m
def test_it_finds_the_beta_a_map_was_made_with(sites, beta, off):
    rows = np.array([30, 40, 41])
    found = teach(sites, GRID, truth(sites, beta), rows)
    assert np.abs(found.beta - beta).max() <= off + 1e-9
    assert found.ks2.max() < 0.02


def test_searching_around_the_best_is_as_good_as_trying_all(sites):
    rows = np.arange(20, 60, 4)
    maps = truth(sites, 2.3)
    quick, thorough = teach(sites, GRID, maps, rows), teach(sites, GRID, maps, rows, exhaustive=True)
    assert np.isfinite(thorough.curve).all()
    assert thorough.curve.shape == (len(rows), len(BETAS))
    assert np.mean(quick.beta == thorough.beta) >= 0.9
    assert np.isnan(quick.curve).any()


def test_the_target_alone_has_the_probability_it_has_among_all():
    squared = np.random.default_rng(1).uniform(0.05, 30, (12, 500)) ** 2
    log_rate = np.log(squared)  # β = 2
    relative = log_rate - np.partition(log_rate, 1, axis=0)[1]
    exact = association_probabilities(squared, 2.0)[0]
    assert np.abs(target_probability(relative) - exact).max() < 2e-3


def test_soft_labels_are_maps_of_the_targets_alone(sites):
    rows = np.array([31, 40])
    network = TruthNetwork("grid", sites, GRID, truth(sites, 2.0), rows)
    labels = soft_labels(network)
    assert labels.shape == network.maps.shape
    np.testing.assert_allclose(labels[rows].sum(axis=1), 1, rtol=1e-5)
    assert labels.nnz == labels[rows].nnz


def test_what_it_cannot_teach_is_said(sites):
    maps = truth(sites, 2.0)
    with pytest.raises(InputError, match="at least two"):
        teach(sites[:1], GRID, maps[:1], np.array([0]))
    maps = maps.tolil()
    maps[5] = 0
    with pytest.raises(InputError, match=r"Base station 5 .* no true map"):
        teach(sites, GRID, maps.tocsr(), np.array([4, 5]))


def test_cancel(sites):
    def stop(fraction):
        raise Cancelled

    with pytest.raises(Cancelled):
        teach(sites, GRID, truth(sites, 2.0), np.arange(50), progress=stop)


def test_no_probability_is_negative_however_far_the_base_station():
    log_rate = np.stack([np.linspace(-10, 30, 4001), np.zeros(4001), np.full(4001, 0.3)]).astype(np.float32)
    found = target_probability(log_rate)
    assert (found >= 0).all()
    assert found[-1] < 1e-6
