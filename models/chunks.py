"""Running work in chunks: threads, progress, prompt cancel, and halving when memory runs out."""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Callable, TypeVar

from .errors import MemoryBudgetError
from .progress import Progress, no_progress

Result = TypeVar("Result")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` says that the host or the GPU ran out of memory (torch need not be imported to know)."""
    return isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"


def with_halving(work: Callable[[int, int], Result], start: int, stop: int, smallest: int = 1) -> list[Result]:
    """Call `work(start, stop)`; where memory runs out, in halves, down to `smallest` items.

    Raises
    ------
    MemoryBudgetError
        When even `smallest` items do not fit.
    """
    try:
        return [work(start, stop)]
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        if stop - start <= smallest:
            raise MemoryBudgetError(
                "Memory ran out even for the smallest piece of work. Use larger cells, a smaller extent, or DEVICE=cpu."
            ) from error
    middle = (start + stop) // 2
    return with_halving(work, start, middle, smallest) + with_halving(work, middle, stop, smallest)


def run_chunks(
    work: Callable[[int, int], Result],
    n_items: int,
    chunk: int,
    threads: int = 1,
    progress: Progress = no_progress,
) -> list[Result]:
    """Run `work(start, stop)` over [0, n_items) in chunks and return the results in order.

    `work` runs in `threads` threads; `progress` is called in the caller's thread only, at least every 0.1 s, and what it raises
    (Cancelled) stops the rest.
    """
    if n_items <= 0:
        return []
    chunk = max(1, chunk)
    starts = list(range(0, n_items, chunk))
    results: list[list[Result]] = [[] for _ in starts]
    with ThreadPoolExecutor(max_workers=max(1, threads)) as pool:
        waiting: dict[Future[list[Result]], int] = {}
        following = 0
        done = 0
        try:
            while done < len(starts):
                while following < len(starts) and len(waiting) < 2 * max(1, threads):
                    stop = min(starts[following] + chunk, n_items)
                    waiting[pool.submit(with_halving, work, starts[following], stop)] = following
                    following += 1
                finished, _ = wait(waiting, timeout=0.1, return_when=FIRST_COMPLETED)
                for future in finished:
                    results[waiting.pop(future)] = future.result()
                    done += 1
                progress(done / len(starts))
        finally:
            for future in waiting:
                future.cancel()
    return [item for part in results for item in part]
