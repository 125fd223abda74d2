"""Writes RESULTS.md from results.json, which has the latest results of each job."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from benches.markdown import table
from benches.setting import Result
from benches.verdict import Verdict

FOLDER = Path(__file__).parent
RESULTS, DATA = FOLDER / "RESULTS.md", FOLDER / "results.json"

Facts = dict[str, Any]


def remember(name: str, facts: Facts, result: Result) -> None:
    """Saves the result of a job to results.json and replaces an earlier one."""
    data = json.loads(DATA.read_text()) if DATA.exists() else {}
    data[name] = {"facts": facts, "result": result}
    DATA.write_text(json.dumps(data, indent=1, sort_keys=True) + "\n")


def write(jobs: Mapping[str, ModuleType]) -> None:
    data = json.loads(DATA.read_text())
    RESULTS.write_text(render({name: (jobs[name], data[name]) for name in jobs if name in data}))


def render(results: Mapping[str, tuple[ModuleType, dict[str, Any]]]) -> str:
    verdicts = [verdict for job, data in results.values() for verdict in job.verdicts(data["result"])]
    sections = [
        f"## {job.TITLE}\n\n{job.section(data['result'])}\n\n{_circumstances(data['facts'])}"
        for job, data in results.values()
    ]
    return "\n\n".join([HEAD, _summary(verdicts), *sections]) + "\n"


HEAD = """# Measured

Written by `make bench`; not edited by hand. The numbers are the best of several rounds. Contenders take
turns, each round in a new process pinned to its processors. Results were compared with those of `tokenizers`
in the same run, and the tables list differences."""


def _summary(verdicts: list[Verdict]) -> str:
    rows = [[v.job, v.target, v.found, "yes" if v.is_met else "**no**"] for v in verdicts]
    n_met = sum(verdict.is_met for verdict in verdicts)
    return f"## Targets: {n_met} of {len(rows)} met\n\n{table(['job', 'target', 'found', 'met'], rows)}"


def _circumstances(facts: Facts) -> str:
    versions = ", ".join(f"{package} {version}" for package, version in facts["versions"].items())
    missing = f" Not installed, so left out: {', '.join(facts['missing'])}." if facts["missing"] else ""
    return f"""<details><summary>{facts["date"]}, commit {facts["commit"]}, {facts["rounds"]} rounds</summary>

{facts["machine"]}; load {facts["load"]} before. Corpus {facts["corpus"]}; tokenizer {facts["tokenizer"]}.
`{facts["command"]}`
{versions}.{missing}

</details>"""
