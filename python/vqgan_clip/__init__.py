"""VQGAN-CLIP: images from a prompt, and edits of an image, with no training.

`guidance` and `vqgan` are enough to understand the method.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vqgan_clip.config import GuidanceConfig
    from vqgan_clip.models import Models, load_models
    from vqgan_clip.prompts import Prompt, parse_prompts
    from vqgan_clip.synthesis import Result, edit, generate

__all__ = ["GuidanceConfig", "Models", "Prompt", "Result", "edit", "generate", "load_models", "parse_prompts"]

_MODULES = {
    "GuidanceConfig": "config",
    "Models": "models",
    "Prompt": "prompts",
    "Result": "synthesis",
    "edit": "synthesis",
    "generate": "synthesis",
    "load_models": "models",
    "parse_prompts": "prompts",
}


def __getattr__(name: str) -> Any:
    """Imports a name when it is used, so that the help of the commands needs no torch."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
