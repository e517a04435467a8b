"""Outputs that appear complete or not at all.

Files are written beside their destination under another name and moved into place together at the very end. Vector sinks, which
QGIS opens at the destination itself, are filled last; an older file there is set aside first and comes back on failure.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsFeature,
    QgsFeatureSink,
    QgsField,
    QgsFields,
    QgsProcessingException,
    QgsVectorLayer,
    QgsWkbTypes,
)
from qgis.PyQt.QtCore import QMetaType

from ..models.errors import OutputError
from ..models.progress import Progress, no_progress
from .parameters import Parameters

_SIDECARS = ("", ".aux.xml")
#: Vector formats of several files.
_FAMILIES = {
    ".shp": (".shp", ".shx", ".dbf", ".prj", ".cpg", ".qix"),
    ".tab": (".tab", ".dat", ".map", ".id", ".ind"),
    ".gml": (".gml", ".xsd"),
}


def fields_of(*columns: tuple[str, QMetaType.Type]) -> QgsFields:
    """The fields of a new layer, from (name, type) pairs."""
    fields = QgsFields()
    for name, kind in columns:
        fields.append(QgsField(name, kind))
    return fields


class Outputs:
    """The outputs of one run: `file` and `table` to make them, `commit` to publish, `discard` to leave no trace."""

    def __init__(self, parameters: Parameters) -> None:
        self.parameters = parameters
        self.results: dict[str, Any] = {}
        self._parts: list[tuple[Path, Path]] = []
        self._new: list[Path] = []
        self._claimed: dict[str, str] = {}
        self._set_aside: list[tuple[Path, Path]] = []

    def file(self, name: str, suffix: str) -> Path:
        """Return the path to write a raster or file output to; `commit` moves it (and its .aux.xml) to its destination.

        Raises
        ------
        OutputError
            When the folder cannot be made or written.
        """
        algorithm, values, context = self.parameters.algorithm, self.parameters.values, self.parameters.context
        if suffix == ".tif":
            text = algorithm.parameterAsOutputLayer(values, name, context)
        else:
            text = algorithm.parameterAsFileOutput(values, name, context)
        destination = Path(text)
        if destination.suffix.lower() not in (suffix, ".tiff" if suffix == ".tif" else suffix):
            raise OutputError(f"{name} '{destination.name}' must end in {suffix}.")
        part = destination.with_name(f".{destination.stem}.part{os.getpid()}{suffix}")
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
        return part

    def companion(self, name: str, suffix: str) -> Path:
        """Return the path for a file that goes with output `name`, such as its .qml style."""
        destination = Path(self.results[name])
        part = destination.with_name(f".{destination.stem}.part{os.getpid()}{suffix}")
        self._parts.append((part, destination.with_suffix(suffix)))
        return part

    def table(
        self,
        name: str,
        fields: QgsFields,
        features: Iterable[QgsFeature],
        geometry: QgsWkbTypes.Type = QgsWkbTypes.Type.NoGeometry,
        crs: QgsCoordinateReferenceSystem | None = None,
        progress: Progress = no_progress,
        count: int = 1,
    ) -> str:
        """Write a vector output and return its layer id or path; call it after everything that can fail for other reasons."""
        destination = self._plain_file(name)
        if destination is not None:
            self._prepare_folder(name, destination)
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
            for feature in features:
                if not sink.addFeature(feature, QgsFeatureSink.Flag.FastInsert):
                    raise OutputError(f"{name} could not be written to the end: {sink.lastError()}.")
                written += 1
                if written % 256 == 0:
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
                    self._put_aside(target)
                    if source.exists():
                        source.replace(target)
                        self._new.append(target)
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
        if other:
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
        return path if path.suffix else None

    def _prepare_folder(self, name: str, destination: Path) -> None:
        self._claim(name, destination)
        family = [destination.with_suffix(suffix) for suffix in _FAMILIES.get(destination.suffix.lower(), ())]
        try:
            destination.parent.mkdir(parents=True, exist_ok=True)
            if destination.is_dir():
                raise IsADirectoryError("it is a folder")
            for path in family or [destination]:
                self._put_aside(path)
            destination.touch()
            destination.unlink()
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
