"""Choosing the grid of a geolocation from what the user gave and where the base stations (BSs) stand."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from qgis.core import Qgis, QgsCoordinateReferenceSystem, QgsRectangle

from ..models.errors import InputError
from ..models.grid import Grid
from . import polygons
from .sites import listed

if TYPE_CHECKING:
    from ..models.geolocation.sites import Sites
    from .algorithm import Run


@dataclass(frozen=True)
class Frame:
    """The grid to fill, and a coarser one around it; masks say where mass may be, None everywhere."""

    grid: Grid
    mask: np.ndarray | None
    surroundings: Grid | None
    surroundings_mask: np.ndarray | None


def choose_frame(run: Run, sites: Sites, crs: QgsCoordinateReferenceSystem) -> Frame:
    """Choose the grid from EXTENT, BOUNDARY, MARGIN and CELL_SIZE, and one around it to measure the mass cut off on.

    Raises
    ------
    InputError
        No spacing to derive a grid from, a boundary without cells, or more cells than the memory budget holds.
    """
    from ..models.geolocation.sites import default_cell_size_m, default_margin_m, loneliest

    parameters = run.parameters
    extent = parameters.extent("EXTENT", crs, parameters.source("INPUT").sourceCrs())
    cell_size = parameters.number("CELL_SIZE")
    margin = parameters.number("MARGIN")
    boundary_source = parameters.source("BOUNDARY")
    boundary = None
    if boundary_source is not None:
        usable, rejected = polygons.polygon_features(boundary_source, crs, run.context, "BOUNDARY")
        if rejected:
            run.warn(f"BOUNDARY: {len(rejected):,} polygons cannot be used: {listed(rejected)}.")
        boundary = [geometry for _, geometry in usable]
    if len(sites) == 1 and (cell_size is None or (extent is None and boundary is None)):
        rows = int(sites.sectors.sum())
        what = "There is only one base station" if rows == 1 else f"All {rows:,} points have the same coordinates"
        raise InputError(
            f"{what}, so no spacing can be derived. Give CELL_SIZE and EXTENT or BOUNDARY, or use a layer with at least two places."
        )
    if margin is None:
        margin = default_margin_m(sites.xy_m) if len(sites) > 1 else 0.0
    around = QgsRectangle(*sites.xy_m.min(axis=0), *sites.xy_m.max(axis=0)).buffered(margin)
    if extent is not None and not extent.intersects(around):
        raise InputError(
            f"EXTENT lies wholly outside the base stations and their margin of {margin:,.0f} m. Check its coordinates and CRS."
        )
    if extent is None:
        extent = around
        if boundary is not None:
            inner = QgsRectangle()
            for geometry in boundary:
                inner.combineExtentWith(geometry.boundingBox())
            extent = inner if len(sites) == 1 else around.intersect(inner)
            if extent.isEmpty():
                raise InputError(
                    "BOUNDARY lies wholly outside the base stations and their margin, so no cell can hold mass. "
                    "Check its CRS, use another boundary, or leave it empty."
                )
    bounds = (extent.xMinimum(), extent.yMinimum(), extent.xMaximum(), extent.yMaximum())
    if cell_size is None:
        cell_size, from_spacing = default_cell_size_m(sites.xy_m, bounds)
        if cell_size > from_spacing:
            far = loneliest(sites.xy_m)
            run.warn(
                f"Cell size {cell_size:g} m instead of {from_spacing:g} m, which suits the spacing, so that the grid has about a "
                f"million cells. The base station farthest from all others is '{sites.ids[far]}'; EXTENT or CELL_SIZE help."
            )
        else:
            run.info(f"Cell size {cell_size:g} m, from the spacing of the base stations.")
    n_cells = (bounds[2] - bounds[0]) * (bounds[3] - bounds[1]) / cell_size**2
    budget_mb = parameters.number("MAX_MEMORY_MB")
    if n_cells * 40 / 2**20 > budget_mb or n_cells > 2**31 - 1:
        least = cell_size * math.sqrt(max(n_cells * 40 / 2**20 / budget_mb, n_cells / 2**31))
        raise InputError(
            f"CELL_SIZE {cell_size:g} m makes {n_cells:,.0f} cells, which need {n_cells * 40 / 2**20:,.0f} MB; {budget_mb:,.0f} MB "
            f"are allowed. Use CELL_SIZE {least * 1.05:.3g} or more, or a smaller EXTENT."
        )
    grid = Grid.covering(bounds, cell_size, crs.toWkt(Qgis.CrsWktVariant.Preferred) if crs.isValid() else "")
    mask = None if boundary is None else polygons.inside_mask(boundary, grid)
    if mask is not None and not mask.any():
        raise InputError(
            "BOUNDARY holds the centre of no cell of the grid. Use a smaller CELL_SIZE, or another boundary."
        )
    if len(sites) == 1:
        return Frame(grid, mask, None, None)
    x_min, y_min, x_max, y_max = grid.bounds
    coarse = max(4 * cell_size, math.sqrt((x_max - x_min + 2 * margin) * (y_max - y_min + 2 * margin) / 60_000))
    ring = max(margin, 3 * coarse)
    wide = (x_min - ring, y_min - ring, x_max + ring, y_max + ring)
    surroundings = Grid.covering(wide, coarse, grid.crs_wkt, snap=False)
    in_columns = (surroundings.x_m > x_min) & (surroundings.x_m < x_max)
    in_rows = (surroundings.y_m > y_min) & (surroundings.y_m < y_max)
    beyond = ~(in_rows[:, None] & in_columns)
    if boundary is not None:
        beyond &= polygons.inside_mask(boundary, surroundings)
    return Frame(grid, mask, surroundings, beyond)
