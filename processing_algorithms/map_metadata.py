"""`telcoloc:mapmetadata`: KPIs of base stations become density rasters and zone totals."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import numpy as np
from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsFeature,
    QgsField,
    QgsFields,
    QgsGeometry,
    QgsProcessing,
    QgsProcessingOutputNumber,
    QgsProcessingOutputString,
    QgsProcessingParameterDateTime,
    QgsProcessingParameterEnum,
    QgsProcessingParameterFeatureSink,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
    QgsProcessingParameterRasterDestination,
    QgsProcessingParameterRasterLayer,
    QgsWkbTypes,
)
from qgis.PyQt.QtCore import QMetaType

from ..models.errors import InputError
from ..telcoloc_qgis import polygons, rasters, styles
from ..telcoloc_qgis.algorithm import Run, TelcoLocAlgorithm
from ..telcoloc_qgis.kpis import Kpis
from ..telcoloc_qgis.sites import listed

if TYPE_CHECKING:  # the engine needs scipy, which nothing but a run should load
    from ..models.geolocation.stack import Stack

UNITS = ("per_km2", "per_cell")
#: No base station reaches the cell; far from any KPI.
NODATA = -9999.0


class MapMetadata(TelcoLocAlgorithm):
    """See the module's docstring."""

    NAME = "mapmetadata"
    TITLE = "Map base-station metadata"
    SUMMARY = "From KPIs per base station to density rasters and zone totals, without losing any."
    DESCRIPTION = (
        "Spreads key performance indicators (KPIs) of base stations (BSs), such as traffic or users, over the map: each BS's value is "
        "distributed to cells by its geolocation probability, and the contributions of all BSs are summed.\n\n"
        "Totals are conserved: the sum over the raster equals the sum over the BSs found in the stack, to 1e-6. What belongs to no "
        "band or to a band without mass is reported, never dropped silently. Several rows of one BS (sectors) add up.\n\n"
        "When all fields are times (h00 … h23, 07:00, 2024-05-01T13:00, traffic_20240501_13), the raster's bands carry these times "
        "and the Temporal Controller plays them."
    )
    EXAMPLE = (
        "qgis_process run telcoloc:mapmetadata --GEOLOCATION=stack.tif --INPUT=stations.gpkg --ID_FIELD=bs_id --FIELDS=h08 "
        "--FIELDS=h20 --ZONES=zones.gpkg --OUTPUT=density.tif --ZONE_TOTALS=zone_totals.gpkg"
    )
    TAGS = (
        "telecom",
        "kpi",
        "traffic",
        "density",
        "population",
        "spread",
        "disaggregate",
        "zones",
        "temporal",
        "statistics",
    )
    ICON = "metadata.svg"

    def define(self) -> None:
        self.add(
            QgsProcessingParameterRasterLayer("GEOLOCATION", self.tr("Geolocation stack")),
            self.tr("Stack made by 'Geolocate base stations': one band per BS, described by its id."),
        )
        self.add(
            QgsProcessingParameterFeatureSource(
                "INPUT", self.tr("Base stations or KPI table"), [QgsProcessing.SourceType.TypeVector]
            ),
            self.tr("Layer or table with the KPIs; rows are matched to bands by their id."),
        )
        self.add(
            QgsProcessingParameterField(
                "ID_FIELD", self.tr("Id field"), parentLayerParameterName="INPUT", optional=True
            ),
            self.tr("Field with the BS id, as used when the stack was made. Without it the feature id is used."),
        )
        self.add(
            QgsProcessingParameterField(
                "FIELDS", self.tr("KPI fields"), parentLayerParameterName="INPUT", allowMultiple=True
            ),
            self.tr("Numeric fields to map, one band each. Text that reads as a number counts as one."),
        )
        self.add(
            QgsProcessingParameterFeatureSource(
                "ZONES", self.tr("Zones"), [QgsProcessing.SourceType.TypeVectorPolygon], optional=True
            ),
            self.tr(
                "Polygons to sum the KPIs over. A cell between zones counts in each with its share; at their outer edge it counts "
                "whole when they hold half of it. A zone that holds half of no cell gets its plain share of each."
            ),
        )
        self.add(
            QgsProcessingParameterEnum(
                "UNIT", self.tr("Unit"), list(UNITS), defaultValue=UNITS[0], usesStaticStrings=True
            ),
            self.tr(
                "per_km2: density, comparable between cell sizes. per_cell: the amount in each cell; cells sum to the total."
            ),
        )
        self.add(
            QgsProcessingParameterDateTime(
                "DAY",
                self.tr("Day of hourly fields"),
                QgsProcessingParameterDateTime.Type.Date,
                defaultValue="2024-01-01",
                optional=True,
            ),
            self.tr("Date that fields named by an hour alone (h00 … h23) belong to."),
            advanced=True,
        )
        self.add(
            QgsProcessingParameterRasterDestination("OUTPUT", self.tr("Density")),
            self.tr("GeoTIFF with one band per field, described by the field's name."),
        )
        self.add(
            QgsProcessingParameterFeatureSink(
                "ZONE_TOTALS", self.tr("Zone totals"), QgsProcessing.SourceType.TypeVectorPolygon, optional=True
            ),
            self.tr("The zones with the total of each KPI. Needs ZONES."),
        )
        for name, label, text in (
            ("TOTAL_INPUT", "Total given", "Sum of all KPI values given, over all fields."),
            ("TOTAL_MAPPED", "Total mapped", "Sum of all KPI values on the raster, over all fields."),
            ("TOTAL_UNMAPPED", "Total not mapped", "Sum of the values whose BS is not in the stack or has no mass."),
            ("TOTAL_OUTSIDE_ZONES", "Total outside zones", "Sum of the mapped values that lie in no zone."),
            ("MATCHED", "Rows matched", "Number of rows matched to a band with mass."),
            ("UNMATCHED", "Rows not matched", "Number of rows that could not be used or matched."),
        ):
            self.add_result(QgsProcessingOutputNumber(name, self.tr(label)), self.tr(text))
        self.add_result(
            QgsProcessingOutputString("TIME_RANGE", self.tr("Time range")),
            self.tr("First and last time of the fields, if they are times."),
        )

    def work(self, run: Run) -> dict[str, Any]:
        from ..models.geolocation.metadata import spread, times_of_fields
        from ..models.geolocation.result import normalised_rows

        parameters = run.parameters
        source = parameters.source("INPUT")
        fields = parameters.fields("FIELDS", source)
        if not fields:
            raise InputError("FIELDS is empty; choose at least one numeric field.")
        if parameters.wants("ZONE_TOTALS") and not parameters.given("ZONES"):
            raise InputError("ZONE_TOTALS needs ZONES; choose the polygons to sum over.")
        stack = rasters.read_stack(
            *self.raster_sources("GEOLOCATION")[0], run.progress.phase("Reading the geolocation stack", 0.0, 0.4)
        )
        kpis = Kpis(run, source, parameters.field("ID_FIELD", source), fields, stack)
        per_cell = spread(normalised_rows(stack.maps), kpis.by_bs)
        times = times_of_fields(fields, _day(run))
        grid = stack.grid
        reached = np.zeros(grid.size, bool)
        reached[stack.maps.indices] = True
        unit = parameters.choice("UNIT")
        scale = 1e6 / grid.cell_area_m2 if unit == UNITS[0] else 1.0
        path = run.outputs.file("OUTPUT", ".tif")
        metadata = {"TELCOLOC_CONTENT": "KPI density", "TELCOLOC_UNIT": unit, "TELCOLOC_STACK": stack.name}
        if times:
            metadata["TELCOLOC_TIMES"] = " ".join(begin.isoformat() for begin, _ in times)
        rasters.write_bands(
            path,
            grid,
            (np.where(reached, values * scale, NODATA).reshape(grid.shape) for values in per_cell),
            fields,
            metadata,
            nodata=NODATA,
            threads=run.threads,
            progress=run.progress.phase("Writing the density", 0.5, 0.7),
        )
        limits = styles.class_limits(per_cell[:, np.flatnonzero(reached)[::7]] * scale)
        label = "per km²" if unit == UNITS[0] else "per cell"
        run.style("OUTPUT", run.outputs.results["OUTPUT"], styles.classes_qml(1, limits, unit=label, times=times))
        outside = _write_zones(run, stack, per_cell, fields) if parameters.wants("ZONE_TOTALS") else None
        mapped = float(per_cell.sum())
        run.info(f"Given {kpis.total_given:,.6g}, mapped {mapped:,.6g}, not mapped {kpis.total_lost:,.6g}.")
        if times:
            run.info("The fields are times: play them with the Temporal Controller.")
        return {
            "TOTAL_INPUT": kpis.total_given,
            "TOTAL_MAPPED": mapped,
            "TOTAL_UNMAPPED": kpis.total_lost,
            "TOTAL_OUTSIDE_ZONES": outside,
            "MATCHED": kpis.matched,
            "UNMATCHED": kpis.unmatched,
            "TIME_RANGE": f"{min(times)[0].isoformat()}/{max(times)[1].isoformat()}" if times else "",
        }


def _day(run: Run) -> datetime:
    value = run.parameters.algorithm.parameterAsDateTime(run.parameters.values, "DAY", run.context)
    date = value.date()
    return (
        datetime(date.year(), date.month(), date.day(), tzinfo=timezone.utc)
        if date.isValid()
        else datetime(2024, 1, 1, tzinfo=timezone.utc)
    )


def _write_zones(run: Run, stack: Stack, per_cell: np.ndarray, kpi_fields: list[str]) -> float:
    """Write the zones with their totals and return what lies in no zone, summed over all fields."""
    source = run.parameters.source("ZONES")
    crs = QgsCoordinateReferenceSystem.fromWkt(stack.grid.crs_wkt)
    usable, rejected = polygons.polygon_features(source, crs, run.context, "ZONES")
    if rejected:
        run.warn(f"ZONES: {len(rejected):,} polygons cannot be used: {listed(rejected)}.")
    fields = QgsFields(source.fields())
    names = []
    for field in kpi_fields:
        name = field
        while fields.indexOf(name) >= 0:
            name = f"{name}_total"
        fields.append(QgsField(name, QMetaType.Type.Double))
        names.append(name)
    progress = run.progress.phase("Summing over zones", 0.7, 1.0)
    shares: list[tuple[np.ndarray, np.ndarray]] = []
    covered = np.zeros(stack.grid.size)
    for index, (_, geometry) in enumerate(usable):
        progress(index / len(usable))
        cells, share = polygons.shares_of_cells(geometry, stack.grid)
        covered[cells] += share
        shares.append((cells, share))
    # Where zones end (a coast), a cell belongs to them whole when they hold half of it, as with a boundary; inside they share it.
    held = covered >= 0.5
    left = np.where(held, 0.0, 1.0)
    rows, without_cells = [], []
    for (zone, geometry), (cells, share) in zip(usable, shares):
        if held[cells].any():
            share = np.where(held[cells], share / np.clip(covered[cells], 0.5, 1), 0.0)
        else:  # islands and strips, of which nothing would be left
            cells, share = _plain_shares(geometry, stack, cells, share)
            share = np.where(held[cells], 0.0, share)
            left[cells] = np.maximum(left[cells] - share, 0.0)
        if not share.any():
            without_cells.append(f"feature {zone.id()}")
        totals = per_cell[:, cells] @ share
        geometry.convertToMultiType()
        feature = QgsFeature(fields)
        feature.setGeometry(geometry)
        feature.setAttributes([*zone.attributes(), *totals.tolist()])
        rows.append(feature)
    if without_cells:
        run.warn(
            f"{len(without_cells):,} zones lie outside the raster or between its points, with totals of 0: {listed(without_cells)}."
        )
    if (covered > 1 + 1e-9).any():
        run.warn("Zones overlap: what lies in several of them counts in each.")
    layer = run.outputs.table("ZONE_TOTALS", fields, rows, QgsWkbTypes.Type.MultiPolygon, crs, progress, len(rows))
    sums = np.array([[row[name] for name in names] for row in rows])
    run.style("ZONE_TOTALS", layer, styles.zones_qml(names[0], sums[:, 0]))
    outside = float((per_cell @ left).sum())
    run.info(f"{outside:,.6g} of the mapped total lies in no zone.")
    return outside


def _plain_shares(
    geometry: QgsGeometry, stack: Stack, cells: np.ndarray, share: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Cells and shares of a zone as given, or counted on more points where it is no larger than a few cells."""
    box, size = geometry.boundingBox(), stack.grid.cell_size_m
    if max(box.width(), box.height()) > 10 * size:
        return cells, share
    return polygons.shares_of_cells(geometry, stack.grid, polygons.POINTS_PER_SIDE_OF_SMALL)
