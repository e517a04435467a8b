"""Typed reading of parameters: what was not given is None, what makes no sense is one clear sentence."""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qgis.core import (
    QgsCoordinateReferenceSystem,
    QgsCoordinateTransform,
    QgsCsException,
    QgsProcessingAlgorithm,
    QgsProcessingContext,
    QgsProcessingFeatureSource,
    QgsProcessingParameterDefinition,
    QgsProcessingParameterEnum,
    QgsProcessingParameterNumber,
    QgsProcessingUtils,
    QgsRasterLayer,
    QgsRectangle,
    QgsVariantUtils,
)

from ..models.errors import InputError

#: Four numbers and no CRS behind them.
_BARE_EXTENT = re.compile(r"^[\s\d.,eE+-]+$")


class Parameters:
    """The parameters of one run.

    QGIS's own `parameterAs…` turn what is missing into 0 or "", and take most wrong values silently; these do not.
    """

    def __init__(
        self, algorithm: QgsProcessingAlgorithm, values: Mapping[str, Any], context: QgsProcessingContext
    ) -> None:
        self.algorithm = algorithm
        self.values = dict(values)
        self.context = context

    def _definition(self, name: str) -> QgsProcessingParameterDefinition:
        definition = self.algorithm.parameterDefinition(name)
        if definition is None:
            raise KeyError(f"{self.algorithm.name()} has no parameter {name}")
        return definition

    def given(self, name: str) -> bool:
        """Whether the parameter has a value, given or by default."""
        value = self.values.get(name)
        if QgsVariantUtils.isNull(value) or value == "":  # an empty file widget gives a null that is not None
            value = self._definition(name).defaultValue()
        return not QgsVariantUtils.isNull(value) and value != ""

    def choice(self, name: str) -> str:
        """One of the strings of a static-string enum."""
        options = self._definition(name).options()
        value = self.algorithm.parameterAsEnumString(self.values, name, self.context)
        if value not in options:
            given = self.values.get(name, value)
            raise InputError(f"{name} is '{given}'; choose one of: {', '.join(options)}.")
        return value

    def number(self, name: str) -> float | None:
        """A finite number, None when not given."""
        if not self.given(name):
            return None
        value = self.algorithm.parameterAsDouble(self.values, name, self.context)
        if not math.isfinite(value):
            raise InputError(f"{name} is {value}; it must be a finite number.")
        return value

    def integer(self, name: str) -> int | None:
        """A whole number, None when not given."""
        value = self.number(name)
        if value is not None and value != int(value):
            raise InputError(f"{name} is {value:g}; it must be a whole number.")
        return None if value is None else int(value)

    def source(self, name: str) -> QgsProcessingFeatureSource | None:
        """A vector source with its selection and filter, None when not given."""
        if not self.given(name):
            return None
        source = self.algorithm.parameterAsSource(self.values, name, self.context)
        if source is None:
            raise InputError(self.algorithm.invalidSourceError(self.values, name))
        return source

    def field(self, name: str, source: QgsProcessingFeatureSource) -> str | None:
        """The name of an existing field of `source`, None when not given."""
        fields = self.fields(name, source)
        return fields[0] if fields else None

    def fields(self, name: str, source: QgsProcessingFeatureSource) -> list[str]:
        """Names of existing fields of `source`, in the order given."""
        names = self.algorithm.parameterAsStrings(self.values, name, self.context) if self.given(name) else []
        known = source.fields().names()
        for field in names:
            if field not in known:
                near = difflib.get_close_matches(field, known, 1)
                hint = f" Did you mean '{near[0]}'?" if near else f" Its fields: {', '.join(known) or 'none'}."
                raise InputError(f"{name}: layer '{source.sourceName()}' has no field '{field}'.{hint}")
        return names

    def flag(self, name: str) -> bool:
        """Whether a box is ticked."""
        return bool(self.algorithm.parameterAsBool(self.values, name, self.context))

    def crs(self, name: str) -> QgsCoordinateReferenceSystem:
        """A known CRS."""
        crs = self.algorithm.parameterAsCrs(self.values, name, self.context)
        if not crs.isValid():
            raise InputError(f"{name} '{self._given_text(name)}' is not known. Choose one such as EPSG:3035.")
        return crs

    def file(self, name: str) -> Path | None:
        """Path of an input file, whether it exists or not; None when not given."""
        return Path(self.algorithm.parameterAsFile(self.values, name, self.context)) if self.given(name) else None

    def rasters(self, name: str) -> list[tuple[str, str]]:
        """(path, name) of the raster layers of a parameter, for GDAL; call it where the layers live, in `prepareAlgorithm`."""
        if not self.given(name):
            return []
        wanted = self.values.get(name)
        wanted = list(wanted) if isinstance(wanted, (list, tuple)) else [wanted]
        result = []
        for value in wanted:
            layer = self.algorithm.parameterAsRasterLayer({name: value}, name, self.context)
            if layer is None and isinstance(value, str):
                layer = QgsProcessingUtils.mapLayerFromString(value, self.context)
            text = value.source() if hasattr(value, "source") else str(value)
            if not isinstance(layer, QgsRasterLayer) or not layer.isValid() or layer.providerType() != "gdal":
                raise InputError(f"{name}: '{text}' is not a raster file that can be read.")
            path = layer.source()
            result.append((path, layer.name() or Path(path).stem))
        return result

    def extent(
        self, name: str, crs: QgsCoordinateReferenceSystem, assumed: QgsCoordinateReferenceSystem
    ) -> QgsRectangle | None:
        """An extent in `crs`, None when not given; one that names no CRS of its own is in `assumed`."""
        if not self.given(name):
            return None
        value = self.values.get(name)
        if not isinstance(value, QgsRectangle) and not (isinstance(value, str) and _BARE_EXTENT.match(value)):
            extent = self.algorithm.parameterAsExtent(self.values, name, self.context, crs)
        else:
            extent = self.algorithm.parameterAsExtent(self.values, name, self.context)
            transform = QgsCoordinateTransform(assumed, crs, self.context.transformContext())
            try:
                extent = transform.transformBoundingBox(extent)
            except QgsCsException:
                extent = QgsRectangle()
        if extent.isNull() or extent.isEmpty() or not extent.isFinite():
            raise InputError(f"{name} '{self._given_text(name)}' is empty or cannot be placed in {crs.authid()}.")
        return extent

    def wants(self, name: str) -> bool:
        """Whether an (optional) output is asked for."""
        value = self.values.get(name)
        return value is not None and value != ""

    def _given_text(self, name: str) -> str:
        value = self.values.get(name)
        return getattr(value, "source", lambda: str(value))() if value is not None else ""


def wrong_value(
    algorithm: QgsProcessingAlgorithm, values: Mapping[str, Any], context: QgsProcessingContext
) -> str | None:
    """One sentence about the first value that is missing, no number, out of range or no choice, None when there is none.

    QGIS says no more than "Incorrect parameter value for BETA".
    """
    optional = QgsProcessingParameterDefinition.Flag.FlagOptional
    for definition in algorithm.parameterDefinitions():
        name, value = definition.name(), values.get(definition.name())
        if value is None or value == "" or value == []:
            if not definition.flags() & optional and definition.defaultValue() is None:
                return f"{name} ({definition.description()}) is missing."
        elif isinstance(definition, QgsProcessingParameterNumber) and isinstance(value, (str, int, float)):
            problem = _wrong_number(definition, value)
            if problem:
                return f"{name} is '{value}'; it must be {problem}."
        elif isinstance(definition, QgsProcessingParameterEnum) and isinstance(value, (str, int)):
            options = definition.options()
            if value not in options:
                return f"{name} is '{value}'; choose one of: {', '.join(options)}."
        elif not definition.checkValueIsAcceptable(value, context):
            return f"{name} is '{_text(value)}', which does not exist or is of the wrong kind."
    return None


def _text(value: object) -> str:
    """How a value reads: lists by their parts, layers by their source."""
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_text, value))
    return value.source() if callable(getattr(value, "source", None)) else str(value)


def _wrong_number(definition: QgsProcessingParameterNumber, value: str | float) -> str | None:
    low, high = definition.minimum(), definition.maximum()
    try:
        number = float(value)
    except ValueError:
        return "a number"
    if low <= number <= high and math.isfinite(number):
        return None
    if high < 1e9 or high < number < math.inf:
        return f"a number from {low:g} to {high:.10g}"
    return f"a finite number, {low:g} or more" if low > -1e9 else "a finite number"


def unknown_parameter(algorithm: QgsProcessingAlgorithm, values: Mapping[str, Any]) -> str | None:
    """One sentence about the first key that is no parameter of `algorithm`, None when all are."""
    known = [definition.name() for definition in algorithm.parameterDefinitions()]
    for key in values:
        if key not in known and not key.startswith("_"):
            near = difflib.get_close_matches(key.upper(), known, 1)
            hint = f"Did you mean {near[0]}?" if near else f"It knows: {', '.join(known)}."
            return f"{algorithm.id()} has no parameter '{key}'. {hint}"
    return None
