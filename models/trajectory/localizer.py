"""What every localisation method is: an estimator that learns from records with truth and gives each record a fix."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from ..errors import InputError
from ..progress import Progress, no_progress
from .measurements import CellSites, LocalFrame, Measurements
from .options import Kind, check_values


@dataclass(frozen=True)
class FitSettings:
    """How to learn.

    Parameters
    ----------
    seed
        Of every random choice.
    device
        "cpu" or "cuda", for the neural methods.
    threads
        Threads that may be used.
    split
        What the fix will be judged by: "trajectory", "day" or "sample". A method that holds out a part of its own (early stopping)
        holds out whole ones of these.
    options
        Settings of the method itself by name, see its class.
    """

    seed: int = 0
    device: str = "cpu"
    threads: int = 1
    split: str = "trajectory"
    options: Mapping[str, Any] | None = None

    def option(self, name: str, default: Any) -> Any:  # noqa: ANN401 - as the caller's default
        """Return the option `name`, `default` when it is not set."""
        return (self.options or {}).get(name, default)


@dataclass(frozen=True)
class Fixes:
    """Where records are, by a method.

    Parameters
    ----------
    x_m, y_m
        In the method's `LocalFrame`, shape (n,); finite for every record.
    spread_m
        How sure the method is, shape (n,), > 0: a scale in metres that only needs to rank records; `Calibration` makes radii of it.
    """

    x_m: np.ndarray
    y_m: np.ndarray
    spread_m: np.ndarray


class Localizer(ABC):
    """A method: `fit`, then `predict`; `tensors` and `card` are all it has learned.

    Attributes
    ----------
    frame_
        The metres that it works in.
    cells_
        Ids of the cells it knows.
    out_of_fold_
        After `fit`, when the method held a part of the records out by itself (early stopping, folds): fixes of the records given to
        `fit` by a model that had not learned from them, NaN for the others; None when there is no such thing.
    """

    #: Name users choose it by.
    method: ClassVar[str] = ""
    #: Its options in `FitSettings.options` by name, and what each may be; None where it does not say.
    OPTIONS: ClassVar[Mapping[str, Kind] | None] = None
    #: Whether it needs torch.
    needs_torch: ClassVar[bool] = False

    frame_: LocalFrame
    cells_: tuple[str, ...]
    out_of_fold_: Fixes | None = None

    @classmethod
    def check(cls, settings: FitSettings) -> None:
        """Refuse values of its options that make no sense; every `fit` does so first. Options of other methods are not looked at.

        Raises
        ------
        InputError
            With what the option must be.
        """
        check_values(cls.OPTIONS or {}, settings.options or {})

    @abstractmethod
    def fit(
        self,
        data: Measurements,
        sites: CellSites,
        settings: FitSettings = FitSettings(),
        progress: Progress = no_progress,
    ) -> Localizer:
        """Learn from the records with truth; those without may serve as context only.

        Raises
        ------
        InputError
            When too few records have a truth, or an option makes no sense.
        """

    @abstractmethod
    def predict(
        self, data: Measurements, progress: Progress = no_progress, device: str = "cpu", threads: int = 1
    ) -> Fixes:
        """Return a fix for every record, whatever it holds; true positions in `data` are not looked at."""

    @abstractmethod
    def tensors(self) -> dict[str, np.ndarray]:
        """Arrays of all that was learned, by name; text belongs to `card`."""

    @abstractmethod
    def card(self) -> dict[str, Any]:
        """JSON values that `restore` needs beside the arrays; `frame_` and `cells_` are kept by the model file."""

    @classmethod
    @abstractmethod
    def restore(
        cls, frame: LocalFrame, cells: tuple[str, ...], tensors: Mapping[str, np.ndarray], card: Mapping[str, Any]
    ) -> Localizer:
        """Build again from what `tensors` and `card` returned."""


@dataclass(frozen=True)
class Calibration:
    """Radii of the circles that hold a share of the truths, from a method's spreads.

    Radius = `scale` · spread^`power`; scales are quantiles of error / spread^power on records the method has not learned from.

    Parameters
    ----------
    power
        How much of the spread's ranking is believed, in [0, 1].
    scale_50, scale_90
        For the circles that hold 50 % and 90 % of the truths.
    """

    power: float
    scale_50: float
    scale_90: float

    @classmethod
    def of(cls, error_m: np.ndarray, spread_m: np.ndarray) -> Calibration:
        """Learn from errors [m] and spreads [m] of held-out records, shape (n,).

        The power is the one whose circles are smallest: the mean logarithm of both radii, which hold the same shares whatever the power.

        Raises
        ------
        InputError
            When there is no record.
        """
        if not len(error_m):
            raise InputError("No held-out record has a truth, so nothing says how uncertain the positions are.")
        spread = np.maximum(spread_m, 1e-3)
        best, least = cls(0.0, 1.0, 1.0), np.inf
        for power in np.linspace(0, 1, 11):
            scaled = np.maximum(error_m, 1e-3) / spread**power
            scale_50, scale_90 = np.quantile(scaled, [0.5, 0.9])
            size = np.log(scale_50) + np.log(scale_90) + 2 * power * np.log(spread).mean()
            if size < least - 1e-9:
                best, least = cls(float(power), float(scale_50), float(scale_90)), size
        return best

    def radii_m(self, spread_m: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Radii [m] of the circles that hold 50 % and 90 %, each of shape (n,)."""
        base = np.maximum(spread_m, 1e-3) ** self.power
        return self.scale_50 * base, self.scale_90 * base


def training_rows(data: Measurements, least: int = 10) -> np.ndarray:
    """Rows with a truth and at least one cell, shape (n,).

    Raises
    ------
    InputError
        When there are fewer than `least`.
    """
    rows = np.flatnonzero(data.has_truth & (data.n_heard > 0))
    if len(rows) < least:
        raise InputError(
            f"Only {len(rows)} of {len(data):,} records have both a true position and a cell; at least {least} are needed to learn from."
        )
    return rows
