from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from trainer.model.compiled import compile_blocks
from trainer.model.neox import GPTNeoX

ModelOf = Callable[..., GPTNeoX]

pytestmark = pytest.mark.skipif(not os.environ.get("PILE_TOOLS_SLOW"), reason="takes minutes: make slow")


@pytest.mark.filterwarnings("ignore")
def test_compiled_blocks_have_the_same_losses_and_gradients(model_of: ModelOf) -> None:
    model = model_of()
    tokens = torch.randint(0, 96, (3, 40), generator=torch.Generator().manual_seed(3))
    positions = torch.arange(40).expand(3, 40) % 13
    found = []
    for is_compiled in (False, True):
        if is_compiled:
            compile_blocks(model, torch.device("cpu"))
        for choice in (None, positions):
            losses = model(tokens, labels=tokens, positions=choice)
            found.append((losses.rows, *torch.autograd.grad(losses.mean, list(model.parameters()))))
    for plain, compiled in zip(found[:2], found[2:], strict=True):
        torch.testing.assert_close(compiled, plain, atol=1e-5, rtol=1e-4)


PROGRAM = """
import torch
from pile_tools.errors import PileError
from trainer.model.compiled import compile_blocks
from trainer.model.neox import GPTNeoX
from trainer.shape import ModelShape

shape = ModelShape(vocab_size=8, hidden_size=8, n_layers=1, n_heads=1, max_positions=8)
try:
    compile_blocks(GPTNeoX(shape), torch.device("cpu"))
except PileError as err:
    print(err)
"""


@pytest.mark.skipif(not shutil.which("c++"), reason="there is no compiler to hide")
def test_a_machine_without_a_compiler_is_one_message(tmp_path: Path) -> None:
    hidden = {
        "PATH": str(tmp_path),
        "CXX": str(tmp_path / "absent"),
        "TORCHINDUCTOR_CACHE_DIR": str(tmp_path),
    }
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, env={**os.environ, **hidden}
    )
    assert ended.returncode == 0, ended.stderr
    (line,) = ended.stdout.splitlines()
    assert line.startswith("torch.compile does not work here: ")
    assert line.endswith("; install a C++ compiler, or set compile = false")
