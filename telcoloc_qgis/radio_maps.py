"""Radio maps on disk and on the map: one band per transmitter, the best server, and their styles."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from osgeo import gdal

from ..models.errors import InputError, OutputError
from ..models.progress import Progress, no_progress
from . import rasters, styles

if TYPE_CHECKING:
    from ..models.radio.maps import RadioMaps
    from ..models.radio.transmitters import Transmitters
    from .algorithm import Run

#: What bands may hold, by the name in QUANTITY: the name in the file, the unit, and whether less of it is a stronger signal.
QUANTITIES = {"path_loss": ("path_loss_db", "dB", True), "rss": ("rss_dbm", "dBm", False)}
#: Cells of which nothing is known, such as those inside buildings.
NODATA = -9999.0
_QUANTITY, _MODEL, _FLOOR = "TELCOLOC_QUANTITY", "TELCOLOC_MODEL", "TELCOLOC_NOISE_FLOOR_DBM"
_TRANSMITTER = "TELCOLOC_TRANSMITTER"
#: What a transmitter's band says of it, beside its id: attributes of `Transmitters`.
_EQUIPMENT = ("height_m", "azimuth_deg", "tilt_deg", "beam_width_deg", "freq_mhz", "eirp_dbm")
#: Classes of a legend are as wide as the first of these [dB] with which there are at most so many.
_STEPS_DB, _MOST_CLASSES = (1, 2, 5, 10, 15, 20, 30), 8


def write_radio_maps(
    run: Run, name: str, maps: RadioMaps, quantity: str, facts: Mapping[str, str], progress: Progress
) -> None:
    """Write output `name`: one band per transmitter, named by its id, opening on one in the middle of the map.

    Parameters
    ----------
    quantity
        One of `QUANTITIES`.
    facts
        More metadata of the file.
    """
    key, unit, falling = QUANTITIES[quantity]
    transmitters = maps.transmitters
    rasters.write_bands(
        run.outputs.file(name, ".tif"),
        maps.grid,
        (_values(maps, index, quantity) for index in range(len(transmitters))),
        transmitters.ids,
        {**facts, _QUANTITY: key, _MODEL: maps.model, _FLOOR: f"{maps.noise_floor_dbm:g}"},
        NODATA,
        threads=run.threads,
        progress=progress,
        facts=[{_TRANSMITTER: _described(transmitters, index)} for index in range(len(transmitters))],
    )
    x_min, y_min, x_max, y_max = maps.grid.bounds
    middle = np.array([(x_min + x_max) / 2, (y_min + y_max) / 2])
    shown = int(np.argmin(((transmitters.xy_m - middle) ** 2).sum(axis=1)))
    weakest = maps.noise_floor_dbm
    if falling:
        weakest = float(transmitters.eirp_dbm[shown]) - weakest
    edges = class_edges(_values(maps, shown, quantity), weakest, falling)
    run.style(name, run.outputs.results[name], styles.signal_qml(shown + 1, edges, unit, falling))


def _values(maps: RadioMaps, index: int, quantity: str) -> np.ndarray:
    loss_db = maps.loss_db[index]
    return loss_db if quantity == "path_loss" else (maps.transmitters.eirp_dbm[index] - loss_db).astype(np.float32)


def _described(transmitters: Transmitters, index: int) -> str:
    values = {name: float(getattr(transmitters, name)[index]) for name in _EQUIPMENT}
    values["x_m"], values["y_m"] = (float(value) for value in transmitters.xy_m[index])
    return json.dumps({key: None if math.isnan(value) else round(value, 4) for key, value in values.items()})


def class_edges(values: np.ndarray, weakest: float, falling: bool = False) -> list[float]:
    """Rising round class limits [dB or dBm] from the weakest signal received to the strongest 1 % of cells.

    Parameters
    ----------
    values
        Of one band; NaN are left out.
    weakest
        Below it (with `falling`, above it) nothing is received.
    """
    known = values[np.isfinite(values)]
    strongest = float(np.quantile(known, 0.01 if falling else 0.99)) if known.size else weakest
    low, high = sorted((weakest, strongest)) if (strongest < weakest) == falling else (weakest, weakest)
    step = next((step for step in _STEPS_DB if (high - low) / step <= _MOST_CLASSES), _STEPS_DB[-1])
    inner = np.arange(math.floor(low / step) + 1, math.ceil(high / step)) * float(step)
    return [*inner.tolist(), weakest] if falling else [weakest, *inner.tolist()]


def write_best_server(run: Run, maps: RadioMaps, progress: Progress) -> float | None:
    """Write BEST_SERVER if it is asked for, and return the share of the cells outside buildings with a received signal.

    The strongest transmitter at each cell (with an attribute table), its power [dBm], and by how much it leads the second [dB]; cells
    where nothing reaches the noise floor are empty. The share is None where no cell lies outside a building.
    """
    best, power_dbm, lead_db = strongest(maps, progress)
    known = np.isfinite(power_dbm)
    served = known & (power_dbm >= maps.noise_floor_dbm)
    share = float(served.sum() / known.sum()) if known.any() else None
    if not run.parameters.wants("BEST_SERVER"):
        return share
    best = np.where(served, best, -1)
    transmitters = maps.transmitters
    colours = styles.neighbour_colours(best, len(transmitters))
    table = {
        "value": np.arange(len(transmitters)),
        "cell_id": transmitters.ids,
        "x_m": transmitters.xy_m[:, 0],
        "y_m": transmitters.xy_m[:, 1],
        "best_server_cells": np.bincount(best[best >= 0], minlength=len(transmitters)),
        **styles.area_rgb(colours),
    }
    rasters.write_bands(
        run.outputs.file("BEST_SERVER", ".tif"),
        maps.grid,
        [np.where(served & np.isfinite(values), values, NODATA) for values in (best, power_dbm, lead_db)],
        ["Best server (row of the attribute table)", "Received power [dBm]", "Lead over the second best [dB]"],
        {"TELCOLOC_CONTENT": "best server, its received power, its lead", _MODEL: maps.model},
        nodata=NODATA,
        table=table,
        threads=run.threads,
    )
    run.style("BEST_SERVER", run.outputs.results["BEST_SERVER"], styles.best_server_qml(transmitters.ids, colours))
    return share


def strongest(maps: RadioMaps, progress: Progress = no_progress) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(index, power [dBm], lead over the second [dB]) of the strongest transmitter of each cell, shape (height, width) each.

    Power is NaN where nothing is known, the lead infinite where there is no second.
    """
    shape = maps.grid.shape
    best = np.zeros(shape, dtype=np.int64)
    first = np.full(shape, -np.inf, np.float32)
    second = first.copy()
    for index in range(len(maps.transmitters)):
        progress(index / len(maps.transmitters))
        power = _values(maps, index, "rss")
        power = np.where(np.isnan(power), -np.inf, power)
        wins = power > first
        second = np.where(wins, first, np.maximum(second, power))
        best[wins] = index
        first = np.maximum(first, power)
    with np.errstate(invalid="ignore"):  # nothing at all less nothing at all
        lead = first - second
    return best, np.where(np.isneginf(first), np.nan, first), lead


def read_radio_maps(path: str, name: str, progress: Progress = no_progress) -> RadioMaps:
    """Read what `write_radio_maps` wrote, in either quantity.

    Parameters
    ----------
    path, name
        As `TelcoLocAlgorithm.raster_sources` gives them.

    Raises
    ------
    InputError
        When the file cannot be read, is not in metres with square cells, or is no radio map of ours.
    """
    from ..models.radio.maps import RadioMaps

    again = "make it with 'Path loss maps'"
    try:
        with rasters.gdal_errors("Opening"):
            dataset = gdal.OpenEx(path.split("|")[0], gdal.OF_RASTER | gdal.OF_READONLY)
    except OutputError as error:
        raise InputError(f"Radio map '{name}' cannot be read ({error}); {again} again.") from error
    if dataset is None:
        raise InputError(f"Radio map '{name}' cannot be read; {again} again.")
    held = next((key for key, (text, _, _) in QUANTITIES.items() if text == dataset.GetMetadataItem(_QUANTITY)), None)
    if held is None:
        raise InputError(
            f"'{name}' is no radio map: it does not say that it holds path loss or received power; {again}."
        )
    grid = rasters.grid_of(dataset, name, f"radio maps must be in metres; {again} again")
    transmitters = _transmitters_of(dataset, name, again)
    values = np.empty((len(transmitters), *grid.shape), np.float32)
    try:
        with rasters.gdal_errors("Reading"):
            for index in range(len(transmitters)):
                band = dataset.GetRasterBand(index + 1)
                for row in range(0, grid.height, rasters.ROWS_AT_ONCE):
                    progress((index + row / grid.height) / len(transmitters))
                    rows = values[index, row : row + rasters.ROWS_AT_ONCE]
                    band.ReadAsArray(0, row, grid.width, len(rows), buf_obj=rows)
    except OutputError as error:
        raise InputError(f"Radio map '{name}' is damaged ({error}); {again} again.") from error
    values[values == np.float32(NODATA)] = np.nan
    loss_db = values if held == "path_loss" else transmitters.eirp_dbm.astype(np.float32)[:, None, None] - values
    floor, model = dataset.GetMetadataItem(_FLOOR), dataset.GetMetadataItem(_MODEL)
    return RadioMaps(grid, transmitters, loss_db, float(floor or -math.inf), model or "")


def _transmitters_of(dataset: gdal.Dataset, name: str, again: str) -> Transmitters:
    """Whose bands these are."""
    from ..models.radio.transmitters import Transmitters

    ids, rows = [], []
    for index in range(1, dataset.RasterCount + 1):
        band = dataset.GetRasterBand(index)
        ids.append(band.GetDescription())
        try:
            told = json.loads(band.GetMetadataItem(_TRANSMITTER) or "")
            row = [told[key] for key in ("x_m", "y_m", *_EQUIPMENT)]
            rows.append([math.nan if value is None else float(value) for value in row])
        except (ValueError, TypeError, KeyError) as error:
            raise InputError(
                f"'{name}' is no radio map: band {index} does not tell its transmitter's place and equipment; {again}."
            ) from error
        if not ids[-1]:
            raise InputError(
                f"'{name}' is no radio map: band {index} has no description, where a cell's id should be; {again}."
            )
    values = np.array(rows)
    return Transmitters(tuple(ids), values[:, :2], **dict(zip(_EQUIPMENT, values[:, 2:].T)))
