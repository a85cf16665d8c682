"""Who each input row is, in flat memory: keys, occurrences of equal rows, and their places in the journal.

    add_batch   the pre-pass hands in each row's identity, in input order
    settle      the k-th row among equal ones gets a key of its own; every key is looked for in the journal
    place       (row_id, key, is_new) of each row, in input order

All of it lies in a private SQLite file that has no name, so that nothing is left over after a kill. It stands
where SQLite keeps its temporary files: SQLITE_TMPDIR, TMPDIR, /var/tmp, /tmp. That is a local disk as a rule;
the output's folder need not be one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from hashlib import blake2b
from itertools import repeat
from operator import itemgetter
from pathlib import Path
from types import TracebackType

from websim_batch.journal.faults import plain_words
from websim_batch.journal.opening import reading_uri
from websim_batch.journal.reading import Placed
from websim_batch.journal.store import Journal

CHUNK = 4096
_INSERT_SIZE = 256
_INSERT = "INSERT INTO keys (key) VALUES " + ", ".join(["(?)"] * _INSERT_SIZE)

_first = itemgetter(0)
_new_placed = partial(tuple.__new__, Placed)


def occurrence_key(identity: bytes, occurrence: int) -> bytes:
    """The key of a row: its identity for the first of equal rows, a hash with the count for later ones."""
    if not occurrence:
        return identity
    return blake2b(identity + occurrence.to_bytes(8, "big"), digest_size=16).digest()


class Identity:
    """Places input rows in a journal; without one, every row is new. Used by one thread at a time."""

    def __init__(self, journal: Journal | None = None) -> None:
        self._waiting: list[bytes] = []
        self._is_in_place = True
        self.rows = 0
        """How many identities were added."""
        self._path = Path("the temporary files (SQLITE_TMPDIR names another folder for them)")
        self._db = sqlite3.connect("", uri=True, isolation_level=None, check_same_thread=False)
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "secure_delete = OFF", "temp_store = FILE"):
            self._db.execute(f"PRAGMA {pragma}")
        self._attach(journal)
        # Positions count from 1 here: SQLite then appends by itself.
        for table in (
            "keys (%s, key BLOB)",
            "again (%s, key BLOB, first INTEGER)",
            "placed (%s, row_id INTEGER, is_new INTEGER)",
        ):
            self._db.execute("CREATE TABLE main." + table % "position INTEGER PRIMARY KEY")
        self._db.execute("BEGIN")

    def __enter__(self) -> Identity:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the private file."""
        self._db.close()

    def add_batch(self, keys: Sequence[bytes]) -> None:
        """Add the identities of the next rows."""
        self.rows += len(keys)
        waiting = self._waiting
        waiting += keys
        if len(waiting) >= _INSERT_SIZE:
            with plain_words(self._path):
                for start in range(0, len(waiting) - _INSERT_SIZE + 1, _INSERT_SIZE):
                    self._db.execute(_INSERT, waiting[start : start + _INSERT_SIZE])
            del waiting[: len(waiting) // _INSERT_SIZE * _INSERT_SIZE]

    def settle(self) -> None:
        """Count occurrences and find every row's place; once, after the last batch."""
        with plain_words(self._path):
            self._db.executemany("INSERT INTO keys (key) VALUES (?)", [(key,) for key in self._waiting])
            self._waiting.clear()
            self._count_occurrences()
            self._db.execute("COMMIT")
            self._is_in_place = self._fits_in_place()
            if not self._is_in_place:
                self._match_by_key()

    def duplicates(self, most: int = 20) -> list[tuple[int, int]]:
        """The first rows that equal an earlier one: (position, position of the first), counted from 0."""
        query = f"SELECT position - 1, first - 1 FROM again ORDER BY position LIMIT {int(most)}"
        return list(self._db.execute(query))

    def place(self, start: int = 0) -> Iterator[Placed]:
        """Each row's place in input order, from position `start` on."""
        read = self._in_place if self._is_in_place else self._by_key
        for low in range(start + 1, self.rows + 1, CHUNK):
            with plain_words(self._path):
                lines = read(low, min(low + CHUNK - 1, self.rows))
            yield from map(_new_placed, lines)

    def _in_place(self, low: int, high: int) -> Iterable[tuple[int, bytes, bool]]:
        """Rows whose number in the journal is their position."""
        keys = self._db.execute("SELECT key FROM keys WHERE position BETWEEN ? AND ?", (low, high)).fetchall()
        row_ids = range(low - 1, high)
        about, ends = "FROM journal.rows WHERE row_id BETWEEN ? AND ?", (low - 1, high - 1)
        known = self._db.execute(f"SELECT count(*) {about}", ends).fetchone()[0]
        # Nearly always none of them is known yet, or all are.
        are_new: Iterable[bool] = repeat(not known)
        if 0 < known < len(keys):
            some = {row_id for (row_id,) in self._db.execute(f"SELECT row_id {about}", ends)}
            are_new = [row_id not in some for row_id in row_ids]
        return zip(row_ids, map(_first, keys), are_new, strict=False)  # `repeat` has no end

    def _by_key(self, low: int, high: int) -> Iterable[tuple[int, bytes, bool]]:
        """Rows that were found by their keys."""
        query = (
            "SELECT p.row_id, k.key, p.is_new FROM keys AS k JOIN placed AS p USING (position) "
            "WHERE k.position BETWEEN ? AND ?"
        )
        return self._db.execute(query, (low, high)).fetchall()

    def _attach(self, journal: Journal | None) -> None:
        if journal is None:
            self._db.execute("ATTACH ':memory:' AS journal")
            self._db.execute("CREATE TABLE journal.rows (row_id INTEGER PRIMARY KEY, key BLOB)")
        else:
            with plain_words(journal.path):
                self._db.execute("ATTACH ? AS journal", (reading_uri(journal.path),))

    def _count_occurrences(self) -> None:
        """Give the second and later ones of equal rows keys of their own. SQLite sorts on disk."""
        db = self._db
        db.execute("CREATE TABLE main.repeated (key BLOB PRIMARY KEY) WITHOUT ROWID")
        db.execute("INSERT INTO repeated SELECT key FROM keys GROUP BY key HAVING count(*) > 1")
        if db.execute("SELECT NOT EXISTS (SELECT * FROM repeated)").fetchone()[0]:
            return
        db.execute("CREATE TABLE main.found (position INTEGER, key BLOB, first INTEGER)")
        equal = db.execute(
            "SELECT key, position FROM keys WHERE key IN (SELECT key FROM repeated) ORDER BY key, position"
        )
        db.executemany("INSERT INTO found VALUES (?, ?, ?)", _later_ones(equal))
        db.execute("INSERT INTO again SELECT position, key, first FROM found ORDER BY position")
        db.execute("INSERT OR REPLACE INTO keys SELECT position, key FROM again ORDER BY position")
        db.execute("DROP TABLE found")
        db.execute("DROP TABLE repeated")

    def _fits_in_place(self) -> bool:
        """Whether each row the journal knows stands in the input where its number says."""
        strangers = (
            "SELECT EXISTS (SELECT * FROM journal.rows AS r JOIN keys AS k ON k.position = r.row_id + 1 "
            "WHERE k.key <> r.key)"
        )
        if self._db.execute(strangers).fetchone()[0]:
            return False
        inside = "SELECT count(*) FROM journal.rows WHERE row_id < ?"
        beyond = "SELECT EXISTS (SELECT * FROM journal.rows WHERE row_id >= ?)"
        if not self._db.execute(beyond, (self.rows,)).fetchone()[0]:
            return True
        # Known rows left the input. They may have moved to where the journal knows nobody.
        return bool(self._db.execute(inside, (self.rows,)).fetchone()[0] == self.rows)

    def _match_by_key(self) -> None:
        """Find rows by their keys; new ones are numbered past the highest, in input order."""
        db = self._db
        db.execute("CREATE TABLE main.known (key BLOB PRIMARY KEY, row_id INTEGER NOT NULL) WITHOUT ROWID")
        db.execute("INSERT INTO known SELECT key, row_id FROM journal.rows ORDER BY key")
        highest = db.execute("SELECT max(row_id) FROM journal.rows").fetchone()[0]
        db.execute(
            "INSERT INTO placed SELECT position, coalesce(row_id, ? + sum(row_id IS NULL) OVER "
            "(ORDER BY position ROWS UNBOUNDED PRECEDING)), row_id IS NULL "
            "FROM keys LEFT JOIN known USING (key) ORDER BY position",
            (highest,),
        )
        db.execute("DROP TABLE known")


def _later_ones(equal: Iterator[tuple[bytes, int]]) -> Iterator[tuple[int, bytes, int]]:
    """(position, key, first position) of every row but the first of its kind; `equal` is sorted."""
    before, first, occurrence = b"", 0, 0
    for identity, position in equal:
        if identity != before:
            before, first, occurrence = identity, position, 0
            continue
        occurrence += 1
        yield position, occurrence_key(identity, occurrence), first
