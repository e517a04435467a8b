"""Where devices were between known positions: straight lines, and nothing beyond."""

import numpy as np
from telcoloc.models.landmarks.true_positions import positions_at


def test_between_known_positions_lies_a_straight_line_and_beyond_them_nothing():
    known_time = np.array([10.0, 0.0, 200.0, 210.0])
    known = np.array([[100.0, 50.0], [0.0, 0.0], [5.0, 5.0], [5.0, 25.0]])
    asked = np.array([-1.0, 0.0, 2.5, 10.0, 10.001, 100.0, 205.0, 210.0011, 211.0])
    found = positions_at(np.zeros(9, int), asked, np.zeros(4, int), known_time, known)
    expected = [[np.nan] * 2, [0, 0], [25, 12.5], [100, 50], [100, 50], [np.nan] * 2, [5, 15], [5, 25], [np.nan] * 2]
    np.testing.assert_allclose(found, expected, atol=0.01)  # silent for 190 s: nothing is known


def test_devices_do_not_know_each_other():
    key, times = np.array([1, 0, 2]), np.array([1.0, 1.0, 1.0])
    found = positions_at(
        key, times, np.array([0, 0, 1]), np.array([0.0, 2.0, 1.0]), np.array([[0.0, 0], [4, 4], [9, 9]])
    )
    np.testing.assert_allclose(found, [[9, 9], [2, 2], [np.nan, np.nan]])
