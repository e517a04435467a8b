"""`hmm`: a hidden Markov model over grid squares, and particles over what it says.

States are the squares of `nbl`, whose Gaussians are the emissions; a step from one to another is normal in the distance, as wide as the
trajectory's speed times the time between, and all but impossible beyond three times that. Each record keeps its likeliest squares only (a
beam), so a step costs beam² whatever the area. Forwards and backwards passes give each record's squares their probability given all of the
trajectory; their mean and width are the fixes that the particle filter smooths.

References
----------
The DeepLoc paper's HMM [13]: A. Ray, S. Deb, P. Monogioudis: Localization of LTE measurement records with missing information. INFOCOM
2016: an HMM over grid squares, then particle filtering.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from ..chunks import run_chunks
from ..progress import Progress, no_progress, span
from .filters import Pieces, likely_speeds, particle_filter
from .localizer import FitSettings, Fixes, Localizer
from .measurements import CellSites, LocalFrame, Measurements
from .nbl import GRID_OPTIONS, RadioGrid, learned_grid, posterior_place
from .options import Count, Kind, Number

_DEFAULTS = FitSettings()
#: Squares that a record keeps.
_BEAM = 32
#: Power of the likelihood: cells are not independent, and neither are records that follow each other.
_TEMPER = 0.3
#: Steps longer than this many standard deviations are out of bounds, but for a share of `_JUMP`, which keeps a path going that was lost.
_BOUND, _JUMP = 3.0, 1e-6
#: Pieces of long trajectories, the records on both sides that warm them up, and how many step together.
_PIECE, _WARM_UP, _TOGETHER = 256, 32, 64
#: Records whose means are made at a time.
_CHUNK_ROWS = 65_536


class Hmm(Localizer):
    """Hidden Markov model over grid squares, followed by a particle filter.

    Options: `grid_m` (20) and `smooth_m` (15) as for `nbl`; `beam` (32), squares a record keeps; `temper` (0.3), power of the likelihood;
    `speed_m_s` (0), of the devices, 0 to find it for each trajectory; `particles` (500), 0 for no particle filter.
    """

    method = "hmm"
    OPTIONS: ClassVar[Mapping[str, Kind]] = {
        **GRID_OPTIONS,
        "beam": Count(1, 1000),
        "speed_m_s": Number(0, 1000),
        "particles": Count(0, 100_000),
    }

    def __init__(self) -> None:
        self._grid: RadioGrid
        self._beam, self._temper, self._speed_m_s, self._particles, self._seed = _BEAM, _TEMPER, 0.0, 500, 0

    def fit(
        self,
        data: Measurements,
        sites: CellSites,  # noqa: ARG002 - fingerprints need no positions of cells
        settings: FitSettings = _DEFAULTS,
        progress: Progress = no_progress,
    ) -> Localizer:
        self.check(settings)
        self._beam, self._particles = (
            int(settings.option(name, default)) for name, default in (("beam", _BEAM), ("particles", 500))
        )
        self._temper, self._speed_m_s = (
            float(settings.option(name, default)) for name, default in (("temper", _TEMPER), ("speed_m_s", 0.0))
        )
        self._seed = settings.seed
        progress(0.0)
        self.frame_, self.cells_, self._grid = learned_grid(data, settings)
        progress(1.0)
        return self

    def predict(
        self,
        data: Measurements,
        progress: Progress = no_progress,
        device: str = "cpu",  # noqa: ARG002 - numpy and scipy only
        threads: int = 1,
    ) -> Fixes:
        data = data.recoded(self.cells_)
        if not len(data):
            return Fixes(np.empty(0), np.empty(0), np.empty(0))
        grid, matrix, beam = self._grid, self._grid.matrix(), min(self._beam, self._grid.n_squares)

        def likeliest(start: int, stop: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
            scores = grid.scores(data.cell[start:stop], data.rss_dbm[start:stop], matrix)
            squares = np.argpartition(-scores, beam - 1, axis=1)[:, :beam]
            chosen = np.take_along_axis(scores, squares, axis=1)
            chosen = np.exp(self._temper * (chosen - chosen.max(axis=1, keepdims=True)))
            return squares.astype(np.int32), chosen, posterior_place(scores, grid.x_m, grid.y_m, self._temper)

        parts = run_chunks(likeliest, len(data), grid.chunk_rows, threads, span(progress, 0.0, 0.3))
        squares, emission, alone = (
            np.concatenate([part[index] for part in parts], axis=axis) for index, axis in ((0, 0), (1, 0), (2, 1))
        )
        sigma = np.hypot(alone[2], grid.grid_m) / np.sqrt(2)
        if self._speed_m_s:
            speed = np.full(len(data), self._speed_m_s)
        else:
            speed = likely_speeds(data.starts, data.time_s, alone[0], alone[1], sigma)
        place = np.stack([grid.x_m, grid.y_m])
        pieces = Pieces.of(data.starts, _PIECE, _WARM_UP)
        probability = np.empty_like(emission)

        def decode(start: int, stop: int) -> None:
            forward_backward(
                pieces.part(start, stop), data.time_s, speed, place, squares, emission, grid.grid_m, probability
            )

        run_chunks(decode, len(pieces), _TOGETHER, threads, span(progress, 0.3, 0.6))
        mean_x, mean_y, variance = np.empty((3, len(data)))
        for start in range(0, len(data), _CHUNK_ROWS):
            rows = slice(start, start + _CHUNK_ROWS)
            share = probability[rows].astype(float)
            x, y = (values[squares[rows]].astype(float) for values in place)
            mean_x[rows], mean_y[rows] = (share * x).sum(axis=1), (share * y).sum(axis=1)
            off = (x - mean_x[rows, None]) ** 2 + (y - mean_y[rows, None]) ** 2
            variance[rows] = (share * off).sum(axis=1)
        spread = np.sqrt(variance + grid.grid_m**2 / 4)
        if self._particles:
            mean_x, mean_y, _ = particle_filter(
                data.starts,
                data.time_s,
                mean_x,
                mean_y,
                spread / np.sqrt(2),
                seed=self._seed,
                particles=self._particles,
                speed_m_s=self._speed_m_s or None,
                threads=threads,
                progress=span(progress, 0.6, 1.0),
            )
        progress(1.0)
        return Fixes(mean_x, mean_y, spread)

    def tensors(self) -> dict[str, np.ndarray]:
        return self._grid.tensors()

    def card(self) -> dict[str, Any]:
        return {
            "beam": self._beam,
            "temper": self._temper,
            "speed_m_s": self._speed_m_s,
            "particles": self._particles,
            "seed": self._seed,
        }

    @classmethod
    def restore(
        cls, frame: LocalFrame, cells: tuple[str, ...], tensors: Mapping[str, np.ndarray], card: Mapping[str, Any]
    ) -> Localizer:
        model = cls()
        model.frame_, model.cells_ = frame, cells
        model._grid = RadioGrid.from_tensors(tensors)
        model._beam, model._particles = int(card.get("beam", _BEAM)), int(card.get("particles", 500))
        model._temper, model._speed_m_s = float(card.get("temper", _TEMPER)), float(card.get("speed_m_s", 0.0))
        model._seed = int(card.get("seed", 0))
        return model


def forward_backward(
    pieces: Pieces,
    time_s: np.ndarray,
    speed_m_s: np.ndarray,
    place_m: np.ndarray,
    states: np.ndarray,
    emission: np.ndarray,
    least_m: float,
    into: np.ndarray,
) -> None:
    """Probabilities of the states of each record given all records of its piece.

    Parameters
    ----------
    place_m
        Where the squares are, shape (2, n_squares).
    states
        Squares that each record may be in, shape (n, n_states).
    emission
        Likelihoods of the records in their states, shape (n, n_states), the largest 1.
    least_m
        Added to speed · time as the standard deviation of a step.
    into
        Shape (n, n_states); only the rows that count are written.
    """
    begin = pieces.begin
    active = pieces.active().tolist()
    n_states = emission.shape[1]
    forth = np.zeros((len(active), len(pieces), n_states), dtype=np.float32)

    def steps(step: int, some: int) -> np.ndarray:
        """Weights of the steps from each state before to each state at `step`, shape (some, n_states, n_states)."""
        now = begin[:some] + step
        width = speed_m_s[now] * (time_s[now] - time_s[now - 1]) + least_m
        x, y = place_m[:, states[now]]
        last_x, last_y = place_m[:, states[now - 1]]
        away = (x[:, None, :] - last_x[:, :, None]) ** 2
        away += (y[:, None, :] - last_y[:, :, None]) ** 2
        away *= (-0.5 / width**2).astype(np.float32)[:, None, None]
        weight = np.exp(np.maximum(away, -0.5 * _BOUND**2 - 1.0))
        weight[away < -0.5 * _BOUND**2] = 0.0
        weight += np.float32(_JUMP)
        return weight

    for step, some in enumerate(active):
        here = emission[begin[:some] + step].astype(np.float32)
        if step:
            here = here * np.matmul(forth[step - 1, :some, None, :], steps(step, some))[:, 0]
        forth[step, :some] = here / np.maximum(here.sum(axis=1, keepdims=True), np.float32(1e-30))
    back = np.ones((len(pieces), n_states), dtype=np.float32)
    for step in range(len(active) - 1, -1, -1):
        if step + 1 < len(active):
            some = active[step + 1]
            ahead = back[:some] * emission[begin[:some] + step + 1].astype(np.float32)
            ahead /= np.maximum(ahead.sum(axis=1, keepdims=True), np.float32(1e-30))
            back[:some] = np.matmul(steps(step + 1, some), ahead[:, :, None])[:, :, 0]
        both = forth[step, : active[step]] * back[: active[step]]
        both /= np.maximum(both.sum(axis=1, keepdims=True), np.float32(1e-30))
        rows = begin[: active[step]] + step
        counts = (rows >= pieces.kept_begin[: active[step]]) & (rows < pieces.kept_end[: active[step]])
        into[rows[counts]] = both[counts]
