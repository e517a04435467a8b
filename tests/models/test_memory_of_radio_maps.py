"""The estimate of a radio map's memory, against what numpy's arrays take at most while one is computed."""

import tracemalloc

import numpy as np
import pytest
from telcoloc.models.grid import Grid
from telcoloc.models.radio.buildings import buildings_of_polygons
from telcoloc.models.radio.maps import RadioMapJob, radio_maps
from telcoloc.models.radio.memory import needed_mb
from telcoloc.models.radio.transmitters import Transmitters


def town(n=12):
    """Houses with six corners, n by n of them, 25 m apart."""
    turn = 2 * np.pi * np.arange(6) / 6
    ring = 8.0 * np.column_stack([np.cos(turn), np.sin(turn)])
    return buildings_of_polygons(
        [[ring + np.array([25.0 * i, 25.0 * j])] for i in range(n) for j in range(n)], np.full(n * n, 15.0)
    )


@pytest.mark.parametrize("model", ["3gpp", "cost231wi", "dominantpath"])
def test_the_estimate_is_above_what_is_taken_and_not_thrice_as_much(model):
    buildings = town()
    grid = Grid(500, 500, -12.5, 287.5, 0.6)
    ones = np.ones(3)
    network = Transmitters(
        ("a", "b", "c"), np.array([[0.0, 12.5], [140, 137.5], [250, 212.5]]), 20 * ones, 120 * np.arange(3.0), 0 * ones,
        65 * ones, 1800 * ones, 50 * ones,
    )  # fmt: skip
    tracemalloc.start()
    try:
        radio_maps(RadioMapJob(network, grid, model, buildings=buildings))
        taken = tracemalloc.get_traced_memory()[1] / 2**20
    finally:
        tracemalloc.stop()
    estimate = needed_mb(model, grid.size, 3, 1, len(buildings.xy_m))
    assert taken < estimate < 3 * taken
