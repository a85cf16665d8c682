"""Runs, the ledger, and streams of a journal larger than one read; and what people see in it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from websim_batch.errors import JournalError
from websim_batch.journal import Journal, Known, LedgerFacts, Placed, open_journal, reading, sql
from websim_batch.records import OUTPUT_COLUMNS, Attempt, OutputCells, Result

ROWS = 3 * reading.CHUNK + 7


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """An empty journal in its first run."""
    with open_journal(tmp_path / "j") as journal:
        journal.begin_run("20250102T030405-abc", 1_735_787_045_000_001, b'{"model": "m"}', b'{"python": "3"}')
        yield journal


def key_of(row_id: int) -> bytes:
    """A key of its own for each row."""
    return row_id.to_bytes(16, "big")


def placed(*row_ids: int) -> list[Placed]:
    """These rows, as the identity would place them."""
    return [Placed(row_id, key_of(row_id), False) for row_id in row_ids]


def note(journal: Journal, *row_ids: int) -> None:
    """Note these rows."""
    sql.ROWS.store(journal._db, [(row_id, key_of(row_id), None) for row_id in row_ids])


def sent(row_id: int, number: int, run: int = 1, elapsed_us: int | None = 9) -> Attempt:
    """A request that nobody answered; without a time it is an intent."""
    return Attempt(row_id, number, run, 5, elapsed_us, None, "timeout" if elapsed_us else None, "unknown")


def test_streams_cross_the_edges_of_reads(journal: Journal) -> None:
    """A table of several reads comes out row by row, in order, each with its own answer."""
    note(journal, *range(ROWS))
    sql.RESULTS.store(journal._db, [Result(n, "ok", f"{n}", requests=1, run=1) for n in range(0, ROWS, 3)])

    cells = list(journal.output_cells(iter(placed(*range(ROWS)))))

    assert [cell.response for cell in cells] == [None if n % 3 else f"{n}" for n in range(ROWS)]
    assert len(list(journal.known(placed(*range(ROWS))))) == ROWS


def test_an_unfinished_row_tells_its_requests(journal: Journal) -> None:
    """First send, last answer's status, last request's time; what was not sent is none."""
    note(journal, 0, 1, 2)
    requests = [
        Attempt(0, 1, 1, 5, 9_000, 503, "server", "answered"),
        Attempt(0, 2, 1, 70, 21_499, None, "timeout", "unknown"),
        Attempt(0, 3, 1, 90, 1_000, None, "connection", "not_sent"),
        Attempt(1, 1, 1, 8, None, None, None, "unknown"),
        Attempt(2, 1, 1, 9, 1_000, None, "connection", "not_sent"),
    ]
    sql.REQUESTS.store(journal._db, requests)

    assert list(journal.output_cells(placed(0, 1, 2))) == [
        OutputCells("pending", http_status=503, requests=2, latency_ms=21, started_at=5),
        OutputCells("pending", requests=1, started_at=8),
        OutputCells("pending"),
    ]


def test_scattered_rows_are_found_as_well(journal: Journal) -> None:
    """Rows far apart and out of order, as after a reordering of the input."""
    numbers = [(n * 7_919) % 1_000_003 for n in range(2_500)]
    note(journal, *numbers)
    sql.RESULTS.store(journal._db, [Result(n, "ok", f"{n}", requests=1, run=1) for n in numbers])
    sql.REQUESTS.store(journal._db, [sent(n, number) for n in numbers[::2] for number in (1, 2)])

    assert [cell.response for cell in journal.output_cells(placed(*numbers))] == [f"{n}" for n in numbers]
    assert [known.number for known in journal.known(placed(*numbers))][:3] == [2, 1, 2]


@pytest.mark.parametrize("numbers", [range(300), range(0, 90_000, 300), [*range(150, 300), *range(150)]])
def test_long_answers_are_read_few_at_a_time(
    numbers: Sequence[int], journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the answers are, no more of them is in memory than a bound, and one; all come out in order."""
    monkeypatch.setattr(reading, "CHUNK_CHARS", 100_000)
    note(journal, *numbers)
    sql.RESULTS.store(journal._db, [Result(n, "ok", f"{n} " * (n % 7) * 2_000, run=1) for n in numbers])
    read: list[int] = []
    match = reading._match

    def watch(*arguments: Any) -> Any:
        for chunk, lines in match(*arguments):
            read.append(sum(len(line[3]) for line in lines))
            yield chunk, lines

    monkeypatch.setattr(reading, "_match", watch)

    cells = list(journal.output_cells(placed(*numbers)))

    assert [cell.response for cell in cells] == [f"{n} " * (n % 7) * 2_000 for n in numbers]
    assert max(read) <= 100_000 + max(len(cell.response or "") for cell in cells)


def test_ledger_is_told_whole_and_in_order(journal: Journal) -> None:
    """Every request by row and number, also of a row whose requests straddle two reads."""
    attempts = [sent(row_id, number) for row_id in range(900) for number in range(1, 5)]
    sql.REQUESTS.store(journal._db, attempts)

    assert list(journal.attempts()) == attempts


def test_ledger_counts_tell_what_may_have_been_paid_for_nothing(journal: Journal) -> None:
    """Requests by delivery, of one run or of all; those without an outcome apart."""
    answered = sent(0, 1)._replace(delivery="answered")
    not_sent = sent(0, 4)._replace(delivery="not_sent")
    sql.REQUESTS.store(journal._db, [answered, sent(0, 2), sent(0, 3, run=2, elapsed_us=None), not_sent])

    assert journal.ledger() == LedgerFacts(answered=1, unknown=2, not_sent=1, open=1)
    assert journal.ledger(2) == LedgerFacts(unknown=1, open=1)
    assert journal.ledger(3) == LedgerFacts()


def test_next_number_follows_the_highest_in_the_ledger(journal: Journal) -> None:
    """Numbers go on over runs, for rows with a result and without, and where requests never left."""
    note(journal, 0, 1, 2, 3)
    sql.RESULTS.store(journal._db, [Result(0, "failed", requests=2, run=1), Result(1, "skipped", run=1)])
    lost = [sent(3, number)._replace(delivery="not_sent") for number in (1, 2)]
    sql.REQUESTS.store(
        journal._db, [sent(0, 1), lost[0]._replace(row_id=0, number=2), sent(0, 3), sent(2, 1), *lost]
    )

    assert [(known.requests, known.number) for known in journal.known(placed(0, 1, 2, 3, 4))] == [
        (2, 3), (0, 0), (1, 1), (0, 2), (0, 0),
    ]  # fmt: skip


def test_cells_are_those_of_the_output_columns(journal: Journal) -> None:
    """Each value comes out under its own name, the hash as hex, the run by its id."""
    note(journal, 0)
    result = Result(
        0, "invalid", "text", "https://x/y.png", "bad_response", "one line", 200, 3, 11, 12, 13, 14, "stop",
        "chat", "m", "project", b"\xab" * 16, 21, 22, 1,
    )  # fmt: skip
    sql.RESULTS.store(journal._db, [result])

    (cells,) = journal.output_cells(placed(0))

    assert type(cells) is OutputCells
    assert OutputCells._fields == tuple(name for name, _ in OUTPUT_COLUMNS)
    assert cells == OutputCells(
        "invalid", "text", "https://x/y.png", "bad_response", "one line", 200, 3, 11, 12, 13, 14, "stop",
        "chat", "m", "project", "ab" * 16, 21, 22, "20250102T030405-abc",
    )  # fmt: skip


def test_requests_fit_their_column(journal: Journal) -> None:
    """The output's column has 16 bits."""
    note(journal, 0)
    sql.RESULTS.store(journal._db, [Result(0, "failed", requests=40_000, run=1)])

    assert next(journal.output_cells(placed(0))).requests == 32_767


def test_deferred_row_keeps_its_status(journal: Journal) -> None:
    """A row that the server put off is told as deferred, and known as such."""
    note(journal, 0)
    sql.RESULTS.store(journal._db, [Result(0, "deferred", requests=1, run=1)])

    assert next(journal.output_cells(placed(0))).status == "deferred"
    assert next(journal.known(placed(0))).status == "deferred"


def test_dead_run_is_closed_by_the_next_one(tmp_path: Path, journal: Journal) -> None:
    """Requests of a dead run without an outcome are counted once, and stand beside the row's old result."""
    note(journal, 0, 1)
    sql.RESULTS.store(journal._db, [Result(0, "failed", requests=1, run=1)])
    sql.REQUESTS.store(journal._db, [sent(0, 1), sent(0, 2, elapsed_us=None), sent(1, 1, elapsed_us=None)])

    with open_journal(tmp_path / "j") as resumed:
        assert resumed.begin_run("second", 2, b"{}") == 2
        assert resumed.left_open == 2
        assert [run.state for run in resumed.runs()] == ["stopped", "running"]
        assert [known.requests for known in resumed.known(placed(0, 1))] == [2, 1]
        resumed.end_run("stopped", 3, b"{}")
        assert resumed.begin_run("third", 4, b"{}") == 3
        assert resumed.left_open == 0


def test_run_is_kept_with_all_it_said(journal: Journal) -> None:
    """Settings, versions and the last summary come back as they were given."""
    journal.end_run("finished", 1_735_787_046_000_000, b'{"rows": 1}')

    (run,) = journal.runs()

    assert (run.run, run.run_id, run.state) == (1, "20250102T030405-abc", "finished")
    assert (run.started_us, run.finished_us) == (1_735_787_045_000_001, 1_735_787_046_000_000)
    assert (run.settings, run.summary, run.versions) == ('{"model": "m"}', '{"rows": 1}', '{"python": "3"}')


def test_notes_are_kept_and_replaced(journal: Journal) -> None:
    """A fact of the whole journal, the newest of its name."""
    assert journal.noted("input") is None
    journal.note("input", "a.csv")
    journal.note("input", "b.csv")
    assert journal.noted("input") == "b.csv"


def test_people_read_it_with_sqlite_alone(tmp_path: Path, journal: Journal) -> None:
    """Two views tell answers and requests with ISO times, hex hashes and run ids."""
    note(journal, 0)
    start = 1_735_787_045_000_042
    result = Result(
        0, "ok", "hi", requests=1, request_hash=b"\xab" * 2, started_us=start, finished_us=start + 1, run=1
    )
    sql.RESULTS.store(journal._db, [result])
    sql.REQUESTS.store(journal._db, [Attempt(0, 1, 1, start, 1_500, 200, None, "answered")])

    with closing(sqlite3.connect(tmp_path / "j")) as db:
        answers = db.execute(
            "SELECT response, request_hash, started_at, finished_at, run_id FROM answers"
        ).fetchall()
        ledger = db.execute(
            "SELECT row_id, number, started_at, elapsed_ms, delivery, run_id FROM ledger"
        ).fetchall()

    first, second = "2025-01-02T03:04:05.000042Z", "2025-01-02T03:04:05.000043Z"
    assert answers == [("hi", "abab", first, second, "20250102T030405-abc")]
    assert ledger == [(0, 1, first, 1.5, "answered", "20250102T030405-abc")]


def test_damage_found_while_reading_is_told_in_plain_words(tmp_path: Path) -> None:
    """A page that went bad in the middle of the file ends the export with a sentence."""
    path = tmp_path / "j"
    with open_journal(path) as journal:
        note(journal, *range(2_000))
        sql.RESULTS.store(journal._db, [Result(n, "ok", "x" * 500, requests=1, run=1) for n in range(2_000)])
    with path.open("r+b") as file:
        file.seek(40 * 4_096)
        file.write(b"\xff" * 300 * 4_096)

    with open_journal(path, "read") as journal, pytest.raises(JournalError, match="damaged"):
        list(journal.output_cells(placed(*range(2_000))))


def test_unknown_row_is_the_same_everywhere(journal: Journal) -> None:
    """A row the journal never saw: nothing known, pending, no requests."""
    assert list(journal.known(placed(5))) == [Known()]
    assert list(journal.output_cells(placed(5))) == [OutputCells("pending")]
