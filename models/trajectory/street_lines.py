"""Streets as lines on the earth, as a model file holds them; `streets.Streets` is the network they make in one frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import InputError
from .measurements import LocalFrame
from .streets import Streets, build_streets


@dataclass(frozen=True)
class StreetLines:
    """Polylines in degrees.

    Parameters
    ----------
    lonlat
        Vertices of all lines, one line after the other [°], shape (v, 2).
    first
        Index of each line's first vertex, and v at the end, shape (lines + 1,).
    direction
        `streets.BOTH`, `FORWARD` or `BACKWARD` for each line, shape (lines,).
    """

    lonlat: np.ndarray
    first: np.ndarray
    direction: np.ndarray

    def __post_init__(self) -> None:
        if (
            self.lonlat.ndim != 2
            or self.lonlat.shape[1] != 2
            or len(self.first) != len(self.direction) + 1
            or self.first[0] != 0
            or self.first[-1] != len(self.lonlat)
            or (np.diff(self.first) < 0).any()
        ):
            raise InputError("The street lines cannot be used: vertices and lines do not fit together.")

    def in_frame(self, frame: LocalFrame) -> Streets:
        """Return the network in the metres of `frame`."""
        return build_streets(np.column_stack(frame.to_xy(*self.lonlat.T)), self.first, self.direction)

    def near(self, lon: np.ndarray, lat: np.ndarray, margin_m: float) -> StreetLines:
        """Return the lines with a vertex in the box around positions [°], widened by `margin_m` on all sides.

        Raises
        ------
        InputError
            When there is none.
        """
        frame = LocalFrame.around(lon, lat)
        x_m, y_m = frame.to_xy(lon, lat)
        east_m, north_m = frame.to_xy(*self.lonlat.T)
        inside = (
            (east_m >= np.nanmin(x_m) - margin_m)
            & (east_m <= np.nanmax(x_m) + margin_m)
            & (north_m >= np.nanmin(y_m) - margin_m)
            & (north_m <= np.nanmax(y_m) + margin_m)
        )
        line = np.repeat(np.arange(len(self.direction)), np.diff(self.first))
        kept = np.zeros(len(self.direction), dtype=bool)
        kept[line[inside]] = True
        if not kept.any():
            raise InputError(
                f"No street lies within {margin_m:,.0f} m of the measurements (around {frame.lat:.4f}° N {frame.lon:.4f}° E). Choose "
                "streets of the same place, and check the CRS of both layers."
            )
        first = np.concatenate([[0], np.cumsum(np.diff(self.first)[kept])])
        return StreetLines(self.lonlat[kept[line]], first, self.direction[kept])
