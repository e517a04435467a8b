"""`auto`: a path that survives a new street. Two looks at what was heard, joined over time.

1. A *radio map* (`radio_map`): how likely what a record heard, and did not hear, is at each place where people were seen; from counted
   frequencies, path loss and kriging. It knows physics, so it still speaks where a network was never measured.
2. *Extremely randomised trees* on the RSS vector of the record and of windows of time around it. Their votes, blurred, are a
   probability of each place. They know what the map cannot say in a formula.
3. *Forward-backward smoothing* (`path_smoothing`) of both over time, with devices that stand, walk or drive between those places.

The fix is the geometric median of what comes out, the spread its root mean square distance.

References
----------
P. Geurts, D. Ernst, L. Wehenkel: Extremely randomized trees. Machine Learning 63, 2006.
L. R. Rabiner: A tutorial on hidden Markov models. Proc. IEEE 77(2), 1989.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from ..errors import InputError
from ..progress import Progress, no_progress, span
from ..trees import Forest
from .forests import GROWN, grow_forest, window_rows
from .localizer import FitSettings, Fixes, Localizer, training_rows
from .measurements import CellSites, LocalFrame, Measurements
from .options import Kind, Number, Switch
from .path_smoothing import Moments, Motion, middle, smooth
from .pieces import in_pieces, pieces
from .radio_map import Places, RadioMap, taken

_DEFAULTS = FitSettings()
#: Windows of time around a record whose RSS are features, half their length [s].
_WINDOWS_S = (5.0, 15.0, 60.0)
#: Cells with features of their own: the most often heard, at least so often.
_MOST_COLUMNS, _LEAST_HEARD = 280, 8
#: Below the weakest ever heard [dB]: what stands for "not heard".
_BELOW_DB = 6.0
#: Records that one tree learns from, and that are kept for all of them, at most.
_MOST_SAMPLES, _MOST_ROWS = 12_000, 30_000
#: Width of the blur of the trees' votes [m], and the least that a place gets.
_VOTE_M, _LEAST_VOTE = 30.0, 1e-4
#: Records × places worked on at a time, and records whose features are made at a time.
_CHUNK_VALUES, _LEAST_CHUNK, _FEATURE_ROWS = 3_000_000, 64, 8192
#: Records of neighbours that pieces of a long trajectory see.
_MARGIN_ROWS = 100


class Auto(Localizer):
    """Radio map and randomised trees, smoothed over time; the default.

    Options
    -------
    trees (80), min_leaf (3), max_features (0.33)
        Of the forest.
    map_weight (0.35), vote_weight (1.0)
        Exponents of the map's likelihood and of the trees' votes per moment: what is heard within seconds is far from independent.
    smoothing (1), windows (1)
        0: each moment by itself; 0: trees look at the record alone.
    """

    method = "auto"
    OPTIONS: ClassVar[Mapping[str, Kind]] = {
        **{name: GROWN[name] for name in ("trees", "min_leaf", "max_features")},
        **dict.fromkeys(("map_weight", "vote_weight"), Number(0, 100)),
        **dict.fromkeys(("smoothing", "windows"), Switch()),
    }

    def __init__(self) -> None:
        self._places: Places
        self._radio: RadioMap
        self._forest: Forest
        self._column: np.ndarray
        self._floor_dbm: float
        self._weights: tuple[float, float]
        self._smoothing: bool
        self._windows_s: tuple[float, ...]

    def fit(
        self,
        data: Measurements,
        sites: CellSites,
        settings: FitSettings = _DEFAULTS,
        progress: Progress = no_progress,
    ) -> Localizer:
        self.check(settings)
        rows = training_rows(data)
        self.frame_ = LocalFrame.around(data.lon[rows], data.lat[rows])
        self.cells_ = data.heard_in(rows)
        self._weights = (float(settings.option("map_weight", 0.35)), float(settings.option("vote_weight", 1.0)))
        self._smoothing = bool(settings.option("smoothing", 1))
        self._windows_s = _WINDOWS_S if settings.option("windows", 1) else ()
        data = data.recoded(self.cells_)
        xy_m = np.column_stack(self.frame_.to_xy(data.lon[rows], data.lat[rows]))
        cell, rss_dbm = data.cell[rows], data.rss_dbm[rows]
        self._places = Places.around(xy_m)
        sites_m = np.column_stack(self.frame_.to_xy(*sites.positions_of(self.cells_)))
        self._radio = RadioMap.learn(
            self._places, xy_m, data.trajectory[rows], cell, rss_dbm, sites_m, span(progress, 0.0, 0.3)
        )
        count = np.bincount(cell[cell >= 0], minlength=len(self.cells_))
        often = np.sort(np.argsort(-count, kind="stable")[:_MOST_COLUMNS])
        often = often[count[often] >= min(_LEAST_HEARD, count.max())]
        self._column = np.full(len(self.cells_), -1, dtype=np.int32)
        self._column[often] = np.arange(len(often))
        self._floor_dbm = float(np.nanmin(rss_dbm) if np.isfinite(rss_dbm).any() else -110.0) - _BELOW_DB
        rng = np.random.default_rng([settings.seed, 3])
        some = np.sort(rng.permutation(len(rows))[:_MOST_ROWS])
        samples = self._samples_of(data, rows[some], span(progress, 0.3, 0.4))
        many = len(samples) > _MOST_SAMPLES
        self._forest = grow_forest(
            samples,
            xy_m[some],
            kind="ExtraTreesRegressor",
            trees=int(settings.option("trees", 80)),
            min_leaf=int(settings.option("min_leaf", 3)),
            max_depth=None,
            max_features=float(settings.option("max_features", 0.33)),
            bootstrap=many,
            max_samples=_MOST_SAMPLES if many else None,
            seed=settings.seed,
            threads=settings.threads,
            progress=span(progress, 0.4, 1.0),
        )
        return self

    def predict(
        self,
        data: Measurements,
        progress: Progress = no_progress,
        device: str = "cpu",  # noqa: ARG002 - nothing here needs a GPU
        threads: int = 1,
    ) -> Fixes:
        motion = Motion(self._places)
        size = max(_LEAST_CHUNK, _CHUNK_VALUES // len(self._places))

        def work(part: Measurements, alive: Progress) -> np.ndarray:
            return self._fixes(part, motion, alive)

        return Fixes(*in_pieces(data.recoded(self.cells_), _MARGIN_ROWS, threads, progress, work, size))

    def _fixes(self, part: Measurements, motion: Motion, alive: Progress) -> np.ndarray:
        """x, y and spread [m] of some records, shape (3, n)."""
        moments = Moments.of_records(part)
        likelihood = np.zeros((len(moments.time_s), len(self._places)), dtype=np.float32)
        map_weight, vote_weight = self._weights
        if map_weight:
            likelihood += np.float32(map_weight) * moments.mean(self._radio.likelihood(part.cell, part.rss_dbm))
        alive(0.3)
        if vote_weight:
            likelihood += np.float32(vote_weight) * self._votes(part, moments)
        alive(0.6)
        if self._smoothing:
            chance = smooth(likelihood, moments, motion)
        else:
            chance = np.exp(likelihood - likelihood.max(axis=1, keepdims=True))
            chance /= chance.sum(axis=1, keepdims=True)
        at, spread = middle(chance, self._places.xy_m)
        spread = np.hypot(spread, self._places.square_m[0] / 3)
        return np.stack([moments.between(values) for values in (*at.T, spread)])

    def _votes(self, part: Measurements, moments: Moments) -> np.ndarray:
        """Logarithm of the trees' votes for each place at each moment, blurred, shape (n_moments, m), float32."""
        votes = self._forest.votes(window_features(part, self._column, self._floor_dbm, self._windows_s))
        trees = votes.shape[1]
        place = self._places
        columns, rows = place.shape
        square = np.rint((votes - place.origin_m.astype(np.float32)) / np.float32(place.square_m[0])).astype(np.int64)
        square = np.clip(square, 0, [columns - 1, rows - 1])
        flat = (moments.of[:, None] * columns + square[..., 0]) * rows + square[..., 1]
        n_moments = len(moments.time_s)
        counted = np.bincount(flat.ravel(), minlength=n_moments * columns * rows).astype(np.float32)
        across, along = place.blur(_VOTE_M)
        grid = (counted.reshape(-1, rows) @ along).reshape(n_moments, columns, rows)
        blurred = np.matmul(across, grid).reshape(n_moments, -1)[:, place.flat]
        blurred /= (np.diff(moments.first) * trees)[:, None].astype(np.float32)
        return np.log(blurred + np.float32(_LEAST_VOTE))

    def _samples_of(self, data: Measurements, rows: np.ndarray, progress: Progress) -> np.ndarray:
        """Features of some records of `data`, ascending, seen among their neighbours."""
        wanted = np.zeros(len(data), dtype=bool)
        wanted[rows] = True
        found = []
        parts = pieces(data.starts, _FEATURE_ROWS, _MARGIN_ROWS)
        for index, (begin, end, first, last) in enumerate(parts):
            progress(index / len(parts))
            if wanted[begin:end].any():
                seen = window_features(data.take(slice(first, last)), self._column, self._floor_dbm, self._windows_s)
                found.append(seen[begin - first : end - first][wanted[begin:end]])
        return np.concatenate(found)

    def tensors(self) -> dict[str, np.ndarray]:
        return {
            "places.origin_m": self._places.origin_m,
            "places.square_m": self._places.square_m,
            "places.index": self._places.index,
            **self._radio.tensors("radio."),
            **self._forest.tensors("forest."),
            "column": self._column,
        }

    def card(self) -> dict[str, Any]:
        return {
            "floor_dbm": self._floor_dbm,
            "map_weight": self._weights[0],
            "vote_weight": self._weights[1],
            "smoothing": self._smoothing,
            "windows_s": list(self._windows_s),
        }

    @classmethod
    def restore(
        cls,
        frame: LocalFrame,
        cells: tuple[str, ...],
        tensors: Mapping[str, np.ndarray],
        card: Mapping[str, Any],
    ) -> Localizer:
        model = cls()
        model.frame_, model.cells_ = frame, cells
        model._places = Places(**taken(tensors, "places.", ["origin_m", "square_m", "index"]))
        model._radio = RadioMap.from_tensors(tensors, "radio.")
        model._forest = Forest.from_tensors(tensors, "forest.")
        model._column = taken(tensors, "", ["column"])["column"]
        try:
            model._floor_dbm = float(card["floor_dbm"])
            model._weights = (float(card["map_weight"]), float(card["vote_weight"]))
            model._smoothing = bool(card["smoothing"])
            model._windows_s = tuple(float(window_s) for window_s in card["windows_s"])
        except KeyError as error:
            raise InputError(f"The model cannot be used: its description lacks {error}.") from error
        return model


def window_features(
    data: Measurements, column: np.ndarray, floor_dbm: float, windows_s: tuple[float, ...] = _WINDOWS_S
) -> np.ndarray:
    """RSS vectors of records and of windows of time around them, shape (n, n_columns · (1 + windows)), float32, finite.

    In a window a cell counts with its mean RSS, drawn towards `floor_dbm` by the share of records that did not hear it.

    Parameters
    ----------
    column
        Column of each of the model's cells, shape (n_cells,), -1 for none.
    """
    n, n_columns = len(data), int(column.max(initial=-1)) + 1
    above = np.zeros((n, n_columns), dtype=np.float32)
    for slot in reversed(range(data.cell.shape[1])):  # of a cell named twice the first counts
        at = np.where(data.cell[:, slot] >= 0, column[data.cell[:, slot]], -1)
        rows = np.flatnonzero((at >= 0) & np.isfinite(data.rss_dbm[:, slot]))
        above[rows, at[rows]] = np.maximum(data.rss_dbm[rows, slot] - floor_dbm, 1.0)
    sums = np.zeros((n + 1, n_columns))
    np.cumsum(above, axis=0, dtype=float, out=sums[1:])
    blocks = [above]
    for window_s in windows_s:
        low, high = window_rows(data, window_s)
        blocks.append(((sums[high] - sums[low]) / (high - low)[:, None]).astype(np.float32))
    return np.hstack(blocks)
