"""`pile-train verify RUN`: checks a run's checkpoints and states, and finds equal weights."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from pile_tools.commands import options
from pile_tools.errors import VerifyError
from pile_tools.jobs.verify import Check, Totals
from pile_tools.terminal import counted, note, print_document, style
from trainer import hub
from trainer.commands import verify_hub


@click.command("verify", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("run", metavar="RUN|ADDRESS")
@options.reports
def command(run: str, as_json: bool) -> None:
    """Check every checkpoint and state of RUN, and find checkpoints with the weights of another.

    RUN is the folder of a run, finished or not: every byte of its checkpoints and states, its log and its
    inputs are compared with their manifests, and so is the state or model that it branched off from.
    Checkpoints must have weights of their own: one that shares matrices with an earlier step is wrong,
    unless no step between them changed the weights.

    ADDRESS is hf://ORG/MODEL, a published suite with a branch for each step, or its URL on another server.
    Its branches are compared by the hashes that the server lists and by the headers of their weights; no
    weights are downloaded.

    \b
    Examples:
      pile-train verify demo/run
      pile-train verify hf://EleutherAI/pythia-70m

    Exit codes: 0 all is right, 1 something is not, 2 usage.
    """
    if hub.is_address(run):
        verify_hub.verify(run, as_json=as_json)
        return
    # It imports torch, which takes seconds.
    from trainer.run_check import check_run

    folder = Path(run)

    def show(check: Check) -> None:
        color = {"ok": "green", "WRONG": "red"}.get(check.state, "yellow")
        note(style(f"{check.state:<6}", fg=color), f" {check.what}")

    checks = check_run(folder, show)
    wrong = [check.what for check in checks if check.state == "WRONG"]
    totals = Totals.of(checks)
    if as_json:
        found = [{"state": check.state, "what": check.what} for check in checks]
        print_document({"path": run, "is_right": not wrong, **asdict(totals), "checks": found})
    if wrong:
        raise VerifyError(f"{len(wrong):,} of {counted(len(checks), 'check')} failed: {'; '.join(wrong)}")
    counts = f"{counted(totals.n_artifacts, 'artifact')}, {counted(totals.n_files, 'file')}"
    unsure = f", {totals.n_unsure:,} unverified" if totals.n_unsure else ""
    if not as_json:
        note(f"{folder} is what its manifests say: {counts}{unsure}; no checkpoint has another's weights")
