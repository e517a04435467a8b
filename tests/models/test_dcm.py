"""Candidates against loops: sums of squared errors place by place, greedy choice of separate ones, offsets, antennas that are missing."""

import math
import time
from dataclasses import replace

import numpy as np
import pytest
from dcm import brute_force, radio_maps, reports_at, table_of
from telcoloc.models.errors import Cancelled, InputError
from telcoloc.models.landmarks import reports as reports_module
from telcoloc.models.landmarks.lookup import LookupTable
from telcoloc.models.landmarks.reports import gather_reports
from telcoloc.models.landmarks.signal_candidates import CandidateSettings, match_signals, signal_candidates
from telcoloc.models.trajectory.measurements import measurements


def of_instant(candidates, instant):
    """Positions and errors of one instant."""
    rows = slice(*candidates.first[instant : instant + 2])
    return candidates.xy_m[rows], candidates.error_db[rows]


def limit_of(table, named, longest):
    """What an unheard antenna is weaker than, in whole decibels upwards: the weakest report of a full list, else the floor."""
    weakest = min(named.values()) if len(named) == longest else table.noise_floor_dbm
    return math.ceil(max(weakest, table.noise_floor_dbm))


@pytest.mark.parametrize(
    "options",
    [
        {"unheard_weight": 0.0},
        {"unheard_weight": 0.0, "antennas": 3},
        {},
        {"unheard_weight": 0.5, "antennas": 4},
        {"offset": "differences"},
        {"offset": "differences", "antennas": 4},
    ],
)
def test_candidates_are_those_of_loops_over_all_places(options):
    table = table_of(n=8)
    place = np.random.default_rng(1).choice(len(table.places), 25)
    records = reports_at(table, place, 6, error_db=6.0)
    settings = CandidateSettings(number=10, **options)
    found = signal_candidates(records, table, settings)
    heard = sorted(set(records.cells))
    table = table.only(heard)  # what no record names is not expected either
    for instant in range(len(records)):
        named = {
            records.cells[code]: float(rss)
            for code, rss in zip(records.cell[instant], records.rss_dbm[instant])
            if code >= 0
        }
        total, antennas = brute_force(table, named, limit_of(table, named, 6), settings)
        xy, error = of_instant(found, instant)
        assert len(error) == 10
        np.testing.assert_allclose(error, np.sqrt(np.sort(total)[:10] / antennas), atol=1e-3)
        at = np.searchsorted(table.places, table.grid.cells_of(xy))
        np.testing.assert_allclose(np.sqrt(total[at] / antennas), error, atol=1e-4)


@pytest.mark.parametrize("separation_m", [15.0, 40.0, 95.0, 1e6])
def test_separate_candidates_are_chosen_greedily(separation_m):
    table = table_of(n=7, size=20)
    place = np.random.default_rng(2).choice(len(table.places), 12)
    records = reports_at(table, place, 6, error_db=5.0)
    settings = CandidateSettings(number=8, separation_m=separation_m)
    found = signal_candidates(records, table, settings)
    every = signal_candidates(records, table, replace(settings, number=len(table.places), separation_m=0.0))
    for instant in range(len(records)):
        kept = []
        for spot in of_instant(every, instant)[0]:
            if all(np.hypot(*(spot - other)) >= separation_m for other in kept):
                kept.append(spot)
        np.testing.assert_array_equal(of_instant(found, instant)[0], kept[:8])


@pytest.mark.parametrize("offset", ["none", "differences"])
@pytest.mark.parametrize("separation_m", [0.0, 30.0])
def test_a_report_without_noise_finds_its_cell_first(offset, separation_m):
    table = table_of()
    place = np.arange(0, len(table.places), 7)
    found = signal_candidates(
        reports_at(table, place), table, CandidateSettings(number=5, offset=offset, separation_m=separation_m)
    )
    np.testing.assert_array_equal(found.xy_m[found.first[:-1]], table.grid.centres(table.places[place]))
    np.testing.assert_allclose(found.error_db[found.first[:-1]], 0, atol=1e-4)


def test_differences_do_not_see_an_offset():
    table = table_of()
    place = np.random.default_rng(3).choice(len(table.places), 40)
    settings = CandidateSettings(number=6, offset="differences")
    plain, shifted = (
        match_signals(reports_at(table, place, error_db=4.0, offset_db=offset), table, settings)
        for offset in (0.0, 7.5)
    )
    np.testing.assert_array_equal(plain.candidates.xy_m, shifted.candidates.xy_m)
    np.testing.assert_allclose(shifted.candidates.error_db, plain.candidates.error_db, atol=1e-3)
    np.testing.assert_allclose(shifted.offset_db - plain.offset_db, 7.5, atol=1e-3)


@pytest.mark.parametrize("offset", [-12.0, 0.0, 8.5])
def test_the_offset_of_a_device_is_estimated(offset):
    table = table_of(n=10, size=40)
    rng = np.random.default_rng(5)
    place = rng.choice(len(table.places), 160)
    device = np.repeat(["a", "b"], 80)
    records = reports_at(table, place, 7, error_db=3.0, device=device)
    shift = np.where(records.device == 0, offset, 2.0)
    records = replace(records, rss_dbm=(records.rss_dbm + shift[:, None]).astype(np.float32))
    found = match_signals(records, table, CandidateSettings(number=1, offset="estimate"))
    # Naming only the strongest seven of ten raises what is named by some tenths of a decibel.
    assert found.offset_db[records.device == 0] == pytest.approx(offset, abs=1.5)
    assert found.offset_db[records.device == 1] == pytest.approx(2.0, abs=1.5)
    assert np.unique(found.offset_db).size == 2


def test_an_estimated_offset_brings_the_places_back():
    table = table_of(n=10, size=40)
    place = np.random.default_rng(6).choice(len(table.places), 100)
    true = table.grid.centres(table.places[place])
    error = {}
    for how, offset in (("none", 0.0), ("none", 10.0), ("estimate", 10.0)):
        records = reports_at(table, place, 7, error_db=3.0, offset_db=offset)
        found = signal_candidates(records, table, CandidateSettings(number=1, offset=how))
        error[how, offset] = np.hypot(*(found.xy_m - true).T).mean()
    assert error["estimate", 10.0] < 1.3 * error["none", 0.0] < error["none", 10.0]


def test_antennas_that_are_not_named_help():
    table = table_of(n=12, size=40)
    place = np.random.default_rng(7).choice(len(table.places), 200)
    true = table.grid.centres(table.places[place])
    error = [
        np.hypot(*(signal_candidates(reports_at(table, place, 4, 4.0), table, settings).xy_m - true).T).mean()
        for settings in (CandidateSettings(number=1, unheard_weight=weight) for weight in (0.0, 1.0))
    ]
    assert error[1] < 0.8 * error[0]


def test_cells_the_table_lacks_are_left_out_and_counted():
    table = table_of()
    place = np.array([5, 50, 100])
    known = reports_at(table, place, 4)
    names = np.array([*table.cells, ""])[known.recoded(table.cells).cell[:, :4]]
    strange = np.full((3, 1), "elsewhere")
    records = measurements(
        np.full(3, "phone"),
        np.arange(3.0),
        np.hstack([strange, names]),
        np.hstack([np.full((3, 1), -40.0), known.rss_dbm[:, :4]]),
    )
    found = match_signals(records, table, CandidateSettings(number=3))
    np.testing.assert_array_equal(
        found.candidates.xy_m, signal_candidates(known, table, CandidateSettings(number=3)).xy_m
    )
    assert (found.unknown, found.reports) == (3, 15)
    assert found.antennas.tolist() == [4, 4, 4]


def test_a_record_without_a_known_cell_has_no_candidate():
    table = table_of()
    records = measurements(
        np.full(3, "phone"),
        np.arange(3.0),
        np.array([["cell 0", "cell 1"], ["elsewhere", ""], ["cell 2", ""]]),
        np.array([[-60.0, -70.0], [-60.0, np.nan], [-65.0, np.nan]]),
    )
    assert np.diff(signal_candidates(records, table, CandidateSettings(number=4)).first).tolist() == [4, 0, 4]
    differences = CandidateSettings(number=4, offset="differences")  # one antenna has no difference to another
    assert np.diff(signal_candidates(records, table, differences).first).tolist() == [4, 0, 0]


def test_an_unknown_entry_of_the_table_counts_as_the_noise_floor():
    table = table_of(block=False)
    holes = table.rss_dbm.copy()
    holes[::3, 2] = np.nan
    filled = np.where(np.isnan(holes), table.noise_floor_dbm, holes)
    records = reports_at(table, np.arange(0, len(table.places), 11), 6, 3.0)
    one, other = (
        signal_candidates(records, replace(table, rss_dbm=values)) for values in (holes, filled.astype(np.float32))
    )
    np.testing.assert_array_equal(one.xy_m, other.xy_m)


def test_what_is_reported_below_the_noise_floor_lowers_it():
    table = table_of(block=False)
    records = reports_at(table, np.arange(0, len(table.places), 11), 6)
    weakest = float(np.nanmin(records.rss_dbm))
    one, other = (signal_candidates(records, replace(table, noise_floor_dbm=floor)) for floor in (-60.0, weakest))
    np.testing.assert_array_equal(one.xy_m, other.xy_m)


def test_the_mean_over_a_window_is_that_of_its_records():
    table = table_of(n=4)
    rng = np.random.default_rng(8)
    records = reports_at(table, np.repeat(60, 30), 4, error_db=6.0, step_s=0.48)
    known = records.recoded(table.cells)
    reports = gather_reports(known, table.noise_floor_dbm, 4, 5.0)
    for instant in rng.choice(30, 8, replace=False):
        near = np.abs(records.time_s - records.time_s[instant]) <= 2.5
        for column, rss in zip(reports.column[instant], reports.rss_dbm[instant]):
            values = known.rss_dbm[near][known.cell[near] == column]
            assert rss == pytest.approx(values.mean(), abs=1e-4)
        assert (np.diff(reports.rss_dbm[instant]) <= 0).all()


def test_an_antenna_named_now_and_then_does_not_count_for_a_window():
    n = 9
    names = np.array([["cell 0", "cell 1" if index % 3 == 0 else ""] for index in range(n)])
    rss = np.where(names != "", -70.0, np.nan)
    table = table_of(n=3)
    records = measurements(np.full(n, "phone"), np.arange(float(n)), names, rss)
    reports = gather_reports(records.recoded(table.cells), table.noise_floor_dbm, 4, 100.0)
    assert reports.n_antennas.tolist() == [1] * n


def test_averaging_takes_fluctuation_away():
    table = table_of(n=8, size=40)
    place = np.repeat(np.random.default_rng(9).choice(len(table.places), 10), 20)
    records = reports_at(table, place, 6, error_db=6.0, step_s=0.5)
    true = table.grid.centres(table.places[place])
    single, mean = (
        np.hypot(
            *(signal_candidates(records, table, CandidateSettings(number=1, average_s=window)).xy_m - true).T
        ).mean()
        for window in (0.0, 4.0)
    )
    assert mean < 0.7 * single


def test_sensibility_drives_the_number_linearly():
    table = table_of()
    place = np.array([0, 40, 200, 400])
    settings = CandidateSettings(number=2, most=12, unheard_weight=0.0)
    every = signal_candidates(reports_at(table, place), table, settings)
    assert (np.diff(every.first) == 12).all()
    for value, expected in ((0.0, 2), (0.5, 7), (1.0, 12), (np.nan, 12)):
        flat = np.full(table.grid.shape, value)
        assert (np.diff(signal_candidates(reports_at(table, place), table, settings, flat).first) == expected).all()
    slope = np.linspace(0, 1, table.grid.size).reshape(table.grid.shape)
    found = signal_candidates(reports_at(table, place), table, settings, slope)
    for instant in range(len(place)):
        best = table.grid.cells_of(of_instant(every, instant)[0][:2])
        assert np.diff(found.first)[instant] == round(2 + 10 * slope.ravel()[best].mean())


def test_threads_and_chunks_change_nothing():
    table = table_of()
    records = reports_at(table, np.arange(0, len(table.places)), 6, 5.0)
    settings = CandidateSettings(number=5, separation_m=25.0, average_s=3.0)
    one, two = (signal_candidates(records, table, settings, threads=threads) for threads in (1, 2))
    for name in ("first", "xy_m", "error_db"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name))


def test_no_records_have_no_candidates():
    table = table_of()
    records = reports_at(table, np.array([3])).take(slice(0, 0))
    for options in ({}, {"offset": "estimate"}, {"average_s": 5.0}, {"separation_m": 20.0}):
        assert len(signal_candidates(records, table, CandidateSettings(**options))) == 0


def test_more_candidates_than_places_are_all_places():
    table = LookupTable.from_radio_maps(radio_maps(size=4, block=False))
    found = signal_candidates(reports_at(table, np.array([1, 9])), table, CandidateSettings(number=500))
    assert np.diff(found.first).tolist() == [table.grid.size] * 2


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"number": 0}, "At least one candidate"),
        ({"antennas": 0}, "At least one candidate"),
        ({"number": 20, "most": 10}, r"most candidates \(10\) must not be fewer than the least \(20\)"),
        ({"offset": "guess"}, "not 'guess'"),
        ({"separation_m": -1.0}, "separation must be zero or more, not -1"),
        ({"average_s": np.nan}, "averaging window must be zero or more"),
        ({"unheard_weight": np.inf}, "weight of unheard antennas"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, sentence):
    with pytest.raises(InputError, match=sentence):
        CandidateSettings(**options)


def test_tables_of_another_network_are_refused_with_examples_of_both():
    table = table_of()
    other = replace(table, cells=tuple(f"262-{index}" for index in range(len(table.cells))))
    with pytest.raises(
        InputError, match=r"such as 'cell 0', 'cell 1', 'cell 2', the table's such as '262-0', '262-1', '262-2'"
    ):
        signal_candidates(reports_at(table, np.arange(20), 7), other)


def test_a_sensibility_map_must_fit():
    table = table_of()
    records = reports_at(table, np.array([3]))
    with pytest.raises(InputError, match="largest number is not given"):
        signal_candidates(records, table, CandidateSettings(), np.zeros(table.grid.shape))
    with pytest.raises(InputError, match=r"shape \(2, 2\)"):
        signal_candidates(records, table, CandidateSettings(most=30), np.zeros((2, 2)))


def test_cancel_is_prompt():
    table = table_of(n=8, size=150)
    records = reports_at(table, np.random.default_rng(0).choice(len(table.places), 4000))
    began = time.monotonic()

    def stop(fraction):
        if time.monotonic() - began > 0.2:
            raise Cancelled

    with pytest.raises(Cancelled):
        signal_candidates(records, table, CandidateSettings(number=40, separation_m=30.0), progress=stop)
    assert time.monotonic() - began < 3


def test_means_over_windows_are_the_same_in_pieces(monkeypatch):
    table = table_of(n=5)
    place = np.repeat(np.random.default_rng(3).choice(len(table.places), 6), 10)
    known = reports_at(table, place, 3, error_db=6.0, step_s=0.48).recoded(table.cells)
    whole = gather_reports(known, table.noise_floor_dbm, 3, 4.0)
    monkeypatch.setattr(reports_module, "_RECORDS_AT_ONCE", 7)
    pieces = gather_reports(known, table.noise_floor_dbm, 3, 4.0)
    np.testing.assert_array_equal(pieces.column, whole.column)
    np.testing.assert_allclose(pieces.rss_dbm, whole.rss_dbm, atol=1e-9)
    np.testing.assert_allclose(pieces.limit_dbm, whole.limit_dbm, atol=1e-9)
    for one, other in zip(pieces.heard, whole.heard):
        assert set(one[one >= 0]) == set(other[other >= 0])


def test_cancel_reaches_a_chunk_that_has_begun():
    """Unheard antennas are looked at limit by limit, which takes seconds a chunk with a large table."""
    table = table_of(n=8, size=40)
    records = reports_at(table, np.random.default_rng(0).choice(len(table.places), 200), 7, error_db=6.0)
    reports = gather_reports(records.recoded(table.cells), table.noise_floor_dbm, 6)
    calls = []

    def stop(fraction):
        calls.append(fraction)
        if len(calls) == 3:
            raise Cancelled

    with pytest.raises(Cancelled):
        CandidateSettings().comparison(table).misfit(reports, np.zeros(len(reports)), stop)
