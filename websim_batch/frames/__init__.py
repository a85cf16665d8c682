"""The result of a run as a table: `result` is the object, `showing` how it looks in a console and in a notebook."""

from websim_batch.frames.result import RunResult

__all__ = ["RunResult"]
