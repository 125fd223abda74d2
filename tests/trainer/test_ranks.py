"""What processes exchange arrives as it was sent."""

from __future__ import annotations

import pytest
import torch

from trainer.ranks import Processes


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Processes:
    """The first of two processes; the other one sends the same."""

    def all_gather(found: list[torch.Tensor], sent: torch.Tensor) -> None:
        for tensor in found:
            tensor.copy_(sent)

    monkeypatch.setattr(torch.distributed, "all_gather", all_gather)
    return Processes(0, 2, torch.device("cpu"))


@pytest.mark.parametrize(
    "text", ["", "loss: 2.5 \N{GREEK SMALL LETTER PI}", "a\0b", "a file \udcff.json", "\ud800"]
)
def test_texts_are_gathered_as_they_are(pair: Processes, text: str) -> None:
    assert pair.gather(text) == [text, text]
    assert pair.from_main(text) == text
