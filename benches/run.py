"""Compares pile-tools with its peers and writes RESULTS.md; `make bench SHARDS=... TOKENIZER=...` runs it.

Usage: python -m benches.run SHARDS TOKENIZER [--jobs whole,batch] [--rounds 5] [--quick]
"""

from __future__ import annotations

import argparse
import datetime
import os
import platform
import subprocess
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from benches import inputs, peers, report
from benches.measure import CACHE, ROOT
from benches.setting import Setting

#: The jobs in the order of RESULTS.md.
NAMES = (
    "whole",
    "batch",
    "english",
    "fair",
    "hard",
    "memory",
    "order",
    "read",
    "when",
    "search",
    "ngrams",
    "terms",
    "dedup",
    "passages",
    "scale",
    "contamination",
    "arithmetic",
    "training",
    "trainer",
    "image",
    "pictures",
)

#: The options that name what is not part of the benches.
PATHS = {
    "gpt_neox": "a checkout of GPT-NeoX",
    "planted": "a folder of planted duplicates, docs.jsonl and pairs.tsv",
    "duplodocus": "a checkout of allenai/duplodocus, built with cargo build --release",
    "deduplicate_text": "a checkout of google-research/deduplicate-text-datasets, built likewise",
    "vqgan_clip": "a checkout of nerdyrodent/VQGAN-CLIP",
}


def cpu() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))


def machine() -> str:
    gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{cpu()}, {os.cpu_count()} processors, {gib:.0f} GiB; Linux {platform.release()}"


def commit() -> str:
    """The checkout's commit, and whether files other than the output of the benches differ from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True).stdout.strip()

    changed = git("status", "--porcelain", "--", ".", ":!benches/RESULTS.md", ":!benches/results.json")
    return git("rev-parse", "--short=12", "HEAD") + (" with changes" if changed else "")


def facts(setting: Setting, names: list[str]) -> report.Facts:
    """The circumstances that a result depends on besides the code."""
    shards, folder = setting.shards, setting.shards[0].parent.name
    options = f"JOBS={','.join(names)} ROUNDS={setting.rounds}"
    return {
        "date": datetime.date.today().isoformat(),
        "commit": commit(),
        "rounds": setting.rounds,
        "machine": f"{machine()}; Python {platform.python_version()}",
        "load": f"{os.getloadavg()[0]:.1f}",
        "corpus": f"{folder} ({len(shards)} shards, sha256 {inputs.file_digest(*shards)[:16]})",
        "tokenizer": f"{setting.tokenizer.name} (sha256 {inputs.file_digest(setting.tokenizer)[:16]})",
        "command": f"make bench SHARDS=.../{folder} TOKENIZER=.../{setting.tokenizer.name} {options}"
        + (f" DOCUMENTS={setting.documents}" if "scale" in names else "")
        + "".join(f" {name.upper()}=..." for name in PATHS if getattr(setting, name)),
        "versions": peers.versions(),
        "missing": [name for name, peer in peers.PEERS.items() if not peer.is_installed],
    }


def jobs() -> dict[str, ModuleType]:
    return {name: import_module(f"benches.{name}") for name in NAMES if find_spec(f"benches.{name}")}


def options() -> tuple[Setting, list[str]]:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shards", type=Path, help="file or folder of .jsonl or .jsonl.zst shards")
    parser.add_argument("tokenizer", type=Path, help="a tokenizer.json of byte-level BPE")
    parser.add_argument("--jobs", default=",".join(jobs()), help="of %(default)s; other results stay")
    parser.add_argument("--rounds", type=int, default=5, help="rounds; the best one counts (%(default)s)")
    parser.add_argument(
        "--documents", type=int, default=2_000_000, help="documents of the job `scale` (%(default)s)"
    )
    for name, help_text in PATHS.items():
        parser.add_argument(
            f"--{name.replace('_', '-')}", type=Path, help=f"{help_text}; without, it is left out"
        )
    parser.add_argument(
        "--quick", action="store_true", help="small inputs, to try the benches; writes nothing"
    )
    given = parser.parse_args()
    names = given.jobs.split(",")
    if unknown := set(names) - set(jobs()):
        parser.error(f"no job {', '.join(sorted(unknown))}; there are {', '.join(jobs())}")
    paths = [given.shards] if given.shards.is_file() else sorted(given.shards.glob("*.jsonl*"))
    setting = Setting(
        shards=[path.resolve() for path in paths],
        tokenizer=given.tokenizer.resolve(),
        rounds=given.rounds,
        is_quick=given.quick,
        documents=given.documents,
        **{name: path.resolve() for name in PATHS if (path := getattr(given, name))},
    )
    return setting, names


def main() -> None:
    setting, names = options()
    CACHE.mkdir(parents=True, exist_ok=True)
    measured = {}
    for name in names:
        job = jobs()[name]
        print(f"{name}: {job.TITLE}", flush=True)
        found = {"facts": facts(setting, names), "result": job.measure(setting)}
        measured[name] = job, found
        if not setting.is_quick:
            report.remember(name, **found)
            report.write(jobs())
    print(report.render(measured))


if __name__ == "__main__":
    main()
