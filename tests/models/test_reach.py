"""Statements about which base stations matter in a tile. Oracles: brute force (`exact`, see conftest) and a k-d tree."""

import numpy as np
import pytest
from scipy.spatial import cKDTree
from telcoloc.models.geolocation.reach import (
    NearestReach,
    UniformReach,
    group_tiles,
    keep_nearest,
)


def towns(rng, n_bs):
    """BSs in clusters of very different density, some of them only 5 cm apart."""
    centres = rng.uniform(0, 20_000, (max(1, n_bs // 12), 2))
    spread = 10 ** rng.uniform(1, 3.5, len(centres))
    town = rng.integers(0, len(centres), n_bs)
    xy = centres[town] + rng.normal(size=(n_bs, 2)) * spread[town, None]
    if n_bs > 8:
        xy[1::7] = xy[0::7][: len(xy[1::7])] + 0.05
    return xy


@pytest.mark.parametrize("n_bs", [1, 2, 3, 8, 9, 20, 150])
@pytest.mark.parametrize("beta", [0.5, 2.0, 4.0, 6.0])
def test_what_a_tile_drops_is_negligible_everywhere_in_it(exact, n_bs, beta):
    rng = np.random.default_rng(n_bs)
    xy = towns(rng, n_bs)
    tree = cKDTree(xy)
    dropping = 0
    for radius in (1.0, 50.0, 700.0):
        centres = np.concatenate([rng.uniform(-5000, 25_000, (5, 2)), xy[rng.integers(0, n_bs, 4)]])
        for negligible in (1e-2, 2e-7):
            groups = group_tiles(UniformReach(tree, beta), centres, radius, negligible)
            assert sorted(np.concatenate([group.tiles for group in groups])) == list(range(9))
            for group in groups:
                assert group.neighbours.shape[1] >= min(8, n_bs)
                dropping += group.neighbours.shape[1] < n_bs
                for tile, kept in zip(group.tiles, group.neighbours):
                    assert len(set(kept)) == len(kept)
                    if len(kept) == n_bs:
                        continue
                    angle = rng.uniform(0, 2 * np.pi, 12)
                    away = radius * np.sqrt(rng.uniform(0, 1, 12))
                    away[:6] = radius  # the corners are the hardest
                    points = centres[tile] + np.column_stack([away * np.cos(angle), away * np.sin(angle)])
                    distances = np.linalg.norm(points[None] - xy[:, None], axis=2)
                    dropped = np.setdiff1d(np.arange(n_bs), kept)
                    assert exact(distances, beta)[dropped].sum(axis=0).max() <= negligible + 1e-12
    if n_bs == 150 and beta >= 2:
        assert dropping  # or nothing was tested


def test_a_dropped_base_station_cannot_be_the_nearest_of_a_corner():
    """Eight BSs just inside one edge of a large tile, the ninth just outside the opposite edge: it owns that corner."""
    xy = np.concatenate([np.column_stack([np.full(8, 90.0), np.linspace(-10, 10, 8)]), [[-100.5, 0.0]]])
    for beta in (2.0, 6.0, 20.0):
        (group,) = group_tiles(UniformReach(cKDTree(xy), beta), np.zeros((1, 2)), 100.0, 1e-5)
        assert group.neighbours.shape == (1, 9)


@pytest.mark.parametrize("neighbours", [2, 5, 8, 9, 20])
def test_a_tile_holds_the_nearest_of_all_its_points(neighbours):
    rng = np.random.default_rng(13)
    xy = towns(rng, 60)
    tree = cKDTree(xy)
    radius = 300.0
    centres = rng.uniform(0, 20_000, (40, 2))
    seen = 0
    for group in group_tiles(NearestReach(tree, neighbours), centres, radius, 1e-3):
        for tile, kept in zip(group.tiles, group.neighbours):
            angle = rng.uniform(0, 2 * np.pi, 20)
            points = centres[tile] + radius * np.column_stack([np.cos(angle), np.sin(angle)])
            assert set(tree.query(points, k=neighbours)[1].ravel()) <= set(kept)
            seen += 1
    assert seen == 40


def test_keep_nearest_sets_all_others_to_infinity():
    squared = np.array([[4.0, 1.0, 2.0], [1.0, 2.0, 2.0], [3.0, 3.0, 2.0], [2.0, 0.0, 9.0]])
    two = squared.copy()
    keep_nearest(two, 2)
    inf = np.inf
    np.testing.assert_array_equal(two, [[inf, 1, 2], [1, inf, 2], [inf, inf, 2], [2, 0, inf]])  # equals stay together
    same = squared.copy()
    keep_nearest(same, 4)
    np.testing.assert_array_equal(same, squared)
