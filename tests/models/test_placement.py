"""Placing landmarks greedily, against loops over all cells."""

import numpy as np
import pytest
from telcoloc.models.errors import InputError
from telcoloc.models.grid import Grid
from telcoloc.models.landmarks.placement import place_landmarks

GRID = Grid(13, 17, 0.0, 130.0, 10.0)


def brute_force(sensibility, number, radius_m, spacing_m, weight):
    centres = GRID.centres(np.arange(GRID.size))
    distance = np.hypot(*(centres[:, None] - centres).transpose(2, 0, 1))
    mass = np.where(np.isfinite(sensibility) & (weight > 0), np.nan_to_num(sensibility) * weight, 0).ravel()
    allowed = (np.isfinite(sensibility) & (weight > 0)).ravel()
    whole = mass.sum()
    chosen, shares = [], []
    for _ in range(number):
        gain = np.array([mass[distance[cell] <= radius_m + 1e-9].sum() for cell in range(GRID.size)])
        gain[~allowed] = -1
        if gain.max() <= 1e-9:
            break
        best = max(np.flatnonzero(gain >= gain.max() - 1e-9), key=lambda cell: sensibility.flat[cell])
        chosen.append(best)
        shares.append(gain[best] / whole)
        mass = np.where(distance[best] <= radius_m + 1e-9, 0, mass)
        allowed &= distance[best] >= spacing_m - 1e-9
        allowed[best] = False
    return chosen, shares


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("radius_m", "spacing_m"), [(0.0, 0.0), (25.0, 0.0), (30.0, 45.0), (60.0, 20.0), (500.0, 0.0)])
def test_the_choice_is_that_of_loops(seed, radius_m, spacing_m):
    rng = np.random.default_rng(seed)
    sensibility = rng.uniform(0, 1, GRID.shape)
    sensibility[rng.uniform(0, 1, GRID.shape) < 0.2] = np.nan
    weight = rng.uniform(0, 3, GRID.shape) * (rng.uniform(0, 1, GRID.shape) < 0.7)
    found = place_landmarks(GRID, sensibility, 9, radius_m, spacing_m, weight)
    chosen, shares = brute_force(sensibility, 9, radius_m, spacing_m, weight)
    assert GRID.cells_of(found.xy_m).tolist() == chosen
    np.testing.assert_allclose(found.share, shares, atol=1e-9)
    np.testing.assert_allclose(found.covered, np.cumsum(shares), atol=1e-9)
    np.testing.assert_array_equal(found.sensibility, sensibility.ravel()[chosen])


def test_one_blind_spot_gets_the_first_landmark():
    sensibility = np.full(GRID.shape, 0.01)
    sensibility[4, 11] = 1.0
    assert GRID.cells_of(place_landmarks(GRID, sensibility, 1, 5.0).xy_m).tolist() == [4 * 17 + 11]


def test_all_is_covered_when_there_are_enough():
    found = place_landmarks(GRID, np.ones(GRID.shape), GRID.size, 15.0)
    assert found.covered[-1] == pytest.approx(1)
    assert len(found) < GRID.size


def test_what_makes_no_sense_is_refused():
    ones = np.ones(GRID.shape)
    with pytest.raises(InputError, match="one landmark or more"):
        place_landmarks(GRID, ones, 0, 10.0)
    with pytest.raises(InputError, match="radius and a spacing of 0 m or more, not 3, -1 m"):
        place_landmarks(GRID, ones, 3, -1.0)
    with pytest.raises(InputError, match="no landmark would help"):
        place_landmarks(GRID, np.zeros(GRID.shape), 3, 10.0)
    with pytest.raises(InputError, match="no landmark would help"):
        place_landmarks(GRID, np.full(GRID.shape, np.nan), 3, 10.0)
    with pytest.raises(InputError, match=r"its weights \(2, 2\)"):
        place_landmarks(GRID, ones, 3, 10.0, weight=np.ones((2, 2)))
