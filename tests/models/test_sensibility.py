"""Equation (2) in closed cases, and simulations that say what must be."""

import time

import numpy as np
import pytest
from dcm import radio_maps, table_of
from telcoloc.models.errors import Cancelled, InputError
from telcoloc.models.grid import Grid
from telcoloc.models.landmarks.candidates import Candidates
from telcoloc.models.landmarks.lookup import LookupTable
from telcoloc.models.landmarks.sensibility import (
    interpolated,
    measured_sensibility,
    nearest_candidate_m,
    on_grid,
    simulated_sensibility,
)
from telcoloc.models.landmarks.signal_candidates import CandidateSettings


def candidates(*instants):
    """Of one device; each instant is a list of (x, y)."""
    n = len(instants)
    first = np.concatenate([[0], np.cumsum([len(one) for one in instants])])
    xy = np.array([spot for one in instants for spot in one], float).reshape(-1, 2)
    zeros = np.zeros(n, np.int32)
    return Candidates(("a",), zeros, ("a",), zeros, np.arange(float(n)), first, xy, np.zeros(len(xy)), np.arange(n))


def test_the_nearest_candidate_counts():
    some = candidates([(0, 0), (30, 40)], [], [(10, 0)], [(5, 5)])
    truth = np.array([[30.0, 37.0], [1, 1], [0, 0], [np.nan, 3]])
    np.testing.assert_array_equal(nearest_candidate_m(some, truth), [3, np.inf, 10, np.nan])


def test_equation_2_at_the_places_measured():
    grid = Grid(10, 10, 0.0, 100.0, 10.0)
    some = candidates([(15, 15), (90, 90)], [(15, 75)], [])
    truth = np.array([[15.0, 15.0], [75.0, 75.0], [15.0, 75.0]])
    found = measured_sensibility(some, truth, grid, 12.0, d_max_m=120.0)
    at = grid.cells_of(truth)
    np.testing.assert_allclose(found.values.ravel()[at], [0, 60 / 120, 1], atol=1e-6)
    assert (found.samples, found.d_max_m) == (3, 120.0)
    assert found.mean_m == pytest.approx((0 + 60 + 120) / 3)
    distance = np.hypot(*(grid.centres(np.arange(100))[:, None] - truth).transpose(2, 0, 1)).min(axis=1)
    np.testing.assert_array_equal(np.isnan(found.values.ravel()), distance > 12)


def test_d_max_is_the_largest_but_for_one_in_a_hundred():
    grid = Grid(1, 101, 0.0, 10.0, 10.0)
    truth = np.column_stack([grid.x_m, np.full(101, 5.0)])
    some = candidates(*([(x, 5.0 + step)] for step, x in enumerate(grid.x_m)))
    found = measured_sensibility(some, truth, grid, 4.0)
    assert found.d_max_m == pytest.approx(99.0)
    np.testing.assert_allclose(found.values[0], np.minimum(np.arange(101) / 99, 1), atol=1e-6)


def test_right_candidates_everywhere_are_no_sensibility():
    grid = Grid(2, 2, 0.0, 20.0, 10.0)
    found = measured_sensibility(candidates([(5, 5)]), np.array([[5.0, 5.0]]), grid, 30.0)
    np.testing.assert_array_equal(found.values, 0)


def test_interpolation_is_the_weighted_mean():
    rng = np.random.default_rng(0)
    xy, at, values = rng.uniform(0, 100, (12, 2)), rng.uniform(0, 100, (50, 2)), rng.uniform(0, 1, 12)
    distance = np.hypot(*(at[:, None] - xy).transpose(2, 0, 1))
    weight = np.where(distance <= 30, 1 / (distance**2 + 25), 0)
    with np.errstate(invalid="ignore"):
        expected = (weight * values).sum(axis=1) / weight.sum(axis=1)
    np.testing.assert_allclose(interpolated(xy, values, at, 30.0, 5.0), expected)
    np.testing.assert_allclose(interpolated(xy[:1], values[:1], xy[:1], 1.0, 5.0), values[:1])


def test_without_errors_no_place_is_sensible():
    found = simulated_sensibility(table_of(), CandidateSettings(number=1), 0.0, spacing_m=10.0, repeats=1)
    assert found.mean_m == 0
    assert np.nanmax(found.values) == 0


def test_places_that_look_alike_are_sensible_and_others_are_not():
    """The western half hears every cell at one level; in the eastern half each place has its own."""
    maps = radio_maps(size=20, block=False)
    rss = maps.rss_dbm.copy()
    west = maps.grid.width // 2
    rss[:, :, :west] = -80.0
    table = LookupTable.from_radio_maps(maps)
    table = LookupTable(
        table.grid, table.cells, table.places, rss.reshape(len(rss), -1).T.copy(), table.noise_floor_dbm
    )
    found = simulated_sensibility(table, CandidateSettings(number=3), 0.5, spacing_m=10.0)
    assert found.values[:, : west - 3].mean() > 5 * found.values[:, west + 3 :].mean()
    assert 0 <= np.nanmin(found.values) <= np.nanmax(found.values) <= 1


def test_more_candidates_and_smaller_errors_make_it_less_sensible():
    table = table_of(size=30)
    mean = {
        (number, error): simulated_sensibility(
            table, CandidateSettings(number=number, separation_m=20.0), error, d_max_m=300.0
        ).mean_m
        for number in (2, 10)
        for error in (2.0, 8.0)
    }
    assert mean[10, 2.0] < mean[2, 2.0] < mean[2, 8.0]
    assert mean[10, 8.0] < mean[2, 8.0]


def test_the_map_is_known_at_places_only():
    table = table_of()
    found = simulated_sensibility(table, CandidateSettings(number=5), 6.0)
    outside = np.setdiff1d(np.arange(table.grid.size), table.places)
    assert np.isnan(found.values.ravel()[outside]).all()
    assert np.isfinite(found.values.ravel()[table.places]).all()


def test_a_seed_gives_one_map_whatever_the_threads():
    table, settings = table_of(), CandidateSettings(number=4)
    one, same, other = (
        simulated_sensibility(table, settings, 6.0, seed=seed, threads=threads)
        for seed, threads in ((3, 1), (3, 2), (4, 1))
    )
    np.testing.assert_array_equal(one.values, same.values)
    assert (one.values != other.values).any()


def test_values_move_to_another_grid_by_place():
    table = table_of()
    found = simulated_sensibility(table, CandidateSettings(number=4), 6.0)
    grid = table.grid
    finer = Grid(grid.height * 2, grid.width * 2, grid.x_min, grid.y_max, grid.cell_size_m / 2)
    np.testing.assert_array_equal(on_grid(found, finer), found.values.repeat(2, axis=0).repeat(2, axis=1))
    elsewhere = Grid(3, 3, grid.x_min - 1e5, grid.y_max, 10.0)
    assert np.isnan(on_grid(found, elsewhere)).all()


def test_what_makes_no_sense_is_refused():
    grid = Grid(2, 2, 0.0, 20.0, 10.0)
    truth = np.array([[5.0, 5.0]])
    with pytest.raises(InputError, match="Simulate it instead"):
        measured_sensibility(candidates([(5, 5)]), truth + 1e4, grid, 10.0)
    with pytest.raises(InputError, match="give D_Max"):
        measured_sensibility(candidates([]), truth, grid, 10.0)
    with pytest.raises(InputError, match="must be above 0 m, not 0 m and 10 m"):
        measured_sensibility(candidates([(5, 5)]), truth, grid, 10.0, d_max_m=0.0)
    with pytest.raises(InputError, match="A simulation needs"):
        simulated_sensibility(table_of(), CandidateSettings(), -1.0)
    table = table_of()
    silent = LookupTable(table.grid, table.cells, table.places, table.rss_dbm, 0.0)
    with pytest.raises(InputError, match="reaches the noise floor"):
        simulated_sensibility(silent, CandidateSettings(), 0.0)


def test_cancel_is_prompt():
    began = time.monotonic()

    def stop(fraction):
        if time.monotonic() - began > 0.2:
            raise Cancelled

    with pytest.raises(Cancelled):
        simulated_sensibility(table_of(size=150), CandidateSettings(), 6.0, spacing_m=10.0, repeats=50, progress=stop)
    assert time.monotonic() - began < 4
