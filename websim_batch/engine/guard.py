"""Where a fault of ours ends one row and not the run."""

from __future__ import annotations

import traceback
from pathlib import Path
from types import TracebackType


class Guard:
    """Turns an exception inside its block into a sentence, `fault`; None if there was none. Cancelling passes.

    The sentence says what and where, but no values, which could hold secrets or prompts. It is used again and again.
    """

    __slots__ = ("fault",)

    def __init__(self) -> None:
        self.fault: str | None = None

    def __enter__(self) -> Guard:
        self.fault = None
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> bool:
        if not isinstance(exc, Exception):
            return False
        frames = traceback.extract_tb(exc.__traceback__)
        where = f" ({Path(frames[-1].filename).name}, line {frames[-1].lineno})" if frames else ""
        self.fault = f"a fault of websim-batch itself: {type(exc).__name__}{where}"
        return True
