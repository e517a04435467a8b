"""One step of training the student, and judging it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError
from ..geolocation.ks2 import ks2
from ..geolocation.student_windows import from_target
from .student_data import StudentData

if TYPE_CHECKING:
    import torch

    from ..geolocation.unet import StudentUNet

#: Windows at once where nothing is learned.
_BATCH_FORWARD = 32
#: Examples a thread takes at once.
_EXAMPLES_PER_THREAD = 4


def _batch(
    data: StudentData, chosen: np.ndarray, device: str, way: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return channels, targets and valid cells of some examples, turned `way % 4` times by 90° and mirrored from 4 on."""
    import torch

    arrays = []
    for array in (data.channels[chosen], data.target[chosen], data.valid[chosen]):
        turned = np.rot90(array, way % 4, axes=(-2, -1))
        turned = turned[..., ::-1] if way >= 4 else turned
        arrays.append(torch.from_numpy(np.ascontiguousarray(turned, np.float32)).to(device))
    return arrays[0], arrays[1], arrays[2]


def set_gradients(
    network: StudentUNet,
    data: StudentData,
    chosen: np.ndarray,
    way: int,
    device: str,
    pool: ThreadPoolExecutor,
) -> torch.Tensor:
    """Set the gradients of the mean loss of some examples and return the sum of their losses.

    On a CPU, the pool's threads take a few examples each. The sums do not depend on how many threads there are, and unlike torch's own
    threads they do not stall where other programs need the cores (there, these took twenty times as long).
    """
    import torch

    parameters = list(network.parameters())
    size = _EXAMPLES_PER_THREAD if device == "cpu" else len(chosen)

    def work(some: np.ndarray) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        seen, wanted, valid = _batch(data, np.sort(some), device, way)
        loss = _losses(network(seen), wanted, valid).sum()
        return loss.detach(), torch.autograd.grad(loss / len(chosen), parameters)

    parts = list(pool.map(work, [chosen[start : start + size] for start in range(0, len(chosen), size)]))
    for number, parameter in enumerate(parameters):
        parameter.grad = torch.stack([gradients[number] for _, gradients in parts]).sum(0)
    return torch.stack([loss for loss, _ in parts]).sum()


def _losses(said: torch.Tensor, wanted: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Mean |y′ − target| over the valid cells of each example, shape (n,)."""
    return ((said - wanted).abs() * valid).sum((1, 2)) / valid.sum((1, 2)).clamp(min=1)


def judge(network: StudentUNet, data: StudentData, device: str) -> dict[str, float]:
    """Loss and KS2 against the truth, each map scaled to the valid cells of its window."""
    import torch

    losses, distances = [], []
    with torch.inference_mode():
        for start in range(0, len(data), _BATCH_FORWARD):
            chosen = np.arange(start, min(start + _BATCH_FORWARD, len(data)))
            seen, wanted, valid = _batch(data, chosen, device)
            said = network(seen)
            losses.append(float(_losses(said, wanted, valid).sum()))
            maps = from_target(said.cpu().numpy()) * data.valid[chosen]
            for one, truth in zip(maps, data.probability[chosen].astype(float)):
                if truth.sum() > 0:
                    distances.append(ks2(truth / truth.sum(), one / one.sum()))
    if not distances:
        raise InputError("No validation network has a map with mass in the window of one of its targets.")
    return {
        "validation_loss": sum(losses) / len(data),
        "validation_ks2": float(np.mean(distances)),
        "validation_ks2_median": float(np.median(distances)),
    }
