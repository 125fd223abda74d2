"""Puts facts, sentences and plots into the template: one HTML file that loads nothing from anywhere."""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path, PurePath
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from pile_tools import Tokenizer
from pile_tools.config import Settings
from pile_tools.present import pages
from pile_tools.present.charts import Chart
from pile_tools.terminal import escape_text
from studies.report import chain, pictures, plots, wording
from studies.report.facts import Composition, Facts

#: Tokens shown of the first row of the run.
EXAMPLE_TOKENS = 72
#: Maximum distinct tokens of a continuation that is marked as repetitive.
FEW_DISTINCT_TOKENS = 8
#: Colours that tokens take by turns, as the style sheet has them.
TOKEN_HUES = 5


def render(facts: Facts, output: Path) -> str:
    """The whole page, with paths relative to the folder of `output`."""
    environment = Environment(
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": wording.count,
        "short_count": wording.short_count,
        "percent": wording.percent,
        "megabytes": wording.megabytes,
        "plural": wording.plural,
        "number": wording.number,
        "times": wording.times,
        "file_name": lambda path: "/".join(PurePath(path).parts[-2:]),
    }
    template = environment.from_string(_resource("report.html.j2"))
    body = template.render(_values(facts, output))
    return pages.document(f"Report of the run {_name(facts)}", body, _resource("report.css"))


def _name(facts: Facts) -> str:
    return Path(os.path.realpath(facts.run.folder)).name


def _shown(value: Any) -> Any:
    """A value as the page shows it: control characters in text as escapes."""
    return escape_text(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def _values(facts: Facts, output: Path) -> dict[str, Any]:
    """All that the template names."""
    run = facts.run
    first, last = wording.loss_ends(facts)
    subsets = _subsets(facts)
    counts = [subset["n_text_bytes"] for subset in subsets]
    n_text_bytes = None if None in counts else sum(counts)
    return {
        "name": _name(facts),
        "facts": facts,
        "run": run,
        "n_tokens_trained": run.n_samples * run.order.seq_length,
        "loss_first": first,
        "loss_last": last,
        "ends_steps": min(wording.ENDS_STEPS, len(facts.log)),
        "lead": wording.lead(facts),
        "data_sentence": wording.data_sentence(facts),
        "order_sentence": wording.order_sentence(facts),
        "rows_sentence": wording.rows_sentence(facts),
        "canaries_sentence": wording.canaries_sentence(facts),
        "last_table": facts.memorization["checkpoints"][-1],
        "subsets": subsets,
        "n_text_bytes": n_text_bytes,
        "bytes_per_token": _ratio(n_text_bytes, facts.tokens.summary["n_tokens"]) if facts.tokens else None,
        "colors": plots.subset_colors(facts.composition.names) if facts.composition else {},
        "sampling": _sampling(facts.composition),
        "vocabulary": _vocabulary(run.tokenizer),
        "example": _example(facts),
        "shape": _settings_of(run.manifest.settings, "shape."),
        "optimizer": _settings_of(run.manifest.settings, "optimizer."),
        "checkpoint_rows": _checkpoint_rows(facts),
        "few_distinct_tokens": FEW_DISTINCT_TOKENS,
        "min_rows_plotted": plots.MIN_ROWS_PLOTTED,
        "pictures": pictures.read_pictures(facts.pictures),
        "links": chain.links(facts, output.parent),
        "commands": chain.commands(facts, output),
        **_plots(facts),
    }


def _plots(facts: Facts) -> dict[str, Markup | None]:
    """The charts by name; None for one without data."""
    tables, found = facts.memorization["checkpoints"], facts.canaries
    n_tokens = facts.memorization["continuation_tokens"]

    def shown(chart: Chart, *, is_half: bool = False) -> Markup:
        return Markup(pages.drawn(chart, is_half=is_half))

    rows = plots.rows(tables)
    return {
        "plot_composition": shown(plots.composition(facts.composition)) if facts.composition else None,
        "plot_loss": shown(plots.loss(facts.log, facts.run.checkpoints)),
        "plot_learning_rate": shown(plots.learning_rate(facts.log, facts.run.checkpoints)),
        "plot_rows": shown(rows) if rows is not None else None,
        "plot_curves": shown(plots.canary_curves(tables), is_half=True) if found else None,
        "plot_dots": shown(plots.canary_dots(found["canaries"], n_tokens), is_half=True) if found else None,
    }


def _subsets(facts: Facts) -> list[dict[str, Any]]:
    """The dataset's subsets, most tokens first, with their shares and bytes per token."""
    if facts.tokens is None:
        return []
    n_tokens = max(1, facts.tokens.summary["n_tokens"])
    ordered = sorted(facts.tokens.summary["subsets"], key=lambda subset: -subset["n_tokens"])
    return [
        {
            **subset,
            "name": subset["name"] or "not known",
            "share": subset["n_tokens"] / n_tokens,
            # Not known of merged datasets that other tools wrote.
            "n_text_bytes": subset.get("n_text_bytes"),
            "bytes_per_token": _ratio(subset.get("n_text_bytes"), subset["n_tokens"]),
        }
        for subset in ordered
    ]


def _ratio(n_bytes: int | None, n_tokens: int) -> float | None:
    return None if n_bytes is None else n_bytes / max(1, n_tokens)


def _sampling(composition: Composition | None) -> str:
    """The number of stages of the run that the composition was counted in, in words."""
    if composition is None:
        return ""
    return wording.plural(len(composition.edges) - 1, "stage")


def _vocabulary(tokenizer: Tokenizer | None) -> dict[str, Any] | None:
    if tokenizer is None:
        return None
    return {"size": tokenizer.vocab_size, "eod": tokenizer.eod}


def _example(facts: Facts) -> list[dict[str, Any]]:
    """The first tokens that the model saw, each with its id and the number of its colour."""
    tokenizer = facts.run.tokenizer
    if tokenizer is None:
        return []
    eod = tokenizer.eod[1] if tokenizer.eod else None
    ids = facts.run.order.samples[0][:EXAMPLE_TOKENS].tolist()
    return [
        {
            "id": id,
            "text": tokenizer.decode([id], skip_special_tokens=False, skip_unknown=True),
            "hue": index % TOKEN_HUES,
            "is_eod": id == eod,
        }
        for index, id in enumerate(ids)
    ]


def _settings_of(settings: Settings, prefix: str) -> list[tuple[str, str]]:
    """The settings under a prefix, in plain words, but for those that have no value."""
    return [
        (wording.setting(name.removeprefix(prefix)), wording.value(found))
        for name, found in settings.items()
        if name.startswith(prefix) and found is not None
    ]


def _checkpoint_rows(facts: Facts) -> list[dict[str, Any]]:
    """The study's tables with the tokens trained on and the loss on the batch that came next."""
    losses = {line["step"]: line["loss"] for line in facts.log}
    per_step = facts.run.batch_size * facts.run.order.seq_length
    return [
        {**table, "tokens": table["step"] * per_step, "loss": losses.get(table["step"])}
        for table in facts.memorization["checkpoints"]
    ]


def _resource(name: str) -> str:
    return resources.files("studies.report").joinpath(name).read_text(encoding="utf-8")
