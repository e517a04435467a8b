"""RecuLSTM and DeepLoc (sections 4.2 and 4.3; Table 3)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast

import numpy as np

from ...errors import InputError
from ...progress import Progress, span
from ..localizer import FitSettings
from ..measurements import Measurements
from ..options import Count, Kind, Switch, Word
from ..splits import folds, groups
from .scoring import CNN_OPTIONS, LAYOUT_OPTIONS, SEEN, Layout, learn_scores, log_scores
from .sequences import WIDTH, SequenceLocalizer
from .weights import as_arrays, load_arrays
from .windows import run_lengths, window_sizes

if TYPE_CHECKING:
    import torch
    from torch import nn

    from .convolution import ScoreCnn
    from .records import Scales
    from .sequence import RecursiveLstm

#: Ways to join the vectors of a window.
JOINS = ("concat", "mean", "max", "last")
#: CNNs of DeepLoc, each trained on the part of the records that the other one scores.
N_CNNS = 2


class RecuLstm(SequenceLocalizer):
    """Recursive LSTM of section 4.2.2 on the record's features; DeepLoc without its CNN. See `sequence.RecursiveLstm`.

    The prediction layer has a hidden unit for each grid cell that holds training truths and W(2) starts at their positions; there are no
    scores that W(1) could start from.

    Options
    -------
    w1, w2
        Window sizes, by default from C1_bs and C2_bs of the records (`windows.window_sizes`).
    recursive
        Recursive layers, 0 to 4, by default 2.
    concat
        How a window's vectors are joined: "concat" (default), "mean", "max", "last".
    initialise
        False: the prediction layer starts at random, the paper's "without optimization".
    hidden, epochs, rate, batch
        As in `SequenceLocalizer`.
    """

    method = "reculstm"
    OPTIONS: ClassVar[Mapping[str, Kind]] = {
        **{name: kind for name, kind in SequenceLocalizer.OPTIONS.items() if name != "window"},
        **dict.fromkeys(("w1", "w2"), Count(1, 200)),
        "recursive": Count(0, 4),
        "concat": Word(JOINS),
        "initialise": Switch(),
        **LAYOUT_OPTIONS,
    }
    seen = 1_000_000
    _layout: Layout | None = None

    def _design(self, data: Measurements, settings: FitSettings) -> dict[str, Any]:
        first, second = window_sizes(*run_lengths(data))
        first, second = int(settings.option("w1", first)), int(settings.option("w2", second))
        recursive, join = int(settings.option("recursive", 2)), str(settings.option("concat", "concat"))
        length = first * (second if recursive != 1 else 1) * 2 ** max(0, recursive - 2)
        scales = self._known_scales
        usable = np.flatnonzero(data.has_truth & (data.n_heard > 0))
        self._layout = Layout.of(data, scales, usable, settings)
        return {
            **self._layout.card(),
            "window": length,
            "w1": first,
            "w2": second,
            "recursive": recursive,
            "concat": join,
            "initialise": bool(settings.option("initialise", True)),
            "hidden": int(settings.option("hidden", 128)),
            "reduced": self._reduced(settings),
        }

    def _reduced(self, settings: FitSettings) -> int:  # noqa: ARG002 - for those that have a CNN
        return 0

    def _build(self, scales: Scales, card: Mapping[str, Any]) -> nn.Module:
        from .sequence import RecursiveLstm

        return RecursiveLstm(
            len(scales.cells),
            scales.n_context,
            len(self._known_layout.classes),
            (int(card["w1"]), int(card["w2"])),
            int(card["recursive"]),
            str(card["concat"]),
            int(card["hidden"]),
            int(card["reduced"]),
            bool(card["initialise"]),
        )

    @property
    def _known_layout(self) -> Layout:
        if self._layout is None:
            raise InputError("The localizer has not learned anything yet.")
        return self._layout

    def _start(self, network: nn.Module, generator: torch.Generator) -> None:
        import torch

        centres = self._known_layout.centres_m / self._known_scales.scale_m
        cast("RecursiveLstm", network).head.start(torch.from_numpy(centres.astype(np.float32)), generator)

    def _centres(self) -> np.ndarray | None:
        return self._known_layout.centres_m

    def _naming_sigma_m(self) -> float:
        grid = self._known_layout.class_grid
        return 0.5 * float(np.hypot(grid.width_m, grid.height_m))

    def tensors(self) -> dict[str, np.ndarray]:
        """Weights by their names in the torch state dict, scales, and the grid cells."""
        return {**super().tensors(), **self._known_layout.tensors()}

    def _restore_more(self, tensors: Mapping[str, np.ndarray]) -> None:
        self._layout = Layout.restore(self._known_scales, tensors, self._card)


class DeepLoc(RecuLstm):
    """CNN and RecuLSTM (section 4): the CNN's scores of each record, made fewer by an FC layer, feed the RecuLSTM.

    The CNN is trained first. Its scores of records it has learned from would be far better than those of new ones, and the RecuLSTM would
    trust them too much; so, beyond the paper, there are two CNNs, each trained on half of the records (whole trajectories or days, where
    these are held out) and scoring the other half. New records get the mean of both.

    Options
    -------
    configuration, width, preceding, classes
        Of the CNN: see `Cnn`.
    cnn_epochs, cnn_rate
        Of its training, as in `Cnn`.
    others
        As in `RecuLstm`.
    """

    method = "deeploc"
    OPTIONS: ClassVar[Mapping[str, Kind]] = {**RecuLstm.OPTIONS, **CNN_OPTIONS, "reduced": WIDTH}

    def __init__(self) -> None:
        super().__init__()
        self._cnns: list[ScoreCnn] = []

    def _reduced(self, settings: FitSettings) -> int:
        return int(settings.option("reduced", 64))

    def _prepare(
        self, data: Measurements, truth: np.ndarray, learn: np.ndarray, settings: FitSettings, progress: Progress
    ) -> np.ndarray | None:
        import torch

        layout, scales = self._known_layout, self._known_scales
        inputs = layout.inputs(data, scales, span(progress, 0.0, 0.05))
        parts = self._parts(data, learn, settings)
        device = torch.device(settings.device)
        self._cnns = []
        for stream, part in enumerate(parts):
            done = span(progress, 0.05 + 0.75 * stream / N_CNNS, 0.05 + 0.75 * (stream + 1) / N_CNNS)
            rows = np.flatnonzero(learn & ~part)
            self._cnns.append(
                learn_scores(layout, inputs, truth, rows, scales.scale_m, settings, done, stream, SEEN // N_CNNS)
            )
        every = [
            log_scores(network, inputs, device, span(progress, 0.8 + 0.1 * stream, 0.9 + 0.1 * stream))
            for stream, network in enumerate(self._cnns)
        ]
        scores = _mean_score(every)
        for part, one in zip(parts, every):
            scores[part] = one[part]
        return scores

    def _parts(self, data: Measurements, learn: np.ndarray, settings: FitSettings) -> list[np.ndarray]:
        """Halves of the rows to learn from, as masks; by sample when there is a single trajectory or day."""
        seen = data.without_truth(~learn)
        rng = np.random.default_rng([settings.seed, 7])
        try:
            return folds(groups(seen, settings.split), N_CNNS, rng)
        except InputError:
            return folds(groups(seen, "sample"), N_CNNS, rng)

    def _scores(self, data: Measurements, device: torch.device, progress: Progress) -> np.ndarray | None:
        inputs = self._known_layout.inputs(data, self._known_scales)
        every = [
            log_scores(network, inputs, device, span(progress, stream / N_CNNS, (stream + 1) / N_CNNS))
            for stream, network in enumerate(self._cnns)
        ]
        return _mean_score(every)

    def _to(self, place: torch.device) -> None:
        for network in self._cnns:
            network.to(place).eval()

    def tensors(self) -> dict[str, np.ndarray]:
        """Weights by their names in the torch state dicts, scales, and the grid cells."""
        found = super().tensors()
        for stream, network in enumerate(self._cnns):
            found.update(as_arrays(network, f"cnn{stream}."))
        return found

    def _restore_more(self, tensors: Mapping[str, np.ndarray]) -> None:
        super()._restore_more(tensors)
        features = 1 + len(self._known_scales.signals)
        self._cnns = [self._known_layout.network(features) for _ in range(N_CNNS)]
        for stream, network in enumerate(self._cnns):
            load_arrays(network, tensors, f"cnn{stream}.")


def _mean_score(every: list[np.ndarray]) -> np.ndarray:
    """Mean of logarithms of scores: the geometric mean of the CNNs' opinions; the softmax that follows scales it to one."""
    return np.mean(np.stack(every), axis=0, dtype=np.float32).astype(np.float16)
