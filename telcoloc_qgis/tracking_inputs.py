"""What 'Track with landmarks' reads: candidates, landmarks and their matches, the truth, and the map."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from qgis.core import QgsCoordinateReferenceSystem, QgsRectangle

from ..models.errors import InputError
from ..models.grid import Grid
from .buildings import read_buildings
from .candidates import read_candidates
from .landmarks import read_landmarks, read_matches
from .lookup_tables import OFFSETS, SEPARATION_M, usual_average_s
from .measurements import read_measurements
from .radio_maps import read_radio_maps
from .sites import counted, listed
from .streets import read_streets
from .temporal import utc
from .true_positions import read_true_positions

if TYPE_CHECKING:
    from ..models.landmarks.candidates import Candidates
    from ..models.landmarks.landmark_set import Landmarks, Matches
    from ..models.landmarks.map_distance import MapDistance
    from .algorithm import Run

#: The map goes on so far around the candidates [m].
AROUND_M = 200.0
#: Side of the cells of free space [m] when none is given, and the most cells there may be.
CELL_SIZE_M, MOST_CELLS = 5.0, 16_000_000


def read_input(run: Run) -> tuple[Candidates, QgsCoordinateReferenceSystem]:
    """Candidates as INPUT has them, or of its measurements."""
    from ..models.trajectory import normal_form

    source = run.parameters.source("INPUT")
    progress = run.progress.phase(run.parameters.algorithm.tr("Reading INPUT"), 0.0, 0.1)
    rasters = run.parameters.algorithm.raster_sources("RADIO_MAPS")
    if not rasters:
        if not normal_form.missing(source.fields().names()):
            raise InputError(
                f"INPUT: layer '{source.sourceName()}' holds measurements; give RADIO_MAPS, too, or make candidates of it with 'Signal "
                "candidates'."
            )
        return read_candidates(run, source, "INPUT", progress=progress)
    from ..models.landmarks.lookup import LookupTable
    from ..models.landmarks.signal_candidates import CandidateSettings, signal_candidates

    records = read_measurements(run, source, progress=progress)
    maps = read_radio_maps(
        *rasters[0], run.progress.phase(run.parameters.algorithm.tr("Reading radio maps"), 0.1, 0.15)
    )
    found = signal_candidates(
        records,
        LookupTable.from_radio_maps(maps),
        CandidateSettings(
            number=run.parameters.integer("CANDIDATE_COUNT"),
            offset=OFFSETS[0],
            average_s=usual_average_s(run, records),
            separation_m=SEPARATION_M,
        ),
        threads=run.threads,
        progress=run.progress.phase(run.parameters.algorithm.tr("Finding candidates"), 0.15, 0.25),
    )
    if not len(found.xy_m):
        raise InputError(
            "INPUT: no measurement names a cell of RADIO_MAPS with a signal strength, so there is no candidate."
        )
    return found, QgsCoordinateReferenceSystem.fromWkt(maps.grid.crs_wkt)


def read_crossings(
    run: Run, crs: QgsCoordinateReferenceSystem, candidates: Candidates
) -> tuple[Landmarks | None, Matches | None]:
    """LANDMARKS and MATCHES, whose times must be among those of the candidates."""
    source, table = run.parameters.source("LANDMARKS"), run.parameters.source("MATCHES")
    if source is None:
        return None, None
    landmarks, layer = read_landmarks(run, source, crs)
    if table is None:
        run.info(f"LANDMARKS: '{layer.name}' is not used, because MATCHES is not given.")
        return landmarks, None
    matches = read_matches(run, table, landmarks)
    tolerance = run.parameters.number("MATCH_TOLERANCE")
    _check_times("MATCHES", table.sourceName(), matches.time_s, candidates, tolerance)
    return landmarks, matches


def read_truth(run: Run, crs: QgsCoordinateReferenceSystem, candidates: Candidates) -> np.ndarray | None:
    """True positions of all instants [m], shape (n, 2), NaN where unknown."""
    from ..models.landmarks.true_positions import positions_at
    from ..models.trajectory.joins import common_codes

    source = run.parameters.source("TRUTH")
    if source is None:
        return None
    progress = run.progress.phase(run.parameters.algorithm.tr("Reading the truth"), 0.25, 0.27)
    known = read_true_positions(run, source, crs, "TRUTH", progress)
    _check_times("TRUTH", known.name, known.time_s, candidates, 1.0)
    key, other = common_codes((candidates.devices, candidates.device), (known.devices, known.device))
    if (other < 0).all() or not any(candidates.devices):  # one of both tells no devices
        key, other = np.zeros_like(key), np.zeros_like(other)
    found = positions_at(key, candidates.time_s, other, known.time_s, known.xy_m)
    told = int(np.isfinite(found[:, 0]).sum())
    run.info(f"TRUTH: the true position is known at {told:,} of {counted(len(found), 'instant')}.")
    return found


def _check_times(parameter: str, layer: str, time_s: np.ndarray, candidates: Candidates, tolerance_s: float) -> None:
    """Refuse a layer of other times than those of the candidates."""
    begin, end = (float(pick(candidates.time_s)) for pick in (np.min, np.max))
    first, last = float(time_s.min()), float(time_s.max())
    if last < begin - tolerance_s or first > end + tolerance_s:
        texts = [utc(value) for value in (first, last, begin, end)]
        raise InputError(
            f"{parameter}: the times of '{layer}', {texts[0]} to {texts[1]} (UTC), do not overlap those of INPUT, {texts[2]} to {texts[3]} "
            "(UTC). Check their time zones and clocks."
        )


def read_map(run: Run, crs: QgsCoordinateReferenceSystem, xy_m: np.ndarray) -> MapDistance:
    """What distances are measured over."""
    from ..models.landmarks.free_cells import FreeSpace
    from ..models.landmarks.map_distance import Straight
    from ..models.landmarks.street_distance import StreetDistance

    parameters = run.parameters
    around = QgsRectangle(*xy_m.min(axis=0).tolist(), *xy_m.max(axis=0).tolist()).buffered(AROUND_M)
    progress = run.progress.phase(parameters.algorithm.tr("Reading the map"), 0.27, 0.3)
    if parameters.given("STREETS"):
        if parameters.given("BUILDINGS"):
            run.info("BUILDINGS is not used, because ways lead along STREETS.")
        streets = read_streets(run, "STREETS", crs, around, "ONEWAY_FIELD", progress)
        return StreetDistance(streets.streets, parameters.number("SNAP"))
    buildings = read_buildings(run, crs, around, progress, heights_matter=False)
    if buildings is None:
        run.info("No map is given: ways are straight.")
        return Straight()
    side = parameters.number("CELL_SIZE")
    if side is None:
        side = max(CELL_SIZE_M, math.sqrt(around.width() * around.height() / MOST_CELLS))
    cells = around.width() * around.height() / side**2
    if cells > 2 * MOST_CELLS:
        raise InputError(
            f"CELL_SIZE {side:g} m makes {cells:,.0f} cells of free space, more than {2 * MOST_CELLS:,}. Use larger cells."
        )
    bounds = (around.xMinimum(), around.yMinimum(), around.xMaximum(), around.yMaximum())
    space = FreeSpace.around(buildings, Grid.covering(bounds, side))
    run.info(f"Free space: {space.free.mean():.0%} of {space.grid.describe()}.")
    return space


def say_lost(run: Run, distance: MapDistance, candidates: Candidates, landmarks: Landmarks | None) -> None:
    """Log candidates and landmarks that are nowhere on the map."""
    where = (
        f"more than {run.parameters.number('SNAP'):g} m from any street"
        if run.parameters.given("STREETS")
        else "inside buildings or outside the map"
    )
    total = len(candidates.xy_m)
    lost = total - len(np.unique(distance.spots(candidates.xy_m).owner))
    if lost:
        all_of = "all" if lost == total else f"{lost:,} of"
        run.warn(f"INPUT: {all_of} {total:,} candidates lie {where} and cannot be reached.")
    if landmarks is not None:
        there = np.isin(np.arange(len(landmarks)), distance.spots(landmarks.xy_m).owner)
        if not there.all():
            names = [landmarks.ids[row] for row in np.flatnonzero(~there).tolist()]
            text = counted(len(names), "landmark lies", "landmarks lie")
            around = " near the candidates" if run.parameters.given("STREETS") else ""
            run.warn(f"LANDMARKS: {text} {where}{around} and cannot be crossed: {listed(names)}.")
