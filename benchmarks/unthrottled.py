"""The product with its throttle taken out, to tell what the throttle costs: same arguments as `websim-batch`.

Only the number of workers is left. For the benchmarks alone: no server should ever be asked this way.
"""

from __future__ import annotations

from websim_batch import throttle
from websim_batch.throttle import Grant, Signal, Throttle


class Unthrottled(Throttle):
    """Grants at once, always, and learns nothing from what requests met; the engine's workers are all that limits."""

    def try_acquire(self) -> Grant | None:
        """A grant."""
        return Grant(self._clock(), 0, 0)

    async def acquire(self) -> Grant:
        """A grant."""
        return Grant(self._clock(), 0, 0)

    def hold(self, grant: Grant) -> None:
        """Nothing counts it."""

    def leave(self, grant: Grant) -> bool:
        """It may."""
        return True

    def settle(self, grant: Grant, signal: Signal) -> None:
        """Nothing is learned."""

    def release(self, grant: Grant) -> None:
        """Nothing is given back."""


if __name__ == "__main__":
    throttle.Throttle = Unthrottled  # type: ignore[misc]  # before anything else has taken the name

    from websim_batch.cli import main

    raise SystemExit(main())
