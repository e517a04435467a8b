"""Training of DeepMEND-β: the sPDI integral is differentiable, so the network learns from the KS2 of the maps themselves."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from scipy.spatial import cKDTree

from ..errors import InputError
from ..geolocation import deepmend_beta as model
from ..geolocation.windows import Window
from ..progress import Progress, no_progress
from ..weights_file import Weights
from .truth import TruthNetwork

#: Training begins with these, the same for every BS: near and far attenuation, and reach [local spacings].
_FIRST_BETA, _FIRST_BETA_FAR, _FIRST_REACH = 1.2, 4.0, 1.5


@dataclass(frozen=True)
class BetaSettings:
    """How DeepMEND-β is trained.

    Parameters
    ----------
    epochs, batch, learning_rate
        Of Adam; the rate rises to this and falls again (one cycle).
    hidden
        Width of the two hidden layers.
    side, blocks_per_spacing
        Window [blocks] on which maps are compared, and its resolution.
    neighbours
        BSs looked at per block.
    nodes
        Nodes of the integral; fewer than at inference, enough for 1e-3.
    seed
        Of the initial weights and the order of the BSs.
    """

    epochs: int = 6
    batch: int = 24
    learning_rate: float = 1e-2
    hidden: int = 32
    side: int = 32
    blocks_per_spacing: float = 3.0
    neighbours: int = 12
    nodes: int = 12
    seed: int = 0


@dataclass
class BetaHistory:
    """Mean loss of each epoch on the training BSs, and median KS2 on the validation BSs (NaN without any)."""

    train_loss: list[float] = field(default_factory=list)
    validation_ks2: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class _Examples:
    """The windows of one network's targets, ready for the loss.

    Parameters
    ----------
    seen
        Of all its BSs.
    targets
        Rows of the BSs, shape (n,).
    centres
        Block centres [m], shape (n, side², 2), float32, relative to the target.
    bs
        BSs looked at per block, the target first (again further on where it is among the nearest, then marked by −1), shape
        (n, side², 1 + neighbours), int32.
    truth
        Shape (n, side, side), float32, summing to one.
    valid
        Share of each block's cells that can hold mass, same shape.
    block_m
        Side of a block [m], shape (n,).
    """

    sites_m: np.ndarray
    seen: model.Surroundings
    targets: np.ndarray
    centres: np.ndarray
    bs: np.ndarray
    truth: np.ndarray
    valid: np.ndarray
    block_m: np.ndarray


def _examples(network: TruthNetwork, settings: BetaSettings, rng: np.random.Generator) -> _Examples:
    grid, side = network.grid, settings.side
    seen = model.surroundings(network.sites_m)
    tree = cKDTree(network.sites_m)
    k = min(settings.neighbours, len(network.sites_m))
    n = len(network.targets)
    centres = np.empty((n, side * side, 2), np.float32)
    bs = np.empty((n, side * side, k + 1), np.int32)
    truth = np.empty((n, side, side), np.float32)
    valid = np.empty((n, side, side), np.float32)
    block_m = np.empty(n, np.float32)
    for number, row in enumerate(network.targets):
        wanted = seen.spacing_m[row] / settings.blocks_per_spacing / grid.cell_size_m
        stride = max(1, round(wanted * math.exp(rng.uniform(-0.2, 0.2))))
        column = (network.sites_m[row, 0] - grid.x_min) / grid.cell_size_m
        down = (grid.y_max - network.sites_m[row, 1]) / grid.cell_size_m
        window = Window(round(down - stride * side / 2), round(column - stride * side / 2), stride, side)
        x_m, y_m = window.centres(grid)
        points = np.stack(np.meshgrid(x_m, y_m), axis=-1).reshape(-1, 2)
        nearest = tree.query(points, k=k)[1].reshape(len(points), k)
        bs[number, :, 0] = row
        bs[number, :, 1:] = np.where(nearest == row, -1, nearest)
        centres[number] = points - network.sites_m[row]
        low, high = network.maps.indptr[row], network.maps.indptr[row + 1]
        mass = window.gather(network.maps.indices[low:high], network.maps.data[low:high], grid)
        truth[number] = mass / max(mass.sum(), 1e-12)
        valid[number] = window.valid_cells(grid, network.mask) / stride**2
        block_m[number] = stride * grid.cell_size_m
    return _Examples(network.sites_m, seen, network.targets, centres, bs, truth, valid, block_m)


def fit_deepmend_beta(
    networks: Sequence[TruthNetwork],
    validation: Sequence[TruthNetwork] = (),
    settings: BetaSettings | None = None,
    progress: Progress = no_progress,
    start: Weights | None = None,
    device: str = "cpu",
) -> tuple[Weights, BetaHistory]:
    """Train on the targets of `networks`; keep the epoch that is best on `validation` (the last one without any).

    Parameters
    ----------
    start
        Weights to go on from instead of random ones.
    device
        "cpu" or "cuda".

    Returns
    -------
    (Weights, BetaHistory)
        The weights have an empty card. The same data, settings and seed give the same bytes on one machine.

    Raises
    ------
    InputError
        When there is no BS to learn from, or `start` is for another version.
    Cancelled
        From `progress`.
    """
    from ..geolocation.unet import torch_threads

    if not any(len(network.targets) for network in networks):
        raise InputError("There is no base station to learn from; give at least one network with a truth.")
    if start:
        model.DeepMendBeta(start, "to start from")
    # One thread: several add the gradients of a BS in any order, and are slower on arrays of this size.
    with torch_threads(1):
        return _fit(networks, validation, settings or BetaSettings(), progress, start, device)


def _fit(
    networks: Sequence[TruthNetwork],
    validation: Sequence[TruthNetwork],
    settings: BetaSettings,
    progress: Progress,
    start: Weights | None,
    device: str,
) -> tuple[Weights, BetaHistory]:
    import torch

    rng = np.random.default_rng(settings.seed)
    examples: list[_Examples] = []
    for number, network in enumerate([*networks, *validation]):
        progress(0.1 * number / (len(networks) + len(validation)))
        examples.append(_examples(network, settings, rng))
    learn, judge = examples[: len(networks)], examples[len(networks) :]
    features = np.concatenate([one.seen.features[one.targets] for one in learn])
    tensors = dict(start.tensors) if start else _initial(features, settings, rng)
    parameters = {
        name: torch.tensor(np.asarray(value, np.float32), device=device, requires_grad=name not in ("mean", "std"))
        for name, value in tensors.items()
    }
    optimiser = torch.optim.Adam([one for one in parameters.values() if one.requires_grad], settings.learning_rate)
    batches = [
        (index, begin) for index, one in enumerate(learn) for begin in range(0, len(one.targets), settings.batch)
    ]
    steps = max(1, settings.epochs * len(batches))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, settings.learning_rate, total_steps=steps + 1)
    history = BetaHistory()
    best, best_ks2 = {name: one.detach().clone() for name, one in parameters.items()}, math.inf
    done = 0
    for _ in range(settings.epochs):
        orders = [rng.permutation(len(one.targets)) for one in learn]
        losses = []
        for number in rng.permutation(len(batches)):
            progress(0.1 + 0.9 * done / steps)
            index, begin = batches[number]
            chosen = orders[index][begin : begin + settings.batch]
            distance, other = _distances(learn[index], chosen, parameters, settings, device)
            loss = (distance + other).mean()
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_([one for one in parameters.values() if one.requires_grad], 1.0)
            optimiser.step()
            schedule.step()
            losses.append(float(loss.detach()))
            done += 1
        history.train_loss.append(float(np.mean(losses)))
        with torch.no_grad():
            judged = [
                _distances(one, np.arange(begin, min(begin + 64, len(one.targets))), parameters, settings, device)[0]
                for one in judge
                for begin in range(0, len(one.targets), 64)
            ]
        ks2 = float(torch.cat(judged).median()) if judged else math.nan
        history.validation_ks2.append(ks2)
        if not ks2 >= best_ks2:
            best, best_ks2 = {name: one.detach().clone() for name, one in parameters.items()}, ks2
    progress(1.0)
    return Weights(model.KIND, {name: one.cpu().numpy() for name, one in best.items()}), history


def _initial(features: np.ndarray, settings: BetaSettings, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Random first layers, and a last one that gives every BS the same parameters."""
    n_in, n_out, hidden = len(model.FEATURES), len(model.OUTPUTS), settings.hidden
    low, high = model.BETA_RANGE
    bias = np.zeros(n_out)
    bias[:2] = [-math.log((high - low) / (value - low) - 1) for value in (_FIRST_BETA, _FIRST_BETA_FAR)]
    bias[2] = math.log(_FIRST_REACH)
    return {
        "gamma": np.array(_FIRST_BETA),
        "mean": features.mean(axis=0),
        "std": np.maximum(features.std(axis=0), 1e-3),
        "layer_1.weight": rng.normal(0, 1 / math.sqrt(n_in), (hidden, n_in)),
        "layer_1.bias": np.zeros(hidden),
        "layer_2.weight": rng.normal(0, 1 / math.sqrt(hidden), (hidden, hidden)),
        "layer_2.bias": np.zeros(hidden),
        "layer_3.weight": np.zeros((n_out, hidden)),
        "layer_3.bias": bias,
    }


def _distances(
    examples: _Examples, chosen: np.ndarray, parameters: dict[str, Any], settings: BetaSettings, device: str
) -> tuple[Any, Any]:
    """KS2 of the chosen targets' maps, and a smoother companion (the mean |difference| of the CDFs), both of shape (n,)."""
    import torch

    def tensor(values: np.ndarray) -> Any:  # noqa: ANN401 - torch is imported lazily
        return torch.as_tensor(values, device=device)

    seen = examples.seen
    values = ((tensor(seen.features.astype(np.float32)) - parameters["mean"]) / parameters["std"]).clamp(-4, 4)
    for layer in ("layer_1", "layer_2"):
        values = torch.tanh(values @ parameters[f"{layer}.weight"].T + parameters[f"{layer}.bias"])
    raw = values @ parameters["layer_3.weight"].T + parameters["layer_3.bias"]
    low, high = model.BETA_RANGE
    beta, beta_far = (low + (high - low) * torch.sigmoid(raw[:, column]) for column in (0, 1))
    spacing = tensor(seen.spacing_m.astype(np.float32))
    log_reach = torch.log(spacing) + raw[:, 2]
    strength = raw[:, 3] - parameters["gamma"] * torch.log(spacing)
    shift = (model.MOST_SHIFT * torch.tanh(raw[:, 4:]))[:, :, None] * tensor(seen.towards.astype(np.float32))
    shift = shift.sum(dim=1) * spacing[:, None]

    targets = examples.targets[chosen]
    bs = np.moveaxis(examples.bs[chosen], 2, 0).reshape(examples.bs.shape[2], -1)
    absent = tensor(bs < 0)
    bs = tensor(np.maximum(bs, 0).astype(np.int64))
    cells = examples.centres.shape[1]
    origin = np.repeat(examples.sites_m[targets], cells, axis=0)
    points = tensor(
        (examples.centres[chosen].reshape(-1, 2) + (origin - examples.sites_m.mean(axis=0))).astype(np.float32)
    )
    position = tensor((examples.sites_m - examples.sites_m.mean(axis=0)).astype(np.float32)) + shift
    softening = (0.3 * tensor(np.repeat(examples.block_m[chosen], cells))) ** 2
    squared = (points[:, 0] - position[bs, 0]) ** 2 + (points[:, 1] - position[bs, 1]) ** 2 + softening
    log_ratio = 0.5 * torch.log(squared) - log_reach[bs]
    beyond = torch.nn.functional.softplus(4 * log_ratio) / 4
    log_rate = beta[bs] * log_ratio + (beta_far - beta)[bs] * beyond - strength[bs]
    log_rate = log_rate.masked_fill(absent, math.inf)
    probability = _target_probability(log_rate, settings.nodes)
    side = settings.side
    map_ = probability.reshape(-1, side, side) * tensor(examples.valid[chosen])
    map_ = map_ / map_.sum(dim=(1, 2), keepdim=True).clamp(min=1e-12)
    difference = map_ - tensor(examples.truth[chosen])
    rows = difference.cumsum(dim=1)
    table = rows.cumsum(dim=2)
    end = table[:, :, -1:]
    foot = table[:, -1:, :]
    total = table[:, -1:, -1:]
    quadrants = torch.stack([table, end - table, foot - table, total - end - foot + table], dim=1).abs()
    return quadrants.amax(dim=(1, 2, 3)), quadrants.mean(dim=(1, 2, 3))


def _target_probability(log_rate: Any, nodes: int) -> Any:  # noqa: ANN401 - torch is imported lazily
    """P(i|ℓ) of the first BS of each cell from log rates of shape (n_bs, n_cells); differentiable.

    The derivatives share the integral's nodes: with u_j = 1 − e^(−λ_j t), ∂ log ∏u / ∂ log λ_j = λ_j t e^(−λ_j t) / u_j. Computing them
    in the same pass costs a tenth of what tracing the integral would.
    """
    import torch

    class Integral(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, rates: Any) -> Any:  # noqa: ANN401
            two = rates.topk(2, dim=0, largest=False).values
            relative = (rates - two[1]).clamp_(-30, 30)
            log_cut, end = math.log(1e-4), math.log(math.log(len(rates) / 1e-4))
            start = torch.full_like(relative[0], log_cut / 2)
            for _ in range(4):
                below = (relative + start).clamp_(max=0)
                start = start - (below.sum(dim=0) - log_cut) / (below < 0).sum(dim=0).clamp_(min=1)
            start = start.clamp_(-30.0, end - 1.0)
            step = (end - start) / nodes
            # Beyond `end` the others are all small, so the rest of the integral of a nearest target is e^(−λt) there.
            last = (relative[0] + end).exp_()
            rest = (-last).exp_()
            x = relative.add_(start + step / 2).exp_()
            growth = step.exp()
            total = rest * (1 + step**2 / 24 * last * (1 - last))  # with the midpoint rule's error at that end
            slopes = torch.zeros_like(x)
            for _ in range(nodes):
                x.clamp_(1e-12, 40.0)
                decay = (-x).exp_()
                above = (1 - decay).clamp_(min=1e-7)
                term = x[0] * decay[0] * above[1:].prod(dim=0) * step
                total += term
                slopes[0] += term * (1 - x[0])
                slopes[1:] += (x[1:] * decay[1:] / above[1:]).mul_(term)
                x = x.mul_(growth)
            slopes[0] += rest * (step**2 / 24 * last * (1 - 3 * last + last**2) - last)
            context.save_for_backward(slopes)
            return total

        @staticmethod
        def backward(context: Any, gradient: Any) -> Any:  # noqa: ANN401
            (slopes,) = context.saved_tensors
            return slopes * gradient

    return Integral.apply(log_rate)  # type: ignore[no-untyped-call]
