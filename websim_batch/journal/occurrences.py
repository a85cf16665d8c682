"""Finds equal keys among any number of rows in flat memory.

Keys are dealt into buckets by their hash; equal ones meet in the same bucket, and each bucket is looked through
alone. What does not fit in memory lies in the caller's private database.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterator, Sequence
from hashlib import blake2b

KEY_BYTES = 16

_BUCKETS = 256
_MOST_IN_MEMORY = 1 << 16


def occurrence_key(identity: bytes, occurrence: int) -> bytes:
    """The key of a row: its identity for the first of equal rows, a hash with the count for later ones."""
    if not occurrence:
        return identity
    return blake2b(identity + occurrence.to_bytes(8, "big"), digest_size=KEY_BYTES).digest()


def split_keys(joined: bytes) -> list[bytes]:
    """Keys that stand one behind the other."""
    return [joined[at : at + KEY_BYTES] for at in range(0, len(joined), KEY_BYTES)]


class Occurrences:
    """Keys by position, from 0; used once: all keys are added, then those that repeat are asked for."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._rows = 0
        self._spills = 0
        self._empty()
        # A bucket's parts are found by number: spill * _BUCKETS + bucket.
        db.execute("CREATE TABLE main.dealt (number INTEGER PRIMARY KEY, keys BLOB, positions BLOB)")

    def add(self, keys: Sequence[bytes]) -> None:
        """Add the keys of the next rows."""
        keys_in, positions_in = self._keys, self._positions
        for position, key in enumerate(keys, self._rows):
            bucket = hash(key) % _BUCKETS
            keys_in[bucket] += key
            positions_in[bucket].append(position)
        self._rows += len(keys)
        if self._rows - self._spills * _MOST_IN_MEMORY >= _MOST_IN_MEMORY:
            self._spill()

    def later_ones(self) -> Iterator[tuple[int, bytes, int]]:
        """(position, key of its own, position of the first) of every row that equals an earlier one."""
        self._spill()
        for bucket in range(_BUCKETS):
            if self._has_equals(bucket):
                yield from self._later_ones(bucket)
        self._db.execute("DROP TABLE dealt")

    def _empty(self) -> None:
        self._keys = [bytearray() for _ in range(_BUCKETS)]
        self._positions = [array("q") for _ in range(_BUCKETS)]

    def _spill(self) -> None:
        parts = zip(self._keys, map(array.tobytes, self._positions), strict=True)
        numbered = enumerate(parts, self._spills * _BUCKETS)
        self._db.executemany("INSERT INTO dealt VALUES (?, ?, ?)", ((n, *part) for n, part in numbered))
        self._spills += 1
        self._empty()

    def _parts(self, bucket: int) -> Iterator[tuple[list[bytes], array[int]]]:
        """The bucket's keys and positions, in the order in which they were added."""
        query = "SELECT keys, positions FROM dealt WHERE number = ?"
        for spill in range(self._spills):
            keys, positions = self._db.execute(query, (spill * _BUCKETS + bucket,)).fetchone()
            yield split_keys(keys), array("q", positions)

    def _has_equals(self, bucket: int) -> bool:
        seen: set[bytes] = set()
        count = 0
        for keys, _ in self._parts(bucket):
            seen.update(keys)
            count += len(keys)
        return len(seen) < count

    def _later_ones(self, bucket: int) -> Iterator[tuple[int, bytes, int]]:
        seen: dict[bytes, tuple[int, int]] = {}
        for keys, positions in self._parts(bucket):
            for key, position in zip(keys, positions, strict=True):
                first, occurrence = seen.get(key, (position, 0))
                seen[key] = first, occurrence + 1
                if occurrence:
                    yield position, occurrence_key(key, occurrence), first
