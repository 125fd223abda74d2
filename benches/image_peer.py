"""The loop of nerdyrodent/VQGAN-CLIP without its networks, from a checkout.

Its definitions are extracted from `generate.py`, which parses options, loads networks and runs when imported.
"""

from __future__ import annotations

import ast
from argparse import Namespace
from pathlib import Path
from typing import Any

#: What its default step calls besides the networks.
DEFINITIONS = ("ReplaceGrad", "replace_grad", "vector_quantize", "MakeCutouts")
#: Its default augmentations: affine, perspective, colour, erasing.
ARGUMENTS = Namespace(augments=[["Af", "Pe", "Ji", "Er"]])


def definitions(checkout: Path) -> dict[str, Any]:
    """The definitions of the checkout, unchanged."""
    import kornia.augmentation
    import torch

    path = checkout / "generate.py"
    module = ast.parse(path.read_text())
    module.body = [node for node in module.body if _name(node) in DEFINITIONS]
    names: dict[str, Any] = {
        "torch": torch,
        "nn": torch.nn,
        "F": torch.nn.functional,
        "K": kornia.augmentation,
        "args": ARGUMENTS,
    }
    exec(compile(module, str(path), "exec"), names)
    return names


def _name(node: ast.stmt) -> str | None:
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
        return node.targets[0].id
    return getattr(node, "name", None)
