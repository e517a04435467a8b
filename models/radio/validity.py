"""What a propagation model was made for, and sentences about what lies outside."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .transmitters import Transmitters

#: Share of the distances outside a model's range that is worth a sentence.
WORTH_SAYING = 0.05


@dataclass(frozen=True)
class Validity:
    """The range of a model's parameters.

    Parameters
    ----------
    source
        The standard and its clause.
    freq_mhz, height_m, device_height_m, distance_m
        Least and largest frequency [MHz], heights of antenna and device [m] and distance [m]; None where the source sets no limits.
    beyond
        What is done outside, as the end of a sentence.
    """

    source: str
    freq_mhz: tuple[float, float] | None = None
    height_m: tuple[float, float] | None = None
    device_height_m: tuple[float, float] | None = None
    distance_m: tuple[float, float] | None = None
    beyond: str = "the formula is used all the same"


def warnings(validity: Validity, transmitters: Transmitters, device_height_m: float) -> list[str]:
    """Return one sentence per parameter outside its range.

    Parameters
    ----------
    validity
        The model's range.
    transmitters
        Whose frequencies and heights are looked at.
    device_height_m
        Height of the device [m].
    """
    found = []
    for name, values, limits, unit in (
        ("frequency", transmitters.freq_mhz, validity.freq_mhz, "MHz"),
        ("antenna height", transmitters.height_m, validity.height_m, "m"),
    ):
        if limits is None:
            continue
        outside = np.flatnonzero((values < limits[0]) | (values > limits[1]))
        if len(outside):
            first = int(outside[0])
            whose = f"'{transmitters.ids[first]}' ({values[first]:g} {unit})"
            if len(outside) > 1:
                whose += f" and {len(outside) - 1} more"
            found.append(f"The {name} of {whose} is {_beyond(limits, unit, validity)}")
    limits = validity.device_height_m
    if limits is not None and not limits[0] <= device_height_m <= limits[1]:
        found.append(f"The device height of {device_height_m:g} m is {_beyond(limits, 'm', validity)}")
    return found


def share_warning(validity: Validity, share: float) -> list[str]:
    """Return a sentence when a good share of the distances from transmitters to places lies outside the model's range."""
    if validity.distance_m is None or share < WORTH_SAYING:
        return []
    return [f"{share:.0%} of the distances are {_beyond(validity.distance_m, 'm', validity)}"]


def _beyond(limits: tuple[float, float], unit: str, validity: Validity) -> str:
    """Return the end of a sentence about one parameter."""
    range_text = (
        f"outside {limits[0]:g} to {limits[1]:g} {unit}" if limits[0] < limits[1] else f"not {limits[0]:g} {unit}"
    )
    return f"{range_text} ({validity.source}); {validity.beyond}."
