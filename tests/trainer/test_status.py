from __future__ import annotations

import itertools

import pytest
import torch

from trainer.peak import measured_peak
from trainer.ranks import Processes
from trainer.status import MAX_COLUMNS, StatusLine, status


def test_the_line_has_everything_and_fits() -> None:
    line = status(
        step=1234, n_steps=143_000, loss=2.34567, tokens_per_second=5120, share=0.452, seconds_left=93784
    )
    assert line == "step 1,234/143,000, loss 2.346, 5.12k tokens/s, 45% of peak, 1d 2h left"


def test_a_share_of_a_peak_that_was_measured_too_low_is_left_out() -> None:
    line = status(step=1, n_steps=2, loss=2.5, tokens_per_second=5120, share=3.44, seconds_left=9)
    assert line == "step 1/2, loss 2.500, 5.12k tokens/s, 9s left"


def test_no_line_is_too_long() -> None:
    values = itertools.product(
        (0, 143_000, 10**12), (0.0, 12.5, 1e30), (0.0, 999.96, 1.23456e6, 1e12), (None, 0.0, 1.0), (0.4, 1e10)
    )
    for step, loss, speed, share, left in values:
        line = status(
            step=step, n_steps=step, loss=loss, tokens_per_second=speed, share=share, seconds_left=left
        )
        assert len(line) <= MAX_COLUMNS, line


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.2, "0s"), (59.4, "59s"), (60, "1m 0s"), (3725, "1h 2m"), (1e6, "11d 13h")]
)
def test_times_have_two_units(seconds: float, shown: str) -> None:
    line = status(step=1, n_steps=2, loss=1, tokens_per_second=1, share=None, seconds_left=seconds)
    assert line.endswith(f", {shown} left")


def test_the_peak_is_that_of_a_machine_that_exists() -> None:
    alone = measured_peak(Processes(0, 1, torch.device("cpu")), "fp32")
    assert 1e8 < alone < 1e15


def test_lines_come_now_and_then_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("trainer.status.LOG_INTERVAL_SECONDS", 0.0)
    with StatusLine(10, 1000, 6, 60_000.0) as line:
        line.update(1, 2.5, 0.2)
    said = capsys.readouterr().err
    assert "step 1/10, loss 2.500, 5k tokens/s, 50% of peak, 0s left" in said
    monkeypatch.setattr("trainer.status.LOG_INTERVAL_SECONDS", 1000.0)
    with StatusLine(10, 1000, 6, None) as line:
        line.update(1, 2.5, 0.2)
    assert capsys.readouterr().err == ""
