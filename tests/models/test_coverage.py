"""Statements about coverage areas. The oracle takes cells one by one, largest first, until the mass is reached."""

import numpy as np
import pytest
from telcoloc.models.geolocation.coverage import mass_levels

LEVELS = (0.5, 0.75, 0.95)


def random_masses(seed, n=60):
    rng = np.random.default_rng(seed)
    for _ in range(n):
        masses = rng.gamma(0.4, size=int(rng.integers(1, 200)))
        yield masses / masses.sum()


def fewest(masses, level):
    total, count = 0.0, 0
    for mass in sorted(masses, reverse=True):
        if total >= level - 1e-7:
            break
        total += mass
        count += 1
    return count


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_each_level_holds_its_mass_in_the_fewest_cells(dtype):
    for masses in random_masses(0):
        masses = masses.astype(dtype)
        found = mass_levels(masses, LEVELS)
        for index, level in enumerate(LEVELS):
            area = found <= index
            assert masses[area].sum(dtype=float) >= level - 1e-6
            assert area.sum() == fewest(masses.astype(float), level)
            assert masses[area].min() >= masses[~area].max(initial=0)  # and they are the largest


def test_levels_are_nested_and_the_rest_has_the_last_index():
    for masses in random_masses(1):
        found = mass_levels(masses, LEVELS)
        assert found.dtype == np.uint8
        assert found.shape == masses.shape
        sizes = [(found <= index).sum() for index in range(4)]
        assert sizes == sorted(sizes)
        assert sizes[-1] == len(masses)


def test_a_hand_computed_case():
    masses = np.array([0.05, 0.4, 0.1, 0.3, 0.15])
    np.testing.assert_array_equal(mass_levels(masses, (0.5, 0.75, 0.95)), [3, 0, 2, 0, 1])


def test_a_level_reached_exactly_takes_no_further_cell():
    np.testing.assert_array_equal(mass_levels(np.full(4, 0.25), (0.5, 0.75, 1.0)), [0, 0, 1, 2])
    tenths = np.full(10, 0.1, np.float32)  # sums of tenths are not exact in float32
    assert [(mass_levels(tenths, (level,)) == 0).sum() for level in (0.1, 0.3, 0.7, 0.9)] == [1, 3, 7, 9]


def test_equal_cells_enter_in_the_order_given():
    np.testing.assert_array_equal(mass_levels(np.array([0.2, 0.4, 0.2, 0.2]), (0.5, 0.7)), [0, 0, 1, 2])


def test_one_cell_holds_every_level():
    np.testing.assert_array_equal(mass_levels(np.array([1.0]), LEVELS), [0])
    np.testing.assert_array_equal(mass_levels(np.array([0.0, 1.0, 0.0]), LEVELS), [3, 0, 3])
