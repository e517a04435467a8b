"""Reading KPIs: the rows of a layer or table, summed per band of a geolocation stack."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from qgis.core import NULL, QgsFeatureRequest, QgsProcessingFeatureSource

from ..models.errors import InputError
from .columns import need_rows
from .sites import id_text, listed

if TYPE_CHECKING:
    from ..models.geolocation.stack import Stack
    from .algorithm import Run


class Kpis:
    """KPI values summed per band of a stack, and what could not be matched."""

    def __init__(
        self, run: Run, source: QgsProcessingFeatureSource, id_field: str | None, fields: list[str], stack: Stack
    ) -> None:
        band = {name: index for index, names in enumerate(stack.members) for name in names}
        has_mass = np.diff(stack.maps.indptr) > 0
        self.by_bs = np.zeros((len(stack.ids), len(fields)))
        self.total_given = self.total_lost = 0.0
        self.matched = self.unmatched = 0
        unknown, unusable, without_mass = [], [], []
        need_rows("INPUT", source)
        request = QgsFeatureRequest().setFlags(QgsFeatureRequest.Flag.NoGeometry)
        request.setSubsetOfAttributes([*fields, *([id_field] if id_field else [])], source.fields())
        for count, feature in enumerate(source.getFeatures(request)):
            if count % 1000 == 0:
                run.progress(0.45)
            name = id_text(feature[id_field]) if id_field else str(feature.id())
            values = [_number(feature[field], field, name or f"feature {feature.id()}") for field in fields]
            missing = [field for field, value in zip(fields, values) if math.isnan(value)]
            total = float(np.nansum(values))
            self.total_given += total
            if missing:
                unusable.append(f"'{name}': {', '.join(missing[:3])} empty or NaN")
            if not name or name not in band:
                unknown.append(f"'{name}'")
            elif not has_mass[band[name]]:
                without_mass.append(f"'{name}'")
            else:
                self.by_bs[band[name]] += np.nan_to_num(values)
                self.matched += 1
                continue
            self.total_lost += total
            self.unmatched += 1
        if not self.matched:
            shown = f"ids such as {unknown[0]}" if unknown else "bands without mass"
            raise InputError(
                f"No row of '{source.sourceName()}' matches a band of stack '{stack.name}' ({shown}; bands such as '{stack.ids[0]}'). "
                "Choose the ID_FIELD the stack was made with."
            )
        if unknown:
            run.warn(f"{len(unknown):,} rows have no band in the stack and are not mapped: {listed(unknown)}.")
        if without_mass:
            run.warn(
                f"{len(without_mass):,} rows belong to bands without mass and are not mapped: {listed(without_mass)}."
            )
        if unusable:
            run.warn(f"{len(unusable):,} rows hold empty or NaN values, which count as 0: {listed(unusable)}.")
        left = len(stack.ids) - int((self.by_bs != 0).any(axis=1).sum())
        if left:
            run.info(f"{left:,} of {len(stack.ids):,} base stations of the stack have no KPI or only zeros.")


def _number(value: object, field: str, row: str) -> float:
    """A KPI value; NaN for NULL and blanks; text that reads as a number (also with a decimal comma) counts as one."""
    if value is None or value == NULL or value == "":
        return math.nan
    try:
        number = float(value.replace(",", ".") if isinstance(value, str) else value)
    except (TypeError, ValueError) as error:
        raise InputError(
            f"Field '{field}' of '{row}' is '{value}', which is not a number. Choose numeric FIELDS."
        ) from error
    if math.isinf(number):
        raise InputError(f"Field '{field}' of '{row}' is infinite. Correct it, or choose other FIELDS.")
    return number
