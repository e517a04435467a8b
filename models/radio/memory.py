"""How much memory a radio map takes, so that a job that is too large can be refused before it starts."""

from __future__ import annotations

#: Bytes per cell of the grid: per transmitter (its map), and per thread (the paths from one transmitter to all cells: 100 to 180 as
#: measured, and 180 to 230 with `dominantpath`).
BYTES_PER_TRANSMITTER, BYTES_PER_THREAD, BYTES_PER_THREAD_OF_DOMINANT_PATH = 6, 200, 300
#: Bytes that `dominantpath` takes for each corner of the footprints besides (1,300 in Munich, 1,450 in San Francisco).
BYTES_PER_CORNER_OF_DOMINANT_PATH = 1500


def needed_mb(model: str, n_cells: float, n_transmitters: int, threads: int, n_corners: int = 0) -> float:
    """Memory that the maps of some transmitters take [MiB].

    Parameters
    ----------
    model
        One of `maps.MODELS`.
    n_cells
        Of the grid.
    threads
        Transmitters that are worked on at a time.
    n_corners
        Vertices of the footprints.
    """
    dominant = model == "dominantpath"
    per_thread = BYTES_PER_THREAD_OF_DOMINANT_PATH if dominant else BYTES_PER_THREAD
    cells = n_cells * (BYTES_PER_TRANSMITTER * n_transmitters + per_thread * threads)
    return (cells + (BYTES_PER_CORNER_OF_DOMINANT_PATH * n_corners if dominant else 0)) / 2**20
