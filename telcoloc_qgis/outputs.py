"""Outputs that appear complete or not at all.

Files are written beside their destination under another name and moved into place together at the very end. Vector sinks, which
QGIS opens at the destination itself, are filled last; an older file there is set aside first and comes back on failure.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from qgis.core import (
    NULL,
    QgsCoordinateReferenceSystem,
    QgsFeature,
    QgsFeatureSink,
    QgsField,
    QgsFields,
    QgsProcessingException,
    QgsProcessingParameterFileDestination,
    QgsProcessingParameterRasterDestination,
    QgsVectorFileWriter,
    QgsVectorLayer,
    QgsWkbTypes,
)
from qgis.PyQt.QtCore import QMetaType

from ..models.errors import OutputError
from ..models.progress import Progress, no_progress
from .parameters import Parameters

_SIDECARS = ("", ".aux.xml")
#: Last line of the styles we leave beside outputs; one without it is the user's own and stays.
STYLE_MARK = "<!-- made by TelcoLoc -->"
#: Vector formats of several files.
_FAMILIES = {
    ".shp": (".shp", ".shx", ".dbf", ".prj", ".cpg", ".qix"),
    ".tab": (".tab", ".dat", ".map", ".id", ".ind"),
    ".gml": (".gml", ".xsd"),
}


#: Formats that QGIS writes without geometry.
_WITHOUT_GEOMETRY = (".csv", ".xlsx", ".ods")


def fields_of(*columns: tuple[str, QMetaType.Type]) -> QgsFields:
    """The fields of a new layer, from (name, type) pairs."""
    fields = QgsFields()
    for name, kind in columns:
        fields.append(QgsField(name, kind))
    return fields


def _with_coordinates(
    fields: QgsFields,
    features: Iterable[QgsFeature],
    geometry: QgsWkbTypes.Type,
    crs: QgsCoordinateReferenceSystem | None,
) -> tuple[QgsFields, Iterable[QgsFeature]]:
    """Give points two more fields with their coordinates, for formats that hold no geometry."""
    names = ("lon", "lat") if crs is not None and crs.isGeographic() else ("x", "y")
    if QgsWkbTypes.geometryType(geometry) != QgsWkbTypes.GeometryType.PointGeometry or fields.indexOf(names[0]) >= 0:
        return fields, features
    wider = QgsFields(fields)
    for name in names:
        wider.append(QgsField(name, QMetaType.Type.Double))

    def told() -> Iterator[QgsFeature]:
        for feature in features:
            place = feature.geometry()
            empty = place.isNull() or place.isEmpty()
            point = None if empty else place.asMultiPoint()[0] if place.isMultipart() else place.asPoint()
            feature.setAttributes([*feature.attributes(), *((NULL, NULL) if point is None else (point.x(), point.y()))])
            yield feature

    return wider, told()


class Outputs:
    """The outputs of one run: `file` and `table` to make them, `commit` to publish, `discard` to leave no trace."""

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self.results: dict[str, Any] = {}
        self._parts: list[tuple[Path, Path]] = []
        self._reserved: dict[str, Path] = {}
        self._new: list[Path] = []
        self._claimed: dict[str, str] = {}
        self._set_aside: list[tuple[Path, Path]] = []

    def file(self, name: str, suffix: str, *others: str) -> Path:
        """Return the path to write a raster or file output to; `commit` moves it (and its .aux.xml) to its destination.

        The destination may end in `suffix` or in one of `others`, and so does the path.

        Raises
        ------
        OutputError
            When the folder cannot be made or written.
        """
        if name in self._reserved:
            return self._reserved[name]
        algorithm, values, context = self.parameters.algorithm, self.parameters.values, self.parameters.context
        if suffix == ".tif":
            text = algorithm.parameterAsOutputLayer(values, name, context)
        else:
            text = algorithm.parameterAsFileOutput(values, name, context)
        destination = Path(text)
        ending = ".tif" if suffix == ".tif" and destination.suffix.lower() == ".tiff" else destination.suffix.lower()
        if ending not in (suffix, *others):
            raise OutputError(f"{name} '{destination.name}' must end in {' or '.join((suffix, *others))}.")
        part = destination.with_name(f".{destination.stem}.part{os.getpid()}{ending}")
        try:
            destination.parent.mkdir(parents=True, exist_ok=True)
            part.touch()
            if destination.is_dir():
                raise IsADirectoryError("it is a folder")
        except OSError as error:
            raise OutputError(f"{name} cannot be written to '{destination}': {error.strerror or error}.") from error
        self._parts.append((part, destination))
        self._claim(name, destination)
        self.results[name] = str(destination)
        self._reserved[name] = part
        return part

    def add_style(self, name: str, qml: str) -> None:
        """Leave a .qml style beside the file of output `name`, unless one that is not ours (or of another output) is there."""
        destination = Path(self.results[name])
        target = destination.with_suffix(".qml")
        taken = target in [path for _, path in self._parts]
        if taken or (target.exists() and STYLE_MARK not in target.read_text(encoding="utf-8", errors="replace")):
            return
        part = destination.with_name(f".{destination.stem}.part{os.getpid()}.qml")
        self._parts.append((part, target))
        part.write_text(f"{qml.rstrip()}\n{STYLE_MARK}\n", encoding="utf-8")

    def reserve(self) -> None:
        """Check all destinations before any work is done."""
        for definition in self.parameters.algorithm.destinationParameterDefinitions():
            name = definition.name()
            if not self.parameters.wants(name):
                continue
            if isinstance(definition, QgsProcessingParameterRasterDestination):
                self.file(name, ".tif")
            elif isinstance(definition, QgsProcessingParameterFileDestination):
                first = f".{definition.defaultFileExtension()}"
                endings = re.findall(r"\*(\.\w+)", definition.fileFilter())
                self.file(name, first, *(ending for ending in endings if ending != first))
            else:
                self._check_table(name)

    def table(
        self,
        name: str,
        fields: QgsFields,
        features: Iterable[QgsFeature],
        geometry: QgsWkbTypes.Type = QgsWkbTypes.Type.NoGeometry,
        crs: QgsCoordinateReferenceSystem | None = None,
        progress: Progress = no_progress,
        count: int = 1,
        coordinates: bool = True,
    ) -> str:
        """Write a vector output and return its layer id or path; call it after everything that can fail for other reasons.

        Formats without geometry get the coordinates of points as two fields, unless `coordinates` says that other fields hold them.
        """
        destination = self._plain_file(name)
        if destination is not None:
            self._prepare_folder(name, destination)
        if coordinates and destination is not None and destination.suffix.lower() in _WITHOUT_GEOMETRY:
            fields, features = _with_coordinates(fields, features, geometry, crs)
        algorithm, values, context = self.parameters.algorithm, self.parameters.values, self.parameters.context
        try:
            sink, target = algorithm.parameterAsSink(
                values, name, context, fields, geometry, crs or QgsCoordinateReferenceSystem()
            )
        except QgsProcessingException as error:
            raise OutputError(f"{name} cannot be written: {error}") from error
        if sink is None:
            raise OutputError(algorithm.invalidSinkError(values, name))
        written = 0
        try:
            waiting = iter(features)
            while batch := list(islice(waiting, 256)):  # a call for each would cost half as much again
                if not sink.addFeatures(batch, QgsFeatureSink.Flag.FastInsert):
                    raise OutputError(f"{name} could not be written to the end: {sink.lastError()}.")
                written += len(batch)
                progress(written / max(count, 1))
            if not sink.flushBuffer():
                raise OutputError(f"{name} could not be written to the end: {sink.lastError()}.")
        finally:
            del sink
        if destination is not None:
            self._check_written(name, destination, written)
        self.results[name] = target
        return target

    def commit(self) -> None:
        """Move all files into place; when one cannot be moved, `discard` brings back what stood there before."""
        for part, destination in self._parts:
            try:
                for sidecar in _SIDECARS:
                    source, target = Path(f"{part}{sidecar}"), Path(f"{destination}{sidecar}")
                    if source.exists():
                        self._put_aside(target)
                        source.replace(target)
                        self._new.append(target)
                    elif sidecar and target.suffix == ".xml":
                        self._put_aside(target)  # statistics of the older raster
            except OSError as error:
                raise OutputError(f"'{destination}' cannot be replaced: {error.strerror or error}.") from error
        for aside, _ in self._set_aside:
            aside.unlink(missing_ok=True)
        self._parts.clear()
        self._set_aside.clear()
        self._new.clear()

    def discard(self) -> None:
        """Remove all that was written and bring back what was set aside."""
        for part, _ in self._parts:
            for sidecar in _SIDECARS:
                Path(f"{part}{sidecar}").unlink(missing_ok=True)
        for path in self._new:
            for suffix in ("", "-wal", "-shm", "-journal"):
                Path(f"{path}{suffix}").unlink(missing_ok=True)
        for aside, path in self._set_aside:
            aside.replace(path)
        # QGIS would look for what it was told to load, complain that it is missing, and never say that the run has ended.
        context = self.parameters.context
        gone = set(map(str, self.results.values()))
        context.setLayersToLoadOnCompletion(
            {key: details for key, details in context.layersToLoadOnCompletion().items() if key not in gone}
        )

    def _claim(self, name: str, destination: Path) -> None:
        """Refuse a destination that another output has, or that an input is read from."""
        path = os.path.realpath(destination)
        other = {**self.parameters.algorithm.input_files(), **self._claimed}.get(path)
        if other and other != name:
            raise OutputError(f"{name} and {other} are the same file, '{destination}'; give {name} another one.")
        self._claimed[path] = name

    def _plain_file(self, name: str) -> Path | None:
        """The file a sink will write, None for memory layers and database tables."""
        value = self.parameters.values.get(name)
        value = getattr(value, "sink", value)
        if hasattr(value, "staticValue"):
            value = value.staticValue()
        text = str(value or "")
        if not text or text.startswith(("memory:", "TEMPORARY_OUTPUT", "ogr:", "postgis:", "postgres:")):
            return None
        path = Path(text)
        return path if path.suffix else path.with_name(f"{path.name}.gpkg")  # as QGIS does

    def _check_table(self, name: str) -> None:
        """Refuse a destination of a vector output that cannot be written or is an input's file."""
        value = self.parameters.values.get(name)
        value = getattr(value, "sink", value)
        database = re.match(r"ogr:dbname='(.+?)'", str(value.staticValue() if hasattr(value, "staticValue") else value))
        if database:
            self._claim(name, Path(database.group(1)))
            del self._claimed[os.path.realpath(database.group(1))]  # several tables may go to one database
        destination = self._plain_file(name)
        if destination is None:
            return
        ending = destination.suffix.lower()
        if ending.lstrip(".") not in QgsVectorFileWriter.supportedFormatExtensions():  # QGIS would append .gpkg unasked
            raise OutputError(f"{name} '{destination.name}' ends in {ending}, which is no vector format. Use .gpkg.")
        about = QgsVectorFileWriter.MetaData()
        told = QgsVectorFileWriter.driverMetadata(QgsVectorFileWriter.driverForExtension(ending.lstrip(".")), about)
        if told and f"*{ending}" not in about.glob.split():
            raise OutputError(
                f"{name} '{destination.name}' ends in {ending}, to which QGIS would add .{about.ext}. Use .{about.ext}."
            )
        self._claim(name, destination)
        try:
            destination.parent.mkdir(parents=True, exist_ok=True)
            if destination.is_dir():
                raise IsADirectoryError("it is a folder")
            if not destination.exists():
                destination.touch()
                destination.unlink()
        except OSError as error:
            raise OutputError(f"{name} cannot be written to '{destination}': {error.strerror or error}.") from error

    def _prepare_folder(self, name: str, destination: Path) -> None:
        self._check_table(name)
        family = [destination.with_suffix(suffix) for suffix in _FAMILIES.get(destination.suffix.lower(), ())]
        try:
            for path in family or [destination]:
                self._put_aside(path)
        except OSError as error:
            raise OutputError(f"{name} cannot be written to '{destination}': {error.strerror or error}.") from error
        self._new += family or [destination]

    def _put_aside(self, path: Path) -> None:
        """Rename an older file, until `commit` removes it or `discard` brings it back."""
        if path.exists():
            aside = path.with_name(f".{path.name}.aside{os.getpid()}")
            path.replace(aside)
            self._set_aside.append((aside, path))

    def _check_written(self, name: str, destination: Path, written: int) -> None:
        """Open the written file again: a full disk shows only here with some drivers."""
        layer = QgsVectorLayer(str(destination), name, "ogr")
        if not layer.isValid() or layer.featureCount() != written:
            raise OutputError(f"{name} could not be written to the end at '{destination}'. Is the disk full?")
