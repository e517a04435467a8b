"""Statements about KS2. The oracle is its definition: a loop over all cells and the four quadrants that meet there."""

import time

import numpy as np
import pytest
import scipy.sparse
from telcoloc.models.errors import Cancelled, InputError
from telcoloc.models.geolocation import ks2 as module
from telcoloc.models.geolocation.ks2 import compare_maps, ks2, mass_overlap
from telcoloc.models.grid import Grid

SHAPES = [(1, 1), (1, 9), (9, 1), (2, 2), (3, 7), (7, 3), (6, 6), (11, 5)]


def by_definition(reference, compared):
    """Fasano & Franceschini: cells are points, quadrants are half-open around each of them."""
    difference = reference - compared
    rows, columns = np.indices(difference.shape)
    largest = 0.0
    for row in range(difference.shape[0]):
        for column in range(difference.shape[1]):
            north, west = rows <= row, columns <= column
            for quadrant in (north & west, north & ~west, ~north & west, ~north & ~west):
                largest = max(largest, abs(difference[quadrant].sum()))
    return largest


def random_map(rng, shape, sparsity=0.5):
    masses = rng.gamma(0.5, size=shape) * (rng.random(shape) > sparsity)
    if not masses.any():
        masses.flat[rng.integers(masses.size)] = 1.0
    return masses / masses.sum()


def random_pairs(seed, shapes=SHAPES, each=8):
    rng = np.random.default_rng(seed)
    for shape in shapes:
        for _ in range(each):
            sparsity = rng.choice([0.0, 0.5, 0.9])
            yield random_map(rng, shape, sparsity), random_map(rng, shape, sparsity)


def as_rows(maps):
    return scipy.sparse.csr_matrix(np.stack([one.ravel() for one in maps]))


def grid_of(shape):
    return Grid(*shape, x_min=0.0, y_max=1000.0, cell_size_m=10.0)


def test_equals_the_definition():
    for reference, compared in random_pairs(0):
        assert ks2(reference, compared) == pytest.approx(by_definition(reference, compared), abs=1e-12)


def test_equals_the_definition_when_the_table_is_worked_in_strips(monkeypatch):
    for strip_cells in (1, 10, 14):
        monkeypatch.setattr(module, "STRIP_CELLS", strip_cells)
        for reference, compared in random_pairs(1, each=3):
            assert ks2(reference, compared) == pytest.approx(by_definition(reference, compared), abs=1e-12)


def test_whether_a_quadrant_holds_its_own_cell_does_not_matter():
    for reference, compared in random_pairs(2, each=3):
        difference = reference - compared
        height, width = difference.shape
        largest = max(
            abs(difference[rows, columns].sum())
            for r in range(height)
            for c in range(width)
            for rows in (slice(None, r + 1), slice(r, None))
            for columns in (slice(None, c + 1), slice(c, None))
        )
        assert ks2(reference, compared) == pytest.approx(largest, abs=1e-12)


def test_identical_maps_are_at_zero_and_share_everything():
    for reference, _ in random_pairs(3, each=2):
        assert ks2(reference, reference.copy()) == 0.0
        assert mass_overlap(reference, reference.copy()) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(
    ("one", "other"), [((0, 0), (-1, -1)), ((0, -1), (-1, 0)), ((0, 0), (0, -1)), ((0, 0), (-1, 0))]
)
def test_maps_in_different_corners_are_at_one_and_share_nothing(one, other):
    reference, compared = np.zeros((5, 8)), np.zeros((5, 8))
    reference[one] = compared[other] = 1.0
    assert ks2(reference, compared) == 1.0
    assert mass_overlap(reference, compared) == 0.0


def test_a_hand_computed_case():
    reference = np.array([[0.5, 0.0], [0.0, 0.5]])
    compared = np.array([[0.0, 0.5], [0.5, 0.0]])
    assert ks2(reference, compared) == 0.5
    half_moved = np.array([[0.25, 0.25], [0.25, 0.25]])
    assert ks2(reference, half_moved) == 0.25
    assert mass_overlap(reference, half_moved) == 0.5


def test_is_symmetric_and_ignores_flips_and_transposition():
    for reference, compared in random_pairs(4, each=3):
        expected = ks2(reference, compared)
        assert ks2(compared, reference) == pytest.approx(expected, abs=1e-12)
        for turn in (np.flipud, np.fliplr, np.transpose, np.rot90):
            assert ks2(turn(reference), turn(compared)) == pytest.approx(expected, abs=1e-12)


def test_is_at_most_the_mass_that_is_not_shared():
    for reference, compared in random_pairs(5):
        assert 0.0 <= ks2(reference, compared) <= 1.0 - mass_overlap(reference, compared) + 1e-12


def test_leaves_its_arguments_as_they_were_and_takes_single_precision():
    reference, compared = next(random_pairs(6, shapes=[(6, 6)]))
    before = reference.copy(), compared.copy()
    expected = ks2(reference, compared)
    assert np.array_equal(reference, before[0])
    assert np.array_equal(compared, before[1])
    assert ks2(reference.astype(np.float32), compared.astype(np.float32)) == pytest.approx(expected, abs=1e-6)


def test_empty_land_around_both_maps_changes_nothing():
    for reference, compared in random_pairs(7, each=2):
        wide = [np.pad(one, ((3, 1), (0, 4))) for one in (reference, compared)]
        assert ks2(*wide) == pytest.approx(ks2(reference, compared), abs=1e-12)


@pytest.mark.parametrize("shape", [(1, 40), (40, 1), (30, 17), (12, 40)])
def test_the_batch_on_windows_equals_the_single_maps_on_the_full_grid(shape):
    rng = np.random.default_rng(8)
    references, compareds = [], []
    for _ in range(25):
        pair = np.zeros((2, *shape))
        for one in pair:  # two blocks that may overlap, touch or lie apart
            height, width = rng.integers(1, shape[0] + 1), rng.integers(1, shape[1] + 1)
            top, left = rng.integers(0, shape[0] - height + 1), rng.integers(0, shape[1] - width + 1)
            one[top : top + height, left : left + width] = random_map(rng, (height, width))
        references.append(pair[0])
        compareds.append(pair[1])
    distances, overlaps = compare_maps(as_rows(references), as_rows(compareds), grid_of(shape))
    assert distances == pytest.approx([ks2(*pair) for pair in zip(references, compareds)], abs=1e-12)
    assert overlaps == pytest.approx([mass_overlap(*pair) for pair in zip(references, compareds)], abs=1e-12)


def test_a_base_station_without_a_map_has_no_value():
    corner = np.zeros((4, 4))
    corner[0, 0] = 1.0
    nothing = np.zeros((4, 4))
    distances, overlaps = compare_maps(
        as_rows([corner, nothing, corner, nothing]), as_rows([corner, corner, nothing, nothing]), grid_of((4, 4))
    )
    np.testing.assert_array_equal(distances, [0.0, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(overlaps, [1.0, np.nan, np.nan, np.nan])


def test_stored_zeros_duplicates_and_unsorted_cells_are_understood():
    cells = np.array([5, 0, 5, 3])
    masses = np.array([0.3, 0.5, 0.2, 0.0])
    odd = scipy.sparse.csr_matrix((masses, cells, np.array([0, 4, 4])), shape=(2, 6))
    zeros = scipy.sparse.csr_matrix((np.zeros(1), np.array([2]), np.array([0, 0, 1])), shape=(2, 6))
    plain = scipy.sparse.csr_matrix(np.array([[0.5, 0, 0, 0, 0, 0.5], [1.0, 0, 0, 0, 0, 0]]))
    distances, overlaps = compare_maps(odd, plain, grid_of((2, 3)))
    np.testing.assert_array_equal(distances, [0.0, np.nan])
    np.testing.assert_array_equal(overlaps, [1.0, np.nan])
    assert odd.nnz == 4  # the caller's matrix is not touched
    assert np.isnan(compare_maps(zeros, plain, grid_of((2, 3)))[0]).all()


def test_no_base_stations_is_an_empty_answer():
    none = scipy.sparse.csr_matrix((0, 12))
    distances, overlaps = compare_maps(none, none, grid_of((3, 4)))
    assert distances.shape == overlaps.shape == (0,)


def test_progress_rises_to_one_and_may_be_called_within_one_large_map(monkeypatch):
    side = 1000
    wide = scipy.sparse.csr_matrix(np.full((2, side * side), 1.0 / side**2))
    fractions = []
    monkeypatch.setattr(module, "PULSE_S", 0.0)
    compare_maps(wide, wide, grid_of((side, side)), fractions.append)
    assert fractions == sorted(fractions)
    assert fractions[0] == 0.0
    assert fractions[-1] == 1.0
    assert len(fractions) > 2 * side**2 / module.STRIP_CELLS  # per strip, not per map


def test_cancel_goes_through():
    def cancel(fraction):
        raise Cancelled(f"at {fraction}")

    one = scipy.sparse.csr_matrix(np.full((1, 4), 0.25))
    with pytest.raises(Cancelled):
        compare_maps(one, one, grid_of((2, 2)), cancel)


GOOD = np.full((2, 2), 0.25)


@pytest.mark.parametrize(
    ("reference", "compared", "sentence"),
    [
        (GOOD, np.full((1, 4), 0.25), r"The two maps differ in shape: \(2, 2\) and \(1, 4\)\."),
        (GOOD.ravel(), GOOD.ravel(), r"A map needs the shape \(height, width\) with at least one cell, not \(4,\)\."),
        (GOOD[:0], GOOD[:0], r"A map needs the shape \(height, width\) with at least one cell, not \(0, 2\)\."),
        (GOOD, GOOD * [1, np.nan], r"The compared map holds NaN in 2 of 4 cells; set them to 0\."),
        (np.array([[1.5, -0.5], [0, 0]]), GOOD, r"The reference map holds a negative probability, -0\.5\."),
        (GOOD * 1.002, GOOD, r"The reference map sums to 1\.002, not 1; divide it by its sum\."),
        (GOOD, GOOD * 0, r"The compared map sums to 0, not 1; divide it by its sum\."),
        (GOOD, np.array([[np.inf, 0], [0, 0]]), r"The compared map sums to inf, not 1; divide it by its sum\."),
    ],
)
@pytest.mark.parametrize("measure", [ks2, mass_overlap])
def test_what_is_no_probability_map_is_refused_in_one_sentence(measure, reference, compared, sentence):
    with pytest.raises(InputError, match=f"^{sentence}$"):
        measure(reference, compared)


def test_a_sum_within_the_tolerance_is_taken():
    assert ks2(GOOD * 1.0009, GOOD) == pytest.approx(0.0009, abs=1e-12)
    far = np.array([[1.0009, 0.0], [0.0, 0.0]])
    assert ks2(far, np.fliplr(far)) == 1.0  # never above one


@pytest.mark.parametrize(
    ("reference", "compared", "sentence"),
    [
        (np.eye(3), np.eye(3), r"The reference maps have 3 cells, the grid has 4: 2 x 2 cells of 10 m .*\."),
        (np.eye(4), np.eye(3), r"The compared maps have 3 cells, the grid has 4: .*\."),
        (np.eye(4), np.eye(4)[:3], r"There are 4 reference maps but 3 compared maps\."),
        (np.eye(4), np.eye(4) * [[1], [1], [0.5], [1]], r"Row 2 of the compared maps sums to 0\.5, not 1; .*\."),
        (
            np.eye(4) * [[1], [np.nan], [1], [1]],
            np.eye(4),
            r"Row 1 of the reference maps holds NaN in . of . cells; .*\.",
        ),
    ],
)
def test_what_the_batch_cannot_compare_is_refused_in_one_sentence(reference, compared, sentence):
    with pytest.raises(InputError, match=f"^{sentence}$"):
        compare_maps(scipy.sparse.csr_matrix(reference), scipy.sparse.csr_matrix(compared), grid_of((2, 2)))


def test_is_fast_enough():
    """Measured 1.1 ms for 256 x 256 and 0.13 s for 520 BSs of 100 x 100 cells; the limits are for busy machines."""
    rng = np.random.default_rng(9)
    reference, compared = random_map(rng, (256, 256), 0.0), random_map(rng, (256, 256), 0.0)
    seconds = []
    for _ in range(10):
        start = time.perf_counter()
        ks2(reference, compared)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.010

    n_bs, side, grid = 520, 100, grid_of((600, 600))
    corners = rng.integers(0, 500, (n_bs, 2))
    block = np.arange(side)[:, None] * grid.width + np.arange(side)
    cells = (corners[:, 0] * grid.width + corners[:, 1])[:, None] + block.ravel()
    offsets = np.arange(n_bs + 1) * side**2
    masses = rng.random((2, n_bs, side**2))
    masses /= masses.sum(axis=2, keepdims=True)
    maps = [scipy.sparse.csr_matrix((m.ravel(), cells.ravel(), offsets), shape=(n_bs, grid.size)) for m in masses]
    start = time.perf_counter()
    compare_maps(*maps, grid)
    assert time.perf_counter() - start < 2.0
