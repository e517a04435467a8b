"""`telcoloc:tracklandmarks`: candidates, a map and recognised landmarks become the path of each device."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from qgis.core import (
    QgsProcessing,
    QgsProcessingOutputNumber,
    QgsProcessingOutputString,
    QgsProcessingParameterBoolean,
    QgsProcessingParameterEnum,
    QgsProcessingParameterFeatureSink,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterField,
    QgsProcessingParameterNumber,
    QgsProcessingParameterRasterLayer,
)

from ..models.errors import InputError
from ..telcoloc_qgis.algorithm import Run, TelcoLocAlgorithm
from ..telcoloc_qgis.candidates import write_candidates
from ..telcoloc_qgis.crs import name_of
from ..telcoloc_qgis.sites import counted
from ..telcoloc_qgis.tracking_inputs import (
    CELL_SIZE_M,
    MOST_CELLS,
    read_crossings,
    read_input,
    read_map,
    read_truth,
    say_lost,
)
from ..telcoloc_qgis.tracking_outputs import Tracked, write_edges, write_lines, write_path

if TYPE_CHECKING:
    from ..models.landmarks.candidates import Candidates
    from ..models.landmarks.track import TrackSettings

MODES = ("hybrid", "nonhybrid", "none")
TRANSPORT = ("walk", "bike", "car", "train")


class TrackLandmarks(TelcoLocAlgorithm):
    """See the module's docstring."""

    NAME = "tracklandmarks"
    TITLE = "Track with landmarks"
    GROUP = "Landmarks"
    SUMMARY = "Candidates of signal strengths, a map and recognised landmarks become paths."
    DESCRIPTION = (
        "Chooses one of the candidate positions of every instant, so that the way between them over the map is short and no step is faster "
        "than the mode of transport allows: the shortest path of a Time-Forwarding Graph (TFG). Its edges lead from candidates to those "
        "of the next instant that can be reached; where none can be, to the next instant where one can. Instants between are filled in "
        "along the way.\n\n"
        "The map is a layer of streets (one-ways are kept), else free space around buildings, else nothing: straight lines.\n\n"
        "MODE hybrid puts recognised landmarks into the graph: a location-oriented one is a mandatory crossing, which also decides what "
        "lies before and behind; a service-oriented one, or a match that is not sure, is one more candidate. nonhybrid computes the path "
        "without landmarks and takes the landmark's position at its instant only. none uses no landmarks.\n\n"
        "INPUT is a layer of candidates, or measurements when RADIO_MAPS are given. Where no candidate can be reached any more, the path "
        "is split into parts, and goes on; the log says where."
    )
    EXAMPLE = (
        "qgis_process run telcoloc:tracklandmarks --INPUT=candidates.gpkg --BUILDINGS=buildings.gpkg --LANDMARKS=landmarks.gpkg "
        "--MATCHES=matches.csv --TRANSPORT=car --PATH=path.gpkg --EDGES=edges.gpkg"
    )
    TAGS = (
        "telecom",
        "landmark",
        "tracking",
        "time-forwarding graph",
        "tfg",
        "shortest path",
        "kalman",
        "prediction",
        "candidates",
        "trajectory",
        "measurement report",
    )
    ICON = "track.svg"

    def define(self) -> None:
        point, line = QgsProcessing.SourceType.TypeVectorPoint, QgsProcessing.SourceType.TypeVectorLine
        table, area = QgsProcessing.SourceType.TypeVector, QgsProcessing.SourceType.TypeVectorPolygon
        for name, label, kind, optional, text in (
            (
                "INPUT",
                "Candidates or measurements",
                table,
                False,
                "CANDIDATES of 'Signal candidates', or points of any program with a field of times, several per time. With "
                "RADIO_MAPS: measurements as 'Import measurements' writes them.",
            ),
            (
                "BUILDINGS",
                "Buildings",
                area,
                True,
                "Polygon layer of footprints, in any CRS: ways lead around them. Not used where STREETS are given.",
            ),
            ("STREETS", "Streets", line, True, "Line layer of streets, in any CRS: ways lead along them."),
            (
                "LANDMARKS",
                "Landmarks",
                point,
                True,
                "Point layer of known places with a name (landmark_id, id, name, filename) and perhaps a kind (location or service).",
            ),
            (
                "MATCHES",
                "Recognised landmarks",
                table,
                True,
                "MATCHES of 'Match landmarks', or a table of any recogniser with a time and a landmark_id, perhaps device and fiducial.",
            ),
            (
                "TRUTH",
                "True positions",
                point,
                True,
                "Point layer with times, and device where there are several: the path's error is told at each instant.",
            ),
        ):
            self.add(
                QgsProcessingParameterFeatureSource(name, self.tr(label), [kind], optional=optional), self.tr(text)
            )
        self.add(
            QgsProcessingParameterRasterLayer("RADIO_MAPS", self.tr("Radio maps"), optional=True),
            self.tr("RADIO_MAPS of 'Path loss maps', when INPUT holds measurements."),
        )
        for name, label, options, text in (
            ("MODE", "Mode", MODES, "hybrid, nonhybrid or none, as described above."),
            (
                "TRANSPORT",
                "Transport",
                TRANSPORT,
                "What sets the top speed: walk (2 m/s), bike (8 m/s), car (20 m/s, in a city) or train (60 m/s).",
            ),
        ):
            default = "car" if name == "TRANSPORT" else options[0]
            self.add(
                QgsProcessingParameterEnum(
                    name, self.tr(label), list(options), defaultValue=default, usesStaticStrings=True
                ),
                self.tr(text),
            )
        self._define_numbers()
        for name, label, kind, optional, text in (
            (
                "PATH",
                "Path",
                point,
                False,
                "A point per instant with device, trajectory, time, part, kind (candidate, landmark, filled, predicted), landmark_id, "
                "error_db of the candidate, and truth_error_m with TRUTH.",
            ),
            (
                "LINES",
                "Path lines",
                line,
                True,
                "The parts of the path as LineStringM, M is the time in seconds since 1970.",
            ),
            (
                "EDGES",
                "Edges of the graph",
                line,
                True,
                "A line per edge with time, time_to, weight_m (length over the map), forwarding (1: it leads over instants) and chosen.",
            ),
            (
                "CANDIDATES",
                "Candidates",
                point,
                True,
                "All candidates, where they lie on the map, with rank, error_db, chosen, and truth_error_m with TRUTH.",
            ),
        ):
            self.add(QgsProcessingParameterFeatureSink(name, self.tr(label), kind, optional=optional), self.tr(text))
        for name, label, text in (
            ("INSTANT_COUNT", "Instants", "Number of instants."),
            ("PART_COUNT", "Parts", "Number of unbroken parts of all paths."),
            ("EDGE_COUNT", "Edges", "Number of edges of the graphs."),
            ("FILLED_COUNT", "Filled in", "Number of instants between candidates that were chosen."),
            ("LANDMARK_COUNT", "Landmarks crossed", "Number of instants at a landmark's position."),
            ("MATCHES_USED", "Matches used", "Number of matches near an instant in time, with a landmark on the map."),
            ("MEAN_ERROR", "Mean error [m]", "Mean distance to the truth [m]; empty where none is known."),
            ("MEDIAN_ERROR", "Median error [m]", "Median distance to the truth [m]; empty where none is known."),
            (
                "BEST_CANDIDATE_ERROR",
                "Mean error of the best candidates [m]",
                "Of the best-fitting candidate of each instant.",
            ),
            ("SECONDS", "Seconds", "Wall time of the run [s]."),
        ):
            self.add_result(QgsProcessingOutputNumber(name, self.tr(label)), self.tr(text))
        self.add_result(
            QgsProcessingOutputString("CRS", self.tr("CRS of the outputs")), self.tr("The metric CRS used.")
        )

    def _define_numbers(self) -> None:
        number = QgsProcessingParameterNumber
        whole, real = number.Type.Integer, number.Type.Double
        for name, label, kind, default, low, high, text, advanced in (
            (
                "TOP_SPEED",
                "Top speed [m/s]",
                real,
                None,
                0.1,
                200.0,
                "Instead of that of TRANSPORT.",
                False,
            ),
            (
                "SLACK",
                "Slack [m]",
                real,
                10.0,
                0.0,
                10_000.0,
                "Added to what can be reached at top speed, for candidates that are not quite where the device was. With records every "
                "half second it matters more than the speed.",
                False,
            ),
            (
                "ERROR_WEIGHT",
                "Weight of candidates' errors [m/dB²]",
                real,
                1.0,
                0.0,
                1000.0,
                "A candidate costs so many metres for each squared decibel of its error, besides the length of the way, so that a longer "
                "way through candidates that fit better wins. 0: the length alone counts, as in the paper.",
                False,
            ),
            (
                "PREDICT",
                "Predict [s]",
                real,
                0.0,
                0.0,
                600.0,
                "How far ahead of the last instant of each trajectory positions are predicted.",
                False,
            ),
            (
                "WINDOW",
                "Window [instants]",
                whole,
                None,
                2,
                1_000_000,
                "A position is chosen when so many instants, it the first, are known, as live tracking must. Empty: the whole trajectory "
                "is known.",
                True,
            ),
            (
                "FORWARD",
                "Longest forwarding edge [instants]",
                whole,
                10,
                1,
                10_000,
                "Most instants that an edge spans where none between can be reached; 1 for none.",
                True,
            ),
            (
                "MATCH_TOLERANCE",
                "Tolerance of matches [s]",
                real,
                2.0,
                0.0,
                3600.0,
                "A photo counts for the nearest instant, up to this far in time.",
                True,
            ),
            (
                "LANDMARK_RANGE",
                "Range of landmarks [m]",
                real,
                25.0,
                0.0,
                1000.0,
                "How far from a landmark's place somebody may be whose photo shows it: so much more can be reached before and behind a "
                "mandatory crossing.",
                True,
            ),
            (
                "INTERVAL",
                "Interval of candidates [s]",
                real,
                0.0,
                0.0,
                3600.0,
                "0 uses the candidates of all instants. Else those every so many seconds, and fills in the instants between: errors of a "
                "look-up table stay over many metres, so half a second later candidates tell hardly more. FORWARD must span it.",
                True,
            ),
            (
                "CELL_SIZE",
                "Side of the cells of free space [m]",
                real,
                None,
                0.5,
                1000.0,
                f"Of the grid on which ways lead around buildings. Empty: {CELL_SIZE_M:g} m, more where the map would have over "
                f"{MOST_CELLS:,} cells.",
                True,
            ),
            (
                "SNAP",
                "Reach of streets [m]",
                real,
                50.0,
                0.1,
                2000.0,
                "A candidate is put on the nearest three streets up to this far away.",
                True,
            ),
            (
                "CANDIDATE_COUNT",
                "Candidates per instant (measurements)",
                whole,
                20,
                1,
                1000,
                "How many places of RADIO_MAPS are kept for each measurement; they are chosen as 'Signal candidates' does by default.",
                True,
            ),
        ):
            self.add(
                number(name, self.tr(label), kind, default, default is None, low, high),
                self.tr(text),
                advanced=advanced,
            )
        self.add(
            QgsProcessingParameterField(
                "ONEWAY_FIELD", self.tr("One-way field"), parentLayerParameterName="STREETS", optional=True
            ),
            self.tr(
                "Field of STREETS that tells one-way streets (yes, no, -1; F, T, B). By default it is recognised by its name (oneway, …)."
            ),
            advanced=True,
        )
        self.add(
            QgsProcessingParameterBoolean("KALMAN", self.tr("Kalman filter"), False),
            self.tr(
                "Whether a constrained Kalman filter smooths each part of the path: no faster than the top speed, and put back on the map."
            ),
        )
        self.add(
            number("SIGMA", self.tr("Error of candidates [m]"), real, 30.0, False, 1.0, 10_000.0),
            self.tr("Standard deviation of chosen candidates along each axis, for the Kalman filter and predictions."),
            advanced=True,
        )
        self.add(
            number("ACCELERATION", self.tr("Acceleration [m/s²]"), real, 1.0, False, 0.001, 100.0),
            self.tr("Change of velocity within a second along each axis, for the Kalman filter and predictions."),
            advanced=True,
        )

    def work(self, run: Run) -> dict[str, Any]:
        from ..models.landmarks.tracking import candidate_places, track

        if run.parameters.given("MATCHES") and not run.parameters.given("LANDMARKS"):
            raise InputError("MATCHES is given without LANDMARKS; give the layer of landmarks, too.")
        given, crs = read_input(run)
        candidates = given.every(run.parameters.number("INTERVAL"))
        landmarks, matches = read_crossings(run, crs, candidates)
        truth = read_truth(run, crs, candidates)
        distance = read_map(run, crs, candidates.xy_m)
        say_lost(run, distance, candidates, landmarks)
        settings = _settings(run)
        found = track(
            candidates, landmarks, matches, distance, settings, run.progress.phase(self.tr("Tracking"), 0.3, 0.7)
        )
        for text in found.messages:
            run.warn(text)
        tracked = Tracked(candidates, found, crs, landmarks, truth)
        values = _figures(run, tracked, given)
        chosen = np.zeros(len(candidates.xy_m), bool)
        chosen[found.candidate[found.candidate >= 0]] = True
        phase = run.progress.phase
        write_path(run, tracked, phase(self.tr("Writing the path"), 0.7, 0.75))
        write_lines(run, tracked, phase(self.tr("Writing lines"), 0.75, 0.77))
        if run.parameters.wants("CANDIDATES"):
            progress = phase(self.tr("Writing candidates"), 0.77, 0.87)
            nodes = replace(candidates, xy_m=candidate_places(candidates, found, distance))
            write_candidates(run, "CANDIDATES", nodes, crs, progress, truth_xy_m=truth, chosen=chosen)
        write_edges(run, tracked, phase(self.tr("Writing edges"), 0.87, 1.0))
        run.group(self.tr("Landmark tracking"), ("PATH", "LINES", "CANDIDATES", "EDGES"))
        return {**values, "SECONDS": round(run.seconds, 2), "CRS": name_of(crs)}


def _settings(run: Run) -> TrackSettings:
    from ..models.landmarks.track import TOP_SPEED_M_S, TrackSettings

    parameters = run.parameters
    speed = parameters.number("TOP_SPEED")
    return TrackSettings(
        mode=parameters.choice("MODE"),
        top_speed_m_s=TOP_SPEED_M_S[parameters.choice("TRANSPORT")] if speed is None else speed,
        slack_m=parameters.number("SLACK"),
        window=parameters.integer("WINDOW"),
        most_forward=parameters.integer("FORWARD"),
        error_weight_m=parameters.number("ERROR_WEIGHT"),
        match_s=parameters.number("MATCH_TOLERANCE"),
        landmark_range_m=parameters.number("LANDMARK_RANGE"),
        kalman=parameters.flag("KALMAN"),
        sigma_m=parameters.number("SIGMA"),
        acceleration_m_s2=parameters.number("ACCELERATION"),
        predict_s=parameters.number("PREDICT"),
    )


def _figures(run: Run, tracked: Tracked, given: Candidates) -> dict[str, Any]:
    """Numbers that the run returns, and says; `given` are all candidates that there are."""
    from ..models.landmarks.track import FILLED, LANDMARK

    candidates, track = tracked.candidates, tracked.track
    n, used = len(candidates), track.used_matches
    starts = candidates.starts
    parts = sum(int(track.part[a:b].max()) + 1 for a, b in zip(starts[:-1].tolist(), starts[1:].tolist()))
    filled, crossed = (int((track.kind == kind).sum()) for kind in (FILLED, LANDMARK))
    run.info(
        f"{counted(n, 'instant')} in {counted(parts, 'part')} of {counted(len(starts) - 1, 'trajectory', 'trajectories')}: {crossed:,} at "
        f"landmarks, {filled:,} filled in; {counted(len(track.edges), 'edge')}, of which {int(track.edges.forwarding.sum()):,} lead over "
        "instants."
    )
    if len(used) and not used.all():
        run.warn(
            f"MATCHES: {int((~used).sum()):,} of {counted(len(used), 'match', 'matches')} belong to no instant of their device within "
            "MATCH_TOLERANCE, or their landmark is not on the map."
        )
    error = tracked.error_m[np.isfinite(tracked.error_m)]
    values: dict[str, Any] = {
        "INSTANT_COUNT": n,
        "PART_COUNT": parts,
        "EDGE_COUNT": len(track.edges),
        "FILLED_COUNT": filled,
        "LANDMARK_COUNT": crossed,
        "MATCHES_USED": int(used.sum()),
        "MEAN_ERROR": None,
        "MEDIAN_ERROR": None,
        "BEST_CANDIDATE_ERROR": None,
    }
    if len(error) and tracked.true_xy_m is not None:
        has = np.diff(given.first) > 0
        best = np.hypot(*(given.xy_m[given.first[:-1][has]] - tracked.true_xy_m[has]).T)
        best = best[np.isfinite(best)]
        values["MEAN_ERROR"], values["MEDIAN_ERROR"] = (round(float(pick(error)), 2) for pick in (np.mean, np.median))
        values["BEST_CANDIDATE_ERROR"] = round(float(best.mean()), 2) if len(best) else None
        run.info(
            f"Error of the path: mean {error.mean():.1f} m, median {np.median(error):.1f} m ({counted(len(error), 'instant')}); of the "
            f"best single candidates: mean {best.mean():.1f} m."
        )
    return values
