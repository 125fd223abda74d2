"""`pile-train generate`: continues prompts with a checkpoint's model."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from pile_tools import Tokenizer
from pile_tools.arguments import LARGEST
from pile_tools.commands import artifacts, options
from pile_tools.devices import check_device
from pile_tools.errors import ConfigError, FormatError, PileError
from pile_tools.manifest import MANIFEST_FILE
from pile_tools.read.texts import read_lines
from pile_tools.terminal import echo_text, note, print_document, style
from pile_tools.tokenizers import find_tokenizer
from trainer import failures

if TYPE_CHECKING:
    from trainer.generate import Sampling
    from trainer.model.neox import GPTNeoX


@click.command("generate", context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("checkpoint", type=options.PATH)
@click.argument("prompts", nargs=-1, metavar="[PROMPT]...")
@click.option("--file", "prompt_file", type=artifacts.TEXT, help="Also continue each line of a UTF-8 file.")
@click.option("--step", type=click.IntRange(min=0), help="Checkpoint of a run.  [default: the last]")
@click.option(
    "--max-tokens", type=click.IntRange(1, 1 << 20), default=64, show_default=True, help="New tokens."
)
@click.option(
    "--temperature",
    type=click.FloatRange(0, 1e9),
    default=0.0,
    show_default=True,
    help="Divides the logits; 0: always the most likely token.",
)
@click.option(
    "--top-k",
    type=click.IntRange(0, 1 << 31),
    default=0,
    show_default=True,
    help="Choose among the K most likely tokens; 0: all.",
)
@click.option(
    "--top-p",
    type=click.FloatRange(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    help="Choose among the most likely tokens of this probability together.",
)
@click.option(
    "--seed", type=click.IntRange(0, LARGEST), default=0, show_default=True, help="Of the random choices."
)
@click.option(
    "--batch-size", type=click.IntRange(1, 1 << 16), default=16, show_default=True, help="Prompts at once."
)
@click.option("--stop/--no-stop", default=True, show_default=True, help="End at the end-of-document token.")
@click.option("--device", default="cpu", show_default=True, help="Device of the model, such as cuda.")
@click.option("--tokenizer", type=artifacts.TOKENIZER, metavar="FILE", help="If the checkpoint has none.")
@options.reports
def command(
    checkpoint: Path,
    prompts: tuple[str, ...],
    prompt_file: Path | None,
    step: int | None,
    max_tokens: int,
    temperature: float,
    top_k: int,
    top_p: float,
    seed: int,
    batch_size: int,
    stop: bool,
    device: str,
    tokenizer: Path | None,
    as_json: bool,
) -> None:
    """Continue PROMPTs with the model in the folder CHECKPOINT, or of a run: ours or any GPT-NeoX model.

    One prompt is shown as it grows. The tokens of a prompt depend on the seed and on its number, not on the
    batch. Control characters are printed as escapes.

    \b
    Examples:
      pile-train generate demo/run "The first" --temperature 0.8 --top-p 0.95
      pile-train generate demo/run/checkpoints/step100 "The first"
      pile-train generate pythia-70m --file prompts.txt --json
    """
    texts = [*prompts, *(_lines(prompt_file) if prompt_file else [])]
    if not texts:
        raise ConfigError("no prompts: give some, or a file of them by --file")
    folder = _folder(checkpoint, step)
    file = find_tokenizer(tokenizer or folder)
    known = file.load()
    rows = [_encoded(known, text) for text in texts]
    with failures.named():
        from trainer.generate import Sampling

        sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p, seed=seed)
        model = _model(folder, device)
        if any(max(row) >= model.shape.vocab_size for row in rows):
            model.shape.refuse_tokenizer(known.vocab_size, file.path)
        continued = _Continued(model, known, sampling, max_tokens, stop)
        if as_json:
            found = [one for batch in _batches(rows, batch_size) for one in continued.batch(*batch)]
            print_document(_document(folder, texts, found, continued))
            return
        if len(rows) == 1:
            continued.stream(texts[0], rows[0])
            return
        for first, batch in _batches(rows, batch_size):
            for number, tokens in enumerate(continued.batch(first, batch), first):
                note(f"prompt {number + 1:,} of {len(rows):,}:")
                echo_text(texts[number], style(continued.text(tokens), bold=True))


def _lines(path: Path) -> list[str]:
    """The lines of a file, but for empty ones."""
    found = []
    for number, line in enumerate(read_lines(path), 1):
        try:
            found.append(line.decode())
        except UnicodeDecodeError as err:
            where = f"{path}, line {number}"
            raise FormatError(f"not UTF-8: {err.reason} at byte {err.start} of the line ({where})") from err
    return [text for text in found if text]


def _folder(given: Path, step: int | None) -> Path:
    """The folder of the model: the one that was given, or a checkpoint of the run that was given."""
    from trainer.checkpoint.load import checkpoint_folder, list_steps, verify_checkpoint

    steps = list_steps(given)
    if step is None and not steps:
        folder = given
    elif not steps:
        raise PileError(f"no run with checkpoints, of which --step could choose one ({given})")
    else:
        folder = checkpoint_folder(given, steps[-1] if step is None else step)
    if (folder / MANIFEST_FILE).is_file():
        verify_checkpoint(folder)
    return folder


def _model(folder: Path, device: str) -> GPTNeoX:
    import torch

    from trainer.checkpoint.load import load_model

    check_device(device, torch.zeros)
    return load_model(folder, device=device)


def _encoded(tokenizer: Tokenizer, text: str) -> list[int]:
    """A prompt's ids; those of an empty one are what a document starts after."""
    ids: list[int] = tokenizer.encode(text).tolist()
    if ids:
        return ids
    if tokenizer.eod is None:
        raise ConfigError("an empty prompt needs a tokenizer with an end-of-document token")
    return [tokenizer.eod[1]]


def _batches(rows: list[list[int]], size: int) -> Iterator[tuple[int, list[list[int]]]]:
    """Batches of prompts in their order, each with the index of its first prompt."""
    for first in range(0, len(rows), size):
        yield first, rows[first : first + size]


class _Continued:
    """Continues prompts with a model, and decodes what it adds."""

    def __init__(
        self, model: GPTNeoX, tokenizer: Tokenizer, sampling: Sampling, max_tokens: int, stops: bool
    ) -> None:
        self._model, self._tokenizer, self._sampling, self._max_tokens = (
            model,
            tokenizer,
            sampling,
            max_tokens,
        )
        #: The token that ends a continuation, or None.
        self.stop = tokenizer.eod[1] if stops and tokenizer.eod else None

    def batch(
        self, first: int, rows: list[list[int]], on_token: Callable[[int, int], None] | None = None
    ) -> list[list[int]]:
        """The new tokens of prompts, of which the first has the index `first`."""
        from trainer.generate import generate

        # Rows of the vocabulary beyond the tokenizer's are padding: trained to be unlikely, and without text.
        padding = range(self._tokenizer.vocab_size, self._model.shape.vocab_size)
        return generate(
            self._model,
            rows,
            self._max_tokens,
            sampling=self._sampling,
            ban=padding,
            stop=self.stop,
            first=first,
            on_token=on_token,
        )

    def text(self, tokens: list[int]) -> str:
        """The text of new tokens, without the one that ended them."""
        if tokens and tokens[-1] == self.stop:
            tokens = tokens[:-1]
        return self._tokenizer.decode(tokens, skip_special_tokens=False, skip_unknown=True)

    def stream(self, prompt: str, row: list[int]) -> None:
        """Prints a prompt and what the model adds to it, each character as soon as its bytes are whole."""
        tokens: list[int] = []
        n_shown = 0
        echo_text(prompt, nl=False)

        def show(_: int, token: int) -> None:
            nonlocal n_shown
            tokens.append(token)
            # The first bytes of a character decode to the replacement character until the others follow.
            text = self.text(tokens).rstrip("\N{REPLACEMENT CHARACTER}")
            echo_text(style(text[n_shown:], bold=True), nl=False)
            sys.stdout.flush()
            n_shown = len(text)

        self.batch(0, [row], show)
        echo_text(style(self.text(tokens)[n_shown:], bold=True))


def _document(
    folder: Path, texts: list[str], found: list[list[int]], continued: _Continued
) -> dict[str, Any]:
    return {
        "checkpoint": str(folder),
        "continuations": [
            {
                "prompt": text,
                "tokens": tokens,
                "text": continued.text(tokens),
                "is_stopped": bool(tokens) and tokens[-1] == continued.stop,
            }
            for text, tokens in zip(texts, found, strict=True)
        ],
    }
