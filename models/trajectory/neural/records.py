"""What a network is told of each record: its cells, how strongly each was heard, and a few numbers (DeepLoc, section 5.1.1)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ...errors import InputError
from ..localizer import training_rows
from ..measurements import MOST_CELLS, CellSites, LocalFrame, Measurements

#: Knots of the piecewise linear function of the RSS that each cell has.
KNOTS = 6
#: Longer gaps in time are as good as endless [s].
LONGEST_GAP_S = 600.0


@dataclass(frozen=True)
class RecordArrays:
    """Records as numbers.

    Parameters
    ----------
    cell
        Shape (n, 7), int64, -1 for none.
    level
        RSS on the scale of the knots, in [0, KNOTS - 1], shape (n, 7), float32; -1 where unknown.
    context
        Shape (n, `Scales.n_context`), float32.
    """

    cell: np.ndarray
    level: np.ndarray
    context: np.ndarray


@dataclass(frozen=True)
class Scales:
    """How metres, dBm and signals become numbers around one; learned from the training records.

    Parameters
    ----------
    frame
        Metres around the truths.
    cells
        Ids of the known cells.
    cell_xy
        Position of each cell [standard deviations of the truths], shape (n_cells, 2), NaN where unknown.
    scale_m
        Standard deviation of the truths per axis [m].
    rss_low, rss_high
        1 % and 99 % quantiles of the RSS [dBm].
    signals
        Names of the further signals, with their 1 % and 99 % quantiles.
    low, high
        Bounding box of the truths [m], shape (2,).
    """

    frame: LocalFrame
    cells: tuple[str, ...]
    cell_xy: np.ndarray
    scale_m: float
    rss_low: float
    rss_high: float
    signals: tuple[tuple[str, float, float], ...]
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, data: Measurements, sites: CellSites) -> Scales:
        """Learn from the records with truth; cells without a known position stand at the mean of where they were heard.

        Raises
        ------
        InputError
            When too few records have a truth.
        """
        rows = training_rows(data)
        frame = LocalFrame.around(data.lon[rows], data.lat[rows])
        xy = np.column_stack(frame.to_xy(data.lon[rows], data.lat[rows]))
        scale_m = max(float(np.sqrt(xy.var(axis=0).mean())), 1.0)
        heard = np.column_stack(
            [_mean_by(data.cell[rows], xy[:, [axis]].repeat(MOST_CELLS, 1), len(data.cells)) for axis in (0, 1)]
        )
        known = np.column_stack(frame.to_xy(*sites.positions_of(data.cells)))
        cell_xy = np.where(np.isfinite(known).all(axis=1, keepdims=True), known, heard) / scale_m
        rss = data.rss_dbm[np.isfinite(data.rss_dbm) & (data.cell >= 0)]
        low, high = _spread(rss)
        signals = tuple((name, *_spread(values[np.isfinite(values)])) for name, values in sorted(data.signals.items()))
        return cls(frame, data.cells, cell_xy, scale_m, low, high, signals, xy.min(axis=0), xy.max(axis=0))

    @property
    def n_context(self) -> int:
        """Number of the numbers beside the cells."""
        return 13 + 3 * len(self.signals)

    def rss(self, rss_dbm: np.ndarray) -> np.ndarray:
        """RSS as 0 (weak) to 1 (strong), NaN where unknown."""
        return np.clip((rss_dbm - self.rss_low) / (self.rss_high - self.rss_low), 0, 1).astype(np.float32)

    def arrays(self, data: Measurements) -> RecordArrays:
        """Turn records, in terms of `cells`, into numbers.

        The context is: cells heard; time since the record before and until the one after (logarithm) and whether there is one; strongest,
        mean and serving RSS; RSS-weighted centroid of the cells' positions and whether there is one; position of the serving cell; of each
        signal: of the serving cell, mean, and whether there is one.
        """
        strength = np.where(data.cell >= 0, self.rss(data.rss_dbm), np.nan)
        n = len(data)
        context = np.zeros((n, self.n_context), dtype=np.float32)
        context[:, 0] = data.n_heard / MOST_CELLS
        starts = data.starts[:-1] if n else np.empty(0, dtype=int)
        gap_s = np.diff(data.time_s, prepend=data.time_s[:1])
        before = np.ones(n, dtype=bool)
        before[starts] = False
        after = np.roll(before, -1)
        for column, there, gap in ((1, before, gap_s), (3, after, np.roll(gap_s, -1))):
            scaled = np.log1p(np.clip(gap, 0, LONGEST_GAP_S)) / np.log1p(LONGEST_GAP_S)
            context[:, column], context[:, column + 1] = np.where(there, scaled, 1.0), there
        present = np.isfinite(strength)
        context[:, 5] = np.where(present, strength, 0).max(axis=1)
        context[:, 6] = _row_mean(strength)
        context[:, 7] = np.nan_to_num(strength[:, 0])
        cell = data.cell.astype(np.int64)
        xy = np.append(self.cell_xy, [[np.nan, np.nan]], axis=0)[cell]
        there = np.isfinite(xy[..., 0])
        weight = np.where(there, 10 ** (2 * np.nan_to_num(strength)), 0)
        total = weight.sum(axis=1)
        context[:, 8:10] = (weight[..., None] * np.nan_to_num(xy)).sum(axis=1) / np.where(total > 0, total, 1)[:, None]
        context[:, 10] = total > 0
        context[:, 11:13] = np.nan_to_num(xy[:, 0])
        np.clip(context[:, 8:13], -5, 5, out=context[:, 8:13])
        for order, (name, low, high) in enumerate(self.signals):
            values = data.signals.get(name, np.full(cell.shape, np.nan, dtype=np.float32))
            scaled = np.where(cell >= 0, np.clip((values - low) / (high - low), 0, 1), np.nan)
            column = 13 + 3 * order
            context[:, column] = np.nan_to_num(scaled[:, 0])
            context[:, column + 1] = _row_mean(scaled)
            context[:, column + 2] = np.isfinite(scaled).any(axis=1)
        level = np.where(present, np.nan_to_num(strength) * (KNOTS - 1), -1).astype(np.float32)
        return RecordArrays(cell, level, context)

    def features(self, data: Measurements) -> np.ndarray:
        """The MR features of the 3D tensor: RSS and the further signals, each 0 to 1, shape (n, 7, F), NaN where unknown."""
        known = data.cell >= 0
        columns = [np.where(known, self.rss(data.rss_dbm), np.nan)]
        for name, low, high in self.signals:
            values = data.signals.get(name, np.full(known.shape, np.nan, dtype=np.float32))
            columns.append(np.where(known, np.clip((values - low) / (high - low), 0, 1), np.nan))
        return np.stack(columns, axis=-1).astype(np.float32)

    def tensors(self) -> dict[str, np.ndarray]:
        """What `restore` needs as arrays; the unknown positions of cells are written as 1e30, for files hold finite numbers only."""
        return {
            "scales.cell_xy": np.nan_to_num(self.cell_xy, nan=1e30).astype(np.float64),
            "scales.box_m": np.stack([self.low, self.high]).astype(np.float64),
            "scales.rss_dbm": np.array([self.rss_low, self.rss_high]),
            "scales.scale_m": np.array([self.scale_m]),
            "scales.signals": np.array([[low, high] for _, low, high in self.signals]).reshape(-1, 2),
        }

    @classmethod
    def restore(
        cls, frame: LocalFrame, cells: tuple[str, ...], tensors: dict[str, np.ndarray], names: list[str]
    ) -> Scales:
        """Build again from `tensors` and the names of the signals.

        Raises
        ------
        InputError
            When an array is missing or has another shape.
        """
        shapes = {
            "cell_xy": (len(cells), 2),
            "box_m": (2, 2),
            "rss_dbm": (2,),
            "scale_m": (1,),
            "signals": (len(names), 2),
        }
        found: dict[str, np.ndarray] = {}
        for name, shape in shapes.items():
            array = tensors.get(f"scales.{name}")
            if array is None or array.shape != shape:
                raise InputError(
                    f"The model is damaged: array 'scales.{name}' is {'missing' if array is None else array.shape}, expected {shape}."
                )
            found[name] = array
        xy, box, ranges = found["cell_xy"], found["box_m"], found["signals"]
        return cls(
            frame,
            cells,
            np.where(xy > 1e29, np.nan, xy),
            float(found["scale_m"][0]),
            float(found["rss_dbm"][0]),
            float(found["rss_dbm"][1]),
            tuple((name, float(low), float(high)) for name, (low, high) in zip(names, ranges)),
            box[0],
            box[1],
        )


def _spread(values: np.ndarray) -> tuple[float, float]:
    """1 % and 99 % quantiles, at least one apart."""
    if not len(values):
        return 0.0, 1.0
    low, high = (float(value) for value in np.quantile(values, [0.01, 0.99]))
    return low, max(high, low + 1.0)


def _row_mean(values: np.ndarray) -> np.ndarray:
    """Mean of the finite numbers in each row, 0 without one."""
    there = np.isfinite(values)
    return np.where(there, values, 0).sum(axis=1) / np.maximum(there.sum(axis=1), 1)


def _mean_by(cell: np.ndarray, value: np.ndarray, n_cells: int) -> np.ndarray:
    """Mean value of each cell, NaN for cells that were not heard."""
    heard = cell >= 0
    count = np.bincount(cell[heard], minlength=n_cells)
    total = np.bincount(cell[heard], weights=value[heard], minlength=n_cells)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)
