"""Twenty SIGKILLs at random moments: counted at the server, nothing is lost, doubled, or sent again needlessly."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from tests.live import ROOT

_SPEC = importlib.util.spec_from_file_location("kills", ROOT / "benchmarks" / "kills.py")
assert _SPEC is not None and _SPEC.loader is not None
kills = importlib.util.module_from_spec(_SPEC)
sys.modules["kills"] = kills
_SPEC.loader.exec_module(kills)


def test_endings_by_twenty_kills_lose_and_double_nothing(tmp_path: Path) -> None:
    """5,000 rows, 64 at once: every row once, beside its own answer; at most 64 + 256 requests more for each kill."""
    sums = kills.kill_and_count(tmp_path, 20, rows=5000, concurrency=64, seed=20)

    assert (sums.lost, sums.doubled, sums.misplaced) == (0, 0, 0)
    assert sums.most_extra <= 64 + 256
    assert 0 < sums.extra <= 20 * (64 + 256)
    # Every request stood in the ledger before the server saw it, so what may be paid for nothing is known.
    assert sums.unnoted == 0
    assert sums.extra <= sums.may_be_paid
