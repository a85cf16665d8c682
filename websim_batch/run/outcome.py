"""How a run ended: the one place where exit codes are decided. They describe the output's state."""

from __future__ import annotations

from collections.abc import Mapping

from websim_batch.records import Share, Status, StopReason

UNSUCCESSFUL: tuple[Status, ...] = ("failed", "invalid", "refused")


def exit_code(
    counts: Mapping[Status, int], stop: StopReason | None, tolerate: Share | None, is_written: bool = True
) -> int:
    """The exit code of a run that left rows as `counts` tells, and that `stop` ended before its time, if it did.

    0: every row `ok` or `skipped`, or the others within `tolerate`. 3: rows are failed, invalid or refused. A stop
    has its own code (4, 5, 130, 143); one whose rows were all finished in the drain counts as finished, unless the
    table was not written, the input was refused or a fault of ours is to be told.
    """
    unfinished = counts.get("pending", 0) + counts.get("deferred", 0)
    if stop is not None and (unfinished or not is_written or stop.exit_code in (1, 2)):
        return stop.exit_code
    unsuccessful = sum(counts.get(status, 0) for status in UNSUCCESSFUL)
    return 3 if unsuccessful and not _tolerates(tolerate, unsuccessful, sum(counts.values())) else 0


def _tolerates(tolerate: Share | None, unsuccessful: int, rows: int) -> bool:
    return tolerate is not None and unsuccessful <= tolerate.of(rows)
