"""`pile-tools sample`: deterministic, mixed, with canaries planted exactly as listed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import zstandard

from pile_tools import ConfigError, OutputExistsError, PileError, cli
from pile_tools.jobs import sample
from pile_tools.jobs.sample import SampleConfig
from pile_tools.jobs.sampling import canaries, sources, troff
from pile_tools.jobs.sampling.sources import Source


def _texts(name: str, n: int, n_lines: int = 50) -> list[str]:
    return [f"{name} {i}\n" + f"line of {name} {i}\n" * n_lines for i in range(n)]


def _source(name: str, weight: float, texts: list[str]) -> Source:
    def documents(rng: Any) -> list[str]:
        shuffled = list(texts)
        rng.shuffle(shuffled)
        return shuffled

    return Source(name, weight, documents)


@pytest.fixture(autouse=True)
def small_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    made = [_source("Wide", 1, _texts("wide", 400)), _source("Scarce", 1, _texts("scarce", 5))]
    monkeypatch.setattr(sources, "all_sources", lambda: made)


def _records(folder: Path) -> list[dict[str, Any]]:
    records = []
    for path in sorted(folder.glob("*.jsonl.zst")):
        text = zstandard.ZstdDecompressor().decompress(path.read_bytes()).decode()
        records += [json.loads(line) for line in text.splitlines()]
    return records


def _bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_same_settings_give_the_same_bytes(tmp_path: Path) -> None:
    config = SampleConfig(megabytes=0.1, shards=3)
    sample.run(config, tmp_path / "a")
    sample.run(config, tmp_path / "b")
    assert _bytes(tmp_path / "a") == _bytes(tmp_path / "b")
    assert sorted(_bytes(tmp_path / "a")) == [
        "00.jsonl.zst", "01.jsonl.zst", "02.jsonl.zst", "canaries.json", "manifest.json",
    ]  # fmt: skip


def test_another_seed_gives_other_text_and_canaries(tmp_path: Path) -> None:
    for seed in (0, 1):
        sample.run(SampleConfig(megabytes=0.05, shards=2, seed=seed), tmp_path / str(seed))
    first, second = _bytes(tmp_path / "0"), _bytes(tmp_path / "1")
    assert all(first[name] != second[name] for name in first)


def test_canaries_stand_in_the_shards_as_often_as_promised(tmp_path: Path) -> None:
    sample.run(SampleConfig(megabytes=0.05, shards=4), tmp_path / "out")
    listed = json.loads((tmp_path / "out" / "canaries.json").read_text())
    counts = Counter(record["text"] for record in _records(tmp_path / "out"))
    assert Counter(p["repeats"] for p in listed["passages"]) == dict.fromkeys([0, 1, 4, 16, 64], 10)
    assert [counts[p["text"]] for p in listed["passages"]] == [p["repeats"] for p in listed["passages"]]
    others = "\n".join(text for text in counts if text not in {p["text"] for p in listed["passages"]})
    assert not any(p["text"] in others for p in listed["passages"])


def test_canaries_are_spread_over_all_shards(tmp_path: Path) -> None:
    sample.run(SampleConfig(megabytes=0.05, shards=4), tmp_path / "out")
    for path in (tmp_path / "out").glob("*.zst"):
        (tmp_path / "one").mkdir(exist_ok=True)
        (tmp_path / "one" / "00.jsonl.zst").write_bytes(path.read_bytes())
        subsets = {record["meta"]["pile_set_name"] for record in _records(tmp_path / "one")}
        assert {"Wide", "Canaries"} <= subsets


def test_without_canaries_none_are_planted_or_listed(tmp_path: Path) -> None:
    sample.run(SampleConfig(megabytes=0.05, canaries=False), tmp_path / "out")
    assert not (tmp_path / "out" / "canaries.json").exists()
    assert "Canaries" not in {r["meta"]["pile_set_name"] for r in _records(tmp_path / "out")}


def test_every_passage_has_more_than_64_words_and_is_unique() -> None:
    passages = canaries.passages(7)
    assert len({p.text for p in passages}) == len(passages) == 50
    assert all(len(p.text.split()) >= 64 + 8 for p in passages)
    assert len(set(canaries.WORDS)) == len(canaries.WORDS) == 256


def test_a_scarce_subset_gives_all_it_has_and_the_summary_counts(tmp_path: Path) -> None:
    found, is_new = sample.run(SampleConfig(megabytes=0.1, canaries=False), tmp_path / "out")
    counts = {s["name"]: s for s in found.summary["subsets"]}
    records = _records(tmp_path / "out")
    assert is_new
    assert found.summary["is_complete"]
    assert counts["Scarce"]["n_documents"] == 5
    assert found.summary["n_documents"] == len(records)
    assert found.summary["n_text_bytes"] == sum(len(r["text"].encode()) for r in records)
    assert 100_000 <= found.summary["n_text_bytes"] < 102_000


def test_less_text_than_asked_for_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(cli.group, ["sample", str(tmp_path / "out"), "--megabytes", "50", "--no-canaries"]) == 0
    assert "less text than the requested 50 MB" in capsys.readouterr().out


def test_a_machine_without_text_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sources, "all_sources", list)
    with pytest.raises(PileError, match="no text found on this machine"):
        sample.run(SampleConfig(), tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_duplicates_are_left_out_and_long_documents_cut(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["x" * 300 + "\n", "x" * 300 + "\n", "short\n", "é" * 49 + "\n", "long line\n" * 50_000]
    monkeypatch.setattr(sources, "all_sources", lambda: [_source("All", 1, texts)])
    config = SampleConfig(megabytes=1, canaries=False)
    sample.run(config, tmp_path / "out")
    lengths = sorted(len(r["text"].encode()) for r in _records(tmp_path / "out"))
    assert lengths == [301, config.max_document_bytes]


def test_the_same_request_does_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["sample", str(tmp_path / "out"), "--megabytes", "0.05"]
    assert cli.run(cli.group, command) == 0
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()}
    capsys.readouterr()
    assert cli.run(cli.group, command) == 0
    assert "is finished already" in capsys.readouterr().out
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "out").iterdir()} == before


def test_other_settings_need_force(tmp_path: Path) -> None:
    sample.run(SampleConfig(megabytes=0.05, shards=4), tmp_path / "out")
    with pytest.raises(OutputExistsError, match="shards = 4, not 2"):
        sample.run(SampleConfig(megabytes=0.05, shards=2), tmp_path / "out")
    sample.run(SampleConfig(megabytes=0.05, shards=2, canaries=False), tmp_path / "out", force=True)
    assert sorted(_bytes(tmp_path / "out")) == ["00.jsonl.zst", "01.jsonl.zst", "manifest.json"]


def test_a_finished_sample_beside_other_files_is_finished(tmp_path: Path) -> None:
    """Our own plots and tokenizers may be among them."""
    config = SampleConfig(megabytes=0.05, shards=1)
    sample.run(config, tmp_path / "out")
    (tmp_path / "out" / "page.html").touch()
    assert not sample.run(config, tmp_path / "out")[1]
    with pytest.raises(OutputExistsError):
        sample.run(SampleConfig(megabytes=0.06, shards=1), tmp_path / "out")


@pytest.mark.parametrize("force", [False, True])
def test_a_folder_with_other_files_is_left_alone(tmp_path: Path, force: bool) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.jsonl.zst").write_bytes(b"mine")
    with pytest.raises(OutputExistsError, match=r"mine\.jsonl\.zst"):
        sample.run(SampleConfig(), tmp_path / "out", force=force)
    assert _bytes(tmp_path / "out") == {"mine.jsonl.zst": b"mine"}


@pytest.mark.parametrize("name", ["00.jsonl.zst", "01.jsonl.zst", "canaries.json", "manifest.json"])
def test_force_replaces_files_with_the_names_of_a_sample(tmp_path: Path, name: str) -> None:
    config = SampleConfig(megabytes=0.05, shards=2)
    sample.run(config, tmp_path / "out")
    expected = _bytes(tmp_path / "out")
    if name != "manifest.json":
        (tmp_path / "out" / name).write_bytes(b"mine")
    (tmp_path / "out" / "manifest.json").unlink()
    with pytest.raises(OutputExistsError):
        sample.run(config, tmp_path / "out")
    sample.run(config, tmp_path / "out", force=True)
    assert _bytes(tmp_path / "out") == expected


def test_an_interrupted_run_leaves_nothing(tmp_path: Path) -> None:
    def interrupt(n_bytes: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample.run(SampleConfig(), tmp_path / "out", on_progress=interrupt)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "option",
    [
        *("--shards=0", "--shards=101", "--megabytes=0", "--megabytes=nan", "--megabytes=-1"),
        *("--seed=-1", "--seed=18446744073709551616"),
    ],
)
def test_values_out_of_range_are_usage_errors(
    tmp_path: Path, option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(cli.group, ["sample", str(tmp_path / "out"), option]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_smallest_and_largest_values_make_a_sample(tmp_path: Path) -> None:
    config = SampleConfig(megabytes=1e-9, shards=1, seed=2**64 - 1, canaries=False)
    assert sample.run(config, tmp_path)[0].summary["n_documents"] == 1


def test_config_errors_are_value_errors() -> None:
    with pytest.raises(ConfigError):
        SampleConfig(shards=0)


def test_a_manual_page_reads_as_text() -> None:
    page = r"""
.\" a comment
.de Sp
.if t .sp .5v
..
.TH WALK 1 2020 "Some Project"
.SH NAME
walk \- go \fIon\fR foot
.SH OPTIONS
.TP
.BR \-f , " \-\-fast"
Run instead.
.ie n \{\
hidden
.\}
.PP
See
.BR run (1)
for \(lqmore\(rq.
.nf
  walk \e
    home
.fi
"""
    assert troff.plain_text(page) == (
        "WALK(1)\n\nNAME\n\nwalk - go on foot\n\nOPTIONS\n\n-f, --fast Run instead.\n\n"
        'See run(1) for "more".\n\nwalk \\\n    home\n'
    )


def test_an_mdoc_page_reads_as_text() -> None:
    page = (
        ".Dd today\n.Dt WALK 1\n.Sh NAME\n.Nm walk\n.Nd go on foot\n"
        ".Sh SYNOPSIS\n.Nm\n.Op Fl f Ar where\nsee\n.Xr run 1 ."
    )
    assert troff.plain_text(page) == (
        "WALK(1)\n\nNAME\n\nwalk go on foot\n\nSYNOPSIS\n\nwalk [-f where] see run(1).\n"
    )


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (".Fl o Ns Ar file", "-ofile"),
        (".Fl o Ns file", "-ofile"),
        (".Pa dir/ Ns Ar name Ns Pa .c", "dir/name.c"),
        (".Ar a Ns Fl b c", "a-b c"),
        (".Ar a Ns Op Ar b", "a[b]"),
        (".Ar a Ns Xr ls 1 b", "als(1) b"),
        (".Xr ls 1 , Xr cat 1", "ls(1), cat(1)"),
    ],
)
def test_macros_between_words_of_mdoc_keep_their_spacing(line: str, text: str) -> None:
    assert troff.plain_text(line) == text + "\n"


@pytest.mark.parametrize(
    ("line", "text"),
    [
        ('.B walk \\" a comment', "walk"),
        (".SH NAME \\# a comment", "NAME"),
        ('.BR \\-w , " \\e\\(dqx" \\" a comment', '-w, \\"x'),
        ('walk \\" a comment', "walk"),
    ],
)
def test_comments_of_manual_pages_are_left_out(line: str, text: str) -> None:
    assert troff.plain_text(line) == text + "\n"


@pytest.mark.parametrize(
    "page", ["", ".so man1/other.1\n", "\\", '.TH\n.SH\n.IP\n.Nm\n.if\n.TS\n"', ".\\{\n\\*(", "\\f"]
)
def test_odd_manual_pages_are_no_error(page: str) -> None:
    assert isinstance(troff.plain_text(page), str)


def test_unreadable_and_foreign_files_are_skipped(tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes("é".encode("latin-1"))
    (tmp_path / "broken.gz").write_bytes(b"\x1f\x8b nonsense")
    (tmp_path / "fine").write_text("é")
    names = ["latin", "broken.gz", "missing", "fine"]
    assert [sources.read_text(tmp_path / name) for name in names] == [None, None, None, "é"]


def test_cutting_keeps_whole_lines_and_characters() -> None:
    assert sources.truncated("éé\néé\n", 7) == "éé\n"
    assert sources.truncated("éé\n", 5) == "éé\n"
    assert sources.truncated("é" * 10, 5) == ""
