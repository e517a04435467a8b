"""Photos as arrays, whatever their format and however the camera was held, their descriptions, and tables of these.

A table of descriptions has a row per photo and descriptor: photo, descriptor, version, values (a JSON array). With it photos need not
travel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING

import numpy as np
from qgis.core import QgsFeature, QgsFeatureRequest, QgsProcessingFeatureSource
from qgis.PyQt.QtCore import QFileInfo, QMetaType, QSize
from qgis.PyQt.QtGui import QImage, QImageIOHandler, QImageReader

from ..models.errors import InputError
from .columns import need_rows
from .outputs import fields_of
from .sites import id_text, listed

if TYPE_CHECKING:
    from ..models.progress import Progress
    from .algorithm import Run

#: Larger photos are decoded at about this many pixels along their longer side; JPEG is then read several times as quickly.
_DECODED_PX = 640
#: Photos read before progress is told, by each thread.
_AT_ONCE = 4
_COLUMNS = ("photo", "descriptor", "version", "values")


@dataclass(frozen=True)
class Described:
    """Descriptions of photos.

    Parameters
    ----------
    vectors
        By photo as its layer names it, then by descriptor.
    unreadable
        "name: reason" of each photo that has none.
    from_table
        Number of photos whose descriptions came from a table.
    """

    vectors: dict[str, dict[str, np.ndarray]]
    unreadable: tuple[str, ...]
    from_table: int


def read_photo(path: str) -> np.ndarray | str:
    """Return a photo upright, shape (height, width, 3), uint8, or why it cannot be read."""
    if not QFileInfo.exists(path):
        return "there is no such file"
    reader = QImageReader(path)
    reader.setAutoTransform(True)
    reader.setDecideFormatFromContent(True)
    size = reader.size()
    longer = max(size.width(), size.height())
    if longer > _DECODED_PX and reader.supportsOption(QImageIOHandler.ImageOption.ScaledSize):
        shrink = _DECODED_PX / longer
        reader.setScaledSize(QSize(max(1, round(size.width() * shrink)), max(1, round(size.height() * shrink))))
    image = reader.read()
    if image.isNull():
        return reader.errorString().rstrip(".") or "it is no image"
    image = image.convertToFormat(QImage.Format.Format_RGB888)
    bits = image.constBits()
    flat = np.frombuffer(bits.asstring(image.sizeInBytes()), dtype=np.uint8).reshape(image.height(), -1)
    return flat[:, : 3 * image.width()].reshape(image.height(), image.width(), 3).copy()


def describe_photos(
    run: Run, paths: Sequence[str], known: Mapping[str, dict[str, np.ndarray]], progress: Progress
) -> Described:
    """Describe photos, in threads, but those whose descriptions are known.

    Parameters
    ----------
    known
        As `read_descriptions` returns them.
    """
    from ..models.chunks import run_chunks
    from ..models.landmarks.descriptors import describe

    different = list(dict.fromkeys(paths))
    vectors = {path: found for path in different if (found := _known(path, known))}
    fresh = [path for path in different if path not in vectors]

    def work(start: int, stop: int) -> list[dict[str, np.ndarray] | str]:
        images = (read_photo(path) for path in fresh[start:stop])
        return [image if isinstance(image, str) else describe(image) for image in images]

    described = run_chunks(work, len(fresh), _AT_ONCE, run.threads, progress)
    unreadable = []
    from_table = len(vectors)
    for path, found in zip(fresh, (one for part in described for one in part)):
        if isinstance(found, str):
            unreadable.append(f"{path}: {found}")
        else:
            vectors[path] = found
    return Described(vectors, tuple(unreadable), from_table)


def read_descriptions(run: Run, source: QgsProcessingFeatureSource, parameter: str) -> dict[str, dict[str, np.ndarray]]:
    """Read a table of descriptions: by photo, then by descriptor.

    Rows of a descriptor that is not known are left out and said.

    Raises
    ------
    InputError
        No features, no such table, a description of another version or of a wrong length.
    """
    from ..models.landmarks.descriptors import BY_NAME, from_text

    layer = source.sourceName()
    need_rows(parameter, source)
    by_lower = {name.lower(): name for name in reversed(source.fields().names())}
    lacks = [name for name in _COLUMNS if name not in by_lower]
    if lacks:
        raise InputError(
            f"{parameter}: table '{layer}' is no table of descriptions (it has no {', no '.join(lacks)}); make one with DESCRIBED of "
            "'Match landmarks'."
        )
    request = QgsFeatureRequest().setFlags(QgsFeatureRequest.Flag.NoGeometry)
    found: dict[str, dict[str, np.ndarray]] = {}
    strangers: dict[str, None] = {}
    for feature in source.getFeatures(request):
        photo, name, version, values = (id_text(feature[by_lower[column]]) for column in _COLUMNS)
        if name not in BY_NAME:
            strangers[name] = None
            continue
        try:
            number = int(version)
        except ValueError:
            number = 0
        try:
            found.setdefault(photo, {})[name] = from_text(values, BY_NAME[name], number)
        except InputError as error:
            raise InputError(f"{parameter}: feature {feature.id()} ('{photo}') cannot be used. {error}") from error
    if strangers:
        run.warn(f"{parameter}: descriptors that are not known were left out: {listed(list(strangers))}.")
    if not found:
        raise InputError(
            f"{parameter}: table '{layer}' holds no descriptor that is known; those are: {', '.join(BY_NAME)}."
        )
    run.info(f"{parameter}: '{layer}' describes {len(found):,} photos.")
    return found


def write_descriptions(run: Run, name: str, vectors: Mapping[str, dict[str, np.ndarray]], progress: Progress) -> None:
    """Write descriptions to the output `name`, a table that `read_descriptions` reads; photos are named by their file names.

    Where two have the same file name both keep their paths.
    """
    from ..models.landmarks.descriptors import BY_NAME, as_text

    kind = QMetaType.Type
    fields = fields_of(
        ("photo", kind.QString), ("descriptor", kind.QString), ("version", kind.Int), ("values", kind.QString)
    )
    plain = [PurePath(path).name for path in vectors]
    twice = {file for file in plain if plain.count(file) > 1} if len(set(plain)) < len(plain) else set()

    def features() -> Iterator[QgsFeature]:
        for path, file in zip(vectors, plain):
            for descriptor, vector in vectors[path].items():
                feature = QgsFeature(fields)
                photo = path if file in twice else file
                feature.setAttributes([photo, descriptor, BY_NAME[descriptor].version, as_text(vector)])
                yield feature

    count = sum(map(len, vectors.values()))
    run.outputs.table(name, fields, features(), progress=progress, count=count)


def _known(path: str, known: Mapping[str, dict[str, np.ndarray]]) -> dict[str, np.ndarray] | None:
    """The descriptions of a photo by its path, else by its file name."""
    return known.get(path) or known.get(PurePath(path.replace("\\", "/")).name)
