"""`Geolocation`: what every geolocation method returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from ..grid import Grid

#: Bytes a kept probability costs at the peak: value and index, cell-major and BS-major at once, and one index copy.
BYTES_PER_VALUE = 24


@dataclass(frozen=True)
class CellShares:
    """Association probabilities of some cells, cell after cell.

    Parameters
    ----------
    cells
        Flat cell indices, shape (n,).
    counts
        Number of BSs kept per cell, shape (n,).
    bs
        BS index of each kept value, shape (counts.sum(),).
    probability
        P(i|ℓ), same shape.
    dropped
        Sum over the cells of the probability that was too small to keep.
    """

    cells: np.ndarray
    counts: np.ndarray
    bs: np.ndarray
    probability: np.ndarray
    dropped: float = 0.0


@dataclass(frozen=True)
class Geolocation:
    """Where the devices of each base station (BS) are, on one grid.

    Parameters
    ----------
    grid
        The cells.
    association
        P(i|ℓ), shape (n_bs, n_cells), CSR float32; every cell with mass sums to one over BSs. Column indices are not sorted.
    best_server
        Index of the BS with the largest P(i|ℓ), −1 where no BS has mass, shape (height, width), int32.
    best_probability
        Its P(i|ℓ), shape (height, width), float32.
    entropy_bits
        −Σ_i P(i|ℓ) log2 P(i|ℓ) [bit], shape (height, width), float32.
    mass_cut
        Share of each BS's mass that lies beyond the grid, as far as it was measured; NaN where it was not, shape (n_bs,).
    neighbours
        (smallest, median, largest) number of BSs looked at per cell.
    dropped
        Mean over cells of the probability that was too small to keep; cells were scaled back to one.
    """

    grid: Grid
    association: sparse.csr_matrix
    best_server: np.ndarray
    best_probability: np.ndarray
    entropy_bits: np.ndarray
    mass_cut: np.ndarray
    neighbours: tuple[int, int, int]
    dropped: float = 0.0

    @property
    def mass(self) -> np.ndarray:
        """Σ_ℓ P(i|ℓ) per BS, in cells, shape (n_bs,), float64."""
        return row_sums(self.association)

    def location_given_bs(self) -> sparse.csr_matrix:
        """P(ℓ|i) under a uniform prior (equation (1) of the DeepMEND paper): each BS with mass sums to one over cells."""
        return normalised_rows(self.association)


def row_sums(matrix: sparse.csr_matrix) -> np.ndarray:
    """Float64 sums of the rows of a CSR matrix, shape (n_rows,)."""
    totals = np.zeros(matrix.shape[0])
    filled = np.flatnonzero(np.diff(matrix.indptr))
    if filled.size:
        totals[filled] = np.add.reduceat(matrix.data, matrix.indptr[filled], dtype=np.float64)
    return totals


def normalised_rows(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    """Return `matrix` with every non-empty row scaled to sum to one; index arrays are shared, not copied."""
    totals = row_sums(matrix)
    scale = np.divide(1.0, totals, out=np.zeros_like(totals), where=totals > 0)
    data = np.empty_like(matrix.data)
    for row in range(matrix.shape[0]):
        low, high = matrix.indptr[row], matrix.indptr[row + 1]
        np.multiply(matrix.data[low:high], scale[row], out=data[low:high], casting="same_kind")
    return sparse.csr_matrix((data, matrix.indices, matrix.indptr), shape=matrix.shape)


def assemble(grid: Grid, n_bs: int, shares: Sequence[CellShares], neighbours: tuple[int, int, int]) -> Geolocation:
    """Turn the cells' shares, in any order, into a `Geolocation`."""
    cells = np.concatenate([share.cells for share in shares]) if shares else np.zeros(0, np.int64)
    best_server = np.full(grid.size, -1, np.int32)
    best_probability = np.zeros(grid.size, np.float32)
    entropy = np.zeros(grid.size, np.float32)
    for share in shares:
        has_mass = share.counts > 0
        if not has_mass.any():
            continue
        starts = (np.cumsum(share.counts) - share.counts)[has_mass]
        kept = share.cells[has_mass]
        largest = np.maximum.reduceat(share.probability, starts)
        is_largest = share.probability == np.repeat(largest, share.counts[has_mass])
        candidates = np.where(is_largest, share.bs, n_bs)
        best_server[kept] = np.minimum.reduceat(candidates, starts)
        best_probability[kept] = largest
        entropy[kept] = -np.add.reduceat(share.probability * np.log2(share.probability), starts)
    association = _by_bs(cells, shares, n_bs, grid.size)
    return Geolocation(
        grid=grid,
        association=association,
        best_server=best_server.reshape(grid.shape),
        best_probability=best_probability.reshape(grid.shape),
        entropy_bits=np.maximum(entropy, 0).reshape(grid.shape),
        mass_cut=np.full(n_bs, np.nan),
        neighbours=neighbours,
        dropped=sum(share.dropped for share in shares) / max(len(cells), 1),
    )


def _by_bs(cells: np.ndarray, shares: Sequence[CellShares], n_bs: int, n_cells: int) -> sparse.csr_matrix:
    """Transpose cell-by-cell shares into one CSR row per BS."""
    if not len(cells):
        return sparse.csr_matrix((n_bs, n_cells), dtype=np.float32)
    counts = np.concatenate([share.counts for share in shares])
    by_cell = sparse.csr_matrix(
        (
            np.concatenate([share.probability for share in shares]),
            np.concatenate([share.bs for share in shares]),
            np.concatenate([[0], np.cumsum(counts)]),
        ),
        shape=(len(cells), n_bs),
    )
    by_bs = by_cell.tocsc()
    del by_cell
    index = cells.astype(np.int32)[by_bs.indices]
    return sparse.csr_matrix((by_bs.data, index, by_bs.indptr), shape=(n_bs, n_cells))
