"""The localizers over sequences: what they share, and the five that are not RecuLSTM (DeepLoc, Table 3)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ...errors import InputError
from ...progress import Progress, no_progress, span
from ..localizer import FitSettings, Fixes, Localizer
from ..measurements import CellSites, LocalFrame, Measurements
from ..options import MANY, SHARE, Count, Kind, Number, Switch
from ..pieces import in_pieces
from ..splits import groups, held_out
from .pixels import PixelGrid, sparse_tensors
from .records import Scales
from .scoring import PRECEDING
from .weights import as_arrays, load_arrays
from .windows import batches, run_lengths, training_windows, window_sizes

if TYPE_CHECKING:
    import torch
    from torch import nn

    from .course import Course

#: Shares of what has a truth that are held out to stop early and to calibrate.
HELD_SAMPLES, HELD_TRAJECTORIES = 0.1, 0.12
#: How much more noise there is in learning where whole trajectories or days will be judged.
NOISE_APART = 2.5
#: What the width of a layer may be.
WIDTH = Count(1, 4096)
#: Smallest spread that is reported [m].
LEAST_SPREAD_M = 1.0


def choose_held(data: Measurements, usable: np.ndarray, settings: FitSettings) -> np.ndarray:
    """Records held out to stop early and to calibrate, a mask of shape (n,): whole trajectories or days, or single ones by sample.

    Nothing is held out when the records are of one trajectory or day only.
    """
    none = np.zeros(len(data), dtype=bool)
    seen = data.without_truth(~usable)
    split = settings.split
    if split != "sample":
        parts = np.unique(data.trajectory[usable])
        if len(parts) < 2:
            return none
        if split == "day":
            try:
                code = groups(seen, "day")
            except InputError:  # a single day
                code = groups(seen, "trajectory")
        else:
            code = groups(seen, "trajectory")
        share = HELD_TRAJECTORIES
    else:
        code, share = groups(seen, "sample"), HELD_SAMPLES
    mask = held_out(code, share, np.random.default_rng([settings.seed, 5]))
    return mask & usable if (usable & ~mask).sum() >= 5 else none


class SequenceLocalizer(Localizer):
    """What the sequence methods share: windows of records go through a network that gives each record a position.

    Records without truth stand in the windows as context; the loss counts those with one. A part is held out (`HELD_SAMPLES`,
    `HELD_TRAJECTORIES`) to stop early, and its fixes become `out_of_fold_`; a last, short course then learns from all records.

    Beyond the paper: `RecordEncoder` instead of raw columns; time gaps and the heard cells' positions among the features; the mean distance
    as the loss instead of its square, for the errors are judged by their median; at prediction, windows overlap by half and are averaged.
    Spread: a second output learns the expected error (exponential in the distance), and windows' disagreement is added.

    It learns with one thread, for tensors are small, and locates with several. With one seed the weights are the same on one CPU, on CUDA
    about so.

    Options
    -------
    epochs, rate, batch
        Passes over the records (by default as many as make `seen`, 8 to 300), Adam's first rate, records in a step.
    noise
        How much cells are dropped and RSS shifted while learning: 1 for the paper's split, `NOISE_APART` for whole trajectories.
    hidden
        Width of the layers.
    window
        Records in a window, by default w1·w2 of `windows.window_sizes`.
    """

    needs_torch: ClassVar[bool] = True
    OPTIONS: ClassVar[Mapping[str, Kind]] = {
        "epochs": MANY,
        "rate": SHARE,
        "batch": MANY,
        "refit": Switch(),
        "noise": Number(0, 10),
        "hidden": WIDTH,
        "window": MANY,
    }
    #: Records to learn from in all, each counted as often as it is seen, unless `epochs` says otherwise.
    seen: ClassVar[int] = 600_000
    #: Records in a step, unless the option says otherwise.
    batch: ClassVar[int] = 512
    #: After `fit`: mean error of the held-out records [m] by epoch, where some were held out.
    history_: list[tuple[int, float]]

    def __init__(self) -> None:
        self._scales: Scales | None = None
        self._network: nn.Module | None = None
        self._card: dict[str, Any] = {}

    # What a method is

    @abstractmethod
    def _design(self, data: Measurements, settings: FitSettings) -> dict[str, Any]:
        """JSON values that say how large the network is."""

    @abstractmethod
    def _build(self, scales: Scales, card: Mapping[str, Any]) -> nn.Module:
        """The network of a card."""

    def _prepare(
        self, data: Measurements, truth: np.ndarray, learn: np.ndarray, settings: FitSettings, progress: Progress
    ) -> np.ndarray | None:
        """Learn what comes before the sequence network; scores for `data`, or None."""
        del data, truth, learn, settings
        progress(0.0)
        return None

    def _start(self, network: nn.Module, generator: torch.Generator) -> None:
        """Set weights that do not begin at random."""

    def _centres(self) -> np.ndarray | None:
        """Grid cells to name while learning [m], shape (C, 2), and None without."""
        return None

    def _course(self, data: Measurements, device: torch.device, progress: Progress) -> Course:
        from .course import Course

        return Course(self._known_scales.arrays(data), data.starts, device, self._scores(data, device, progress))

    def _scores(self, data: Measurements, device: torch.device, progress: Progress) -> np.ndarray | None:
        """Logarithms of the CNN's scores of records that it has not learned from."""
        del data, device, progress
        return None

    # What all do

    @property
    def _known_scales(self) -> Scales:
        if self._scales is None:
            raise InputError("The localizer has not learned anything yet.")
        return self._scales

    @property
    def _length(self) -> int:
        return int(self._card["window"])

    def fit(
        self,
        data: Measurements,
        sites: CellSites,
        settings: FitSettings = FitSettings(),  # noqa: B008 - frozen
        progress: Progress = no_progress,
    ) -> Localizer:
        """Learn from the records with truth; those without are context.

        Raises
        ------
        InputError
            When too few records have a truth, or an option makes no sense.
        """
        from ...geolocation.unet import exact_convolutions, torch_threads

        self.check(settings)
        self._scales = Scales.of(data, sites)
        self.frame_, self.cells_ = self._scales.frame, self._scales.cells
        sizes = window_sizes(*run_lengths(data))
        self._card = {"window": int(settings.option("window", max(2, sizes[0] * sizes[1])))}
        self._card.update(self._design(data, settings), signals=[name for name, _, _ in self._scales.signals])
        with (
            torch_threads(1),
            exact_convolutions(),
        ):  # two would wait for one another most of the time, on tensors so small
            self._learn(data, settings, progress)
        progress(1.0)
        return self

    def _learn(self, data: Measurements, settings: FitSettings, progress: Progress) -> None:
        import torch

        from .course import locate
        from .layers import Noise, initialise
        from .learning import descend, position_loss

        scales = self._known_scales
        usable = data.has_truth & (data.n_heard > 0)
        held = choose_held(data, usable, settings)
        truth = np.nan_to_num(np.column_stack(scales.frame.to_xy(data.lon, data.lat)) / scales.scale_m)
        learn = usable & ~held
        scores = self._prepare(data, truth, learn, settings, span(progress, 0.0, 0.5))
        before = 0.0 if scores is None else 0.5
        device = torch.device(settings.device)
        rng = np.random.default_rng([settings.seed, 3])
        network = self._build(scales, self._card)
        generator = torch.Generator().manual_seed(int(rng.integers(2**31)))
        initialise(network, generator)
        self._start(network, generator)
        network = network.to(device)
        strength = float(settings.option("noise", 1.0 if settings.split == "sample" else NOISE_APART))
        noise = Noise(torch.Generator(device).manual_seed(int(rng.integers(2**31))), device, strength)
        course = self._course_to_learn(data, scores, device)
        target = torch.from_numpy(truth.astype(np.float32)).to(device)
        centres = self._centres()
        middle = None if centres is None else torch.from_numpy((centres / scales.scale_m).astype(np.float32)).to(device)
        sigma = self._naming_sigma_m() / scales.scale_m
        grain = min(3.0 / scales.scale_m, 0.1)
        most = int(settings.option("batch", self.batch))

        def passes(counted: np.ndarray) -> Any:  # noqa: ANN401 - two functions
            counts = torch.from_numpy(counted).to(device)

            def windows_of() -> list[np.ndarray]:
                found = batches(training_windows(data.starts, self._length, rng), most)
                kept = [
                    rows for rows in (one[rng.permutation(len(one))] for one in found) if counted[rows[rows >= 0]].any()
                ]
                return [kept[index] for index in rng.permutation(len(kept))]

            def loss_of(windows: np.ndarray) -> torch.Tensor | None:
                rows = torch.from_numpy(np.maximum(windows, 0)).to(device)
                there = counts[rows] & torch.from_numpy(windows >= 0).to(device)
                return position_loss(network(course.batch(windows), noise), target[rows], there, grain, middle, sigma)

            return windows_of, loss_of

        def judge(alive: Progress) -> float:
            network.eval()
            xy, _ = locate(network, course, self._length, alive)
            network.train()
            return float(np.hypot(*(xy - truth)[held].T).mean() * scales.scale_m)

        epochs, rate = self._epochs(data, settings), float(settings.option("rate", 5e-3))
        refit = max(1, epochs // 6) if held.any() and settings.option("refit", True) else 0
        parts = span(progress, before, 1.0)
        turn = epochs / (epochs + refit)
        windows_of, loss_of = passes(learn)
        network.train()
        self.history_ = descend(
            network,
            epochs,
            rate,
            windows_of,
            loss_of,
            span(parts, 0.0, turn),
            judge if held.any() else None,
            judge_every=max(1, epochs // 6),
        )[1]
        self._network = network
        if held.any():
            network.eval()
            xy, spread = locate(network, course, self._length, lambda _: parts(turn))
            self.out_of_fold_ = self._fixes(xy, spread, held)
        if refit:
            windows_of, loss_of = passes(usable)
            network.train()
            descend(network, refit, 0.3 * rate, windows_of, loss_of, span(parts, turn, 1.0))
        network.eval()

    def _epochs(self, data: Measurements, settings: FitSettings) -> int:
        usual = min(max(round(self.seen / max(len(data), 1)), 8), 300)
        return max(1, int(settings.option("epochs", usual)))

    def _course_to_learn(self, data: Measurements, scores: np.ndarray | None, device: torch.device) -> Course:
        from .course import Course

        return Course(self._known_scales.arrays(data), data.starts, device, scores)

    def _naming_sigma_m(self) -> float:
        return 20.0

    def _fixes(self, xy: np.ndarray, spread: np.ndarray, only: np.ndarray | None = None) -> Fixes:
        scale_m = self._known_scales.scale_m
        columns = [xy[:, 0] * scale_m, xy[:, 1] * scale_m, np.maximum(spread * scale_m, LEAST_SPREAD_M)]
        if only is not None:
            columns = [np.where(only, column, np.nan) for column in columns]
        return Fixes(*columns)

    def predict(
        self, data: Measurements, progress: Progress = no_progress, device: str = "cpu", threads: int = 1
    ) -> Fixes:
        """Return a fix for every record; memory is bounded by `pieces.CHUNK` records a thread."""
        import torch

        from ...geolocation.unet import exact_convolutions, torch_threads
        from .course import locate

        if self._network is None:
            raise InputError("The localizer has not learned anything yet.")
        data = data.recoded(self.cells_)
        place = torch.device(device)
        network = self._network.to(place).eval()

        def work(piece: Measurements, alive: Progress) -> np.ndarray:
            xy, spread = locate(network, self._course(piece, place, alive), self._length, alive)
            return np.vstack([xy.T, spread])

        self._to(place)
        with torch_threads(1), exact_convolutions():
            x, y, spread = in_pieces(data, self._length, threads, progress, work)
        progress(1.0)
        return self._fixes(np.column_stack([x, y]), spread)

    def _to(self, place: torch.device) -> None:
        """Move what comes before the sequence network."""

    def tensors(self) -> dict[str, np.ndarray]:
        """Weights by their names in the torch state dict, float32, and scales."""
        if self._network is None:
            raise InputError("The localizer has not learned anything yet.")
        return {**as_arrays(self._network, "network."), **self._known_scales.tensors()}

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
        try:
            found._card = dict(card)
            names = [str(name) for name in card["signals"]]
            found._scales = Scales.restore(frame, cells, dict(tensors), names)
            if not 1 <= found._length <= 10_000:
                raise InputError(f"The model is damaged: its window is {found._length} records.")
            found._restore_more(tensors)
            network = found._build(found._scales, found._card)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"The model is damaged: its card cannot be read ({error!r}).") from error
        load_arrays(network, tensors, "network.")
        found.frame_, found.cells_, found._network = frame, cells, network.eval()
        return found

    def _restore_more(self, tensors: Mapping[str, np.ndarray]) -> None:
        """Build again what comes before the sequence network."""


class Lstm(SequenceLocalizer):
    """Basic LSTM over the records, forward in time (Table 3)."""

    method = "lstm"
    layers: ClassVar[int] = 1

    def _design(self, data: Measurements, settings: FitSettings) -> dict[str, Any]:  # noqa: ARG002
        return {"hidden": int(settings.option("hidden", 128))}

    def _build(self, scales: Scales, card: Mapping[str, Any]) -> nn.Module:
        from .sequence import PlainLstm

        return PlainLstm(len(scales.cells), scales.n_context, int(card["hidden"]), self.layers)


class StackLstm(Lstm):
    """Two LSTMs stacked (Table 3)."""

    method = "stacklstm"
    layers = 2


class Seq2Seq(SequenceLocalizer):
    """Encoder-decoder LSTM (Table 3), on short windows, for one state has to carry all of a window."""

    method = "seq2seq"

    def _design(self, data: Measurements, settings: FitSettings) -> dict[str, Any]:  # noqa: ARG002
        return {"hidden": int(settings.option("hidden", 128)), "window": int(settings.option("window", 8))}

    def _build(self, scales: Scales, card: Mapping[str, Any]) -> nn.Module:
        from .sequence import Seq2SeqLstm

        return Seq2SeqLstm(len(scales.cells), scales.n_context, int(card["hidden"]))


class ConvLstm(SequenceLocalizer):
    """ConvLSTM over the 3D tensors (Table 3).

    The paper does not tell its size; on a CPU the tensor is `side` × `side`, by default 24, with `filters` filters, by default 8, and
    windows of 8 records.
    """

    method = "convlstm"
    OPTIONS: ClassVar[Mapping[str, Kind]] = {
        **SequenceLocalizer.OPTIONS,
        "side": Count(1, 512),
        "filters": Count(1, 1024),
        "preceding": PRECEDING,
    }
    seen = 250_000
    batch = 96  # its tensors are large, and it needs many steps

    def _design(self, data: Measurements, settings: FitSettings) -> dict[str, Any]:  # noqa: ARG002
        sizes = {
            name: int(settings.option(name, value)) for name, value in (("side", 24), ("filters", 8), ("hidden", 128))
        }
        return {**sizes, "window": int(settings.option("window", 8)), "preceding": int(settings.option("preceding", 2))}

    def _build(self, scales: Scales, card: Mapping[str, Any]) -> nn.Module:
        from .sequence import ConvolutionalLstm

        return ConvolutionalLstm(1 + len(scales.signals), int(card["side"]), int(card["filters"]), int(card["hidden"]))

    def _course(self, data: Measurements, device: torch.device, progress: Progress) -> Course:  # noqa: ARG002
        return self._course_to_learn(data, None, device)

    def _course_to_learn(self, data: Measurements, scores: np.ndarray | None, device: torch.device) -> Course:  # noqa: ARG002
        from .course import Course

        scales, side = self._known_scales, int(self._card["side"])
        grid = PixelGrid.over(scales, side, side)
        cell_pixel = grid.pixel_of(scales.cell_xy * scales.scale_m)
        tensors = sparse_tensors(data, scales, cell_pixel, int(self._card["preceding"]))
        return Course(scales.arrays(data), data.starts, device, None, tensors, side)
