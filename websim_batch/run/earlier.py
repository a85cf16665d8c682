"""What earlier runs of the job sent a short time ago: it counts under the user's ceilings."""

from __future__ import annotations

import time

import orjson

from websim_batch.journal import Journal
from websim_batch.run.reporting import TOUCH_EVERY, UPDATE_S


def earlier_sends(journal: Journal, window_s: float) -> list[float]:
    """How many seconds ago earlier runs sent each request of the last `window_s` seconds, the oldest first.

    A request without an outcome may have been sent as late as its run was last seen alive; so it counts from then.
    """
    now_us = time.time_ns() // 1000
    last_seen_us = {
        run.run: run.finished_us or run.started_us + _lived_us(run.summary) for run in journal.runs()
    }
    ages_s = []
    for started_us, elapsed_us, run in journal.recent_sends(now_us - round(window_s * 1e6)):
        sent_us = started_us if elapsed_us is not None else max(started_us, last_seen_us.get(run, 0))
        ages_s.append(max(0.0, (now_us - sent_us) / 1e6))
    return sorted((age_s for age_s in ages_s if age_s <= window_s), reverse=True)


def _lived_us(summary: str) -> int:
    """How long a run lived at least, by its last summary, which is renewed every two seconds."""
    elapsed_s: float = orjson.loads(summary).get("elapsed_s", 0.0)
    return round((elapsed_s + TOUCH_EVERY * UPDATE_S) * 1e6)
