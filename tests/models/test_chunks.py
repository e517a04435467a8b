"""Statements about work in chunks: order, threads, progress, cancel, and memory that runs out."""

import threading
import time

import pytest
from telcoloc.models.chunks import is_out_of_memory, run_chunks, with_halving
from telcoloc.models.errors import Cancelled, MemoryBudgetError
from telcoloc.models.progress import stoppable

OutOfMemoryError = type("OutOfMemoryError", (RuntimeError,), {})  # torch's, without torch


def flat(ranges):
    return [item for start, stop in ranges for item in range(start, stop)]


@pytest.mark.parametrize("threads", [0, 1, 3])
@pytest.mark.parametrize(("n_items", "chunk"), [(1, 1), (10, 3), (9, 3), (10, 100), (200, 1), (7, 0), (7, -2)])
def test_every_item_is_worked_once_and_results_are_in_order(n_items, chunk, threads):
    def work(start, stop):
        time.sleep(0.002 if start == 0 else 0)  # the first is the last to end
        return start, stop

    ranges = run_chunks(work, n_items, chunk, threads)
    assert flat(ranges) == list(range(n_items))
    assert max(stop - start for start, stop in ranges) <= max(1, chunk)


@pytest.mark.parametrize("n_items", [0, -3])
def test_nothing_to_do_is_an_empty_answer(n_items):
    assert run_chunks(lambda start, stop: pytest.fail("there is nothing to do"), n_items, 5) == []


def test_threads_work_at_the_same_time_and_no_more_than_allowed():
    both = threading.Barrier(2, timeout=10)
    names = set()

    def work(start, stop):
        names.add(threading.current_thread().name)
        both.wait()

    run_chunks(work, 6, 1, threads=2)  # one thread alone would break the barrier
    assert len(names) == 2


@pytest.mark.parametrize("error", [MemoryError, OutOfMemoryError])
@pytest.mark.parametrize("fits", [1, 3, 8])
def test_a_chunk_that_does_not_fit_is_halved_until_it_does(error, fits):
    tried = []

    def work(start, stop):
        tried.append(stop - start)
        if stop - start > fits:
            raise error
        return start, stop

    ranges = run_chunks(work, 40, 16)
    assert flat(ranges) == list(range(40))
    assert max(stop - start for start, stop in ranges) <= fits
    assert max(tried) == 16


def test_halving_stops_at_the_smallest_piece():
    tried = []

    def work(start, stop):
        tried.append(stop - start)
        raise MemoryError

    with pytest.raises(MemoryBudgetError, match="smallest piece"):
        with_halving(work, 0, 32, smallest=8)
    assert tried == [32, 16, 8]


@pytest.mark.parametrize("error", [MemoryError, OutOfMemoryError])
def test_when_not_even_one_item_fits_the_sentence_says_what_to_do(error):
    def work(start, stop):
        if start <= 5 < stop:
            raise error("no")
        return start

    sentence = (
        r"^Memory ran out even for the smallest piece of work\. Use larger cells, a smaller extent, or DEVICE=cpu\.$"
    )
    with pytest.raises(MemoryBudgetError, match=sentence) as caught:
        run_chunks(work, 10, 4, threads=2)
    assert type(caught.value.__cause__) is error


def test_other_errors_pass_through_unchanged_and_are_not_tried_again():
    tried = []
    wrong = ValueError("wrong")

    def work(start, stop):
        tried.append((start, stop))
        if start == 8:
            raise wrong

    with pytest.raises(ValueError, match="wrong") as caught:
        run_chunks(work, 1000, 8)
    assert caught.value is wrong
    assert tried.count((8, 16)) == 1
    assert len(tried) < 20  # the rest is not worked


def test_what_counts_as_out_of_memory():
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(OutOfMemoryError())
    assert not is_out_of_memory(RuntimeError("OutOfMemoryError"))
    assert not is_out_of_memory(ValueError())


def test_progress_comes_from_the_callers_thread_often_and_rises_to_one():
    calls, threads = [], set()

    def progress(fraction):
        calls.append((time.perf_counter(), fraction))
        threads.add(threading.current_thread())

    start = time.perf_counter()
    run_chunks(lambda first, last: time.sleep(0.7), 3, 1, threads=3, progress=progress)
    times = [start, *(moment for moment, _ in calls)]
    fractions = [fraction for _, fraction in calls]
    assert threads == {threading.current_thread()}
    assert max(after - before for before, after in zip(times, times[1:])) < 0.2
    assert sum(fraction == 0 for fraction in fractions) >= 4  # while the slow chunks run
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0


def test_cancel_stops_the_remaining_chunks():
    worked = []

    def work(start, stop):
        worked.append(start)
        time.sleep(0.02)

    def cancel(fraction):
        if fraction > 0.02:
            raise Cancelled(f"at {fraction:g}")

    start = time.perf_counter()
    with pytest.raises(Cancelled, match=r"at 0\.0"):
        run_chunks(work, 100, 1, threads=2, progress=cancel)
    assert time.perf_counter() - start < 1.0  # all of them take a second
    assert len(worked) < 15
    count = len(worked)
    time.sleep(0.1)
    assert len(worked) == count  # nothing goes on in the background


def test_cancel_before_the_first_chunk_has_ended():
    begun = []

    def work(start, stop):
        begun.append(start)
        time.sleep(0.3)

    def cancel(fraction):
        raise Cancelled

    with pytest.raises(Cancelled):
        run_chunks(work, 50, 1, threads=1, progress=cancel)
    assert begun == [0]


def test_cancelling_reaches_the_work_that_has_begun():
    """Without it the caller would wait for a second."""
    begun, ended = [], []

    def progress(fraction):
        if begun:
            raise Cancelled("stop")

    watched, check = stoppable(progress)

    def work(start, stop):
        begun.append(start)
        for _ in range(1000):
            check(0.0)
            time.sleep(0.001)
        ended.append(start)

    with pytest.raises(Cancelled):
        run_chunks(work, 8, 1, 2, watched)
    assert not ended
