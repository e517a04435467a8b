"""`telcoloc:geolocatebasestations`: a base-station layer becomes geolocation probability rasters."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from qgis.core import (
    QgsProcessing,
    QgsProcessingOutputNumber,
    QgsProcessingOutputString,
    QgsProcessingParameterEnum,
    QgsProcessingParameterExtent,
    QgsProcessingParameterFeatureSink,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
    QgsProcessingParameterFile,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterDestination,
)

from ..models.errors import InputError
from ..telcoloc_qgis.algorithm import Run, TelcoLocAlgorithm
from ..telcoloc_qgis.crs import name_of
from ..telcoloc_qgis.frame import choose_frame
from ..telcoloc_qgis.geolocation_outputs import FORMS, write_best_server, write_coverage, write_geolocation
from ..telcoloc_qgis.sites import listed, read_positive, read_sites
from ..telcoloc_qgis.weights import LEARNED, STUDENTS, WINDOWS, describe, weights_of

if TYPE_CHECKING:  # the engine needs scipy, which nothing but a run should load
    from ..models.geolocation.result import Geolocation
    from ..models.geolocation.sites import Sites

METHODS = ("voronoi", "voronoiboost", "spdi", "direct", "deepmend", "deepmend_beta")
BETA_BY = ("fixed", "urbanisation", "field")
LARGEST_BETA = 20.0
#: β of urban, suburban and rural surroundings (DeepMEND paper, section III-C).
BETA_OF_URBANISATION = (5.0, 4.0, 3.0)


class GeolocateBaseStations(TelcoLocAlgorithm):
    """See the module's docstring."""

    NAME = "geolocatebasestations"
    TITLE = "Geolocate base stations"
    SUMMARY = "From base-station positions to the probability of where each one's devices are."
    DESCRIPTION = (
        "For every base station (BS) of a point layer, computes the probability that a device served by it is at each cell of a "
        "grid, from the positions of all BSs alone.\n\n"
        "voronoi gives every cell to its nearest BS, evenly: simple, and far from where devices really are.\n\n"
        "voronoiboost scales each Voronoi cell so that it holds 25, 50, 75, 85 and 95 % of the devices, by a regression trained on "
        "simulated networks; its maps are steps.\n\n"
        "spdi is the probabilistic model of Traag et al. (2011) in the exact form of the DeepMEND paper, equation (2): near a BS its share "
        "is large, between BSs shares mix, and β says how fast the signal weakens with distance; the map is only as good as β. All BSs "
        "that matter at a cell are used, not a fixed few.\n\n"
        "direct is a neural network that learned the true maps of simulated networks themselves; it needs torch and draws each BS on its "
        "own, within a window.\n\n"
        "deepmend is the same network taught with the spdi map nearest to the truth, as the paper does; it needs torch, too.\n\n"
        "deepmend_beta, the default, learned to set the parameters of spdi from each BS's neighbourhood, and spdi draws the map: it needs "
        "no torch, and shares sum to one at every cell.\n\n"
        "What a method learned on simulated networks need not hold for yours: where a truth is known, compare, and train on it.\n\n"
        "Sectors at equal coordinates count as one BS. Layers in degrees, feet or Web Mercator are projected to a metric CRS, "
        "which the log and the outputs name. Outer BSs serve an area without an end: the share of their mass that the margin cuts "
        "off is measured and reported."
    )
    EXAMPLE = (
        "qgis_process run telcoloc:geolocatebasestations --INPUT=stations.gpkg --ID_FIELD=bs_id "
        "--OUTPUT=stack.tif --BEST_SERVER=best_server.tif --COVERAGE=coverage.gpkg"
    )
    TAGS = (
        "telecom",
        "cell",
        "base station",
        "bts",
        "antenna",
        "voronoi",
        "voronoiboost",
        "spdi",
        "deepmend",
        "deep learning",
        "coverage",
        "best server",
        "probability",
    )
    ICON = "geolocate.svg"

    def define(self) -> None:
        number = QgsProcessingParameterNumber
        point = QgsProcessing.SourceType.TypeVectorPoint
        self.add(
            QgsProcessingParameterFeatureSource("INPUT", self.tr("Base stations"), [point]),
            self.tr("Point layer of base stations in any CRS. Points at equal coordinates are sectors of one BS."),
        )
        self.add(
            QgsProcessingParameterField(
                "ID_FIELD", self.tr("Id field"), parentLayerParameterName="INPUT", optional=True
            ),
            self.tr(
                "Field that names the BS; it becomes the band's name. One id must not stand at two places. Without it the feature id "
                "is used."
            ),
        )
        self.add(
            QgsProcessingParameterEnum(
                "METHOD", self.tr("Method"), list(METHODS), defaultValue="deepmend_beta", usesStaticStrings=True
            ),
            self.tr(
                "voronoi (nearest BS takes all, evenly), voronoiboost (Voronoi cells scaled by a regression), spdi (probabilistic, "
                "smooth), direct and deepmend (neural network, need torch), or deepmend_beta (spdi with learned parameters)."
            ),
        )
        self.add(
            number("BETA", self.tr("Attenuation β (spdi)"), number.Type.Double, 4.0, False, 0.01, 20.0),
            self.tr(
                "How fast the signal weakens with distance. The literature uses 5 for urban, 4 for suburban and 3 for rural areas; "
                "large values approach the Voronoi cells, small ones spread each BS widely."
            ),
        )
        self.add(
            QgsProcessingParameterEnum(
                "BETA_BY", self.tr("β is chosen by (spdi)"), list(BETA_BY), defaultValue="fixed", usesStaticStrings=True
            ),
            self.tr(
                "fixed: BETA for all. urbanisation: 5 for urban, 4 for suburban and 3 for rural BSs, told by the mean distance to the six "
                "nearest BSs (under 1 km, under 2.5 km, more). field: the BS's own value in BETA_FIELD. With a β of its own each BS's map "
                "is computed as if all BSs had that β, as the paper does."
            ),
        )
        self.add(
            QgsProcessingParameterField(
                "BETA_FIELD",
                self.tr("Field with β (spdi)"),
                parentLayerParameterName="INPUT",
                type=QgsProcessingParameterField.DataType.Numeric,
                optional=True,
            ),
            self.tr(
                "Numeric field with each BS's β, above 0 and at most 20, such as 'beta' of what 'Teach β from a truth' makes. Of sectors "
                "that make one site, the first one's counts."
            ),
        )
        self.add(
            number("NEIGHBOURS", self.tr("Nearest base stations per cell (spdi)"), number.Type.Integer, None, True, 2),
            self.tr(
                "Look only at this many nearest BSs at each cell. Empty: all that matter (the paper's shortcut is 5)."
            ),
        )
        self.add(
            number("CELL_SIZE", self.tr("Cell size [m]"), number.Type.Double, None, True, 0.01),
            self.tr(
                "Side of the grid's cells in metres. Empty: a fifth of the lower-quartile BS spacing, rounded to 1, 2 or 5, but coarser "
                "where the grid would have over a million cells (the log says so)."
            ),
        )
        self.add(
            QgsProcessingParameterFeatureSource(
                "BOUNDARY", self.tr("Boundary"), [QgsProcessing.SourceType.TypeVectorPolygon], optional=True
            ),
            self.tr("Polygons where devices can be; sea and abroad outside of them hold no mass."),
        )
        self.add(
            QgsProcessingParameterExtent("EXTENT", self.tr("Extent"), optional=True),
            self.tr(
                "Area of the grid; without a CRS of its own it is in that of the base stations. Empty: all BSs plus the margin, cut to "
                "the boundary."
            ),
        )
        self.add(
            number("MARGIN", self.tr("Margin [m]"), number.Type.Double, None, True, 0.0),
            self.tr(
                "Width around the outermost BSs when no extent is given. Empty: the 95 % quantile of the nearest-neighbour distance. "
                "Beyond the network spdi spreads every BS's mass ever further, so a wide margin thins out the inner BSs; where the "
                "land ends, give a boundary instead."
            ),
        )
        self.add(
            QgsProcessingParameterEnum(
                "CONDITIONAL",
                self.tr("Probability in the stack"),
                list(FORMS),
                defaultValue=FORMS[0],
                usesStaticStrings=True,
            ),
            self.tr(
                "location_given_bs: P(location | BS), each band sums to one over cells. bs_given_location: P(BS | location), bands sum "
                "to one at each cell."
            ),
            advanced=True,
        )
        self.add(
            number("MIN_PROBABILITY", self.tr("Smallest probability kept"), number.Type.Double, 1e-4, False, 0.0, 0.1),
            self.tr(
                "P(BS | location) below this is dropped and the cell scaled back to one; the log says how much that is. With a small β it "
                "can be a few per cent. Smaller values make larger files."
            ),
            advanced=True,
        )
        self.add(
            QgsProcessingParameterEnum(
                "WINDOW",
                self.tr("Window (direct, deepmend)"),
                list(WINDOWS),
                defaultValue=WINDOWS[0],
                usesStaticStrings=True,
            ),
            self.tr(
                "Where the network draws. adaptive: 64 x 64 cells of a fifth of the BS's local spacing, in units of which all is seen. "
                "fixed: the paper's 600 x 600 cells of 100 m, a hundred times the work."
            ),
            advanced=True,
        )
        self.add(
            QgsProcessingParameterFile(
                "WEIGHTS", self.tr("Weights file (trained methods)"), extension="safetensors", optional=True
            ),
            self.tr(
                "What 'Train DeepMEND' made for this method and window. Empty: the weights that ship with the plugin."
            ),
            advanced=True,
        )
        self.add(
            number("MAX_MEMORY_MB", self.tr("Memory budget [MB]"), number.Type.Integer, 4096, False, 64),
            self.tr(
                "Most memory the job may take. A job that would need more is refused before it starts, with a way out."
            ),
            advanced=True,
        )
        self.add_device()
        self.add(
            QgsProcessingParameterRasterDestination("OUTPUT", self.tr("Geolocation stack")),
            self.tr("GeoTIFF with one band per BS, named by its id; nodata 0."),
        )
        self.add(
            QgsProcessingParameterRasterDestination("BEST_SERVER", self.tr("Best server"), optional=True),
            self.tr(
                "GeoTIFF: the BS with the largest probability at each cell (raster attribute table with id, position, sectors and mass "
                "cut off), that probability, and the entropy of the choice in bits."
            ),
        )
        self.add(
            QgsProcessingParameterFeatureSink(
                "COVERAGE", self.tr("Coverage"), QgsProcessing.SourceType.TypeVectorPolygon, optional=True
            ),
            self.tr("Per BS the smallest areas that hold 50, 75 and 95 % of its mass."),
        )
        for name, label, text in (
            ("BS_COUNT", "Base stations", "Number of distinct base stations."),
            ("MERGED", "Duplicates merged", "Number of points that joined a base station at the same coordinates."),
            ("SKIPPED", "Without mass", "Number of base stations without mass on the grid; their bands are empty."),
            (
                "MASS_CUT_MEDIAN",
                "Median mass cut off",
                "Median over BSs of the share of mass in a ring about one margin wide around the grid.",
            ),
            ("MASS_CUT_MAX", "Largest mass cut off", "Largest of these shares."),
            ("SECONDS", "Seconds", "Wall time of the run [s]."),
        ):
            self.add_result(QgsProcessingOutputNumber(name, self.tr(label)), self.tr(text))
        self.add_result(QgsProcessingOutputString("DEVICE_USED", self.tr("Device used")), self.tr("cpu or cuda."))
        self.add_result(
            QgsProcessingOutputString("CRS", self.tr("CRS of the outputs")), self.tr("The metric CRS used.")
        )

    def work(self, run: Run) -> dict[str, Any]:
        from ..models.geolocation.engine import GeolocationJob, geolocate

        parameters = run.parameters
        method = parameters.choice("METHOD")
        facts = {"TELCOLOC_METHOD": method}
        weights = _weights(run, method)
        if weights:
            facts["TELCOLOC_WEIGHTS"] = describe(weights)
            run.info(f"Weights: {facts['TELCOLOC_WEIGHTS']}.")
        if method in STUDENTS:
            facts["TELCOLOC_WINDOW"] = parameters.choice("WINDOW")
        source = parameters.source("INPUT")
        sites, crs = read_sites(run, source, parameters.field("ID_FIELD", source))
        beta, how = _beta(run, sites) if method == "spdi" else (4.0, {})
        frame = choose_frame(run, sites, crs)
        grid = frame.grid
        run.info(f"{len(sites):,} base stations on {grid.describe()} in {name_of(crs)}.")
        device = "cpu"
        if method in ("voronoi", "voronoiboost"):
            run.info(f"{method} is computed on the CPU.")
        else:
            device = run.device()
        min_probability = parameters.number("MIN_PROBABILITY")
        facts.update(how, TELCOLOC_MIN_PROBABILITY=f"{min_probability:g}")
        job = GeolocationJob(
            sites_m=sites.xy_m,
            grid=grid,
            mask=frame.mask,
            surroundings=frame.surroundings,
            surroundings_mask=frame.surroundings_mask,
            method=method,
            beta=beta,
            neighbours=parameters.integer("NEIGHBOURS"),
            weights=str(weights or ""),
            window=parameters.choice("WINDOW"),
            min_probability=min_probability,
            device=device,
            threads=run.threads,
            memory_mb=parameters.number("MAX_MEMORY_MB"),
        )
        result = geolocate(job, run.progress.phase(self.tr("Computing probabilities"), 0.02, 0.5))
        looked_at = (
            f"; base stations looked at per cell: {_range_text(result.neighbours)}" if any(result.neighbours) else ""
        )
        run.info(f"Computed in {run.seconds:.1f} s{looked_at}.")
        if result.dropped > 1e-6:
            run.info(
                f"Probabilities under {job.min_probability:g} were left out and the rest scaled up: {result.dropped:.2%} of a cell on "
                "average."
            )
        counts = _report_mass(run, sites, result)
        write_geolocation(run, sites, result, facts)
        write_best_server(run, sites, result)
        write_coverage(run, sites, result, crs)
        return {
            "BS_COUNT": len(sites),
            "MERGED": sites.merged,
            **counts,
            "SECONDS": round(run.seconds, 2),
            "DEVICE_USED": device,
            "CRS": name_of(crs),
        }


def _weights(run: Run, method: str) -> Path | None:
    """Return the weights file of a trained method, checked together with what else it needs; None for the others."""
    if method not in LEARNED:
        if run.parameters.given("WEIGHTS"):
            raise InputError(
                f"WEIGHTS is given, but {method} has learned nothing. Leave it empty, or choose another METHOD."
            )
        return None
    if method in STUDENTS:
        from ..models.geolocation.student import require_torch

        require_torch()
    return weights_of(run, method)


def _beta(run: Run, sites: Sites) -> tuple[float | np.ndarray, dict[str, str]]:
    """β of spdi, one or one per BS, and what the stack says about it."""
    from ..models.geolocation.sites import URBANISATIONS, local_spacing_m, urbanisation

    parameters = run.parameters
    by = parameters.choice("BETA_BY")
    source = parameters.source("INPUT")
    field = parameters.field("BETA_FIELD", source)
    if by != "field" and field:
        raise InputError(
            f"BETA_FIELD is given, but BETA_BY is '{by}'. Choose BETA_BY 'field', or leave BETA_FIELD empty."
        )
    if by == "field" and not field:
        raise InputError(
            "BETA_BY is 'field', but BETA_FIELD is empty. Choose the field that holds each base station's β."
        )
    if field:
        id_field = parameters.field("ID_FIELD", source)
        beta = read_positive(run, source, id_field, sites, field, LARGEST_BETA, "BETA_FIELD")
        run.info(f"β from '{field}': {beta.min():g} to {beta.max():g}, median {np.median(beta):g}.")
        return beta, {"TELCOLOC_BETA_BY": by, "TELCOLOC_BETA": f"field '{field}'"}
    if by == "fixed" or len(sites) == 1:
        fixed = parameters.number("BETA")
        return fixed, {"TELCOLOC_BETA_BY": "fixed", "TELCOLOC_BETA": f"{fixed:g}"}
    kind = urbanisation(local_spacing_m(sites.xy_m))
    text = ", ".join(f"{name} {value:g}" for name, value in zip(URBANISATIONS, BETA_OF_URBANISATION))
    counts = ", ".join(f"{count:,} {name}" for name, count in zip(URBANISATIONS, np.bincount(kind, minlength=3)))
    run.info(f"β by urbanisation ({text}): {counts} base stations.")
    return np.array(BETA_OF_URBANISATION)[kind], {"TELCOLOC_BETA_BY": by, "TELCOLOC_BETA": text}


def _range_text(values: tuple[int, int, int]) -> str:
    low, middle, high = values
    return f"{low}" if low == high else f"{low} to {high}, median {middle}"


def _report_mass(run: Run, sites: Sites, result: Geolocation) -> dict[str, Any]:
    """Log BSs without mass and the mass that the grid cuts off."""
    empty = np.flatnonzero(result.mass == 0)
    if len(empty) == len(sites):
        raise InputError("No base station has any mass on the grid. Check EXTENT and BOUNDARY.")
    if len(empty):
        names = listed([sites.ids[index] for index in empty])
        run.warn(
            f"{len(empty):,} base stations have no mass on the grid (bands stay empty): {names}. Smaller cells may help."
        )
    cut = result.mass_cut[np.isfinite(result.mass_cut)]
    facts: dict[str, Any] = {"SKIPPED": len(empty), "MASS_CUT_MEDIAN": None, "MASS_CUT_MAX": None}
    if cut.size:
        facts.update(MASS_CUT_MEDIAN=float(np.median(cut)), MASS_CUT_MAX=float(cut.max()))
        run.info(
            f"Mass cut off by the grid, measured in a ring around it: median {np.median(cut):.2%}, "
            f"95 % of base stations under {np.quantile(cut, 0.95):.1%}, largest {cut.max():.1%}."
        )
    return facts
