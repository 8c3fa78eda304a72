"""What is made of samples: ratios, targets, the report, pictures, comparisons."""

import math
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from benchmarks import compare, pictures, report, scenarios
from benchmarks.analysis import added, exponent, faster_peer, ratio, shown, shown_series
from benchmarks.bill import bill
from benchmarks.findings import finding
from benchmarks.growth_curves import lines
from benchmarks.machine import command, machine, versions
from benchmarks.results import Results, Series
from benchmarks.targets import rows

STREAM = "2,000 chunks"
BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def results(samples: list[dict[str, Any]] | None = None, **fields: Any) -> Results:
    """A run of those samples."""
    about: dict[str, Any] = {
        "size": "full",
        "command": "python -m benchmarks",
        "commit": "abc",
        "started": "2024-12-11",
    }
    host = {"cpu": "A CPU", "cores": 2, "memory_gib": 8.0, "os": "Linux"}
    return Results(**{**about, "machine": host, "versions": {"aiohttp": "3"}, "samples": samples or [], **fields})


def sample(client: str, round_: int, scenario: str = "stream", case: str = STREAM, **figures: float) -> dict[str, Any]:
    """One sample."""
    server = {"share": 0.1}
    return {
        "scenario": scenario,
        "case": case,
        "client": client,
        "round": round_,
        "figures": figures,
        "server": server,
        "flags": [],
    }


def stream_run(ours: float = 4.0, floor: float = 2.0) -> Results:
    """Three rounds of the stream scenario, the second on a machine half as fast."""
    values = {"ctxcache": ours, "aiohttp": floor, "openai": 200.0, "ark": 180.0}
    return results(
        [
            sample(client, round_, cpu_us=value * (2 if round_ == 1 else 1))
            for round_ in range(3)
            for client, value in values.items()
        ]
    )


# --- analysis ---------------------------------------------------------------------------------------------------------


def test_ratio_is_taken_within_a_round() -> None:
    """What slows all clients in a round does not show in their ratios."""
    run = stream_run()
    assert ratio(run, "stream", STREAM, "cpu_us", ("ctxcache", "aiohttp")).values == (2, 2, 2)
    assert added(run, "stream", STREAM, "cpu_us", "ctxcache").values[:2] == (2, 4)
    assert faster_peer(run, "stream", STREAM, "cpu_us") == "ark"
    assert faster_peer(run, "stream", STREAM, "cpu_us", more=True) == "openai"
    assert faster_peer(results(), "stream", STREAM, "cpu_us") is None


def test_exponent() -> None:
    """The exponent of a power law is found, whatever its factor."""
    sizes = [1, 10, 100, 1000]
    assert exponent(sizes, [3 * size for size in sizes]) == pytest.approx(1)
    assert exponent(sizes, [size**2 for size in sizes]) == pytest.approx(2)
    assert math.isnan(exponent([5], [5]))


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1234.5, "1,234"), (12.34, "12.3"), (0.01234, "0.0123"), (2, "2.00"), (math.nan, "–"), (math.inf, "∞")],
)
def test_numbers_for_people(value: float, text: str) -> None:
    """Three significant digits are shown, never a power of ten."""
    assert shown(value) == text


def test_series() -> None:
    """A series is shown as its median and range; none as a dash."""
    assert shown_series(Series((3.0, 1.0, 2.0))) == "2.00 (1.00–3.00)"
    assert shown_series(Series((2.0,))) == "2.00"
    assert shown_series(Series(())) == "–"


# --- on disk ----------------------------------------------------------------------------------------------------------


def test_results_survive_the_disk(tmp_path: Path) -> None:
    """What is read is what was saved."""
    run = stream_run()
    run.save(tmp_path / "a.json")
    assert Results.read(tmp_path / "a.json") == run


def test_nothing_private_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the machine nor the command tells a path, a host or a user."""
    monkeypatch.setattr("os.uname", lambda: pytest.fail("the host's name was asked for"))
    assert {"cpu", "cores", "memory_gib", "os"} == machine().keys()
    assert "aiohttp" in versions()
    assert command(["--json", "/home/somebody/a.json"]) == "python -m benchmarks --json a.json"


# --- targets and report -----------------------------------------------------------------------------------------------


def test_targets_tell_reached_from_not() -> None:
    """A target is judged by the median of the ratios of the rounds."""
    reached = {row.asked: row.reached for row in rows(stream_run(ours=4.0, floor=2.0))}
    assert reached == {"≥ 40× less than ark": True, "≤ 2.0× bare aiohttp": True}
    missed = {row.asked: row.reached for row in rows(stream_run(ours=5.0, floor=2.0))}
    assert missed == {"≥ 40× less than ark": False, "≤ 2.0× bare aiohttp": False}
    alone = [row.reached for row in rows(results([sample("ctxcache", 0, cpu_us=4.0)]))]
    assert alone == [None, None]


def relay_run(ours: float = 28.0) -> Results:
    """Two rounds of the relay scenario: CPU a chunk with 50 streams, memory of an open one, on both event loops."""
    cpu = {"ctxcache": ours, "aiohttp": 24.0, "ctxcache+uvloop": 25.0, "aiohttp+uvloop": 19.0, "litellm": 900.0}
    memory = {"ctxcache": 50.0, "aiohttp": 30.0}
    return results(
        [
            sample(client, round_, "relay", case, **{metric: value})
            for round_ in range(2)
            for case, metric, found in (("50 streams", "cpu_us", cpu), ("1,000 open", "kb_stream", memory))
            for client, value in found.items()
        ]
    )


def test_relays_are_compared_like_with_like() -> None:
    """A relay on uvloop is compared with bare aiohttp on uvloop; LiteLLM with what `serve` does by itself."""
    found = {(row.what, row.asked): (row.found.median, row.reached) for row in rows(relay_run()) if row.found}
    assert found == {
        ("relay: CPU a chunk, 50 streams", "≤ 1.4× bare aiohttp"): (pytest.approx(28 / 24), True),
        ("relay: CPU a chunk, 50 streams", "≤ 1.4× bare aiohttp on uvloop"): (pytest.approx(25 / 19), True),
        ("relay: CPU a chunk, 50 streams", "≥ 25× less than litellm"): (36, True),
        ("relay: memory of an open stream, 1,000 open", "≤ 2.0× bare aiohttp"): (pytest.approx(50 / 30), True),
    }
    missed = [row for row in rows(relay_run(ours=34.0)) if row.reached is False]
    assert [row.asked for row in missed] == ["≤ 1.4× bare aiohttp"]
    expected = "A relayed chunk takes 1.2 times bare aiohttp's CPU; with LiteLLM 38 times"
    assert finding(relay_run(), "relay") == expected


def growth_run() -> Results:
    """Folds of three sizes and open streams of two: the one linear, the other more."""
    folds = [
        sample("ctxcache", 0, "growth", f"fold: chunks: {size:,}", cost=size / 100, size=size)
        for size in (1000, 3125, 6250)
    ]
    opened = [sample("ctxcache", 0, "memory", f"{count:,} open", kb_stream=count / 10) for count in (100, 1000)]
    relayed = [sample("ctxcache", 0, "relay", f"{count} streams", core=count / 10) for count in (50, 200)]
    answers = [
        sample("ctxcache", 0, "relay", f"{count:,} chunks an answer", cpu_answer_ms=count / 50) for count in (250, 1000)
    ]
    return results([*folds, *opened, *relayed, *answers])


def test_growth_curves() -> None:
    """Exponents come from the growth scenario and from scenarios whose cases are sizes."""
    assert [(line.curve, round(line.exponent, 2)) for line in lines(growth_run())] == [
        ("fold: chunks", 1.0),
        ("memory: open streams", 2.0),
        ("relay: streams at once", 1.0),
        ("relay: chunks of an answer", 1.0),
    ]
    told = [row.reached for row in rows(growth_run()) if row.what.startswith("cost grows")]
    assert told == [True, False, True, True]


def test_report_has_it_all() -> None:
    """The report names machine, versions, commit and command; has targets, figures, flags and failures."""
    run = stream_run()
    run.samples[0]["flags"] = ["server busy: 90% of a core"]
    run.samples.append({"scenario": "stream", "case": STREAM, "client": "ark", "round": 1, "error": "TimeoutError: no"})
    text = report.render(run, drawn=["stream"])
    for expected in ("A CPU", "aiohttp 3", "abc", "`python -m benchmarks`", "pictures/stream.svg", "reached", "180"):
        assert expected in text
    assert "server busy: 90% of a core" in text
    assert "round 2: TimeoutError: no" in text
    assert "| 2,000 chunks | 4.00 (4.00–8.00) |" in text
    assert "exponent" in report.render(growth_run())


def test_added_over_the_floor() -> None:
    """Latencies are told as what they add to the floor's, too."""
    run = results(
        [sample(client, 0, "first_token", "warm", p50_ms=p50) for client, p50 in (("ctxcache", 3.5), ("aiohttp", 2))]
    )
    assert "| p50 added over bare aiohttp, ms | ctxcache |\n| --- | ---: |\n| warm | 1.50 |" in report.render(run)


def test_pictures_can_be_read_on_white_and_on_black(tmp_path: Path) -> None:
    """A picture is SVG without a background, its tones apart from white and from black."""
    pytest.importorskip("matplotlib")
    run = stream_run()
    run.samples += growth_run().samples
    report.write(run, tmp_path)
    assert {path.stem for path in (tmp_path / "pictures").iterdir()} == {"bill", "stream", "growth", "memory"}
    for path in (tmp_path / "pictures").iterdir():
        text = path.read_text()
        ElementTree.fromstring(text)
        assert "#000000" not in text
        assert f"fill: {pictures.INK}" in text
    assert "![" in (tmp_path / "RESULTS.md").read_text()
    for colour in (pictures.INK, *pictures.COLOURS.values()):
        assert 2.0 < contrast_with_white(colour) < 8.0, colour  # with black it is 21 over that


def words(picture: Path) -> str:
    """The text of a picture, in the order in which it is drawn."""
    return " ".join(" ".join(ElementTree.parse(picture).getroot().itertext()).split())


def test_only_a_linear_axis_has_bars(tmp_path: Path) -> None:
    """Figures far apart are dots on an axis that says it is logarithmic; others are bars on one that begins at 0."""
    matplotlib = pytest.importorskip("matplotlib.axes")
    drawn: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        for name in ("barh", "set_xscale", "set_xlim"):
            whole = getattr(matplotlib.Axes, name)

            def noted(self: Any, *args: Any, _name: str = name, _whole: Any = whole, **named: Any) -> Any:
                drawn.append(f"{_name} {args[0]}" if _name.startswith("set") else _name)
                return _whole(self, *args, **named)

            patch.setattr(matplotlib.Axes, name, noted)
        for floor, bars in ((2.0, False), (150.0, True)):
            run = stream_run(ours=160.0, floor=floor)
            drawn.clear()
            pictures.draw(run, tmp_path)
            of_the_run = drawn[drawn.index("set_xlim 0") + 1 :]  # after the bill
            assert ("barh" in of_the_run) == bars
            assert ("set_xscale log" in of_the_run) != bars
            assert ("set_xlim 0" in of_the_run) == bars
            assert ("logarithmic" in words(tmp_path / "stream.svg")) != bars


def test_a_title_is_the_finding(tmp_path: Path) -> None:
    """A picture's title says what was found; without clients to compare with, what was measured."""
    pytest.importorskip("matplotlib")
    run = stream_run(ours=4.0, floor=2.0)
    expected = "A typed chunk takes 2.0 times bare aiohttp's CPU; with the best peer 90 times"
    assert finding(run, "stream") == expected
    pictures.draw(run, tmp_path)
    assert expected in words(tmp_path / "stream.svg")
    assert finding(results([sample("ctxcache", 0, cpu_us=4.0)]), "stream") == scenarios.load("stream").title


def test_a_cluster_beside_one_process() -> None:
    """The finding and the target of the cluster tell the share of a core's questions; without Dask there is neither."""
    case = "50 ms to the first token"
    run = results([sample("ctxcache", round_, "cluster", case, core_share=80.0 + round_) for round_ in range(3)])
    assert finding(run, "cluster") == "Dask's workers answer 81% of what Prefix.map does with a core"
    (row,) = [row for row in rows(run) if row.what.startswith("cluster")]
    assert row.reached
    plain = results([sample("ctxcache", 0, "cluster", case, map_qs=9.0)])
    assert [row.reached for row in rows(plain) if row.what.startswith("cluster")] == [None]
    assert finding(plain, "cluster") == scenarios.load("cluster").title


def test_findings_of_the_published_run() -> None:
    """Every scenario of the published run has a finding, and RESULTS.md tells it."""
    run = Results.read(BENCHMARKS / "results.json")
    text = (BENCHMARKS / "RESULTS.md").read_text("utf-8")
    for name in run.scenarios():
        assert finding(run, name) != scenarios.load(name).title
        assert f"![{finding(run, name)}](pictures/{name}.svg)" in text


def test_the_readme_says_what_its_pictures_say() -> None:
    """The README's two pictures are described by what they say, and its table has the sums of the bill."""
    text = (BENCHMARKS.parent / "README.md").read_text("utf-8")
    assert f"![{bill().finding}](benchmarks/pictures/bill.svg)" in text
    run = Results.read(BENCHMARKS / "results.json")
    assert f"![{finding(run, 'live')}](benchmarks/pictures/live.svg)" in text
    for items in (bill().without, bill().with_context):
        assert f"**{sum(items.values()):,.2f}**" in text


def contrast_with_white(colour: str) -> float:
    """The contrast of WCAG 2."""
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 1.05 / (0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2] + 0.05)


def test_a_run_without_figures_has_a_report(tmp_path: Path) -> None:
    """Where everything failed, the report says so."""
    run = results([{"scenario": "stream", "case": STREAM, "client": "ctxcache", "round": 0, "error": "it broke"}])
    report.write(run, tmp_path)
    assert "it broke" in (tmp_path / "RESULTS.md").read_text()


# --- comparing --------------------------------------------------------------------------------------------------------


def rounds(*values: float) -> Results:
    """One figure over rounds."""
    return results([sample("ctxcache", round_, cpu_us=value) for round_, value in enumerate(values)])


@pytest.mark.parametrize(
    ("old", "new", "better"),
    [
        ((4.0, 4.1, 4.2), (3.0, 3.1, 3.2), True),
        ((4.0, 4.1, 4.2), (5.0, 5.1, 5.2), False),
        ((4.0, 4.1, 4.2), (3.9, 3.0, 4.05), None),  # the ranges overlap
        ((4.0, 4.01, 4.02), (4.03, 4.04, 4.05), None),  # apart, but by less than is worth telling
    ],
)
def test_only_what_is_beyond_the_noise_changed(old: tuple[float, ...], new: tuple[float, ...], better: object) -> None:
    """A figure changed where the ranges of its rounds do not overlap and the medians differ by more than a little."""
    (change,) = compare.changes(rounds(*old), rounds(*new))
    assert change.better is better


def test_more_may_be_better() -> None:
    """Whether more is better is the figure's own affair."""
    old, new = (results([sample("ctxcache", n, chunks_s=value + n) for n in range(3)]) for value in (100, 200))
    (change,) = compare.changes(old, new)
    assert change.better is True


def test_compared_over_the_floor_a_slower_machine_is_no_change() -> None:
    """As multiples of the floor, figures of machines of different speed can be compared."""
    slow, fast = stream_run(ours=8.0, floor=4.0), stream_run(ours=4.0, floor=2.0)
    ours = next(change for change in compare.changes(slow, fast, over_floor=True) if change.client == "ctxcache")
    assert ours.factor == 1
    assert "aiohttp" not in {change.client for change in compare.changes(slow, fast, over_floor=True)}


def test_comparison_in_words() -> None:
    """The comparison tells the worst first, and warns of runs that differ in more than the code."""
    old = rounds(4.0, 4.1, 4.2)
    new = rounds(5.0, 5.1, 5.2)
    new.versions = {"aiohttp": "4"}
    text = compare.text(old, new)
    assert "1 of 1 figures changed" in text
    assert "WORSE  ×1.24  stream, 2,000 chunks, ctxcache: CPU a chunk: 4.10 (4.00–4.20) → 5.10 (5.00–5.20) µs" in text
    assert "differ in their versions: aiohttp 3 → 4" in text
    assert "fewer than 3 rounds" in compare.text(rounds(4.0), rounds(5.0))
