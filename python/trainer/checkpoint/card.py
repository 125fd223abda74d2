"""The model card of a Hugging Face folder, `README.md`: what the model is, and from which data and run.

Its header is YAML, which the Hub reads; its values are written as JSON, which YAML contains.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from trainer.shape import ModelShape

CARD_FILE = "README.md"


def shape_rows(shape: ModelShape) -> list[tuple[str, str]]:
    """The rows of a model's architecture."""
    return [
        ("parameters", f"{shape.n_parameters:,}"),
        ("blocks, width, heads", f"{shape.n_layers}, {shape.hidden_size:,}, {shape.n_heads}"),
        ("vocabulary", f"{shape.vocab_size:,} rows"),
        ("activation", shape.hidden_act),
        ("rotary embeddings", f"{shape.rotary_pct:g} of a head, base {shape.rotary_base:g}"),
        ("residual", "parallel" if shape.parallel_residual else "sequential"),
    ]


def text(
    title: str, about: str, rows: Sequence[tuple[str, str]], facts: Mapping[str, str | int | None]
) -> str:
    """A model card.

    Args:
        title: Heading.
        about: A paragraph.
        rows: Names and values of a table.
        facts: Values for programs, in the header under `pile_tools`; None is left out.
    """
    header = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["gpt_neox", "pile-tools"],
        "pile_tools": {name: value for name, value in facts.items() if value is not None},
    }
    lines = [f"{name}: {json.dumps(value)}" for name, value in header.items()]
    table = [f"| {_cell(name)} | {_cell(value)} |" for name, value in rows]
    parts = ["---", *lines, "---", "", f"# {_cell(title)}", "", about, "", "| | |", "|---|---|", *table]
    return "\n".join(parts) + "\n"


def _cell(value: str) -> str:
    """A text on one line of a table: a path may have any character."""
    plain = "".join(c if c.isprintable() else "?" for c in value)
    return plain.replace("\\", "\\\\").replace("|", "\\|").replace("<", "\\<")
