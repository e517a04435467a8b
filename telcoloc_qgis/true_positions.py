"""Reading a layer of true positions: points with times, and a device where there are several."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from qgis.core import QgsCoordinateReferenceSystem, QgsCoordinateTransform, QgsProcessingFeatureSource, QgsWkbTypes

from ..models.errors import InputError
from .columns import checked_layer, fields_by_lower, parts_of
from .crs import name_of
from .tracks import RECOGNISED, transformed

if TYPE_CHECKING:
    from ..models.progress import Progress
    from .algorithm import Run

_TIME_NAMES = ("time_s", *(name for name in RECOGNISED["TIME_FIELD"] if name != "time_s"))


@dataclass(frozen=True)
class TruePositions:
    """Where devices were.

    Parameters
    ----------
    name
        Of the layer.
    devices, device
        Names, and which one each position belongs to, shape (k,); −1 where the layer does not tell.
    time_s
        Shape (k,) [s since 1970-01-01 UTC].
    xy_m
        In the CRS asked for [m], shape (k, 2).
    """

    name: str
    devices: tuple[str, ...]
    device: np.ndarray
    time_s: np.ndarray
    xy_m: np.ndarray


def read_true_positions(
    run: Run, source: QgsProcessingFeatureSource, crs: QgsCoordinateReferenceSystem, parameter: str, progress: Progress
) -> TruePositions:
    """Read a point layer of true positions in `crs`, which is metric.

    Raises
    ------
    InputError
        No features, no points, unknown CRS, no field of times, no usable row, a point that cannot be placed in `crs`.
    """
    from ..models.trajectory import dialects

    layer = checked_layer(
        parameter, source, QgsWkbTypes.GeometryType.PointGeometry, "points; give a layer of true positions"
    )
    by_name = fields_by_lower(source)
    time = next((by_name[name] for name in _TIME_NAMES if name in by_name), None)
    if time is None:
        raise InputError(
            f"{parameter}: layer '{layer}' has no field of times (such as time); its fields: "
            f"{', '.join(source.fields().names()) or 'none'}."
        )
    device = next((by_name[name] for name in RECOGNISED["DEVICE_FIELD"] if name in by_name), None)
    names = dialects.Names()
    read: list[tuple[np.ndarray, ...]] = []
    for part in parts_of(run, source, parameter, [time, *([device] if device else [])], True, progress):
        code = names.add(*dialects.names(part.columns[device])) if device else np.full(len(part), -1)
        read.append((part.rows, code, dialects.times(part.columns[time])[0], part.x, part.y))
    row, code, time_s, x, y = (np.concatenate(column) for column in zip(*read))
    usable = np.isfinite(time_s) & np.isfinite(x) & np.isfinite(y)
    if not usable.any():
        raise InputError(f"{parameter}: none of the {len(row):,} rows of layer '{layer}' has a point and a time.")
    if not usable.all():
        lost = int((~usable).sum())
        run.warn(f"{parameter}: rows without a point or a time, which are left out: {lost:,} of {len(row):,}.")
    row, code, time_s, x, y = (column[usable] for column in (row, code, time_s, x, y))
    xy_m = transformed(QgsCoordinateTransform(source.sourceCrs(), crs, run.context.transformContext()), x, y).T
    for lost in np.flatnonzero(~np.isfinite(xy_m).all(axis=1))[:1].tolist():
        raise InputError(
            f"{parameter}: feature {row[lost]} at {x[lost]:.6g}, {y[lost]:.6g} cannot be placed in {name_of(crs)}. Check the layer's CRS "
            "and coordinates."
        )
    return TruePositions(layer, tuple(names.texts), code, time_s, xy_m)
