"""The student's network, DeepMEND section IV-B. This file needs torch; import it inside functions only."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from .student_windows import CHANNELS, FILTERS, KERNEL, POOLED


class StudentUNet(nn.Module):  # type: ignore[misc,unused-ignore]  # without torch's stubs it is Any
    """U-Net of six encoding layers of 32, 16, 8, 4, 2, 1 filters (5 × 5, ReLU, 2 × 2 max pooling) and a symmetric decoder.

    A decoding layer doubles the side (bilinear), takes the encoder's map of that side beside its own, and convolves to 1, 2, 4, 8,
    16, 32 filters (5 × 5, ReLU). A linear 1 × 1 convolution ends it. What the paper leaves open is chosen as in the U-Net it cites:
    upsampling before the convolution, skip connections from before the pooling. 70,809 parameters.

    Parameters
    ----------
    generator
        Draws the initial weights: He's normal ones with a small positive bias. Layers of at most two filters begin as weighted
        means of their input instead: these inputs are never negative, so the bottleneck cannot be dead from the start, as a
        single ReLU is half of the time.
    bias
        What the network says at first, about; the mean of the targets spares it the way there.
    """

    def __init__(self, generator: torch.Generator | None = None, bias: float = 0.0) -> None:
        super().__init__()
        inputs = (CHANNELS, *FILTERS[:-1])
        self.encoder = nn.ModuleList(_convolution(before, after, KERNEL) for before, after in zip(inputs, FILTERS))
        outputs = FILTERS[::-1]
        self.decoder = nn.ModuleList(
            _convolution(before + after, after, KERNEL) for before, after in zip((FILTERS[-1], *outputs[:-1]), outputs)
        )
        self.head = _convolution(FILTERS[0], 1, 1)
        with torch.no_grad():
            for name, value in self.named_parameters():
                if name.endswith("bias"):
                    value.fill_(bias if name == "head.bias" else 0.01)
                elif name == "head.weight":
                    value.normal_(0, FILTERS[0] ** -0.5 / 4, generator=generator)
                else:
                    value.normal_(0, (2 / value[0].numel()) ** 0.5, generator=generator)
                    if len(value) <= 2:
                        value.abs_()
                        value.div_(value.sum((1, 2, 3), keepdim=True))

    def forward(self, channels: torch.Tensor) -> torch.Tensor:
        """Map input channels, shape (n, 3, side, side), to targets y′, shape (n, side, side).

        Sides that are no multiple of 64 are padded with zeros on all sides and cropped again (600 becomes 640).
        """
        side = channels.shape[-1]
        missing = -side % POOLED
        before = missing // 2
        values = functional.pad(channels, (before, missing - before, before, missing - before))
        values = values.contiguous(memory_format=torch.channels_last)  # twice as quick on CPUs
        skips: list[torch.Tensor] = []
        for layer in self.encoder:
            values = functional.relu(layer(values))
            skips.append(values)
            values = functional.max_pool2d(values, 2)
        for layer in self.decoder:
            values = functional.interpolate(values, scale_factor=2, mode="bilinear", align_corners=False)
            values = functional.relu(layer(torch.cat([values, skips.pop()], 1)))
        return self.head(values)[:, 0, before : before + side, before : before + side]

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the weights as arrays by name (copies), as a weights file holds them."""
        return {name: value.detach().cpu().numpy().copy() for name, value in self.state_dict().items()}

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray], device: str) -> StudentUNet:
        """Return the network with these weights on `device`."""
        network = cls()
        network.load_state_dict({name: torch.from_numpy(np.array(value)) for name, value in arrays.items()})
        return network.to(device)


def _convolution(before: int, after: int, side: int) -> nn.Conv2d:
    """Return a convolution that keeps the side of maps, without initial weights, which would be drawn from torch's global generator."""
    return nn.utils.skip_init(nn.Conv2d, before, after, side, padding=side // 2)  # type: ignore[no-untyped-call,unused-ignore]


_lock = threading.Lock()
_users = 0
_threads_before = 0


@contextmanager
def torch_threads(threads: int) -> Iterator[None]:
    """Let torch's operations use `threads` threads each, a setting of the whole process; the last user puts it back."""
    global _users, _threads_before
    with _lock:
        if _users == 0:
            _threads_before = torch.get_num_threads()
        _users += 1
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                torch.set_num_threads(_threads_before)


@contextmanager
def exact_convolutions() -> Iterator[None]:
    """Compute convolutions in full float32 and the same way each time on CUDA too, where TF32 would cost three digits."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield
