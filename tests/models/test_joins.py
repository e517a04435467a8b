"""Records of two tables find each other as by brute force."""

import numpy as np
import pytest
from telcoloc.models.trajectory.joins import common_codes, joint_keys, nearest_in_time, same_row


def test_names_of_two_tables_in_one_list():
    one, other = common_codes((["a", "b"], np.array([1, 0, -1])), (["c", "b"], np.array([0, 1, 1, -1])))
    assert one.tolist() == [1, 0, -1]
    assert other.tolist() == [2, 1, 1, -1]


def test_joint_keys_are_equal_where_both_parts_are():
    rng = np.random.default_rng(0)
    key, value, other_key, other_value = (rng.integers(-1, 5, n) for n in (40, 40, 30, 30))
    mine, theirs = joint_keys(key, value, other_key, other_value)
    expected = (key[:, None] == other_key) & (value[:, None] == other_value)
    np.testing.assert_array_equal(mine[:, None] == theirs, expected)


@pytest.mark.parametrize("seed", range(3))
def test_nearest_in_time_as_by_brute_force(seed):
    rng = np.random.default_rng(seed)
    key, other_key = rng.integers(0, 4, 300), rng.integers(0, 5, 200)
    time_s, other_time_s = rng.integers(0, 400, 300).astype(float), rng.integers(0, 400, 200) + 0.25
    found = nearest_in_time(key, time_s, other_key, other_time_s, 2.0)
    away = np.abs(time_s[:, None] - other_time_s)
    away[key[:, None] != other_key] = np.inf
    least = away.min(axis=1)
    np.testing.assert_array_equal(found >= 0, least <= 2.0)
    chosen = np.flatnonzero(found >= 0)
    np.testing.assert_allclose(away[chosen, found[chosen]], least[chosen])


def test_nearest_in_time_at_the_edges():
    none = np.empty(0, dtype=np.int64)
    assert nearest_in_time(np.zeros(2, dtype=np.int64), np.zeros(2), none, np.empty(0), 9.0).tolist() == [-1, -1]
    assert nearest_in_time(none, np.empty(0), np.zeros(2, dtype=np.int64), np.zeros(2), 9.0).tolist() == []
    key, other_key = np.array([0, 0, 1]), np.array([0, 0])
    # midway between two the earlier; after the last; another device's moments are nothing to it
    found = nearest_in_time(key, np.array([5.0, 10.001, 5.0]), other_key, np.array([10.0, 0.0]), 5.0)
    assert found.tolist() == [1, 0, -1]
    # a rounded millisecond is no distance
    assert nearest_in_time(key[:1], np.array([5.001]), np.array([0]), np.array([0.0]), 5.0).tolist() == [0]
    assert nearest_in_time(key[:1], np.array([5.01]), np.array([0]), np.array([0.0]), 5.0).tolist() == [-1]


@pytest.mark.parametrize("seed", range(3))
def test_same_row_as_by_brute_force(seed):
    rng = np.random.default_rng(seed)
    key, row, other_key, other_row = (
        values for n in (120, 90) for values in (rng.integers(0, 3, n), rng.integers(-1, 60, n))
    )
    time_s, other_time_s = rng.uniform(0, 6, 120), rng.uniform(0, 6, 90)
    found = same_row(key, row, time_s, other_key, other_row, other_time_s, 2.0)
    for mine in range(120):
        same = np.flatnonzero((other_key == key[mine]) & (other_row == row[mine]) & (row[mine] >= 0))
        partner = same[0] if len(same) == 1 and abs(other_time_s[same[0]] - time_s[mine]) <= 2.0 else -1
        assert found[mine] == partner
    assert (found >= 0).any()
    nothing = np.full(90, -1)
    assert (same_row(key, row, time_s, other_key, nothing, other_time_s, 2.0) == -1).all()
