"""`Stack`: the probability maps of many base stations, as they are stored."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from ..errors import InputError
from ..grid import Grid


@dataclass(frozen=True)
class Stack:
    """A geolocation stack.

    Parameters
    ----------
    name
        What people call it.
    grid
        The cells.
    maps
        As stored, shape (n_bs, n_cells), CSR float32.
    ids
        One per band.
    members
        All ids that stand for each band, its own first.
    form
        "location_given_bs", "bs_given_location", or empty where unknown.
    """

    name: str
    grid: Grid
    maps: sparse.csr_matrix
    ids: tuple[str, ...]
    members: tuple[tuple[str, ...], ...]
    form: str = ""

    def only(self, ids: Sequence[str]) -> Stack:
        """Return the stack of these base stations, in this order."""
        row = {name: index for index, name in enumerate(self.ids)}
        rows = [row[name] for name in ids]
        return replace(self, maps=self.maps[rows], ids=tuple(ids), members=tuple(self.members[index] for index in rows))


def on_common_grid(first: Stack, second: Stack) -> tuple[Stack, Stack]:
    """Move two stacks onto the smallest grid that holds both.

    Raises
    ------
    InputError
        When CRSs or cell sizes differ, or corners are not a whole number of cells apart.
    """
    one, two = first.grid, second.grid
    if one == two:
        return first, second
    if one.crs_wkt != two.crs_wkt:
        raise InputError(
            f"'{first.name}' and '{second.name}' have different CRSs. Make both with the same EXTENT and CELL_SIZE from one layer, or "
            "warp one with 'Warp (reproject)' and resampling 'sum'."
        )
    try:
        top, left = one.offset_to(two)
    except InputError as error:
        raise InputError(
            f"'{first.name}' ({one.describe()}) and '{second.name}' ({two.describe()}) lie on grids that do not align. "
            "Make both with the same CELL_SIZE and EXTENT."
        ) from error
    row, column = min(0, top), min(0, left)
    grid = Grid(
        max(one.height, top + two.height) - row,
        max(one.width, left + two.width) - column,
        one.x_min + column * one.cell_size_m,
        one.y_max - row * one.cell_size_m,
        one.cell_size_m,
        one.crs_wkt,
    )
    return _moved(first, grid, -row, -column), _moved(second, grid, top - row, left - column)


def _moved(stack: Stack, grid: Grid, rows_down: int, columns_right: int) -> Stack:
    rows, columns = np.divmod(stack.maps.indices, stack.grid.width)
    cells = (rows + rows_down) * grid.width + columns + columns_right
    maps = sparse.csr_matrix((stack.maps.data, cells, stack.maps.indptr), shape=(len(stack.ids), grid.size))
    return replace(stack, grid=grid, maps=maps)
