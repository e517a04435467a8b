"""`telcoloc:sensibilitymap`: where signal strengths do not tell places apart, and where landmarks would help."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsFeature,
    QgsProcessing,
    QgsProcessingOutputNumber,
    QgsProcessingOutputString,
    QgsProcessingParameterFeatureSink,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterDestination,
    QgsWkbTypes,
)
from qgis.PyQt.QtCore import QMetaType

from ..models.errors import InputError
from ..telcoloc_qgis import rasters, tracking_styles
from ..telcoloc_qgis.algorithm import Run, TelcoLocAlgorithm
from ..telcoloc_qgis.columns import features_of
from ..telcoloc_qgis.crs import name_of
from ..telcoloc_qgis.localization import numbers_at
from ..telcoloc_qgis.lookup_tables import (
    add_matching_parameters,
    add_table_parameters,
    on_streets,
    read_table,
    settings_of,
    truth_in,
)
from ..telcoloc_qgis.measurements import read_measurements
from ..telcoloc_qgis.outputs import fields_of

if TYPE_CHECKING:
    from ..models.landmarks.lookup import LookupTable
    from ..models.landmarks.placement import Placement
    from ..models.landmarks.sensibility import Sensibility
    from ..models.progress import Progress

NODATA = -9999.0
#: Places tried by default are so far apart [m], and farther where more pairs of them and places of the table would be compared than this:
#: about a minute on two cores.
SPACING_M, MOST_COMPARED = 20.0, 150e6


class SensibilityMap(TelcoLocAlgorithm):
    """See the module's docstring."""

    NAME = "sensibilitymap"
    TITLE = "Sensibility map"
    GROUP = "Landmarks"
    SUMMARY = "Where signal strengths do not tell places apart, from 0 to 1, and where landmarks would help most."
    DESCRIPTION = (
        "The sensibility of a place is the distance from the true position to the nearest candidate over the largest such distance: 0 "
        "where a candidate is right, 1 where the network is blind.\n\n"
        "With measurements that know their true positions it is what they show, around where they were made. Without them it is "
        "simulated at all places of the look-up table: what devices would measure there is the table's power with an error that is "
        "correlated over space and as large as that of the propagation model, and is compared with the table again. Measurements also show "
        "where the table is wrong; a simulation only tells where it is ambiguous, so drive through the area where you can.\n\n"
        "Places for landmarks are chosen one after the other, each where it covers most sensibility that no earlier one does. "
        "'Signal candidates' takes the map to keep many candidates only where they are needed."
    )
    EXAMPLE = (
        "qgis_process run telcoloc:sensibilitymap --RADIO_MAPS=radio_maps.tif --ERROR=8 --SENSIBILITY=sensibility.tif "
        "--LANDMARK_PLACES=places.gpkg"
    )
    TAGS = ("telecom", "sensibility", "sensitivity", "accuracy", "dcm", "database correlation", "fingerprinting", "landmarks",
            "placement", "planning", "tracking")  # fmt: skip
    ICON = "sensibility.svg"

    def define(self) -> None:
        kinds = QgsProcessing.SourceType
        number = QgsProcessingParameterNumber
        add_table_parameters(self)
        self.add(
            QgsProcessingParameterFeatureSource(
                "INPUT", self.tr("Measurements with truth"), [kinds.TypeVector], optional=True
            ),
            self.tr(
                "Measurement reports with true positions, in the normal form, not those of TRAINING. Empty: the sensibility is simulated."
            ),
        )
        add_matching_parameters(self)
        self._define_simulation()
        for name, label, kind, default, low, text in (
            ("LANDMARK_COUNT", "Places for landmarks", number.Type.Integer, 30, 1, "How many places are suggested at most."),
            ("LANDMARK_RADIUS", "Reach of a landmark [m]", number.Type.Double, 100.0, 1.0, "A landmark helps within this distance [m]."),
            ("LANDMARK_SPACING", "Distance of landmarks [m]", number.Type.Double, 100.0, 0.0, "They are at least so far apart [m]."),
        ):  # fmt: skip
            self.add(number(name, self.tr(label), kind, default, False, low), self.tr(text))
        self.add(
            QgsProcessingParameterRasterDestination("SENSIBILITY", self.tr("Sensibility")),
            self.tr(
                "GeoTIFF on the grid of the look-up table, from 0 (places are told apart) to 1 (the network is blind); empty (-9999) "
                "where it is unknown."
            ),
        )
        self.add(
            QgsProcessingParameterFeatureSink(
                "LANDMARK_PLACES",
                self.tr("Places for landmarks"),
                kinds.TypeVectorPoint,
                optional=True,
                createByDefault=True,
            ),
            self.tr(
                "A point per place: landmark_id, rank (1 helps most), sensibility, share (of the sum of all sensibility, what it covers "
                "first), covered (what places up to this one cover). With STREETS they stand near streets."
            ),
        )
        for name, label, text in (
            (
                "MEAN_DISTANCE",
                "Mean distance [m]",
                "Mean distance from the truth to the nearest candidate [m], D_MAX at most.",
            ),
            ("D_MAX_USED", "Largest distance [m]", "The distance that is a sensibility of 1 [m]."),
            ("SAMPLES", "Samples", "Number of places with a known truth that the map rests on."),
            ("COVERED", "Share covered", "Share of the sum of all sensibility within reach of the suggested places."),
        ):
            self.add_result(QgsProcessingOutputNumber(name, self.tr(label)), self.tr(text))
        self.add_result(
            QgsProcessingOutputString("CRS", self.tr("CRS of the outputs")), self.tr("The metric CRS of the table.")
        )

    def _define_simulation(self) -> None:
        number = QgsProcessingParameterNumber
        self.add(
            number("ERROR", self.tr("Error of the table [dB] (simulation)"), number.Type.Double, 8.0, False, 0.0, 50.0),
            self.tr(
                "Standard deviation between the table and what devices measure. 8 dB is usual for models in cities."
            ),
        )
        for name, label, kind, default, low, high, text in (
            ("CORRELATION", "Correlation of the error [m] (simulation)", number.Type.Double, 50.0, 0.1, 1e5,
             "Distance at which the error's correlation has fallen to 1/e [m]."),
            ("SPACING", "Spacing of places tried [m] (simulation)", number.Type.Double, None, 0.1, 1e5,
             "In every repeat, one place in each square of this side is tried [m]. Empty: 20 m, more where the table has so many places "
             "that this would take minutes (the log says so)."),
            ("REPEATS", "Repeats (simulation)", number.Type.Integer, 3, 1, 1000, "How many fields of errors are drawn."),
            ("SEED", "Seed (simulation)", number.Type.Integer, 0, 0, 2**31 - 1, "Of the errors and the places tried."),
            ("RADIUS", "Reach of a measurement [m]", number.Type.Double, 50.0, 0.1, 1e5,
             "With INPUT: the map stays empty farther than this from every measurement [m]."),
        ):  # fmt: skip
            self.add(
                number(name, self.tr(label), kind, default, default is None, low, high), self.tr(text), advanced=True
            )
        self.add(
            number("D_MAX", self.tr("Largest distance [m]"), number.Type.Double, None, True, 0.1),
            self.tr(
                "The distance that is a sensibility of 1; larger ones count as it. Empty: that which 99 % of the samples do not exceed. "
                "Give it to compare maps."
            ),
            advanced=True,
        )

    def work(self, run: Run) -> dict[str, Any]:
        parameters = run.parameters
        table, crs, _ = read_table(run, run.progress.phase(self.tr("Reading the look-up table"), 0.0, 0.15))
        table = on_streets(run, table, crs, run.progress.phase(self.tr("Reading streets"), 0.15, 0.2))
        if parameters.given("INPUT"):
            found = self._measured(run, table, crs)
        else:
            found = self._simulated(run, table)
        known = np.isfinite(found.values)
        run.info(
            f"The nearest of the candidates is {found.mean_m:.1f} m away on average; a sensibility of 1 is {found.d_max_m:.1f} m"
            f"{'' if parameters.given('D_MAX') else ' (99 % of the samples are nearer)'}. Mean sensibility of {int(known.sum()):,} cells: "
            f"{found.values[known].mean():.2f}."
        )
        places = None
        if parameters.wants("LANDMARK_PLACES"):
            places = self._places(run, table, found)
        _write_raster(run, found, run.progress.phase(self.tr("Writing the map"), 0.9, 0.95))
        if places is not None:
            _write_places(run, places, crs, run.progress.phase(self.tr("Writing places"), 0.95, 1.0))
        return {
            "MEAN_DISTANCE": round(found.mean_m, 3),
            "D_MAX_USED": round(found.d_max_m, 3),
            "SAMPLES": found.samples,
            "COVERED": round(float(places.covered[-1]), 4) if places is not None and len(places) else None,
            "CRS": name_of(crs),
        }

    def _measured(self, run: Run, table: LookupTable, crs: QgsCoordinateReferenceSystem) -> Sensibility:
        from ..models.landmarks.sensibility import measured_sensibility
        from ..models.landmarks.signal_candidates import signal_candidates

        parameters = run.parameters
        source = parameters.source("INPUT")
        reading = run.progress.phase(self.tr("Reading the measurements"), 0.2, 0.3)
        records = read_measurements(run, source, progress=reading)
        if not records.has_truth.any():
            raise InputError(
                f"INPUT: none of the {len(records):,} records of '{source.sourceName()}' has a true position. Leave it empty to simulate."
            )
        comparing = run.progress.phase(self.tr("Comparing with the look-up table"), 0.3, 0.7)
        candidates = signal_candidates(
            records, table, settings_of(run, records), threads=run.threads, progress=comparing
        )
        found = measured_sensibility(
            candidates,
            truth_in(run, records, crs),
            table.grid,
            parameters.number("RADIUS"),
            parameters.number("D_MAX"),
            run.progress.phase(self.tr("Spreading over the map"), 0.7, 0.85),
        )
        run.info(f"Sensibility by {found.samples:,} records with a true position on the map.")
        return found

    def _simulated(self, run: Run, table: LookupTable) -> Sensibility:
        from ..models.landmarks.sensibility import simulated_sensibility

        parameters = run.parameters
        found = simulated_sensibility(
            table,
            settings_of(run),
            parameters.number("ERROR"),
            correlation_m=parameters.number("CORRELATION"),
            spacing_m=_spacing_m(run, table),
            repeats=parameters.integer("REPEATS"),
            d_max_m=parameters.number("D_MAX"),
            seed=parameters.integer("SEED"),
            threads=run.threads,
            progress=run.progress.phase(self.tr("Simulating measurements"), 0.2, 0.85),
        )
        run.info(
            f"Sensibility by {found.samples:,} simulated measurements with an error of {parameters.number('ERROR'):g} dB."
        )
        return found

    def _places(self, run: Run, table: LookupTable, found: Sensibility) -> Placement | None:
        """Where landmarks would help, None where none would: only at places of the table."""
        from ..models.landmarks.placement import place_landmarks

        parameters = run.parameters
        weight = np.zeros(table.grid.size)
        weight[table.places] = 1.0
        if not np.nansum(found.values.ravel()[table.places]) > 0:
            run.warn("The sensibility is 0 or unknown at all places, so no landmark is suggested.")
            return None
        number = parameters.integer("LANDMARK_COUNT")
        places = place_landmarks(
            found.grid,
            found.values,
            number,
            parameters.number("LANDMARK_RADIUS"),
            parameters.number("LANDMARK_SPACING"),
            weight.reshape(table.grid.shape),
            run.progress.phase(self.tr("Placing landmarks"), 0.85, 0.9),
        )
        fewer = "" if len(places) == number else f" (no more of the {number:,} asked for would help)"
        run.info(f"{len(places):,} places{fewer} cover {places.covered[-1]:.0%} of the sum of all sensibility.")
        return places


def _spacing_m(run: Run, table: LookupTable) -> float:
    """SPACING, else one that a simulation has done with in a minute or so: each place tried is compared with all places."""
    given = run.parameters.number("SPACING")
    if given is not None:
        return given
    side_m = table.grid.cell_size_m
    spacing_m = side_m * math.ceil(len(table.places) * math.sqrt(run.parameters.integer("REPEATS") / MOST_COMPARED))
    if spacing_m <= max(SPACING_M, side_m):
        return SPACING_M
    run.info(
        f"Places {spacing_m:g} m apart are tried, not {SPACING_M:g} m, because the table has {len(table.places):,} places; SPACING "
        "changes it."
    )
    return spacing_m


def _write_raster(run: Run, found: Sensibility, progress: Progress) -> None:
    rasters.write_bands(
        run.outputs.file("SENSIBILITY", ".tif"),
        found.grid,
        [found.values],
        ["Sensibility"],
        {
            "TELCOLOC_CONTENT": "sensibility: distance from the truth to the nearest candidate over the largest one",
            "TELCOLOC_D_MAX_M": f"{found.d_max_m:.3f}",
        },
        NODATA,
        threads=run.threads,
        progress=progress,
    )
    run.style("SENSIBILITY", run.outputs.results["SENSIBILITY"], tracking_styles.sensibility_qml())


def _write_places(run: Run, places: Placement, crs: QgsCoordinateReferenceSystem, progress: Progress) -> None:
    kind = QMetaType.Type
    fields = fields_of(
        ("landmark_id", kind.QString),
        ("rank", kind.Int),
        ("sensibility", kind.Double),
        ("share", kind.Double),
        ("covered", kind.Double),
    )
    every = slice(0, len(places))

    def features() -> Iterator[QgsFeature]:
        ranks = list(range(1, len(places) + 1))
        columns = [[f"place {rank}" for rank in ranks], ranks]
        columns += [numbers_at(values, every, 4) for values in (places.sensibility, places.share, places.covered)]
        yield from features_of(fields, columns, *places.xy_m.T)

    layer = run.outputs.table("LANDMARK_PLACES", fields, features(), QgsWkbTypes.Type.Point, crs, progress, len(places))
    run.style("LANDMARK_PLACES", layer, tracking_styles.landmarks_qml("rank"))
