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
from itertools import chain, repeat
from pathlib import Path
from types import TracebackType

from websim_batch.journal.faults import plain_words
from websim_batch.journal.occurrences import KEY_BYTES, Occurrences, split_keys
from websim_batch.journal.opening import reading_uri
from websim_batch.journal.reading import Placed
from websim_batch.journal.store import Journal

CHUNK = 4096
"""So many keys lie together and are placed at once."""

_new_placed = partial(tuple.__new__, Placed)


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
        for table in (
            "chunks (chunk INTEGER PRIMARY KEY, keys BLOB)",
            "again (position INTEGER PRIMARY KEY, key BLOB, first INTEGER)",
            "placed (position INTEGER PRIMARY KEY, row_id INTEGER, is_new INTEGER)",
        ):
            self._db.execute("CREATE TABLE main." + table)
        self._occurrences = Occurrences(self._db)
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
        """Add the identities of the next rows, 16 bytes each."""
        self.rows += len(keys)
        with plain_words(self._path):
            self._occurrences.add(keys)
            self._waiting += keys
            while len(self._waiting) >= CHUNK:
                self._put_chunk()

    def settle(self) -> None:
        """Count occurrences and find every row's place; once, after the last batch."""
        with plain_words(self._path):
            self._put_chunk()
            # The second and later ones of equal rows get keys of their own.
            self._db.executemany("INSERT INTO again VALUES (?, ?, ?)", self._occurrences.later_ones())
            for (chunk,) in self._db.execute(f"SELECT DISTINCT position / {CHUNK} FROM again").fetchall():
                self._put_own_keys(chunk)
            self._db.execute("COMMIT")
            self._is_in_place = self._fits_in_place()
            if not self._is_in_place:
                self._match_by_key()

    def duplicates(self, most: int = 20) -> list[tuple[int, int]]:
        """The first rows that equal an earlier one: (position, position of the first), counted from 0."""
        query = f"SELECT position, first FROM again ORDER BY position LIMIT {int(most)}"
        return list(self._db.execute(query))

    def place(self, start: int = 0) -> Iterator[Placed]:
        """Each row's place in input order, from position `start` on."""
        read = self._in_place if self._is_in_place else self._by_key
        for low in range(start, self.rows, CHUNK):
            with plain_words(self._path):
                lines = read(low, min(low + CHUNK, self.rows))
            yield from map(_new_placed, lines)

    def _in_place(self, low: int, high: int) -> Iterable[tuple[int, bytes, bool]]:
        """Rows whose number in the journal is their position."""
        about, ends = "FROM journal.rows WHERE row_id BETWEEN ? AND ?", (low, high - 1)
        known = self._db.execute(f"SELECT count(*) {about}", ends).fetchone()[0]
        # Nearly always none of them is known yet, or all are.
        are_new: Iterable[bool] = repeat(not known, high - low)
        if 0 < known < high - low:
            some = {row_id for (row_id,) in self._db.execute(f"SELECT row_id {about}", ends)}
            are_new = [row_id not in some for row_id in range(low, high)]
        return zip(range(low, high), self._keys(low, high), are_new, strict=True)

    def _by_key(self, low: int, high: int) -> Iterable[tuple[int, bytes, bool]]:
        """Rows that were found by their keys."""
        query = "SELECT row_id, is_new FROM placed WHERE position BETWEEN ? AND ?"
        found = self._db.execute(query, (low, high - 1)).fetchall()
        keys = self._keys(low, high)
        return ((row_id, key, is_new) for (row_id, is_new), key in zip(found, keys, strict=True))

    def _put_chunk(self) -> None:
        """Write the keys that wait, as many as lie together."""
        self._db.execute("INSERT INTO chunks (keys) VALUES (?)", (b"".join(self._waiting[:CHUNK]),))
        del self._waiting[:CHUNK]

    def _put_own_keys(self, chunk: int) -> None:
        """Put the keys that equal rows have of their own in the place of their identities."""
        keys = bytearray(self._chunk(chunk))
        query = "SELECT position, key FROM again WHERE position BETWEEN ? AND ?"
        for position, key in self._db.execute(query, (chunk * CHUNK, chunk * CHUNK + CHUNK - 1)):
            at = position % CHUNK * KEY_BYTES
            keys[at : at + KEY_BYTES] = key
        self._db.execute("UPDATE chunks SET keys = ? WHERE chunk = ?", (keys, chunk + 1))

    def _chunk(self, chunk: int) -> bytes:
        # SQLite numbers them from 1.
        found: bytes = self._db.execute("SELECT keys FROM chunks WHERE chunk = ?", (chunk + 1,)).fetchone()[0]
        return found

    def _keys(self, low: int, high: int) -> list[bytes]:
        """The keys of the rows from position `low` up to `high`."""
        first, last = low // CHUNK, (high - 1) // CHUNK
        joined = b"".join(map(self._chunk, range(first, last + 1)))
        start = first * CHUNK
        return split_keys(joined[(low - start) * KEY_BYTES : (high - start) * KEY_BYTES])

    def _chunks(self) -> Iterator[tuple[int, list[bytes]]]:
        """All keys, with the position of the first of them, some at a time."""
        for low in range(0, self.rows, CHUNK):
            yield low, self._keys(low, min(low + CHUNK, self.rows))

    def _attach(self, journal: Journal | None) -> None:
        if journal is None:
            self._db.execute("ATTACH ':memory:' AS journal")
            self._db.execute("CREATE TABLE journal.rows (row_id INTEGER PRIMARY KEY, key BLOB)")
        else:
            with plain_words(journal.path):
                self._db.execute("ATTACH ? AS journal", (reading_uri(journal.path),))

    def _fits_in_place(self) -> bool:
        """Whether each row the journal knows stands in the input where its number says."""
        query = "SELECT row_id, key FROM journal.rows WHERE row_id BETWEEN ? AND ?"
        for low, keys in self._chunks():
            known = self._db.execute(query, (low, low + len(keys) - 1))
            if any(keys[row_id - low] != key for row_id, key in known):
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
        db.execute("CREATE TABLE main.keys (position INTEGER PRIMARY KEY, key BLOB)")
        every = chain.from_iterable(enumerate(keys, low) for low, keys in self._chunks())
        db.executemany("INSERT INTO keys VALUES (?, ?)", every)
        highest = db.execute("SELECT max(row_id) FROM journal.rows").fetchone()[0]
        db.execute(
            "INSERT INTO placed SELECT position, coalesce(row_id, ? + sum(row_id IS NULL) OVER "
            "(ORDER BY position ROWS UNBOUNDED PRECEDING)), row_id IS NULL "
            "FROM keys LEFT JOIN known USING (key) ORDER BY position",
            (highest,),
        )
        db.execute("DROP TABLE known")
        db.execute("DROP TABLE keys")
