"""The model card of a run's checkpoint: where it comes from, and how it was trained."""

from __future__ import annotations

from trainer.checkpoint import card
from trainer.recorded import batch_size_option
from trainer.run import Run

#: How the weights and the arithmetic of a run are described.
_PRECISIONS = {
    "fp32": "fp32",
    "bf16": "bf16, with master weights, moments and sums of gradients in fp32",
    "fp16": "fp16 with dynamic loss scaling, with master weights, moments and sums of gradients in fp32",
}


def run_card(run: Run, step: int) -> str:
    """The model card of the weights after `step` updates of a run."""
    recipe, optimizer = run.recipe, run.recipe.optimizer
    preset = run.config.model.preset
    precision = _PRECISIONS.get(recipe.precision, recipe.precision)
    fingerprint = run.order.record.sha256
    datasets = [entry["fingerprint"] for entry in run.inputs(run.config.output) if "fingerprint" in entry]
    rows = [
        ("step", f"{step:,} of {recipe.steps:,}"),
        ("tokens seen", f"{step * run.tokens_per_step:,}"),
        ("order of the data", f"fingerprint {fingerprint}"),
        *(("dataset", f"fingerprint {dataset}") for dataset in datasets),
        ("training precision", precision),
        ("batch", f"{recipe.batch_size:,} sequences of {recipe.shape.max_positions:,} tokens"),
        (
            "optimizer",
            f"AdamW, betas {optimizer.betas[0]:g} and {optimizer.betas[1]:g}, weight decay "
            f"{optimizer.weight_decay:g}, gradients clipped at norm {optimizer.gradient_clipping:g}",
        ),
        (
            "learning rate",
            f"schedule {optimizer.schedule}, at most {optimizer.lr:g}, at least {optimizer.min_lr:g}, rising "
            f"in the first {optimizer.warmup:.4g} of the steps",
        ),
        ("seed of the first weights", str(recipe.seed)),
        *card.shape_rows(recipe.shape),
    ]
    about = (
        f"Weights after {step:,} updates of a run of pile-train: step 0 is the initialization. manifest.json "
        f"lists checksums of the files, the settings and the inputs. Update s, from 0, trained on batch s of "
        f"the order, which `pile-tools batch{batch_size_option(run.order, recipe.batch_size)}` prints."
    )
    if preset is not None:
        about += f" The run follows the recipe of {preset}; its log says where it differs."
    facts: dict[str, str | int | None] = {
        "step": step,
        "tokens": step * run.tokens_per_step,
        "order": fingerprint,
        "train_precision": recipe.precision,
        "preset": preset,
    }
    return card.text(f"Step {step:,} of a GPT-NeoX language model", about, rows, facts)
