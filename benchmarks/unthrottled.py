"""The product with its throttle taken out, to tell what the throttle costs: same arguments as `websim-batch`.

Only the concurrency limit is left. For the benchmarks alone: no server should ever be asked this way.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence

from websim_batch import throttle
from websim_batch.records import Ceiling
from websim_batch.throttle import Grant, Signal, Throttle


class Unthrottled(Throttle):
    """Grants whenever fewer than `concurrency` are in flight, and learns nothing from what they met."""

    def __init__(
        self,
        ceilings: Sequence[Ceiling],
        concurrency: int,
        *,
        rng: random.Random | None = None,
        clock: Callable[[], float] | None = None,
        found_capacity_per_s: float | None = None,
    ) -> None:
        super().__init__((), concurrency, rng=rng, clock=clock, found_capacity_per_s=found_capacity_per_s)
        self._free = asyncio.Semaphore(concurrency)

    async def acquire(self) -> Grant:
        """Waits for one of the places."""
        await self._free.acquire()
        return Grant(self._clock(), 0, 0)

    def settle(self, grant: Grant, signal: Signal) -> None:
        """The place is free again."""
        self._free.release()

    def release(self, grant: Grant) -> None:
        """The place is free again."""
        self._free.release()


if __name__ == "__main__":
    throttle.Throttle = Unthrottled  # type: ignore[misc]  # before anything else has taken the name

    from websim_batch.cli import main

    raise SystemExit(main())
