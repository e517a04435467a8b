"""The CNN that scores grid cells (DeepLoc, section 4.1 and Table 5). This file needs torch; import it inside functions only."""

from __future__ import annotations

from typing import cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from .configurations import CONFIGURATIONS, LEAST_FILTERS
from .layers import Noise, dropped

#: Hidden units of the prediction layers, "FC256-FC256-Softmax".
_UNITS = 256


class ScoreCnn(nn.Module):  # type: ignore[misc,unused-ignore]  # without torch's stubs it is Any
    """Convolutions of a configuration of Table 5, each with ReLU, then FC256-FC256 and the scores of the grid cells (equation 2).

    The tensor of a record has few pixels that are not empty. The first convolution, its max pooling and the second convolution are
    therefore computed from these alone: a filled pixel changes the pooled first map only near it, everywhere else that is ReLU(bias); and
    the second convolution is that of the constant map, computed once, and what the few changed pixels add. It is the same number to
    rounding (a test compares it with the dense convolutions), and the paper's own network needs 0.1 instead of 2 GMAC a record.

    Parameters
    ----------
    configuration
        1 to 5.
    features
        F.
    width
        Share of the paper's filters, in (0, 1]; no layer has fewer than `LEAST_FILTERS`.
    pixels
        Flat pixels where base stations stand, ascending, shape (n_sites,).
    n_classes
        Grid cells C.
    """

    _near: torch.Tensor
    _which: torch.Tensor
    _quarter: torch.Tensor
    _spread: torch.Tensor

    def __init__(self, configuration: int, features: int, width: float, pixels: np.ndarray, n_classes: int) -> None:
        super().__init__()
        side, layers = CONFIGURATIONS[configuration]
        self.side = side
        self.pooled = [pooled for _, _, pooled in layers]
        filters = [max(LEAST_FILTERS, round(width * number)) for _, number, _ in layers]
        kernels = [kernel for kernel, _, _ in layers]
        self.convolutions = nn.ModuleList(
            nn.Conv2d(before, after, kernel, padding=kernel // 2)
            for before, after, kernel in zip((features, *filters[:-1]), filters, kernels)
        )
        end = side // 2 ** sum(self.pooled)
        self.units = nn.ModuleList([nn.Linear(filters[-1] * end * end, _UNITS), nn.Linear(_UNITS, _UNITS)])
        self.scores = nn.Linear(_UNITS, n_classes)
        near, which, quarter = _footprints(pixels, side, kernels[0])
        for name, table in (("_near", near), ("_which", which), ("_quarter", quarter)):
            self.register_buffer(name, torch.from_numpy(table), persistent=False)
        self.register_buffer("_spread", torch.from_numpy(_targets(side // 2, kernels[1])), persistent=False)

    def second(self, site: torch.Tensor, value: torch.Tensor, owner: torch.Tensor, count: int) -> torch.Tensor:
        """The second convolution after the first one with ReLU and pooling, shape (count, filters, side / 2, side / 2).

        Parameters
        ----------
        site, value, owner
            Of each pixel that is not empty: index in `pixels`, features (n, F), and which of the `count` records has it.
        """
        first, then = (cast(nn.Conv2d, layer) for layer in self.convolutions[:2])
        bias, bias_then = cast(torch.Tensor, first.bias), cast(torch.Tensor, then.bias)
        half = self.side // 2
        places = half * half + 1  # the last one takes what falls off the map
        # pooled pixels that a filled pixel reaches
        near = owner[:, None] * places + self._near[site]
        changed, position = torch.unique(near, return_inverse=True)
        # the first convolution there, each pooled pixel in quarters
        filters, features = first.weight.shape[:2]
        products = value @ first.weight.permute(1, 2, 3, 0).reshape(features, -1)
        index = 4 * torch.gather(position, 1, self._which[site]) + self._quarter[site]
        sums = products.new_zeros(4 * len(changed), filters).index_add(0, index.flatten(), products.view(-1, filters))
        change = functional.relu(sums.view(-1, 4, filters).amax(1) + bias) - functional.relu(bias)
        inside = changed % places != places - 1
        change, changed = change[inside], changed[inside]
        # the second convolution of the constant map, and of the changes
        constant = functional.relu(bias)[None, :, None, None].expand(1, filters, half, half)
        still = functional.conv2d(constant, then.weight, bias_then, padding=then.padding)[0].flatten(1).T
        outputs = len(then.weight)
        landing = self._spread[changed % places]
        inside = landing < half * half
        products = change @ then.weight.permute(1, 2, 3, 0).reshape(filters, -1)
        products = products.view(*landing.shape, outputs) * inside[..., None]
        landing = (changed // places * half * half)[:, None] + landing * inside
        full = still.repeat(count, 1).index_add_(0, landing.flatten(), products.view(-1, outputs))
        return full.view(count, half, half, outputs).permute(0, 3, 1, 2)

    def forward(
        self, site: torch.Tensor, value: torch.Tensor, owner: torch.Tensor, count: int, noise: Noise | None = None
    ) -> torch.Tensor:
        """Logits of the grid cells, shape (count, C); arguments as in `second`."""
        values = self.second(site, value, owner, count)
        for step, (layer, pooled) in enumerate(zip(self.convolutions[1:], self.pooled[1:])):
            values = layer(values) if step else values
            values = functional.relu(functional.max_pool2d(values, 2) if pooled else values)
        flat = values.flatten(1)
        for units in self.units:
            flat = dropped(functional.relu(units(flat)), 0.2, noise)
        return self.scores(flat)


def _targets(side: int, kernel: int) -> np.ndarray:
    """Where the products of each pixel with a kernel land, shape (side², k²): a flat pixel, side² for off the map."""
    row, column = np.divmod(np.arange(side * side), side)
    return _landings(row, column, side, kernel).reshape(side * side, -1)


def _landings(row: np.ndarray, column: np.ndarray, side: int, kernel: int) -> np.ndarray:
    """Flat pixels on which the products of pixels with weights [i, j] land, shape (n, k, k); side² for off the map."""
    offset = kernel // 2 - np.arange(kernel)
    rows, columns = row[:, None, None] + offset[:, None], column[:, None, None] + offset
    inside = (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)
    return np.where(inside, rows * side + columns, side * side).astype(np.int64)


def _footprints(pixels: np.ndarray, side: int, kernel: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What the first convolution's products of each site reach.

    Returns
    -------
    tuple
        Pooled pixels near each site, shape (n_sites, m), (side / 2)² for off the map; and of each of its k² products, shape (n_sites, k²):
        which of these it lands in, and in which quarter.
    """
    row, column = np.divmod(pixels, side)
    landing = _landings(row, column, side, kernel).reshape(len(pixels), -1)
    outside = landing == side * side
    half = side // 2
    pooled = np.where(outside, half * half, landing // side // 2 * half + landing % side // 2)
    quarter = np.where(outside, 0, 2 * (landing // side % 2) + landing % 2)
    most = max((len(np.unique(one)) for one in pooled), default=1)
    near = np.full((len(pixels), most), half * half, dtype=np.int64)
    which = np.zeros_like(pooled)
    for site, reached in enumerate(pooled):
        found, which[site] = np.unique(reached, return_inverse=True)
        near[site, : len(found)] = found
    return near, which, quarter
