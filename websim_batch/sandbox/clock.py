"""The stand-in server's clock, which may run faster than the world's."""

from __future__ import annotations

import time


class ServerClock:
    """Seconds since the epoch on the server: the true time at its start, then `scale` times as fast."""

    def __init__(self, scale: float = 1.0) -> None:
        self.scale = scale
        self._started = time.monotonic()
        self.epoch = time.time()

    def now(self) -> float:
        """The server's time; it never goes back."""
        return self.epoch + self.elapsed()

    def elapsed(self) -> float:
        """Server seconds since its start."""
        return (time.monotonic() - self._started) * self.scale

    def real(self, server_s: float) -> float:
        """So many seconds of ours are `server_s` seconds of the server."""
        return server_s / self.scale
