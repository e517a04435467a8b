"""Stacks and rasters on disk, by GDAL: tiled, band-interleaved, sparse, compressed GeoTIFFs with described bands."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from osgeo import gdal, osr

from ..models.errors import InputError, OutputError, TelcoLocError
from ..models.grid import Grid
from ..models.progress import Progress, no_progress

if TYPE_CHECKING:
    from scipy import sparse

    from ..models.geolocation.stack import Stack

BLOCK = 128
#: Rows of blocks that are written before progress is told of.
ROWS_AT_ONCE = 16 * BLOCK
_ID_TAG = "TELCOLOC_MEMBERS"
CONTENTS = {
    "location_given_bs": "P(location | base station): each band sums to 1 over cells",
    "bs_given_location": "P(base station | location): bands sum to 1 at each cell",
}


@contextmanager
def gdal_errors(what: str) -> Iterator[None]:
    """Turn GDAL's errors inside the block into one `OutputError`, whatever the exception mode of this QGIS."""
    problems: list[str] = []

    def remember(level: int, code: int, text: str) -> None:
        del code
        if level >= gdal.CE_Failure:
            problems.append(" ".join(text.split()))

    gdal.PushErrorHandler(remember)
    try:
        yield
    except (
        RuntimeError
    ) as error:  # how GDAL reports where exceptions are on; switching them off would affect other threads
        if isinstance(error, TelcoLocError):
            raise
        problems.insert(0, " ".join(str(error).split()))
    finally:
        gdal.PopErrorHandler()
    if problems:
        raise OutputError(f"{what} failed: {problems[0]}.")


def create_options(threads: int = 1) -> list[str]:
    """GDAL creation options of all our GeoTIFFs; ZSTD where this GDAL has it, DEFLATE elsewhere."""
    zstd = "ZSTD" in (gdal.GetDriverByName("GTiff").GetMetadataItem("DMD_CREATIONOPTIONLIST") or "")
    return [
        "TILED=YES",
        f"BLOCKXSIZE={BLOCK}",
        f"BLOCKYSIZE={BLOCK}",
        "INTERLEAVE=BAND",
        "SPARSE_OK=TRUE",
        "BIGTIFF=IF_SAFER",
        f"NUM_THREADS={threads}",
        *(["COMPRESS=ZSTD", "ZSTD_LEVEL=1"] if zstd else ["COMPRESS=DEFLATE", "ZLEVEL=1"]),
        "PREDICTOR=3",
    ]


def _created(
    path: Path, grid: Grid, names: Sequence[str], metadata: Mapping[str, str], nodata: float, threads: int
) -> gdal.Dataset | None:
    """A new GeoTIFF with described bands; None where GDAL reports an error instead of raising it."""
    dataset = gdal.GetDriverByName("GTiff").Create(
        str(path), grid.width, grid.height, len(names), gdal.GDT_Float32, create_options(threads)
    )
    if dataset is not None:
        dataset.SetGeoTransform(grid.geotransform)
        dataset.SetProjection(grid.crs_wkt)
        dataset.SetMetadata({key: str(value) for key, value in metadata.items()})
        dataset.GetRasterBand(1).SetNoDataValue(nodata)  # one value for all bands of a GeoTIFF
        for index, name in enumerate(names, 1):
            dataset.GetRasterBand(index).SetDescription(name)
    return dataset


def write_stack(
    path: Path,
    grid: Grid,
    maps: sparse.csr_matrix,
    names: Sequence[str],
    members: Sequence[Sequence[str]],
    metadata: Mapping[str, str],
    threads: int = 1,
    progress: Progress = no_progress,
) -> None:
    """Write one band per base station; only blocks with mass take space.

    Parameters
    ----------
    maps
        Shape (n_bs, n_cells), float32; column order within a row is free.
    names
        Band descriptions, exactly the BS ids.
    members
        Per BS all ids that stand for it; kept with the band.
    """
    with gdal_errors(f"Writing '{path.name}'"):
        dataset = _created(path, grid, names, metadata, 0.0, threads)
        if dataset is None:
            return
        for index, name in enumerate(names):
            if list(members[index]) != [name]:
                dataset.GetRasterBand(index + 1).SetMetadataItem(_ID_TAG, json.dumps(list(members[index])))
        for index in range(len(names)):
            low, high = maps.indptr[index], maps.indptr[index + 1]
            _write_sparse_band(dataset.GetRasterBand(index + 1), grid, maps.indices[low:high], maps.data[low:high])
            if index % 4 == 0:
                progress(index / len(names))
        dataset.FlushCache()
        dataset = None


def _write_sparse_band(band: gdal.Band, grid: Grid, cells: np.ndarray, values: np.ndarray) -> None:
    """Write the blocks of one band that hold any of `cells`."""
    if not len(cells):
        return
    rows, columns = np.divmod(cells, grid.width)
    top, left = rows.min() // BLOCK * BLOCK, columns.min() // BLOCK * BLOCK
    height = min(rows.max() // BLOCK * BLOCK + BLOCK, grid.height) - top
    width = min(columns.max() // BLOCK * BLOCK + BLOCK, grid.width) - left
    window = np.zeros((height, width), np.float32)
    window[rows - top, columns - left] = values
    blocks = np.unique((rows - top) // BLOCK * (width // BLOCK + 1) + (columns - left) // BLOCK)
    for block in blocks.tolist():
        row, column = (step * BLOCK for step in divmod(block, width // BLOCK + 1))
        part = window[row : row + BLOCK, column : column + BLOCK]
        band.WriteRaster(
            int(left + column), int(top + row), part.shape[1], part.shape[0], part.tobytes(), buf_type=gdal.GDT_Float32
        )


def write_bands(
    path: Path,
    grid: Grid,
    bands: Iterable[np.ndarray],
    names: Sequence[str],
    metadata: Mapping[str, str],
    nodata: float,
    table: Mapping[str, Sequence] | None = None,
    threads: int = 1,
    progress: Progress = no_progress,
    facts: Sequence[Mapping[str, str]] = (),
) -> None:
    """Write (height, width) arrays, taken one at a time, as described bands; NaN becomes `nodata`.

    Parameters
    ----------
    table
        Becomes the first band's attribute table.
    facts
        Metadata of each band; none where it is empty.
    """
    with gdal_errors(f"Writing '{path.name}'"):
        dataset = _created(path, grid, names, metadata, nodata, threads)
        if dataset is None:
            return
        for index, entries in enumerate(facts, 1):
            for key, text in entries.items():
                dataset.GetRasterBand(index).SetMetadataItem(key, text)
        for index, values in enumerate(bands, 1):
            filled = np.asarray(values, np.float32)
            filled = np.where(np.isnan(filled), np.float32(nodata), filled)
            for row in range(0, grid.height, ROWS_AT_ONCE):  # so that cancelling is prompt
                dataset.GetRasterBand(index).WriteArray(filled[row : row + ROWS_AT_ONCE], 0, row)
                progress((index - 1 + row / grid.height) / len(names))
        if table is not None:
            dataset.GetRasterBand(1).SetDefaultRAT(_attribute_table(table))
        dataset.FlushCache()
        dataset = None


def _attribute_table(table: Mapping[str, Sequence]) -> gdal.RasterAttributeTable:
    usages = {
        "value": gdal.GFU_MinMax,
        "bs_id": gdal.GFU_Name,
        "cell_id": gdal.GFU_Name,
        "red": gdal.GFU_Red,
        "green": gdal.GFU_Green,
        "blue": gdal.GFU_Blue,
    }
    result = gdal.RasterAttributeTable()
    for column, (name, values) in enumerate(table.items()):
        array = np.asarray(values)
        kind = {"i": gdal.GFT_Integer, "f": gdal.GFT_Real}.get(array.dtype.kind, gdal.GFT_String)
        result.CreateColumn(name, kind, usages.get(name, gdal.GFU_Generic))
        if column == 0:
            result.SetRowCount(len(array))
        for row, value in enumerate(array.tolist()):
            if kind == gdal.GFT_Integer:
                result.SetValueAsInt(row, column, value)
            elif kind == gdal.GFT_Real:
                result.SetValueAsDouble(row, column, value)
            else:
                result.SetValueAsString(row, column, str(value))
    return result


def read_stack(path: str, name: str, progress: Progress = no_progress) -> Stack:
    """Read a stack of one described band per base station; blocks that were never written cost nothing.

    Raises
    ------
    InputError
        When the file cannot be read, is not in metres with square cells, or its bands have no or equal descriptions.
    """
    from scipy import sparse

    from ..models.geolocation.stack import Stack

    gdal_path = path.split("|")[0]
    try:
        with gdal_errors("Opening"):
            dataset = gdal.OpenEx(gdal_path, gdal.OF_RASTER | gdal.OF_READONLY)
    except OutputError as error:
        raise InputError(f"Stack '{name}' cannot be read ({error}); make it again.") from error
    if dataset is None:
        raise InputError(f"Stack '{name}' cannot be read; make it again.")
    grid = grid_of(
        dataset,
        name,
        "a stack must be in metres; make it with 'Geolocate base stations', or warp it with 'Warp (reproject)' and resampling 'sum'",
    )
    ids, members = [], []
    for index in range(1, dataset.RasterCount + 1):
        band = dataset.GetRasterBand(index)
        ids.append(band.GetDescription())
        tag = band.GetMetadataItem(_ID_TAG)
        members.append(tuple(json.loads(tag)) if tag else (ids[-1],))
    if not all(ids):
        raise InputError(
            f"'{name}' is no geolocation stack: band {ids.index('') + 1} has no description, where a base station's id should be."
        )
    if len(set(ids)) < len(ids):
        twice = next(text for text in ids if ids.count(text) > 1)
        raise InputError(f"'{name}' is no geolocation stack: two bands are described '{twice}'.")
    rows = []
    try:
        with gdal_errors("Reading"):
            for index in range(1, dataset.RasterCount + 1):
                rows.append(_read_sparse_band(dataset.GetRasterBand(index), grid))
                if index % 4 == 0:
                    progress(index / dataset.RasterCount)
    except OutputError as error:
        raise InputError(f"Stack '{name}' is damaged ({error}); make it again.") from error
    indptr = np.concatenate([[0], np.cumsum([len(cells) for cells, _ in rows])])
    maps = sparse.csr_matrix(
        (np.concatenate([values for _, values in rows]), np.concatenate([cells for cells, _ in rows]), indptr),
        shape=(len(ids), grid.size),
    )
    if maps.data.size and not (np.isfinite(maps.data).all() and maps.data.min() >= 0):
        raise InputError(f"Stack '{name}' holds negative or infinite values, which no probability is.")
    return Stack(name, grid, maps, tuple(ids), tuple(members), dataset.GetMetadataItem("TELCOLOC_FORM") or "")


def grid_of(dataset: gdal.Dataset, name: str, wanted: str) -> Grid:
    """The grid of a raster; `wanted` says what to do about one that is not in metres.

    Raises
    ------
    InputError
        When its cells are not square, not north-up or not in metres.
    """
    x_min, width, skew_x, y_max, skew_y, height = dataset.GetGeoTransform()
    if skew_x or skew_y or width <= 0 or height >= 0 or abs(width + height) > 1e-6 * width:
        raise InputError(f"'{name}' needs square, north-up cells; its cells are {width:g} x {-height:g}.")
    crs = dataset.GetSpatialRef() or osr.SpatialReference()
    if crs.IsGeographic() or (crs.IsProjected() and abs(crs.GetLinearUnits() - 1) > 1e-9):
        unit = "degrees" if crs.IsGeographic() else crs.GetLinearUnitsName()
        raise InputError(f"'{name}' is in {unit} ({crs.GetName()}), but {wanted}.")
    return Grid(dataset.RasterYSize, dataset.RasterXSize, x_min, y_max, width, dataset.GetProjection())


def _read_sparse_band(band: gdal.Band, grid: Grid) -> tuple[np.ndarray, np.ndarray]:
    """(cells, values) of the cells of one band with mass: neither zero nor nodata, which may be NaN."""
    nodata = band.GetNoDataValue()
    block_width, block_height = band.GetBlockSize()
    tiled_tiff = band.GetDataset().GetDriver().ShortName == "GTiff"
    all_cells, all_values = [np.zeros(0, np.int32)], [np.zeros(0, np.float32)]
    for row in range(0, grid.height, block_height):
        for column in range(0, grid.width, block_width):
            if tiled_tiff:
                where = f"BLOCK_OFFSET_{column // block_width}_{row // block_height}"
                if band.GetMetadataItem(where, "TIFF") is None:
                    continue
            high, wide = min(block_height, grid.height - row), min(block_width, grid.width - column)
            raw = band.ReadRaster(column, row, wide, high, buf_type=gdal.GDT_Float32)
            if raw is None:
                return all_cells[0], all_values[0]
            values = np.frombuffer(raw, np.float32)
            if nodata in (None, 0.0):
                filled = np.flatnonzero(values)
            else:
                empty = np.isnan(values) if np.isnan(nodata) else values == np.float32(nodata)
                filled = np.flatnonzero((values != 0) & ~empty)
            rows, columns = np.divmod(filled, wide)
            all_cells.append(((rows + row) * grid.width + columns + column).astype(np.int32))
            all_values.append(values[filled])
    return np.concatenate(all_cells), np.concatenate(all_values)
