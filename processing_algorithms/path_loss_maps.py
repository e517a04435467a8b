"""`telcoloc:pathlossmaps`: cells and buildings become maps of what each cell's signal has lost at each place."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from qgis.core import (
    Qgis,
    QgsCoordinateReferenceSystem,
    QgsPointXY,
    QgsProcessingOutputNumber,
    QgsProcessingOutputString,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterEnum,
    QgsProcessingParameterExtent,
    QgsProcessingParameterFile,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterDestination,
    QgsRectangle,
)

from ..models.errors import InputError
from ..models.grid import Grid
from ..telcoloc_qgis.algorithm import Run, TelcoLocAlgorithm
from ..telcoloc_qgis.buildings import add_building_parameters, read_buildings
from ..telcoloc_qgis.crs import name_of
from ..telcoloc_qgis.radio_maps import QUANTITIES, write_best_server, write_radio_maps
from ..telcoloc_qgis.transmitters import add_transmitter_parameters, read_transmitters

if TYPE_CHECKING:
    from ..models.radio.model_settings import ModelSettings
    from ..models.radio.patterns import Pattern
    from ..models.radio.transmitters import Transmitters

MODELS = ("auto", "logdistance", "hata", "3gpp", "cost231wi", "dominantpath")
#: Those that look at buildings.
OF_BUILDINGS = ("cost231wi", "dominantpath")
PATTERNS = ("3gpp", "gaussian", "omni", "file")
AREAS = ("urban", "suburban", "open")
CITIES = ("medium", "large")
SCENARIOS = ("UMa", "UMi", "RMa")
#: Side of the cells [m] when none is given: with buildings, where streets must show, and without.
CELL_SIZE_M = {True: 5.0, False: 20.0}
#: The default cells are larger where all maps together would have more of them than this.
MOST_VALUES = 20_000_000
#: The default margin around the transmitters is at least this wide [m], and this for a single place.
LEAST_MARGIN_M, LONE_MARGIN_M = 500.0, 1000.0
#: Buildings that far beyond the map and the transmitters still stand at the streets of its edge [m].
AROUND_M = 100.0
#: An EXTENT farther than this from all transmitters is a mistake [m].
FARTHEST_M = 100_000.0


class PathLossMaps(TelcoLocAlgorithm):
    """See the module's docstring."""

    NAME = "pathlossmaps"
    TITLE = "Path loss maps"
    GROUP = "Radio maps"
    SUMMARY = "From cells and buildings to maps of each cell's path loss or received power."
    DESCRIPTION = (
        "For every cell (sector of a base station, BS) of a point layer, computes how much of its signal is lost on the way to each place "
        "of a grid, the antenna's pattern included, or what power is received there: one band per cell. The maps are what signal-strength "
        "fingerprints are compared with where nobody has measured.\n\n"
        "logdistance loses a fixed number of decibels per decade of distance. hata is Okumura-Hata up to 1,500 MHz and COST231-Hata above. "
        "3gpp is TR 38.901: where buildings are given, line of sight is as they leave it, and else a matter of its probability.\n\n"
        "cost231wi is COST231-Walfisch-Ikegami: with line of sight along street canyons; without it over the roofs, where building "
        "heights and spacing, street width and the street's angle are measured in the footprints along each path.\n\n"
        "dominantpath follows the strongest path, around the corners of buildings or over their roofs: its length, its bends and what "
        "diffraction costs.\n\n"
        "auto takes cost231wi where buildings are given, and 3gpp without.\n\n"
        "Models are made for certain frequencies, heights and distances; the log says what lies outside."
    )
    EXAMPLE = (
        "qgis_process run telcoloc:pathlossmaps --INPUT=cells.gpkg --BUILDINGS=buildings.gpkg --EXTENT=499000,500000,4998000,4999000 "
        "--CELL_SIZE=20 --RADIO_MAPS=radio_maps.tif --BEST_SERVER=best_server.tif"
    )
    TAGS = (
        "telecom",
        "radio map",
        "path loss",
        "propagation",
        "coverage",
        "rss",
        "rsrp",
        "hata",
        "okumura",
        "cost231",
        "walfisch-ikegami",
        "3gpp",
        "dominant path",
        "best server",
        "buildings",
    )
    ICON = "path_loss.svg"

    def define(self) -> None:
        add_transmitter_parameters(self)
        add_building_parameters(
            self,
            "Polygon layer of footprints with heights, in any CRS: for cost231wi and dominantpath, and for line of sight in 3gpp. No model "
            "gives values inside of them.",
        )
        self._define_models()
        self._define_grid()
        self.add_device()
        self.add(
            QgsProcessingParameterRasterDestination("RADIO_MAPS", self.tr("Radio maps")),
            self.tr(
                "GeoTIFF with one band per cell, named by its id, with its place and equipment in the band's metadata; empty (-9999) "
                "inside buildings. Values under the noise floor are kept, and not drawn."
            ),
        )
        self.add(
            QgsProcessingParameterRasterDestination("BEST_SERVER", self.tr("Best server"), optional=True),
            self.tr(
                "GeoTIFF: the cell with the strongest signal at each place (raster attribute table with id and place), its received power "
                "[dBm], and by how much it leads the second best [dB]; empty where nothing reaches the noise floor."
            ),
        )
        for name, label, text in (
            ("CELL_COUNT", "Cells", "Number of cells, one band each."),
            ("BUILDING_COUNT", "Buildings", "Number of buildings on the map."),
            ("COVERED", "Share covered", "Share of the map outside buildings where a signal reaches the noise floor."),
            ("WARNINGS", "Warnings of the model", "Number of ways in which the input lies outside the model's range."),
            ("SECONDS", "Seconds", "Wall time of the run [s]."),
        ):
            self.add_result(QgsProcessingOutputNumber(name, self.tr(label)), self.tr(text))
        for name, label, text in (
            ("MODEL_USED", "Model used", "The propagation model, which auto chose."),
            ("DEVICE_USED", "Device used", "cpu or cuda."),
            ("CRS", "CRS of the outputs", "The metric CRS used."),
        ):
            self.add_result(QgsProcessingOutputString(name, self.tr(label)), self.tr(text))

    def _define_models(self) -> None:
        number = QgsProcessingParameterNumber

        def choice(name: str, label: str, options: tuple[str, ...], text: str, advanced: bool = True) -> None:
            self.add(
                QgsProcessingParameterEnum(
                    name, self.tr(label), list(options), defaultValue=options[0], usesStaticStrings=True
                ),
                self.tr(text),
                advanced=advanced,
            )

        choice(
            "MODEL",
            "Propagation model",
            MODELS,
            "auto (cost231wi with buildings, else 3gpp), logdistance, hata, 3gpp, cost231wi or dominantpath.",
            advanced=False,
        )
        choice(
            "QUANTITY",
            "Values",
            tuple(QUANTITIES),
            "path_loss (loss from the beam's peak to the device [dB], pattern included) or rss (received power [dBm], EIRP less loss). "
            "Either can be turned into the other later, because bands know their EIRP.",
            advanced=False,
        )
        choice(
            "PATTERN",
            "Antenna pattern",
            PATTERNS,
            "3gpp (TR 38.901 table 7.3-1), gaussian (Gaussian lobes), omni (alike in all directions), or file.",
        )
        self.add(
            QgsProcessingParameterFile("PATTERN_FILE", self.tr("Pattern file (file)"), optional=True),
            self.tr("Antenna pattern of all cells as MSI or Planet text with horizontal and vertical attenuation."),
            advanced=True,
        )
        choice(
            "SCENARIO",
            "Scenario (3gpp)",
            SCENARIOS,
            "UMa (antennas over the roofs of a city), UMi (street canyon) or RMa (rural).",
        )
        choice("AREA", "Area (hata)", AREAS, "urban, suburban or open land.")
        choice("CITY", "Size of the city (hata, cost231wi)", CITIES, "medium, or large for metropolitan centres.")
        for name, label, default, high, text in (
            (
                "EXPONENT",
                "Exponent (logdistance)",
                3.0,
                10.0,
                "Loss per decade of distance in tens of decibels: 2 in free space, 3 to 5 in cities. Up to 1 m it is that of free space.",
            ),
            ("ROOF_HEIGHT", "Height of roofs [m] (cost231wi)", 15.0, 500.0, "Where no footprint tells."),
            ("ROW_SEPARATION", "Separation of buildings [m] (cost231wi)", 40.0, 500.0, "Where footprints do not tell."),
            ("STREET_WIDTH", "Width of streets [m] (cost231wi)", 20.0, 200.0, "Where footprints do not tell."),
        ):
            self.add(
                number(name, self.tr(label), number.Type.Double, default, False, 1.0, high),
                self.tr(text),
                advanced=True,
            )
        for name, label, default, text in (
            ("OVER_ROOFS", "Paths over roofs (dominantpath)", True, "Whether the signal may also pass over roofs."),
            (
                "WAVE_GUIDING",
                "Wave guiding (dominantpath)",
                False,
                "Whether walls along the path guide the signal, so that it loses less in streets.",
            ),
        ):
            self.add(QgsProcessingParameterBoolean(name, self.tr(label), default), self.tr(text), advanced=True)

    def _define_grid(self) -> None:
        number = QgsProcessingParameterNumber
        self.add(
            QgsProcessingParameterExtent("EXTENT", self.tr("Extent"), optional=True),
            self.tr(
                "Area of the map; without a CRS of its own it is in that of the cells. Empty: all cells plus the margin."
            ),
        )
        self.add(
            number("CELL_SIZE", self.tr("Side of the grid's cells [m]"), number.Type.Double, None, True, 0.1),
            self.tr(
                f"In metres. Empty: {CELL_SIZE_M[True]:g} m with buildings and {CELL_SIZE_M[False]:g} m without, but coarser where all "
                f"bands together would have over {MOST_VALUES // 1_000_000} million values (the log says so)."
            ),
        )
        self.add(
            number("MARGIN", self.tr("Margin [m]"), number.Type.Double, None, True, 0.0),
            self.tr(
                "Width around the outermost cells when no extent is given. Empty: the 95 % quantile of the distance between neighbouring "
                f"sites, at least {LEAST_MARGIN_M:g} m."
            ),
            advanced=True,
        )
        self.add(
            number("REACH", self.tr("Reach [m]"), number.Type.Double, None, True, 0.0),
            self.tr(
                "Cells of the network that stand farther than this from EXTENT are left out. Empty: all take part."
            ),
            advanced=True,
        )
        self.add(
            number("DEVICE_HEIGHT", self.tr("Height of devices [m]"), number.Type.Double, 1.5, False, 0.1, 500.0),
            self.tr("Above ground, in metres."),
            advanced=True,
        )
        self.add(
            number("NOISE_FLOOR", self.tr("Noise floor [dBm]"), number.Type.Double, -95.0, False, -200.0, 50.0),
            self.tr(
                "Weaker signals are not received. -95 dBm is the noise of a handset in 10 MHz (noise figure 9 dB, 3GPP TR 36.942 table "
                "4.8); in the 15 kHz of one resource element, which RSRP is measured of, it is 28 dB less. The best server and the "
                "styles heed it."
            ),
        )
        self.add(
            number("MAX_MEMORY_MB", self.tr("Memory budget [MB]"), number.Type.Integer, 4096, False, 64),
            self.tr(
                "Most memory the job may take. A job that would need more is refused before it starts, with a way out."
            ),
            advanced=True,
        )

    def work(self, run: Run) -> dict[str, Any]:
        from ..models.radio.maps import RadioMapJob, radio_maps

        parameters = run.parameters
        model = parameters.choice("MODEL")
        if model == "auto":
            model = OF_BUILDINGS[0] if parameters.given("BUILDINGS") else "3gpp"
            run.info(f"Model: {model}, as {'buildings are' if model in OF_BUILDINGS else 'no buildings are'} given.")
        if model == "dominantpath" and not parameters.given("BUILDINGS"):
            raise InputError(
                "MODEL is 'dominantpath', which needs BUILDINGS. Give a layer of footprints, or choose another model."
            )
        pattern = _pattern(run)
        transmitters, crs = read_transmitters(run)
        extent = parameters.extent("EXTENT", crs, parameters.source("INPUT").sourceCrs())
        if extent is not None:
            transmitters = _near(run, transmitters, extent)
        grid = _grid(run, model, transmitters, extent, crs)
        run.info(f"{len(transmitters):,} cells on {grid.describe()} in {name_of(crs)}.")
        around = QgsRectangle(*grid.bounds)
        for x_m, y_m in transmitters.xy_m.tolist():
            around.include(QgsPointXY(x_m, y_m))
        around.grow(AROUND_M)
        buildings = read_buildings(run, crs, around, run.progress.phase(self.tr("Reading buildings"), 0.01, 0.05))
        if buildings is not None:
            _check_corners(run, model, grid, len(transmitters), len(buildings.xy_m))
        job = RadioMapJob(
            transmitters=transmitters,
            grid=grid,
            model=model,
            settings=_settings(run),
            buildings=buildings,
            pattern=pattern,
            noise_floor_dbm=parameters.number("NOISE_FLOOR"),
            device=run.device(),
            threads=run.threads,
        )
        maps = radio_maps(job, run.progress.phase(self.tr("Computing path loss"), 0.05, 0.85))
        run.info(f"Computed in {run.seconds:.1f} s.")
        for text in maps.warnings:
            run.warn(text)
        covered = write_best_server(run, maps, run.progress.phase(self.tr("Finding the best server"), 0.85, 0.9))
        if covered is None:
            raise InputError("No part of the map lies outside a building. Check BUILDINGS, or use a larger EXTENT.")
        run.info(
            f"A signal reaches the noise floor of {maps.noise_floor_dbm:g} dBm on {covered:.1%} of the map outside buildings."
        )
        progress = run.progress.phase(self.tr("Writing the radio maps"), 0.9, 1.0)
        write_radio_maps(run, "RADIO_MAPS", maps, parameters.choice("QUANTITY"), _facts(run, pattern), progress)
        return {
            "CELL_COUNT": len(transmitters),
            "BUILDING_COUNT": 0 if buildings is None else len(buildings),
            "COVERED": covered,
            "WARNINGS": len(maps.warnings),
            "SECONDS": round(run.seconds, 2),
            "MODEL_USED": model,
            "DEVICE_USED": job.device,
            "CRS": name_of(crs),
        }


def _near(run: Run, transmitters: Transmitters, extent: QgsRectangle) -> Transmitters:
    """Those within REACH of the extent.

    Raises
    ------
    InputError
        When there are none.
    """
    away = np.array([extent.distance(QgsPointXY(x_m, y_m)) for x_m, y_m in transmitters.xy_m.tolist()])
    nearest = int(np.argmin(away))
    if away[nearest] > FARTHEST_M:
        raise InputError(
            f"EXTENT lies {away[nearest] / 1000:,.0f} km from the nearest cell, '{transmitters.ids[nearest]}'. Check its coordinates and "
            "CRS."
        )
    reach = run.parameters.number("REACH")
    if reach is None or away.max() <= reach:
        return transmitters
    if away[nearest] > reach:
        raise InputError(
            f"No cell stands within REACH {reach:g} m of EXTENT; the nearest, '{transmitters.ids[nearest]}', is {away[nearest]:,.0f} m "
            "away. Use a larger REACH, or leave it empty."
        )
    run.info(
        f"Cells farther than {reach:g} m from the map, which are left out: {(away > reach).sum():,} of {len(away):,}."
    )
    return transmitters.take(away <= reach)


def _grid(
    run: Run, model: str, transmitters: Transmitters, extent: QgsRectangle | None, crs: QgsCoordinateReferenceSystem
) -> Grid:
    """The grid from EXTENT, MARGIN and CELL_SIZE.

    Raises
    ------
    InputError
        More cells than the memory budget holds.
    """
    from ..models.radio.memory import needed_mb

    parameters = run.parameters
    if extent is None:
        margin = parameters.number("MARGIN")
        places = np.unique(transmitters.xy_m.round(), axis=0)
        extent = QgsRectangle(*places.min(axis=0), *places.max(axis=0))
        extent = extent.buffered(_default_margin_m(places) if margin is None else margin)
    bounds = (extent.xMinimum(), extent.yMinimum(), extent.xMaximum(), extent.yMaximum())
    area = extent.width() * extent.height()
    cell_size = parameters.number("CELL_SIZE")
    if cell_size is None:
        wanted = CELL_SIZE_M[parameters.given("BUILDINGS")]
        cell_size = max(wanted, _round_up(math.sqrt(area * len(transmitters) / MOST_VALUES)))
        coarser = f" instead of {wanted:g} m, so that all bands together have no more than {MOST_VALUES:,} values"
        run.info(f"Grid of {cell_size:g} m{coarser if cell_size > wanted else ''}; CELL_SIZE and EXTENT change it.")
    n_cells = area / cell_size**2
    mb = needed_mb(model, n_cells, len(transmitters), run.threads)
    budget_mb = parameters.number("MAX_MEMORY_MB")
    if mb > budget_mb:
        raise InputError(
            f"CELL_SIZE {cell_size:g} m makes {n_cells:,.0f} cells of {len(transmitters):,} maps, which need {mb:,.0f} MB; "
            f"{budget_mb:,.0f} MB are allowed. Use CELL_SIZE {cell_size * math.sqrt(mb / budget_mb) * 1.05:.3g} or more, a smaller EXTENT, "
            "or a REACH that leaves cells out."
        )
    return Grid.covering(bounds, cell_size, crs.toWkt(Qgis.CrsWktVariant.Preferred))


def _check_corners(run: Run, model: str, grid: Grid, n_transmitters: int, n_corners: int) -> None:
    """Refuse footprints of more corners than the memory budget holds.

    Raises
    ------
    InputError
        When it does not.
    """
    from ..models.radio.memory import needed_mb

    mb = needed_mb(model, grid.size, n_transmitters, run.threads, n_corners)
    budget_mb = run.parameters.number("MAX_MEMORY_MB")
    if mb > budget_mb:
        raise InputError(
            f"BUILDINGS has {n_corners:,} corners on the map, with which {model} needs {mb:,.0f} MB; {budget_mb:,.0f} MB are allowed. "
            "Use simpler footprints, a smaller EXTENT, MODEL 'cost231wi', or a higher MAX_MEMORY_MB."
        )


def _default_margin_m(places_m: np.ndarray) -> float:
    from ..models.geolocation.sites import default_margin_m

    return max(default_margin_m(places_m), LEAST_MARGIN_M) if len(places_m) > 1 else LONE_MARGIN_M


def _round_up(value_m: float) -> float:
    """The next 1, 2 or 5 times a power of ten [m]."""
    power = 10.0 ** math.floor(math.log10(value_m))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value_m)


def _pattern(run: Run) -> Pattern:
    """The antenna pattern of all cells.

    Raises
    ------
    InputError
        No file for 'file', or a file for another one.
    """
    from ..models.radio.patterns import Pattern

    kind = run.parameters.choice("PATTERN")
    path = run.parameters.file("PATTERN_FILE")
    if (kind == "file") != (path is not None):
        raise InputError(
            "PATTERN is 'file', but PATTERN_FILE is empty. Give an MSI or Planet file, or choose another PATTERN."
            if path is None
            else f"PATTERN_FILE is given, but PATTERN is '{kind}'. Choose PATTERN 'file', or leave PATTERN_FILE empty."
        )
    if path is None:
        return Pattern(kind)
    from ..models.radio.pattern_files import read_pattern_file

    pattern = read_pattern_file(path)
    run.info(f"Antenna pattern: '{pattern.name}' of {path.name}.")
    return pattern


def _settings(run: Run) -> ModelSettings:
    from ..models.radio.dominant_path_settings import DominantPathSettings
    from ..models.radio.model_settings import ModelSettings

    parameters = run.parameters
    city = parameters.choice("CITY")
    return ModelSettings(
        device_height_m=parameters.number("DEVICE_HEIGHT"),
        exponent=parameters.number("EXPONENT"),
        hata_area=parameters.choice("AREA"),
        hata_city=city,
        wi_city="metropolitan" if city == "large" else city,
        scenario=parameters.choice("SCENARIO"),
        roof_m=parameters.number("ROOF_HEIGHT"),
        separation_m=parameters.number("ROW_SEPARATION"),
        street_width_m=parameters.number("STREET_WIDTH"),
        dominant_path=DominantPathSettings(
            over_roofs=parameters.flag("OVER_ROOFS"), guiding=parameters.flag("WAVE_GUIDING")
        ),
    )


def _facts(run: Run, pattern: Pattern) -> dict[str, str]:
    """What the file says of how it was made."""
    facts = {"TELCOLOC_PATTERN": pattern.name or pattern.kind}
    facts["TELCOLOC_DEVICE_HEIGHT_M"] = f"{run.parameters.number('DEVICE_HEIGHT'):g}"
    return facts
