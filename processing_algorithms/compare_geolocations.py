"""`telcoloc:comparegeolocations`: how far geolocation stacks are from a reference, base station by base station."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qgis.core import (
    QgsFeature,
    QgsProcessing,
    QgsProcessingOutputNumber,
    QgsProcessingOutputString,
    QgsProcessingParameterFeatureSink,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterMultipleLayers,
    QgsProcessingParameterRasterLayer,
)
from qgis.PyQt.QtCore import QMetaType

from ..models.errors import InputError
from ..telcoloc_qgis import charts, rasters
from ..telcoloc_qgis.algorithm import Run, TelcoLocAlgorithm
from ..telcoloc_qgis.outputs import fields_of
from ..telcoloc_qgis.sites import listed

if TYPE_CHECKING:  # the engine needs scipy, which nothing but a run should load
    from ..models.geolocation.stack import Stack


class CompareGeolocations(TelcoLocAlgorithm):
    """See the module's docstring."""

    NAME = "comparegeolocations"
    TITLE = "Compare geolocations"
    SUMMARY = "How far geolocation stacks are from a reference: KS2 and mass overlap per base station, with charts."
    DESCRIPTION = (
        "Compares one or several geolocation stacks with a reference, base station (BS) by BS; bands are matched by their names.\n\n"
        "KS2 is the two-dimensional Kolmogorov-Smirnov statistic in the form of Fasano and Franceschini (1987), the metric of the "
        "DeepMEND paper: the largest difference of mass over the four quadrants around any cell; 0 means identical, 1 disjoint. "
        "Mass overlap is the sum of the smaller of both probabilities; 1 means identical.\n\n"
        "The stacks must have the same CRS and cell size, with corners a whole number of cells apart; their extents may differ. "
        "Bands are scaled to sum to one first. Medians and charts are over the BSs with mass in all stacks, so that all methods are "
        "judged by the same BSs; the table has every BS of each."
    )
    EXAMPLE = (
        "qgis_process run telcoloc:comparegeolocations --REFERENCE=truth.tif --COMPARED=voronoi.tif --COMPARED=spdi.tif "
        "--OUTPUT=comparison.gpkg --OUTPUT_HTML=comparison.html"
    )
    TAGS = ("telecom", "ks2", "kolmogorov", "smirnov", "error", "metric", "accuracy", "violin", "cdf", "benchmark")
    ICON = "compare.svg"

    def define(self) -> None:
        self.add(
            QgsProcessingParameterRasterLayer("REFERENCE", self.tr("Reference stack")),
            self.tr("Geolocation stack that counts as the truth: one band per BS, described by the BS id."),
        )
        self.add(
            QgsProcessingParameterMultipleLayers(
                "COMPARED", self.tr("Compared stacks"), QgsProcessing.SourceType.TypeRaster
            ),
            self.tr("One or several geolocation stacks. Their file names become the names of the methods."),
        )
        self.add(
            QgsProcessingParameterFeatureSink("OUTPUT", self.tr("Comparison"), QgsProcessing.SourceType.TypeVector),
            self.tr("Table with KS2 and mass overlap per BS and method."),
        )
        self.add(
            QgsProcessingParameterFileDestination(
                "OUTPUT_HTML", self.tr("Report"), self.tr("HTML files (*.html)"), optional=True, createByDefault=True
            ),
            self.tr("Page with the medians, violin plots and cumulative curves."),
        )
        self.add_result(
            QgsProcessingOutputNumber("MEDIAN_KS2", self.tr("Median KS2")),
            self.tr("Median KS2 of the first compared stack."),
        )
        self.add_result(
            QgsProcessingOutputNumber("MEDIAN_OVERLAP", self.tr("Median mass overlap")),
            self.tr("Median mass overlap of the first compared stack."),
        )
        self.add_result(
            QgsProcessingOutputString("MEDIANS", self.tr("Median KS2 of all")),
            self.tr("JSON object: method → median KS2."),
        )
        self.add_result(
            QgsProcessingOutputString("BEST", self.tr("Closest method")),
            self.tr("The method with the lowest median KS2."),
        )
        self.add_result(
            QgsProcessingOutputNumber("BS_COUNT", self.tr("Base stations compared")),
            self.tr("BSs found in all stacks, with mass."),
        )

    def work(self, run: Run) -> dict[str, Any]:
        from ..models.geolocation.ks2 import compare_maps
        from ..models.geolocation.result import normalised_rows

        reference_source = self.raster_sources("REFERENCE")[0]
        compared_sources = self.raster_sources("COMPARED")
        share = 1 / (1 + len(compared_sources))
        reference = rasters.read_stack(*reference_source, run.progress.phase("Reading the reference", 0, share / 2))
        ks2: dict[str, np.ndarray] = {}
        overlap: dict[str, np.ndarray] = {}
        ids_of: dict[str, list[str]] = {}
        for index, (path, name) in enumerate(compared_sources):
            begin = share * (index + 1) - share / 2
            stack = rasters.read_stack(path, name, run.progress.phase(f"Reading {name}", begin, begin + share / 2))
            method = _unused_name(name, ks2)
            pair = _matched(run, reference, stack)
            ks2[method], overlap[method] = compare_maps(
                normalised_rows(pair[0].maps),
                normalised_rows(pair[1].maps),
                pair[0].grid,
                run.progress.phase(f"Comparing {name}", begin + share / 2, begin + share),
            )
            ids_of[method] = list(pair[0].ids)
        without = {method: int(np.isnan(values).sum()) for method, values in ks2.items()}
        for method, count in without.items():
            if count:
                run.warn(f"{method}: {count:,} base stations have no mass in one of the stacks and are not compared.")
            if count == len(ks2[method]):
                raise InputError(f"'{method}' and the reference have no base station with mass in both.")
        in_all = _in_all(run, ids_of, ks2)
        common_ks2 = {method: values[in_all[method]] for method, values in ks2.items()}
        common_overlap = {method: values[in_all[method]] for method, values in overlap.items()}
        medians = {method: float(np.median(values)) for method, values in common_ks2.items()}
        for method, value in medians.items():
            run.info(f"{method}: median KS2 {value:.3f}, median overlap {np.median(common_overlap[method]):.3f}")
        if run.parameters.wants("OUTPUT_HTML"):
            path = run.outputs.file("OUTPUT_HTML", ".html")
            path.write_text(_report(reference.name, common_ks2, common_overlap), encoding="utf-8")
        _write_table(run, ids_of, ks2, overlap)
        first = next(iter(ks2))
        return {
            "MEDIAN_KS2": medians[first],
            "MEDIAN_OVERLAP": float(np.median(common_overlap[first])),
            "MEDIANS": json.dumps({method: round(value, 6) for method, value in medians.items()}),
            "BEST": min(medians, key=lambda method: medians[method]),
            "BS_COUNT": len(common_ks2[first]),
        }


def _unused_name(name: str, taken: dict[str, Any]) -> str:
    number = 2
    result = name
    while result in taken:
        result = f"{name} ({number})"
        number += 1
    return result


def _matched(run: Run, reference: Stack, stack: Stack) -> tuple[Stack, Stack]:
    """Cut both stacks to their common base stations, on one grid."""
    from ..models.geolocation.stack import on_common_grid

    common = [name for name in reference.ids if name in set(stack.ids)]
    if not common:
        raise InputError(
            f"'{stack.name}' and '{reference.name}' have no base station in common: their bands are named "
            f"'{stack.ids[0]}' … and '{reference.ids[0]}' …. Make both with the same ID_FIELD."
        )
    missing = [name for name in reference.ids if name not in set(common)]
    if missing:
        run.warn(f"'{stack.name}' lacks {len(missing):,} base stations of the reference: {listed(missing)}.")
    extra = len(stack.ids) - len(common)
    if extra:
        run.warn(f"'{stack.name}' has {extra:,} base stations that the reference lacks; they are not compared.")
    return on_common_grid(reference.only(common), stack.only(common))


def _in_all(run: Run, ids_of: dict[str, list[str]], ks2: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Per method which of its base stations have a value in every method."""
    compared = {method: {ids_of[method][row] for row in np.flatnonzero(np.isfinite(ks2[method]))} for method in ks2}
    common = set.intersection(*compared.values())
    if not common:
        raise InputError(
            "No base station has mass in the reference and all compared stacks; compare the stacks one by one."
        )
    most = max(len(ids) for ids in compared.values())
    if len(common) < most:
        run.warn(
            f"Medians and charts are over the {len(common):,} base stations with mass in all stacks; single stacks have up to {most:,}."
        )
    return {method: np.array([name in common for name in ids]) for method, ids in ids_of.items()}


def _write_table(
    run: Run, ids_of: dict[str, list[str]], ks2: dict[str, np.ndarray], overlap: dict[str, np.ndarray]
) -> None:
    kind = QMetaType.Type
    fields = fields_of(
        ("bs_id", kind.QString), ("method", kind.QString), ("ks2", kind.Double), ("mass_overlap", kind.Double)
    )
    rows = []
    for method, values in ks2.items():
        for name, value, shared in zip(ids_of[method], values.tolist(), overlap[method].tolist()):
            feature = QgsFeature(fields)
            compared = np.isfinite(value)
            feature.setAttributes([name, method, value if compared else None, shared if compared else None])
            rows.append(feature)
    run.outputs.table("OUTPUT", fields, rows, count=len(rows))


def _report(reference: str, ks2: dict[str, np.ndarray], overlap: dict[str, np.ndarray]) -> str:
    header = ["Method", "Base stations", "Median KS2", "Quartiles", "KS2 over 0.6", "Median overlap"]
    rows = []
    for method, values in ks2.items():
        low, high = np.quantile(values, [0.25, 0.75])
        rows.append(
            [
                method,
                f"{len(values):,}",
                f"{np.median(values):.3f}",
                f"{low:.3f} – {high:.3f}",
                f"{(values > 0.6).mean():.0%}",
                f"{np.median(overlap[method]):.3f}",
            ]
        )
    return charts.html_report(
        "Geolocation comparison",
        f"Distance from “{reference}”, base station by base station",
        [
            charts.TableSection(
                "Summary",
                header,
                rows,
                "Over the base stations with mass in all stacks. KS2: 0 identical, 1 disjoint. Overlap: 1 identical, 0 disjoint.",
            ),
            charts.ChartSection(
                "Distribution of KS2",
                charts.violin_chart(ks2, "KS2", (0.0, 1.0)),
                "Each shape shows how many base stations have which KS2 (shapes have equal width); dot: median, bar: quartiles.",
            ),
            charts.ChartSection(
                "Cumulative share of base stations",
                charts.cdf_chart(ks2, "KS2", (0.0, 1.0)),
                "Share of base stations with at most this KS2; curves further left are better.",
            ),
        ],
        f"TelcoLoc · {Path(reference).name}",
    )
