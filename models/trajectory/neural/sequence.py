"""Networks over sequences of records (DeepLoc, sections 4.2 and 5.1.2). This file needs torch; import it inside functions only."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn
from torch.nn import functional

from .layers import Batch, GridHead, Noise, Output, PlainHead, RecordEncoder, dropped

#: Window sizes of recursive layers beyond the second, of which the paper says nothing.
_FURTHER_WINDOW = 2


class PlainLstm(nn.Module):  # type: ignore[misc,unused-ignore]
    """Basic LSTM over the records, forward in time, `layers` of them stacked, and one fully connected layer."""

    def __init__(self, n_cells: int, n_context: int, width: int, layers: int) -> None:
        super().__init__()
        self.encoder = RecordEncoder(n_cells, n_context, width)
        self.lstm = nn.LSTM(width, width, layers, batch_first=True)
        self.head = PlainHead(width)

    def forward(self, batch: Batch, noise: Noise | None) -> Output:
        """Positions of the records of windows."""
        values = dropped(self.encoder(batch, noise, 0.1, 0.1) * batch.there, 0.1, noise)
        return self.head(self.lstm(values)[0])


class Seq2SeqLstm(nn.Module):  # type: ignore[misc,unused-ignore]
    """Sequence to sequence: an encoder LSTM reads the window backwards, a decoder LSTM writes the positions from its last state.

    The reversed input is that of Sutskever et al. (the paper's [15]); the decoder is fed with the position it wrote before.
    """

    def __init__(self, n_cells: int, n_context: int, width: int) -> None:
        super().__init__()
        self.encoder = RecordEncoder(n_cells, n_context, width)
        self.reader = nn.LSTM(width, width, batch_first=True)
        self.writer = nn.LSTM(2, width, batch_first=True)
        self.head = PlainHead(width)

    def forward(self, batch: Batch, noise: Noise | None) -> Output:
        """Positions of the records of windows."""
        values = dropped(self.encoder(batch, noise, 0.1, 0.1) * batch.there, 0.1, noise)
        state = self.reader(values.flip(1))[1]
        xy = values.new_zeros(len(values), 1, 2)
        found = []
        for _ in range(values.shape[1]):
            hidden, state = self.writer(xy, state)
            found.append(self.head(hidden))
            xy = found[-1].xy
        return Output(torch.cat([one.xy for one in found], 1), torch.cat([one.log_spread for one in found], 1))


class ConvolutionalLstm(nn.Module):  # type: ignore[misc,unused-ignore]
    """ConvLSTM (the paper's [14]) over the 3D tensors: 3 × 3 convolutions in the gates, then pooling and two FC layers."""

    def __init__(self, features: int, side: int, filters: int, width: int) -> None:
        super().__init__()
        self.filters = filters
        self.gates = nn.Conv2d(features + filters, 4 * filters, 3, padding=1)
        self.mix = nn.Linear(filters * (side // 2) ** 2, width)
        self.head = PlainHead(width)

    def forward(self, batch: Batch, noise: Noise | None) -> Output:
        """Positions of the records of windows."""
        pixels = batch.pixels
        if pixels is None:
            raise ValueError("ConvLSTM needs the 3D tensors")
        hidden = pixels.new_zeros(len(pixels), self.filters, *pixels.shape[-2:])
        memory = hidden
        found = []
        for step in range(pixels.shape[1]):
            gates = self.gates(torch.cat([pixels[:, step], hidden], 1))
            enter, keep, leave, new = gates.chunk(4, 1)
            memory = torch.sigmoid(keep + 1) * memory + torch.sigmoid(enter) * torch.tanh(new)
            hidden = torch.sigmoid(leave) * torch.tanh(memory)
            found.append(functional.max_pool2d(hidden, 2).flatten(1))
        values = functional.relu(self.mix(torch.stack(found, 1)))
        return self.head(dropped(values, 0.1, noise))


class RecursiveLstm(nn.Module):  # type: ignore[misc,unused-ignore]
    """RecuLSTM, section 4.2.2, figures 3 and 4; with the CNN's scores as input it is DeepLoc.

    Recursive layer 1 joins w1 vectors by the concatenation function; layer r > 1 runs an LSTM over each piece that layer r − 1 joined, and
    joins w_r of its outputs. The prediction layer is an LSTM over what the last one joined, and the FC network `GridHead`. Without
    recursive layers the FC network is alone. Joining by "concat" keeps all w vectors in their order; "mean", "max" and "last" replace
    them by one, repeated so that each record keeps a place. Scores of the CNN pass an FC layer first that makes them fewer (section 4.2.3).

    Beyond the paper: LSTMs run in both directions (a trajectory is recovered afterwards); the prediction LSTM also sees what the first
    concatenation gave, beside the LSTM's summary of it; DeepLoc sees the record's features beside the CNN's scores; while learning, whole
    records are hidden so that neighbours must speak for them.

    Parameters
    ----------
    n_cells, n_context
        Of the records.
    n_classes
        Grid cells C that hold training truths.
    windows
        w1 and w2.
    recursive
        Number of recursive layers, 0 to 4.
    join
        "concat", "mean", "max" or "last".
    width
        Hidden units of each LSTM and direction, and length of a record's vector.
    reduced
        Length of the reduced CNN scores; 0 without CNN.
    initialised
        As in `GridHead`.
    """

    def __init__(
        self,
        n_cells: int,
        n_context: int,
        n_classes: int,
        windows: tuple[int, int],
        recursive: int,
        join: str,
        width: int,
        reduced: int,
        initialised: bool,
    ) -> None:
        super().__init__()
        self.join = join
        self.sizes = [windows[layer] if layer < 2 else _FURTHER_WINDOW for layer in range(recursive)]
        self.encoder = RecordEncoder(n_cells, n_context, width)
        self.reduce = nn.Linear(n_classes, reduced) if reduced else None
        inputs = width + reduced
        self.layers = nn.ModuleList(
            nn.LSTM(inputs if layer == 0 else 2 * width, width, batch_first=True, bidirectional=True)
            for layer in range(max(0, recursive - 1))
        )
        before = inputs + (2 * width if recursive > 1 else 0)
        self.prediction = nn.LSTM(before, width, batch_first=True, bidirectional=True) if recursive else None
        self.head = GridHead(2 * width if recursive else inputs, n_classes, initialised)

    def forward(self, batch: Batch, noise: Noise | None) -> Output:
        """Positions of the records of windows."""
        values = self.encoder(batch, noise, 0.1, 0.15) * batch.there
        scores = batch.scores
        if self.reduce is not None and scores is not None:
            values = torch.cat([values, functional.relu(self.reduce(scores.exp())) * batch.there], -1)
        if noise is not None and self.sizes:
            hidden = noise.uniform(*values.shape[:2], 1) < RECORD_DROP
            values = values * ~hidden
            if scores is not None:
                scores = torch.where(hidden, torch.zeros_like(scores), scores)
        values = dropped(values, 0.1, noise)
        piece = 1
        deeper: torch.Tensor | None = None
        for layer, size in enumerate(self.sizes):
            if layer == 0:
                values = _joined(values, piece, size, self.join)
            else:
                lstm = cast(nn.LSTM, self.layers[layer - 1])
                found = _in_pieces(lstm, values if deeper is None else deeper, piece)
                deeper = _joined(found, piece, size, self.join)
            piece *= size
        joined = values if deeper is None else torch.cat([values, deeper], -1)
        if self.prediction is not None:
            joined = dropped(_in_pieces(self.prediction, joined, piece), 0.1, noise)
        return self.head(joined, scores)


#: Share of the records whose own features are hidden while learning.
RECORD_DROP = 0.2


def _in_pieces(lstm: nn.LSTM, values: torch.Tensor, piece: int) -> torch.Tensor:
    """Run an LSTM over pieces of windows, each from a new state; shape (n_windows, length, …) stays."""
    n, length = values.shape[:2]
    if piece >= length:
        return lstm(values)[0]
    missing = -length % piece
    padded = functional.pad(values, (0, 0, 0, missing))
    return lstm(padded.reshape(-1, piece, values.shape[2]))[0].reshape(n, length + missing, -1)[:, :length]


def _joined(values: torch.Tensor, piece: int, size: int, join: str) -> torch.Tensor:
    """The concatenation function over `size` pieces of `piece` records, shape (n_windows, length, …) stays."""
    if join == "concat" or size == 1:
        return values
    n, length, width = values.shape
    padded = functional.pad(values, (0, 0, 0, -length % (piece * size)))
    parts = padded.reshape(n, -1, size, piece, width)
    if join == "mean":
        one = parts.mean(2, keepdim=True)
    elif join == "max":
        one = parts.amax(2, keepdim=True)
    else:
        one = parts[:, :, -1:]
    return one.expand_as(parts).reshape(n, -1, width)[:, :length]
