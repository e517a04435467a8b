"""`Geolocation`: what every geolocation method returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import sparse

from ..grid import Grid

#: Bytes a kept probability costs at the peak: value and index, cell-major and BS-major at once.
BYTES_PER_VALUE = 17
#: The same where maps are assembled: value, index and share, and a value once more for what is made of them.
BYTES_PER_MAP_VALUE = 16
#: Values that are brought from cell-major to BS-major order at a time.
_BATCH_VALUES = 1 << 21
#: Values below this count as zero.
_NOTHING = 1e-20


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

    Most methods share out the cells, and a BS's map is what it gets of each. Others draw the maps of BSs one by one, and the shares of a
    cell are made to sum to one afterwards; then `maps` holds what was drawn.

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
    maps
        What the maps are made of where they are not the rows of `association`: values ≥ 0, each row up to a factor P(ℓ|i), shape
        (n_bs, n_cells), CSR float32. Shares its index arrays with `association`. None where they are.
    """

    grid: Grid
    association: sparse.csr_matrix
    best_server: np.ndarray
    best_probability: np.ndarray
    entropy_bits: np.ndarray
    mass_cut: np.ndarray
    neighbours: tuple[int, int, int]
    dropped: float = 0.0
    maps: sparse.csr_matrix | None = None

    @property
    def mass(self) -> np.ndarray:
        """Σ_ℓ P(i|ℓ) per BS, in cells, shape (n_bs,), float64."""
        return row_sums(self.association)

    def location_given_bs(self) -> sparse.csr_matrix:
        """P(ℓ|i), each BS with mass sums to one over cells: the maps, or under a uniform prior equation (1) of the DeepMEND paper."""
        return normalised_rows(self.association if self.maps is None else self.maps)


def row_sums(matrix: sparse.csr_matrix) -> np.ndarray:
    """Float64 sums of the rows of a CSR matrix, shape (n_rows,)."""
    edges = zip(matrix.indptr[:-1], matrix.indptr[1:])
    return np.array([matrix.data[low:high].sum(dtype=np.float64) for low, high in edges])


def normalised_rows(matrix: sparse.csr_matrix) -> sparse.csr_matrix:
    """Return `matrix` with every non-empty row scaled to sum to one; index arrays are shared, not copied."""
    totals = row_sums(matrix)
    scale = np.divide(1.0, totals, out=np.zeros_like(totals), where=totals > 0)
    data = np.empty_like(matrix.data)
    for row in range(matrix.shape[0]):
        low, high = matrix.indptr[row], matrix.indptr[row + 1]
        np.multiply(matrix.data[low:high], scale[row], out=data[low:high], casting="same_kind")
    return sparse.csr_matrix((data, matrix.indices, matrix.indptr), shape=matrix.shape)


def assemble(grid: Grid, n_bs: int, shares: list[CellShares], neighbours: tuple[int, int, int]) -> Geolocation:
    """Turn the cells' shares, in any order, into a `Geolocation`; the list is emptied on the way, which saves memory."""
    n_shared, dropped = sum(len(share.cells) for share in shares), sum(share.dropped for share in shares)
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
    return Geolocation(
        grid=grid,
        association=rows_of_shares(shares, n_bs, grid.size),
        best_server=best_server.reshape(grid.shape),
        best_probability=best_probability.reshape(grid.shape),
        entropy_bits=np.maximum(entropy, 0).reshape(grid.shape),
        mass_cut=np.full(n_bs, np.nan),
        neighbours=neighbours,
        dropped=dropped / max(n_shared, 1),
    )


def assemble_maps(
    grid: Grid,
    maps: sparse.csr_matrix,
    min_probability: float = 0.0,
    neighbours: tuple[int, int, int] = (0, 0, 0),
) -> Geolocation:
    """Turn the maps of BSs, drawn one by one, into a `Geolocation` whose cells sum to one over BSs.

    Parameters
    ----------
    maps
        v_i(ℓ) ≥ 0, shape (n_bs, n_cells), CSR float32 without duplicates, in any order within a row; it is taken over and changed.
        A BS gets v_i(ℓ) / Σ_j v_j(ℓ) of a cell, so v must compare between BSs: P(i|ℓ), or P(ℓ|i) times the area [cells] a BS serves.
    min_probability
        Smaller values are dropped; in maps whose largest value is below one, those smaller than this share of it.
    neighbours
        (smallest, median, largest) number of BSs looked at per cell.
    """
    n_bs = maps.shape[0]
    totals = np.zeros(grid.size)
    kept_mass, dropped_mass, end = 0.0, 0.0, 0
    indptr = np.zeros_like(maps.indptr)
    for row in range(n_bs):  # the arrays are compacted in place
        part = slice(maps.indptr[row], maps.indptr[row + 1])
        cells, values = maps.indices[part], maps.data[part]
        if len(values):
            smallest = max(min_probability * min(float(values.max()), 1.0), _NOTHING)
            keep = values >= smallest
            dropped_mass += float(values[~keep].sum(dtype=np.float64))
            cells, values = cells[keep], values[keep]
            totals[cells] += values
            kept_mass += float(values.sum(dtype=np.float64))
            maps.indices[end : end + len(cells)], maps.data[end : end + len(cells)] = cells, values
            end += len(cells)
        indptr[row + 1] = end
    maps = sparse.csr_matrix((maps.data[:end], maps.indices[:end], indptr), shape=maps.shape)
    best_server = np.full(grid.size, -1, np.int32)
    best_probability, entropy = np.zeros(grid.size, np.float32), np.zeros(grid.size, np.float32)
    shares = np.empty(end, np.float32)
    for row in range(n_bs):
        part = slice(indptr[row], indptr[row + 1])
        cells = maps.indices[part]
        share = (maps.data[part] / totals[cells]).astype(np.float32)
        shares[part] = share
        entropy[cells] -= share * np.log2(np.maximum(share, np.float32(_NOTHING)))
        better = share > best_probability[cells]
        best_server[cells[better]] = row
        best_probability[cells[better]] = share[better]
    return Geolocation(
        grid=grid,
        association=sparse.csr_matrix((shares, maps.indices, maps.indptr), shape=maps.shape),
        best_server=best_server.reshape(grid.shape),
        best_probability=best_probability.reshape(grid.shape),
        entropy_bits=np.maximum(entropy, 0).reshape(grid.shape),
        mass_cut=np.full(n_bs, np.nan),
        neighbours=neighbours,
        dropped=dropped_mass / max(kept_mass + dropped_mass, _NOTHING),
        maps=maps,
    )


def rows_of_shares(shares: list[CellShares], n_bs: int, n_cells: int) -> sparse.csr_matrix:
    """Bring cell-by-cell shares into one CSR row per BS, in batches; `shares` is emptied on the way."""
    per_bs = np.zeros(n_bs, np.int64)
    for share in shares:
        per_bs += np.bincount(share.bs, minlength=n_bs)
    indptr = np.concatenate([[0], np.cumsum(per_bs)])
    wide = indptr[-1] > np.iinfo(np.int32).max
    data, indices = np.empty(indptr[-1], np.float32), np.empty(indptr[-1], np.int64 if wide else np.int32)
    free = indptr[:-1].copy()
    while shares:
        batch: list[CellShares] = []
        while shares and sum(len(share.bs) for share in batch) < _BATCH_VALUES:
            batch.append(shares.pop())
        batch.reverse()
        by_bs = _by_bs(batch, n_bs)
        counts = np.diff(by_bs.indptr)
        place = np.repeat(free - by_bs.indptr[:-1], counts) + np.arange(by_bs.nnz)
        data[place] = by_bs.data
        indices[place] = np.concatenate([share.cells for share in batch])[by_bs.indices]
        free += counts
    return sparse.csr_matrix((data, indices, indptr), shape=(n_bs, n_cells))


def _by_bs(shares: Sequence[CellShares], n_bs: int) -> sparse.csc_matrix:
    """Transpose some cells' shares, shape (n_cells_given, n_bs)."""
    counts = np.concatenate([share.counts for share in shares])
    by_cell = sparse.csr_matrix(
        (
            np.concatenate([share.probability for share in shares]),
            np.concatenate([share.bs for share in shares]),
            np.concatenate([[0], np.cumsum(counts)]),
        ),
        shape=(len(counts), n_bs),
    )
    return by_cell.tocsc()
