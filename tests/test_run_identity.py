"""Rows are known by what they ask, not by where they stand; counted at the server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.live import call, journal_of, query, read_table, run, statuses, write_table
from websim_batch.sandbox.testing import Sandbox

BEFORE = [f"prompt {i}" for i in range(12)]


class Job:
    """A job in a folder, run as often as wanted; `sent` are the prompts that the last run asked for."""

    def __init__(self, folder: Path, sandbox: Sandbox) -> None:
        self.table, self.output = folder / "in.csv", folder / "out.csv"
        self._sandbox = sandbox
        self.sent: list[str] = []
        self.code = 0
        self.err = ""

    def run(
        self, rows: Sequence[Sequence[object]], *options: object, header: Sequence[str] = ("prompt",)
    ) -> None:
        """Write the table, then run the job over it."""
        write_table(self.table, rows, header)
        before = len(self._sandbox.arrivals)
        url = self._sandbox.base_url
        ended = call("run", self.table, "-o", self.output, "--base-url", url, *options)
        self.code, self.err = ended.code, ended.err
        self.sent = sorted(arrival.prompt for arrival in self._sandbox.arrivals[before:])

    def answers(self) -> list[tuple[str, str]]:
        """(prompt, what its answer is about) of every row, in the output's order."""
        return [(row["prompt"], row["response"].partition(" to: ")[2]) for row in read_table(self.output)]


@pytest.fixture
def job(tmp_path: Path) -> object:
    """A job against a server that counts."""
    with Sandbox() as sandbox:
        yield Job(tmp_path, sandbox)


@pytest.mark.parametrize(
    ("after", "sent"),
    [
        (["new", *BEFORE], ["new"]),
        (BEFORE[:5] + BEFORE[6:], []),
        ([*BEFORE[:5], "edited", *BEFORE[6:]], ["edited"]),
        (["new", *BEFORE[:3], *BEFORE[4:8], "edited", *BEFORE[9:]], ["edited", "new"]),
        (BEFORE[::-1], []),
        ([*BEFORE, "last", "very last"], ["last", "very last"]),
        (BEFORE, []),
        (["prompt 3", *BEFORE], ["prompt 3"]),
    ],
    ids=[
        "insert",
        "delete",
        "edit",
        "insert, delete, edit",
        "reorder",
        "append",
        "same",
        "one more of a kind",
    ],
)
def test_a_changed_input_asks_only_for_what_is_new(job: Job, after: list[str], sent: list[str]) -> None:
    """Inserted, removed, edited, reordered, appended rows: every answer stays beside its own row."""
    job.run([[prompt] for prompt in BEFORE])

    job.run([[prompt] for prompt in after])

    assert (job.code, job.sent) == (0, sent)
    assert job.answers() == [(prompt, prompt) for prompt in after]


def test_equal_prompts_are_separate_rows_and_requests(job: Job) -> None:
    """Three equal rows are three requests; a fourth is one more, one less is none."""
    job.run([["same"], ["other"], ["same"], ["same"]])
    assert job.sent == ["other", "same", "same", "same"]

    job.run([["same"], ["same"], ["other"], ["same"], ["same"]])
    assert job.sent == ["same"]

    job.run([["same"], ["other"]])
    assert job.sent == []
    assert job.answers() == [("same", "same"), ("other", "other")]


def test_only_the_cells_that_are_used_make_a_row(job: Job) -> None:
    """A column that is only carried along may change; it comes out as it stands now."""
    job.run([["a", "1"], ["b", "2"]], header=("prompt", "note"))

    job.run([["a", "one"], ["b", "two"]], header=("prompt", "note"))

    assert job.sent == []
    assert [row["note"] for row in read_table(job.output)] == ["one", "two"]


def test_with_an_id_column_the_id_makes_a_row(job: Job) -> None:
    """The same prompt under another id is another row; an edited prompt under its id is sent again, once."""
    job.run([["1", "a"], ["2", "b"], ["3", "c"]], "--id-column", "id", header=("id", "prompt"))

    job.run([["3", "c"], ["9", "a"], ["2", "B"], ["1", "a"]], "--id-column", "id", header=("id", "prompt"))

    assert job.sent == ["B", "a"]
    assert job.answers() == [("c", "c"), ("a", "a"), ("B", "B"), ("a", "a")]
    job.run([["3", "c"], ["9", "a"], ["2", "B"], ["1", "a"]], "--id-column", "id", header=("id", "prompt"))
    assert job.sent == []


def test_ids_that_stand_twice_are_refused_and_leave_nothing_behind(job: Job) -> None:
    """Exit 2 with both places; no journal is made, and --overwrite twice does not lose the old one."""
    job.run([["1", "a"], ["1", "b"]], "--id-column", "id", header=("id", "prompt"))

    assert (job.code, job.sent) == (2, [])
    assert "stands already on line 2" in job.err
    assert not journal_of(job.output).exists()

    job.run([["1", "a"], ["2", "b"]], "--id-column", "id", header=("id", "prompt"))
    for _ in range(2):
        job.run([["1", "a"], ["1", "b"]], "--id-column", "id", "--overwrite", header=("id", "prompt"))
        assert job.code == 2
    assert query(journal_of(job.output), "SELECT count(*) FROM results") == [(2,)]


def test_results_of_rows_that_vanished_stay_and_come_back(job: Job) -> None:
    """A row that is taken out and put back later is not paid again."""
    job.run([["a"], ["b"], ["c"]])
    job.run([["a"], ["c"]])
    job.run([["b"], ["a"], ["c"]])

    assert job.sent == []
    assert job.answers() == [("b", "b"), ("a", "a"), ("c", "c")]


def test_limit_and_then_all(job: Job) -> None:
    """--limit 2 answers two rows; without it the rest follow."""
    job.run([["a"], ["b"], ["c"]], "--limit", 2)
    assert (job.code, job.sent) == (0, ["a", "b"])

    job.run([["a"], ["b"], ["c"]])
    assert job.sent == ["c"]


def test_overwrite_starts_anew_and_keeps_the_old_journal(job: Job) -> None:
    """All rows are sent again; the journal before is kept for one generation."""
    job.run([["a"], ["b"]])
    job.run([["a"], ["b"]], "--overwrite")

    assert job.sent == ["a", "b"]
    old = journal_of(job.output).with_name("out.csv.journal.old")
    assert query(old, "SELECT count(*) FROM results") == [(2,)]


def test_drift_is_refused_with_every_difference(job: Job) -> None:
    """Settings that change answers differ: exit 2, all named, nothing sent, the output as it was."""
    job.run([["a"], ["b"]], "--system", "Be brief")
    before = job.output.read_bytes()

    job.run([["a"], ["b"]], "--system", "Be long", "--param", "seed=5")

    assert (job.code, job.sent) == (2, [])
    assert "system" in job.err
    assert "seed" in job.err
    assert "--on-drift keep" in job.err
    assert job.output.read_bytes() == before


def test_drift_kept_leaves_finished_rows(job: Job) -> None:
    """--on-drift keep: the rest run with the new settings; and from then on those are the job's."""
    job.run([["a"], ["b"]])

    job.run([["a"], ["b"], ["c"]], "--system", "Be brief", "--on-drift", "keep")
    assert (job.code, job.sent) == (0, ["c"])

    job.run([["a"], ["b"], ["c"], ["d"]], "--system", "Be brief")
    assert (job.code, "d" in job.sent) == (0, True)


def test_drift_resent_runs_changed_rows_again(job: Job) -> None:
    """--on-drift resend: rows whose request changed run again, all others stay."""
    rows = [["a", "mine"], ["b", ""]]
    job.run(rows, header=("prompt", "system"))

    job.run(rows, "--system", "Be brief", "--on-drift", "resend", header=("prompt", "system"))

    assert (job.code, job.sent) == (0, ["b"])
    assert statuses(job.output) == {"ok": 2}


@pytest.mark.parametrize(
    "options",
    [("--concurrency", 3), ("--rate", "500/s"), ("--timeout", 9), ("--max-attempts", 2), ("--grace", 1)],
)
def test_settings_that_change_no_answer_may_change_freely(job: Job, options: tuple[object, ...]) -> None:
    """Rate, concurrency, timeouts, attempts are no drift."""
    job.run([["a"], ["b"]])

    job.run([["a"], ["b"], ["c"]], *options)

    assert (job.code, job.sent) == (0, ["c"])


def test_another_output_is_another_job_and_says_so(job: Job, tmp_path: Path) -> None:
    """The same input under another -o runs anew, and names the answers that are there already."""
    job.run([["a"], ["b"]])
    job.output = tmp_path / "other.csv"

    job.run([["a"], ["b"]])

    assert job.sent == ["a", "b"]
    assert "already holds answers to this input" in job.err
    assert "websim-batch export" in job.err


def test_a_sandbox_job_and_a_real_one_do_not_mix(job: Job, tmp_path: Path) -> None:
    """The journal of a rehearsal refuses a real run, and the other way round."""
    job.run([["a"]])

    refused = run(tmp_path, "run", "in.csv", "-o", "out.csv", "--sandbox")
    assert (refused.code, "real answers" in refused.err) == (2, True)

    assert run(tmp_path, "run", "in.csv", "-o", "sand.csv", "--sandbox", "-q").code == 0
    job.output = tmp_path / "sand.csv"
    job.run([["a"]])
    assert (job.code, job.sent) == (2, [])
    assert "answers of the sandbox" in job.err


COUNT_ONLY = """
import psutil
from websim_batch.journal import Identity
process = psutil.Process()
def grown(most, before=process.memory_info().rss):
    return max(most, process.memory_info().rss - before)
most = 0
with Identity() as identity:
    for start in range(0, 1_000_000, 4000):
        identity.add_batch([(i % 900_000).to_bytes(16, "big") for i in range(start, start + 4000)])
        most = grown(most)
    identity.settle()
    placed = 0
    for _ in identity.place():
        placed += 1
        most = grown(most) if not placed % 50_000 else most
print(placed, most)
raise SystemExit(0)
"""


def test_a_million_rows_are_told_apart_without_holding_their_keys(tmp_path: Path) -> None:
    """1,000,000 keys of 16 bytes, 100,000 of them repeated, in less than 20 MB: as Python objects they take 50."""
    ended = run(tmp_path, prelude=COUNT_ONLY)
    placed, grown = map(int, ended.out.split())

    assert placed == 1_000_000
    assert grown < 20e6
