"""Training the student of DeepMEND (section IV-B): on a teacher's soft labels ("deepmend") or on the truth itself ("direct")."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from scipy import sparse

from ..errors import InputError
from ..geolocation.student import KINDS, kind_of, require_torch, student_of
from ..geolocation.student_windows import StudentWindow
from ..progress import Progress, no_progress, span
from ..weights_file import Weights
from .student_data import student_data
from .student_steps import judge, set_gradients
from .truth import TruthNetwork

#: Side of the part of a fixed window that a CPU trains on [cells].
CPU_CROP = 128


@dataclass(frozen=True)
class StudentSettings:
    """How to train a student.

    Parameters
    ----------
    method
        "deepmend" or "direct": what the labels are; it only names the weights.
    window
        The window to train for.
    epochs, batch, learning_rate
        100, 8 and 1e-4 in the paper, with Adam.
    one_cycle
        Let the learning rate rise to `learning_rate` in the first quarter of the training and fall to nothing until its end, instead
        of keeping it.
    jitter
        Standard deviation of the log of the cell size of adaptive windows, between examples.
    windows_per_bs
        Examples per BS.
    crop
        Train on random parts of this side around the BS [cells], 0 for whole windows; None for whole windows, except fixed ones on a
        CPU (`CPU_CROP`).
    validation_windows
        Most validation examples that are looked at after each epoch.
    seed
        Of everything random. On one CPU, the same data, settings and seed give the same weights, bit by bit.
    device
        "cpu" or "cuda".
    threads
        Threads on the CPU; the weights do not depend on them.
    memory_mb
        Most memory the training windows may take [MiB].
    """

    method: str = "deepmend"
    window: StudentWindow = field(default_factory=StudentWindow)
    epochs: int = 100
    batch: int = 8
    learning_rate: float = 1e-4
    one_cycle: bool = False
    jitter: float = 0.15
    windows_per_bs: int = 1
    crop: int | None = None
    validation_windows: int = 400
    seed: int = 0
    device: str = "cpu"
    threads: int = 2
    memory_mb: float = 4096.0

    def __post_init__(self) -> None:
        if self.method not in KINDS:
            raise InputError(f"Unknown method '{self.method}' to train a student for. Methods: {', '.join(KINDS)}.")
        if self.epochs < 1 or self.batch < 1 or self.windows_per_bs < 1:
            raise InputError(
                f"EPOCHS is {self.epochs}, the batch {self.batch}, windows per base station {self.windows_per_bs}; each must be at least 1."
            )
        if not 0 < self.learning_rate < 1:
            raise InputError(
                f"The learning rate is {self.learning_rate:g}; it must be above 0 and below 1 (the paper's is 0.0001)."
            )

    @property
    def crop_cells(self) -> int:
        """Side of the parts to train on [cells]; 0 for whole windows."""
        if self.crop is None:
            return CPU_CROP if self.window.kind == "fixed" and self.device == "cpu" else 0
        return self.crop if self.crop < self.window.side else 0


def fit_student(
    networks: Sequence[TruthNetwork],
    labels: Sequence[sparse.csr_matrix],
    validation_networks: Sequence[TruthNetwork],
    settings: StudentSettings,
    progress: Progress = no_progress,
    start: Weights | None = None,
) -> tuple[Weights, list[dict[str, float]]]:
    """Train a student and keep the weights of the epoch with the smallest mean KS2 on the validation networks.

    The loss is the L1 distance of y′ over the cells that count. Each example is turned and mirrored at random (8 ways), which is
    exact: distances know no direction.

    Parameters
    ----------
    networks, labels
        To learn from: per network a CSR matrix of P(ℓ|i), shape (n_bs, n_cells); the teacher's maps, or `network.maps` for "direct".
    validation_networks
        To judge by, against their true maps; where there are none, the last epoch's weights are kept.
    start
        Weights to go on from (fine-tuning); random ones when None.

    Returns
    -------
    Weights, list[dict[str, float]]
        The weights with their card, and per epoch "epoch", "train_loss", and with validation networks "validation_loss",
        "validation_ks2" (mean) and "validation_ks2_median".

    Raises
    ------
    InputError, MemoryBudgetError
        As `student_data`; also when `start` is for another window or the loss is no longer finite.
    DeviceError
        Where torch is missing.
    Cancelled
        From `progress`.
    """
    require_torch()
    import torch

    from ..geolocation.unet import StudentUNet, exact_convolutions, torch_threads

    rng = np.random.default_rng(settings.seed)
    kind = kind_of(settings.method, settings.window)
    if start is not None and student_of(start, "given to start from").window != settings.window:
        raise InputError(
            "The weights to start from are for another window than the one to train for; use the same window."
        )
    options: dict[str, Any] = {"crop": settings.crop_cells, "memory_mb": settings.memory_mb}
    data = student_data(
        networks,
        labels,
        settings.window,
        rng,
        jitter=settings.jitter,
        windows_per_bs=settings.windows_per_bs,
        progress=span(progress, 0.0, 0.1),
        **options,
    )
    judged = None
    if validation_networks:
        truth = [network.maps for network in validation_networks]
        judged = student_data(
            validation_networks, truth, settings.window, rng, progress=span(progress, 0.1, 0.13), **options
        )
        judged = judged.sample(settings.validation_windows, rng)
    generator = torch.Generator().manual_seed(settings.seed)
    history: list[dict[str, float]] = []
    with torch_threads(1), exact_convolutions():
        if start is None:
            usual = float(data.target[data.valid].mean(dtype=np.float64))
            network = StudentUNet(generator, usual).to(settings.device)
        else:
            network = StudentUNet.of(start.tensors, settings.device)
        optimiser = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
        steps = math.ceil(len(data) / settings.batch)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser, lambda step: _rate(step / (steps * settings.epochs)) if settings.one_cycle else 1.0
        )
        best, arrays = math.inf, network.arrays()
        with ThreadPoolExecutor(settings.threads if settings.device == "cpu" else 1) as pool:
            for epoch in range(settings.epochs):
                part = span(
                    progress, 0.13 + 0.87 * epoch / settings.epochs, 0.13 + 0.87 * (epoch + 1) / settings.epochs
                )
                order = rng.permutation(len(data))
                total = torch.zeros((), device=settings.device)
                for step in range(steps):
                    chosen = order[step * settings.batch : (step + 1) * settings.batch]
                    total += set_gradients(network, data, chosen, int(rng.integers(8)), settings.device, pool)
                    optimiser.step()
                    schedule.step()
                    part(0.95 * (step + 1) / steps)
                if not math.isfinite(float(total)):
                    raise InputError(
                        f"The training diverged in epoch {epoch + 1} at a learning rate of {settings.learning_rate:g}; use a smaller one."
                    )
                row = {"epoch": float(epoch + 1), "train_loss": float(total) / len(data)}
                if judged is not None:
                    row.update(judge(network, judged, settings.device))
                history.append(row)
                if row.get("validation_ks2", -math.inf) < best:
                    best, arrays = row.get("validation_ks2", math.inf), network.arrays()
                part(1.0)
    card = {
        "window": settings.window.card(),
        "settings": asdict(settings),
        "examples": len(data),
        "networks": [network.name for network in networks],
        "validation_networks": [network.name for network in validation_networks],
        "history": history,
        "validation_ks2": best if math.isfinite(best) else None,
        "torch": str(torch.__version__),
    }
    return Weights(kind, arrays, card), history


def _rate(done: float) -> float:
    """Share of the learning rate after a share `done` of the training: up in a line, down as a cosine."""
    rise = 0.25
    if done < rise:
        return 0.04 + 0.96 * done / rise
    return 0.5 * (1 + math.cos(math.pi * min((done - rise) / (1 - rise), 1.0)))
