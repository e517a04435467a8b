"""Localizers on disk: one safetensors file with all that was learned, and a card that says from what."""

from __future__ import annotations

import os
from dataclasses import asdict
from typing import Any

import numpy as np

from ..errors import InputError
from ..weights_file import Weights, read_weights, write_weights
from .localizer import Calibration
from .measurements import LocalFrame
from .methods import PLAIN, VARIANTS, class_of
from .street_lines import StreetLines
from .training import TrainedLocalizer

KIND = "localizer"
#: Raised when what the files hold changes its meaning.
FORMAT = 1
_LEARNED, _STREETS = "learned.", "streets."


def save_localizer(path: str | os.PathLike[str], model: TrainedLocalizer) -> None:
    """Write a localizer; equal ones make equal bytes.

    Raises
    ------
    OutputError
        When the file cannot be written.
    """
    tensors = {_LEARNED + name: array for name, array in model.localizer.tensors().items()}
    if model.streets is not None:
        tensors[_STREETS + "lonlat"] = model.streets.lonlat
        tensors[_STREETS + "first"] = np.asarray(model.streets.first, np.int64)
        tensors[_STREETS + "direction"] = np.asarray(model.streets.direction, np.int8)
    card = {
        "format": FORMAT,
        "method": model.localizer.method,
        "variant": model.variant,
        "frame": asdict(model.localizer.frame_),
        "cells": list(model.localizer.cells_),
        "plain": asdict(model.plain),
        "calibration": asdict(model.calibration),
        "learned": model.localizer.card(),
        "training": dict(model.card),
    }
    write_weights(path, Weights(KIND, tensors, card))


def load_localizer(path: str | os.PathLike[str]) -> TrainedLocalizer:
    """Read a localizer.

    Raises
    ------
    InputError
        When the file is no localizer, of another version, or damaged.
    """
    weights = read_weights(path, finite=False)  # NaN is what is not known of a cell
    card = weights.card
    if weights.kind != KIND:
        raise InputError(
            f"{path} holds weights for '{weights.kind}', not a localizer. Use a file that 'Train localizer' wrote."
        )
    if card.get("format") != FORMAT:
        raise InputError(
            f"The model {path} has format {card.get('format')}, but this version of TelcoLoc reads format {FORMAT}. Train it again "
            "with 'Train localizer'."
        )
    method, variant = card.get("method"), card.get("variant")
    if method not in PLAIN or variant not in VARIANTS:
        raise InputError(
            f"The model {path} is of method '{method}' ('{variant}'), which this version of TelcoLoc does not know. Train it again "
            "with 'Train localizer'."
        )
    try:
        cells = tuple(str(name) for name in card["cells"])
        frame = LocalFrame(**card["frame"])
        learned = {name[len(_LEARNED) :]: array for name, array in weights.tensors.items() if name.startswith(_LEARNED)}
        localizer = class_of(method).restore(frame, cells, learned, card["learned"])
        return TrainedLocalizer(
            localizer,
            variant,
            Calibration(**card["plain"]),
            Calibration(**card["calibration"]),
            _streets_of(weights.tensors),
            dict(card["training"]),
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        if isinstance(error, InputError):
            raise InputError(f"The model {path} cannot be used. {error}") from error
        raise InputError(f"The model {path} is damaged ({error!r}). Copy it again, or train it again.") from error


def _streets_of(tensors: Any) -> StreetLines | None:  # noqa: ANN401 - a mapping of arrays
    if _STREETS + "lonlat" not in tensors:
        return None
    return StreetLines(*(tensors[_STREETS + name] for name in ("lonlat", "first", "direction")))
