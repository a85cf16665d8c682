"""The journal's contract: what the engine and the runner may rely on, for every implementation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from memory_journal import MemoryJournal, MemoryWriter

from websim_batch.journal import JournalWriter, Known, LedgerFacts, Placed, open_journal
from websim_batch.records import Attempt, OutputCells, Result

Work = Callable[[Any], Coroutine[Any, Any, None]]

KEY = b"k" * 16
HASH = b"\x0f" * 16


class Bench:
    """One journal with its writer, and what came back from it."""

    def __init__(self, journal: Any, make_writer: Callable[..., Any]) -> None:
        self.journal = journal
        self.tokens: list[Any] = []
        self.errors: list[BaseException] = []
        self._make_writer = make_writer

    def write(self, work: Work) -> None:
        """Let `work` use a writer, then close it."""

        async def main() -> None:
            loop = asyncio.get_running_loop()
            self._news = asyncio.Event()
            writer = self._make_writer(self.journal, loop, self._on_commit, self.errors.append)
            await work(writer)
            await writer.close()

        asyncio.run(main())

    async def wait_for(self, count: int) -> None:
        """Until so many tokens are back."""
        while len(self.tokens) < count:
            await self._news.wait()
            self._news.clear()

    def _on_commit(self, tokens: list[Any]) -> None:
        self.tokens += tokens
        self._news.set()


@pytest.fixture(params=["sqlite", "memory"])
def bench(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Bench]:
    """Each implementation, in its first run."""
    if request.param == "memory":
        bench = Bench(MemoryJournal(), MemoryWriter)
        bench.journal.begin_run("first", 1, b"{}")
        yield bench
    else:
        with open_journal(tmp_path / "j") as journal:
            journal.begin_run("first", 1, b"{}")
            yield Bench(journal, JournalWriter)


def key_of(row_id: int) -> bytes:
    """A key that no other row has."""
    return row_id.to_bytes(16, "big")


def placed(*row_ids: int) -> list[Placed]:
    """These rows, as the identity would place them."""
    return [Placed(row_id, key_of(row_id), False) for row_id in row_ids]


def intent(row_id: int, number: int = 1, run: int = 1) -> Attempt:
    """A request about to be sent."""
    return Attempt(row_id, number, run, 1_000, None, None, None, "unknown")


def outcome(row_id: int, number: int = 1, run: int = 1, **changes: Any) -> Attempt:
    """The request, answered."""
    return Attempt(row_id, number, run, 1_001, 5_000, 200, None, "answered")._replace(**changes)


def result(row_id: int, response: str = "yes", **changes: Any) -> Result:
    """A row that is ok."""
    facts = {
        "http_status": 200,
        "requests": 1,
        "request_hash": HASH,
        "started_us": 1_001,
        "finished_us": 6_001,
    }
    return Result(row_id, "ok", response, run=1, **facts)._replace(**changes)


def test_tokens_come_back_once_each_in_the_order_given(bench: Bench) -> None:
    """A token comes back exactly once, after those handed in before it."""

    async def work(writer: Any) -> None:
        for row_id in range(1_000):
            writer.intend(intent(row_id), key_of(row_id), None, row_id)

    bench.write(work)

    assert bench.tokens == list(range(1_000))
    assert bench.errors == []


def test_token_of_a_row_is_not_back_before_its_call_ends(bench: Bench) -> None:
    """No callback runs inside a call of the writer."""
    seen: list[int] = []

    async def work(writer: Any) -> None:
        writer.intend(intent(0), key_of(0), None, "a")
        seen.append(len(bench.tokens))

    bench.write(work)

    assert seen == [0]


def test_intent_is_a_request_whose_fate_is_unknown(bench: Bench) -> None:
    """An intent is in the ledger as unknown, and its row pending with one request."""

    async def work(writer: Any) -> None:
        writer.intend(intent(0), key_of(0), b"cells", "a")

    bench.write(work)

    assert list(bench.journal.attempts()) == [intent(0)]
    assert list(bench.journal.known(placed(0))) == [Known(cells=b"cells", requests=1, number=1)]
    told = OutputCells("pending", requests=1, started_at=1_000)
    assert list(bench.journal.output_cells(placed(0))) == [told]
    assert bench.journal.ledger() == LedgerFacts(unknown=1, open=1)


def test_outcome_takes_the_place_of_the_intent(bench: Bench) -> None:
    """After the outcome the ledger has one line for the request, answered, and the row its result."""

    async def work(writer: Any) -> None:
        writer.intend(intent(0), key_of(0), None, "a")
        await bench.wait_for(1)
        writer.settle(outcome(0), result(0), "b")

    bench.write(work)

    assert bench.tokens == ["a", "b"]
    assert list(bench.journal.attempts()) == [outcome(0)]
    assert list(bench.journal.known(placed(0))) == [Known("ok", None, HASH, None, 1, 1)]
    assert list(bench.journal.output_cells(placed(0))) == [
        OutputCells(
            "ok", "yes", http_status=200, requests=1, request_hash=HASH.hex(),
            started_at=1_001, finished_at=6_001, run_id="first",
        )
    ]  # fmt: skip


def test_attempt_without_result_leaves_the_row_pending(bench: Bench) -> None:
    """An attempt that is to be repeated is in the ledger; its row stays pending and the numbers go on."""

    async def work(writer: Any) -> None:
        writer.intend(intent(0), key_of(0), None, "a")
        await bench.wait_for(1)
        writer.settle(outcome(0, http_status=500, error_type="server"), None, "b")
        writer.intend(intent(0, 2), None, None, "c")

    bench.write(work)

    assert [attempt.number for attempt in bench.journal.attempts()] == [1, 2]
    assert list(bench.journal.known(placed(0))) == [Known(requests=2, number=2)]
    told = OutputCells("pending", http_status=500, requests=2, started_at=1_001)
    assert list(bench.journal.output_cells(placed(0))) == [told]


def test_requests_that_were_not_sent_do_not_count_but_keep_their_number(bench: Bench) -> None:
    """`requests` counts what may have reached the server; the next number follows all lines of the ledger."""

    async def work(writer: Any) -> None:
        writer.intend(intent(0), key_of(0), None, "a")
        await bench.wait_for(1)
        writer.settle(outcome(0, http_status=None, delivery="not_sent", error_type="connection"), None, "b")

    bench.write(work)

    assert list(bench.journal.known(placed(0))) == [Known(requests=0, number=1)]
    assert bench.journal.ledger() == LedgerFacts(not_sent=1)


def test_row_is_finished_without_a_request(bench: Bench) -> None:
    """`finish` keeps the result of a row that was never sent."""

    async def work(writer: Any) -> None:
        writer.finish(Result(3, "skipped", finished_us=9, run=1), key_of(3), None, "a")

    bench.write(work)

    assert list(bench.journal.attempts()) == []
    assert list(bench.journal.output_cells(placed(3))) == [
        OutputCells("skipped", finished_at=9, run_id="first")
    ]


def test_withdrawn_intent_leaves_no_trace_in_the_ledger(bench: Bench) -> None:
    """What was intended and never sent is not counted as a request, committed before or not."""

    async def work(writer: Any) -> None:
        writer.intend(intent(0), key_of(0), None, "a")
        await bench.wait_for(1)
        writer.intend(intent(1), key_of(1), None, "b")
        writer.withdraw(intent(0))
        writer.withdraw(intent(1))

    bench.write(work)

    assert list(bench.journal.attempts()) == []
    assert list(bench.journal.output_cells(placed(0, 1))) == [OutputCells("pending")] * 2


def test_number_withdrawn_can_be_intended_again(bench: Bench) -> None:
    """A withdrawal takes back the intent before it, not the one after it."""

    async def work(writer: Any) -> None:
        writer.intend(intent(0), key_of(0), None, "a")
        writer.withdraw(intent(0))
        writer.intend(intent(0), None, None, "b")

    bench.write(work)

    assert list(bench.journal.attempts()) == [intent(0)]


def test_new_result_replaces_the_old_one_and_the_ledger_keeps_all(bench: Bench) -> None:
    """A row that failed and is sent again in the next run has one result, and all its requests."""

    async def fail(writer: Any) -> None:
        writer.intend(intent(0), key_of(0), None, "a")
        await bench.wait_for(1)
        failed = result(0, status="failed", response=None, error_type="server")
        writer.settle(outcome(0, http_status=500), failed, "b")

    async def succeed(writer: Any) -> None:
        writer.intend(intent(0, 2, run=2), None, None, "c")
        await bench.wait_for(3)
        writer.settle(outcome(0, 2, run=2), result(0, requests=2, run=2), "d")

    bench.write(fail)
    assert list(bench.journal.known(placed(0))) == [Known("failed", "server", HASH, None, 1, 1)]
    assert bench.journal.begin_run("second", 2, b"{}") == 2
    bench.write(succeed)

    (cells,) = bench.journal.output_cells(placed(0))
    assert (cells.status, cells.response, cells.error_type, cells.run_id) == ("ok", "yes", None, "second")
    assert [attempt.http_status for attempt in bench.journal.attempts()] == [500, 200]
    assert list(bench.journal.known(placed(0))) == [Known("ok", None, HASH, None, 2, 2)]
    assert bench.journal.ledger(2) == LedgerFacts(answered=1)


def test_result_stays_while_its_row_is_sent_again(bench: Bench) -> None:
    """An intent to send a finished row again does not take its result away."""

    async def work(writer: Any) -> None:
        writer.finish(result(0, status="failed"), key_of(0), b"same", "a")
        await bench.wait_for(1)
        writer.intend(intent(0), key_of(0), b"same", "b")

    bench.write(work)

    assert next(bench.journal.known(placed(0))).status == "failed"


def test_edited_row_loses_the_answer_of_what_it_was(bench: Bench) -> None:
    """Once new cells are noted for a row's id, the old answer no longer stands beside it."""

    async def work(writer: Any) -> None:
        writer.finish(result(0), key_of(0), b"before", "a")
        await bench.wait_for(1)
        writer.intend(intent(0), key_of(0), b"after", "b")

    bench.write(work)

    assert list(bench.journal.known(placed(0))) == [Known(cells=b"after", requests=1, number=1)]


def test_rows_are_told_in_the_order_asked(bench: Bench) -> None:
    """Whatever order the input has now, each row gets its own answer; unknown rows are pending."""
    order = [7, 0, 2_999, 10**9, 3, 2_998, 1_500]

    async def work(writer: Any) -> None:
        for row_id in range(3_000):
            writer.finish(result(row_id, f"answer {row_id}"), key_of(row_id), None, row_id)

    bench.write(work)

    found = [cells.response for cells in bench.journal.output_cells(placed(*order))]
    assert found == [None if row_id == 10**9 else f"answer {row_id}" for row_id in order]
    assert [cells.response for cells in bench.journal.output_cells(placed(*range(3_000)))] == [
        f"answer {row_id}" for row_id in range(3_000)
    ]


def test_number_taken_by_another_row_gives_no_answer(bench: Bench) -> None:
    """An answer counts only for the key it was given for, whatever the row's number says."""

    async def work(writer: Any) -> None:
        writer.intend(intent(0), key_of(0), None, "a")
        await bench.wait_for(1)
        writer.settle(outcome(0), result(0), "b")

    bench.write(work)
    stranger = [Placed(0, key_of(99), True)]

    assert list(bench.journal.output_cells(stranger)) == [OutputCells("pending")]
    assert list(bench.journal.known(stranger)) == [Known()]
