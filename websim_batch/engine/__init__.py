"""The engine: rows in, durable results out. `core` has the way of a row drawn."""

from websim_batch.engine.core import Engine, Rules
from websim_batch.engine.counters import Counters
from websim_batch.engine.guard import Guard
from websim_batch.engine.work import Batch, Settled, Work

__all__ = ["Batch", "Counters", "Engine", "Guard", "Rules", "Settled", "Work"]
