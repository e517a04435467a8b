"""Maps from one world per β: the map of base station (BS) i is P(i|ℓ) of an sPDI in which all BSs have its own β_i.

These are the soft labels of DeepMEND's teacher (section IV-A), and sPDI with an attenuation for each kind of surroundings (section
III-C). The shares of a cell come from different worlds and do not sum to one over BSs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree

from ..progress import Progress, no_progress, span
from . import tiles
from .job import GeolocationJob
from .result import BYTES_PER_MAP_VALUE, CellShares, rows_of_shares

#: β are told apart to this many decimals.
_DECIMALS = 2
#: The result's size is estimated from so many random cells.
_SAMPLED_CELLS = 512


def per_target_maps(
    job: GeolocationJob, tree: cKDTree, progress: Progress
) -> tuple[sparse.csr_matrix, tuple[int, int, int]]:
    """Compute P_{β_i}(i|ℓ) of every BS.

    Parameters
    ----------
    job
        With one β per BS, which are rounded to two decimals; surroundings are left alone.
    tree
        Of its positions.

    Returns
    -------
    tuple[scipy.sparse.csr_matrix, tuple[int, int, int]]
        Values of at least `min_probability`, shape (n_bs, n_cells), CSR float32, and the (smallest, median, largest) number of BSs
        looked at per cell: the smallest, median and largest of the worlds'.

    Raises
    ------
    MemoryBudgetError
        When the maps would not fit the budget; said before the work starts.
    """
    n_bs = len(job.sites_m)
    worlds = list(_worlds(job))
    job.check_memory(_estimated_values(job, tree), "kept probabilities", BYTES_PER_MAP_VALUE)
    parts: list[sparse.csr_matrix] = []
    looked_at = []
    for number, (world, targets) in enumerate(worlds):
        part = span(progress, number / len(worlds), (number + 1) / len(worlds))
        groups = tiles.grouped_tiles(world, tree, span(part, 0, 0.3))
        looked_at.append(tiles.looked_at(world, groups))
        parts.append(rows_of_shares(_shares(world, targets, groups, span(part, 0.3, 1)), n_bs, job.grid.size))
    smallest, median, largest = zip(*looked_at)
    return _merged(parts), (min(smallest), int(np.median(median)), max(largest))


def _worlds(job: GeolocationJob) -> Iterator[tuple[GeolocationJob, np.ndarray]]:
    """Each distinct β as a job of its own, and the BSs that have it, shape (n_bs,), bool."""
    beta = np.maximum(np.round(np.asarray(job.beta, float), _DECIMALS), 10.0**-_DECIMALS)
    for value in np.unique(beta):
        yield replace(job, beta=float(value), surroundings=None, surroundings_mask=None), beta == value


def _shares(
    world: GeolocationJob, targets: np.ndarray, groups: list[tiles.TileGroup], progress: Progress
) -> list[CellShares]:
    some = [group for group in (group.only(targets) for group in groups) if len(group.neighbours)]
    return tiles.run_groups(world, some, progress) if some else []


def _estimated_values(job: GeolocationJob, tree: cKDTree) -> int:
    """Number of values the maps will hold, from a few random cells."""
    cells = np.arange(job.grid.size) if job.mask is None else np.flatnonzero(job.mask)
    sample = np.random.default_rng(0).choice(cells, min(_SAMPLED_CELLS, len(cells)), replace=False)
    mask = np.zeros(job.grid.size, bool)
    mask[sample] = True
    few = replace(job, mask=mask.reshape(job.grid.shape), device="cpu")
    total = 0
    for world, targets in _worlds(few):
        groups = tiles.grouped_tiles(world, tree, no_progress)
        total += sum(len(share.bs) for share in _shares(world, targets, groups, no_progress))
    return int(total * len(cells) / len(sample))


def _merged(parts: list[sparse.csr_matrix]) -> sparse.csr_matrix:
    """One matrix of the rows of several, no two of which fill the same row; the list is emptied on the way."""
    shape = parts[0].shape
    per_row = np.sum([np.diff(part.indptr) for part in parts], axis=0, dtype=np.int64)
    indptr = np.concatenate([[0], np.cumsum(per_row)])
    data, indices = np.empty(indptr[-1], np.float32), np.empty(indptr[-1], np.int32)
    while parts:
        part = parts.pop()
        for row in np.flatnonzero(np.diff(part.indptr)):
            source, target = slice(*part.indptr[row : row + 2]), slice(*indptr[row : row + 2])
            data[target], indices[target] = part.data[source], part.indices[source]
    return sparse.csr_matrix((data, indices, indptr), shape=shape)
