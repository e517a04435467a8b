"""`telcoloc:signalcandidates`: measurement reports become the places whose signal fits best, several per record."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from qgis.core import (
    QgsProcessing,
    QgsProcessingOutputNumber,
    QgsProcessingOutputString,
    QgsProcessingParameterFeatureSink,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterLayer,
)

from ..models.errors import InputError
from ..telcoloc_qgis.algorithm import Run, TelcoLocAlgorithm
from ..telcoloc_qgis.candidates import write_candidates
from ..telcoloc_qgis.crs import name_of
from ..telcoloc_qgis.localization import first_of
from ..telcoloc_qgis.lookup_tables import (
    add_matching_parameters,
    add_table_parameters,
    on_streets,
    read_sensibility,
    read_table,
    settings_of,
    truth_in,
)
from ..telcoloc_qgis.measurements import read_measurements

if TYPE_CHECKING:
    from ..models.landmarks.lookup import LookupTable
    from ..models.landmarks.signal_candidates import CandidateSettings, Matched
    from ..models.trajectory.measurements import Measurements


class SignalCandidates(TelcoLocAlgorithm):
    """See the module's docstring."""

    NAME = "signalcandidates"
    TITLE = "Signal candidates"
    GROUP = "Landmarks"
    SUMMARY = "The places whose signal strengths fit each measurement report best: several candidates instead of one position."
    DESCRIPTION = (
        "The database correlation method: the strongest cells of a report are compared with what a look-up table says of every place, by "
        "the squared error, and the best places are kept. In a city many places look alike to the radio, so a single best one jumps "
        "between streets; 'Track with landmarks' lets map and motion decide between several.\n\n"
        "The table is made of radio maps, where nobody has measured, or of fingerprints: reports with true positions of other walks or "
        "days. More candidates find a place nearer to the truth, and make tracking slower; a sensibility map gives many of them only "
        "where they are needed.\n\n"
        "Cells that the table lacks are left out and counted. A record without any cell of the table has no candidate: it stays in the "
        "output as a row without a point, so that tracking knows of the instant."
    )
    EXAMPLE = (
        "qgis_process run telcoloc:signalcandidates --INPUT=measurements.gpkg --RADIO_MAPS=radio_maps.tif --NUMBER=20 "
        "--CANDIDATES=candidates.gpkg"
    )
    TAGS = ("telecom", "measurement reports", "mr", "localisation", "localization", "dcm", "database correlation", "fingerprinting",
            "candidates", "rss", "rsrp", "landmarks", "tracking", "temporal")  # fmt: skip
    ICON = "candidates.svg"

    def define(self) -> None:
        kinds = QgsProcessing.SourceType
        number = QgsProcessingParameterNumber
        self.add(
            QgsProcessingParameterFeatureSource("INPUT", self.tr("Measurements"), [kinds.TypeVector]),
            self.tr(
                "Measurement reports in the normal form, as 'Import measurements' writes it. True positions are used for figures only."
            ),
        )
        add_table_parameters(self)
        add_matching_parameters(self)
        self.add(
            QgsProcessingParameterRasterLayer("SENSIBILITY", self.tr("Sensibility map"), optional=True),
            self.tr(
                "Output of 'Sensibility map'. When given, the number of candidates grows linearly with the sensibility at a record's best "
                "places, from NUMBER where it is 0 to MAX_NUMBER where it is 1 or unknown."
            ),
        )
        self.add(
            number("MAX_NUMBER", self.tr("Most candidates per instant"), number.Type.Integer, 60, False, 1, 10_000),
            self.tr("With SENSIBILITY: number of candidates where the map is blind."),
        )
        self.add(
            QgsProcessingParameterFeatureSink("CANDIDATES", self.tr("Candidates"), kinds.TypeVectorPoint),
            self.tr(
                "A point per candidate in the CRS of the table: device, trajectory, time (UTC), time_s, instant (counts within the "
                "trajectory), rank (1 is best), error_db (root mean squared difference [dB]), antennas (cells compared), offset_db (of the "
                "device), truth_error_m (distance to the true position, where known) and row (source_row of the record)."
            ),
        )
        self.add(
            QgsProcessingParameterFileDestination(
                "FINGERPRINTS_OUT",
                self.tr("Fingerprints learned"),
                self.tr("Fingerprints (*.safetensors)"),
                optional=True,
                createByDefault=False,
            ),
            self.tr("With TRAINING: the look-up table that was learned, for FINGERPRINTS of other runs."),
        )
        for name, label, text in (
            ("INSTANT_COUNT", "Instants", "Number of records."),
            ("CANDIDATE_COUNT", "Candidates", "Number of candidates."),
            ("WITHOUT_CANDIDATES", "Without candidates", "Number of records without a candidate."),
            ("UNKNOWN_REPORTS", "Unknown reports", "Number of cells named in records that the table does not have."),
            (
                "MEAN_BEST_ERROR",
                "Mean error of the best [m]",
                "Mean distance from the truth to the best candidate [m], where it is known.",
            ),
            (
                "MEAN_NEAREST_ERROR",
                "Mean error of the nearest [m]",
                "Mean distance from the truth to the nearest candidate [m]: what tracking can reach at most.",
            ),
        ):
            self.add_result(QgsProcessingOutputNumber(name, self.tr(label)), self.tr(text))
        self.add_result(
            QgsProcessingOutputString("CRS", self.tr("CRS of the output")), self.tr("The metric CRS of the table.")
        )

    def work(self, run: Run) -> dict[str, Any]:
        from ..models.landmarks.lookup import save_fingerprints
        from ..models.landmarks.signal_candidates import match_signals

        parameters = run.parameters
        if parameters.wants("FINGERPRINTS_OUT") and not parameters.given("TRAINING"):
            raise InputError(
                "FINGERPRINTS_OUT needs TRAINING: nothing else learns. Leave it empty, or give measurements with truth."
            )
        reading = run.progress.phase(self.tr("Reading the look-up table"), 0.0, 0.2)
        table, crs, what = read_table(run, reading)
        whole = table
        table = on_streets(run, table, crs, run.progress.phase(self.tr("Reading streets"), 0.2, 0.25))
        reading = run.progress.phase(self.tr("Reading the measurements"), 0.25, 0.35)
        records = read_measurements(run, parameters.source("INPUT"), progress=reading)
        driven = parameters.given("SENSIBILITY")
        settings = settings_of(run, records, parameters.integer("MAX_NUMBER") if driven else None)
        sensibility = read_sensibility(run, table.grid, crs) if driven else None
        matching = run.progress.phase(self.tr("Comparing with the look-up table"), 0.35, 0.8)
        matched = match_signals(records, table, settings, sensibility, threads=run.threads, progress=matching)
        _say(run, records, table, settings, matched)
        found = matched.candidates
        truth = truth_in(run, records, crs) if records.has_truth.any() else None
        if parameters.wants("FINGERPRINTS_OUT"):
            save_fingerprints(run.outputs.file("FINGERPRINTS_OUT", ".safetensors"), whole, what)
        write_candidates(
            run,
            "CANDIDATES",
            found,
            crs,
            run.progress.phase(self.tr("Writing candidates"), 0.8, 1.0),
            antennas=matched.antennas,
            offset_db=matched.offset_db,
            truth_xy_m=truth,
        )
        best_m, nearest_m = (None, None) if truth is None else _errors(run, matched, truth)
        return {
            "INSTANT_COUNT": len(found),
            "CANDIDATE_COUNT": len(found.xy_m),
            "WITHOUT_CANDIDATES": int((np.diff(found.first) == 0).sum()),
            "UNKNOWN_REPORTS": matched.unknown,
            "MEAN_BEST_ERROR": best_m,
            "MEAN_NEAREST_ERROR": nearest_m,
            "CRS": name_of(crs),
        }


def _say(run: Run, records: Measurements, table: LookupTable, settings: CandidateSettings, matched: Matched) -> None:
    """Log what was found, and warn of what could not be used."""
    found = matched.candidates
    count = np.diff(found.first)
    if matched.unknown:
        strange = sorted(set(records.cells) - set(table.cells))
        text = (
            f"{matched.unknown:,} of {matched.reports:,} reports are of cells that the look-up table does not have, and are left out: "
            f"{first_of(strange, len(strange))}."
        )
        (run.warn if 2 * matched.unknown > matched.reports else run.info)(text)
    lost = np.flatnonzero(count == 0)
    if len(lost):
        reason = "none of its cells is in the look-up table" + (
            ", or only one, which has no difference to another" if settings.offset == "differences" else ""
        )
        rows = (f"source_row {found.row[row]} of {found.devices[found.device[row]]}" for row in lost.tolist())
        run.warn(f"{len(lost):,} of {len(found):,} records have no candidate ({reason}): {first_of(rows, len(lost))}.")
    if settings.offset == "estimate":
        devices, first = np.unique(found.device, return_index=True)
        said = [
            f"{found.devices[device]} {matched.offset_db[row]:+.1f} dB"
            for device, row in zip(devices.tolist(), first.tolist())
        ]
        run.info(f"Offsets of devices: {first_of(said, len(said))}.")
    there = count > 0
    run.info(
        f"{len(found.xy_m):,} candidates of {int(there.sum()):,} records, {count[there].mean():.1f} each, over "
        f"{matched.antennas[there].mean():.1f} cells on average; the median error of the best is "
        f"{np.median(found.error_db[found.first[:-1][there]]):.1f} dB."
    )


def _errors(run: Run, matched: Matched, truth: np.ndarray) -> tuple[float | None, float | None]:
    """Mean distance from the truth to the best and to the nearest candidate [m]."""
    from ..models.landmarks.sensibility import nearest_candidate_m

    found = matched.candidates
    nearest = nearest_candidate_m(found, truth)
    known = np.flatnonzero(np.isfinite(nearest))
    if not len(known):
        return None, None
    best = np.hypot(*(found.xy_m[found.first[known]] - truth[known]).T)
    run.info(
        f"Of {len(known):,} records with a true position the best candidate is {best.mean():.1f} m away on average, the nearest one "
        f"{nearest[known].mean():.1f} m."
    )
    return round(float(best.mean()), 3), round(float(nearest[known].mean()), 3)
