"""Who each row is: occurrences of equal rows, and each row's place in a journal, whatever happened to the input."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from websim_batch.journal import (
    Identity,
    Journal,
    Placed,
    identity,
    occurrence_key,
    occurrences,
    open_journal,
    sql,
)


def named(*names: str) -> list[bytes]:
    """Identities that are readable in a failure."""
    return [name.encode().ljust(16, b".") for name in names]


@contextmanager
def settled(keys: Sequence[bytes], journal: Journal | None = None, batch: int = 256) -> Iterator[Identity]:
    """The identity of an input with these rows."""
    with Identity(journal) as found:
        for start in range(0, len(keys), batch):
            found.add_batch(keys[start : start + batch])
        found.settle()
        yield found


def place(keys: Sequence[bytes], journal: Journal | None = None) -> list[Placed]:
    """Where an input with these rows stands."""
    with settled(keys, journal) as found:
        return list(found.place())


def note(journal: Journal, placed: Sequence[Placed]) -> None:
    """Note these rows in the journal, as their first intents do."""
    sql.ROWS.store(journal._db, [(row.row_id, row.key, None) for row in placed])


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """An empty journal."""
    with open_journal(tmp_path / "j") as journal:
        yield journal


def row_ids(placed: Sequence[Placed]) -> list[int]:
    """The rows' numbers in the journal."""
    return [row.row_id for row in placed]


def new_ones(placed: Sequence[Placed]) -> list[int]:
    """Positions of the rows that the journal does not know."""
    return [position for position, row in enumerate(placed) if row.is_new]


# -- occurrences -----------------------------------------------------------------------------------------------


def test_first_of_equal_rows_keeps_its_identity_and_later_ones_differ() -> None:
    """Equal rows are separate rows: the k-th has the key of its identity and k, wherever it stands."""
    a, b = named("a", "b")

    found = place([a, b, a, a, b])

    assert [row.key for row in found] == [
        a, b, occurrence_key(a, 1), occurrence_key(a, 2), occurrence_key(b, 1),
    ]  # fmt: skip
    assert len({row.key for row in found}) == 5


def test_rows_without_a_journal_are_new_and_numbered_by_position() -> None:
    """`check` can place rows where no run has been."""
    a, b = named("a", "b")

    assert place([a, b]) == [Placed(0, a, True), Placed(1, b, True)]
    assert place([]) == []


def test_duplicates_are_told_with_the_first_of_their_kind() -> None:
    """For an id column: which rows repeat an id, and where it stood first; as many as wanted."""
    with settled(named("x", "a", "y", "a", "x", "a")) as found:
        assert found.duplicates() == [(3, 1), (4, 0), (5, 1)]
        assert found.duplicates(2) == [(3, 1), (4, 0)]
    with settled(named("x", "y")) as found:
        assert found.duplicates() == []


def test_placing_can_begin_anywhere() -> None:
    """`place(start)` goes on where an earlier reader stopped, across chunks."""
    keys = [number.to_bytes(16, "big") for number in range(identity.CHUNK * 2 + 5)]

    with settled(keys, batch=100) as found:
        whole = list(found.place())
        assert list(found.place(identity.CHUNK + 3)) == whole[identity.CHUNK + 3 :]
        assert list(found.place(len(keys))) == []
    assert [row.key for row in whole] == keys


@settings(max_examples=150, deadline=None)
@given(keys=st.lists(st.sampled_from(named(*"abcdefghijkl")), max_size=60), batch=st.integers(1, 20))
def test_equal_rows_are_told_apart_wherever_they_stand(keys: list[bytes], batch: int) -> None:
    """Across batches, chunks, and what was moved to the disk in between: keys, and the first of each kind."""
    seen: dict[bytes, list[int]] = {}
    expected = []
    for position, key in enumerate(keys):
        expected.append(occurrence_key(key, len(seen.setdefault(key, []))))
        seen[key].append(position)
    later = sorted((position, first) for first, *others in seen.values() for position in others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identity, "CHUNK", 7)
        patch.setattr(occurrences, "_MOST_IN_MEMORY", 16)
        with settled(keys, batch=batch) as found:
            assert [row.key for row in found.place()] == expected
            assert [row.row_id for row in found.place(5)] == list(range(5, len(keys)))
            assert found.duplicates(100) == later


# -- the journal -----------------------------------------------------------------------------------------------


def test_unchanged_input_stands_in_place_without_look_ups(journal: Journal) -> None:
    """The usual resume: each row has the number of its position, and no index over keys is built."""
    keys = named("a", "b", "a", "c")
    note(journal, place(keys, journal)[:3])

    with settled(keys, journal) as found:
        again = list(found.place())
        assert found._db.execute("SELECT count(*) FROM placed").fetchone() == (0,)

    assert row_ids(again) == [0, 1, 2, 3]
    assert new_ones(again) == [3]


BEFORE = named("a", "b", "b", "c", "d")


@pytest.mark.parametrize(
    ("after", "ids", "new"),
    [
        (named("new", "a", "b", "b", "c", "d"), [5, 0, 1, 2, 3, 4], [0]),  # inserted at the top
        (named("b", "b", "c", "d"), [1, 2, 3, 4], []),  # the first one deleted
        (named("a", "b", "c", "d"), [0, 1, 3, 4], []),  # one of two equal ones deleted
        (named("a", "b", "b", "edited", "d"), [0, 1, 2, 5, 4], [3]),
        (named("d", "c", "b", "a", "b"), [4, 3, 1, 0, 2], []),  # reordered
        (named("a", "b", "b", "c", "d", "e", "b"), [0, 1, 2, 3, 4, 5, 6], [5, 6]),  # appended
        (named("a", "b"), [0, 1], []),  # only the first ones
        (named("x", "y"), [5, 6], [0, 1]),  # another table altogether
        (named("b", "x", "a", "x"), [1, 5, 0, 6], [1, 3]),
        ([], [], []),
    ],
)
def test_rows_are_known_again_whatever_happened_around_them(
    after: list[bytes], ids: list[int], new: list[int], journal: Journal
) -> None:
    """Rows keep their numbers when others are inserted, removed, edited, reordered; new ones come past the highest."""
    note(journal, place(BEFORE, journal))

    found = place(after, journal)

    assert row_ids(found) == ids
    assert new_ones(found) == new


def test_known_row_that_moved_to_where_nobody_is_known_is_found(journal: Journal) -> None:
    """A run that died early knows few rows; one of them, moved up to an unknown place, is not sent again."""
    first = place(named("a", "b", "c", "d", "e", "f"), journal)
    note(journal, [first[0], first[1], first[5]])

    found = place(named("a", "b", "f", "x"), journal)

    assert row_ids(found) == [0, 1, 5, 6]
    assert new_ones(found) == [3]


def test_rows_sent_since_are_no_longer_new(journal: Journal) -> None:
    """A second look sees what was noted after the first one."""
    keys = named("a", "b")
    with settled(keys, journal) as found:
        assert new_ones(list(found.place())) == [0, 1]
        note(journal, list(found.place())[:1])
        assert new_ones(list(found.place())) == [1]


inputs = st.lists(st.sampled_from(named(*"abcdef")), max_size=12)


@pytest.fixture(scope="module")
def reused(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Journal]:
    """A journal for many examples, each of which empties it first."""
    with open_journal(tmp_path_factory.mktemp("identity") / "j") as journal:
        yield journal


@settings(max_examples=150, deadline=None)
@given(before=inputs, after=inputs, noted=st.sets(st.integers(0, 11)), last=inputs)
def test_no_row_lost_none_doubled(
    reused: Journal, before: list[bytes], after: list[bytes], noted: set[int], last: list[bytes]
) -> None:
    """Whatever three versions of the input follow one another, numbers are unique and a known key keeps its own."""
    reused._db.execute("DELETE FROM rows")
    known: dict[bytes, int] = {}
    for version, keys in enumerate((before, after, last)):
        found = place(keys, reused)

        assert len({row.row_id for row in found}) == len(found) == len(keys)
        for row in found:
            assert row.is_new == (row.key not in known)
            assert row.row_id == known.get(row.key, row.row_id)
            assert not row.is_new or row.row_id not in known.values()

        sent = [row for position, row in enumerate(found) if version or position in noted]
        note(reused, sent)
        known |= {row.key: row.row_id for row in sent}


# -- memory and files ------------------------------------------------------------------------------------------

GROWTH = """
import os, resource, sys
from hashlib import blake2b
from pathlib import Path
from websim_batch.journal import Identity, open_journal

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "linux" else 1 << 20)

def place(rows):
    with Identity(journal) as identity:
        for start in range(0, rows, 250):
            numbers = range(start, start + 250)
            # Every tenth row equals another one.
            identity.add_batch([blake2b(b"%d" % (n - n % 10 // 9), digest_size=16).digest() for n in numbers])
        identity.settle()
        assert sum(1 for _ in identity.place()) == rows
        return os.listdir(os.environ["SQLITE_TMPDIR"])

with open_journal(Path(sys.argv[1])) as journal:
    names = place(10_000)
    before = peak()
    names += place(200_000)
    print(peak() - before, names)
"""


def test_memory_does_not_grow_with_the_rows_and_no_file_has_a_name(tmp_path: Path) -> None:
    """200,000 rows take the memory of 10,000; what is on the disk meanwhile is gone with the process."""
    (tmp_path / "tmp").mkdir()
    child = subprocess.run(
        [sys.executable, "-c", GROWTH, str(tmp_path / "j")],
        env={**os.environ, "SQLITE_TMPDIR": str(tmp_path / "tmp")},
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )  # fmt: skip
    growth_mb, names = child.stdout.split(maxsplit=1)

    assert int(growth_mb) < 6
    assert names.strip() == "[]"
