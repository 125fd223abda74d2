"""The chain of manifests from a report to its inputs, and how to check it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pile_tools.manifest import MANIFEST_FILE, Manifest, read, relative
from pile_tools.terminal import shell_quote
from studies.report.facts import Facts
from trainer.recorded import batch_size_option

#: Hexadecimal digits of a fingerprint that are shown.
SHOWN_DIGITS = 16


@dataclass(frozen=True)
class Link:
    """One artifact of the chain.

    Attributes:
        what: Its name in plain words.
        path: Its manifest, relative to the report's folder.
        inputs: What it was made from, in a few words.
        request: Beginning of the digest of its kind, settings and inputs.
        sha256: Beginning of the checksum of its manifest, which lists the checksums of its files.
    """

    what: str
    path: str
    inputs: str
    request: str
    sha256: str


def links(facts: Facts, folder: Path) -> list[Link]:
    """The artifacts, from shards to study, as a report in `folder` names them."""
    last = facts.run.checkpoints[-1]
    found: list[tuple[str, Manifest]] = [("Shards", shards) for shards in facts.shards]
    if facts.tokenizer is not None:
        found.append(("Tokenizer", facts.tokenizer))
    if facts.tokens is not None:
        found.append(("Token dataset", facts.tokens))
    found += [
        ("Training order", facts.run.order.record),
        ("Run", facts.run.manifest),
        (
            f"Last of {len(facts.run.checkpoints)} checkpoints",
            read(facts.run.checkpoint(last) / MANIFEST_FILE),
        ),
        ("Memorization study", facts.study),
    ]
    if facts.pictures is not None:
        found.append(("Pictures from prompts", facts.pictures))
    return [_link(what, manifest, folder) for what, manifest in found]


def commands(facts: Facts, output: Path) -> list[tuple[str, str]]:
    """Commands to type in the report's folder, and what each does."""
    folder = output.parent
    run = shell_quote(Path(relative(facts.run.folder, folder)))
    order = shell_quote(Path(relative(facts.run.order.path.parent, folder)))
    size = batch_size_option(facts.run.order, facts.run.batch_size)
    report = shell_quote(Path(output.name))
    return [
        (f"pile-tools verify {report} --chain", "checks every file of the chain, back to the shards"),
        (f"pile-tools verify {run}", "checks the run and all its checkpoints"),
        (f"pile-tools batch {order} --step 0{size}", "shows what the model saw first, document by document"),
    ]


def _link(what: str, manifest: Manifest, folder: Path) -> Link:
    roles = [str(entry["role"]) for entry in manifest.inputs]
    counts = [
        f"{roles.count(role)} {role}s" if roles.count(role) > 1 else role for role in dict.fromkeys(roles)
    ]
    # Of the artifacts here, only sampled shards have no inputs: they are made of texts of the machine.
    return Link(
        what=what,
        path=relative(manifest.path, folder),
        inputs=", ".join(counts) or "this machine's own text",
        request=manifest.request[:SHOWN_DIGITS],
        sha256=manifest.sha256[:SHOWN_DIGITS],
    )
