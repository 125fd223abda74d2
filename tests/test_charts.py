"""Charts and pages: nothing is cut off or covered, axes have round numbers, pages have all that was asked."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args
from xml.etree import ElementTree

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.page import read_page

from pile_tools import ConfigError, cli, open_order, publish, timeline
from pile_tools.commands import mixture, when_plot
from pile_tools.jobs import order, tokenize, train_tokenizer
from pile_tools.jobs.order import OrderConfig
from pile_tools.jobs.tokenize import TokenizeConfig
from pile_tools.jobs.train_tokenizer import TrainTokenizerConfig
from pile_tools.present import charts, colors, pages
from pile_tools.present.axes import Axis, Kind
from pile_tools.present.charts import NARROW, WIDE, Bars, Chart, Dots, Lines, Series, Stack
from pile_tools.present.pages import Plot, Table
from pile_tools.read.shards import find_shards
from pile_tools.timeline.checkpoints import Intervals, intervals

#: Names as data may have them.
NAMES = ["a", "<script>alert(1)</script>", "a\x1b[2Jb\n\u202ec", "日本語" * 30, "long name " * 20, '"&amp;']
KINDS = get_args(Kind)


def elements(svg: str, tag: str) -> list[dict[str, str]]:
    """The attributes of all elements of a kind, and their text."""
    root = ElementTree.fromstring(svg)
    return [
        {**found.attrib, "text": found.text or ""}
        for found in root.iter(f"{{http://www.w3.org/2000/svg}}{tag}")
    ]


def extent(text: dict[str, str]) -> tuple[float, float]:
    """The left and right end of a text, by the approximate widths of its characters."""
    size = float(text.get("font-size", 12)) / 12
    x, width = float(text["x"]), size * charts._width(text["text"])
    start = x - width * {"middle": 0.5, "end": 1.0}.get(text.get("text-anchor", ""), 0.0)
    return start, start + width


def every_chart(names: list[str]) -> list[Chart]:
    """A chart of each kind, with series or groups of these names."""
    points = [(0.0, 1.0), (1.0, 20.0), (2.0, 3.0), (143_000.0, 1e9)]
    series = [Series(name, points, colors.of_series(i), is_marked=True) for i, name in enumerate(names)]
    title = "What a long title with a name from the data such as 日本語 says " * 3
    lines = Lines(title, "training step", "occurrences", series, x="symlog", y="log", marks=[0, 4, 512])
    return [
        lines,
        replace(lines, is_labelled_at_ends=True),
        Stack(title, "training step", "% of tokens", [0, 10, 20, 25], {name: [1, 0, 2] for name in names}),
        Bars(title, "occurrences", [(name, 10.0**i) for i, name in enumerate(names)]),
        Dots(title, "planted", "%", {name: [1, 2, 50] for name in names}, [colors.NONE] * len(names)),
    ]


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("number", range(5))
@pytest.mark.parametrize("names", [NAMES, NAMES[:1], []])
def test_nothing_is_cut_off(names: list[str], number: int, width: int) -> None:
    svg = every_chart(names)[number].svg(width, is_picture=True)
    root = ElementTree.fromstring(svg)
    _, _, right, bottom = map(float, root.attrib["viewBox"].split())
    assert right == width
    for text in elements(svg, "text"):
        start, end = extent(text)
        assert start >= -1, text
        assert end <= width + 1, text
        assert 0 < float(text["y"]) < bottom, text
    for box in elements(svg, "rect"):
        assert float(box["width"]) + float(box.get("x", 0)) <= width
        assert float(box["height"]) + float(box.get("y", 0)) <= bottom
    for corners in elements(svg, "polyline"):
        for x, y in (map(float, point.split(",")) for point in corners["points"].split()):
            assert 0 <= x <= width
            assert 0 <= y <= bottom


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize("number", range(5))
def test_texts_do_not_cover_each_other(number: int, width: int) -> None:
    texts = elements(every_chart(NAMES)[number].svg(width, is_picture=True), "text")
    lines: dict[float, list[tuple[float, float]]] = {}
    for text in texts:
        lines.setdefault(float(text["y"]), []).append(extent(text))
    for on_line in lines.values():
        for (_, end), (start, _) in pairwise(sorted(on_line)):
            assert start >= end - 1


@pytest.mark.parametrize("character", ["\x00", "\x0b", "\x1b", "\ud800", "\ufffe", "\uffff", "<", "&"])
@pytest.mark.parametrize("number", range(5))
def test_charts_are_well_formed(number: int, character: str) -> None:
    for chart in (
        every_chart([f"a{character}b"])[number],
        replace(every_chart(["a"])[number], title=character),
    ):
        for is_picture in (False, True):
            assert ElementTree.fromstring(chart.svg(WIDE, is_picture=is_picture).encode()) is not None


@given(
    values=st.lists(st.just(0.0) | st.floats(1e-6, 1e12), min_size=1, max_size=20)
    | st.lists(st.floats(-1e299, 1e299), min_size=1, max_size=5),
    kind=st.sampled_from(KINDS),
    is_exact=st.booleans(),
    has_zero=st.booleans(),
)
def test_axes(values: list[float], kind: Kind, is_exact: bool, has_zero: bool) -> None:
    shown = [
        value
        for value in values
        if kind == "linear" or (1e-6 <= value <= 1e12) or (kind, value) == ("symlog", 0)
    ]
    axis = Axis.of(shown, 300, 20, kind, is_exact=is_exact, has_zero=has_zero)
    coordinates = [axis.at(value) for value in sorted(shown)]
    assert all(19.9 <= at <= 300.1 for at in coordinates)
    assert all(a >= b - 1e-6 for a, b in pairwise(coordinates))
    ticks = axis.ticks(20)
    assert all(axis.at(a) - axis.at(b) >= 20 for a, b in pairwise(ticks))
    assert all(19.9 <= axis.at(tick) <= 300.1 for tick in ticks)
    if kind == "linear" and len(ticks) > 1:
        assert np.diff(ticks) == pytest.approx((ticks[-1] - ticks[0]) / (len(ticks) - 1), rel=1e-3)
    if kind == "linear" and not is_exact:
        assert 2 <= len(ticks) <= 8
        close = 1e-5 * (ticks[-1] - ticks[0])
        assert ticks[0] - close <= min(values) <= max(values) <= ticks[-1] + close
    if kind == "symlog" and (0 in shown or not is_exact):
        assert ticks[0] == 0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("is_exact", [True, False])
def test_large_numbers_with_one_logarithm_are_on_the_axis(kind: Kind, is_exact: bool) -> None:
    for values in ([2**53, 2**53 + 1], [2**63 - 2, 2**63 - 1], [2**48 - 1, 2**48]):
        axis = Axis.of(values, 300, 20, kind, is_exact=is_exact)
        assert all(19.9 <= axis.at(value) <= 300.1 for value in (*values, *axis.ticks(20)))


def test_early_steps_are_apart() -> None:
    """Checkpoints of Pythia, of which half are before step 1,000 of 143,000."""
    steps = [0, *(2**i for i in range(10)), *range(1000, 143_001, 1000)]
    axis = Axis.of(steps, 0, NARROW, "symlog", is_exact=True)
    assert axis.at(0) == 0
    assert all(axis.at(b) - axis.at(a) > 10 for a, b in pairwise(steps[:11]))


@given(
    values=st.lists(
        st.lists(st.just(0.0) | st.floats(1e-3, 1e6), min_size=3, max_size=3), min_size=1, max_size=12
    )
)
def test_heights_of_bars_are_the_values(values: list[list[float]]) -> None:
    svg = Stack("t", "x", "y", [0, 1, 2, 3], {f"s{i}": of for i, of in enumerate(values)}).svg(WIDE)
    boxes = [box for box in elements(svg, "rect") if "fill" in box]
    total = sum(map(sum, values))
    if total == 0:
        assert not boxes
        return
    highest = max(sum(column) for column in zip(*values, strict=True))
    per_unit = sum(float(box["height"]) for box in boxes) / total
    assert 0.4 * 220 <= per_unit * highest <= 220.2


def test_many_intervals_are_merged(tmp_path: Path) -> None:
    n = 143_000
    rng = np.random.default_rng(1)
    values = {"a": rng.random(n).tolist(), "b": rng.random(n).tolist()}
    chart = Stack("t", "training step", "%", [*range(n), n + 10], values)
    svg = chart.svg(NARROW)
    assert len(svg) < 100_000
    edges, merged = charts._merged(chart.edges, values, 180)
    assert len(edges) == 181
    lengths = np.diff(chart.edges)
    for name, of in values.items():
        assert np.dot(np.diff(edges), merged[name]) == pytest.approx(np.dot(lengths, of))
    table = Table("t", ["Step"], [[f"row {i}"] for i in range(n)], note="Note.")
    pages.write(tmp_path / "p.html", Plot("t", "a", [(chart, "c")], [table]))
    text = read_page((tmp_path / "p.html").read_text()).text
    assert "row 999" in text
    assert "row 1000" not in text
    assert "Note. 142,000 more rows are left out of this page." in text


@given(ys=st.lists(st.floats(0, 100), min_size=1, max_size=7))
def test_each_line_is_named_once_at_its_end(ys: list[float]) -> None:
    names = [f"{2**i} times" for i in range(len(ys))]
    series = [Series(name, [(0, 0), (500, y)], colors.SCALE[0]) for name, y in zip(names, ys, strict=True)]
    chart = Lines("t", "step", "%", series, is_labelled_at_ends=True)
    texts = {t["text"]: float(t["y"]) for t in elements(chart.svg(NARROW), "text") if t["text"] in names}
    assert len(texts) == len(names)
    assert all(b - a >= 13.9 for a, b in pairwise(sorted(texts.values())))
    # Names are in the order in which the lines end.
    by_end = sorted(zip(ys, names, strict=True), key=lambda pair: -pair[0])
    for (above, name), (below, other) in pairwise(by_end):
        assert above - below < 0.5 or texts[name] < texts[other]


def test_long_lines_are_drawn_with_few_points_and_their_extremes() -> None:
    values = np.random.default_rng(1).normal(0, 1, 143_000)
    values[70_000], values[70_001] = 40, -40
    series = [Series("loss", list(enumerate(values.tolist())), colors.PALE)]
    svg = Lines("t", "step", "loss", series, is_from_zero=False).svg(WIDE)
    assert len(svg) < 100_000
    ys = [float(p.split(",")[1]) for p in elements(svg, "polyline")[0]["points"].split()]
    assert max(ys) - min(ys) == pytest.approx(260, abs=0.2)


def test_a_name_of_any_length_is_shortened() -> None:
    """In time that grows with its length: a term may be a line of a megabyte."""
    svg = Bars("x", "occurrences", [("ab" * 500_000, 3.0)]).svg(WIDE)
    assert re.search(r">a(ba)*b?…</text>", svg)


def test_every_colour_has_a_counterpart_on_a_dark_page() -> None:
    rules = colors.dark_rules()
    every = [*colors.SERIES, *colors.SCALE, colors.OTHERS, colors.NONE, colors.PALE]
    names = [str(i) for i in range(12)]
    for chart in every_chart(names):
        used = set(re.findall(r'(?:fill|stroke)="(#\w+)"', chart.svg(WIDE)))
        assert used
        assert all(f'[fill="{color}"]' in rules and f'[stroke="{color}"]' in rules for color in used)
    assert all(f'[fill="{color}"]' in rules for color in every)
    dark = re.findall(r"fill: (#\w+);", rules)
    assert len(dark) == len(set(dark))


def test_a_page_has_everything_and_loads_nothing(tmp_path: Path) -> None:
    tables = [Table(name, [name, "n"], [[name, "1"]], note=name) for name in NAMES]
    shown = [(chart, name) for chart, name in zip(every_chart(NAMES), NAMES, strict=False)]
    pages.write(tmp_path / "p.html", Plot(NAMES[1], NAMES[2], shown, tables))
    text = (tmp_path / "p.html").read_text()
    parsed = read_page(text)
    assert publish.PAGE_MARK in text[:200]
    assert not {*text} & {"\x1b", "\u202e"}
    for name in (NAMES[1], "a\\x1b[2Jb\\n\\u202ec", *NAMES[3:]):
        assert parsed.text.count(name) >= 3
    # Each chart is there for wide screens and for phones.
    assert [tag for tag, _ in parsed.tags].count("svg") == 2 * len(shown)


def test_a_plot_replaces_only_plots(tmp_path: Path) -> None:
    plot = Plot("t", "a", [(every_chart(["a"])[0], "c")])
    for name in ("p.html", "p.svg"):
        pages.write(tmp_path / name, plot)
        pages.write(tmp_path / name, replace(plot, title="other"))
        (tmp_path / name).write_text("mine")
        with pytest.raises(publish.OutputExistsError):
            pages.write(tmp_path / name, plot)
        assert (tmp_path / name).read_text() == "mine"
    for name in ("p.png", "p"):
        with pytest.raises(ConfigError, match=r"ends in \.html or \.svg"):
            pages.write(tmp_path / name, plot)


@pytest.fixture(scope="module")
def order_of_many_subsets(tmp_path_factory: pytest.TempPathFactory, write_shard: Callable[..., Path]) -> Path:
    """An order of a dataset with twelve subsets, in which one word comes at a constant rate."""
    folder = tmp_path_factory.mktemp("many")
    records = [
        {"text": "alpha beta gamma delta " * 4, "meta": {"pile_set_name": f"<b>subset {i % 12:02}"}}
        for i in range(360)
    ]
    shards = [write_shard(folder / "shards" / "0.jsonl.zst", records)]
    found = find_shards(shards)
    train_tokenizer.run(found, folder / "t.json", TrainTokenizerConfig(vocab_size=300), threads=1)
    tokenize.run(found, folder / "d" / "s", TokenizeConfig(tokenizer=folder / "t.json"), threads=1)
    order.run(folder / "d" / "s", folder / "d", OrderConfig(seq_length=32, steps=64, batch_size=4, seed=3))
    return folder / "d"


def _series(plot: Plot) -> dict[str, Any]:
    chart = plot.charts[0][0]
    assert isinstance(chart, Lines)
    return {series.name: series.points for series in chart.series}


def test_a_constant_rate_is_a_level_line(order_of_many_subsets: Path) -> None:
    opened = open_order(order_of_many_subsets)
    answer = timeline.when(opened, ["alpha", "gamma d", "nowhere"], threads=1)
    between = intervals("1,2,4,8,16,32", 64)
    names = ["alpha", "gamma d", "nowhere"]
    plot = when_plot.plot_of("o", answer, between, names, (0, 64))
    series = _series(plot)
    assert {*series} == {*names}
    counts = answer.counts().sum(axis=1)
    for i, name in enumerate(names):
        area = sum(
            (end - start) * rate for (start, rate), (end, _) in zip(*[iter(series[name])] * 2, strict=True)
        )
        assert area == pytest.approx(counts[i])
    assert counts[0] > 100
    rates = [rate for start, rate in series["alpha"] if start >= 8]
    assert max(rates) < 1.3 * min(rates)
    texts, by_interval = plot.tables
    assert [row[0] for row in texts.rows] == sorted(names, key=lambda name: -counts[names.index(name)])
    assert sum(int(row[2]) for row in by_interval.rows) == counts.max()


def test_of_many_texts_the_most_frequent_are_drawn_and_all_are_named(order_of_many_subsets: Path) -> None:
    opened = open_order(order_of_many_subsets)
    names = ["nowhere", "a", "alpha beta", *"bdeglmpt", "gamma"]
    plot = when_plot.plot_of("o", timeline.when(opened, names, threads=1), intervals("8", 64), names, (0, 64))
    assert len(_series(plot)) == 8
    assert "nowhere" not in _series(plot)
    assert {row[0] for row in plot.tables[0].rows} == {*names}
    assert "The 8 texts seen most often are drawn" in plot.charts[0][1]


def test_rates_within_some_steps_are_of_these_steps(order_of_many_subsets: Path) -> None:
    opened = open_order(order_of_many_subsets)
    answer = timeline.when(opened, ["alpha"], threads=1)
    seen = answer.sightings[(answer.sightings["step"] >= 10) & (answer.sightings["step"] < 20)]
    seen = seen[seen["n_parts"] == 1].copy()
    seen["occurrence"] = np.arange(len(seen))
    within = replace(answer, sightings=seen)
    plot = when_plot.plot_of("o", within, Intervals((0, 8, 16, 32), 64), ["alpha"], (10, 20))
    points = _series(plot)["alpha"]
    assert [x for x, _ in points] == [10, 16, 16, 20]
    assert 6 * points[0][1] + 4 * points[2][1] == pytest.approx(len(seen))
    assert [row[1] for row in plot.tables[1].rows] == ["6", "4"]


def test_all_subsets_are_named(order_of_many_subsets: Path, tmp_path: Path) -> None:
    arguments = ["mixture", str(order_of_many_subsets), "--every", "16", "--plot", str(tmp_path / "p.html")]
    assert cli.run(cli.group, arguments) == 0
    text = read_page((tmp_path / "p.html").read_text()).text
    assert all(f"<b>subset {i:02}" in text for i in range(12))
    assert mixture._N_NAMED == 8
    assert "others" in text


def test_every_command_writes_a_page_and_a_picture(order_of_many_subsets: Path, tmp_path: Path) -> None:
    folder, terms = order_of_many_subsets, tmp_path / "terms.txt"
    terms.write_text("alpha\nbeta\n<i>gamma\nnowhere\n" + "".join(f"t{i}\n" for i in range(30)))
    shards, dataset = str(folder.parent / "shards"), str(folder / "s")
    for arguments, expected in (
        (["when", str(folder), "<script>", "alpha", "--limit", "0"], ["occurrences per step", '"<script>"']),
        (["when", str(folder), "nowhere"], [f'How often "nowhere" is seen in {folder}']),
        (["repeats", str(folder), "--every", "16"], ["in a duplicate", "% of tokens"]),
        (["count-terms", str(terms), shards], ["alpha", "beta", "Documents"]),
        (["count-terms", str(terms), str(folder)], ["alpha", "occurrences before the step", "Before step"]),
        (["count-numbers", str(folder)], ["training step"]),
        (["count-ngrams", dataset, "--n", "1-2"], ["2-grams", "rank"]),
        (["count-ngrams", shards], ["n-grams of words"]),
    ):
        assert cli.run(cli.group, [*arguments, "--plot", str(tmp_path / "p.html")]) == 0
        parsed = read_page((tmp_path / "p.html").read_text())
        assert all(text in parsed.text for text in expected), (arguments, parsed.text)
        assert [tag for tag, _ in parsed.tags].count("table") >= 1
        assert cli.run(cli.group, [*arguments, "--plot", str(tmp_path / "p.svg")]) == 0
        picture = (tmp_path / "p.svg").read_text()
        # In front of the title, which may have any length.
        assert picture.startswith(publish.PAGE_MARK)
        assert elements(picture, "text")
    assert cli.run(cli.group, ["repeats", str(folder), "--plot", str(tmp_path / "p.png")]) == 2


@pytest.mark.parametrize("command", [["when", "alpha"], ["repeats"], ["mixture"]])
def test_a_plot_is_written_with_json_too(
    order_of_many_subsets: Path, tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    name, *texts = command
    arguments = [name, str(order_of_many_subsets), *texts, "--json", "--plot", str(tmp_path / "p.html")]
    assert cli.run(cli.group, arguments) == 0
    for line in capsys.readouterr().out.splitlines():
        json.loads(line)
    read_page((tmp_path / "p.html").read_text())


def test_sparklines_show_what_is_above_zero() -> None:
    assert charts.sparkline([0, 0.001, 4, 8]) == " ▁▄█"
    assert charts.bar(0.5, 4) == "██"
    assert charts.sparkline([]) == ""
