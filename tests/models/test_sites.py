"""Statements about sites: which features are one, and what their spacing says about a grid."""

import numpy as np
import pytest
from telcoloc.models.errors import InputError
from telcoloc.models.geolocation.sites import (
    MOST_CELLS,
    SAME_PLACE_M,
    default_cell_size_m,
    default_margin_m,
    merge_sites,
    nice_length,
)


def lattice(spacing_m, n=6):
    return np.column_stack([axis.ravel() for axis in np.indices((n, n))]) * float(spacing_m)


def test_sectors_at_one_place_are_one_site_and_the_order_is_kept():
    xy = [[500, 500], [0, 0], [500, 500], [-100, 900], [0, 0], [500, 500]]
    sites = merge_sites(["c1", "a1", "c2", "b", "a1", "c2"], xy)
    assert sites.ids == ("c1", "a1", "b")
    np.testing.assert_array_equal(sites.xy_m, [[500, 500], [0, 0], [-100, 900]])
    assert sites.members == (("c1", "c2"), ("a1",), ("b",))
    np.testing.assert_array_equal(sites.sectors, [3, 2, 1])
    assert len(sites) == 3
    assert sites.merged == 3
    assert sites.renamed == 1


def test_distinct_places_are_all_kept():
    xy = np.random.default_rng(0).uniform(0, 1e5, (300, 2))
    ids = [f"bs{i}" for i in range(300)]
    sites = merge_sites(ids, xy)
    assert sites.ids == tuple(ids)
    np.testing.assert_array_equal(sites.xy_m, xy)
    assert sites.merged == sites.renamed == 0


def test_what_reprojection_leaves_is_one_place_wherever_it_lies():
    """Also on both sides of a multiple of half the tolerance, where rounding coordinates would part them."""
    rng = np.random.default_rng(1)
    for corner in (0.0, 0.005, 0.015, 691_000.005, 5_334_000.015):
        xy = corner + rng.uniform(-1e-6, 1e-6, (12, 2))
        sites = merge_sites(["s"] * 12, xy)
        assert len(sites) == 1
        np.testing.assert_array_equal(sites.xy_m[0], xy[0])


def test_places_further_apart_than_the_tolerance_are_two():
    for apart, n_sites in ((0.9 * SAME_PLACE_M, 1), (1.1 * SAME_PLACE_M, 2)):
        for shift in np.linspace(0, 0.02, 23):
            assert len(merge_sites(["a", "b"], [[shift, 0], [shift + apart, 0]])) == n_sites


def test_one_id_at_two_places_is_refused_with_the_distance():
    xy = [[0, 0], [10, 10], [3000, 4000]]
    sentence = (
        r"^Field CELL holds 'x' at two places 5,000 m apart; an id must name one site\. "
        r"Choose a field with unique ids, or leave ID_FIELD empty\.$"
    )
    with pytest.raises(InputError, match=sentence):
        merge_sites(["x", "y", "x"], xy, "CELL")


def test_no_features_are_no_sites():
    sites = merge_sites([], np.zeros((0, 2)))
    assert len(sites) == sites.merged == sites.renamed == 0


@pytest.mark.parametrize(
    ("value", "nice"),
    [(1, 1), (1.99, 1), (2, 2), (4.999, 2), (5, 5), (9.99, 5), (10, 10), (730, 500), (0.3, 0.2), (0.001, 0.001)],
)
def test_nice_lengths_are_one_two_or_five_times_a_power_of_ten(value, nice):
    assert nice_length(value) == pytest.approx(nice, rel=1e-12)


def test_a_nice_length_is_never_larger_and_at_least_two_fifths():
    for value in 10 ** np.random.default_rng(2).uniform(-2, 5, 500):
        nice = nice_length(value)
        assert 0.4 * value < nice <= value * (1 + 1e-9)
        assert f"{nice:.0e}"[0] in "125"
        assert nice_length(nice) == nice


@pytest.mark.parametrize("value", [0.0, -1.0, float("nan"), float("inf")])
def test_no_length_from_nothing(value):
    with pytest.raises(InputError, match=rf"^No sensible length can be derived from {value} m\.$"):
        nice_length(value)


@pytest.mark.parametrize(("spacing", "size"), [(1000, 200), (500, 100), (300, 50), (60, 10)])
def test_the_default_cell_size_is_a_fifth_of_the_spacing_made_nice(spacing, size):
    xy = lattice(spacing)
    assert default_cell_size_m(xy, (0, 0, 5 * spacing, 5 * spacing)) == pytest.approx((size, size))


def test_the_default_cell_size_follows_the_densest_quarter():
    dense, sparse = lattice(100, 5), lattice(5000, 5) + 1e5
    assert default_cell_size_m(np.concatenate([dense, sparse]), (0, 0, 1000, 1000)) == (20, 20)


def test_the_default_grid_has_at_most_a_million_cells():
    for side in 10 ** np.random.default_rng(3).uniform(2, 6, 60):
        size, suitable = default_cell_size_m(lattice(50), (0, 0, side, side))
        assert suitable == 10
        assert (side / size) ** 2 <= MOST_CELLS * (1 + 1e-9)
        assert size == 10 or (side / nice_length(size * 0.51)) ** 2 > MOST_CELLS  # and is no coarser than needed


def test_the_default_cell_size_is_at_least_the_tolerance_of_a_place():
    assert default_cell_size_m(np.array([[0, 0], [0.012, 0]]), (0, 0, 1, 1)) == pytest.approx(
        (SAME_PLACE_M, SAME_PLACE_M)
    )


@pytest.mark.parametrize("spacing", [50.0, 1000.0])
def test_the_default_margin_grows_with_the_spacing(spacing):
    margin = default_margin_m(lattice(spacing))
    assert margin == pytest.approx(default_margin_m(lattice(1.0)) * spacing)
    assert margin == pytest.approx(spacing)  # on a lattice the nearest neighbour of each is one spacing away


def test_one_remote_base_station_does_not_set_the_margin():
    xy = np.concatenate([lattice(100), [[1e6, 1e6]]])
    assert default_margin_m(xy) == pytest.approx(100)


def test_two_base_stations_are_enough_for_defaults():
    xy = np.array([[0.0, 0.0], [3000.0, 4000.0]])
    assert default_margin_m(xy) == pytest.approx(5000)
    assert default_cell_size_m(xy, (-5000, -5000, 8000, 9000))[0] == 1000
