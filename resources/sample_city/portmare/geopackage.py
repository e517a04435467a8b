"""Writes layers to one calm GeoPackage: fixed dates, no indexes, vacuumed, so that equal cities are equal files."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from osgeo import ogr, osr
from shapely.affinity import translate
from shapely.geometry import MultiPolygon

from .shapes import rounded

EPSG = 32628  # UTM zone 28N
ORIGIN = (488000, 4990000)  # local (0, 0): 45.06 N 15.15 W, four kilometres of Atlantic below
DATE = "2025-01-01T00:00:00.000Z"
TYPES = {int: ogr.OFTInteger, float: ogr.OFTReal, str: ogr.OFTString, datetime: ogr.OFTDateTime}


@dataclass(frozen=True)
class Layer:
    """What one layer holds.

    Attributes
    ----------
    name, description : str
    geometry : str
        "Point", "LineString", "Polygon" or "MultiPolygon", "None" for a table.
    fields : dict
        Field name to `int`, `float`, `str` or `datetime` (in UTC, kept to milliseconds).
    features : iterable of (geometry, values)
        Shapely geometries in local metres (None in a table), and one value per field.
    """

    name: str
    description: str
    geometry: str
    fields: dict
    features: Iterable


def write(layers: list[Layer], path: Path) -> None:
    """Write all layers to `path`, replacing what is there."""
    ogr.UseExceptions()
    path.unlink(missing_ok=True)
    crs = osr.SpatialReference()
    crs.ImportFromEPSG(EPSG)
    file = ogr.GetDriverByName("GPKG").CreateDataSource(str(path), ["ADD_GPKG_OGR_CONTENTS=NO"])
    for layer in layers:
        table = file.CreateLayer(
            layer.name, crs if layer.geometry != "None" else None, getattr(ogr, f"wkb{layer.geometry}"),
            ["SPATIAL_INDEX=NO", "GEOMETRY_NAME=geom", f"DESCRIPTION={layer.description}", f"IDENTIFIER={layer.name}"],
        )  # fmt: skip
        for name, kind in layer.fields.items():
            table.CreateField(ogr.FieldDefn(name, TYPES[kind]))
        table.StartTransaction()
        for geometry, values in layer.features:
            feature = ogr.Feature(table.GetLayerDefn())
            if layer.geometry == "MultiPolygon" and geometry.geom_type == "Polygon":
                geometry = MultiPolygon([geometry])
            if geometry is not None:
                feature.SetGeometry(ogr.CreateGeometryFromWkb(rounded(translate(geometry, *ORIGIN)).wkb))
            for k, (kind, value) in enumerate(zip(layer.fields.values(), values)):
                if kind is datetime:
                    feature.SetField(k, f"{value:%Y/%m/%d %H:%M:%S}.{value.microsecond // 1000:03d}+00")
                elif value is not None:
                    feature.SetField(k, kind(value))
            table.CreateFeature(feature)
        table.CommitTransaction()
    del feature, table, file  # closes it
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        db.execute("UPDATE gpkg_contents SET last_change = ?", (DATE,))
        db.execute("PRAGMA journal_mode = DELETE")
        db.execute("VACUUM")
