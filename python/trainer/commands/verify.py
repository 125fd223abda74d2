"""`pile-train verify`: re-checks a run, or compares the steps of a published suite."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pile_tools import manifest
from pile_tools.commands import options
from pile_tools.errors import VerifyError
from pile_tools.jobs.verify import Check, Totals
from pile_tools.jobs.verify import run as verify_artifact
from pile_tools.manifest import MANIFEST_FILE
from pile_tools.terminal import counted, note, print_document, style
from trainer import hub
from trainer.checkpoint import folders
from trainer.commands import verify_hub


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("run", metavar="RUN|ADDRESS")
@options.reports
def command(run: str, as_json: bool) -> None:
    """Check every checkpoint of the run in the folder RUN, and that no two have the same weights.

    ADDRESS is hf://ORG/MODEL, a published suite with a branch for each step, or its URL on another server.
    Its branches are compared by the hashes that the server lists and by the headers of their weights; no
    weights are downloaded.

    Exit code 1 if a file is damaged, or if two steps have equal weights.

    \b
    Examples:
      pile-train verify demo/run
      pile-train verify hf://EleutherAI/pythia-70m
    """
    if hub.is_address(run):
        verify_hub.verify(run, as_json=as_json)
        return
    _verify_run(Path(run), as_json=as_json)


def _verify_run(output: Path, *, as_json: bool) -> None:
    checks: list[Check] = []

    def show(check: Check) -> None:
        checks.append(check)
        color = {"ok": "green", "WRONG": "red"}.get(check.state, "yellow")
        note(style(f"{check.state:<6}", fg=color), f" {check.what}")

    failure: VerifyError | None = None
    steps = folders.steps_in(folders.checkpoints_folder(output))
    try:
        # A run that is not finished has no manifest yet.
        if (output / MANIFEST_FILE).exists() or not steps:
            verify_artifact(output, chain=False, on_check=show)
        for step in steps:
            verify_artifact(_checkpoint(output, step), chain=False, on_check=show)
    except VerifyError as err:
        failure = err
    equal = _equal_steps(output, steps)
    for group in equal:
        show(Check("WRONG", f"steps {' and '.join(map(str, group))} have equal weights"))
    if as_json:
        print_document(_document(output, checks))
    if failure is not None:
        raise failure
    if equal:
        groups = counted(len(equal), "group")
        raise VerifyError(f"{groups} of steps with equal weights ({folders.checkpoints_folder(output)})")
    if not as_json:
        note(f"{output} is as it was written: {counted(Totals.of(checks).n_files, 'file')}")


def _checkpoint(output: Path, step: int) -> Path:
    return folders.step_folder(folders.checkpoints_folder(output), step)


def _equal_steps(output: Path, steps: list[int]) -> list[list[int]]:
    """Groups of steps whose manifests list the same weights."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for step in steps:
        path = _checkpoint(output, step) / MANIFEST_FILE
        outputs = manifest.read(path).outputs if path.is_file() else []
        weights = sorted(entry["sha256"] for entry in outputs if entry["path"].endswith(".safetensors"))
        if weights:
            groups.setdefault(tuple(weights), []).append(step)
    return [group for group in groups.values() if len(group) > 1]


def _document(output: Path, checks: list[Check]) -> dict[str, Any]:
    totals = Totals.of(checks)
    return {
        "path": str(output),
        "is_right": not any(check.state == "WRONG" for check in checks),
        "n_artifacts": totals.n_artifacts,
        "n_files": totals.n_files,
        "n_absent": totals.n_absent,
        "n_unsure": totals.n_unsure,
        "checks": [{"state": check.state, "what": check.what} for check in checks],
    }
