"""Statements about stacks: choosing base stations, and moving two stacks onto one grid."""

import numpy as np
import pytest
import scipy.sparse
from telcoloc.models.errors import InputError
from telcoloc.models.geolocation.stack import Stack, on_common_grid
from telcoloc.models.grid import Grid

SIZE = 10.0


def stack_of(grid, ids="abc", seed=0, name="one"):
    rng = np.random.default_rng(seed)
    dense = rng.random((len(ids), grid.size)) * (rng.random((len(ids), grid.size)) < 0.6)
    members = tuple((one, one + "2") for one in ids)
    return Stack(
        name, grid, scipy.sparse.csr_matrix(dense.astype(np.float32)), tuple(ids), members, "location_given_bs"
    )


def at_places(stack):
    """(BS id, x, y) → probability: what a stack says, whatever its grid."""
    rows, cells = stack.maps.nonzero()
    xy = stack.grid.centres(cells).round(6)
    values = np.asarray(stack.maps[rows, cells]).ravel()
    return {(stack.ids[row], *place): value for row, place, value in zip(rows, map(tuple, xy), values)}


def shifted(rows_down, columns_right, height=4, width=5, wkt=""):
    return Grid(height, width, 100.0 + columns_right * SIZE, 200.0 - rows_down * SIZE, SIZE, wkt)


def test_only_keeps_the_asked_base_stations_in_the_asked_order():
    stack = stack_of(shifted(0, 0), "abcd")
    some = stack.only(["d", "b"])
    assert some.ids == ("d", "b")
    assert some.members == (("d", "d2"), ("b", "b2"))
    np.testing.assert_array_equal(some.maps.toarray(), stack.maps.toarray()[[3, 1]])
    assert (some.name, some.grid, some.form) == (stack.name, stack.grid, stack.form)
    assert stack.ids == tuple("abcd")
    assert stack.only([]).maps.shape == (0, stack.grid.size)


def test_only_does_not_invent_base_stations():
    with pytest.raises(KeyError, match="z"):
        stack_of(shifted(0, 0)).only(["a", "z"])


@pytest.mark.parametrize("rows", [-9, -2, 0, 1, 3, 12])
@pytest.mark.parametrize("columns", [-11, -3, 0, 2, 7])
@pytest.mark.parametrize("shape", [(4, 5), (2, 2), (9, 12)])
def test_the_common_grid_is_the_smallest_that_holds_both_and_every_value_stays_in_its_place(rows, columns, shape):
    first, second = stack_of(shifted(0, 0)), stack_of(shifted(rows, columns, *shape), "bcde", 1, "two")
    moved = on_common_grid(first, second)
    assert moved[0].grid == moved[1].grid
    bounds = np.array([first.grid.bounds, second.grid.bounds])
    expected = (*bounds[:, :2].min(axis=0), *bounds[:, 2:].max(axis=0))
    assert moved[0].grid.bounds == pytest.approx(expected)
    for before, after in zip((first, second), moved):
        assert at_places(after) == at_places(before)
        assert after.maps.shape == (len(before.ids), after.grid.size)
        assert (after.ids, after.members, after.name, after.form) == (
            before.ids,
            before.members,
            before.name,
            before.form,
        )
        dense = np.zeros((len(before.ids), *after.grid.shape), np.float32)
        top, left = after.grid.offset_to(before.grid)
        height, width = before.grid.shape
        dense[:, top : top + height, left : left + width] = before.maps.toarray().reshape(-1, height, width)
        np.testing.assert_array_equal(after.maps.toarray(), dense.reshape(len(before.ids), -1))


def test_stacks_on_one_grid_stay_as_they_are():
    first, second = stack_of(shifted(0, 0)), stack_of(shifted(0, 0), seed=2)
    moved = on_common_grid(first, second)
    assert moved[0] is first
    assert moved[1] is second


def test_the_callers_stacks_are_not_touched():
    first, second = stack_of(shifted(0, 0)), stack_of(shifted(-3, -2), seed=2)
    before = first.maps.toarray(), second.maps.toarray()
    on_common_grid(first, second)
    np.testing.assert_array_equal(first.maps.toarray(), before[0])
    np.testing.assert_array_equal(second.maps.toarray(), before[1])


def test_different_crss_are_refused_in_one_sentence():
    sentence = r"^'one' and 'two' have different CRSs\. Make both with .* resampling 'sum'\.$"
    with pytest.raises(InputError, match=sentence):
        on_common_grid(stack_of(shifted(0, 0, wkt="A")), stack_of(shifted(0, 0, wkt="B"), name="two"))


@pytest.mark.parametrize(
    "other", [Grid(4, 5, 100.0, 200.0, 20.0), Grid(4, 5, 105.0, 200.0, SIZE), Grid(4, 5, 100.0, 197.0, SIZE)]
)
def test_grids_that_do_not_align_are_refused_with_both_grids(other):
    sentence = (
        r"^'one' \(4 x 5 cells of 10 m with .*\) and 'two' \(4 x 5 cells of .* m with .*\) lie on grids that do not align\. "
        r"Make both with the same CELL_SIZE and EXTENT\.$"
    )
    with pytest.raises(InputError, match=sentence):
        on_common_grid(stack_of(shifted(0, 0)), stack_of(other, name="two"))
