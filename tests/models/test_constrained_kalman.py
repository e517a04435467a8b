"""The constrained Kalman filter against least squares over all states at once."""

import numpy as np
import pytest
from telcoloc.models.grid import Grid
from telcoloc.models.landmarks.constrained_kalman import Motion, predicted, smoothed
from telcoloc.models.landmarks.free_cells import FreeSpace


def least_squares(time_s, seen_m, sigma_m, acceleration, first_speed):
    """Places and velocities along one axis that make all of it likeliest: one dense system, whitened, solved at once."""
    n = len(time_s)
    rows, goals = [], []

    def add(coefficients, goal, spread):
        white = np.linalg.inv(np.linalg.cholesky(np.atleast_2d(spread)))
        rows.append(white @ np.atleast_2d(coefficients))
        goals.append(white @ np.atleast_1d(goal))

    unit = np.eye(2 * n)
    add(unit[1], 0.0, first_speed**2)
    for row in range(n):
        if np.isfinite(sigma_m[row]):
            add(unit[2 * row], seen_m[row], sigma_m[row] ** 2)
        if row:
            gap = time_s[row] - time_s[row - 1]
            noise = acceleration**2 * np.array([[gap**3 / 3, gap**2 / 2], [gap**2 / 2, gap]])
            place = unit[2 * row] - unit[2 * row - 2] - gap * unit[2 * row - 1]
            add(np.stack([place, unit[2 * row + 1] - unit[2 * row - 1]]), np.zeros(2), noise)
    states = np.linalg.lstsq(np.concatenate(rows), np.concatenate(goals), rcond=None)[0]
    return states[0::2], states[1::2]


def walk(seed, n=40):
    rng = np.random.default_rng(seed)
    time_s = np.cumsum(rng.uniform(0.3, 1.5, n))
    sigma = np.where(rng.random(n) < 0.2, 2.0, 30.0)
    sigma[rng.random(n) < 0.2] = np.inf
    sigma[0] = 30.0
    true = np.column_stack([8 * time_s, 30 * np.sin(time_s / 8)])
    return time_s, true + np.where(np.isfinite(sigma), sigma, 0.0)[:, None] * rng.normal(size=(n, 2)), sigma


def test_looking_back_is_the_least_squares_path():
    motion = Motion(200.0, 1.5)
    for seed in range(4):
        time_s, seen, sigma = walk(seed)
        found = smoothed(time_s, seen, sigma, motion)
        for axis in range(2):
            true, _ = least_squares(time_s, seen[:, axis], sigma, 1.5, 100.0)
            np.testing.assert_allclose(found[:, axis], true, atol=1e-5)


def test_without_looking_back_every_instant_is_the_end_of_its_own_least_squares_path():
    motion = Motion(200.0, 1.5, smooth=False)
    time_s, seen, sigma = walk(7, 15)
    found = smoothed(time_s, seen, sigma, motion)
    for row in range(1, 15):
        upto = slice(0, row + 1)
        true = [least_squares(time_s[upto], seen[upto, axis], sigma[upto], 1.5, 100.0)[0][-1] for axis in range(2)]
        np.testing.assert_allclose(found[row], true, atol=1e-5)


def test_landmarks_hold_the_path():
    time_s, seen, sigma = walk(3)
    nailed = np.flatnonzero(sigma == 2.0)
    found = smoothed(time_s, seen, sigma, Motion(20.0))
    assert np.hypot(*(found[nailed] - seen[nailed]).T).max() < 6.0


def test_a_prediction_goes_on_at_the_speed_there_was_and_never_faster_than_the_top_speed():
    time_s = np.arange(60.0)
    seen = np.column_stack([7.0 * time_s, -3.0 * time_s])
    when, where = predicted(time_s, seen, np.full(60, 5.0), Motion(20.0), 4.0)
    assert when.tolist() == [60.0, 61.0, 62.0, 63.0]
    np.testing.assert_allclose(where, np.column_stack([7.0 * when, -3.0 * when]), atol=0.5)
    _, slow = predicted(time_s, seen, np.full(60, 5.0), Motion(4.0), 4.0)
    assert np.hypot(*np.diff(slow, axis=0).T).max() <= 4.0 + 1e-9
    when, where = predicted(time_s[:1], seen[:1], np.full(1, 5.0), Motion(4.0), 4.0)  # one instant tells no speed
    assert when.tolist() == [4.0]
    np.testing.assert_allclose(where, seen[:1])


def test_positions_stay_out_of_buildings():
    free = np.ones((20, 20), bool)
    free[8:12, 4:16] = False
    space = FreeSpace(Grid(20, 20, 0.0, 100.0, 5.0), free)
    time_s = np.arange(30.0)
    seen = np.column_stack([np.full(30, 50.0), np.linspace(5, 95, 30)])  # straight through the house
    for positions in (
        smoothed(time_s, seen, np.full(30, 10.0), Motion(20.0), space),
        predicted(time_s[:12], seen[:12], np.full(12, 10.0), Motion(20.0), 8.0, space)[1],
    ):
        assert space.free.ravel()[space.grid.cells_of(positions)].all()


def test_records_of_one_moment_are_weighed_by_their_uncertainty():
    found = smoothed(np.zeros(2), np.array([[0.0, 0.0], [10.0, 0.0]]), np.array([1.0, 3.0]), Motion(10.0))
    assert found[1, 0] == pytest.approx(1.0)


def test_progress_rises_to_the_end_there_and_back():
    time_s = np.arange(3000.0)
    seen = []
    smoothed(time_s, np.zeros((3000, 2)), np.full(3000, 30.0), Motion(20.0), progress=seen.append)
    assert len(seen) == 12
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
