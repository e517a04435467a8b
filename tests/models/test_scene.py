"""Statements about whole simulated networks in one call."""

import numpy as np
import pytest
from telcoloc.models.errors import InputError, MemoryBudgetError
from telcoloc.models.geolocation.result import normalised_rows
from telcoloc.models.grid import Grid
from telcoloc.models.radio.parameters import SimulatorParameters
from telcoloc.models.radio.scene import CALIBRATIONS, Scene, layout_within, simulate_scene
from telcoloc.models.radio.simulator import simulate

BOUNDS = (10_000.0, 20_000.0, 16_000.0, 23_000.0)


@pytest.fixture(scope="module")
def scene():
    return Scene(layout_within(BOUNDS, 1), Grid.covering(BOUNDS, 100.0), seed=5)


def test_a_layout_fills_its_rectangle(scene):
    low, high = np.array(BOUNDS[:2]), np.array(BOUNDS[2:])
    assert ((scene.sites_m > low) & (scene.sites_m < high)).all()
    assert ((scene.sites_m.min(axis=0) - low) < 1500).all()
    assert ((high - scene.sites_m.max(axis=0)) < 1500).all()
    np.testing.assert_array_equal(layout_within(BOUNDS, 1), scene.sites_m)
    assert len(layout_within(BOUNDS, 2)) != len(scene.sites_m) or (layout_within(BOUNDS, 2) != scene.sites_m).any()


def test_it_is_what_the_simulator_says_and_its_equipment(scene):
    maps, equipment = simulate_scene(scene)
    expected = normalised_rows(simulate(scene.sites_m, scene.grid, SimulatorParameters(), 5))
    assert (maps != expected).nnz == 0
    np.testing.assert_allclose(np.asarray(maps.sum(axis=1)).ravel()[np.diff(maps.indptr) > 0], 1, atol=1e-5)
    assert len(equipment.height_m) == len(scene.sites_m)


def test_calibrations_differ(scene):
    maps = [
        simulate_scene(Scene(scene.sites_m, scene.grid, calibration=name, seed=5))[0].toarray() for name in CALIBRATIONS
    ]
    assert np.abs(maps[0] - maps[1]).max() > 1e-3


def test_too_large_or_too_few(scene):
    with pytest.raises(
        MemoryBudgetError, match=r"Simulating \d+ base stations on .* needs about [\d,]+ MB; 1 MB are allowed\."
    ):
        simulate_scene(Scene(scene.sites_m, scene.grid, memory_mb=1))
    with pytest.raises(InputError, match="at least two base stations, not 1"):
        simulate_scene(Scene(scene.sites_m[:1], scene.grid))
