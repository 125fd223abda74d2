"""`pile-train import`: a model of Hugging Face or GPT-NeoX as a verified folder of safetensors."""

from __future__ import annotations

from pathlib import Path

import click

from pile_tools.commands import artifacts, options
from pile_tools.terminal import note, shell_quote
from trainer import failures


@click.command("import", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("source", type=options.PATH)
@click.option("-o", "--output", type=options.PATH, required=True, metavar="FOLDER", help="Folder to write.")
@click.option(
    "--config",
    "configurations",
    type=options.PATH,
    multiple=True,
    metavar="YAML",
    help="Configuration of GPT-NeoX, if none is beside its checkpoint; several are one.",
)
@click.option("--tokenizer", type=artifacts.TOKENIZER, metavar="FILE", help="Default: that of SOURCE.")
@options.force
@options.reports
def command(
    source: Path,
    output: Path,
    configurations: tuple[Path, ...],
    tokenizer: Path | None,
    force: bool,
    as_json: bool,
) -> None:
    """Import the model in the folder SOURCE: a Hugging Face folder, or a checkpoint of GPT-NeoX.

    A Hugging Face folder may be in shards, of safetensors or of torch.save. A checkpoint of GPT-NeoX is the
    folder of a step or of a run; the parts of its model-parallel ranks are merged. Weights keep their dtype,
    and no pickle is executed. The output is a Hugging Face folder with a manifest.

    \b
    Examples:
      pile-train import pythia-70m -o models/pythia-70m
      pile-train import 20B_checkpoints -o models/20b \\
        --tokenizer 20B_tokenizer.json
      pile-train generate models/pythia-70m "The first"
    """
    with failures.named(source):
        from trainer import import_model

        found = import_model.find_source(source, configurations)
        known = import_model.tokenizer_of(source, tokenizer)
        made, is_new = import_model.run(found, output, known, force=force)
    if options.is_reported(made, output, is_new=is_new, as_json=as_json):
        return
    note(f"imported {made.summary['n_parameters']:,} parameters in {made.summary['dtype']} to {output}")
    if known is None:
        note("it has no tokenizer: give one by --tokenizer to generate text")
    else:
        note(f"next: pile-train generate {shell_quote(output)} PROMPT")
