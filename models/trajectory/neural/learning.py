"""Gradient descent for all networks here. This file needs torch; import it inside functions only."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable
from typing import Callable, TypeVar

import torch
from torch import nn

from ...progress import Progress
from .layers import Output

T = TypeVar("T")

#: Weights of the loss terms beside the distance: naming the grid cell, and saying how far off the position is.
NAMING, SPREAD = 0.3, 0.05


def descend(
    network: nn.Module,
    epochs: int,
    rate: float,
    batches: Callable[[], Iterable[T]],
    loss_of: Callable[[T], torch.Tensor | None],
    progress: Progress,
    judge: Callable[[Progress], float] | None = None,
    judge_every: int = 8,
    patience: int = 3,
) -> tuple[float, list[tuple[int, float]]]:
    """Adam with a cosine schedule; the weights end as the best that `judge` saw, or the last ones.

    Parameters
    ----------
    batches
        Of an epoch.
    loss_of
        A batch's loss; None when nothing in it has a truth.
    judge
        Error of the held-out part; asked every `judge_every` epochs and at the end. Learning stops early when `patience` answers in a row
        are more than a tenth worse than the best.

    Returns
    -------
    tuple
        The best answer of `judge` (NaN without) and all of them by epoch.
    """
    optimiser = torch.optim.Adam(network.parameters(), lr=rate)
    best, kept, answers, worse = math.inf, None, [], 0
    for epoch in range(epochs):
        found = list(batches())
        for step, batch in enumerate(found):
            done = (epoch + step / len(found)) / epochs
            progress(done)
            warm = min(1.0, (epoch * len(found) + step + 1) / 50)
            for group in optimiser.param_groups:
                group["lr"] = rate * warm * 0.5 * (1 + math.cos(math.pi * done))
            loss = loss_of(batch)
            if loss is None:
                continue
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call,unused-ignore]
            nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
        last = epoch == epochs - 1
        if judge is not None and (last or (epoch + 1) % judge_every == 0):
            reached = (epoch + 1) / epochs
            answer = judge(lambda _, reached=reached: progress(reached))  # type: ignore[misc]
            answers.append((epoch + 1, answer))
            if answer <= best:
                best, kept = answer, copy.deepcopy(network.state_dict())
            worse = worse + 1 if answer > 1.1 * best else 0
            if worse >= patience:
                break
    if kept is not None:
        network.load_state_dict(kept)
    return (best if judge is not None else math.nan), answers


def position_loss(
    output: Output,
    target: torch.Tensor,
    counts: torch.Tensor,
    grain: float,
    centres: torch.Tensor | None,
    sigma: float,
) -> torch.Tensor | None:
    """Mean distance of positions, smooth below `grain`, with the terms of `NAMING` and `SPREAD`; lengths in standard deviations.

    Parameters
    ----------
    target
        True positions, shape (…, 2); whatever where `counts` is false.
    counts
        Which records count, shape (…), bool.
    centres, sigma
        Of the grid cells, shape (C, 2), and how far around the truth cells are right too.
    """
    if not bool(counts.any()):
        return None
    truth = target[counts]
    distance = torch.sqrt(((output.xy[counts] - truth) ** 2).sum(-1) + grain**2)
    log_spread = output.log_spread[counts].clamp(-7, 3)
    loss = distance.mean() + SPREAD * (distance.detach() * torch.exp(-log_spread) + 2 * log_spread).mean()
    if output.logits is not None and centres is not None:
        loss = loss + NAMING * naming_loss(output.logits[counts], truth, centres, sigma)
    return loss


def naming_loss(logits: torch.Tensor, truth: torch.Tensor, centres: torch.Tensor, sigma: float) -> torch.Tensor:
    """Cross entropy with targets that fall off with the distance of a grid cell from the truth as a Gaussian of `sigma`."""
    square = (truth**2).sum(1, keepdim=True) - 2 * truth @ centres.T + (centres**2).sum(1)
    wanted = torch.softmax(-square / (2 * sigma**2), 1)
    return -(wanted * torch.log_softmax(logits, 1)).sum(1).mean()
