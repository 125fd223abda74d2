"""Labels a dataset that another tool wrote: finds the shard, record and subset of each of its documents.

The labels are written beside the dataset as `PREFIX.provenance`, with `PREFIX.provenance.manifest.json`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pile_tools import _core, publish
from pile_tools.config import Settings
from pile_tools.errors import ConfigError, OutputExistsError
from pile_tools.manifest import Manifest, Request
from pile_tools.publish import Built, Target
from pile_tools.read.shards import RecordConfig, checked_entries, entries, has_stream
from pile_tools.read.shards import summary as shards_summary
from pile_tools.tokenizers import TokenizerFile, eod_of, find_tokenizer
from pile_tools.tokens import datasets
from pile_tools.types import OnProgress


@dataclass(frozen=True, kw_only=True, slots=True)
class LabelConfig:
    """The settings of labels, apart from dataset and shards."""

    tokenizer: Path = field(
        metadata={
            "help": "Tokenizer of the dataset: a tokenizer.json, its folder, or a Hugging Face model id.",
            "metavar": "FILE|FOLDER|ID",
        }
    )
    eod: str | None = field(
        default=None,
        metadata={
            "help": "Token that may end each document; by default the tokenizer's end-of-document token.",
            "metavar": "TOKEN",
        },
    )
    add_special_tokens: bool = field(
        default=False,
        metadata={"help": "Texts were tokenized with the special tokens of the post-processor."},
    )
    records: RecordConfig = field(default_factory=RecordConfig)


def run(
    prefix: Path,
    shards: Sequence[Path],
    config: LabelConfig,
    *,
    threads: int,
    force: bool = False,
    on_progress: OnProgress = None,
) -> tuple[Manifest, bool]:
    """Labels the documents of the dataset at `prefix`; returns the manifest, and whether it was made now.

    A document is matched with the records that give all its tokens. If several documents have the same tokens
    and as many records match, they are assigned in order; a single record is assigned to all. With any other
    number the documents are ambiguous, and all get the first record. Documents without a record stay unknown.

    Args:
        prefix: Path of the dataset without its suffixes.
        shards: The shards that the dataset may have been made from, in order.
        config: Tokenizer and end-of-document token; the dataset shows whether documents end with it.
        threads: Threads that hash and encode; the labels do not depend on it.
        force: Replace labels made from other inputs, and provenance written with the dataset.
        on_progress: Called with the bytes of the `.bin` hashed plus the bytes of shards read.

    Raises:
        OutputExistsError: The dataset already has a provenance from elsewhere and `force` is off.
        FormatError: Dataset, tokenizer or a shard is damaged, or the dataset is of another tokenizer.
        ConfigError: The end-of-document token is not in the vocabulary, or a shard is a stream.
        OSError: A file cannot be read or written.
    """
    if has_stream(shards):
        raise ConfigError("standard input (-) and pipes can be read only once: labels need shards in files")
    source = find_tokenizer(config.tokenizer)
    tokenizer = source.load()
    eod = eod_of(tokenizer, config.eod, config.tokenizer)
    dataset = _core.TokenSource(prefix)
    request = _request(dataset, shards, config, source, eod, prefix.parent)
    provenance = datasets.with_suffix(prefix, ".provenance")
    target = Target.of(datasets.labels_manifest(prefix))
    if provenance.exists() and provenance.name not in publish.own_files(target) and not force:
        raise OutputExistsError(f"the dataset already has a provenance; force replaces it ({provenance})")

    def build(folder: Path) -> Built:
        labelled = _core.label_dataset(
            prefix,
            shards,
            tokenizer,
            None if eod is None else eod[1],
            folder,
            prefix.name,
            threads,
            on_progress,
            text_field=config.records.text_field,
            skip_bad_records=config.records.skips,
            max_record=config.records.max_record_bytes,
            add_special_tokens=config.add_special_tokens,
        )
        # The core has opened the dataset again, by its path.
        dataset.check_unchanged()
        summary = {**labelled, **shards_summary(shards, prefix.parent)}
        inputs = checked_entries(request.inputs, labelled["shards"])
        return Built([provenance.name], summary, inputs)

    # The labels of a dataset have a fixed name, so the advice to give another output does not apply.
    return publish.make(target, request, build, force=force, names=[provenance.name], or_else="")


def _request(
    dataset: _core.TokenSource,
    shards: Sequence[Path],
    config: LabelConfig,
    tokenizer: TokenizerFile,
    eod: tuple[str, int] | None,
    folder: Path,
) -> Request:
    inputs = [datasets.entry(dataset, folder), tokenizer.entry(folder)]
    inputs += entries(shards, folder)
    settings: Settings = {
        "eod": None if eod is None else eod[0],
        **config.records.settings,
    }
    if config.add_special_tokens:
        settings["add_special_tokens"] = True
    return Request("labels", settings, inputs)
