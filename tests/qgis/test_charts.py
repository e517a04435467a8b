"""Statements about the charts. The oracle for positions is the printed axis: its tick labels and where they stand."""

import re
import xml.etree.ElementTree as ET
from html.parser import HTMLParser

import numpy as np
import pytest
from telcoloc.models.errors import InputError
from telcoloc.telcoloc_qgis import charts
from telcoloc.telcoloc_qgis.charts import ChartSection, TableSection, cdf_chart, html_report, violin_chart

SVG = "{http://www.w3.org/2000/svg}"
NASTY = "<b>& \"one\" 'two' \x00"
LONG = "sPDI with one attenuation for all the base stations of the country and more than that"
UNBROKEN = "a" * 90
BOTH = pytest.mark.parametrize("chart", [violin_chart, cdf_chart])


def draw(chart, samples, limits=(None, None), label="KS2"):
    return ET.fromstring(chart(samples, label, limits))  # noqa: S314


def has_class(element, name):
    return name in element.get("class", "").split()


def scale_of(root):
    """The value → pixel line through the axis' first and last tick."""
    ticks = [element for element in root.iter(f"{SVG}text") if has_class(element, "tick")]
    values = [float(element.text.replace("\u202f", "").replace("−", "-")) for element in ticks]
    pixels = [float(element.get("x")) for element in ticks]
    assert values == sorted(values)
    return np.poly1d(np.polyfit([values[0], values[-1]], [pixels[0], pixels[-1]], 1))


def numbers(path):
    return np.array(re.findall(r"-?\d+\.?\d*", path), dtype=float)


def violins(root):
    return [element for element in root.iter(f"{SVG}path") if has_class(element, "violin")]


def curves(root):
    """The curves of the chart, without the legend's short lines."""
    return [child for child in root if child.tag == f"{SVG}path" and has_class(child, "curve")]


def beta(count, seed=0, a=2.0, b=4.0):
    return np.random.default_rng(seed).beta(a, b, count)


@BOTH
def test_every_method_is_named_in_full_whatever_its_name(chart):
    names = ["Voronoi", NASTY, LONG, UNBROKEN, "sPDI β=4", "基地局", "  ", "h"]
    root = draw(chart, {name: beta(50, i) for i, name in enumerate(names)})
    titles = [title.text for title in root.iter(f"{SVG}title")]
    for name in names:
        readable = name.replace("\x00", "\ufffd")
        assert any(title.startswith(f"{readable}: median ") for title in titles)
    assert not list(root.iter(f"{SVG}b"))


@BOTH
def test_names_are_broken_into_lines_that_stay_in_their_column(chart):
    root = draw(chart, {LONG: beta(9), UNBROKEN: beta(9), "a_long_name_that_breaks_at_its_underscores": beta(9)})
    lines = [text.text for text in root.iter(f"{SVG}text") if has_class(text, "ink")]
    assert "a_long_name_that_" in lines
    for line in lines:
        assert charts._text_width(line) <= charts.LABEL_WIDTH
    assert sum(line.endswith("…") for line in lines) == 2


@BOTH
@pytest.mark.parametrize("count", range(1, 11))
def test_lines_of_text_never_overlap(chart, count):
    names = [LONG, "short", UNBROKEN, "two words", "x"]
    root = draw(chart, {f"{i} {names[i % 5]}": beta(30, i) for i in range(count)})
    height = float(root.get("height"))
    for anchor_x in {text.get("x") for text in root.iter(f"{SVG}text")}:
        column = sorted(float(text.get("y")) for text in root.iter(f"{SVG}text") if text.get("x") == anchor_x)
        assert all(np.diff(column) >= 12)
        assert column[0] > 0
        assert column[-1] < height


@pytest.mark.parametrize("limits", [(None, None), (0.0, 1.0), (0.0, None)])
@pytest.mark.parametrize("factor", [1.0, 300.0, 5e4])
def test_medians_and_quartiles_stand_at_their_values(limits, factor):
    limits = tuple(None if limit is None else limit * factor for limit in limits)
    samples = {"one": beta(101, 1) * factor, "two": beta(200, 2, 5, 2) * factor}
    root = draw(violin_chart, samples, limits)
    x = scale_of(root)
    dots = [float(dot.get("cx")) for dot in root.iter(f"{SVG}circle")]
    assert dots == pytest.approx([x(np.median(values)) for values in samples.values()], abs=0.02)
    bars = [numbers(bar.get("d"))[[0, 2]] for bar in root.iter(f"{SVG}path") if has_class(bar, "bar")]
    for bar, values in zip(bars, samples.values()):
        assert bar == pytest.approx(x(np.percentile(values, [25, 75])), abs=0.02)


def test_the_median_is_printed_one_decimal_finer_than_the_ticks():
    root = draw(violin_chart, {"m": np.array([0.0, 0.4137, 1.0])}, (0.0, 1.0))
    assert "0.41" in [text.text for text in root.iter(f"{SVG}text")]


def test_a_violin_is_the_kernel_density_and_keeps_all_its_mass_within_the_limits():
    """Most of an exponential sits at zero: without reflection the density would fall there."""
    values = np.sort(np.random.default_rng(3).exponential(1.0, 20_000))
    at, density = charts._density(values, (0.0, None))
    assert at[0] == 0.0
    mass = ((density[1:] + density[:-1]) / 2 * np.diff(at)).sum()
    truth = np.exp(-at)
    inner = at < 3
    assert density[inner] / mass == pytest.approx(truth[inner], abs=0.06)
    assert np.argmax(density) < 10


def test_the_density_equals_the_plain_sum_of_kernels():
    values = np.sort(beta(300, 4))
    at, density = charts._density(values, (0.0, 1.0))
    q1, q3 = np.percentile(values, [25, 75])
    width = 0.9 * min(values.std(), (q3 - q1) / 1.34) * values.size**-0.2
    kernels = sum(
        np.exp(-0.5 * ((point - at) / width) ** 2) for value in values for point in (value, -value, 2 - value)
    )
    assert density == pytest.approx(kernels, rel=2e-3, abs=2e-3 * kernels.max())


def test_violins_stay_within_the_limits_and_their_rows():
    root = draw(violin_chart, {"u": beta(400, 5, 0.5, 0.5), "v": beta(400, 6, 9, 1)}, (0.0, 1.0))
    x = scale_of(root)
    for violin, dot in zip(violins(root), root.iter(f"{SVG}circle")):
        points = numbers(violin.get("d")).reshape(-1, 2)
        assert points[:, 0].min() >= x(0) - 0.02
        assert points[:, 0].max() <= x(1) + 0.02
        assert np.abs(points[:, 1] - float(dot.get("cy"))).max() < 31
        assert points[:, 1] + points[::-1, 1] == pytest.approx(2 * float(dot.get("cy")), abs=0.02)  # mirrored


@pytest.mark.parametrize("values", [[0.3], [0.3] * 9, [0.0], [0.0] * 3])
@pytest.mark.parametrize("limits", [(None, None), (0.0, 1.0), (0.0, None)])
def test_a_sample_without_spread_is_a_line_at_its_value(values, limits):
    root = draw(violin_chart, {"flat": np.array(values)}, limits)
    x, start, *rest = numbers(violins(root)[0].get("d"))
    assert x == pytest.approx(scale_of(root)(values[0]), abs=0.02)
    assert len(rest) == 1
    assert start < rest[0]
    if limits[0] == 0.0:
        assert min(float(t.text) for t in root.iter(f"{SVG}text") if has_class(t, "tick")) == 0.0


@BOTH
def test_large_counts_stay_on_the_paper(chart):
    values = np.append(np.linspace(10_000, 20_000, 1_234_567), [np.nan] * 1_000)
    root = draw(chart, {"many": values, "few": values[:9]})
    notes = [text for text in root.iter(f"{SVG}text") if "of 1\u202f235\u202f567" in text.text]
    assert len(notes) == 1
    assert float(notes[0].get("x")) + charts._text_width(notes[0].text) * 11 / 13 <= charts.WIDTH


@BOTH
def test_missing_values_are_left_out_and_counted(chart):
    some = np.array([0.2, np.nan, 0.4, np.inf, 0.6])
    root = draw(chart, {"some": some, "none": np.array([np.nan]), "empty": np.array([])}, (0.0, 1.0))
    text = " ".join(element.text for element in root.iter(f"{SVG}text"))
    assert "n = 3 of 5" in text
    assert "n = 0 of 1" in text
    assert text.count("n = 0") == 2
    assert len(violins(root) + curves(root)) == 1


@BOTH
@pytest.mark.parametrize(
    "samples",
    [
        {"nothing": np.array([])},
        {"huge": np.array([1e12, 3e12])},
        {"tiny": np.array([1e-12, 3e-12, 2e-12])},
        {"negative": np.array([-5.0, -3.0, 2.0])},
        {"integers": np.array([1, 2, 2, 3])},
        {"almost flat": np.array([1.0, 1.0 + 1e-14])},
        {"mostly equal": np.array([0.5] * 99 + [0.6])},
        {"an outlier": np.append(beta(500), 1e6)},
    ],
    ids=lambda samples: next(iter(samples)),
)
def test_odd_samples_give_finite_pictures(chart, samples):
    root = draw(chart, samples)
    for element in root.iter():
        for value in element.attrib.values():
            assert "nan" not in value
            assert not re.search(r"\binf\b", value)
    assert sum(has_class(text, "tick") for text in root.iter(f"{SVG}text")) >= 2


def test_a_curve_is_the_share_of_values_up_to_each_value():
    values = beta(40, 7)
    root = draw(cdf_chart, {"m": values}, (0.0, 1.0))
    steps = numbers(curves(root)[0].get("d"))
    start, middle, end = steps[:2], steps[2:-1].reshape(-1, 2), steps[-1]
    x = scale_of(root)
    assert start[0] == pytest.approx(x(0.0), abs=0.02)
    assert end == pytest.approx(x(1.0), abs=0.02)
    assert middle[:, 0] == pytest.approx(x(np.sort(values)), abs=0.02)
    shares = (start[1] - middle[:, 1]) / (start[1] - middle[-1, 1])
    assert shares == pytest.approx(np.arange(1, 41) / 40, abs=1e-3)


def test_long_curves_are_thinned_but_keep_their_ends():
    values = beta(50_000, 8)
    root = draw(cdf_chart, {"m": values}, (0.0, 1.0))
    middle = numbers(curves(root)[0].get("d"))[2:-1].reshape(-1, 2)
    x = scale_of(root)
    assert len(middle) <= 400
    assert middle[[0, -1], 0] == pytest.approx(x(np.array([values.min(), values.max()])), abs=0.02)
    half = np.interp(-(middle[-1, 1] + curves_bottom(root)) / 2, -middle[:, 1], middle[:, 0])
    assert half == pytest.approx(x(np.median(values)), abs=0.5)


def curves_bottom(root):
    return numbers(curves(root)[0].get("d"))[1]


def test_the_legend_is_ordered_by_median():
    root = draw(
        cdf_chart, {"worst": np.array([0.9, 0.8]), "none": np.array([]), "best": np.array([0.1]), "mid": beta(5)}
    )
    names = [text.text for text in root.iter(f"{SVG}text") if has_class(text, "ink")]
    assert [name for name in names if name in {"worst", "none", "best", "mid"}] == ["best", "mid", "worst", "none"]


def test_a_method_keeps_its_colour_in_both_charts_and_eight_differ():
    samples = {f"m{i}": beta(30, i) for i in range(8)}
    of_violins = [violin.get("stroke") for violin in violins(draw(violin_chart, samples))]
    by_name = {}
    for curve in curves(draw(cdf_chart, samples)):
        by_name[next(curve.iter(f"{SVG}title")).text.split(":")[0]] = curve.get("stroke")
    assert of_violins == [by_name[name] for name in samples]
    assert len(set(of_violins)) == 8


@BOTH
def test_the_same_input_gives_the_same_text(chart):
    samples = {"a": beta(100), "b": beta(90, 1)}
    assert chart(samples, "x", (0.0, 1.0)) == chart(
        {name: values.copy() for name, values in samples.items()}, "x", (0, 1)
    )


@BOTH
def test_samples_are_not_changed_and_none_at_all_is_refused(chart):
    values = beta(20)
    before = values.copy()
    chart({"a": values}, "x")
    assert np.array_equal(values, before)
    with pytest.raises(InputError, match=r"^A chart needs at least one method; none was given\.$"):
        chart({}, "x")


class Page(HTMLParser):
    """Collects tags, text and attribute values, and insists that tags close in order."""

    VOID = ("meta", "rect", "path", "circle")

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.texts, self.values = [], [], [], []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.values += [value for _, value in attrs if value]
        if tag not in self.VOID or tag == "path":
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.values += [value for _, value in attrs if value]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


def report():
    return html_report(
        f"Title {NASTY}",
        f"Subtitle {NASTY}",
        [
            ChartSection(f"Chart {NASTY}", violin_chart({NASTY: beta(30)}, NASTY, (0.0, 1.0)), f"Caption {NASTY}"),
            ChartSection("Curves", cdf_chart({"m": beta(30)}, "KS2")),
            TableSection(
                f"Table {NASTY}",
                ["Method", NASTY, "Spread", "Remark"],
                [[NASTY, 0.41237, "0.3 – 0.5", "good"], ["b", None, "–", "–"], ["c", float("nan"), "−3 %", 7]],
                f"Below {NASTY}",
            ),
        ],
        footer=f"Footer {NASTY}",
    )


def test_the_page_is_well_formed_and_all_text_is_escaped():
    page = Page(report())
    shown = NASTY.replace("\x00", "\ufffd")
    for text in ("Title", "Subtitle", "Chart", "Caption", "Table", "Below", "Footer"):
        assert f"{text} {shown}" in page.texts
    assert "b" not in page.tags
    assert "\x00" not in report()


def test_the_page_fetches_nothing_and_runs_nothing():
    page = Page(report())
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    outside = [value for value in page.values if "://" in value]
    assert set(outside) == {"http://www.w3.org/2000/svg"}  # a name, not an address
    assert "url(" not in report()
    assert "@import" not in report()


def test_the_page_has_a_dark_side_for_every_colour_of_the_charts():
    page = report()
    dark = page[page.index("prefers-color-scheme: dark") : page.index("</style>")]
    for class_name in ("paper", "ink", "muted", "axis", "rule", "bar", "median", *(f"c{i}" for i in range(8))):
        assert f".tl-chart .{class_name}" in dark


def test_columns_of_numbers_are_aligned_right_and_missing_ones_print_a_dash():
    page = report()
    assert '<td class="number">0.4124</td><td class="number">0.3 – 0.5</td><td>good</td>' in page
    assert '<td class="number">–</td><td class="number">–</td><td>–</td>' in page
    assert '<td class="number">–</td><td class="number">−3 %</td><td>7</td>' in page


def test_tables_may_be_empty_but_not_ragged():
    assert '<th scope="col">A</th>' in html_report("t", "s", [TableSection("h", ["A", "B"], [])])
    with pytest.raises(InputError, match=r"^A row of the table 'h' has 1 cells, its header has 2\.$"):
        html_report("t", "s", [TableSection("h", ["A", "B"], [["x"]])])


def contrast(one, other):
    """WCAG 2 contrast ratio of two colours."""
    luminance = []
    for colour in (one, other):
        channels = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)])
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        luminance.append(linear @ [0.2126, 0.7152, 0.0722])
    return (max(luminance) + 0.05) / (min(luminance) + 0.05)


def test_text_is_readable_on_its_paper():
    dark_paper = re.search(r"body { background: (#\w+); color: (#\w+)", charts._DARK_CSS)
    assert min(contrast(charts.INK, charts.PAPER), contrast(charts.MUTED, charts.PAPER)) > 4.5
    assert contrast(*dark_paper.groups()) > 4.5
    assert min(contrast(colour, dark_paper[1]) for _, colour in charts.COLOURS) > 4.5
    assert min(contrast(colour, charts.PAPER) for colour, _ in charts.COLOURS) > 2.0


# Lines


def test_a_line_passes_through_its_values():
    values = np.array([0.5, 0.3, 0.25, 0.4])
    root = ET.fromstring(charts.line_chart(values, "KS2", "Epoch", 2))  # noqa: S314
    (curve,) = curves(root)
    x, y = numbers(curve.get("d")).reshape(-1, 2).T
    np.testing.assert_allclose(x, scale_of(root)(np.arange(1, 5)), atol=0.02)
    drop = np.poly1d(np.polyfit(values, y, 1))
    np.testing.assert_allclose(drop(values), y, atol=0.02)
    assert drop(0.5) < drop(0.25)
    (dot,) = [each for each in root.iter(f"{SVG}circle") if has_class(each, "median")]
    assert (float(dot.get("cx")), float(dot.get("cy"))) == (x[2], y[2])


@pytest.mark.parametrize("values", [[0.4], [0.0, 0.0], [np.nan, np.nan], [0.3, np.nan, 0.2, 0.1]])
def test_lines_of_few_equal_or_missing_values(values):
    root = ET.fromstring(charts.line_chart(np.array(values), "Loss", "Epoch"))  # noqa: S314
    drawn = "".join(curve.get("d") for curve in curves(root))
    assert "nan" not in drawn
    assert drawn.count("M") + drawn.count("L") == np.isfinite(values).sum()
