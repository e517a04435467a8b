"""Statements about the filters: the smoother is least squares, many particles are Kalman's filter, and both bring fixes nearer."""

import time

import numpy as np
import pytest
from telcoloc.models.errors import Cancelled
from telcoloc.models.trajectory import filters
from telcoloc.models.trajectory.filters import kalman_smoother, particle_filter


def drives(lengths, sigma_m=40.0, seed=0, outliers=0.0):
    """Straight drives with turns, irregular times and some of them twice; (starts, time, x, y, sigma), (true x, true y)."""
    rng = np.random.default_rng(seed)
    starts = np.concatenate([[0], np.cumsum(lengths)])
    n = starts[-1]
    gap = rng.choice([0.0, 1.0, 2.0, 2.0, 5.0], n)
    gap[starts[:-1]] = 0
    speed = np.cumsum(rng.normal(0, 0.6, (2, n)) * np.sqrt(gap), axis=1)
    way = np.cumsum(speed * gap, axis=1)
    part = np.repeat(np.arange(len(lengths)), lengths)
    true = way - way[:, starts[:-1]][:, part] + rng.uniform(-2000, 2000, (2, len(lengths)))[:, part]
    times = np.cumsum(gap)
    sigma = sigma_m * rng.uniform(0.5, 1.5, n)
    noise = rng.normal(0, sigma, (2, n))
    noise += np.where(rng.random(n) < outliers, 600.0, 0.0)
    return (starts, times, *(true + noise), sigma), true


def wandering(n, speed=4.0, seed=0):
    """A random walk as the particles have it, and fixes of it."""
    rng = np.random.default_rng(seed)
    times = np.cumsum(rng.choice([0.0, 1.0, 2.0, 5.0], n))
    true = np.cumsum(rng.normal(0, 1, (2, n)) * speed * np.diff(times, prepend=times[0]), axis=1)
    sigma = rng.uniform(20, 60, n)
    x, y = true + rng.normal(0, sigma, (2, n))
    return np.array([0, n]), times, x, y, sigma


def least_squares(times, fixes, sigma, acceleration):
    """The path and its variances along one axis by dense normal equations: states (position, velocity) of all records at once."""
    n = len(times)
    rows, right = [], []

    def add(columns, value, scale):
        row = np.zeros(2 * n)
        row[list(columns)] = [weight / scale for weight in columns.values()]
        rows.append(row)
        right.append(value / scale)

    for index in range(n):
        add({2 * index: 1.0}, fixes[index], sigma[index])
    add({1: 1.0}, 0.0, filters._FIRST_SPEED_M_S)
    for index in range(1, n):
        gap = times[index] - times[index - 1]
        noise = acceleration**2 * np.array([[gap**3 / 3, gap**2 / 2], [gap**2 / 2, gap]])
        # two whitened equations: L⁻¹ (state − F · last state) = 0
        whiten = np.linalg.inv(np.linalg.cholesky(noise))
        block = np.zeros((2, 2 * n))
        block[:, 2 * index : 2 * index + 2] = np.eye(2)
        block[:, 2 * index - 2 : 2 * index] = -np.array([[1, gap], [0, 1]])
        rows.extend(whiten @ block)
        right.extend([0.0, 0.0])
    matrix = np.array(rows)
    covariance = np.linalg.inv(matrix.T @ matrix)
    state = covariance @ matrix.T @ np.array(right)
    return state[::2], np.diag(covariance)[::2]


def kalman_of_wandering(times, fixes, sigma, speed):
    """The filter of a random walk in closed form: means, variances; then those given all fixes (RTS)."""
    n = len(times)
    mean, variance, early = np.zeros(n), np.zeros(n), np.full(n, np.inf)
    mean[0], variance[0] = fixes[0], sigma[0] ** 2
    for index in range(1, n):
        early[index] = variance[index - 1] + (speed * (times[index] - times[index - 1])) ** 2
        gain = early[index] / (early[index] + sigma[index] ** 2)
        mean[index] = mean[index - 1] + gain * (fixes[index] - mean[index - 1])
        variance[index] = (1 - gain) * early[index]
    smooth, smooth_variance = mean.copy(), variance.copy()
    for index in range(n - 2, -1, -1):
        gain = variance[index] / early[index + 1]
        smooth[index] += gain * (smooth[index + 1] - mean[index])
        smooth_variance[index] += gain**2 * (smooth_variance[index + 1] - early[index + 1])
    return (mean, variance), (smooth, smooth_variance)


def off(true, x, y):
    return np.hypot(x - true[0], y - true[1])


# The smoother


@pytest.mark.parametrize("acceleration", [0.05, 0.5, 5.0])
def test_the_smoother_is_least_squares(acceleration):
    rng = np.random.default_rng(3)
    lengths = [1, 2, 7, 25, 3]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    times = np.cumsum(rng.uniform(0.3, 20.0, starts[-1]))
    x, y = rng.normal(0, 300, (2, starts[-1]))
    sigma = rng.uniform(5, 80, starts[-1])
    got = kalman_smoother(starts, times, x, y, sigma, acceleration_m_s2=acceleration, outlier=np.inf)
    for begin, end in zip(starts[:-1], starts[1:]):
        part = slice(begin, end)
        for mean, fixes in ((got[0], x), (got[1], y)):
            wanted, variance = least_squares(times[part], fixes[part], sigma[part], acceleration)
            np.testing.assert_allclose(mean[part], wanted, atol=1e-4)
            np.testing.assert_allclose(got[2][part], np.sqrt(2 * variance), rtol=1e-4)


def test_two_fixes_at_one_time_are_one_of_half_the_variance():
    twice = kalman_smoother([0, 4], [0, 0, 10, 10], [0, 10, 50, 70], [0, 0, 0, 0], [20, 20, 20, 20], outlier=np.inf)
    once = kalman_smoother([0, 2], [0, 10], [5, 60], [0, 0], np.array([20, 20]) / np.sqrt(2), outlier=np.inf)
    np.testing.assert_allclose(twice[0], once[0].repeat(2), atol=1e-6)
    np.testing.assert_allclose(twice[2], once[2].repeat(2), atol=1e-6)


def test_pieces_of_a_long_trajectory_join_without_a_seam(monkeypatch):
    given, _ = drives([1500, 40])
    whole = kalman_smoother(*given)
    monkeypatch.setattr(filters, "_SMOOTHER_PIECE", 200)
    monkeypatch.setattr(filters, "_SMOOTHER_WARM_UP", 150)
    for one, other in zip(whole, kalman_smoother(*given)):
        np.testing.assert_allclose(one, other, atol=0.01)


def test_outliers_lose_their_weight():
    given, true = drives([200] * 10, outliers=0.03)
    robust, plain = (kalman_smoother(*given, outlier=outlier) for outlier in (2.0, np.inf))
    assert np.quantile(off(true, *robust[:2]), 0.9) < 0.6 * np.quantile(off(true, *plain[:2]), 0.9)


# The particles


def test_many_particles_are_kalmans_filter():
    starts, times, x, y, sigma = wandering(60)
    forth, both = kalman_of_wandering(times, x, sigma, 4.0)
    runs = [
        particle_filter(starts, times, x, y, sigma, seed=seed, particles=20_000, speed_m_s=4.0, both_ways=False)
        for seed in range(4)
    ]
    for mean, _, spread in runs:
        assert np.abs(mean - forth[0]).max() < 8 * np.sqrt(forth[1].max() / 20_000)
        np.testing.assert_allclose(spread, np.sqrt(2 * forth[1]), rtol=0.1)
    mean, _, spread = particle_filter(starts, times, x, y, sigma, seed=0, particles=20_000, speed_m_s=4.0)
    assert np.abs(mean - both[0]).max() < 8 * np.sqrt(forth[1].max() / 20_000)
    np.testing.assert_allclose(spread, np.sqrt(2 * both[1]), rtol=0.1)


def test_the_error_of_few_particles_falls_with_their_root():
    starts, times, x, y, sigma = wandering(50, 3.0)
    exact = kalman_of_wandering(times, x, sigma, 3.0)[0][0]

    def error(particles):
        runs = [
            particle_filter(starts, times, x, y, sigma, seed=seed, particles=particles, speed_m_s=3.0, both_ways=False)[
                0
            ]
            for seed in range(8)
        ]
        return np.sqrt(np.mean((np.array(runs) - exact) ** 2))

    assert error(1600) < 0.75 * error(400) < 0.6 * error(100)


@pytest.mark.parametrize("speed", filters.SPEEDS_M_S[1:])
def test_the_likely_speed_is_the_one_that_was_walked(speed):
    found = filters.likely_speeds(*wandering(400, speed, seed=5))
    assert len(set(found.tolist())) == 1
    assert 0.4 < found[0] / speed < 2.5


def test_systematic_resampling_copies_each_particle_its_share_of_times():
    rng = np.random.default_rng(0)
    weight = rng.exponential(size=(50, 200))
    weight[0], weight[1] = 0, 1
    weight[0, 7] = 1
    share = np.cumsum(weight, axis=1) / weight.sum(axis=1, keepdims=True)
    chosen = filters._systematic(share, rng).reshape(50, 200)
    assert (chosen // 200 == np.arange(50)[:, None]).all()
    copies = np.stack([np.bincount(row % 200, minlength=200) for row in chosen])
    wanted = 200 * weight / weight.sum(axis=1, keepdims=True)
    assert (np.abs(copies - wanted) < 1 + 1e-9).all()
    assert (copies.sum(axis=1) == 200).all()


def test_a_long_gap_and_a_sharp_fix_leave_no_particle_astray():
    x = np.array([0.0, 0, 50_000, 50_000])
    found = particle_filter([0, 4], [0, 2, 9000, 9002], x, x, [30, 30, 1, 1], seed=0)
    assert np.abs(found[0] - x)[2:].max() < 2
    assert np.isfinite(found).all()


# Both


def test_both_bring_fixes_nearer():
    given, true = drives([150, 80, 1, 200, 2, 400], sigma_m=60)
    raw = off(true, *given[2:4])
    particles = particle_filter(*given, seed=1)
    smooth = kalman_smoother(*given)
    assert np.median(off(true, *particles[:2])) < 0.7 * np.median(raw)
    assert np.median(off(true, *smooth[:2])) < 0.6 * np.median(raw)
    for x, y, spread in (particles, smooth):
        normal = (x - true[0]) ** 2 + (y - true[1]) ** 2 < spread**2 * np.log(2)
        assert normal.mean() > 0.25  # half, if the fixes moved as the filter thinks
        assert (spread > 0).all()


def test_same_seed_same_path_and_trajectories_do_not_touch():
    given, _ = drives([100, 30, 5])
    one, same, other = (particle_filter(*given, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert not np.array_equal(one, other)
    starts, times, x, y, sigma = given
    moved = x.copy()
    moved[:100] += 1e5
    np.testing.assert_array_equal(
        kalman_smoother(starts, times, moved, y, sigma)[0][100:], kalman_smoother(*given)[0][100:]
    )


@pytest.mark.parametrize("smooth", [kalman_smoother, lambda *given, **more: particle_filter(*given, seed=0, **more)])
def test_nothing_one_record_and_one_moment(smooth):
    assert all(len(values) == 0 for values in smooth(np.zeros(1, int), *(np.zeros(0) for _ in range(4))))
    x, y, spread = smooth([0, 1, 4], [5.0, 7, 7, 7], [1.0, 2, 2, 2], [3.0, 4, 4, 4], [10.0, 0, 10, 10])
    np.testing.assert_allclose(x, [1, 2, 2, 2], atol=1.5)
    np.testing.assert_allclose(y, [3, 4, 4, 4], atol=1.5)
    assert np.isfinite(spread).all()
    assert spread[0] == pytest.approx(np.sqrt(200))


@pytest.mark.parametrize("smooth", [kalman_smoother, lambda *given, **more: particle_filter(*given, seed=0, **more)])
def test_cancel(smooth):
    given, _ = drives([300] * 200)
    calls = []

    def progress(fraction):
        calls.append(time.monotonic())
        if len(calls) > 2:
            raise Cancelled

    began = time.monotonic()
    with pytest.raises(Cancelled):
        smooth(*given, progress=progress)
    assert time.monotonic() - began < 6.0  # the goal is 1 s on an idle machine
