"""These tests use one thread: tensors are small, and threads that wait would slow other tests down."""

from __future__ import annotations

import torch

torch.set_num_threads(1)
