"""Numbers as people read them, and the sentences that the numbers decide."""

from __future__ import annotations

from pile_tools.order.order import STAGES_RULE
from pile_tools.tokens.concatenated import prefixes
from studies.memorization.tables import Group
from studies.report.facts import Facts

#: Last steps of the log, over which the final loss is averaged. The loss of the first step is that of the
#: initial weights and is not averaged.
ENDS_STEPS = 10
#: Differences below this number of standard errors may be chance.
CLEAR_ERRORS = 2.0
#: Printed for a missing number.
DASH = "\u2013"

#: The tools whose packed order a rule makes.
PACKED = {"gpt-neox packed": "GPT-NeoX", "megatron-lm": "Megatron-LM"}

#: Settings whose names are not words.
SETTINGS = {
    "vocab_size": "vocabulary",
    "n_layers": "layers",
    "n_heads": "attention heads",
    "max_positions": "positions",
    "rotary_pct": "share of a head that rotates",
    "rotary_base": "base of the rotation",
    "layer_norm_eps": "epsilon of layer norms",
    "hidden_act": "activation",
    "init": "first weights",
    "lr": "highest learning rate",
    "min_lr": "lowest learning rate",
    "warmup": "share of steps to warm up",
    "eps": "epsilon",
}


def count(n: int) -> str:
    """An integer with separators: 1,234,567."""
    return f"{n:,}"


def short_count(n: float) -> str:
    """A count in a few digits: 812, 3,400, 12.3 thousand, 1.2 million."""
    # Counts below ten thousand are written out: thousands start above their unit.
    for size, name in ((1e12, "trillion"), (1e9, "billion"), (1e6, "million"), (1e4, "thousand")):
        if n >= size:
            unit = 1e3 if name == "thousand" else size
            return f"{n / unit:,.{0 if n >= 100 * unit else 1}f} {name}"
    return f"{n:,.0f}"


def percent(share: float | None, digits: int = 1) -> str:
    """A share in percent, or a dash if it is missing."""
    return DASH if share is None else f"{100 * share:.{digits}f}%"


def number(value: float | None, digits: int) -> str:
    """A number with that many decimals, or a dash if it is missing."""
    return DASH if value is None else f"{value:.{digits}f}"


def times(n: int) -> str:
    """`never`, `once`, `2 times`."""
    return "never" if n == 0 else "once" if n == 1 else f"{n:,} times"


def megabytes(n_bytes: int | None) -> str:
    """Bytes in MB, or in kB below 0.1 MB; a dash where they are not known."""
    if n_bytes is None:
        return DASH
    return f"{n_bytes / 1e6:,.1f} MB" if n_bytes >= 1e5 else f"{n_bytes / 1e3:,.1f} kB"


def plural(n: int, one: str) -> str:
    """`1 row`, `2 rows`."""
    return f"{n:,} {one}" + ("" if n == 1 else "s")


def loss_ends(facts: Facts) -> tuple[float, float]:
    """The loss of the first step, and the mean loss of the last `ENDS_STEPS` steps."""
    last = [line["loss"] for line in facts.log[-ENDS_STEPS:]]
    return facts.log[0]["loss"], sum(last) / len(last)


def lead(facts: Facts) -> str:
    """The run in one sentence."""
    first, last = loss_ends(facts)
    tokens = facts.run.n_samples * facts.run.order.seq_length
    size = short_count(facts.run.manifest.summary["n_parameters"])
    return (
        f"A model of {size} parameters was trained on {short_count(tokens)} tokens in "
        f"{plural(facts.run.steps, 'step')} of {plural(facts.run.batch_size, 'row')}; "
        f"its loss went from {first:.2f} to {last:.2f} nats per token."
    )


def data_sentence(facts: Facts) -> str:
    """Which of several datasets the report describes; empty for one dataset."""
    n = len(prefixes(facts.run.order.dataset))
    return "" if n == 1 else f"The order reads {n:,} datasets, of which this is the first."


def order_sentence(facts: Facts) -> str:
    """How the rows of the order are made, and how many of them the run uses."""
    order, settings = facts.run.order, facts.run.order.record.settings
    if tool := PACKED.get(settings["rule"]):
        text = (
            f"Documents are shuffled, laid one after the other and cut into rows of {order.seq_length} + 1 "
            f"tokens, which are shuffled again: the packed order of {tool}, the same for the same seed."
        )
    elif settings["rule"] == STAGES_RULE:
        # A manifest may lack them: reading the order does not need them.
        text = f"The orders of {len(settings.get('stages') or ())} stages follow each other."
    elif settings["rule"] == "view":
        text = "Some tokens of another order are replaced, or others are written over them."
    else:
        text = f"Each row is whole documents, padded or cut to {order.samples.sample_length:,} tokens."
    n_rows = plural(len(order.samples), "row")
    return f"{text} The order has {n_rows}; the run uses the first {count(facts.run.n_samples)}."


def rows_sentence(facts: Facts) -> str:
    """What the last checkpoint reproduces of rows it was trained on, next to others."""
    table = facts.memorization["checkpoints"][-1]
    seen, unseen, step = table["seen"], table["unseen"], table["step"]
    if not seen["n"]:
        return f"The last checkpoint scored, step {step}, was not trained on any of the rows scored."
    text = (
        f"At step {step}, greedy decoding reproduces {percent(seen['mean_score'])} of the tokens that follow "
        f"the prompts taken from rows it was trained on, and all of them for {seen['n_memorized']} of "
        f"{plural(seen['n'], 'row')} ({percent(seen['share_memorized'])})"
    )
    if not unseen["n"]:
        return f"{text}. No row scored was new to it: earlier batches hold the tokens of all."
    others = f"For rows it was not trained on it is {percent(unseen['mean_score'])}"
    return f"{text}. {others}: {_difference(seen, unseen)}."


def canaries_sentence(facts: Facts) -> str | None:
    """What the last checkpoint reproduces of the canaries planted most often, next to those never planted."""
    levels = facts.memorization["checkpoints"][-1]["canaries"]
    if not levels:
        return None
    most = levels[-1]
    text = (
        f"Of the random passages planted {times(most['repeats'])}, each seen whole "
        f"{most['mean_seen']:.1f} times on average, the last checkpoint continues {most['n_memorized']} of "
        f"{most['n']} without a mistake, with a mean score of {percent(most['mean_score'])}"
    )
    if levels[0]["repeats"] or len(levels) == 1 or not levels[0]["n"]:
        return text + "."
    never = levels[0]
    return (
        f"{text}; of those never planted it is {never['n_memorized']} of {never['n']}, "
        f"with {percent(never['mean_score'])}: what chance and knowing the words give."
    )


def setting(name: str) -> str:
    """A setting's name in plain words."""
    return SETTINGS.get(name, name.replace("_", " "))


def value(found: object) -> str:
    """A setting's value as people write it."""
    if isinstance(found, bool):
        return "yes" if found else "no"
    if isinstance(found, list):
        return ", ".join(map(value, found))
    return (
        f"{found:g}" if isinstance(found, float) else f"{found:,}" if isinstance(found, int) else str(found)
    )


def _difference(seen: Group, unseen: Group) -> str:
    """The difference of two groups' mean scores, in points, and whether it is more than chance gives.

    Neither group is empty.
    """
    difference = 100 * ((seen["mean_score"] or 0) - (unseen["mean_score"] or 0))
    error = 100 * ((seen["standard_error"] or 0) ** 2 + (unseen["standard_error"] or 0) ** 2) ** 0.5
    measured = f"a difference of {difference:+.1f} points with a standard error of {error:.1f}"
    if abs(difference) <= CLEAR_ERRORS * error or error == 0:
        return f"{measured}, which may be chance with so few rows"
    return f"{measured}, more than chance gives"
