"""A small network with radio maps and reports, for tests of the database correlation method; loops instead of matrices as its oracle."""

import numpy as np
from telcoloc.models.grid import Grid
from telcoloc.models.landmarks.lookup import LookupTable
from telcoloc.models.radio.maps import RadioMaps
from telcoloc.models.radio.transmitters import Transmitters
from telcoloc.models.trajectory.measurements import measurements

FLOOR_DBM = -110.0


def radio_maps(n=8, size=24, cell_m=10.0, seed=0, block=True):
    """Distance loss and a little noise; a block of cells in the middle is a building."""
    rng = np.random.default_rng(seed)
    grid = Grid(size, size + 6, 1000.0, 5000.0, cell_m)
    x_min, y_min, x_max, y_max = grid.bounds
    sites = rng.uniform([x_min, y_min], [x_max, y_max], (n, 2))
    column = np.full(n, 0.0)
    transmitters = Transmitters(
        tuple(f"cell {index}" for index in range(n)),
        sites,
        column + 25,
        column + np.nan,
        column,
        column + 360,
        column + 1800,
        column + 20.0,
    )
    x, y = np.meshgrid(grid.x_m, grid.y_m)
    distance = np.hypot(x - sites[:, 0, None, None], y - sites[:, 1, None, None])
    loss = 20 + 40 * np.log10(np.maximum(distance, 5)) + rng.normal(0, 3, distance.shape)
    if block:
        loss[:, size // 3 : size // 2, size // 3 : size // 2] = np.nan
    return RadioMaps(grid, transmitters, loss.astype(np.float32), FLOOR_DBM, "test")


def table_of(**options):
    return LookupTable.from_radio_maps(radio_maps(**options))


def reports_at(table, place, count=6, error_db=0.0, offset_db=0.0, seed=0, device=None, step_s=1.0):
    """Records of the strongest cells at some places of the table."""
    rng = np.random.default_rng(seed)
    rss = table.rss_dbm[place] + offset_db + rng.normal(0, 1, (len(place), len(table.cells))) * error_db
    order = np.argsort(-rss, axis=1)[:, :count]
    return measurements(
        np.full(len(place), "phone") if device is None else device,
        np.arange(len(place)) * step_s,
        np.array(table.cells)[order],
        np.take_along_axis(rss, order, axis=1).astype(np.float32),
    )


def brute_force(table, named, limit_dbm, settings, offset_db=0.0):
    """Sum of squared errors [dB²] at each place by loops; `named` is {cell: rss} of the antennas compared and heard."""
    compared = sorted(named, key=named.get, reverse=True)[: settings.antennas]
    result = []
    for place in range(len(table.places)):
        entry = dict(zip(table.cells, table.rss_dbm[place].tolist()))
        entry = {
            cell: max(rss, table.noise_floor_dbm) if rss == rss else table.noise_floor_dbm
            for cell, rss in entry.items()
        }
        difference = [named[cell] - offset_db - entry[cell] for cell in compared]
        if settings.offset == "differences":
            mean = sum(difference) / len(difference)
            difference = [value - mean for value in difference]
        total = sum(value**2 for value in difference)
        if settings.offset != "differences":
            for cell, rss in entry.items():
                if cell not in named:
                    total += (1.0 if settings.unheard_weight is None else settings.unheard_weight) * max(
                        rss - limit_dbm, 0
                    ) ** 2
        result.append(total)
    return np.array(result), len(compared)
