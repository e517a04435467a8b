"""Statements about `Grid`: where its cells are."""

import numpy as np
import pytest
from telcoloc.models.errors import InputError
from telcoloc.models.grid import Grid

GRIDS = [
    Grid(1, 1, 0.0, 10.0, 10.0),
    Grid(7, 3, -1000.0, 2000.0, 25.0),
    Grid(40, 60, 691_000.5, 5_334_000.25, 0.1),
    Grid(5, 900, 1e6, -1e6, 333.3),
]


def random_bounds(seed, n=200):
    rng = np.random.default_rng(seed)
    for _ in range(n):
        size = 10 ** rng.uniform(-1, 3)
        x, y = rng.uniform(-1e6, 1e6, 2)
        width, height = rng.uniform(0, 80, 2) * size
        yield (x, y, x + width, y + height), size


@pytest.mark.parametrize("grid", GRIDS)
def test_centres_and_cells_are_inverse(grid):
    cells = np.arange(grid.size)
    np.testing.assert_array_equal(grid.cells_of(grid.centres(cells)), cells)
    inside = grid.centres(cells) + np.random.default_rng(0).uniform(-0.49, 0.49, (grid.size, 2)) * grid.cell_size_m
    np.testing.assert_array_equal(grid.cells_of(inside), cells)


@pytest.mark.parametrize("grid", GRIDS)
def test_cells_run_row_by_row_from_the_north_west(grid):
    np.testing.assert_allclose(
        grid.centres(np.array([0]))[0], (grid.x_min + grid.cell_size_m / 2, grid.y_max - grid.cell_size_m / 2)
    )
    east, south = grid.bounds[2], grid.bounds[1]
    np.testing.assert_allclose(
        grid.centres(np.array([grid.size - 1]))[0], (east - grid.cell_size_m / 2, south + grid.cell_size_m / 2)
    )
    x, y = np.meshgrid(grid.x_m, grid.y_m)
    np.testing.assert_array_equal(grid.centres(np.arange(grid.size)), np.column_stack([x.ravel(), y.ravel()]))


def test_points_beyond_the_edges_are_in_no_cell():
    grid = Grid(2, 3, 100.0, 200.0, 10.0)
    outside = [[99.9, 195], [130.1, 195], [105, 200.1], [105, 179.9], [np.nan, 195], [np.inf, 195], [105, -np.inf]]
    np.testing.assert_array_equal(grid.cells_of(np.array(outside)), [-1] * 7)
    np.testing.assert_array_equal(grid.cells_of(np.array([[100.0, 200.0], [129.99, 180.01], [110, 190]])), [0, 5, 4])
    assert grid.cells_of(np.zeros((0, 2))).shape == (0,)


def test_covering_is_the_smallest_grid_that_holds_the_bounds():
    for bounds, size in random_bounds(1):
        for snap in (True, False):
            grid = Grid.covering(bounds, size, "wkt", snap)
            slack = 1e-6 * size + 1e-9 * 1e6
            west, south, east, north = grid.bounds
            assert west <= bounds[0] + slack
            assert south <= bounds[1] + slack
            assert east >= bounds[2] - slack
            assert north >= bounds[3] - slack
            # one row or column less on any side would not do
            assert west + size > bounds[0] - slack
            assert north - size < bounds[3] + slack
            assert east - size < bounds[2] + slack or grid.width == 1
            assert south + size > bounds[1] - slack or grid.height == 1
            assert grid.crs_wkt == "wkt"


def test_snapped_corners_are_multiples_of_the_cell_size_and_others_are_kept():
    for bounds, size in random_bounds(2):
        grid = Grid.covering(bounds, size)
        assert abs(grid.x_min / size - round(grid.x_min / size)) < 1e-6
        assert abs(grid.y_max / size - round(grid.y_max / size)) < 1e-6
        plain = Grid.covering(bounds, size, snap=False)
        assert (plain.x_min, plain.y_max) == (bounds[0], bounds[3])


def test_covering_its_own_bounds_gives_the_grid_back():
    for bounds, size in random_bounds(3):
        grid = Grid.covering(bounds, size)
        assert Grid.covering(grid.bounds, size) == grid


def test_a_point_is_covered_by_one_cell():
    assert Grid.covering((5.0, 5.0, 5.0, 5.0), 10.0) == Grid(1, 1, 0.0, 10.0, 10.0)
    assert Grid.covering((10.0, 10.0, 10.0, 10.0), 10.0).size == 1


def test_snapped_grids_of_one_cell_size_align():
    rng = np.random.default_rng(4)
    for _ in range(50):
        one, two = (Grid.covering((x, y, x + 500, y + 300), 25.0) for x, y in rng.uniform(-1e6, 1e6, (2, 2)))
        rows, columns = one.offset_to(two)
        assert (one.x_min + columns * 25, one.y_max - rows * 25) == pytest.approx((two.x_min, two.y_max), abs=1e-6)
        assert two.offset_to(one) == (-rows, -columns)


def test_offset_counts_rows_southwards_and_columns_eastwards():
    grid = Grid(4, 4, 100.0, 200.0, 10.0)
    assert grid.offset_to(grid) == (0, 0)
    assert grid.offset_to(Grid(1, 9, 130.0, 180.0, 10.0)) == (2, 3)
    assert grid.offset_to(Grid(1, 9, 90.0, 250.0, 10.0)) == (-5, -1)
    assert grid.offset_to(Grid(4, 4, 100.005, 199.995, 10.0)) == (0, 0)  # half a thousandth of a cell


@pytest.mark.parametrize(
    "other", [(4, 4, 105.0, 200.0, 10.0), (4, 4, 100.0, 200.02, 10.0), (4, 4, 100.0, 200.0, 10.001)]
)
def test_grids_that_do_not_align_are_refused_in_one_sentence(other):
    sentence = r"^Grids do not align: 4 x 4 cells of 10 m with north-west corner \(100, 200\) and 4 x 4 cells of 10.* m with .*\.$"
    with pytest.raises(InputError, match=sentence):
        Grid(4, 4, 100.0, 200.0, 10.0).offset_to(Grid(*other))


def test_derived_numbers():
    grid = Grid(2, 3, 100.0, 200.0, 10.0, "wkt")
    assert grid.shape == (2, 3)
    assert grid.size == 6
    assert grid.cell_area_m2 == 100.0
    assert grid.bounds == (100.0, 180.0, 130.0, 200.0)
    assert grid.geotransform == (100.0, 10.0, 0.0, 200.0, 0.0, -10.0)
    np.testing.assert_array_equal(grid.x_m, [105, 115, 125])
    np.testing.assert_array_equal(grid.y_m, [195, 185])
    assert grid.describe() == "2 x 3 cells of 10 m with north-west corner (100, 200)"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ((0, 3, 0, 0, 10), r"A grid needs at least one cell, this one has 0 x 3\."),
        ((3, -1, 0, 0, 10), r"A grid needs at least one cell, this one has 3 x -1\."),
        ((3, 3, 0, 0, 0), r"The cell size must be a positive number of metres, not 0\."),
        ((3, 3, 0, 0, -5), r"The cell size must be a positive number of metres, not -5\."),
        ((3, 3, 0, 0, float("nan")), r"The cell size must be a positive number of metres, not nan\."),
        ((3, 3, 0, 0, float("inf")), r"The cell size must be a positive number of metres, not inf\."),
    ],
)
def test_what_is_no_grid_is_refused_in_one_sentence(arguments, sentence):
    with pytest.raises(InputError, match=f"^{sentence}$"):
        Grid(*arguments)


@pytest.mark.parametrize("bounds", [(0, 0, -1, 1), (0, 2, 1, 1), (0, 0, float("nan"), 1), (float("-inf"), 0, 1, 1)])
def test_bounds_that_hold_nothing_are_refused_in_one_sentence(bounds):
    with pytest.raises(InputError, match=r"^The extent \(.*\) is empty or not finite\.$"):
        Grid.covering(bounds, 10.0)


@pytest.mark.parametrize("size", [0.0, -1.0, float("nan"), float("inf")])
def test_covering_needs_a_cell_size(size):
    with pytest.raises(InputError, match=rf"^The cell size must be a positive number of metres, not {size}\.$"):
        Grid.covering((0, 0, 1, 1), size)
