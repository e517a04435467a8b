"""Statements about windows around base stations. Oracle: the dense map, padded and cut with plain slices."""

import numpy as np
import pytest
from scipy import sparse
from telcoloc.models.errors import InputError
from telcoloc.models.geolocation.windows import Window, window_of
from telcoloc.models.grid import Grid

GRID = Grid(23, 31, 500.0, 9000.0, 20.0)
WINDOWS = (
    Window(0, 0, 1, 5),
    Window(4, 7, 3, 4),
    Window(-6, -9, 4, 5),
    Window(15, 20, 5, 6),
    Window(-40, 3, 7, 9),
    Window(100, 100, 2, 3),
)


def random_map(seed=0):
    rng = np.random.default_rng(seed)
    return sparse.csr_matrix((rng.uniform(size=GRID.shape) * (rng.uniform(size=GRID.shape) < 0.6)).reshape(1, -1))


def blocks(dense, window):
    """Block sums of a dense map that is 0 beyond its edges."""
    pad = 200
    padded = np.pad(dense, pad)
    span = window.side * window.stride
    cut = padded[window.row0 + pad :, window.col0 + pad :][:span, :span]
    return cut.reshape(window.side, window.stride, window.side, window.stride).sum(axis=(1, 3))


@pytest.mark.parametrize("window", WINDOWS)
def test_gather_is_the_sum_over_blocks(window):
    row = random_map()
    found = window.gather(row.indices, row.data, GRID)
    np.testing.assert_allclose(found, blocks(row.toarray().reshape(GRID.shape), window), rtol=1e-12)


@pytest.mark.parametrize("window", WINDOWS)
def test_valid_cells_are_those_of_grid_and_mask(window):
    mask = np.random.default_rng(1).uniform(size=GRID.shape) < 0.5
    np.testing.assert_array_equal(window.valid_cells(GRID), blocks(np.ones(GRID.shape, int), window))
    np.testing.assert_array_equal(window.valid_cells(GRID, mask), blocks(mask.astype(int), window))


@pytest.mark.parametrize("window", WINDOWS)
def test_spread_undoes_gather(window):
    mask = np.random.default_rng(2).uniform(size=GRID.shape) < 0.5
    values = np.random.default_rng(3).uniform(size=(window.side, window.side))
    cells, shares = window.spread(values, GRID, mask)
    assert mask.ravel()[cells].all()
    expected = np.where(window.valid_cells(GRID, mask) > 0, values, 0)
    np.testing.assert_allclose(window.gather(cells, shares, GRID), expected, rtol=1e-12)


@pytest.mark.parametrize("window", WINDOWS)
def test_a_block_stands_at_the_mean_of_its_cells(window):
    x_m, y_m = window.centres(GRID)
    full = np.argwhere(window.valid_cells(GRID) == window.stride**2)
    for row, column in full[:3]:
        one = np.zeros((window.side, window.side))
        one[row, column] = 1
        cells, shares = window.spread(one, GRID)
        np.testing.assert_allclose(GRID.centres(cells[shares > 0]).mean(axis=0), (x_m[column], y_m[row]))


@pytest.mark.parametrize("side", [8, 9])
@pytest.mark.parametrize("half_width_m", [1.0, 80.0, 81.0, 90.0, 500.0, 3000.0])
def test_a_base_station_stands_in_the_middle_of_its_window(side, half_width_m):
    for xy in ((731.0, 8777.0), (100.0, 100.0)):  # inside and outside the grid
        window = window_of(GRID, np.array(xy), half_width_m, side)
        x_m, y_m = window.centres(GRID)
        block_m = window.stride * GRID.cell_size_m
        assert abs(x_m[side // 2] - xy[0]) <= (block_m + GRID.cell_size_m) / 2
        assert abs(y_m[side // 2] - xy[1]) <= (block_m + GRID.cell_size_m) / 2
        assert side * block_m / 2 >= half_width_m
        assert window.stride == 1 or side * (block_m - GRID.cell_size_m) / 2 < half_width_m


def test_a_window_of_nothing_is_refused():
    with pytest.raises(InputError, match=r"^A window needs at least one block of one cell, not 4 of 0\.$"):
        Window(0, 0, 0, 4)
