"""The CNN around its network: grid, classes, learning, and scores of records in batches."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import InputError
from ...progress import Progress, no_progress
from ..localizer import FitSettings
from ..measurements import Measurements
from ..options import MANY, SHARE, Count, Kind
from ..pieces import pieces
from .configurations import CONFIGURATIONS
from .pixels import PixelGrid, SparseTensors, entries_of, occupied, sparse_tensors
from .records import Scales

if TYPE_CHECKING:
    import torch

    from .convolution import ScoreCnn
    from .layers import Noise

#: Records whose scores are computed at once.
_BATCH = 64
#: Records whose tensors are made at once.
_PIECE = 32_768
#: Records learned from at once.
_LEARN_BATCH = 64
#: Records that a CNN learns from in all, each counted as often as it is seen, unless `cnn_epochs` says otherwise.
SEEN = 120_000
#: Most grid cells that are told apart.
MOST_CLASSES = 1024

#: Records before one that its tensor holds.
PRECEDING = Count(0, 20)
#: Options that say how large a CNN is, and how it is trained.
LAYOUT_OPTIONS: Mapping[str, Kind] = {
    "configuration": Count(min(CONFIGURATIONS), max(CONFIGURATIONS)),
    "width": SHARE,
    "preceding": PRECEDING,
    "classes": MANY,
}
CNN_OPTIONS: Mapping[str, Kind] = {"cnn_epochs": MANY, "cnn_rate": SHARE}


@dataclass(frozen=True)
class Layout:
    """Which pixels and grid cells a CNN knows.

    Parameters
    ----------
    configuration
        Of Table 5.
    width
        Share of the paper's filters.
    preceding
        k: records before a record that its tensor also holds.
    grid
        Of the tensor.
    cell_pixel
        Pixel of each cell's base station, shape (n_cells,), -1 for none.
    classes, class_grid
        Grid cells that hold training truths, shape (C,), and the grid they belong to.
    """

    configuration: int
    width: float
    preceding: int
    grid: PixelGrid
    cell_pixel: np.ndarray
    classes: np.ndarray
    class_grid: PixelGrid

    @classmethod
    def of(cls, data: Measurements, scales: Scales, learn: np.ndarray, settings: FitSettings) -> Layout:
        """Lay out from the truths of the rows `learn` and the options `configuration`, `width`, `preceding` and `classes`."""
        configuration = int(settings.option("configuration", 2))
        width, preceding = float(settings.option("width", 1 / 16)), int(settings.option("preceding", 2))
        side = CONFIGURATIONS[configuration][0]
        grid = PixelGrid.over(scales, side, side)
        xy_m = np.column_stack(scales.frame.to_xy(data.lon[learn], data.lat[learn]))
        classes, class_grid = occupied(xy_m, grid, int(settings.option("classes", MOST_CLASSES)))
        cell_pixel = grid.pixel_of(scales.cell_xy * scales.scale_m)
        return cls(configuration, width, preceding, grid, cell_pixel, classes, class_grid)

    @property
    def sites(self) -> np.ndarray:
        """Pixels where base stations stand, ascending."""
        return np.unique(self.cell_pixel[self.cell_pixel >= 0])

    @property
    def centres_m(self) -> np.ndarray:
        """Centroids of the grid cells [m], shape (C, 2)."""
        return self.class_grid.centre_m(self.classes)

    def inputs(self, data: Measurements, scales: Scales, progress: Progress = no_progress) -> SparseTensors:
        """Tensors of all records, with `sites` indices instead of pixels."""
        first, pixel, value = [np.zeros(1, dtype=np.int64)], [np.empty(0, dtype=np.int64)], []
        for begin, end, low, high in pieces(data.starts, _PIECE, self.preceding):
            progress(begin / len(data))
            piece = data.take(np.arange(low, high))
            found = sparse_tensors(piece, scales, self.cell_pixel, self.preceding)
            edge = found.first[begin - low : end - low + 1]
            first.append(edge[1:] - edge[0] + first[-1][-1])
            pixel.append(np.searchsorted(self.sites, found.pixel[edge[0] : edge[-1]]))
            value.append(found.value[edge[0] : edge[-1]])
        nothing = np.empty((0, 1 + len(scales.signals)), dtype=np.float32)
        return SparseTensors(np.concatenate(first), np.concatenate(pixel), np.concatenate([nothing, *value]))

    def network(self, features: int) -> ScoreCnn:
        """A network of this layout with weights that mean nothing yet."""
        from .convolution import ScoreCnn

        return ScoreCnn(self.configuration, features, self.width, self.sites, len(self.classes))

    def tensors(self) -> dict[str, np.ndarray]:
        """What `restore` needs as arrays."""
        return {"layout.classes": self.classes.astype(np.int64), "layout.cell_pixel": self.cell_pixel.astype(np.int64)}

    def card(self) -> dict[str, Any]:
        """What `restore` needs as JSON."""
        return {
            "configuration": self.configuration,
            "width": self.width,
            "preceding": self.preceding,
            "class_rows": self.class_grid.rows,
            "class_columns": self.class_grid.columns,
            "class_width_m": self.class_grid.width_m,
            "class_height_m": self.class_grid.height_m,
        }

    @classmethod
    def restore(cls, scales: Scales, tensors: Mapping[str, np.ndarray], card: Mapping[str, Any]) -> Layout:
        """Build again.

        Raises
        ------
        InputError
            When something is missing or does not fit.
        """
        try:
            configuration, width, preceding = int(card["configuration"]), float(card["width"]), int(card["preceding"])
            side = CONFIGURATIONS[configuration][0]
            grid = PixelGrid.over(scales, side, side)
            rows, columns = int(card["class_rows"]), int(card["class_columns"])
            class_grid = PixelGrid(
                rows, columns, grid.left_m, grid.top_m, float(card["class_width_m"]), float(card["class_height_m"])
            )
            classes, cell_pixel = tensors["layout.classes"], tensors["layout.cell_pixel"]
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"The model is damaged: its CNN's layout cannot be read ({error!r}).") from error
        fits = (
            cell_pixel.shape == (len(scales.cells),)
            and classes.ndim == 1
            and len(classes) > 0
            and -1 <= cell_pixel.min(initial=0) <= cell_pixel.max(initial=0) < side * side
            and 0 <= classes.min() <= classes.max() < rows * columns
            and 0 < width <= 1
            and 0 <= preceding <= 20
        )
        if not fits:
            raise InputError("The model is damaged: its CNN's layout does not fit its cells.")
        return cls(configuration, width, preceding, grid, cell_pixel, classes, class_grid)


def logits_of(
    network: ScoreCnn, inputs: SparseTensors, rows: np.ndarray, device: torch.device, noise: Noise | None = None
) -> torch.Tensor:
    """Logits of the grid cells for some records, shape (len(rows), C); with noise, base stations go missing and signals shift."""
    import torch

    entry, owner = entries_of(inputs.first, rows)
    site = torch.from_numpy(inputs.pixel[entry]).to(device)
    value = torch.from_numpy(inputs.value[entry]).to(device)
    if noise is not None:
        value = value * (noise.uniform(len(value), 1) >= 0.1) * (1 + 0.03 * noise.normal(*value.shape))
    found: torch.Tensor = network(site, value, torch.from_numpy(owner).to(device), len(rows), noise)
    return found


def log_scores(
    network: ScoreCnn, inputs: SparseTensors, device: torch.device, progress: Progress, rows: np.ndarray | None = None
) -> np.ndarray:
    """Logarithms of equation (2) for records (all, without `rows`), shape (n, C), float16."""
    import torch

    rows = np.arange(len(inputs.first) - 1) if rows is None else rows
    n_classes = network.scores.out_features
    found = np.empty((len(rows), n_classes), dtype=np.float16)
    with torch.inference_mode():
        for begin in range(0, len(rows), _BATCH):
            progress(begin / len(rows))
            logits = logits_of(network, inputs, rows[begin : begin + _BATCH], device)
            found[begin : begin + _BATCH] = torch.log_softmax(logits, 1).clamp(min=-30).cpu().numpy()
    return found


def learn_scores(
    layout: Layout,
    inputs: SparseTensors,
    truth: np.ndarray,
    learn: np.ndarray,
    scale_m: float,
    settings: FitSettings,
    progress: Progress,
    stream: int = 0,
    seen: int = SEEN,
) -> ScoreCnn:
    """Train a CNN to name the grid cell of each record of `learn`.

    Parameters
    ----------
    inputs
        From `layout.inputs`.
    truth
        True positions [standard deviations], shape (n, 2).
    learn
        Rows to learn from, shape (n_learn,).
    stream
        Tells several CNNs of one seed apart.
    seen
        Records to learn from in all, where `cnn_epochs` does not say.
    """
    import torch

    from .layers import Noise, initialise
    from .learning import descend, naming_loss

    device = torch.device(settings.device)
    seed = [settings.seed, 17, stream]
    rng = np.random.default_rng(seed)
    network = layout.network(inputs.value.shape[1])
    initialise(network, torch.Generator().manual_seed(int(rng.integers(2**31))))
    network = network.to(device)
    noise = Noise(torch.Generator(device).manual_seed(int(rng.integers(2**31))), device)
    centres = torch.from_numpy((layout.centres_m / scale_m).astype(np.float32)).to(device)
    sigma = 0.7 * float(np.hypot(layout.class_grid.width_m, layout.class_grid.height_m)) / scale_m / 2**0.5
    wanted = torch.from_numpy(truth.astype(np.float32)).to(device)

    def batches() -> list[np.ndarray]:
        order = rng.permutation(learn)
        return [order[begin : begin + _LEARN_BATCH] for begin in range(0, len(order), _LEARN_BATCH)]

    def loss_of(rows: np.ndarray) -> torch.Tensor:
        logits = logits_of(network, inputs, rows, device, noise)
        return naming_loss(logits, wanted[torch.from_numpy(rows).to(device)], centres, sigma)

    usual = min(max(round(seen / max(len(learn), 1)), 4), 60)
    epochs = max(1, int(settings.option("cnn_epochs", usual)))
    descend(network, epochs, float(settings.option("cnn_rate", 2e-3)), batches, loss_of, progress)
    return network
