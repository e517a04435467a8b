"""The student of DeepMEND: P(ℓ|i) from positions alone by a trained U-Net (section IV-B); methods "deepmend" and "direct".

torch is needed to compute, and imported only then.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Callable

import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree

from ..chunks import run_chunks
from ..environment import cuda_state
from ..errors import DeviceError, InputError, MemoryBudgetError
from ..grid import Grid
from ..progress import Progress, no_progress, span
from ..weights_file import Weights, expect_shapes, read_weights
from . import student_windows
from .resample import Kept, onto_grid, reachable_cells
from .student_windows import CHANNELS, FILTERS, KERNEL, StudentWindow

#: What the student learned from: a teacher's soft labels, or the truth.
KINDS = ("deepmend", "direct")
_FIXED = "_fixed"
#: Window cells (BSs × side²) a chunk holds.
_CHUNK_CELLS_CPU, _CHUNK_CELLS_CUDA = 1 << 15, 1 << 19
#: Bytes a kept probability costs at the peak: value and index, in pieces and put together.
_BYTES_PER_VALUE = 16
_SAMPLED_BS = 16


@dataclass(frozen=True)
class Student:
    """A trained student.

    Parameters
    ----------
    weights
        Of kind "deepmend" or "direct", with "_fixed" for the paper's window.
    window
        The window it was trained for.
    """

    weights: Weights
    window: StudentWindow


def kind_of(method: str, window: StudentWindow) -> str:
    """Kind of weights of a method ("deepmend" or "direct") for a window."""
    return method + (_FIXED if window.kind == "fixed" else "")


def student_of(weights: Weights, path: object) -> Student:
    """Return the student with these weights; `path` is what errors call them.

    Raises
    ------
    InputError
        When the kind, the card or the shapes of the arrays are not a student's.
    """
    every = tuple(kind + suffix for kind in KINDS for suffix in ("", _FIXED))
    if weights.kind not in every:
        raise InputError(
            f"The weights file {path} holds weights for '{weights.kind}', not for a student ({', '.join(every)})."
        )
    expect_shapes(weights, _shapes(), str(path))
    window = StudentWindow.of_card(weights.card, path)
    if (window.kind == "fixed") != weights.kind.endswith(_FIXED):
        raise InputError(
            f"The weights file {path} is damaged: it is for '{weights.kind}', but its card tells of the window '{window.kind}'."
        )
    return Student(weights, window)


def load_student(path: str | os.PathLike[str], method: str = "deepmend") -> Student:
    """Read the student of a method ("deepmend" or "direct"), for either window; `write_weights` wrote it.

    Raises
    ------
    InputError
        When the file cannot be read or holds something else.
    """
    return student_of(read_weights(path, (method, method + _FIXED)), path)


def require_torch() -> None:
    """Make sure that torch can be used.

    Raises
    ------
    DeviceError
        When it is missing or broken; the message says what to do.
    """
    try:
        import torch  # noqa: F401
    except Exception as error:  # a broken build raises OSError, ImportError, or whatever its own start-up code raises
        if isinstance(error, ModuleNotFoundError) and error.name == "torch":
            raise DeviceError(
                "DeepMEND's student needs torch, which is not installed in this Python. Install torch into the Python of QGIS (a build "
                "for the CPU is enough) and restart QGIS, or choose another method."
            ) from error
        state = cuda_state()
        raise DeviceError(f"DeepMEND's student needs torch, but {state.cause}. {state.advice}") from error


def student_maps(
    student: Student,
    sites_m: np.ndarray,
    grid: Grid,
    mask: np.ndarray | None = None,
    *,
    targets: np.ndarray | None = None,
    device: str = "cpu",
    threads: int = 2,
    memory_mb: float = 4096.0,
    keep_mass: float = 0.9999,
    progress: Progress = no_progress,
) -> tuple[sparse.csr_matrix, np.ndarray]:
    """Compute P(ℓ|i) of base stations (BSs) on a grid.

    The student fills a window centred at each BS; outside there is nothing. Cells of the grid finer than the window's get the density
    interpolated (bilinear in its logarithm) at their centres, coarser ones the sum of what they cover. A single BS serves every cell
    alike, as in the other methods.

    Parameters
    ----------
    sites_m
        Positions [m] of all BSs in the grid's CRS, all different, shape (n_bs, 2).
    grid, mask
        The cells, and which may hold mass, shape (height, width), bool; None for all. The student does not see the mask.
    targets
        Indices of the BSs to compute; None for all. Rows of the others stay empty.
    device
        "cpu" or "cuda" (see `environment.resolve_device`).
    threads
        On the CPU. They do not change the result.
    memory_mb
        Most memory the result may take [MiB].
    keep_mass
        Share of each BS's mass on the grid that is kept at least; the cells with the smallest probabilities are dropped.

    Returns
    -------
    scipy.sparse.csr_matrix, numpy.ndarray
        P(ℓ|i), shape (n_bs, n_cells), float32, sorted; each row sums to one, or is empty where a BS has no mass on the grid. And the
        share of each BS's mass that lies beyond the grid's rectangle whatever the mask, shape (n_bs,); NaN where not computed.

    Raises
    ------
    DeviceError
        Where torch is missing.
    InputError
        When no cell may hold mass.
    MemoryBudgetError
        When the result would not fit; said before the work starts.
    Cancelled
        From `progress`.
    """
    n_bs = len(sites_m)
    sites_m = np.asarray(sites_m, float).reshape(n_bs, 2)
    if mask is not None and not mask.any():
        raise InputError("No cell of the grid lies inside the boundary, so there is nowhere to put mass.")
    wanted = np.arange(n_bs) if targets is None else np.unique(targets)
    mass_cut = np.full(n_bs, np.nan)
    if n_bs == 1:
        allowed = np.arange(grid.size) if mask is None else np.flatnonzero(mask)
        row = np.full(len(allowed), 1 / len(allowed), np.float32)
        progress(1.0)
        return sparse.csr_matrix((row, allowed, [0, len(allowed)]), shape=(1, grid.size)), mass_cut
    require_torch()
    from .unet import exact_convolutions, torch_threads

    work = _worker(student, sites_m, wanted, grid, mask, device, keep_mass)
    on_cpu = device == "cpu"
    chunk = max(1, (_CHUNK_CELLS_CPU if on_cpu else _CHUNK_CELLS_CUDA) // student.window.side**2)
    # The threads are ours, not torch's: each takes its own base stations, and the result does not depend on how many there are.
    with torch_threads(1), exact_convolutions():
        _check_memory(
            student, sites_m, wanted, grid, memory_mb, work, threads if on_cpu else 1, span(progress, 0, 0.05)
        )
        parts = run_chunks(work, len(wanted), chunk, threads if on_cpu else 1, span(progress, 0.05, 1))
    rows = [row for part in parts for row in part]
    del parts
    counts = np.zeros(n_bs, np.int64)
    for bs, kept in zip(wanted, rows):
        mass_cut[bs] = kept.mass_cut
        counts[bs] = len(kept.cells)
    cells = np.concatenate([row.cells for row in rows]) if rows else np.zeros(0, np.int32)
    values = np.concatenate([row.probability for row in rows]) if rows else np.zeros(0, np.float32)
    maps = sparse.csr_matrix((values, cells, np.concatenate([[0], np.cumsum(counts)])), shape=(n_bs, grid.size))
    maps.has_sorted_indices = True
    return maps, mass_cut


def _worker(
    student: Student,
    sites_m: np.ndarray,
    wanted: np.ndarray,
    grid: Grid,
    mask: np.ndarray | None,
    device: str,
    keep_mass: float,
) -> Callable[[int, int], list[Kept]]:
    """Return the function that computes the rows of `wanted[start:stop]`."""
    import torch

    from .unet import StudentUNet

    network = StudentUNet.of(student.weights.tensors, device).eval()
    tree = cKDTree(sites_m)
    sizes = student.window.cell_sizes_m(sites_m)
    steps = student_windows.offsets(student.window.side)

    def work(start: int, stop: int) -> list[Kept]:
        bs = wanted[start:stop]
        xy_m, size = sites_m[bs], sizes[bs]
        x_m = xy_m[:, :1] + steps * size[:, None]
        y_m = xy_m[:, 1:] - steps * size[:, None]
        seen = torch.from_numpy(student_windows.channels(tree, xy_m, x_m, y_m, size))
        with torch.inference_mode():
            said = network(seen.to(device)).cpu().numpy()
        maps = student_windows.from_target(said)
        return [onto_grid(*one, grid, mask, keep_mass) for one in zip(maps, xy_m, size)]

    return work


def _check_memory(
    student: Student,
    sites_m: np.ndarray,
    wanted: np.ndarray,
    grid: Grid,
    memory_mb: float,
    work: Callable[[int, int], list[Kept]],
    threads: int,
    progress: Progress,
) -> None:
    """Refuse a result that would not fit: all the windows' cells, or where these are too many, what a sample keeps of them."""
    sizes = student.window.cell_sizes_m(sites_m) * student.window.side
    reachable = np.array([reachable_cells(sites_m[bs], sizes[bs], grid) for bs in wanted])
    n_values = reachable.sum()
    if n_values * _BYTES_PER_VALUE <= memory_mb * 2**20:
        return
    sample = np.sort(np.random.default_rng(0).choice(len(wanted), min(_SAMPLED_BS, len(wanted)), replace=False))
    counted = run_chunks(
        lambda a, b: [len(work(i, i + 1)[0].cells) for i in sample[a:b]], len(sample), 1, threads, progress
    )
    kept = sum(count for part in counted for count in part) / max(reachable[sample].sum(), 1)
    needed_mb = n_values * kept * _BYTES_PER_VALUE / 2**20
    if needed_mb > memory_mb:
        factor = np.sqrt(needed_mb / memory_mb)
        raise MemoryBudgetError(
            f"{grid.describe()} would hold about {n_values * kept:,.0f} probabilities and need {needed_mb:,.0f} MB; {memory_mb:,.0f} MB "
            f"are allowed. Use CELL_SIZE {grid.cell_size_m * factor * 1.05:.3g} or more, or allow more memory."
        )


def _shapes() -> dict[str, tuple[int, ...]]:
    """Shape of each array of `StudentUNet`."""
    shapes: dict[str, tuple[int, ...]] = {"head.weight": (1, FILTERS[0], 1, 1), "head.bias": (1,)}
    for part, before, after in (
        ("encoder", (CHANNELS, *FILTERS[:-1]), FILTERS),
        ("decoder", [a + b for a, b in zip((FILTERS[-1], *FILTERS[:0:-1]), FILTERS[::-1])], FILTERS[::-1]),
    ):
        for number, (n_in, n_out) in enumerate(zip(before, after)):
            shapes[f"{part}.{number}.weight"] = (n_out, n_in, KERNEL, KERNEL)
            shapes[f"{part}.{number}.bias"] = (n_out,)
    return shapes
