"""Orders: the samples that a model sees, step by step, and interventions on them."""

from pile_tools.order.interventions import Insert, insert_tokens, replace_tokens, save_interventions
from pile_tools.order.open import open_order
from pile_tools.order.order import Batch, Order, Samples

__all__ = [
    "Batch",
    "Insert",
    "Order",
    "Samples",
    "insert_tokens",
    "open_order",
    "replace_tokens",
    "save_interventions",
]
