"""Reading landmarks (points, perhaps with photos) and tables of recognised ones, ours and those of any other recogniser."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsFeature,
    QgsFeatureRequest,
    QgsProcessingFeatureSource,
    QgsVariantUtils,
    QgsWkbTypes,
)

from ..models.errors import InputError
from ..models.landmarks.landmark_set import KINDS, LOCATION, SERVICE, Landmarks, Matches
from .columns import checked_layer, need_rows, recognised
from .crs import name_of
from .sites import id_text, listed, point_of
from .temporal import seconds_of
from .tracks import RECOGNISED, transformed

if TYPE_CHECKING:
    from .algorithm import Run

#: Names that a field is recognised by, in this order; upper and lower case are alike. What QGIS's 'Import geotagged photos' writes fits.
ID_NAMES = ("landmark_id", "landmark", "id", "name", "filename")
KIND_NAMES = ("kind",)
PHOTO_NAMES = ("photo", "path", "file", "filename", "image")
DEVICE_NAMES = RECOGNISED["DEVICE_FIELD"]
TIME_NAMES = ("time_s", *(name for name in RECOGNISED["TIME_FIELD"] if name != "time_s"))
FIDUCIAL_NAMES = ("fiducial",)
#: Rows of one landmark that lie farther apart than this are probably two landmarks of one name [m].
FAR_APART_M = 100.0
_NO = ("0", "false", "f", "no", "n")


@dataclass(frozen=True)
class LandmarkLayer:
    """What else a layer of landmarks tells.

    Parameters
    ----------
    name
        Of the layer.
    photos
        Path of each photo, shape (n_photos,); a relative one was completed with the folder of the layer's file.
    landmark
        Row in the landmarks that a photo shows, shape (n_photos,), int32.
    crs
        Metric CRS of the landmarks.
    """

    name: str
    photos: tuple[str, ...]
    landmark: np.ndarray
    crs: QgsCoordinateReferenceSystem


def read_landmarks(
    run: Run, source: QgsProcessingFeatureSource, crs: QgsCoordinateReferenceSystem, parameter: str = "LANDMARKS"
) -> tuple[Landmarks, LandmarkLayer]:
    """Read a point layer of landmarks; rows of one name are several photos of one landmark, which stands in their middle.

    Parameters
    ----------
    crs
        A metric CRS that positions are wanted in.

    Returns
    -------
    (Landmarks, LandmarkLayer)

    Raises
    ------
    InputError
        No features, no points, unknown CRS, no usable row, a point that cannot be placed in `crs`.
    """
    points = QgsWkbTypes.GeometryType.PointGeometry
    layer = checked_layer(parameter, source, points, "points; give a layer with one point per landmark")
    id_field, kind_field = recognised(source, ID_NAMES), recognised(source, KIND_NAMES)
    photo_field = recognised(source, PHOTO_NAMES)
    run.info(
        f"Fields of '{layer}': landmark {id_field or 'none (feature ids)'}, kind {kind_field or f'none (all are {LOCATION})'}, photo "
        f"{photo_field or 'none'}."
    )
    folder = layer_folder(run, parameter)
    names, points, photos, kinds, rejected = [], [], [], [], []
    for feature in _by_id(source, [id_field, kind_field, photo_field]):
        point = point_of(feature)
        name = id_text(feature[id_field]) if id_field else str(feature.id())
        if isinstance(point, str) or not name:
            rejected.append(f"feature {feature.id()}: {point if isinstance(point, str) else f'{id_field} is empty'}")
            continue
        names.append(name)
        points.append((point.x(), point.y()))
        kinds.append(id_text(feature[kind_field]).lower() if kind_field else LOCATION)
        photos.append(photo_path(id_text(feature[photo_field]), folder) if photo_field else "")
    if not names:
        raise InputError(
            f"{parameter}: none of the {len(rejected):,} rows of layer '{layer}' can be used ({listed(rejected)})."
        )
    if rejected:
        run.warn(
            f"{parameter}: {len(rejected):,} of {len(rejected) + len(names):,} rows cannot be used: {listed(rejected)}."
        )
    if id_field and id_field.lower() == "filename" and len(set(names)) < len(names) and all(photos):
        names = list(photos)  # cameras count anew in each folder
    xy_m = _placed(run, source, parameter, crs, names, points)
    ids = tuple(dict.fromkeys(names))
    row_of = {name: row for row, name in enumerate(ids)}
    landmark = np.array([row_of[name] for name in names], dtype=np.int32)
    count = np.bincount(landmark)
    middle = np.stack([np.bincount(landmark, xy_m[:, axis]) / count for axis in range(2)], axis=1)
    apart = np.hypot(*(xy_m - middle[landmark]).T) > FAR_APART_M / 2
    if apart.any():
        same = sorted({names[row] for row in np.flatnonzero(apart)})
        run.warn(
            f"{parameter}: {len(same):,} landmarks have rows far apart, as if they were several with one name: {listed(same)}."
        )
    first = np.full(len(ids), -1)
    first[landmark[::-1]] = np.arange(len(names))[::-1]
    fiducial = np.array([kinds[row] in (LOCATION, "") for row in first])
    odd = sorted({kinds[row] for row in first} - {*KINDS, ""})
    if odd:
        run.warn(
            f"{parameter}: '{kind_field}' knows {LOCATION} and {SERVICE}; landmarks of another kind count as {SERVICE}: {listed(odd)}."
        )
    shown = [row for row, photo in enumerate(photos) if photo]
    return (
        Landmarks(ids, middle, fiducial),
        LandmarkLayer(layer, tuple(photos[row] for row in shown), landmark[shown], crs),
    )


def read_matches(
    run: Run, source: QgsProcessingFeatureSource, landmarks: Landmarks, parameter: str = "MATCHES"
) -> Matches:
    """Read a table of recognised landmarks: MATCHES of 'Match landmarks', or of any other recogniser.

    It needs a time and a landmark's name; a device and whether the match is fiducial (it is, where the table does not tell) are read
    where they are there. Rows without a landmark are photos that showed none.

    Raises
    ------
    InputError
        No features, no field of times or of landmarks, no usable row, none of the landmarks.
    """
    layer = source.sourceName()
    need_rows(parameter, source)
    fields = {
        role: recognised(source, names)
        for role, names in (("time", TIME_NAMES), ("landmark", ID_NAMES), ("device", DEVICE_NAMES))
    }
    for role, names in (("time", TIME_NAMES), ("landmark", ID_NAMES)):
        if fields[role] is None:
            raise InputError(
                f"{parameter}: table '{layer}' has no field of its {role} (such as {names[0]}); its fields: "
                f"{', '.join(source.fields().names()) or 'none'}."
            )
    trusted = recognised(source, FIDUCIAL_NAMES)
    row_of = {name: row for row, name in enumerate(landmarks.ids)}
    rows, stamps, found, sure, devices, strangers = [], [], [], [], [], []
    empty = 0
    for feature in _by_id(source, [*fields.values(), trusted]):
        name = id_text(feature[fields["landmark"]])
        if name not in row_of:
            empty += not name
            strangers += [name] if name else []
            continue
        rows.append(feature.id())
        stamps.append(feature[fields["time"]])
        found.append(row_of[name])
        sure.append(trusted is None or _is_true(feature[trusted]))
        devices.append(id_text(feature[fields["device"]]) if fields["device"] else "")
    time_s = seconds_of(stamps)
    timed = np.flatnonzero(np.isfinite(time_s))
    unlike = sorted(set(strangers))
    if not rows and unlike:
        raise InputError(
            f"{parameter}: table '{layer}' knows none of the {len(landmarks):,} landmarks: its names are such as '{unlike[0]}', theirs "
            f"such as '{min(landmarks.ids)}'."
        )
    if not len(timed):
        reason = f"{len(rows):,} without a time, {empty:,} without a landmark"
        raise InputError(f"{parameter}: no row of table '{layer}' can be used ({reason}).")
    if strangers:
        run.warn(f"{parameter}: {len(strangers):,} rows name a landmark that is not there: {listed(unlike)}.")
    if len(timed) < len(rows):
        run.warn(f"{parameter}: {len(rows) - len(timed):,} rows have no time that can be read and are left out.")
    if empty:
        run.info(f"{parameter}: {empty:,} rows name no landmark.")
    names = tuple(dict.fromkeys(devices[row] for row in timed if devices[row]))
    code = {name: number for number, name in enumerate(names)}
    landmark = np.array(found, dtype=np.int32)[timed]
    return Matches(
        names,
        np.array([code.get(devices[row], -1) for row in timed], dtype=np.int32),
        time_s[timed],
        landmark,
        np.array(sure, dtype=bool)[timed] & landmarks.fiducial[landmark],
        np.array(rows, dtype=np.int64)[timed],
    )


def layer_folder(run: Run, parameter: str) -> Path | None:
    """The folder of the file that a parameter's layer is read from, None where it is no file."""
    path = run.parameters.algorithm.layer_file(parameter)
    return Path(path).absolute().parent if path else None


def photo_path(text: str, folder: Path | None) -> str:
    """Complete the path of a photo that is relative to the folder of its layer."""
    return text if not text or folder is None or Path(text).is_absolute() else str(folder / text)


def _by_id(source: QgsProcessingFeatureSource, fields: Sequence[str | None]) -> list[QgsFeature]:
    """All features with some of their fields, by feature id: selected ones come in any order."""
    request = QgsFeatureRequest()
    request.setSubsetOfAttributes([name for name in fields if name], source.fields())
    return sorted(source.getFeatures(request), key=lambda feature: feature.id())


def _placed(
    run: Run,
    source: QgsProcessingFeatureSource,
    parameter: str,
    crs: QgsCoordinateReferenceSystem,
    names: list[str],
    points: list[tuple[float, float]],
) -> np.ndarray:
    """Positions in `crs`, shape (n, 2)."""
    x, y = np.array(points).T
    moved = transformed(QgsCoordinateTransform(source.sourceCrs(), crs, run.context.transformContext()), x, y)
    for row in np.flatnonzero(~np.isfinite(moved).all(axis=0))[:1]:
        raise InputError(
            f"{parameter}: '{names[row]}' at {x[row]:.6g}, {y[row]:.6g} cannot be placed in {name_of(crs)}. Check the layer's CRS and "
            "coordinates."
        )
    return moved.T


def _is_true(value: object) -> bool:
    """Whether a mark says yes; an empty one says no."""
    if QgsVariantUtils.isNull(value):
        return False
    text = id_text(value).lower()
    return bool(text) and text not in _NO
