"""`telcoloc:matchlandmarks`: photos recognise landmarks, near where the signal says they were taken."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

import numpy as np
from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsExifTools,
    QgsFeature,
    QgsFeatureRequest,
    QgsGeometry,
    QgsPointXY,
    QgsProcessing,
    QgsProcessingFeatureSource,
    QgsProcessingOutputNumber,
    QgsProcessingParameterFeatureSink,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterNumber,
    QgsWkbTypes,
)
from qgis.PyQt.QtCore import QMetaType

from ..models.errors import InputError
from ..models.landmarks.landmark_set import LOCATION, SERVICE
from ..telcoloc_qgis import tracking_styles
from ..telcoloc_qgis.algorithm import Run, TelcoLocAlgorithm
from ..telcoloc_qgis.candidates import read_candidates
from ..telcoloc_qgis.columns import need_rows, recognised
from ..telcoloc_qgis.crs import metric_crs
from ..telcoloc_qgis.landmarks import (
    DEVICE_NAMES,
    PHOTO_NAMES,
    TIME_NAMES,
    LandmarkLayer,
    layer_folder,
    photo_path,
    read_landmarks,
)
from ..telcoloc_qgis.outputs import fields_of
from ..telcoloc_qgis.photos import Described, describe_photos, read_descriptions, write_descriptions
from ..telcoloc_qgis.sites import id_text, listed
from ..telcoloc_qgis.temporal import date_time, seconds_of, utc

if TYPE_CHECKING:
    from ..models.landmarks.landmark_set import Landmarks
    from ..models.landmarks.recognition import Album, Recognised

#: A match is shown for so long when it plays [s].
SHOWN_S = 10.0


@dataclass(frozen=True)
class Queries:
    """Photos to recognise: shape (n,) each; a device is "" and a time NaN where the layer does not tell."""

    photos: tuple[str, ...]
    devices: tuple[str, ...]
    time_s: np.ndarray
    rows: np.ndarray


class MatchLandmarks(TelcoLocAlgorithm):
    """See the module's docstring."""

    NAME = "matchlandmarks"
    TITLE = "Match landmarks"
    GROUP = "Landmarks"
    SUMMARY = "Photos recognise landmarks, near where the signal says they were taken."
    DESCRIPTION = (
        "Compares photos that devices took with the photos of landmarks, and writes which landmark each shows, and how surely. Both may be "
        "what 'Import geotagged photos' of QGIS writes, as it is.\n\n"
        "Photos are compared by four descriptors of MPEG-7 (ISO/IEC 15938-3), Scalable Color, Color Layout, Dominant Color and Edge "
        "Histogram, and by Consistent Line Clusters (Li and Shapiro 2002). The K nearest landmarks by each are merged: what most of the "
        "lists hold comes first. With CANDIDATES only landmarks within RADIUS of one of the instant's candidates are searched, and of "
        "these only such as a path can come by; that saves time and errors.\n\n"
        "A match is fiducial, so that tracking relies on it, when its distance is below that of every other landmark by MARGIN; weaker "
        "ones are one more candidate, and photos that resemble none are left out. Photos need not travel: DESCRIBED writes their "
        "descriptions as a table, which DESCRIPTORS reads in their stead."
    )
    EXAMPLE = (
        "qgis_process run telcoloc:matchlandmarks --LANDMARKS=landmarks.gpkg --QUERIES=photos.gpkg --CANDIDATES=candidates.gpkg "
        "--MATCHES=matches.gpkg"
    )
    TAGS = ("telecom", "landmark", "photo", "image", "recognition", "mpeg-7", "exif", "geotagged", "camera", "tracking")
    ICON = "landmarks.svg"

    def define(self) -> None:
        number = QgsProcessingParameterNumber
        kind = QgsProcessing.SourceType
        self.add(
            QgsProcessingParameterFeatureSource("LANDMARKS", self.tr("Landmarks"), [kind.TypeVectorPoint]),
            self.tr(
                "Points where somebody stands who sees a landmark as its photo shows it, with a field photo (a path, also relative to the "
                "layer's file). Names come from a field landmark_id, id, name or filename; rows of one name are several photos of one "
                "landmark. A field kind tells location (the default: may become a fiducial point) from service."
            ),
        )
        self.add(
            QgsProcessingParameterFeatureSource("QUERIES", self.tr("Photos to recognise"), [kind.TypeVector]),
            self.tr(
                "Layer or table of photos: a field photo, a time (date and time, ISO 8601 text or seconds since 1970; in UTC unless it "
                "names a time zone; without a field of times the files tell theirs in their EXIF) and, where there are several devices, a "
                "field device. Both tables of 'Import geotagged photos' fit."
            ),
        )
        self.add(
            QgsProcessingParameterFeatureSource(
                "CANDIDATES", self.tr("Candidates"), [kind.TypeVectorPoint], optional=True
            ),
            self.tr(
                "Candidates of 'Signal candidates' for the same devices and times. Without them every landmark is searched for every photo."
            ),
        )
        self.add(
            number("RADIUS", self.tr("Radius [m]"), number.Type.Double, 50.0, False, 1.0, 10_000.0),
            self.tr(
                "Landmarks this near to a candidate are searched [m]: the average error of candidates, r of the paper."
            ),
        )
        self.add(
            number("MARGIN", self.tr("Margin of fiducial matches"), number.Type.Double, 0.2, False, 0.0, 0.99),
            self.tr(
                "Share by which a match must be nearer than any other landmark to be fiducial. More is surer, and leaves fewer."
            ),
        )
        self.add(
            number("K", self.tr("Nearest landmarks"), number.Type.Integer, 3, False, 1, 100),
            self.tr("Length of each descriptor's list of nearest landmarks, k of the paper."),
            advanced=True,
        )
        self.add(
            number("TOP_SPEED", self.tr("Top speed [m/s]"), number.Type.Double, 40.0, False, 0.1, 400.0),
            self.tr(
                "Landmarks that no path can come by at this speed, seen from the candidates before and after, are not searched [m/s]. The "
                "candidates themselves may be off by RADIUS."
            ),
            advanced=True,
        )
        self.add(
            number("MAX_DELAY", self.tr("Longest delay [s]"), number.Type.Double, 10.0, False, 0.0, 86_400.0),
            self.tr(
                "A photo belongs to the candidates of the nearest instant of its device, at most this long before or after [s]."
            ),
            advanced=True,
        )
        self.add(
            number("TIME_SHIFT", self.tr("Time shift [s]"), number.Type.Double, 0.0, False, -1e9, 1e9),
            self.tr(
                "Added to the times of photos [s]: cameras write local time, without its zone, so for photos taken at UTC+1 it is -3600."
            ),
            advanced=True,
        )
        self.add(
            QgsProcessingParameterFeatureSource(
                "DESCRIPTORS", self.tr("Known descriptions"), [kind.TypeVector], optional=True
            ),
            self.tr(
                "Table that DESCRIBED wrote: photos that it names (by path or file name) are not opened and need not be there."
            ),
            advanced=True,
        )
        self.add(
            QgsProcessingParameterFeatureSink("MATCHES", self.tr("Matches"), kind.TypeVectorPoint),
            self.tr(
                "The photos that show a landmark, as points of the landmarks: device, time, time_s, photo, landmark_id, kind, votes (how "
                "many descriptors have it among their nearest), distance (1 is typical of different landmarks), margin, and fiducial (1 or "
                "0). 'Track with landmarks' reads it."
            ),
        )
        self.add(
            QgsProcessingParameterFeatureSink("DESCRIBED", self.tr("Descriptions"), kind.TypeVector, optional=True),
            self.tr("Descriptions of all photos as a table: photo, descriptor, version, and values as a JSON array."),
        )
        for name, label, text in (
            ("PHOTOS", "Photos", "Number of photos to recognise that have a time."),
            ("MATCHED", "Photos matched", "Number of photos that show a landmark."),
            (
                "FIDUCIAL",
                "Fiducial matches",
                "Number of matches that passed the margin, of location-oriented landmarks.",
            ),
            ("UNREADABLE", "Photos not readable", "Number of photos, also of landmarks, that could not be read."),
            ("SAVED", "Share saved", "Share of the landmarks that the candidates saved searching, from 0 to 1."),
            ("SECONDS", "Seconds", "Wall time of the run [s]."),
        ):
            self.add_result(QgsProcessingOutputNumber(name, self.tr(label)), self.tr(text))

    def work(self, run: Run) -> dict[str, Any]:
        from ..models.landmarks.recognition import recognise

        parameters = run.parameters
        source = parameters.source("LANDMARKS")
        need_rows("LANDMARKS", source)
        crs, _ = metric_crs(source.sourceCrs(), source.sourceExtent(), run.context.transformContext())
        landmarks, layer = read_landmarks(run, source, crs)
        queries = _read_queries(run)
        table = parameters.source("DESCRIPTORS")
        known = read_descriptions(run, table, "DESCRIPTORS") if table is not None else {}
        wanted, saved = _filter(run, landmarks, queries, crs)
        if not layer.photos:
            raise InputError(
                f"LANDMARKS: no row of layer '{layer.name}' names a photo, in a field such as {PHOTO_NAMES[0]}."
            )
        theirs = describe_photos(
            run, layer.photos, known, run.progress.phase(self.tr("Photos of landmarks"), 0.05, 0.35)
        )
        _say_unreadable(run, "LANDMARKS", layer.photos, theirs)
        ours = describe_photos(
            run, queries.photos, known, run.progress.phase(self.tr("Photos to recognise"), 0.35, 0.85)
        )
        _say_unreadable(run, "QUERIES", queries.photos, ours)
        readable = [row for row, photo in enumerate(queries.photos) if photo in ours.vectors]
        album = _album(run, layer, theirs, [ours.vectors[queries.photos[row]] for row in readable])
        found = recognise(
            [ours.vectors[queries.photos[row]] for row in readable],
            album,
            wanted[readable],
            int(parameters.integer("K") or 1),
            float(parameters.number("MARGIN") or 0.0),
            run.progress.phase(self.tr("Comparing"), 0.85, 0.95),
        )
        fiducial = found.sure & landmarks.fiducial[found.landmark]
        _report(run, len(readable), found, fiducial, saved)
        _write(run, queries, np.array(readable, dtype=int), landmarks, crs, found, fiducial)
        if parameters.wants("DESCRIBED"):
            write_descriptions(run, "DESCRIBED", {**theirs.vectors, **ours.vectors}, run.progress)
        return {
            "PHOTOS": len(queries.photos),
            "MATCHED": int((found.landmark >= 0).sum()),
            "FIDUCIAL": int(fiducial.sum()),
            "UNREADABLE": len({*theirs.unreadable, *ours.unreadable}),
            "SAVED": round(saved, 4),
            "SECONDS": round(run.seconds, 2),
        }


def _read_queries(run: Run) -> Queries:
    """Photos with their devices and times, in the order of the layer."""
    source: QgsProcessingFeatureSource = run.parameters.source("QUERIES")
    layer = source.sourceName()
    need_rows("QUERIES", source)
    photo, time = recognised(source, PHOTO_NAMES), recognised(source, TIME_NAMES)
    fields = ", ".join(source.fields().names()) or "none"
    if photo is None:
        raise InputError(
            f"QUERIES: layer '{layer}' has no field of photos (such as {', '.join(PHOTO_NAMES[:2])}); its fields: {fields}."
        )
    device = recognised(source, DEVICE_NAMES)
    run.info(
        f"Fields of '{layer}': photo {photo}, time {time or 'none (EXIF of the files)'}, device {device or 'none'}."
    )
    request = QgsFeatureRequest().setFlags(QgsFeatureRequest.Flag.NoGeometry)
    features = sorted(source.getFeatures(request), key=lambda feature: feature.id())
    named = [feature for feature in features if id_text(feature[photo])]
    folder = layer_folder(run, "QUERIES")
    photos = [photo_path(id_text(feature[photo]), folder) for feature in named]
    time_s = seconds_of([feature[time] for feature in named] if time else [_exif_time(path) for path in photos])
    time_s += float(run.parameters.number("TIME_SHIFT") or 0.0)
    there = np.flatnonzero(np.isfinite(time_s))
    lost = [f"feature {feature.id()}: no photo" for feature in features if not id_text(feature[photo])]
    lost += [f"feature {named[row].id()}: no time" for row in np.flatnonzero(~np.isfinite(time_s))]
    if not len(there) and not time:
        raise InputError(
            f"QUERIES: layer '{layer}' has no field of times (such as {', '.join(TIME_NAMES[:2])}), and no photo tells in its EXIF when it "
            f"was taken; its fields: {fields}."
        )
    if not len(there):
        raise InputError(
            f"QUERIES: none of the {len(features):,} rows of layer '{layer}' can be used ({listed(lost)})."
        )
    if lost:
        run.warn(f"QUERIES: {len(lost):,} of {len(features):,} rows cannot be used: {listed(lost)}.")
    return Queries(
        tuple(photos[row] for row in there),
        tuple(id_text(named[row][device]) if device else "" for row in there),
        time_s[there],
        np.array([named[row].id() for row in there], dtype=np.int64),
    )


def _exif_time(path: str) -> object:
    """When a photo was taken, as its camera wrote it: a QDateTime without a time zone, or a null value."""
    return QgsExifTools.readTag(path, "Exif.Photo.DateTimeOriginal") if Path(path).is_file() else None


def _filter(
    run: Run, landmarks: Landmarks, queries: Queries, crs: QgsCoordinateReferenceSystem
) -> tuple[np.ndarray, float]:
    """Landmarks to search for each photo, shape (n, n_landmarks), and the share of them that the candidates save."""
    from ..models.landmarks.recognition import filtered

    n = len(queries.photos)
    source = run.parameters.source("CANDIDATES")
    if source is None:
        run.info(f"Without CANDIDATES all {len(landmarks):,} landmarks are searched for each photo.")
        return np.ones((n, len(landmarks)), dtype=bool), 0.0
    candidates, _ = read_candidates(run, source, "CANDIDATES", crs, run.progress.phase("", 0.0, 0.05))
    delay_s = float(run.parameters.number("MAX_DELAY") or 0.0)
    first, last = float(candidates.time_s.min()) - delay_s, float(candidates.time_s.max()) + delay_s
    if not ((queries.time_s >= first) & (queries.time_s <= last)).any():
        raise InputError(
            f"The photos were taken from {utc(queries.time_s.min())} UTC to {utc(queries.time_s.max())} UTC, but the candidates are of "
            f"{utc(candidates.time_s.min())} UTC to {utc(candidates.time_s.max())} UTC: these times do not overlap. Check the clocks and "
            "time zones of both, or give TIME_SHIFT."
        )
    code = {name: number for number, name in enumerate(candidates.devices)}
    strangers = sorted({name for name in queries.devices if name and name not in code})
    if strangers and not any(name in code for name in queries.devices):
        run.warn(
            f"QUERIES: no candidates are of {listed(strangers)}; their photos are searched near those of all devices."
        )
        code.update(dict.fromkeys(strangers, -1))
    elif strangers:
        run.warn(f"QUERIES: no candidates are of {listed(strangers)}; their photos cannot be recognised.")
    device = np.array([code.get(name, -2) if name else -1 for name in queries.devices])
    own = device >= -1
    wanted, timed = np.zeros((n, len(landmarks)), dtype=bool), np.zeros(n, dtype=bool)
    wanted[own], timed[own] = filtered(
        landmarks.xy_m,
        candidates,
        device[own],
        queries.time_s[own],
        float(run.parameters.number("RADIUS") or 0.0),
        delay_s,
        run.parameters.number("TOP_SPEED"),
    )
    if not timed.all():
        names = [PurePath(queries.photos[row]).name for row in np.flatnonzero(~timed)]
        run.warn(
            f"QUERIES: {len(names):,} photos are more than {delay_s:g} s from any candidates of their device and cannot be recognised: "
            f"{listed(names)}."
        )
    saved = 1.0 - float(wanted[timed].mean()) if timed.any() else 0.0
    return wanted, saved


def _say_unreadable(run: Run, parameter: str, photos: Sequence[str], described: Described) -> None:
    """Name the photos that cannot be read.

    Raises
    ------
    InputError
        When none can.
    """
    if described.from_table:
        run.info(f"{parameter}: {described.from_table:,} photos are described in DESCRIPTORS.")
    if not described.unreadable:
        return
    reasons = listed(list(described.unreadable))
    if not described.vectors:
        raise InputError(f"{parameter}: none of the {len(set(photos)):,} photos can be read ({reasons}).")
    run.warn(
        f"{parameter}: {len(described.unreadable):,} of {len(set(photos)):,} photos cannot be read and are left out: {reasons}."
    )


def _album(run: Run, layer: LandmarkLayer, described: Described, queries: list[dict[str, np.ndarray]]) -> Album:
    """The described photos of landmarks, by the descriptors that all photos have."""
    from ..models.landmarks.descriptors import DESCRIPTORS
    from ..models.landmarks.recognition import Album

    there = [row for row, photo in enumerate(layer.photos) if photo in described.vectors]
    theirs = [described.vectors[layer.photos[row]] for row in there]
    names = [d.name for d in DESCRIPTORS if all(d.name in each for each in (*theirs, *queries))]
    if len(names) < len(DESCRIPTORS):
        run.warn(f"Not all photos have all descriptions; compared by: {', '.join(names) or 'none'}.")
    return Album(layer.landmark[there], {name: np.stack([each[name] for each in theirs]) for name in names})


def _report(run: Run, photos: int, found: Recognised, fiducial: np.ndarray, saved: float) -> None:
    matched = int((found.landmark >= 0).sum())
    run.info(
        f"{matched:,} of {photos:,} photos show a landmark; {int(fiducial.sum()):,} of these matches are fiducial."
    )
    run.info(
        f"{found.searched.mean() if photos else 0:.1f} landmarks were searched for each photo; the filter saved {100 * saved:.0f} %."
    )
    nothing = int((found.searched == 0).sum())
    if nothing:
        run.info(f"{nothing:,} photos have no landmark near their candidates.")


def _write(
    run: Run,
    queries: Queries,
    readable: np.ndarray,
    landmarks: Landmarks,
    crs: QgsCoordinateReferenceSystem,
    found: Recognised,
    fiducial: np.ndarray,
) -> None:
    kind = QMetaType.Type
    fields = fields_of(
        ("device", kind.QString),
        ("time", kind.QDateTime),
        ("time_s", kind.Double),
        ("photo", kind.QString),
        ("landmark_id", kind.QString),
        ("kind", kind.QString),
        ("votes", kind.Int),
        ("distance", kind.Double),
        ("margin", kind.Double),
        ("fiducial", kind.Int),
    )
    matched = np.flatnonzero(found.landmark >= 0)

    def features() -> Iterator[QgsFeature]:
        for row in matched.tolist():
            query, landmark = int(readable[row]), int(found.landmark[row])
            feature = QgsFeature(fields)
            feature.setGeometry(QgsGeometry.fromPointXY(QgsPointXY(*landmarks.xy_m[landmark].tolist())))
            time_s = float(queries.time_s[query])
            feature.setAttributes(
                [
                    queries.devices[query] or None,
                    date_time(time_s),
                    time_s,
                    PurePath(queries.photos[query]).name,
                    landmarks.ids[landmark],
                    LOCATION if landmarks.fiducial[landmark] else SERVICE,
                    int(found.votes[row]),
                    _rounded(found.distance[row]),
                    _rounded(found.margin[row]),
                    int(fiducial[row]),
                ]
            )
            yield feature

    progress = run.progress.phase(run.parameters.algorithm.tr("Writing"), 0.95, 1.0)
    layer = run.outputs.table(
        "MATCHES", fields, features(), QgsWkbTypes.Type.Point, crs, progress, max(len(matched), 1)
    )
    run.style("MATCHES", layer, tracking_styles.matches_qml(SHOWN_S))


def _rounded(value: float) -> float | None:
    return round(float(value), 4) if math.isfinite(value) else None
