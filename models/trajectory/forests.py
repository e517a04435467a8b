"""`raf` and `ccr`: one and two layers of random forests.

`raf` regresses the position on what a record heard. `ccr` adds a second forest that also looks at where the first one put the records
before and after (the contextual features): positions, moving speed, time gaps, distances, and means of the first layer's positions over
windows of time. Its training rows get their first-layer positions from forests that had not learned from them, so that the second layer
learns how far off they are; what `split` names stays whole in that.

scikit-learn grows the trees; numpy alone walks them.

References
----------
F. Zhu, C. Luo, M. Yuan, Y. Zhu, Z. Zhang, T. Gu, K. Deng, W. Rao, J. Zeng: City-Scale Localization with Telco Big Data. CIKM 2016
(RaF, and CCR: context-aware coarse-to-fine regression).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Callable, ClassVar

import numpy as np

from ..chunks import run_chunks
from ..errors import InputError
from ..progress import Progress, no_progress, span
from ..trees import Forest
from .features import CellTable, known_cells, record_features
from .localizer import FitSettings, Fixes, Localizer, training_rows
from .measurements import CellSites, LocalFrame, Measurements
from .options import MANY, SHARE, Count, Kind
from .splits import folds, groups

#: What the options of forests may be.
GROWN: Mapping[str, Kind] = {"trees": Count(1, 10_000), "min_leaf": MANY, "max_depth": MANY, "max_features": SHARE}
_DEFAULTS = FitSettings()
#: Trees grown between two calls of `progress` take about this long [s].
_BATCH_S = 0.3
#: Records whose features are made at a time.
_CHUNK_ROWS = 8192
#: Smallest spread [m]: trees that agree are not always right.
_LEAST_SPREAD_M = 1.0
#: Folds whose first-layer positions are made without them.
_FOLDS = 5
#: Records before and after whose first-layer positions are features.
_NEAR = (1, 2, 3)
#: Windows of time around a record over which first-layer positions are averaged [s], half their length.
_WINDOWS_S = (5.0, 15.0, 45.0)
#: Longer times between records [s] and speeds [m/s] look all the same.
_MOST_GAP_S, _MOST_SPEED_M_S = 600.0, 100.0


def grow_forest(
    samples: np.ndarray,
    targets: np.ndarray,
    *,
    kind: str = "RandomForestRegressor",
    trees: int = 100,
    min_leaf: int = 2,
    max_depth: int | None = 24,
    max_features: float = 0.3,
    bootstrap: bool = True,
    max_samples: int | None = None,
    seed: int = 0,
    threads: int = 1,
    progress: Progress = no_progress,
) -> Forest:
    """Grow a forest in small batches of trees; the same seed gives the same forest, however many batches or threads.

    Parameters
    ----------
    samples
        Shape (n, n_features), float32, finite.
    targets
        Shape (n, n_outputs).
    kind
        scikit-learn's class: "RandomForestRegressor" or "ExtraTreesRegressor".
    trees, min_leaf, max_depth
        Number of trees, least samples in a leaf, most questions asked (None: any number).
    max_features
        Share of the features tried at each question.
    bootstrap, max_samples
        Whether a tree learns from samples drawn for it, with replacement, and how many (None: n).

    Raises
    ------
    InputError
        When scikit-learn is not installed.
    """
    try:
        import sklearn.ensemble
    except ModuleNotFoundError as error:
        raise InputError(
            "Forests are learned with the Python package 'scikit-learn', which is not installed in this Python; 'Check environment' says "
            "what to do. Using a model that was trained elsewhere needs no such package."
        ) from error
    base, threads = np.asarray(targets, dtype=float).mean(axis=0), max(1, threads)
    grown = getattr(sklearn.ensemble, kind)(
        n_estimators=0,
        min_samples_leaf=min_leaf,
        max_depth=max_depth,
        max_features=max_features,
        bootstrap=bootstrap,
        max_samples=max_samples,
        random_state=seed,
        n_jobs=threads,  # threads, as scikit-learn's forests do unless told otherwise
        warm_start=True,
    )
    batch = threads
    while grown.n_estimators < trees:
        progress(grown.n_estimators / trees)
        batch = min(batch, trees - grown.n_estimators)
        grown.n_estimators += batch
        began = time.monotonic()
        grown.fit(samples, targets - base)
        took_s = max(time.monotonic() - began, 1e-3)
        batch = threads * max(1, int(batch * min(_BATCH_S / took_s, 4.0)) // threads)
    progress(1.0)
    return forest_of(grown, base)


def forest_of(regressor: Any, base: np.ndarray) -> Forest:  # noqa: ANN401 - scikit-learn is not imported here
    """Take the trees out of a fitted RandomForestRegressor (or ExtraTreesRegressor) that learned targets - `base`."""
    trees = [estimator.tree_ for estimator in regressor.estimators_]
    sizes = np.array([tree.node_count for tree in trees])
    first = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    offset = np.repeat(first, sizes)
    left, right = (np.concatenate([getattr(tree, f"children_{side}") for tree in trees]) for side in ("left", "right"))
    leaf = left < 0
    here = np.arange(len(left))
    exact = np.where(leaf, 0.0, np.concatenate([tree.threshold for tree in trees]))
    threshold = exact.astype(np.float32)
    above = threshold > exact  # a float32 sample is at most `exact` when it is at most the float32 below
    threshold[above] = np.nextafter(threshold[above], np.float32(-np.inf))
    return Forest(
        feature=np.where(leaf, 0, np.concatenate([tree.feature for tree in trees])).astype(np.int16),
        threshold=threshold,
        left=np.where(leaf, here, offset + left).astype(np.int32),
        right=np.where(leaf, here, offset + right).astype(np.int32),
        value=np.concatenate([tree.value[:, :, 0] for tree in trees]).astype(np.float32),
        roots=first.astype(np.int32),
        base=np.asarray(base, dtype=np.float64),
    )


class Raf(Localizer):
    """One layer of random forest regression on the RSS vector and the base stations heard.

    Options: `trees` (100), `min_leaf` (2), `max_depth` (24), `max_features` (0.3).
    """

    method = "raf"
    OPTIONS: ClassVar[Mapping[str, Kind]] = GROWN

    def __init__(self) -> None:
        self._table: CellTable
        self._first: Forest

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
        self.cells_ = known_cells(data, rows, sites, self.frame_)
        data = data.recoded(self.cells_)
        self._table = CellTable.of(data, sites, self.frame_, rows)
        targets = np.column_stack(self.frame_.to_xy(data.lon[rows], data.lat[rows]))
        self._learn(data, rows, targets, settings, progress)
        return self

    def _learn(
        self, data: Measurements, rows: np.ndarray, targets: np.ndarray, settings: FitSettings, progress: Progress
    ) -> None:
        samples = record_features(data.cell[rows], data.rss_dbm[rows], self._table)
        self._first = grow_forest(samples, targets, **_options(settings), progress=progress)

    def predict(
        self,
        data: Measurements,
        progress: Progress = no_progress,
        device: str = "cpu",  # noqa: ARG002 - forests need no GPU
        threads: int = 1,
    ) -> Fixes:
        data = data.recoded(self.cells_)
        return _fixes(*self._first_layer(data, threads, progress))

    def _first_layer(
        self, data: Measurements, threads: int, progress: Progress = no_progress
    ) -> tuple[np.ndarray, np.ndarray]:
        """Position (n, 2) and spread (n,) of every record by the first forest."""
        return _predicted(
            self._first,
            lambda rows: record_features(data.cell[rows], data.rss_dbm[rows], self._table),
            len(data),
            threads,
            progress,
        )

    def tensors(self) -> dict[str, np.ndarray]:
        return {**self._table.tensors(), **self._first.tensors("first.")}

    def card(self) -> dict[str, Any]:
        return {"trees": len(self._first.roots)}

    @classmethod
    def restore(
        cls,
        frame: LocalFrame,
        cells: tuple[str, ...],
        tensors: Mapping[str, np.ndarray],
        card: Mapping[str, Any],  # noqa: ARG003 - it only tells
    ) -> Localizer:
        model = cls()
        model.frame_, model.cells_ = frame, cells
        model._table = CellTable.from_tensors(tensors)
        model._first = Forest.from_tensors(tensors, "first.")
        return model


class Ccr(Raf):
    """Two layers of random forests, the second with contextual features from the first.

    Options: those of `Raf`; `fold_trees` (40), of the forests that say where the first layer puts records it has not learned from.
    """

    method = "ccr"
    OPTIONS: ClassVar[Mapping[str, Kind]] = {**Raf.OPTIONS, "fold_trees": GROWN["trees"]}

    def __init__(self) -> None:
        super().__init__()
        self._second: Forest

    def _learn(
        self, data: Measurements, rows: np.ndarray, targets: np.ndarray, settings: FitSettings, progress: Progress
    ) -> None:
        super()._learn(data, rows, targets, settings, span(progress, 0.0, 0.25))
        place, spread = self._first_layer(data, settings.threads)
        learning = dict(_options(settings), trees=int(settings.option("fold_trees", 40)))
        parts = _folds(data, rows, settings)
        samples = record_features(data.cell[rows], data.rss_dbm[rows], self._table)
        for index, apart in enumerate(parts):
            part = span(progress, 0.25 + 0.4 * index / len(parts), 0.25 + 0.4 * (index + 1) / len(parts))
            out = apart[rows]
            forest = grow_forest(samples[~out], targets[~out], **learning, progress=part)
            place[rows[out]], spread[rows[out]] = forest.predict(samples[out])
        context = contextual_features(data, place, spread)
        self._second = grow_forest(
            np.column_stack([context[rows], samples]), targets, **_options(settings), progress=span(progress, 0.65, 1.0)
        )

    def predict(
        self,
        data: Measurements,
        progress: Progress = no_progress,
        device: str = "cpu",  # noqa: ARG002 - forests need no GPU
        threads: int = 1,
    ) -> Fixes:
        data = data.recoded(self.cells_)
        context = contextual_features(data, *self._first_layer(data, threads, span(progress, 0.0, 0.5)))

        def samples(rows: slice) -> np.ndarray:
            return np.column_stack([context[rows], record_features(data.cell[rows], data.rss_dbm[rows], self._table)])

        return _fixes(*_predicted(self._second, samples, len(data), threads, span(progress, 0.5, 1.0)))

    def tensors(self) -> dict[str, np.ndarray]:
        return {**super().tensors(), **self._second.tensors("second.")}

    @classmethod
    def restore(
        cls,
        frame: LocalFrame,
        cells: tuple[str, ...],
        tensors: Mapping[str, np.ndarray],
        card: Mapping[str, Any],
    ) -> Localizer:
        model = super().restore(frame, cells, tensors, card)
        if isinstance(model, Ccr):
            model._second = Forest.from_tensors(tensors, "second.")
        return model


def contextual_features(data: Measurements, place: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """What the first layer says about the way to and from each record, shape (n, n_features), float32, all finite.

    Own position and spread; for the next three records on both sides, as far as the trajectory goes, their position from here, the time
    between, and the speed that would take; distance and angle of the way through here; whether the serving cell has changed, and how
    much its RSS; mean position and sureness over windows of time; time since the first and until the last record.

    Parameters
    ----------
    place, spread
        Of the first layer [m], shape (n, 2) and (n,).
    """
    n = len(data)
    starts = data.starts
    part = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    first, last = starts[:-1][part], starts[1:][part] - 1
    here = np.arange(n)
    columns = [place[:, 0], place[:, 1], spread]
    steps: dict[int, list[tuple[np.ndarray, np.ndarray]]] = {}
    for near in _NEAR:
        for other in (np.maximum(here - near, first), np.minimum(here + near, last)):
            step = place[other] - place
            gap_s = np.minimum(np.abs(data.time_s[other] - data.time_s), _MOST_GAP_S)
            away_m = np.hypot(step[:, 0], step[:, 1])
            speed = np.minimum(away_m / np.maximum(gap_s, 0.5), _MOST_SPEED_M_S)
            columns += [step[:, 0], step[:, 1], gap_s, away_m, speed]
            steps.setdefault(near, []).append((other, step))
    (before, back), (after, ahead) = steps[1]
    through = ahead - back
    columns.append(np.hypot(through[:, 0], through[:, 1]))
    for other in (before, after):
        same = data.cell[other, 0] == data.cell[:, 0]
        change = np.nan_to_num(data.rss_dbm[other, 0] - data.rss_dbm[:, 0])
        columns += [same, np.where(same, change, 0.0)]
    columns += [np.minimum(data.time_s - data.time_s[first], _MOST_GAP_S)] if n else [np.zeros(0)]
    columns += [np.minimum(data.time_s[last] - data.time_s, _MOST_GAP_S)] if n else [np.zeros(0)]
    weight = 1.0 / np.maximum(spread, _LEAST_SPREAD_M) ** 2
    sums = np.cumsum(
        np.vstack([np.zeros(4), np.column_stack([weight, weight * place.T[0], weight * place.T[1], weight > 0])]),
        axis=0,
    )
    for window_s in _WINDOWS_S:
        low, high = window_rows(data, window_s)
        total = sums[high] - sums[low]
        columns += [total[:, 1] / total[:, 0], total[:, 2] / total[:, 0], total[:, 0] ** -0.5, total[:, 3]]
    return np.column_stack([np.asarray(column, dtype=np.float32) for column in columns])


def window_rows(data: Measurements, window_s: float) -> tuple[np.ndarray, np.ndarray]:
    """First row and row behind the last of the records of the same trajectory within `window_s` of each, each of shape (n,)."""
    if not len(data):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    starts = data.starts
    part = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    since = data.time_s - data.time_s[starts[:-1]][part]
    key = since + part * (since.max() + 2 * window_s + 1.0)  # so far apart that no window reaches another trajectory
    return np.searchsorted(key, key - window_s, "left"), np.searchsorted(key, key + window_s, "right")


def _options(settings: FitSettings) -> dict[str, Any]:
    return {
        "trees": int(settings.option("trees", 100)),
        "min_leaf": int(settings.option("min_leaf", 2)),
        "max_depth": int(settings.option("max_depth", 24)),
        "max_features": float(settings.option("max_features", 0.3)),
        "seed": settings.seed,
        "threads": settings.threads,
    }


def _folds(data: Measurements, rows: np.ndarray, settings: FitSettings) -> list[np.ndarray]:
    """Masks of what to keep apart; runs of records where all are of one trajectory or day."""
    known = np.zeros(len(data), dtype=bool)
    known[rows] = True
    try:
        code = groups(data, settings.split)
    except InputError:
        code = np.full(len(data), -1)
        code[rows] = np.arange(len(rows)) * _FOLDS // len(rows)
    rng = np.random.default_rng([settings.seed, 2])
    parts = [part & known for part in folds(code, _FOLDS, rng)]
    return [part for part in parts if part.any() and not part[rows].all()]


def _predicted(
    forest: Forest,
    samples: Callable[[slice], np.ndarray],
    n_rows: int,
    threads: int,
    progress: Progress,
) -> tuple[np.ndarray, np.ndarray]:
    """Position (n, 2) and spread (n,) of all records, whose features `samples(rows)` makes."""

    def work(start: int, stop: int) -> tuple[np.ndarray, np.ndarray]:
        return forest.predict(samples(slice(start, stop)))

    parts = run_chunks(work, n_rows, _CHUNK_ROWS, threads, progress)
    if not parts:
        return np.empty((0, 2)), np.empty(0)
    return np.concatenate([place for place, _ in parts]), np.concatenate([spread for _, spread in parts])


def _fixes(place: np.ndarray, spread: np.ndarray) -> Fixes:
    return Fixes(place[:, 0], place[:, 1], np.maximum(spread, _LEAST_SPREAD_M))
