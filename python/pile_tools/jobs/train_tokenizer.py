"""Trains a byte-level BPE tokenizer on shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pile_tools import _core, manifest, publish
from pile_tools.errors import ConfigError
from pile_tools.manifest import MANIFEST_SUFFIX, Manifest, Request
from pile_tools.publish import Built, Target
from pile_tools.read.shards import RecordConfig, entries, has_stream, is_shard_name, refuse_output_within
from pile_tools.read.shards import summary as shards_summary
from pile_tools.types import OnProgress

#: GPT-NeoX-20B's special tokens, ids 0 and 1.
SPECIAL_TOKENS = ("<|endoftext|>", "<|padding|>")


#: Maximum size of a vocabulary: the core reads tokenizers with smaller ids only.
MAX_VOCAB_SIZE = 2**20


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainTokenizerConfig:
    """The settings of a trained tokenizer, apart from its shards."""

    vocab_size: int = field(
        default=50254, metadata={"help": "Tokens of the vocabulary, including special tokens and bytes."}
    )
    min_frequency: int = field(default=2, metadata={"help": "Minimum occurrences of a pair to merge it."})
    #: They have the first ids. Their spelling in the training text has no special meaning.
    special_tokens: tuple[str, ...] = SPECIAL_TOKENS
    records: RecordConfig = field(default_factory=RecordConfig)

    def __post_init__(self) -> None:
        if "" in self.special_tokens or len(set(self.special_tokens)) < len(self.special_tokens):
            raise ConfigError(f"special tokens must differ and not be empty, got {self.special_tokens}")
        least = 256 + len(self.special_tokens)
        if self.vocab_size < least:
            raise ConfigError(
                f"vocab-size must be at least {least} for 256 bytes and {len(self.special_tokens)} special "
                f"tokens, got {self.vocab_size}"
            )
        if self.vocab_size > MAX_VOCAB_SIZE:
            raise ConfigError(f"vocab-size must be at most {MAX_VOCAB_SIZE}, got {self.vocab_size}")
        if self.min_frequency < 0:
            raise ConfigError(f"min-frequency must not be negative, got {self.min_frequency}")

    @property
    def n_merges(self) -> int:
        """The merges of a vocabulary of `vocab_size` tokens."""
        return self.vocab_size - 256 - len(self.special_tokens)


def manifest_path(output: Path) -> Path:
    """The manifest beside a tokenizer: `NAME.manifest.json` for `NAME.json`."""
    return output.parent / (output.name.removesuffix(".json") + MANIFEST_SUFFIX)


def run(
    shards: Sequence[Path],
    output: Path,
    config: TrainTokenizerConfig,
    *,
    threads: int,
    force: bool = False,
    on_progress: OnProgress = None,
) -> tuple[Manifest, bool]:
    """Trains a tokenizer on `shards`; returns its manifest, and whether it was made now.

    Args:
        shards: The shards, in order.
        output: The tokenizer.json to write.
        config: The settings of the tokenizer.
        threads: Threads; the output does not depend on it.
        force: Replace an output made from other inputs or settings.
        on_progress: Called with the compressed bytes read plus the merges made.

    Raises:
        ConfigError: The next run would read the output as one of the shards.
        OutputExistsError: The output was made from other inputs or settings and `force` is off.
        FormatError: A shard is damaged; the message names shard and byte.
        OSError: A file cannot be read or written.
    """
    # A `.json` file is known by its content.
    if is_shard_name(output.name) and output.suffix.lower() != ".json":
        refuse_output_within(shards, output)
    inputs = entries(shards, output.parent)
    passed_over = shards_summary(shards, output.parent)
    settings = {
        "vocab_size": config.vocab_size,
        "min_frequency": config.min_frequency,
        "special_tokens": list(config.special_tokens),
        **config.records.settings,
    }
    request = Request("tokenizer", settings, inputs)

    def build(folder: Path) -> Built:
        json, trained = _core.train_tokenizer(
            shards,
            config.vocab_size,
            config.min_frequency,
            config.special_tokens,
            threads,
            on_progress,
            text_field=config.records.text_field,
            skip_bad_records=config.records.skips,
            max_record=config.records.max_record_bytes,
        )
        (folder / output.name).write_text(json, encoding="utf-8")
        counts = {name: value for name, value in trained.items() if name != "shards"}
        checked = manifest.with_checksums(inputs, trained["shards"])
        return Built([output.name], {**counts, **passed_over}, checked)

    return publish.make(
        Target.of(manifest_path(output)),
        request,
        build,
        force=force,
        names=[output.name],
        is_stream=has_stream(shards),
    )
