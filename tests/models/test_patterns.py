"""Statements about antenna patterns. Oracles: half-power points by definition, files written here, numpy's own interpolation."""

import numpy as np
import pytest
import torch
from telcoloc.models.errors import InputError
from telcoloc.models.radio.antennas import sector_gain_db
from telcoloc.models.radio.pattern_files import parse_pattern, read_pattern_file
from telcoloc.models.radio.patterns import Pattern

ANGLES = np.arange(-180.0, 181.0)


def column(value):
    return np.full(1, float(value))


def horizontal(pattern, offset, width=65.0):
    offset = np.asarray(offset, float)
    return pattern.gain_db(offset, np.zeros_like(offset), column(0), column(width))


def vertical(pattern, depression, tilt=0.0):
    depression = np.asarray(depression, float)
    return pattern.gain_db(np.zeros_like(depression), depression, column(tilt), column(65))


def cut(loss):
    return "\n".join(f"{angle} {loss(angle):.3f}" for angle in range(360))


def around(angle):
    return (angle + 180) % 360 - 180


def pattern_text(tilt=0, gain="GAIN 16.0 dBi"):
    """A file whose cuts fall by 0.1 and 0.5 dB per degree, up to 20 and 30 dB."""
    return "\n".join(
        [
            "NAME TEST 65 DEG",
            "FREQUENCY 1800",
            gain,
            "TILT ELECTRICAL",
            "HORIZONTAL 360",
            cut(lambda angle: min(0.1 * abs(around(angle)), 20)),
            "VERTICAL 360",
            cut(lambda angle: min(0.5 * abs(around(angle - tilt)), 30)),
        ]
    )


def test_omni_has_no_directions():
    assert (Pattern("omni").gain_db(ANGLES, ANGLES / 2, column(5), column(65)) == 0).all()


@pytest.mark.parametrize("kind", ["3gpp", "gaussian"])
@pytest.mark.parametrize("width", [30.0, 65.0, 90.0])
def test_half_the_power_is_left_at_half_the_beam_width(kind, width):
    found = horizontal(Pattern(kind), [0, width / 2, -width / 2, 360 + width / 2], width)
    np.testing.assert_allclose(found, [0, -3, -3, -3], atol=1e-9)


def test_gaussian_lobes_are_a_bell_down_to_thirty_db():
    found = -horizontal(Pattern("gaussian"), ANGLES)
    assert found.max() == pytest.approx(30.0)
    assert found.argmax() in (0, 360)
    # a Gaussian bell: the logarithm of what is left to the asymptote is a parabola
    asymptote = np.linspace(30.001, 60, 300_000)
    thirty, sixty, ninety = -horizontal(Pattern("gaussian"), [30, 60, 90])
    curvature = np.log(1 - thirty / asymptote) / 900
    best = np.abs(np.log(1 - sixty / asymptote) / 3600 - curvature).argmin()
    assert asymptote[best] * (1 - np.exp(curvature[best] * 8100)) == pytest.approx(ninety, abs=0.01)


def test_gaussian_vertical_beam_is_nine_degrees_wide_and_points_down_by_the_tilt():
    np.testing.assert_allclose(vertical(Pattern("gaussian"), [6, 1.5, 10.5], tilt=6), [0, -3, -3], atol=1e-9)


def test_the_sector_is_that_of_the_simulator():
    depression = np.linspace(-20, 60, len(ANGLES))
    found = Pattern("3gpp").gain_db(ANGLES, depression, column(4), column(65))
    np.testing.assert_array_equal(found, sector_gain_db(ANGLES, depression, 4.0))


def test_file_cuts_are_added_in_db():
    pattern = parse_pattern(pattern_text(), "a.msi")
    assert pattern.name == "TEST 65 DEG"
    assert pattern.gain_dbi == 16.0
    offset, depression = np.meshgrid([0.0, 40.0, -40.0, 400.0, 180.0], [0.0, 8.0, -8.0])
    expected = -np.minimum(0.1 * np.abs(around(offset)), 20) - 0.5 * np.abs(depression)
    found = pattern.gain_db(offset, depression, column(0), column(65))
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_between_degrees_the_file_is_interpolated_and_goes_round():
    pattern = parse_pattern(pattern_text(), "a.msi")
    np.testing.assert_allclose(horizontal(pattern, [12.25, -0.25, 359.75]), [-1.225, -0.025, -0.025], atol=1e-9)


def test_an_electrical_tilt_of_the_file_does_not_count_twice():
    level, tilted = (parse_pattern(pattern_text(tilt), "a.msi") for tilt in (0, 6))
    assert tilted.file_tilt_deg == 6
    depression = np.linspace(-30, 50, 161)
    np.testing.assert_allclose(vertical(tilted, depression, tilt=6), vertical(level, depression, tilt=6), atol=1e-9)
    np.testing.assert_allclose(
        vertical(tilted, depression, tilt=np.nan), vertical(level, depression, tilt=6), atol=1e-9
    )
    assert vertical(tilted, [9.0], tilt=9)[0] == 0


@pytest.mark.parametrize(
    ("line", "gain_dbi"),
    [
        ("GAIN 15.85 dBd", 18.0),
        ("GAIN 15.85", 18.0),
        ("GAIN\t18,0 DBI", 18.0),
        ("GAIN 18dBi", 18.0),
        ("COMMENT", np.nan),
    ],
)
def test_gains_in_dbd_and_dbi(line, gain_dbi):
    assert parse_pattern(pattern_text(gain=line), "a.msi").gain_dbi == pytest.approx(gain_dbi, nan_ok=True)


def test_coarser_and_negative_tables_are_read():
    coarse = "\n".join(f"{angle}\t-{min(0.1 * abs(around(angle)), 20):.2f}" for angle in range(0, 360, 5))
    text = f"HORIZONTAL 72\n{coarse}\nVERTICAL 72\n{coarse}\n"
    np.testing.assert_allclose(horizontal(parse_pattern(text, "a.pln"), [7, 352.5]), [-0.7, -0.75], atol=1e-9)


def replaced(number, line):
    lines = pattern_text().splitlines()
    lines[number - 1] = line
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            replaced(17, "11 1.1 dB"),
            "Line 17 of a.msi is '11 1.1 dB'; row 12 of 360 of its table must be an angle and an attenuation.",
        ),
        (replaced(17, ""), "Line 17 of a.msi is missing or empty; row 12 of 360"),
        (
            replaced(5, "HORIZONTAL many"),
            "Line 5 of a.msi, 'HORIZONTAL many', must say how many rows follow, 12 or more.",
        ),
        (replaced(3, "GAIN high"), "Line 3 of a.msi, 'GAIN high', must hold a gain such as 17.5 dBi."),
        (pattern_text()[:6000], "row"),
        ("just a letter", "a.msi has no line 'HORIZONTAL 360' with a table behind it; give an MSI or Planet file."),
        (
            "HORIZONTAL 90\n" + "\n".join(f"{i} 0" for i in range(90)),
            "The table behind line 1 of a.msi does not go round",
        ),
    ],
)
def test_bad_files_have_a_sentence(text, sentence):
    with pytest.raises(InputError) as error:
        parse_pattern(text, "a.msi")
    assert sentence in str(error.value)


def test_a_missing_file_has_a_sentence(tmp_path):
    with pytest.raises(InputError, match=r"no\.msi can't be read: No such file"):
        read_pattern_file(tmp_path / "no.msi")
    (tmp_path / "yes.msi").write_text(pattern_text())
    assert read_pattern_file(tmp_path / "yes.msi").kind == "file"


@pytest.mark.parametrize(
    "pattern", [Pattern("omni"), Pattern(), Pattern("gaussian"), parse_pattern(pattern_text(3), "a.msi")]
)
def test_torch_agrees_with_numpy(pattern):
    generator = np.random.default_rng(1)
    offset, depression = generator.uniform(-400, 400, 999), generator.uniform(-89, 89, 999)
    arguments = (offset, depression, column(4), column(70))
    found = pattern.gain_db(*(torch.from_numpy(values) for values in arguments))
    np.testing.assert_allclose(found.numpy(), pattern.gain_db(*arguments), atol=1e-9)


@pytest.mark.parametrize("first", [-180, -179, 0, 1, 90])
def test_a_cut_may_begin_anywhere_and_go_below_zero(first):
    def rows(loss):
        return "\n".join(f"{angle} {loss(angle):.3f}" for angle in range(first, first + 360))

    text = f"HORIZONTAL 360\n{rows(lambda angle: 0.1 * abs(around(angle)))}\nVERTICAL 360\n{rows(lambda angle: 0.0)}\n"
    found = parse_pattern(text, "a.msi").horizontal_loss_db
    np.testing.assert_allclose(found, 0.1 * np.abs(around(np.arange(361))), atol=1e-9)


def test_a_pattern_of_no_kind_is_refused():
    with pytest.raises(InputError, match="must be one of omni, 3gpp, gaussian, file, not 'horn'"):
        Pattern("horn")
