"""Training on networks with a truth: what is learned and what is judged, the teacher, the fit, and the card; one engine call.

Base stations (BSs) to judge by are never neighbours of those learned from by chance: of several networks whole ones are held out, of
one network the BSs on one side of a line through it.
"""

from __future__ import annotations

import importlib.util
import math
import platform
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import DeviceError, InputError
from ..geolocation.engine import GeolocationJob
from ..geolocation.sites import URBANISATIONS
from ..geolocation.student import kind_of, require_torch
from ..geolocation.student_windows import StudentWindow
from ..progress import Progress, no_progress, span
from ..weights_file import Weights, write_weights
from .deepmend_beta import BetaSettings, fit_deepmend_beta
from .evaluate import ks2_of, median_by_urbanisation
from .labels import soft_labels
from .networks import far_from_edge
from .student import StudentSettings, fit_student
from .truth import TruthNetwork

METHODS = ("deepmend_beta", "deepmend", "direct")
#: Fewer BSs than this teach nothing that holds elsewhere.
FEWEST = 10
#: Epochs, learning rate and batch by default.
_BETA, _STUDENT = (BetaSettings().epochs, BetaSettings().learning_rate, BetaSettings().batch), (12, 2e-3, 8)
#: Weights that are gone on from have learned already: the default learning rate is this share.
_RATE_OF_GOING_ON = 0.2
#: Shares of the progress at which the teacher and the fit end; without a teacher the fit begins at 0.
_TAUGHT, _FITTED = 0.4, 0.9


@dataclass(frozen=True)
class TrainSettings:
    """How to train.

    Parameters
    ----------
    method
        One of `METHODS`.
    window
        "adaptive" or "fixed", of "deepmend" and "direct".
    epochs, learning_rate, batch
        None for what suits the method.
    validation_share
        Share of the BSs (of one network) or of the networks to judge by, in [0, 0.5]; with 0 the last epoch is kept unjudged.
    seed
        Of the split, the initial weights, and the order of the BSs.
    start
        Weights to go on from; None for random ones.
    device, threads, memory_mb
        As in `GeolocationJob`.
    data
        What the card says the truth is.
    """

    method: str = "deepmend_beta"
    window: str = "adaptive"
    epochs: int | None = None
    learning_rate: float | None = None
    batch: int | None = None
    validation_share: float = 0.2
    seed: int = 0
    start: Weights | None = None
    device: str = "cpu"
    threads: int = 2
    memory_mb: float = 4096.0
    data: str = ""

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"Unknown method '{self.method}' to train. Methods: {', '.join(METHODS)}.")
        if not 0 <= self.validation_share <= 0.5:
            raise InputError(f"VALIDATION_SHARE is {self.validation_share:g}; it must be from 0 to 0.5.")
        if self.start is not None and self.start.kind != self.kind:
            raise InputError(
                f"The weights to start from are for '{self.start.kind}', but '{self.kind}' is to be trained. Choose others, or start "
                "from scratch."
            )

    @property
    def kind(self) -> str:
        """Kind of weights that come out."""
        return self.method if self.method == "deepmend_beta" else kind_of(self.method, self.student_window)

    @property
    def student_window(self) -> StudentWindow:
        """The student's window."""
        return StudentWindow.paper() if self.window == "fixed" else StudentWindow()

    @property
    def resolved(self) -> tuple[int, float, int]:
        """Epochs, learning rate and batch."""
        epochs, rate, batch = _BETA if self.method == "deepmend_beta" else _STUDENT
        rate = rate if self.start is None else rate * _RATE_OF_GOING_ON
        return self.epochs or epochs, self.learning_rate or rate, self.batch or batch


@dataclass(frozen=True)
class Split:
    """What is learned from and what is judged by.

    Parameters
    ----------
    learn, judge
        Networks with the targets of each part.
    near_edge
        Number of targets left out because what surrounds them lies beyond their truth.
    how
        The split in words.
    """

    learn: tuple[TruthNetwork, ...]
    judge: tuple[TruthNetwork, ...]
    near_edge: int
    how: str

    @property
    def learned(self) -> int:
        """Number of BSs to learn from."""
        return sum(len(network.targets) for network in self.learn)

    @property
    def judged(self) -> int:
        """Number of BSs to judge by."""
        return sum(len(network.targets) for network in self.judge)


@dataclass(frozen=True)
class Trained:
    """What came out.

    Parameters
    ----------
    weights
        With their card.
    history
        Per epoch "epoch", "train_loss", and "validation_ks2" where there is something to judge by (in windows, as a guide).
    kept
        Index of the epoch whose weights these are.
    ks2
        Median KS2 of whole maps on the BSs to judge by, "all" and by urbanisation; empty without any.
    split
        What was learned from and judged by.
    """

    weights: Weights
    history: list[dict[str, float]]
    kept: int
    ks2: dict[str, float]
    split: Split


def require_training() -> None:
    """Make sure that torch can be used.

    Raises
    ------
    DeviceError
        When it is missing or broken; the message says what to do.
    """
    if importlib.util.find_spec("torch") is None:
        raise DeviceError(
            "Training needs torch, which is not installed in this Python. Install torch into the Python of QGIS (a build for the CPU is "
            "enough) and restart QGIS."
        )
    require_torch()


def split(networks: Sequence[TruthNetwork], share: float, seed: int) -> Split:
    """Divide networks, or the BSs of one network, into what is learned and what is judged.

    Raises
    ------
    InputError
        When fewer than `FEWEST` BSs would be left to learn from.
    """
    inner = tuple(
        replace(network, targets=network.targets[far_from_edge(network.sites_m, network.grid)[network.targets]])
        for network in networks
    )
    near_edge = sum(len(network.targets) for network in networks) - sum(len(network.targets) for network in inner)
    rng = np.random.default_rng([seed, 1])
    if share == 0:
        found = Split(inner, (), near_edge, "nothing is held out")
    elif len(inner) == 1:
        found = _by_a_line(inner[0], share, rng, near_edge)
    else:
        count = min(max(1, round(share * len(inner))), len(inner) - 1)
        held_out = set(rng.permutation(len(inner))[:count].tolist())
        learn = tuple(network for index, network in enumerate(inner) if index not in held_out)
        judge = tuple(network for index, network in enumerate(inner) if index in held_out and len(network.targets))
        names = ", ".join(f"'{inner[index].name}'" for index in sorted(held_out))
        found = Split(learn, judge, near_edge, f"held out as a whole: {names}")
    if found.learned < FEWEST:
        raise InputError(
            f"Only {found.learned} base stations are left to learn from, after {near_edge} near the edge of their truth and {found.judged} "
            f"to judge by were set aside; {FEWEST} are needed. Give a TRUTH of more base stations, or a smaller VALIDATION_SHARE."
        )
    return replace(found, learn=tuple(network for network in found.learn if len(network.targets)))


def _by_a_line(network: TruthNetwork, share: float, rng: np.random.Generator, near_edge: int) -> Split:
    """Hold out the BSs on one side of a line in a random direction."""
    bearing = float(rng.uniform(0, 360))
    towards = np.array([math.sin(math.radians(bearing)), math.cos(math.radians(bearing))])
    order = np.argsort(network.sites_m[network.targets] @ towards, kind="stable")
    count = max(1, round(share * len(order)))
    parts = [replace(network, targets=np.sort(network.targets[rows])) for rows in (order[:-count], order[-count:])]
    how = f"held out: the {len(parts[1].targets)} base stations farthest towards {bearing:.0f}°, beyond a line through the network"
    return Split((parts[0],), (parts[1],), near_edge, how)


def train(networks: Sequence[TruthNetwork], settings: TrainSettings, progress: Progress = no_progress) -> Trained:
    """Split, teach (for "deepmend"), fit, and judge the outcome by whole maps.

    Raises
    ------
    InputError
        When there are too few BSs, or a truth does not suit the window.
    DeviceError
        Where torch is missing.
    MemoryBudgetError
        When the windows do not fit.
    Cancelled
        From `progress`.
    """
    require_training()
    parts = split(networks, settings.validation_share, settings.seed)
    begin = 0.0
    labels = [network.maps for network in parts.learn]
    if settings.method == "deepmend":
        begin = _TAUGHT
        for number, network in enumerate(parts.learn):
            part = span(progress, begin * number / len(labels), begin * (number + 1) / len(labels))
            labels[number] = soft_labels(network, threads=settings.threads, progress=part)
    fitting = span(progress, begin, _FITTED)
    epochs, rate, batch = settings.resolved
    if settings.method == "deepmend_beta":
        chosen = BetaSettings(epochs=epochs, learning_rate=rate, batch=batch, seed=settings.seed)
        weights, found = fit_deepmend_beta(
            parts.learn, parts.judge, chosen, fitting, start=settings.start, device=settings.device
        )
        details: dict[str, Any] = {"settings": asdict(chosen)}
        history = [
            {"epoch": float(number + 1), "train_loss": loss, **({} if math.isnan(ks2) else {"validation_ks2": ks2})}
            for number, (loss, ks2) in enumerate(zip(found.train_loss, found.validation_ks2))
        ]
    else:
        of_student = StudentSettings(
            method=settings.method,
            window=settings.student_window,
            epochs=epochs,
            batch=batch,
            learning_rate=rate,
            one_cycle=True,
            seed=settings.seed,
            device=settings.device,
            threads=settings.threads,
            memory_mb=settings.memory_mb,
        )
        weights, history = fit_student(parts.learn, labels, parts.judge, of_student, fitting, settings.start)
        details = dict(weights.card)
    scores = [row.get("validation_ks2", math.nan) for row in history]
    kept = int(np.nanargmin(scores)) if np.isfinite(scores).any() else len(history) - 1
    ks2 = _judged(parts, weights, settings, span(progress, _FITTED, 1.0))
    return Trained(
        replace(weights, card={**details, **_card(parts, settings, history, kept, ks2)}), history, kept, ks2, parts
    )


def _judged(parts: Split, weights: Weights, settings: TrainSettings, progress: Progress) -> dict[str, float]:
    """Median KS2 of the maps that the weights draw of the BSs to judge by."""
    distances, kinds = [], []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        write_weights(path, weights)
        for number, network in enumerate(parts.judge):
            part = span(progress, number / len(parts.judge), (number + 1) / len(parts.judge))
            kinds.append(network.urbanisation[network.targets])
            job = GeolocationJob(
                network.sites_m,
                network.grid,
                method=settings.method,
                window=settings.window,
                weights=str(path),
                device=settings.device,
                threads=settings.threads,
                memory_mb=settings.memory_mb,
            )
            distances.append(ks2_of(network, job, part))
    progress(1.0)
    if not distances or not np.isfinite(np.concatenate(distances)).any():
        return {}
    return median_by_urbanisation(np.concatenate(distances), np.concatenate(kinds))


def _card(
    parts: Split, settings: TrainSettings, history: list[dict[str, float]], kept: int, ks2: dict[str, float]
) -> dict[str, Any]:
    """Where the weights come from. No times or paths: equal data, settings and seeds make equal files."""
    kinds = np.concatenate([network.urbanisation[network.targets] for network in parts.learn])
    return {
        "data": settings.data,
        "networks": [network.name for network in parts.learn],
        "validation": parts.how,
        "base_stations": {name: int((kinds == index).sum()) for index, name in enumerate(URBANISATIONS)},
        "validation_base_stations": parts.judged,
        "started_from": "scratch" if settings.start is None else str(settings.start.card.get("data", "other weights")),
        "seed": settings.seed,
        "epochs": len(history),
        "kept_epoch": kept + 1,
        "history": history,
        "validation_median_ks2": ks2,
        "hardware": hardware(settings.device),
        "licence": "that of the truth it was trained on",
    }


def hardware(device: str) -> str:
    """What a device is, for a card."""
    if device == "cuda":
        import torch

        return str(torch.cuda.get_device_name())
    return f"CPU {platform.machine()}"
