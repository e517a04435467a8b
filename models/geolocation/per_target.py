"""Maps from one world per β: the map of base station (BS) i is P(i|ℓ) of an sPDI in which all BSs have its own β_i.

These are the soft labels of DeepMEND's teacher (section IV-A), and sPDI with an attenuation for each kind of surroundings (section
III-C). The shares of a cell come from different worlds and do not sum to one over BSs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree

from ..progress import Progress, no_progress, span
from . import tiles
from .job import GeolocationJob
from .reach import STEPS
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
    worlds, n_values = _worlds(job, tree)
    job.check_memory(n_values, "kept probabilities", BYTES_PER_MAP_VALUE)
    parts: list[sparse.csr_matrix] = []
    looked_at = []
    for number, world in enumerate(worlds):
        part = span(progress, number / len(worlds), (number + 1) / len(worlds))
        groups = tiles.grouped_tiles(world.job, tree, span(part, 0, 0.3), world.steps)
        looked_at.append(tiles.looked_at(world.job, groups))
        shares = _shares(world, groups, span(part, 0.3, 1))
        parts.append(rows_of_shares(shares, n_bs, job.grid.size))
    smallest, median, largest = zip(*looked_at)
    return _merged(parts), (min(smallest), int(np.median(median)), max(largest))


@dataclass(frozen=True)
class _World:
    """One β as a job of its own, the BSs that have it, shape (n_bs,), bool, and how many BSs a tile may look at."""

    job: GeolocationJob
    targets: np.ndarray
    steps: Sequence[int] = STEPS


def _worlds(job: GeolocationJob, tree: cKDTree) -> tuple[list[_World], int]:
    """A world per distinct β, and the number of values they will give, from a few random cells."""
    cells = np.arange(job.grid.size) if job.mask is None else np.flatnonzero(job.mask)
    sample = np.random.default_rng(0).choice(cells, min(_SAMPLED_CELLS, len(cells)), replace=False)
    mask = np.zeros(job.grid.size, bool)
    mask[sample] = True
    beta = np.maximum(np.round(np.asarray(job.beta, float), _DECIMALS), 10.0**-_DECIMALS)
    worlds = []
    n_values = 0
    for value in np.unique(beta):
        world = _World(replace(job, beta=float(value), surroundings=None, surroundings_mask=None), beta == value)
        few = replace(world.job, mask=mask.reshape(job.grid.shape), device="cpu")
        groups = tiles.grouped_tiles(few, tree, no_progress)
        n_values += sum(len(share.bs) for share in _shares(replace(world, job=few), groups, no_progress))
        # Of a small β, nearly all tiles need many BSs; finding out how many costs more than looking at a few too many.
        needed = np.repeat([group.neighbours.shape[1] for group in groups], [group.n_cells for group in groups])
        least = np.quantile(needed, 0.1)
        steps = [step for step in STEPS if step >= least]
        worlds.append(replace(world, steps=steps[:: 4 if least >= tiles.CROWD else 1]))
    return worlds, int(n_values * len(cells) / len(sample))


def _shares(world: _World, groups: list[tiles.TileGroup], progress: Progress) -> list[CellShares]:
    some = [group for group in (group.only(world.targets) for group in groups) if len(group.neighbours)]
    return tiles.run_groups(world.job, some, progress) if some else []


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
