"""Keys of the config that change how the model computes, in runs of `pile-train`."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import trainer
from pile_tools.order.open import open_order
from trainer.log import LOG_FILE, read_log

pytestmark = pytest.mark.slow

Train = Callable[..., "subprocess.CompletedProcess[str]"]
WriteConfig = Callable[..., Path]


def within_documents(config: Path) -> Path:
    config.write_text(config.read_text().replace("[model]", "[model]\nattention_within_documents = true"))
    return config


@pytest.mark.parametrize("stage", [1, 3])
def test_recomputed_blocks_train_to_the_same_bits(
    train: Train, write_config: WriteConfig, tmp_path: Path, stage: int
) -> None:
    """With ZeRO-3 the weights of a block are gathered again too."""
    tables = f"lr = 0.01\n[deepspeed]\nzero_stage = {stage}"
    found = []
    for name, line in (("kept", ""), ("again", "activation_checkpointing = true")):
        config = write_config(tmp_path / "config.toml", tmp_path / name, "steps = 2", line, optimizer=tables)
        result = train(config)
        assert result.returncode == 0, result.stderr
        lines = read_log(tmp_path / name / LOG_FILE)
        found.append([(line["loss"], line["grad_norm"]) for line in lines])
    assert len(found[0]) == 2
    assert found[0] == found[1]


@torch.no_grad()
def test_attention_within_documents_follows_the_orders_spans(
    train: Train, write_config: WriteConfig, order: Path, tmp_path: Path
) -> None:
    """The first losses are those of passes over each document alone."""
    output = tmp_path / "run"
    lines = ("steps = 1", "batch_size = 64", "micro_batch_size = 16")
    result = train(within_documents(write_config(tmp_path / "config.toml", output, *lines)))
    assert result.returncode == 0, result.stderr
    model, opened = trainer.load_checkpoint(output, 0), open_order(order)
    tokens = torch.from_numpy(opened.batch(0, 64).astype("int64"))
    spans = opened.batch_spans(0, 64)
    expected = np.zeros(len(tokens))
    for row in range(len(tokens)):
        # The last token of a row is a label alone.
        lengths = [int(length) for length in spans["length"][spans["row"] == row]]
        lengths[-1] -= 1
        start = 0
        for length in filter(None, lengths):
            inputs, labels = (tokens[row : row + 1, start + k : start + k + length] for k in (0, 1))
            expected[row] += float(model(inputs, labels=labels).rows) * length / (tokens.shape[1] - 1)
            start += length
    assert len(spans) > len(tokens) + 10
    assert read_log(output / LOG_FILE)[0]["loss"] == pytest.approx(expected.mean(), rel=1e-5)
    np.testing.assert_allclose(trainer.read_row_losses(output)[0], expected, rtol=2e-3)


def test_rows_without_documents_are_refused(train: Train, write_config: WriteConfig, tmp_path: Path) -> None:
    # Pythia's rows, which `open_order` takes a file without an index for.
    np.zeros(4 * 2049, dtype="<u2").tofile(tmp_path / "rows.bin")
    text = within_documents(write_config(tmp_path / "config.toml", tmp_path / "run", "steps = 1")).read_text()
    first, *others = text.splitlines()
    assert first.startswith("order = ")
    lines = [f'order = "{tmp_path / "rows.bin"}"', "batch_size = 2", *others]
    (tmp_path / "config.toml").write_text("\n".join(lines))
    result = train(tmp_path / "config.toml")
    assert result.returncode == 2, result.stderr
    assert "attention_within_documents needs an order of documents" in result.stderr
