"""Smoother paths from single fixes: a particle filter as the DeepLoc paper uses it, and a Kalman smoother.

All trajectories take their steps together, the first records of all, then the second, so that numpy works on long arrays. A trajectory
much longer than the others is cut into pieces that overlap by more than either filter remembers.

References
----------
The particle filter: DeepLoc (MobiQuitous 2019), section 5.2: 500 particles, Gaussian system and observation noise. Proposal: A. Doucet,
S. Godsill, C. Andrieu: On sequential Monte Carlo sampling methods for Bayesian filtering. Statistics and Computing 10 (2000), II-D.
The smoother: H. Rauch, F. Tung, C. Striebel: Maximum likelihood estimates of linear dynamic systems. AIAA Journal 3 (1965).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..chunks import run_chunks
from ..progress import Progress, no_progress, span

#: Smallest observation noise [m]: no fix is better than this.
_LEAST_SIGMA_M = 1.0
#: Trajectories that step together: their particles fit into a processor's cache, and cancelling is prompt.
_TOGETHER = 64
#: Pieces of a long trajectory, and the records on each side that only warm a filter up.
_PIECE, _WARM_UP = 512, 64
#: The same for the Kalman smoother, which remembers speeds.
_SMOOTHER_PIECE, _SMOOTHER_WARM_UP = 4096, 512
#: A device moves slower than this at first [m/s], two times in three along each axis.
_FIRST_SPEED_M_S = 10.0
#: Speeds that a trajectory may have, along each axis [m/s]: from standing to a motorway.
SPEEDS_M_S = (0.3, 0.7, 1.5, 3.0, 6.0, 12.0, 24.0)
#: Records of a trajectory that weigh as much as what suits all others.
_PRIOR_RECORDS = 20
#: Degrees of freedom of surprises.
_FREEDOM = 4.0
#: Rounds in which outliers lose weight.
_ROUNDS = 4
#: Two fixes with the same uncertainty and time count for 1e-3 s apart where a division needs it.
_LEAST_VARIANCE = 1e-9


@dataclass(frozen=True)
class Pieces:
    """Runs of rows that step together, the longest first.

    Parameters
    ----------
    begin, end
        First row and the one behind the last, shape (n_pieces,).
    kept_begin, kept_end
        The rows whose results count; those of all pieces together are every row once.
    """

    begin: np.ndarray
    end: np.ndarray
    kept_begin: np.ndarray
    kept_end: np.ndarray

    @classmethod
    def of(cls, starts: np.ndarray, longest: int, warm_up: int) -> Pieces:
        starts = np.asarray(starts, dtype=np.int64)
        length = np.diff(starts)
        count = np.maximum(-(-length // longest), (length > 0).astype(np.int64))
        which = np.repeat(np.arange(len(length)), count)
        rank = np.arange(len(which)) - np.repeat(np.cumsum(count) - count, count)
        kept_begin = starts[which] + rank * length[which] // np.maximum(count[which], 1)
        kept_end = starts[which] + (rank + 1) * length[which] // np.maximum(count[which], 1)
        begin = np.maximum(kept_begin - warm_up, starts[which])
        end = np.minimum(kept_end + warm_up, starts[which + 1])
        order = np.argsort(begin - end, kind="stable")
        return cls(begin[order], end[order], kept_begin[order], kept_end[order])

    def __len__(self) -> int:
        return len(self.begin)

    def part(self, start: int, stop: int) -> Pieces:
        return Pieces(*(column[start:stop] for column in (self.begin, self.end, self.kept_begin, self.kept_end)))

    def laid_out(self, values: np.ndarray, backwards: bool = False) -> np.ndarray:
        """Values (n_rows,) by step and piece, shape (n_steps, n_pieces); the last one goes on behind a piece's end."""
        step = np.arange(int((self.end - self.begin).max()))[:, None]
        rows = np.maximum(self.end - 1 - step, self.begin) if backwards else np.minimum(self.begin + step, self.end - 1)
        return np.asarray(values[rows], dtype=float)

    def active(self) -> np.ndarray:
        """Number of pieces that have a record at each step, shape (n_steps,)."""
        length = self.end - self.begin
        return np.searchsorted(-length, -np.arange(1, int(length.max()) + 1), side="right")

    def collected(self, stepped: np.ndarray, into: np.ndarray, backwards: bool = False) -> None:
        """Write values by step and piece to the rows that count; the inverse of `laid_out`."""
        for piece in range(len(self)):
            one = stepped[: self.end[piece] - self.begin[piece], piece]
            one = one[::-1] if backwards else one
            first = self.begin[piece]
            kept = slice(self.kept_begin[piece], self.kept_end[piece])
            into[kept] = one[kept.start - first : kept.stop - first]


def particle_filter(
    starts: np.ndarray,
    time_s: np.ndarray,
    x_m: np.ndarray,
    y_m: np.ndarray,
    sigma_m: np.ndarray,
    *,
    seed: int,
    particles: int = 500,
    speed_m_s: float | None = None,
    both_ways: bool = True,
    threads: int = 1,
    progress: Progress = no_progress,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Filter fixes with particles that wander at random: Gaussian system and observation noise.

    A particle's next position is normal around its last one with a standard deviation of `speed_m_s` · time along each axis; a fix is
    normal around it with `sigma_m`. Particles are drawn with the fix in view (the optimal proposal) and resampled systematically, so long
    gaps and sharp fixes leave none of them astray. With two normal noises the filter's limit for many particles is Kalman's.

    Parameters
    ----------
    starts
        First row of each trajectory and the number of rows at the end (`Measurements.starts`).
    time_s
        Ascending within a trajectory, shape (n,); equal times are allowed.
    x_m, y_m, sigma_m
        Fixes and their standard deviations along each axis [m], shape (n,), finite.
    seed
        Of the particles.
    speed_m_s
        Standard deviation of the speed along each axis [m/s]; by default, for each trajectory the one of `SPEEDS_M_S` that makes its fixes
        most likely (`likely_speeds`).
    both_ways
        Whether what comes after a record counts as well: a second filter runs backwards, and both are weighed by their variances.

    Returns
    -------
    (x_m, y_m, spread_m)
        Shape (n,); the spread is the root of the summed variances along both axes.
    """
    n = len(time_s)
    pieces = Pieces.of(starts, _PIECE, _WARM_UP)
    columns = [np.asarray(values, dtype=float) for values in (time_s, x_m, y_m, np.maximum(sigma_m, _LEAST_SIGMA_M))]
    speed = np.full(n, speed_m_s) if speed_m_s else likely_speeds(starts, *columns)
    columns.append(speed)
    forth, back = np.zeros((3, n)), np.zeros((3, n))

    def work(start: int, stop: int) -> None:
        batch = pieces.part(start, stop)
        rng = np.random.default_rng([seed, start])
        for stepped, into in zip(_particles(batch, columns, rng, particles, False), forth):
            batch.collected(stepped, into)
        if both_ways:
            for stepped, into in zip(_particles(batch, columns, rng, particles, True), back):
                batch.collected(stepped, into, backwards=True)

    run_chunks(work, len(pieces), _TOGETHER, threads, progress)
    x, y, variance = forth
    if both_ways:
        share = variance / (variance + back[2])  # 0 at the end of a trajectory, where nothing comes after
        x, y, variance = x + share * (back[0] - x), y + share * (back[1] - y), variance * (1 - share)
    return x, y, np.sqrt(2 * np.maximum(variance, _LEAST_VARIANCE))


def _particles(
    pieces: Pieces,
    columns: list[np.ndarray],
    rng: np.random.Generator,
    particles: int,
    backwards: bool,
) -> np.ndarray:
    """Run the filter over some pieces, which share their noise: each is a fair sample of its own.

    Returns
    -------
    numpy.ndarray
        x, y and variance along an axis by step and piece, shape (3, n_steps, n_pieces): forwards with the fix of the step, backwards
        without (and an infinite variance at the first step).
    """
    time_s, x, y, sigma, speed = (pieces.laid_out(column, backwards) for column in columns)
    found = np.zeros((3, *x.shape))
    found[0, 0], found[1, 0], found[2, 0] = x[0], y[0], np.inf if backwards else sigma[0] ** 2
    here = np.array([x[0], y[0]])  # particles are kept about it, so that float32 is precise
    noise = rng.standard_normal((2, 1, particles), dtype=np.float32)
    cloud = noise * sigma[0].astype(np.float32)[:, None]
    for step, active in enumerate(pieces.active().tolist()):
        if step == 0:
            continue
        cloud, here = cloud[:, :active], here[:, :active]
        moved = (speed[step, :active] * np.abs(time_s[step, :active] - time_s[step - 1, :active])) ** 2
        seen = sigma[step, :active] ** 2
        if backwards:
            middle = cloud.mean(axis=2, dtype=np.float64)
            found[:2, step, :active] = here + middle
            found[2, step, :active] = _spread(cloud, middle, 1 / particles) + moved
        fix = np.array([x[step, :active], y[step, :active]]) - here
        to_fix = fix[:, :, None].astype(np.float32) - cloud
        far = to_fix[0] * to_fix[0]
        far += to_fix[1] * to_fix[1]
        far -= far.min(axis=1, keepdims=True)
        far *= (-0.5 / (moved + seen)).astype(np.float32)[:, None]
        weight = np.exp(far, out=far)
        share = np.cumsum(weight, axis=1, dtype=np.float64)
        share /= share[:, -1:]
        gain = moved / (moved + seen)
        proposed = cloud
        proposed += gain.astype(np.float32)[:, None] * to_fix
        weight /= weight.sum(axis=1, keepdims=True)
        mean = np.einsum("amp,mp->am", proposed, weight, dtype=np.float64)
        if not backwards:
            found[:2, step, :active] = here + mean
            found[2, step, :active] = _spread(proposed, mean, weight) + gain * seen
        chosen = _systematic(share, rng)
        noise = rng.standard_normal((2, 1, particles), dtype=np.float32)
        cloud = proposed.reshape(2, -1).take(chosen, axis=1).reshape(proposed.shape)
        cloud -= mean[:, :, None].astype(np.float32)
        cloud += noise * np.sqrt(gain * seen).astype(np.float32)[:, None]
        here = here + mean
    return found


def _spread(cloud: np.ndarray, middle: np.ndarray, weight: np.ndarray | float) -> np.ndarray:
    """Variance along an axis of particles (2, m, n) about their middle (2, m), shape (m,)."""
    apart: np.ndarray = cloud - middle[:, :, None].astype(np.float32)
    apart *= apart
    np.multiply(apart, weight, out=apart)
    return np.asarray(apart.sum(axis=(0, 2), dtype=np.float64)) / 2 + _LEAST_VARIANCE


def likely_speeds(
    starts: np.ndarray, time_s: np.ndarray, x_m: np.ndarray, y_m: np.ndarray, sigma_m: np.ndarray
) -> np.ndarray:
    """Return the speed [m/s] that suits each record's trajectory best, shape (n,): of `SPEEDS_M_S` the one with the largest likelihood.

    The likelihood is that of Kalman's filter for a random walk, with Student's t instead of normal surprises, so that outliers do not
    pass for speed. A trajectory shorter than `_PRIOR_RECORDS` believes the others more than itself.
    """
    pieces = Pieces.of(starts, _PIECE, 0)
    speeds = np.array(SPEEDS_M_S)[:, None]
    total = np.zeros((len(speeds), len(pieces)))
    for start in range(0, len(pieces), 16 * _TOGETHER):
        batch = pieces.part(start, start + 16 * _TOGETHER)
        time, x, y, sigma = (batch.laid_out(column) for column in (time_s, x_m, y_m, sigma_m))
        place = np.repeat(np.array([x[0], y[0]])[:, None], len(speeds), axis=1)
        variance = np.repeat(sigma[0][None] ** 2, len(speeds), axis=0)
        for step, active in enumerate(batch.active().tolist()[1:], 1):
            place, variance = place[..., :active], variance[:, :active]
            gap, seen = time[step, :active] - time[step - 1, :active], sigma[step, :active] ** 2
            early = variance + (speeds * gap) ** 2
            whole = early + seen
            off = np.array([x[step, :active], y[step, :active]])[:, None] - place
            surprise = (off**2).sum(axis=0) / whole
            total[:, start : start + active] -= np.log(whole) + (_FREEDOM / 2 + 1) * np.log1p(surprise / _FREEDOM)
            gain = early / whole
            place = place + gain * off
            variance = gain * seen
    length = pieces.end - pieces.begin
    of_all = total.sum(axis=1, keepdims=True) / max(int(length.sum()), 1)
    best = speeds[np.argmax(total + _PRIOR_RECORDS * of_all, axis=0), 0] if len(pieces) else np.empty(0)
    speed = np.empty(len(time_s))
    for piece in range(len(pieces)):
        speed[pieces.begin[piece] : pieces.end[piece]] = best[piece]
    return speed


def _systematic(share: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Resample systematically: as many copies of each particle as even steps of 1 / n, begun at random, fall on its share.

    Parameters
    ----------
    share
        Cumulated weights, shape (n_rows, n), the last one 1.

    Returns
    -------
    numpy.ndarray
        Flat indices of the particles that go on, shape (n_rows · n,), each row's in its own place.
    """
    n_rows, n = share.shape
    upto: np.ndarray = share * n
    upto -= rng.random((n_rows, 1))
    np.ceil(upto, out=upto)  # from 0 to n, since the steps begin between 0 and 1
    upto[:, -1] = n
    copies = np.diff(upto, axis=1, prepend=0.0).astype(np.int64)
    return np.repeat(np.arange(n_rows * n), copies.ravel())


def kalman_smoother(
    starts: np.ndarray,
    time_s: np.ndarray,
    x_m: np.ndarray,
    y_m: np.ndarray,
    sigma_m: np.ndarray,
    *,
    acceleration_m_s2: float = 0.5,
    outlier: float = 2.0,
    threads: int = 1,
    progress: Progress = no_progress,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Smooth fixes with a device that keeps its velocity but for small pushes (Kalman filter, then Rauch-Tung-Striebel backwards).

    A velocity changes along each axis by a normal push with a standard deviation of `acceleration_m_s2` · √(time · 1 s), whatever the
    records between. Fixes further from the path than `outlier` standard deviations lose weight as Huber's loss has it, in a few rounds.

    Parameters
    ----------
    starts, time_s, x_m, y_m, sigma_m
        As for `particle_filter`.
    acceleration_m_s2
        Size of the pushes in one second.
    outlier
        In standard deviations; `numpy.inf` for plain least squares.

    Returns
    -------
    (x_m, y_m, spread_m)
        Shape (n,); the spread is the root of the summed variances along both axes.
    """
    n = len(time_s)
    pieces = Pieces.of(starts, _SMOOTHER_PIECE, _SMOOTHER_WARM_UP)
    sigma = np.maximum(np.asarray(sigma_m, dtype=float), _LEAST_SIGMA_M)
    weighed = sigma
    rounds = _ROUNDS if np.isfinite(outlier) else 1
    found = np.zeros((3, n))
    for index in range(rounds):
        columns = [np.asarray(values, dtype=float) for values in (time_s, x_m, y_m, weighed)]

        def work(start: int, stop: int, columns: list[np.ndarray] = columns) -> None:
            batch = pieces.part(start, stop)
            for stepped, into in zip(_smoothed(batch, columns, acceleration_m_s2), found):
                batch.collected(stepped, into)

        share = span(progress, index / rounds, (index + 1) / rounds)
        run_chunks(work, len(pieces), 2 * _TOGETHER, threads, share)
        away = np.hypot(found[0] - x_m, found[1] - y_m) / sigma
        weighed = sigma * np.sqrt(np.maximum(away / outlier, 1.0))
    return found[0], found[1], np.sqrt(2 * np.maximum(found[2], _LEAST_VARIANCE))


def _smoothed(pieces: Pieces, columns: list[np.ndarray], acceleration_m_s2: float) -> np.ndarray:
    """x, y and variance of the position along an axis by step and piece, shape (3, n_steps, n_pieces).

    Both axes have the same variances, so one 2 × 2 matrix (position, velocity) serves both; it is kept as its three numbers.
    """
    time_s, x, y, sigma = (pieces.laid_out(column) for column in columns)
    active = pieces.active().tolist()
    seen = sigma**2
    gap = np.diff(time_s, axis=0, prepend=time_s[:1])
    push = acceleration_m_s2**2
    noise_pp, noise_pv, noise_vv = push * gap**3 / 3, push * gap**2 / 2, push * gap
    fixes = np.stack([x, y])
    # Forwards: position (2, m), velocity (2, m) and covariance, before and after each fix.
    place, speed = np.zeros_like(fixes), np.zeros_like(fixes)
    early_place = np.zeros_like(fixes)
    early = np.zeros((3, *x.shape))
    late = np.zeros((3, *x.shape))
    place[:, 0] = fixes[:, 0]
    late[0, 0], late[2, 0] = seen[0], _FIRST_SPEED_M_S**2
    for step in range(1, len(active)):
        some = slice(0, active[step])
        before, now = (step - 1, some), (step, some)
        time = gap[now]
        pp, pv, vv = late[0][before], late[1][before], late[2][before]
        pp = pp + 2 * time * pv + time**2 * vv + noise_pp[now]
        pv = pv + time * vv + noise_pv[now]
        vv = vv + noise_vv[now]
        early[0][now], early[1][now], early[2][now] = pp, pv, vv
        expected = place[:, step - 1, some] + time * speed[:, step - 1, some]
        early_place[:, step, some] = expected
        total = pp + seen[now]
        gain_p, gain_v = pp / total, pv / total
        off = fixes[:, step, some] - expected
        place[:, step, some] = expected + gain_p * off
        speed[:, step, some] = speed[:, step - 1, some] + gain_v * off
        late[0][now] = gain_p * seen[now]
        late[1][now] = gain_v * seen[now]
        late[2][now] = vv - gain_v * pv
    # Backwards: `place`, `speed` and `late` become those given all fixes.
    for step in range(len(active) - 2, -1, -1):
        some = slice(0, active[step + 1])
        now, after = (step, some), (step + 1, some)
        time = gap[after]
        pp, pv, vv = late[0][now], late[1][now], late[2][now]
        next_pp, next_pv, next_vv = early[0][after], early[1][after], early[2][after]
        # gain = covariance · transitionᵀ · early⁻¹
        cross_pp, cross_pv, cross_vp = pp + time * pv, pv, pv + time * vv
        size = np.maximum(next_pp * next_vv - next_pv**2, 1e-300)
        gain_pp = (cross_pp * next_vv - cross_pv * next_pv) / size
        gain_pv = (cross_pv * next_pp - cross_pp * next_pv) / size
        gain_vp = (cross_vp * next_vv - vv * next_pv) / size
        gain_vv = (vv * next_pp - cross_vp * next_pv) / size
        off_place = place[:, step + 1, some] - early_place[:, step + 1, some]
        off_speed = speed[:, step + 1, some] - speed[:, step, some]  # a velocity is expected to stay
        place[:, step, some] += gain_pp * off_place + gain_pv * off_speed
        speed[:, step, some] += gain_vp * off_place + gain_vv * off_speed
        less_pp, less_pv, less_vv = (late[index][after] - early[index][after] for index in range(3))
        late[0][now] = pp + gain_pp**2 * less_pp + 2 * gain_pp * gain_pv * less_pv + gain_pv**2 * less_vv
        late[1][now] = (
            pv
            + gain_pp * gain_vp * less_pp
            + (gain_pp * gain_vv + gain_pv * gain_vp) * less_pv
            + gain_pv * gain_vv * less_vv
        )
        late[2][now] = vv + gain_vp**2 * less_pp + 2 * gain_vp * gain_vv * less_pv + gain_vv**2 * less_vv
    return np.stack([place[0], place[1], late[0]])
