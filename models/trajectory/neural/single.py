"""The CNN as a method of its own (section 4.1; Table 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...errors import InputError
from ...progress import Progress, no_progress, span
from ..localizer import FitSettings, Fixes, Localizer
from ..measurements import CellSites, LocalFrame, Measurements
from ..options import Kind, Word
from ..pieces import in_pieces
from .records import Scales
from .scoring import CNN_OPTIONS, LAYOUT_OPTIONS, Layout, learn_scores, log_scores
from .sequences import LEAST_SPREAD_M, choose_held
from .weights import as_arrays, load_arrays

if TYPE_CHECKING:
    from .convolution import ScoreCnn

#: What a position is made of.
POINTS = ("centroid", "expected")


class Cnn(Localizer):
    """CNN over the 3D tensor of each record and those before it; the centroid of the most likely grid cell.

    Spread: root mean square distance of the grid cells from the position, by the scores.

    It learns with one thread, for tensors are small, and locates with several. With one seed the weights are the same on one CPU, on CUDA
    about so.

    Options
    -------
    configuration
        1 to 5 of Table 5, by default 2.
    width
        Share of the paper's filters; 1 is the paper's network, 2 GMAC a record and meant for a GPU. By default 1/16, at least 8 filters a
        layer.
    preceding
        k, by default 2.
    point
        "centroid" (the paper's) or "expected": the mean of the grid cells by their scores.
    classes
        Most grid cells to tell apart; where more hold a truth, cells are joined.
    cnn_epochs, cnn_rate
        Of training: passes over the records, by default as many as make `scoring.SEEN`, 4 to 60, and Adam's first rate.
    """

    method = "cnn"
    OPTIONS: ClassVar[Mapping[str, Kind]] = {**LAYOUT_OPTIONS, **CNN_OPTIONS, "point": Word(POINTS)}
    needs_torch = True

    def __init__(self) -> None:
        self._scales: Scales | None = None
        self._layout: Layout | None = None
        self._network: ScoreCnn | None = None
        self._card: dict[str, Any] = {}

    def fit(
        self,
        data: Measurements,
        sites: CellSites,
        settings: FitSettings = FitSettings(),  # noqa: B008 - frozen
        progress: Progress = no_progress,
    ) -> Localizer:
        """Learn from the records with truth; those without stand in the tensors of the records behind them.

        Raises
        ------
        InputError
            When too few records have a truth, or an option makes no sense.
        """
        import torch

        from ...geolocation.unet import exact_convolutions, torch_threads

        self.check(settings)
        point = str(settings.option("point", "centroid"))
        self._scales = scales = Scales.of(data, sites)
        self.frame_, self.cells_ = scales.frame, scales.cells
        usable = data.has_truth & (data.n_heard > 0)
        self._layout = layout = Layout.of(data, scales, np.flatnonzero(usable), settings)
        self._card = {**layout.card(), "point": point, "signals": [name for name, _, _ in scales.signals]}
        truth = np.nan_to_num(np.column_stack(scales.frame.to_xy(data.lon, data.lat)) / scales.scale_m)
        held = choose_held(data, usable, settings)
        with torch_threads(1), exact_convolutions():
            inputs = layout.inputs(data, scales, span(progress, 0.0, 0.05))
            rows = np.flatnonzero(usable & ~held)
            network = learn_scores(layout, inputs, truth, rows, scales.scale_m, settings, span(progress, 0.05, 0.95))
            if held.any():
                found = [np.full(len(data), np.nan) for _ in range(3)]
                asked = np.flatnonzero(held)
                device = torch.device(settings.device)
                scores = log_scores(network, inputs, device, span(progress, 0.95, 1.0), asked)
                for column, values in zip(found, self._points(scores)):
                    column[asked] = values
                self.out_of_fold_ = Fixes(*found)
        self._network = network.eval()
        progress(1.0)
        return self

    def predict(
        self, data: Measurements, progress: Progress = no_progress, device: str = "cpu", threads: int = 1
    ) -> Fixes:
        """Return a fix for every record; memory is bounded by `pieces.CHUNK` records a thread."""
        import torch

        from ...geolocation.unet import exact_convolutions, torch_threads

        scales, layout, network = self._parts()
        place = torch.device(device)
        network = network.to(place).eval()

        def work(piece: Measurements, alive: Progress) -> np.ndarray:
            return np.stack(self._points(log_scores(network, layout.inputs(piece, scales), place, alive)))

        with torch_threads(1), exact_convolutions():
            found = in_pieces(data.recoded(self.cells_), layout.preceding, threads, progress, work)
        progress(1.0)
        return Fixes(*found)

    def _points(self, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Positions and spreads [m] from logarithms of scores, shape (n, C)."""
        _, layout, _ = self._parts(learned=False)
        centres = layout.centres_m
        xy, spread = np.empty((len(scores), 2)), np.empty(len(scores))
        for begin in range(0, len(scores), 2048):
            part = slice(begin, begin + 2048)
            share = np.exp(scores[part].astype(np.float32))
            share /= share.sum(axis=1, keepdims=True)
            expected = share @ centres
            xy[part] = centres[share.argmax(axis=1)] if self._card["point"] == "centroid" else expected
            square = (
                share @ (centres**2).sum(axis=1) - 2 * (expected * xy[part]).sum(axis=1) + (xy[part] ** 2).sum(axis=1)
            )
            spread[part] = np.sqrt(np.maximum(square, LEAST_SPREAD_M**2))
        return xy[:, 0], xy[:, 1], spread

    def _parts(self, learned: bool = True) -> tuple[Scales, Layout, ScoreCnn]:
        if self._scales is None or self._layout is None or (learned and self._network is None):
            raise InputError("The localizer has not learned anything yet.")
        return self._scales, self._layout, self._network  # type: ignore[return-value]

    def tensors(self) -> dict[str, np.ndarray]:
        """Weights by their names in the torch state dict, float32, scales, and the grid cells."""
        scales, layout, network = self._parts()
        return {**as_arrays(network, "network."), **scales.tensors(), **layout.tensors()}

    def card(self) -> dict[str, Any]:
        """Sizes of the network and names of the signals."""
        return dict(self._card)

    @classmethod
    def restore(
        cls, frame: LocalFrame, cells: tuple[str, ...], tensors: Mapping[str, np.ndarray], card: Mapping[str, Any]
    ) -> Localizer:
        """Build again.

        Raises
        ------
        InputError
            When something is missing, damaged or does not fit.
        """
        found = cls()
        names, point = card.get("signals"), card.get("point")
        if not isinstance(names, list) or point not in POINTS:
            raise InputError("The model is damaged: its card names no signals or no point.")
        found._card = dict(card)
        found._scales = scales = Scales.restore(frame, cells, dict(tensors), [str(name) for name in names])
        found._layout = Layout.restore(scales, tensors, card)
        network = found._layout.network(1 + len(names))
        load_arrays(network, tensors, "network.")
        found.frame_, found.cells_, found._network = frame, cells, network.eval()
        return found
