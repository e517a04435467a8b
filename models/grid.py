"""`Grid`: the one value object for "these pixels on the earth"."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from .errors import InputError


@dataclass(frozen=True)
class Grid:
    """A north-up raster grid of square cells in a metric CRS.

    Arrays on a grid have shape (height, width); row 0 is north; positions are cell centres; a flat cell index is
    ``row * width + column``.

    Parameters
    ----------
    height, width
        Number of rows and columns.
    x_min, y_max
        Outer corner of the north-west cell [m].
    cell_size_m
        Side of a cell [m].
    crs_wkt
        Coordinate reference system as WKT; empty when positions are plain metres.
    """

    height: int
    width: int
    x_min: float
    y_max: float
    cell_size_m: float
    crs_wkt: str = ""

    def __post_init__(self) -> None:
        if self.height < 1 or self.width < 1:
            raise InputError(f"A grid needs at least one cell, this one has {self.height} x {self.width}.")
        if not (self.cell_size_m > 0 and math.isfinite(self.cell_size_m)):
            raise InputError(f"The cell size must be a positive number of metres, not {self.cell_size_m}.")

    @classmethod
    def covering(
        cls, bounds: tuple[float, float, float, float], cell_size_m: float, crs_wkt: str = "", snap: bool = True
    ) -> Grid:
        """Return the smallest grid that covers `bounds` (x_min, y_min, x_max, y_max) [m].

        With `snap` the cell corners fall on multiples of the cell size, so grids of one cell size and CRS always align.
        """
        if not (cell_size_m > 0 and math.isfinite(cell_size_m)):
            raise InputError(f"The cell size must be a positive number of metres, not {cell_size_m}.")
        x_min, y_min, x_max, y_max = (float(value) for value in bounds)
        if not all(map(math.isfinite, (x_min, y_min, x_max, y_max))) or x_max < x_min or y_max < y_min:
            raise InputError(f"The extent {bounds} is empty or not finite.")
        tolerance = 1e-9
        if snap:
            left = math.floor(x_min / cell_size_m + tolerance) * cell_size_m
            top = math.ceil(y_max / cell_size_m - tolerance) * cell_size_m
        else:
            left, top = x_min, y_max
        width = max(1, math.ceil((x_max - left) / cell_size_m - tolerance))
        height = max(1, math.ceil((top - y_min) / cell_size_m - tolerance))
        return cls(height, width, left, top, float(cell_size_m), crs_wkt)

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width)."""
        return self.height, self.width

    @property
    def size(self) -> int:
        """Number of cells."""
        return self.height * self.width

    @property
    def cell_area_m2(self) -> float:
        """Area of a cell [m²]."""
        return self.cell_size_m**2

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """(x_min, y_min, x_max, y_max) of the outer cell edges [m]."""
        return (
            self.x_min,
            self.y_max - self.height * self.cell_size_m,
            self.x_min + self.width * self.cell_size_m,
            self.y_max,
        )

    @property
    def geotransform(self) -> tuple[float, float, float, float, float, float]:
        """GDAL's affine transform."""
        return (self.x_min, self.cell_size_m, 0.0, self.y_max, 0.0, -self.cell_size_m)

    @property
    def x_m(self) -> np.ndarray:
        """Easting of the column centres [m], shape (width,)."""
        return self.x_min + (np.arange(self.width) + 0.5) * self.cell_size_m

    @property
    def y_m(self) -> np.ndarray:
        """Northing of the row centres [m], shape (height,), falling."""
        return self.y_max - (np.arange(self.height) + 0.5) * self.cell_size_m

    def centres(self, cells: np.ndarray) -> np.ndarray:
        """Centres (x, y) [m] of flat cell indices, shape (n, 2)."""
        rows, columns = np.divmod(np.asarray(cells), self.width)
        return np.column_stack([self.x_m[columns], self.y_m[rows]])

    def cells_of(self, xy_m: np.ndarray) -> np.ndarray:
        """Flat index of the cell that holds each point, −1 outside, shape (n,)."""
        xy_m = np.asarray(xy_m, dtype=float)
        columns = np.floor((xy_m[:, 0] - self.x_min) / self.cell_size_m)
        rows = np.floor((self.y_max - xy_m[:, 1]) / self.cell_size_m)
        inside = (columns >= 0) & (columns < self.width) & (rows >= 0) & (rows < self.height)
        return np.where(inside, rows * self.width + columns, -1).astype(np.int64)

    def offset_to(self, other: Grid) -> tuple[int, int]:
        """(rows, columns) from this grid's north-west corner to `other`'s, for grids that align.

        Raises
        ------
        InputError
            When cell sizes differ or corners are not a whole number of cells apart.
        """
        rows = (self.y_max - other.y_max) / self.cell_size_m
        columns = (other.x_min - self.x_min) / self.cell_size_m
        same_size = math.isclose(self.cell_size_m, other.cell_size_m, rel_tol=1e-9)
        if not same_size or abs(rows - round(rows)) > 1e-3 or abs(columns - round(columns)) > 1e-3:
            raise InputError(f"Grids do not align: {self.describe()} and {other.describe()}.")
        return round(rows), round(columns)

    def describe(self) -> str:
        """One line for people: size, cell size, north-west corner."""
        return (
            f"{self.height} x {self.width} cells of {self.cell_size_m:g} m "
            f"with north-west corner ({self.x_min:.10g}, {self.y_max:.10g})"
        )
