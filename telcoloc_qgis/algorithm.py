"""The base of all our algorithms: it makes the right thing the easy thing.

A subclass declares its parameters and outputs once, with their help, in `define`, and does its work in `work`. Everything else is
here: help pages, typed parameters, progress and cancel, device choice, outputs that appear complete or not at all, styles, and
errors as one sentence. Nothing here lets an exception escape where it would abort qgis_process for everybody.
"""

from __future__ import annotations

import os
import time
import traceback
from collections import deque
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from qgis.core import (
    Qgis,
    QgsMessageLog,
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingException,
    QgsProcessingFeedback,
    QgsProcessingOutputDefinition,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterEnum,
    QgsProcessingParameterFeatureSource,
    QgsProcessingParameterFile,
    QgsProcessingParameterMultipleLayers,
    QgsProcessingParameterRasterLayer,
    QgsProviderRegistry,
)
from qgis.PyQt.QtCore import QCoreApplication
from qgis.PyQt.QtGui import QIcon

from ..models.chunks import is_out_of_memory
from ..models.environment import resolve_device
from ..models.errors import Cancelled, TelcoLocError
from .columns import PlainFile, plain_file
from .crs import forget_those_of_ended_threads
from .feedback import FeedbackProgress
from .outputs import Outputs
from .parameters import Parameters, unknown_parameter, wrong_value
from .styles import StyleOnLoad

RESOURCES = Path(__file__).resolve().parents[1] / "resources"
_RASTERS = Qgis.ProcessingSourceType.Raster
#: QGIS keeps no reference to post-processors written in Python, and the algorithm may be gone when they run.
_KEPT_ALIVE: deque = deque(maxlen=512)


class Run:
    """One execution of an algorithm: its parameters, outputs, progress and log."""

    def __init__(
        self,
        algorithm: TelcoLocAlgorithm,
        values: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,
    ) -> None:
        self.context = context
        self.feedback = feedback
        self.parameters = Parameters(algorithm, values, context)
        self.outputs = Outputs(self.parameters)
        self.progress = FeedbackProgress(feedback)
        self.started = time.monotonic()

    @property
    def seconds(self) -> float:
        """Wall time since the run began [s]."""
        return time.monotonic() - self.started

    @property
    def threads(self) -> int:
        """Threads this run may use."""
        return max(1, min(self.context.maximumThreads(), os.cpu_count() or 1))

    def info(self, text: str) -> None:
        """A fact for the log."""
        self.feedback.pushInfo(text)

    def warn(self, text: str) -> None:
        """A problem with the data that the run could work around."""
        self.feedback.pushWarning(text)

    def device(self, name: str = "DEVICE") -> str:
        """Resolve the DEVICE parameter to "cpu" or "cuda" and log why."""
        device, reason = resolve_device(self.parameters.choice(name))
        self.info(reason)
        return device

    def style(self, name: str, layer_id: str, qml: str) -> None:
        """Style output `name` when it is loaded, and leave a .qml beside it when it is a file."""
        result = self.outputs.results.get(name)
        if isinstance(result, str) and Path(result).suffix and not result.startswith("memory"):
            self.outputs.add_style(name, qml)
        if self.context.willLoadLayerOnCompletion(layer_id):
            processor = StyleOnLoad.create(qml)
            _KEPT_ALIVE.append(processor)
            self.context.layerToLoadOnCompletionDetails(layer_id).setPostProcessor(processor)

    def group(self, title: str, names: Sequence[str]) -> None:
        """Have QGIS load outputs into one group of the project's layers, the first on top; those not asked for are left out.

        Call it when all of them are written: `run.group(self.tr("Landmark tracking"), ("PATH", "LINES", "CANDIDATES", "EDGES"))`.
        """
        for place, name in enumerate(reversed(names), 1):  # QGIS adds them by this key, each on top of the last
            layer_id = str(self.outputs.results.get(name, ""))
            if self.context.willLoadLayerOnCompletion(layer_id):
                details = self.context.layerToLoadOnCompletionDetails(layer_id)
                details.groupName, details.layerSortKey = title, place


class TelcoLocAlgorithm(QgsProcessingAlgorithm):
    """Base class; see the module's docstring."""

    NAME = ""
    TITLE = ""
    GROUP = "Geolocation"
    SUMMARY = ""
    DESCRIPTION = ""
    EXAMPLE = ""
    TAGS: tuple[str, ...] = ()
    ICON = "telcoloc.svg"

    def __init__(self) -> None:
        super().__init__()
        self._help: dict[str, tuple[str, str]] = {}
        self._broken = ""
        self._raster_sources: dict[str, list[tuple[str, str]]] = {}
        self._input_files: dict[str, str] = {}
        self._plain_files: dict[str, PlainFile] = {}
        self._layer_files: dict[str, str] = {}

    # What a subclass writes

    def define(self) -> None:
        """Declare parameters and outputs with `add`, `add_device` and `add_result`."""
        raise NotImplementedError

    def work(self, run: Run) -> dict[str, Any]:
        """Do the work and return the values of the outputs that are not layers or files."""
        raise NotImplementedError

    # What a subclass calls in `define`

    def add(self, parameter: QgsProcessingParameterDefinition, text: str, advanced: bool = False) -> None:
        """Declare a parameter (or destination) together with its help."""
        if advanced:
            parameter.setFlags(parameter.flags() | QgsProcessingParameterDefinition.Flag.FlagAdvanced)
        parameter.setHelp(text)
        self._help[parameter.name()] = (parameter.description(), text)
        self.addParameter(parameter)

    def add_result(self, output: QgsProcessingOutputDefinition, text: str) -> None:
        """Declare a number or string that the algorithm returns, together with its help."""
        self._help[output.name()] = (output.description(), text)
        self.addOutput(output)

    def add_device(self) -> None:
        """Declare DEVICE."""
        self.add(
            QgsProcessingParameterEnum(
                "DEVICE",
                self.tr("Compute device"),
                ["auto", "cpu", "cuda"],
                defaultValue="auto",
                usesStaticStrings=True,
            ),
            self.tr(
                "Where to compute: auto (the GPU when one can be used, otherwise the CPU), cpu, or cuda (an NVIDIA GPU; fails when "
                "there is none). The log says which was used and why. The result is the same."
            ),
            advanced=True,
        )

    def raster_sources(self, name: str) -> list[tuple[str, str]]:
        """(path, name) of each raster of a parameter."""
        return self._raster_sources[name]

    def input_files(self) -> dict[str, str]:
        """Return the parameter that reads each file, by the file's real path."""
        return dict(self._input_files)

    def layer_file(self, name: str) -> str:
        """Path of the file that the layer of a vector parameter is read from, "" where it is none."""
        return self._layer_files.get(name, "")

    def plain_files(self) -> dict[str, PlainFile]:
        """Return the file behind each vector parameter that shows just what its file holds."""
        return dict(self._plain_files)

    def tr(self, text: str) -> str:
        """Translate in the context of the plugin."""
        return QCoreApplication.translate("TelcoLoc", text)

    # What QGIS calls

    def createInstance(self) -> QgsProcessingAlgorithm:
        return type(self)()

    def name(self) -> str:
        return self.NAME

    def displayName(self) -> str:
        return self.tr(self.TITLE)

    def group(self) -> str:
        return self.tr(self.GROUP)

    def groupId(self) -> str:
        return self.GROUP.lower().replace(" ", "")

    def tags(self) -> list[str]:
        return list(self.TAGS)

    def shortDescription(self) -> str:
        return self.tr(self.SUMMARY)

    def icon(self) -> QIcon:
        return QIcon(self.svgIconPath())

    def svgIconPath(self) -> str:
        return str(RESOURCES / "icons" / self.ICON)

    def helpUrl(self) -> str:
        return (RESOURCES / "help" / f"{self.NAME}.html").as_uri()

    def initAlgorithm(self, configuration: dict[str, Any] | None = None) -> None:  # noqa: ARG002 - QGIS's signature
        try:
            self.define()
        except Exception as error:  # it would abort qgis_process for every algorithm of every plugin
            what = f"{type(error).__name__}: {error}"
            self._broken = f"{self.id()} could not be set up ({what}). Please report it with the log 'TelcoLoc'."
            QgsMessageLog.logMessage(traceback.format_exc(), "TelcoLoc", Qgis.MessageLevel.Critical)

    def canExecute(self) -> tuple[bool, str]:
        return (not self._broken, self._broken)

    def shortHelpString(self) -> str:
        """HTML in the dialog, plain text in a terminal, from the texts given in `define`."""
        try:
            return self.help_page(html=not _in_terminal())
        except Exception:  # as in initAlgorithm
            QgsMessageLog.logMessage(traceback.format_exc(), "TelcoLoc", Qgis.MessageLevel.Critical)
            return self.SUMMARY

    def help_entries(self) -> dict[str, tuple[str, str]]:
        """(label, text) of every parameter and output, by name."""
        return dict(self._help)

    def checkParameterValues(self, parameters: dict[str, Any], context: QgsProcessingContext) -> tuple[bool, str]:
        problem = unknown_parameter(self, parameters) or wrong_value(self, parameters, context)
        if problem:
            return False, problem
        return super().checkParameterValues(parameters, context)

    def prepareAlgorithm(
        self,
        parameters: dict[str, Any],
        context: QgsProcessingContext,
        feedback: QgsProcessingFeedback,  # noqa: ARG002 - QGIS's signature
    ) -> bool:
        if self._broken:  # qgis_process ignores canExecute
            raise QgsProcessingException(self._broken)
        reader = Parameters(self, parameters, context)
        try:  # raster layers are looked up here, in their own thread; all else is safe in processAlgorithm
            self._raster_sources = {
                definition.name(): reader.rasters(definition.name())
                for definition in self.parameterDefinitions()
                if isinstance(definition, QgsProcessingParameterRasterLayer)
                or (isinstance(definition, QgsProcessingParameterMultipleLayers) and definition.layerType() == _RASTERS)
            }
            self._input_files, self._plain_files, self._layer_files = {}, {}, {}
            registry = QgsProviderRegistry.instance()
            for definition in self.parameterDefinitions():
                name = definition.name()
                sources = [path for path, _ in self._raster_sources.get(name, [])]
                if isinstance(definition, QgsProcessingParameterFeatureSource):
                    layer = self.parameterAsLayer(parameters, name, context)
                    sources = [layer.source()] if layer is not None and layer.providerType() == "ogr" else []
                    parts = registry.decodeUri(layer.providerType(), layer.source()) if layer is not None else {}
                    self._layer_files[name] = parts.get("path") or ""
                    file = plain_file(parameters.get(name), layer)
                    self._plain_files.update({name: file} if file else {})
                elif isinstance(definition, QgsProcessingParameterFile) and reader.given(name):
                    sources = [str(reader.file(name))]
                self._input_files.update({os.path.realpath(source.split("|")[0]): name for source in sources})
        except TelcoLocError as error:
            raise QgsProcessingException(str(error)) from error
        return True

    def processAlgorithm(
        self, parameters: dict[str, Any], context: QgsProcessingContext, feedback: QgsProcessingFeedback
    ) -> dict[str, Any]:
        run = Run(self, parameters, context, feedback)
        forget_those_of_ended_threads()
        try:
            run.progress(0.0)
            run.outputs.reserve()
            values = self.work(run)
            run.progress(1.0)
            run.outputs.commit()
        except BaseException as error:
            run.outputs.discard()
            if not isinstance(error, Exception):
                raise
            message = _sentence(error)
            if not isinstance(error, (TelcoLocError, QgsProcessingException)) and not is_out_of_memory(error):
                feedback.pushDebugInfo(traceback.format_exc())
            if isinstance(error, Cancelled):
                feedback.pushWarning(message)
            raise QgsProcessingException(message) from error
        finally:
            forget_those_of_ended_threads()
        return {**run.outputs.results, **values}

    def help_page(self, html: bool) -> str:
        """The whole help, as HTML or as plain text."""
        inputs = {definition.name() for definition in self.parameterDefinitions() if not definition.isDestination()}
        parts = [("", self.DESCRIPTION or self.SUMMARY)]
        parts.append((self.tr("Parameters"), {name: entry for name, entry in self._help.items() if name in inputs}))
        parts.append((self.tr("Outputs"), {name: entry for name, entry in self._help.items() if name not in inputs}))
        lines = []
        for title, content in parts:
            if isinstance(content, str):
                lines += [f"<p>{escape(text)}</p>" if html else f"{text}\n" for text in content.split("\n\n")]
                continue
            lines.append(f"<h3>{escape(title)}</h3>" if html else f"{title}:")
            for name, (label, text) in content.items():
                lines.append(
                    f"<p><b>{escape(label)}</b>: {escape(text)}</p>" if html else f"  {name} ({label}): {text}"
                )
            lines.append("")
        lines.append(
            f"<h3>{self.tr('Example')}</h3><pre>{escape(self.EXAMPLE)}</pre>" if html else f"Example:\n  {self.EXAMPLE}"
        )
        return "\n".join(lines)


def _in_terminal() -> bool:
    """Whether help is read in qgis_process rather than in a window."""
    return "qgis_process" in QCoreApplication.applicationFilePath()


def _sentence(error: Exception) -> str:
    """What the user reads."""
    if isinstance(error, (TelcoLocError, QgsProcessingException)):
        return str(error)
    if is_out_of_memory(error):
        return "Memory ran out. Use larger cells, a smaller extent, or DEVICE=cpu."
    if isinstance(error, ModuleNotFoundError):
        return (
            f"This needs the Python package '{error.name}', which is not installed in the Python of QGIS. 'Check environment' "
            "says what to do."
        )
    if isinstance(error, OSError):
        return f"A file could not be read or written: {error}."
    return f"This should not have happened ({type(error).__name__}: {error}). Please report it with the log above."
