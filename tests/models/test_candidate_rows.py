"""Candidates and the rows of a table are two forms of one thing."""

import numpy as np
import pytest
from telcoloc.models.landmarks.candidate_rows import candidates_of, in_rows
from telcoloc.models.landmarks.candidates import Candidates


@pytest.fixture
def some():
    """Two trajectories with 3, 0, 1 and 2, 0 candidates."""
    rng = np.random.default_rng(4)
    return Candidates(
        ("a", "b"),
        np.array([0, 0, 0, 1, 1], dtype=np.int32),
        ("a #1", "b #1"),
        np.array([0, 0, 0, 1, 1], dtype=np.int32),
        np.array([10.0, 10.5, 10.5, 3.0, 4.0]),
        np.array([0, 3, 3, 4, 6, 6]),
        rng.uniform(0, 100, (6, 2)),
        np.array([1.0, 2.0, 5.0, 3.0, 4.0, 4.0]),
        np.array([7, 8, 9, 70, 71]),
    )


def test_every_instant_has_a_row(some):
    instant, rank, at = in_rows(some)
    assert instant.tolist() == [0, 0, 0, 1, 2, 3, 3, 4]
    assert rank.tolist() == [1, 2, 3, 0, 1, 1, 2, 0]
    assert at.tolist() == [0, 1, 2, -1, 3, 4, 5, -1]


@pytest.mark.parametrize("seed", range(4))
def test_shuffled_rows_give_the_candidates_back(some, seed):
    instant, rank, at = in_rows(some)
    xy = np.where((at >= 0)[:, None], some.xy_m[at], np.nan)
    number = np.array([0, 0, 0, 1, 2, 0, 0, 1.0])
    mix = np.random.default_rng(seed).permutation(len(at))
    back = candidates_of(
        (some.devices, some.device[instant][mix]),
        (some.trajectories, some.trajectory[instant][mix]),
        some.time_s[instant][mix],
        xy[mix],
        instant=number[mix],
        rank=np.where(rank > 0, rank, np.nan)[mix],
        error_db=np.where(at >= 0, some.error_db[at], np.nan)[mix],
        row=some.row[instant][mix],
    )
    assert back.devices == some.devices
    assert back.trajectories == some.trajectories
    for name in ("device", "trajectory", "time_s", "first", "xy_m", "error_db", "row"):
        np.testing.assert_array_equal(getattr(back, name), getattr(some, name), err_msg=name)


def test_rows_with_nothing_but_times_stand_by_time_and_in_their_order():
    nobody = ([], np.full(4, -1))
    xy = np.array([[1, 1], [2, 2], [3, 3], [4, 4.0]])
    back = candidates_of(nobody, nobody, np.array([5.0, 3.0, 5.0, 3.0]), xy)
    assert back.devices == ("",)
    assert back.time_s.tolist() == [3.0, 5.0]
    assert back.xy_m[:, 0].tolist() == [2, 4, 1, 3]
    assert np.isnan(back.error_db).all()


def test_without_ranks_the_smaller_error_is_better():
    nobody = ([], np.full(3, -1))
    xy = np.array([[1, 1], [2, 2], [3, 3.0]])
    back = candidates_of(nobody, nobody, np.zeros(3), xy, error_db=np.array([3.0, np.nan, 1.0]))
    assert back.xy_m[:, 0].tolist() == [3, 1, 2]


def test_two_devices_of_one_trajectory_take_turns_in_time():
    back = candidates_of(
        (["a", "b"], np.array([0, 0, 1, 1])),
        (["walk"], np.zeros(4, dtype=int)),
        np.array([0.0, 2.0, 1.0, 3.0]),
        np.arange(8.0).reshape(4, 2),
    )
    assert back.time_s.tolist() == [0, 1, 2, 3]
    assert back.device.tolist() == [0, 1, 0, 1]
    assert back.xy_m[:, 0].tolist() == [0, 4, 2, 6]


def test_no_rows_are_no_instants():
    back = candidates_of(([], np.empty(0, dtype=int)), ([], np.empty(0, dtype=int)), np.empty(0), np.empty((0, 2)))
    assert len(back) == 0
    assert back.first.tolist() == [0]
    assert len(in_rows(back)[0]) == 0
