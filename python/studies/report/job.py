"""Writes a run's report and its manifest."""

from __future__ import annotations

from pathlib import Path

from pile_tools import manifest, publish
from pile_tools.errors import ConfigError
from pile_tools.manifest import MANIFEST_FILE, MANIFEST_SUFFIX, Manifest, Request
from pile_tools.publish import Built, Target
from pile_tools.tokens import datasets
from studies.report.facts import Facts, collect


def run(
    run_folder: Path,
    study_folder: Path,
    output: Path,
    *,
    pictures: Path | None = None,
    force: bool = False,
) -> tuple[Manifest, bool]:
    """Writes `output` and `NAME.manifest.json` beside it; returns the manifest and whether it was made now.

    `pictures` is a folder of `vqgan-clip demo` to show.

    Raises:
        ConfigError: The output is not named `.html`.
        PileError: No run or no study of it.
        OutputExistsError: A report of something else is there and `force` is off.
        OSError: A file cannot be read or written.
    """
    if output.suffix != ".html":
        raise ConfigError(f"the report is a page and ends in .html, got {output}")
    facts = collect(run_folder, study_folder, pictures)
    request = Request("report", {}, _inputs(facts, output.parent))

    def build(scratch: Path) -> Built:
        from studies.report.page import render

        (scratch / output.name).write_text(render(facts, output), encoding="utf-8")
        return Built([output.name], {}, request.inputs)

    target = Target.of(output.with_suffix(MANIFEST_SUFFIX))
    return publish.make(target, request, build, force=force, names=[output.name])


def _inputs(facts: Facts, folder: Path) -> list[manifest.Entry]:
    """The manifests that the report speaks of, so that a chain from it reaches every file it shows."""
    last = manifest.read(facts.run.checkpoint(facts.run.checkpoints[-1]) / MANIFEST_FILE)
    found = [
        ("order", facts.run.order.record),
        ("run", facts.run.manifest),
        ("checkpoint", last),
        ("study", facts.study),
        *(("tokens", made) for made in (facts.tokens,) if made is not None),
        *(("tokenizer", made) for made in (facts.tokenizer,) if made is not None),
        *(("shards", made) for made in facts.shards),
        *(("pictures", made) for made in (facts.pictures,) if made is not None),
    ]
    return [
        *(made.entry(folder, role=role) for role, made in found),
        *datasets.origin_entries(facts.run.order.dataset, folder),
    ]
