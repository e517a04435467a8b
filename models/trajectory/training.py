"""Training a localizer, judging it by records it never saw, and using it: the engine calls of the toolbox."""

from __future__ import annotations

import difflib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ..errors import InputError
from ..progress import Progress, no_progress, span
from .evaluate import Errors, distance_m, errors_of
from .localizer import Calibration, FitSettings, Fixes, Localizer
from .measurements import CellSites, Measurements
from .methods import class_of, parts_of
from .splits import folds, groups, held_out
from .street_lines import StreetLines
from .streets import Streets

#: Radius of the circle that holds half of a round Gaussian, in standard deviations.
_MEDIAN_OF_RAYLEIGH = 1.1774
#: Parts of what is learned from that are held out to calibrate radii, where the method does not hold out some itself.
_CALIBRATION_FOLDS = 3
#: Records localised at once, unless one trajectory has more.
_RECORDS_AT_ONCE = 20_000
#: Streets farther than this beyond the true positions are left out [m].
_STREET_MARGIN_M = 2000.0
#: Records that heard no cell the model knows lie between their neighbours; this is how fast their radius grows with time [m/s].
_LOST_SPEED_M_S = 10.0


@dataclass(frozen=True)
class TrainJob:
    """How to train and judge.

    Parameters
    ----------
    method
        One of `methods.METHODS`.
    split, test_share
        What is judged by: see `splits.SPLITS`; 0: nothing.
    seed
        Of the split and of the method.
    device, threads
        Where to compute.
    refit
        Whether to learn once more from all records after judging.
    options
        Settings of the method by name.
    """

    method: str = "auto"
    split: str = "trajectory"
    test_share: float = 0.2
    seed: int = 0
    device: str = "cpu"
    threads: int = 1
    refit: bool = True
    options: Mapping[str, Any] | None = None

    def settings(self) -> FitSettings:
        """What the method needs to know."""
        return FitSettings(self.seed, self.device, self.threads, self.split, self.options)


@dataclass(frozen=True)
class Located:
    """Where records are.

    Parameters
    ----------
    lon, lat
        Position [°], shape (n,); NaN where neither the record nor its neighbours heard a cell the model knows.
    radius_50_m, radius_90_m
        Radii [m] of the circles that hold 50 % and 90 % of the truths, shape (n,).
    n_known
        Number of cells of each record that the model knows, shape (n,).
    """

    lon: np.ndarray
    lat: np.ndarray
    radius_50_m: np.ndarray
    radius_90_m: np.ndarray
    n_known: np.ndarray


@dataclass(frozen=True)
class TrainedLocalizer:
    """A localizer with its variant and its calibration: all that a model file holds.

    Parameters
    ----------
    localizer
        The method.
    variant
        "", "f" (particle-filtered) or "m" (map-matched).
    plain, calibration
        Of the method's spreads, and of the variant's.
    streets
        What is matched to, for "m".
    card
        What it was learned from and how far off it was: JSON values.
    """

    localizer: Localizer
    variant: str
    plain: Calibration
    calibration: Calibration
    streets: StreetLines | None
    card: Mapping[str, Any]

    @property
    def method(self) -> str:
        """Name with suffix."""
        return f"{self.localizer.method}_{self.variant}".rstrip("_")

    @cached_property
    def network(self) -> Streets | None:
        """The streets that variant "m" matches to."""
        return self.streets.in_frame(self.localizer.frame_) if self.streets is not None else None

    def localize(
        self,
        data: Measurements,
        progress: Progress = no_progress,
        device: str = "cpu",
        threads: int = 1,
        begun: Callable[[int, int], None] | None = None,
    ) -> Located:
        """Return where the records are; true positions in `data` are not looked at.

        Whole trajectories are taken a batch at a time, so that memory stays bounded.

        Parameters
        ----------
        begun
            Told the first and last trajectory (their order in `data`, from 0) of each batch before it is worked on.

        Raises
        ------
        InputError
            When the model knows none of the cells.
        """
        coded = data.recoded(self.localizer.cells_)
        n_known = coded.n_heard
        if len(data) and not n_known.any():
            frame = self.localizer.frame_
            example = data.cells[0] if data.cells else "none"
            raise InputError(
                f"The model knows none of the {len(data.cells):,} cells of the table (e.g. '{example}'; the model has "
                f"'{self.localizer.cells_[0]}'). It was trained around {frame.lat:.3f}° N {frame.lon:.3f}° E: use a model of the "
                "same area and network, or train one."
            )
        lon, lat, radius_50_m, radius_90_m = (np.full(len(data), np.nan) for _ in range(4))
        starts = data.starts
        for first, stop in _batches(starts):
            rows = slice(int(starts[first]), int(starts[stop]))
            if begun is not None:
                begun(first, stop - 1)
            part = span(progress, rows.start / len(data), rows.stop / len(data))
            part(0.0)
            if not n_known[rows].any():
                continue
            fixes = self._fixes(coded.take(rows), n_known[rows], part, device, threads)
            radius_50_m[rows], radius_90_m[rows] = self.calibration.radii_m(fixes.spread_m)
            lon[rows], lat[rows] = self.localizer.frame_.to_lonlat(fixes.x_m, fixes.y_m)
        progress(1.0)
        return Located(lon, lat, radius_50_m, radius_90_m, n_known)

    def _fixes(self, coded: Measurements, n_known: np.ndarray, progress: Progress, device: str, threads: int) -> Fixes:
        share = 0.9 if self.variant else 1.0
        fixes = self.localizer.predict(coded, span(progress, 0.0, share), device, threads)
        fixes = _bridged(fixes, coded, n_known)
        if self.variant:
            smoothing = span(progress, share, 1.0)
            fixes = variant_of(self.variant, fixes, coded, self.plain, self.network, smoothing, threads)
        return fixes


@dataclass(frozen=True)
class Trained:
    """What training gives.

    Parameters
    ----------
    model
        The localizer.
    test_rows
        Rows of the data that were held out, shape (n_test,).
    located
        Where the model that had not seen them put the held-out rows.
    errors
        How far off that was; None without a test.
    seconds
        Wall time by stage [s].
    """

    model: TrainedLocalizer
    test_rows: np.ndarray
    located: Located | None
    errors: Errors | None
    seconds: Mapping[str, float]


def train_localizer(
    data: Measurements,
    sites: CellSites,
    job: TrainJob,
    streets: StreetLines | None = None,
    progress: Progress = no_progress,
) -> Trained:
    """Learn from the records with truth, hold a part out, and say how far off the fixes of that part are.

    The held-out part is taken away first. From the rest the method learns, and radii are calibrated on records it has not learned
    from. With `job.refit` it then learns once more from all records; the errors are those of the model before that.

    Parameters
    ----------
    streets
        What variant "m" matches to; those far from all true positions are left out.

    Raises
    ------
    InputError
        When too little has a truth, all of it is of one group, or variant "m" has no streets.
    """
    name, variant = parts_of(job.method)
    _check_options(job)
    if variant == "m" and streets is None:
        raise InputError(
            f"Method '{job.method}' matches to streets, but there is no street layer. Choose STREETS, or '{name}'."
        )
    if not data.has_truth.any():
        raise InputError(
            f"None of the {len(data):,} records has a true position, so there is nothing to learn from. Import the measurements with "
            "their true longitude and latitude."
        )
    if streets is not None:
        known = data.has_truth
        streets = streets.near(data.lon[known], data.lat[known], _STREET_MARGIN_M) if variant == "m" else None
    test = np.zeros(len(data), dtype=bool)
    if job.test_share > 0:
        test = held_out(groups(data, job.split), job.test_share, np.random.default_rng(job.seed))
    judged = bool(test.any())
    again = judged and job.refit
    stages: dict[str, float] = {}
    with _timed(stages, "learning"):
        model = learn(
            what_is_left(data, test, job.split), sites, job, streets, span(progress, 0.0, 0.55 if again else 0.95)
        )
    located, errors = None, None
    if judged:
        with _timed(stages, "judging"):
            part = span(progress, 0.55, 0.6) if again else span(progress, 0.95, 1.0)
            located, errors = judge(model, data, test, job.split, part, job.device, job.threads)
    if again:
        with _timed(stages, "learning again"):
            localizer = class_of(name)().fit(data, sites, job.settings(), span(progress, 0.6, 1.0))
            model = replace(model, localizer=localizer)
    card = {
        "method": job.method,
        "records": int(data.has_truth.sum()),
        "trajectories": len(np.unique(data.trajectory[data.has_truth])),
        "split": job.split,
        "test_share": job.test_share,
        "seed": job.seed,
        "learned_from_all": again or not judged,
        "errors": asdict(errors) if errors else None,
        "seconds": {stage: round(seconds, 1) for stage, seconds in stages.items()},
    }
    progress(1.0)
    return Trained(replace(model, card=card), np.flatnonzero(test), located, errors, stages)


def what_is_left(data: Measurements, test: np.ndarray, split: str) -> Measurements:
    """Return what may be learned from when `test`, a mask, is held out.

    Whole trajectories go; with split "sample" the records stay, without their truth, as what was heard before and after the others.
    """
    return data.without_truth(test) if split == "sample" else data.take(~_of_trajectories_with(data, test))


def learn(
    data: Measurements,
    sites: CellSites,
    job: TrainJob,
    streets: StreetLines | None = None,
    progress: Progress = no_progress,
) -> TrainedLocalizer:
    """Fit the method, and calibrate its radii on records it has not learned from; nothing is held out for a test.

    Raises
    ------
    InputError
        When too few records have a truth.
    """
    name, variant = parts_of(job.method)
    localizer = class_of(name)().fit(data, sites, job.settings(), span(progress, 0.0, 0.6))
    plain, calibration = _calibrate(localizer, data, sites, job, streets, span(progress, 0.6, 1.0))
    return TrainedLocalizer(localizer, variant, plain, calibration, streets, {})


def judge(
    model: TrainedLocalizer,
    data: Measurements,
    test: np.ndarray,
    split: str,
    progress: Progress = no_progress,
    device: str = "cpu",
    threads: int = 1,
) -> tuple[Located, Errors]:
    """Say where `model` puts the records `test` (a mask) and how far off that is; it is given their whole trajectories.

    Raises
    ------
    InputError
        When none can be localised.
    """
    asked = np.ones(len(data), dtype=bool) if split == "sample" else _of_trajectories_with(data, test)
    everything = model.localize(data.take(asked), progress, device, threads)
    rows = np.flatnonzero(test[asked])
    located = Located(*(getattr(everything, column)[rows] for column in Located.__dataclass_fields__))
    error_m = distance_m(located.lon, located.lat, data.lon[test], data.lat[test])
    fixed = np.isfinite(error_m)
    return located, errors_of(error_m[fixed], located.radius_50_m[fixed], located.radius_90_m[fixed])


def variant_of(
    variant: str,
    fixes: Fixes,
    data: Measurements,
    plain: Calibration,
    streets: Streets | None,
    progress: Progress = no_progress,
    threads: int = 1,
) -> Fixes:
    """Particle-filter ("f") or map-match ("m") fixes of whole trajectories; fixes that are NaN stay so."""
    known = np.isfinite(fixes.x_m)
    part = data.take(known)
    sigma_m = plain.radii_m(fixes.spread_m[known])[0] / _MEDIAN_OF_RAYLEIGH
    x_m, y_m, spread_m = (np.full(len(data), np.nan) for _ in range(3))
    if variant == "f":
        from .filters import particle_filter

        found = particle_filter(
            part.starts,
            part.time_s,
            fixes.x_m[known],
            fixes.y_m[known],
            sigma_m,
            seed=0,
            threads=threads,
            progress=progress,
        )
    else:
        from .map_matching import snap_sequences

        if streets is None:
            raise InputError("This model matches to streets, but holds none. Train it again with STREETS.")
        snapped = snap_sequences(
            part.trajectory,
            part.time_s,
            fixes.x_m[known],
            fixes.y_m[known],
            streets,
            sigma_m,
            threads=threads,
            progress=progress,
        )
        found = (*snapped, fixes.spread_m[known])
    x_m[known], y_m[known], spread_m[known] = found
    return Fixes(x_m, y_m, spread_m)


def _batches(starts: np.ndarray) -> Iterator[tuple[int, int]]:
    """First and last + 1 of the trajectories localised at once: a fiftieth of the records, or so many as keep memory bounded."""
    most = min(max(int(starts[-1]) // 50, _RECORDS_AT_ONCE // 100), _RECORDS_AT_ONCE)
    first = 0
    while first < len(starts) - 1:
        stop = max(int(np.searchsorted(starts, starts[first] + most, side="right")) - 1, first + 1)
        yield first, stop
        first = stop


def _check_options(job: TrainJob) -> None:
    """Refuse options that the method does not have, and values that it could not compute with.

    Raises
    ------
    InputError
        With the options it has, or what the value must be.
    """
    name = parts_of(job.method)[0]
    method = class_of(name)
    known = method.OPTIONS
    for option in job.options or {}:
        if known is not None and option not in known:
            near = difflib.get_close_matches(option, known, 1)
            there = ", ".join(known) or "none"
            hint = f"Did you mean '{near[0]}'?" if near else f"Its options: {there}."
            raise InputError(f"Method '{name}' has no option '{option}'. {hint}")
    method.check(job.settings())


@contextmanager
def _timed(stages: dict[str, float], name: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    stages[name] = time.monotonic() - began


def _of_trajectories_with(data: Measurements, test: np.ndarray) -> np.ndarray:
    """Records, with and without truth, of the trajectories that a held-out record belongs to, shape (n,)."""
    return np.isin(data.trajectory, np.unique(data.trajectory[test]))


def _calibrate(
    localizer: Localizer,
    training: Measurements,
    sites: CellSites,
    job: TrainJob,
    streets: StreetLines | None,
    progress: Progress,
) -> tuple[Calibration, Calibration]:
    """Calibrate the method, and its variant, on records that were not learned from."""
    coded = training.recoded(localizer.cells_)
    fixes = localizer.out_of_fold_ or _held_out_fixes(localizer, training, sites, job, span(progress, 0.0, 0.95))
    true_x_m, true_y_m = localizer.frame_.to_xy(training.lon, training.lat)

    def calibration_of(found: Fixes) -> Calibration:
        error_m = np.hypot(found.x_m - true_x_m, found.y_m - true_y_m)
        usable = np.isfinite(error_m) & np.isfinite(found.spread_m) & (coded.n_heard > 0)
        return Calibration.of(error_m[usable], found.spread_m[usable])

    plain = calibration_of(fixes)
    variant = parts_of(job.method)[1]
    if not variant:
        return plain, plain
    network = streets.in_frame(localizer.frame_) if streets else None
    found = variant_of(variant, fixes, coded, plain, network, span(progress, 0.95, 1.0), job.threads)
    return plain, calibration_of(found)


def _held_out_fixes(
    localizer: Localizer, training: Measurements, sites: CellSites, job: TrainJob, progress: Progress
) -> Fixes:
    """Fixes, in the frame of `localizer`, of each part of `training` by another one that learned from the rest; NaN where there are none.

    With whole trajectories or days apart every part is held out in turn: walks differ, and a single part would tell of a few only.
    """
    columns = np.full((3, len(training)), np.nan)
    parts = _calibration_parts(training, job)
    for done, apart in enumerate(parts):
        fitting = span(progress, done / len(parts), (done + 0.9) / len(parts))
        rest = what_is_left(training, apart, job.split)
        if not rest.has_truth.any():  # a single trajectory: its last part tells more than nothing
            rest = training.take(~apart)
        other = class_of(localizer.method)().fit(rest, sites, job.settings(), fitting)
        asked = np.ones(len(training), dtype=bool) if job.split == "sample" else apart
        part = training.take(asked).recoded(other.cells_)
        locating = span(progress, (done + 0.9) / len(parts), (done + 1) / len(parts))
        found = other.predict(part, locating, job.device, job.threads)
        lon, lat = other.frame_.to_lonlat(found.x_m, found.y_m)
        fixes = np.array([*localizer.frame_.to_xy(lon, lat), found.spread_m])
        columns[:, apart] = fixes[:, apart[asked]]
    return Fixes(*columns)


def _calibration_parts(training: Measurements, job: TrainJob) -> list[np.ndarray]:
    """Masks of the records that are held out together."""
    rng = np.random.default_rng([job.seed, 1])
    try:
        code = groups(training, job.split)
    except InputError:  # a single trajectory or day is left to learn from
        known = np.flatnonzero(training.has_truth)
        apart = np.zeros(len(training), dtype=bool)
        apart[known[int((1 - 1 / _CALIBRATION_FOLDS) * len(known)) :]] = True
        return [apart]
    if job.split == "sample":
        return [held_out(code, 1 / _CALIBRATION_FOLDS, rng)]
    return folds(code, min(_CALIBRATION_FOLDS, int(code.max()) + 1), rng)


def _bridged(fixes: Fixes, data: Measurements, n_known: np.ndarray) -> Fixes:
    """Put records that heard no known cell between their neighbours in time, less sure the longer the way; NaN without neighbours."""
    lost = n_known == 0
    if not lost.any():
        return fixes
    x_m, y_m, spread_m = (np.array(values, dtype=float) for values in (fixes.x_m, fixes.y_m, fixes.spread_m))
    for values in (x_m, y_m, spread_m):
        values[lost] = np.nan
    for begin, end in zip(data.starts[:-1], data.starts[1:]):
        inside = np.arange(begin, end)
        known, unknown = inside[~lost[begin:end]], inside[lost[begin:end]]
        if not len(known) or not len(unknown):
            continue
        when = data.time_s[unknown]
        for values in (x_m, y_m, spread_m):
            values[unknown] = np.interp(when, data.time_s[known], values[known])
        nearest = np.clip(np.searchsorted(data.time_s[known], when), 1, max(1, len(known) - 1))
        before, after = known[nearest - 1], known[np.minimum(nearest, len(known) - 1)]
        away_s = np.minimum(np.abs(when - data.time_s[before]), np.abs(when - data.time_s[after]))
        spread_m[unknown] += _LOST_SPEED_M_S * away_s
    return Fixes(x_m, y_m, spread_m)
