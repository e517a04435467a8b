"""What the networks are put together from. This file needs torch; import it inside functions only."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from .records import KNOTS

#: Slots of a cell in the table: its knots, heard without an RSS, serving.
_SLOTS = KNOTS + 2


@dataclass(frozen=True)
class Batch:
    """Windows of records, all on one device.

    Parameters
    ----------
    cell, level, context
        As in `RecordArrays`, with two leading axes: window and record in it.
    there
        Whether there is a record, float, shape (n_windows, length, 1).
    scores
        Logarithms of the CNN's scores of the grid cells, shape (n_windows, length, C), or None.
    pixels
        Dense 3D tensors, shape (n_windows, length, F, M, N), or None.
    """

    cell: torch.Tensor
    level: torch.Tensor
    context: torch.Tensor
    there: torch.Tensor
    scores: torch.Tensor | None = None
    pixels: torch.Tensor | None = None


@dataclass(frozen=True)
class Output:
    """What a network says of each record.

    Parameters
    ----------
    xy
        Position [standard deviations], shape (…, 2).
    log_spread
        Logarithm of the expected error [standard deviations], shape (…).
    logits
        Of the grid cells, shape (…, C), or None.
    """

    xy: torch.Tensor
    log_spread: torch.Tensor
    logits: torch.Tensor | None = None


class Noise:
    """What is random while learning, all of one generator; `None` where nothing is to be random."""

    def __init__(self, generator: torch.Generator, device: torch.device, strength: float = 1.0) -> None:
        self._generator, self._device, self.strength = generator, device, strength

    def uniform(self, *shape: int) -> torch.Tensor:
        """Numbers in [0, 1)."""
        return torch.rand(*shape, generator=self._generator, device=self._device)

    def normal(self, *shape: int) -> torch.Tensor:
        """Standard normal numbers."""
        return torch.randn(*shape, generator=self._generator, device=self._device)


def dropped(values: torch.Tensor, share: float, noise: Noise | None) -> torch.Tensor:
    """Dropout that takes its own generator."""
    if noise is None or share <= 0:
        return values
    return values * (noise.uniform(*values.shape) >= share) / (1 - share)


def initialise(network: nn.Module, generator: torch.Generator) -> None:
    """Draw all weights from `generator`: uniform ±1/√fan-in (LSTM: ±1/√hidden), biases 0, forget gates 1, norms 1."""
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, (nn.LayerNorm,)):
                module.weight.fill_(1.0)
                module.bias.zero_()
            elif isinstance(module, nn.LSTM):
                bound = module.hidden_size**-0.5
                for name, value in module.named_parameters(recurse=False):
                    if name.startswith("weight"):
                        value.uniform_(-bound, bound, generator=generator)
                    else:
                        value.zero_()
                        if name.startswith("bias_ih"):
                            value[module.hidden_size : 2 * module.hidden_size] = 1.0
            elif isinstance(module, (nn.Linear, nn.Conv2d)):
                fan_in = module.weight[0].numel()
                bound = (3.0 / fan_in) ** 0.5
                module.weight.uniform_(-bound, bound, generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
            elif isinstance(module, RecordEncoder):
                module.table.normal_(0, 0.3, generator=generator)


class RecordEncoder(nn.Module):  # type: ignore[misc,unused-ignore]  # without torch's stubs it is Any
    """A record as one vector: a learned piecewise linear function of the RSS of each cell heard, summed, and the context.

    Beyond the paper, which feeds the raw columns: the sum does not depend on the order of the cells and knows any number of them. Two
    fully connected layers follow.

    Parameters
    ----------
    n_cells, n_context
        Numbers of cells and of context features.
    width
        Length of the vector.
    """

    def __init__(self, n_cells: int, n_context: int, width: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(max(n_cells, 1) * _SLOTS, width))
        self.context = nn.Linear(n_context, width)
        self.norm = nn.LayerNorm(width)
        self.mix = nn.Linear(width, width)

    def forward(self, batch: Batch, noise: Noise | None, cell_drop: float, jitter: float) -> torch.Tensor:
        """Vectors, shape (n_windows, length, width); while learning, cells are dropped and RSS shifted (jitter in knots)."""
        shape = batch.cell.shape[:-1]
        cell = batch.cell.flatten(0, -2)
        level = batch.level.flatten(0, -2)
        heard = (cell >= 0).to(level.dtype)
        if noise is not None:
            heard = heard * (noise.uniform(*cell.shape) >= cell_drop * noise.strength)
            shifted = level + jitter * noise.strength * noise.normal(*level.shape)
            level = torch.where(level >= 0, shifted.clamp(0, KNOTS - 1), level)
        known = (level >= 0).to(level.dtype)
        lower = level.clamp(0, KNOTS - 1.001).floor()
        share = (level.clamp(min=0) - lower) * known
        base = cell.clamp(min=0) * _SLOTS
        slot = torch.where(level >= 0, lower, torch.full_like(lower, KNOTS)).long()
        index = torch.cat([base + slot, base + (slot + 1).clamp(max=_SLOTS - 1), base[:, :1] + _SLOTS - 1], dim=1)
        weight = torch.cat([heard * (1 - share), heard * share, heard[:, :1]], dim=1)
        summed = functional.embedding_bag(index, self.table, per_sample_weights=weight, mode="sum")
        values = functional.relu(self.norm(summed + self.context(batch.context.flatten(0, -2))))
        return functional.relu(self.mix(values)).view(*shape, -1)


class PlainHead(nn.Module):  # type: ignore[misc,unused-ignore]
    """Position and expected error by one fully connected layer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.out = nn.Linear(width, 3)

    def forward(self, values: torch.Tensor) -> Output:
        """Map vectors (…, width) to positions."""
        found = self.out(values)
        return Output(found[..., :2], found[..., 2])


class GridHead(nn.Module):  # type: ignore[misc,unused-ignore]
    """The prediction layer's FC network of DeepLoc, section 4.2.3: one hidden unit per grid cell that holds training truths.

    o = f(X·W1)·W2 + b. Equation (4) initialises W(1)[i, j] with score p(grid j | x_i) of input record x_i. Read literally, W(1) has a row
    per training record, which a new record cannot use. We read it thus: the product of a record with W(1) is, at first, its own row, the
    CNN's scores of that record; so the hidden unit j of record i starts as p(grid j | x_i), W(2) starts as the positions of
    the grid cells, and the layer's first output is the position the CNN expects. From there, a learned matrix (at first 0) moves the
    hidden units by what the LSTM knows: f(X·W1) = softmax(log p + X·U).

    Beyond the paper: the units stay a softmax, so they can be asked to name the grid cell of the truth while learning, and a small
    linear term places the position within it.

    Parameters
    ----------
    width
        Length of the LSTM's vectors X.
    n_cells
        Grid cells C.
    initialised
        Whether W(1) and W(2) begin as above, or at random as in any network (the paper's "without optimization").
    """

    def __init__(self, width: int, n_cells: int, initialised: bool) -> None:
        super().__init__()
        self.initialised = initialised
        self.hidden = nn.Linear(width, n_cells)
        self.trust = nn.Parameter(torch.empty(1))
        self.positions = nn.Parameter(torch.empty(n_cells, 2))
        self.out = nn.Linear(width, 3)

    def start(self, centres: torch.Tensor, generator: torch.Generator) -> None:
        """Set the first weights; `centres` of the grid cells [standard deviations], shape (C, 2)."""
        with torch.no_grad():
            self.trust.fill_(1.0)
            if self.initialised:
                self.hidden.weight.mul_(0.1)
                self.positions.copy_(centres)
                self.out.weight[:2].mul_(0.01)
            else:
                self.positions.normal_(0, 1, generator=generator)

    def forward(self, values: torch.Tensor, scores: torch.Tensor | None) -> Output:
        """Map vectors (…, width) and logarithms of scores (…, C) to positions."""
        logits = self.hidden(values)
        if self.initialised and scores is not None:
            logits = logits + self.trust * scores
        rest = self.out(values)
        xy = torch.softmax(logits, -1) @ self.positions + rest[..., :2]
        return Output(xy, rest[..., 2], logits if self.initialised else None)
