"""`nbl`: a Gaussian per cell and grid square, and Bayes' rule with cells taken as independent (naive Bayes localisation).

A square is known when a record with truth lies in it. A record's score in a square is Σ over the cells heard of log p + log N(RSS; µ, σ²)
+ Σ over the cells not heard of log (1 − p), with p the share of the square's records that heard the cell. So a cell that a square always
hears speaks against it when it is missing, and one it never hears speaks against it when it is there; neither rules a square out, since p
stays within `_LEAST_SHARE` and 1 − `_LEAST_SHARE` (a record holds its strongest cells only, and devices hear differently). Cells that
a square never heard have one wide Gaussian. Counts, means and variances of neighbouring squares are mixed in by distance, because most
squares hold few records, and variances are drawn to that of shadowing.

References
----------
The DeepLoc paper's NBL [11]: R. Margolies et al.: Can you find me now? Evaluation of network-based localization in a 4G LTE network.
INFOCOM 2017: Gaussian fingerprints on a grid, with maximum likelihood (MLE) or the weighted average (WA) of squares.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..chunks import run_chunks
from ..errors import InputError
from ..progress import Progress, no_progress
from .localizer import FitSettings, Fixes, Localizer, training_rows
from .measurements import CellSites, LocalFrame, Measurements
from .options import Kind, Number, Word

_DEFAULTS = FitSettings()
#: Chosen on both splits of the Jiading set; the paper's squares of 50 m are 10 m worse.
DEFAULT_GRID_M, DEFAULT_SMOOTH_M, DEFAULT_TEMPER = 20.0, 15.0, 0.8
#: What the options of methods on grid squares may be.
GRID_OPTIONS: Mapping[str, Kind] = {
    "grid_m": Number(1, 10_000),
    "smooth_m": Number(0, 10_000, above=True),
    "temper": Number(0, 10),
}
#: Shares of records that hear a cell stay this far from none and all.
_LEAST_SHARE = 0.01
#: Standard deviation of RSS within a square [dB], as of shadowing, and how many records it weighs as much as.
_SHADOWING_DB, _PRIOR_RECORDS = 5.0, 3.0
#: Of cells that a square never heard: so much weaker than their mean, and how wide [dB].
_WEAKER_DB, _WIDE_DB = 5.0, 10.0
#: Neighbours further than this many lengths of smoothing do not count.
_REACH = 2.5
#: Scores worked on at a time, records × squares.
_CHUNK_SCORES = 1 << 22
#: Coefficients kept as a full matrix up to this size; beyond it only those of cells that a square heard.
_FULL_VALUES = 30_000_000
#: Most squares: in a larger area they grow.
_MOST_SQUARES = 20_000


@dataclass(frozen=True)
class RadioGrid:
    """What is heard where: scores of records in squares as sums over the cells heard of a · r² + b · r + c, r = RSS − `middle_dbm`.

    Parameters
    ----------
    x_m, y_m
        Mean position of the records in each square, shape (n_squares,), float32.
    base
        Score of a record that hears nothing, shape (n_squares,), float32.
    middle_dbm
        Mean RSS of each cell, shape (n_cells,), float32.
    coefficients
        Of r², r and 1 for each cell (rows 3 · cell + 0, 1, 2) and each square that heard it, beyond those of squares that did not: data,
        columns (squares) and row pointers of a sparse matrix (3 · n_cells, n_squares).
    grid_m
        Side of a square.
    """

    x_m: np.ndarray
    y_m: np.ndarray
    base: np.ndarray
    middle_dbm: np.ndarray
    coefficients: tuple[np.ndarray, np.ndarray, np.ndarray]
    grid_m: float

    @classmethod
    def of(
        cls, cell: np.ndarray, rss_dbm: np.ndarray, n_cells: int, xy_m: np.ndarray, grid_m: float, smooth_m: float
    ) -> RadioGrid:
        """Learn from records: cells and RSS (n, 7), and where they were made (n, 2).

        Parameters
        ----------
        grid_m
            Side of a square; doubled until there are at most 20,000 of them.
        smooth_m
            Distance at which a neighbouring square's records count exp(-1/2).
        """
        from scipy import sparse
        from scipy.spatial import cKDTree

        while True:
            squares, square = np.unique(np.floor(xy_m / grid_m).astype(np.int64), axis=0, return_inverse=True)
            square = square.reshape(-1)
            if len(squares) <= _MOST_SQUARES:
                break
            grid_m, smooth_m = 2 * grid_m, 2 * smooth_m
        n_squares = len(squares)
        count = np.bincount(square, minlength=n_squares).astype(float)
        x, y = (np.bincount(square, values, minlength=n_squares) / count for values in xy_m.T)
        known = (cell >= 0) & np.isfinite(rss_dbm)
        code, rss = cell[known], rss_dbm[known].astype(float)
        where = np.broadcast_to(square[:, None], cell.shape)[known]
        heard = np.bincount(code, minlength=n_cells)
        middle = np.bincount(code, rss, minlength=n_cells) / np.maximum(heard, 1)
        r = rss - middle[code]
        shape = (n_squares, n_cells)
        pairs = cKDTree(np.column_stack([x, y])).sparse_distance_matrix(
            cKDTree(np.column_stack([x, y])), _REACH * max(smooth_m, 1e-6), output_type="coo_matrix"
        )
        near = sparse.csr_matrix(
            (np.exp(-0.5 * (pairs.data / max(smooth_m, 1e-6)) ** 2), (pairs.row, pairs.col)), (n_squares, n_squares)
        )
        near.setdiag(1.0)  # distances of 0 are not stored
        sums = [near @ sparse.csr_matrix((values, (where, code)), shape) for values in (np.ones(len(r)), r, r * r)]
        number = sums[0].tocoo()
        row, column, n = number.row, number.col, number.data
        first, second = (np.asarray(one[row, column]).ravel() for one in sums[1:])
        total = near @ count
        mean = first / n
        variance = np.maximum(second / n - mean**2, 0.0)
        variance = (n * variance + _PRIOR_RECORDS * _SHADOWING_DB**2) / (n + _PRIOR_RECORDS)
        share = np.clip(n / (total[row] + 1.0), _LEAST_SHARE, 1 - _LEAST_SHARE)
        a = -0.5 / variance + 0.5 / _WIDE_DB**2
        b = mean / variance + _WEAKER_DB / _WIDE_DB**2
        c = -0.5 * mean**2 / variance - 0.5 * np.log(variance) + np.log(share / (1 - share))
        c -= -0.5 * (_WEAKER_DB / _WIDE_DB) ** 2 - np.log(_WIDE_DB) + np.log(_LEAST_SHARE / (1 - _LEAST_SHARE))
        base = np.bincount(row, np.log((1 - share) / (1 - _LEAST_SHARE)), minlength=n_squares)
        stacked = sparse.csr_matrix(
            (
                np.concatenate([a, b, c]).astype(np.float32),
                (np.concatenate([3 * column, 3 * column + 1, 3 * column + 2]), np.tile(row, 3)),
            ),
            (3 * n_cells, n_squares),
        )
        return cls(
            x.astype(np.float32),
            y.astype(np.float32),
            base.astype(np.float32),
            middle.astype(np.float32),
            (stacked.data, stacked.indices.astype(np.int32), stacked.indptr.astype(np.int64)),
            grid_m,
        )

    @property
    def n_squares(self) -> int:
        """Number of squares."""
        return len(self.x_m)

    @property
    def chunk_rows(self) -> int:
        """Records whose scores are made at a time."""
        return max(16, min(4096, _CHUNK_SCORES // max(1, self.n_squares)))

    def matrix(self) -> Any:  # noqa: ANN401 - an array, or a sparse matrix of scipy
        """`coefficients` for `scores`: full where that is not too large."""
        from scipy import sparse

        made = sparse.csr_matrix(self.coefficients, (3 * len(self.middle_dbm), self.n_squares))
        return made.toarray() if 3 * len(self.middle_dbm) * self.n_squares <= _FULL_VALUES else made

    def scores(self, cell: np.ndarray, rss_dbm: np.ndarray, matrix: Any) -> np.ndarray:  # noqa: ANN401 - see `matrix`
        """Log-likelihood of records (n, 7) in every square but for a constant of the record, shape (n, n_squares), float32.

        Cells heard twice count once, with their first RSS; those without one count as heard with their mean.
        """
        from scipy import sparse

        n = len(cell)
        heard = cell >= 0
        for slot in range(1, cell.shape[1]):
            heard[:, slot] &= (cell[:, :slot] != cell[:, slot : slot + 1]).all(axis=1)
        code = cell[heard].astype(np.int64)
        r = np.nan_to_num(rss_dbm[heard] - self.middle_dbm[code])
        values = np.column_stack([r * r, r, np.ones_like(r)]).ravel().astype(np.float32)
        columns = (3 * code[:, None] + np.arange(3)).ravel()
        pointer = np.concatenate([[0], np.cumsum(3 * heard.sum(axis=1))])
        records = sparse.csr_matrix((values, columns, pointer), (n, 3 * len(self.middle_dbm)))
        product = records @ matrix
        scores: np.ndarray = np.asarray(product.toarray() if sparse.issparse(product) else product)
        scores += self.base
        return scores

    def tensors(self, prefix: str = "grid.") -> dict[str, np.ndarray]:
        """Arrays for `from_tensors`."""
        data, indices, pointer = self.coefficients
        return {
            f"{prefix}x_m": self.x_m,
            f"{prefix}y_m": self.y_m,
            f"{prefix}base": self.base,
            f"{prefix}middle_dbm": self.middle_dbm,
            f"{prefix}data": data,
            f"{prefix}indices": indices,
            f"{prefix}pointer": pointer,
            f"{prefix}grid_m": np.array([self.grid_m]),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray], prefix: str = "grid.") -> RadioGrid:
        """Build from what `tensors` returned.

        Raises
        ------
        InputError
            When an array is missing or they do not fit together.
        """
        names = ("x_m", "y_m", "base", "middle_dbm", "data", "indices", "pointer", "grid_m")
        for name in names:
            if prefix + name not in tensors:
                raise InputError(f"The model cannot be used: array '{prefix}{name}' is missing.")
        x, y, base, middle, data, indices, pointer, grid_m = (np.asarray(tensors[prefix + name]) for name in names)
        if (
            not len(x) == len(y) == len(base) > 0
            or len(pointer) != 3 * len(middle) + 1
            or len(data) != len(indices)
            or pointer[-1] != len(data)
            or (len(indices) and not 0 <= indices.min() <= indices.max() < len(x))
        ):
            raise InputError("The model cannot be used: its arrays of squares do not fit together.")
        return cls(x, y, base, middle, (data, indices, pointer), float(grid_m[0]))


def learned_grid(data: Measurements, settings: FitSettings) -> tuple[LocalFrame, tuple[str, ...], RadioGrid]:
    """Frame, cells and squares of the records with truth, by the options `grid_m` and `smooth_m`.

    Raises
    ------
    InputError
        When too few records have a truth.
    """
    rows = training_rows(data)
    grid_m, smooth_m = (
        float(settings.option(name, default))
        for name, default in (("grid_m", DEFAULT_GRID_M), ("smooth_m", DEFAULT_SMOOTH_M))
    )
    frame = LocalFrame.around(data.lon[rows], data.lat[rows])
    cells = data.heard_in(rows)
    data = data.recoded(cells)
    xy = np.column_stack(frame.to_xy(data.lon[rows], data.lat[rows]))
    return frame, cells, RadioGrid.of(data.cell[rows], data.rss_dbm[rows], len(cells), xy, grid_m, smooth_m)


class Nbl(Localizer):
    """Naive Bayes on grid squares.

    Options: `grid_m` (20), side of a square; `smooth_m` (15), how far neighbouring squares are mixed in; `estimate`, "wa" (default), the
    average of the squares weighted by probability, or "mle", the likeliest square; `temper` (0.8), the power of the likelihood, because
    cells are not independent.
    """

    method = "nbl"
    OPTIONS: ClassVar[Mapping[str, Kind]] = {**GRID_OPTIONS, "estimate": Word(("wa", "mle"))}

    def __init__(self) -> None:
        self._grid: RadioGrid
        self._estimate = "wa"
        self._temper = DEFAULT_TEMPER

    def fit(
        self,
        data: Measurements,
        sites: CellSites,  # noqa: ARG002 - fingerprints need no positions of cells
        settings: FitSettings = _DEFAULTS,
        progress: Progress = no_progress,
    ) -> Localizer:
        self.check(settings)
        self._estimate = str(settings.option("estimate", "wa"))
        self._temper = float(settings.option("temper", DEFAULT_TEMPER))
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
        grid, matrix = self._grid, self._grid.matrix()

        def work(start: int, stop: int) -> np.ndarray:
            scores = grid.scores(data.cell[start:stop], data.rss_dbm[start:stop], matrix)
            best = scores.argmax(axis=1)
            place = posterior_place(scores, grid.x_m, grid.y_m, self._temper)
            if self._estimate == "mle":
                place[0], place[1] = grid.x_m[best], grid.y_m[best]
            return place

        parts = run_chunks(work, len(data), grid.chunk_rows, threads, progress)
        x, y, spread = np.concatenate(parts, axis=1) if parts else np.empty((3, 0))
        return Fixes(x, y, np.hypot(spread, grid.grid_m / 2))

    def tensors(self) -> dict[str, np.ndarray]:
        return self._grid.tensors()

    def card(self) -> dict[str, Any]:
        return {"estimate": self._estimate, "temper": self._temper, "squares": self._grid.n_squares}

    @classmethod
    def restore(
        cls, frame: LocalFrame, cells: tuple[str, ...], tensors: Mapping[str, np.ndarray], card: Mapping[str, Any]
    ) -> Localizer:
        model = cls()
        model.frame_, model.cells_ = frame, cells
        model._grid = RadioGrid.from_tensors(tensors)
        model._estimate, model._temper = str(card.get("estimate", "wa")), float(card.get("temper", DEFAULT_TEMPER))
        return model


def posterior_place(scores: np.ndarray, x_m: np.ndarray, y_m: np.ndarray, temper: float) -> np.ndarray:
    """Mean x and y and the root of the summed variances of squares weighted by exp(`temper` · score), shape (3, n).

    `scores` (n, n_squares) is used up.
    """
    scores -= scores.max(axis=1, keepdims=True)
    scores *= np.float32(temper)
    weight = np.exp(scores, out=scores)
    middle = np.array([x_m.mean(), y_m.mean()])
    x, y = x_m - middle[0], y_m - middle[1]
    sums = weight @ np.column_stack([np.ones_like(x), x, y, x * x + y * y]).astype(np.float32)
    sums = sums.astype(float) / sums[:, :1]
    variance = sums[:, 3] - sums[:, 1] ** 2 - sums[:, 2] ** 2
    return np.array([sums[:, 1] + middle[0], sums[:, 2] + middle[1], np.sqrt(np.maximum(variance, 0.0))])
