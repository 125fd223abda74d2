"""The part of `pile-train verify` that compares the branches of a published suite."""

from __future__ import annotations

from typing import Any

from pile_tools.errors import VerifyError
from pile_tools.progress import Bar
from pile_tools.terminal import counted, note, print_document, style
from trainer import hub
from trainer.config import EARLY_CHECKPOINTS

#: Steps of Pythia's suites.
_PYTHIA = (*EARLY_CHECKPOINTS, *range(1000, 143_001, 1000))

#: Missing steps of a suite that a line names.
_N_NAMED = 5


def verify(address: str, *, as_json: bool) -> None:
    """Prints what is found of a suite: which steps have equal weights, other tensors or none.

    Args:
        address: `hf://ORG/MODEL` or the URL of a model on a server, see `trainer.hub`.
        as_json: Print the document of `--json` instead.

    Raises:
        VerifyError: Steps have equal weights, other tensors than most, or none or not all.
        ConfigError, FormatError, OSError: As `hub.compare`.
    """
    with Bar("reading branches", None, "branches") as bar:
        found = hub.compare(address, lambda done, _: bar.update(done))
    checks = _checks(found)
    if as_json:
        print_document(_document(found, checks))
    else:
        for state, what in checks:
            color = {"ok": "green", "WRONG": "red"}.get(state, "yellow")
            note(style(f"{state:<6}", fg=color), f" {what}")
    n_wrong = sum(state == "WRONG" for state, _ in checks)
    if n_wrong:
        raise VerifyError(f"{counted(n_wrong, 'fault')} in the suite ({address})")
    if not as_json:
        note(
            f"{address}: {counted(len(found.branches), 'branch')} with weights of their own, by their hashes"
        )


def _checks(found: hub.Suite) -> list[tuple[str, str]]:
    """A line for each finding: its state, as of `pile-tools verify`, and the finding in words."""
    steps = [branch.step for branch in found.branches if branch.step is not None]
    right = sum(bool(branch.files) for branch in found.branches)
    checks = [
        ("ok", f"{counted(len(steps), 'step')} from {min(steps):,} to {max(steps):,}; {right:,} with weights")
    ]
    for kind, names in found.equal:
        checks.append(
            ("WRONG", f"{' and '.join(names)} have equal weights, by the hashes of their {kind} files")
        )
    checks += [
        ("WRONG", f"{name} has tensors of other names, shapes or types than most") for name in found.different
    ]
    checks += [("WRONG", f"{name} has no weights") for name in found.without]
    checks += [("WRONG", f"{name} lacks shards of its {kind} files") for name, kind in found.incomplete]
    if missing := [step for step in _PYTHIA if step not in steps]:
        named = ", ".join(f"step{step}" for step in missing[:_N_NAMED])
        more = f" and {len(missing) - _N_NAMED:,} more" if len(missing) > _N_NAMED else ""
        checks.append(("absent", f"of Pythia's 154 steps: {named}{more}"))
    if any(branch.step is None for branch in found.branches):
        equal = (
            f"has the weights of {found.main}"
            if found.main
            else "has the weights of no step, by their hashes"
        )
        checks.append(("ok" if found.main else "unsure", f"main {equal}"))
    return checks


def _document(found: hub.Suite, checks: list[tuple[str, str]]) -> dict[str, Any]:
    """The document of `pile-tools verify`, for a suite: artifacts are branches with weights."""
    states = [state for state, _ in checks]
    return {
        "path": found.address,
        "is_right": "WRONG" not in states,
        "n_artifacts": sum(bool(branch.files) for branch in found.branches),
        "n_files": sum(branch.n_files for branch in found.branches),
        "n_absent": states.count("absent"),
        "n_unsure": states.count("unsure"),
        "checks": [{"state": state, "what": what} for state, what in checks],
    }
