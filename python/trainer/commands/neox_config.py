"""`pile-train neox-config`: a configuration of GPT-NeoX as one of pile-train."""

from __future__ import annotations

from pathlib import Path

import click

from pile_tools import publish
from pile_tools.commands import options
from pile_tools.errors import FormatError
from pile_tools.terminal import counted, echo, note, print_document, shell_quote, with_options
from pile_tools.tokenizers import find_tokenizer
from trainer.neox import translate, yaml_files
from trainer.neox.translate import Entry, Translation

_SCHEDULES = ("neox", "neox_v1")


@click.command("neox-config", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("yaml", nargs=-1, required=True, type=options.PATH)
@click.option(
    "-o", "--output", type=options.PATH, required=True, metavar="FILE.toml", help="The config to write."
)
@click.option("--gpus", type=click.IntRange(min=1), help="GPUs it was made for, which give the batch.")
@click.option(
    "--tokenizer", type=options.PATH, metavar="FILE", help="Its tokenizer, to pad the vocabulary as it was."
)
@click.option(
    "--schedule",
    type=click.Choice(_SCHEDULES),
    default="neox_v1",
    show_default=True,
    help="The cosine of GPT-NeoX before August 2023, neox_v1, or since.",
)
@options.force
@options.reports
def command(
    yaml: tuple[Path, ...],
    output: Path,
    gpus: int | None,
    tokenizer: Path | None,
    schedule: str,
    force: bool,
    as_json: bool,
) -> None:
    """Translate the YAML configuration of GPT-NeoX in one or more files into a config of pile-train.

    Every key is translated, or listed as ignored with the reason. What pile-train cannot do is an error that
    names all of it. Keys that are missing have GPT-NeoX's defaults. The order is made separately: the file
    starts with the command.

    \b
    Examples:
      pile-train neox-config pythia-70m.yml -o train.toml --gpus 32
      pile-train neox-config 20B.yml -o train.toml --tokenizer 20B_tokenizer.json
      pile-train train train.toml
    """
    known = find_tokenizer(tokenizer) if tokenizer else None
    try:
        made = translate.translate(
            yaml_files.read_files(yaml),
            schedule=schedule,
            n_gpus=gpus,
            n_known=known.load().vocab_size if known else None,
        )
    except FormatError as err:
        # This error alone is about all files together; each other one names its file or key.
        if "cannot be translated" not in str(err):
            raise
        raise FormatError(f"{err} ({', '.join(map(str, yaml))})") from err
    if tokenizer is not None:
        # Under "" are the keys before the first table.
        made.toml[""]["tokenizer"] = str(tokenizer)
    text = translate.to_toml(made, list(yaml))
    publish.write_file(
        output,
        lambda path: path.write_text(text, encoding="utf-8"),
        force=force,
        inputs=[*yaml, *([] if known is None else [known.path])],
    )
    if as_json:
        print_document(_document(made, output))
        return
    _print(made, output)


def _document(made: Translation, output: Path) -> dict[str, object]:
    def listed(entries: list[Entry], name: str) -> list[dict[str, object]]:
        # Values may be maps of any keys; as text they have one type.
        return [{"key": e.key, "value": translate.shown(e.value), name: e.what} for e in entries]

    return {
        "config": str(output),
        "values": [
            {"key": f"{table}.{key}".removeprefix("."), "value": value}
            for table, values in made.toml.items()
            for key, value in values.items()
        ],
        "translated": listed(made.translated, "to"),
        "ignored": listed(made.ignored, "reason"),
        "unknown": [entry.key for entry in made.unknown],
        "notes": made.notes,
    }


def _print(made: Translation, output: Path) -> None:
    for title, entries in (("translated", made.translated), ("ignored", made.ignored)):
        echo(f"{title}: {counted(len(entries), 'key')}")
        for entry in entries:
            echo(f"  {entry.key} = {translate.shown(entry.value)}: {entry.what}")
    for entry in made.unknown:
        echo(f"unknown: {entry.key}, no key of GPT-NeoX; ignored")
    for line in made.notes:
        note(with_options(line))
    note(f"wrote {output}; make its order with the command in its second line")
    note(f"next: pile-train train {shell_quote(output)}")
