"""Opens the order named on a command line."""

from __future__ import annotations

from pathlib import Path

from pile_tools import timeline
from pile_tools.manifest import ORDER_FILE
from pile_tools.order.open import open_order
from pile_tools.order.order import Order, arrays_stem
from pile_tools.terminal import note
from pile_tools.timeline.checkpoints import intervals

#: Maximum samples named in the note on samples that GPT-NeoX replaces.
_N_NAMED = 5


def opened_order(
    order: str | Path,
    row_length: int | None = None,
    batch_size: int | None = None,
    compat: str | None = None,
    *,
    has_compat: bool = True,
) -> Order:
    """The order at a path or address, see `pile_tools.open_order`.

    For arrays that GPT-NeoX wrote, a note on standard error names the samples that its reader replaces.
    `has_compat` is whether the command has an option for these.
    """
    found = open_order(order, row_length=row_length, batch_size=batch_size, compat=compat)
    replaced = found.replaced_by_gpt_neox if compat is None and found.manifest is None else []
    if replaced:
        named = ", ".join(f"{sample:,}" for sample in replaced[:_N_NAMED])
        more = ", ..." if len(replaced) > _N_NAMED else ""
        other = ", --compat gpt-neox gives GPT-NeoX's" if has_compat else ""
        note(
            f"note: GPT-NeoX cannot read sample {named}{more} and reads another one instead; "
            f"this is the true sample{other}",
            err=True,
        )
    return found


def is_order(path: Path) -> bool:
    """Whether a path can only be that of an order: its folder, its `order.json`, or one of GPT-NeoX's arrays.

    Rows look like a dataset or a folder of token files.
    """
    return (path / ORDER_FILE).exists() or path.name == ORDER_FILE or bool(arrays_stem(path))


def order_and_steps(
    path: Path, checkpoints: str | None, batch_size: int | None, row_length: int | None
) -> tuple[Order, list[int]]:
    """The order at a path, and the steps of the checkpoints."""
    # The number of steps of rows depends on the batch size.
    order = opened_order(path, row_length, batch_size, has_compat=False)
    n_steps, _ = timeline.extent(order, batch_size)
    return order, intervals(checkpoints, n_steps).edges.tolist()
