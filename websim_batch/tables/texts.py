"""Text inputs: decoding, and what to say when the bytes are not what they were taken for."""

from __future__ import annotations

import codecs
import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple, cast

from websim_batch.tables.base import ProblemList
from websim_batch.tables.files import BUFFER_BYTES, CountedReader, DamagedError, InputFile, UnpackedReader

_BOMS = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_BOM_NAMES = ("utf-32", "utf-32", "utf-16", "utf-16")

_OTHER_KINDS = (
    (b"PAR1", "is a Parquet file; give it the ending .parquet"),
    (b"PK\x03\x04", "is a zip or spreadsheet file; save it as CSV (UTF-8)"),
    (b"\x1f\x8b", "is compressed with gzip; add .gz to its name"),
    (b"\x28\xb5\x2f\xfd", "is compressed with zstd; add .zst to its name"),
    (b"SQLite format 3", "is an SQLite database; export the table as CSV"),
)

_COMMON_ENCODINGS = [
    "cp1252", "cp1251", "cp1250", "cp1253", "cp1254", "cp1255", "cp1256", "koi8_r", "cp866", "mac_cyrillic",
    "shift_jis", "cp932", "euc_jp", "gb18030", "big5", "euc_kr", "cp949", "utf_16_le", "utf_16_be", "latin_1",
]  # fmt: skip

_LATIN_ENCODINGS = ("cp1250", "cp1252", "cp1254", "latin_1")

_SAMPLE_BYTES = 1 << 18


class TextInput:
    """A text file to read several times with one encoding."""

    def __init__(self, file: InputFile, encoding: str | None) -> None:
        self.file = file
        plain = codecs.lookup(encoding or "utf-8").name
        self.encoding = "utf-8-sig" if plain == "utf-8" else plain

    @contextmanager
    def open(self, newline: str) -> Iterator[tuple[io.TextIOWrapper, CountedReader | UnpackedReader]]:
        """The text from its start without a byte order mark; the reader below counts bytes."""
        binary, raw = self.file.open()
        _skip_mark(binary, self.encoding)
        with io.TextIOWrapper(binary, encoding=self.encoding, newline=newline) as text:
            yield text, raw

    def foreign_content(self, problems: ProblemList) -> bool:
        """Whether the first bytes belong to another kind of file altogether; then the problem is noted."""
        head = self.file.head(4096)
        for magic, message in _OTHER_KINDS:
            if head.startswith(magic):
                problems.add("encoding", message)
                return True
        if self.encoding == "utf-8-sig" and (name := _wide_encoding(head)):
            problems.add("encoding", f"the text is {name.upper()}; add --encoding {name}")
            return True
        return False

    def explain(self, problems: ProblemList) -> None:
        """Note where the first undecodable byte stands, and which encoding reads the file."""
        with self.file.open()[0] as binary:
            found = _first_bad_byte(binary, self.encoding)
        if found is None:
            return
        name = "UTF-8" if self.encoding == "utf-8-sig" else self.encoding
        if found.is_cut:
            message = f"the file ends in the middle of a {name} character; copy or make it again"
        else:
            guess = _guess_encoding(found.around)
            remedy = f"--encoding {guess} reads it" if guess else "save the file as UTF-8"
            message = f"the byte 0x{found.byte:02x} is not {name}; {remedy}"
        problems.add("encoding", message, line=found.line)


def reading_errors(read: Callable[[], None], text: TextInput, problems: ProblemList) -> None:
    """Run `read`; what the bytes did wrong becomes a problem."""
    try:
        read()
    except UnicodeError:
        text.explain(problems)
    except DamagedError as exc:
        problems.add("compression", f"{exc}; copy or make the file again")


def _skip_mark(binary: BinaryIO, encoding: str) -> None:
    """Leave out a byte order mark that the codec itself keeps (`utf-16-le` and the like)."""
    if encoding.startswith(("utf-16-", "utf-32-")):
        mark = "\ufeff".encode(encoding)
        if cast(io.BufferedReader, binary).peek(len(mark)).startswith(mark):
            binary.read(len(mark))


def _wide_encoding(head: bytes) -> str | None:
    """UTF-16 or UTF-32, told by its mark or by a zero in nearly every second byte."""
    for mark, name in zip(_BOMS, _BOM_NAMES, strict=True):
        if head.startswith(mark):
            return name
    half = len(head) // 2
    if half >= 2 and head[1::2].count(0) > half * 0.6 and head[::2].count(0) < half * 0.2:
        return "utf-16-le"
    if half >= 2 and head[::2].count(0) > half * 0.6 and head[1::2].count(0) < half * 0.2:
        return "utf-16-be"
    return None


class _BadByte(NamedTuple):
    line: int
    byte: int
    around: bytes
    is_cut: bool = False


def _first_bad_byte(binary: BinaryIO, encoding: str) -> _BadByte | None:
    """The first byte that `encoding` cannot read, its line and its surroundings."""
    decoder = codecs.getincrementaldecoder(encoding)()
    line = 1
    before = b""
    while chunk := binary.read(BUFFER_BYTES):
        try:
            line += decoder.decode(chunk).count("\n")
        except UnicodeDecodeError as exc:
            line += exc.object[: exc.start].count(b"\n")
            around = before[-_SAMPLE_BYTES:] + chunk + binary.read(_SAMPLE_BYTES)
            return _BadByte(line, exc.object[exc.start], around)
        before = chunk
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as exc:
        return _BadByte(line, exc.object[exc.start], before, is_cut=True)
    return None


def _guess_encoding(sample: bytes) -> str | None:
    """The likeliest encoding of `sample`, one that decodes all of it."""
    from charset_normalizer import from_bytes  # costs 30 ms: only once something is wrong

    best = from_bytes(sample, cp_isolation=_COMMON_ENCODINGS).best()
    if best is None or (best.encoding in _LATIN_ENCODINGS and not best.coherence):
        name = "cp1252"  # too short a text to tell the Latin ones apart: the commonest
    else:
        text = str(best)
        # Several encodings often give the same text: the commonest name is the most helpful one.
        name = next(
            (name for name in _COMMON_ENCODINGS if sample.decode(name, "replace") == text), best.encoding
        )
    try:
        sample.decode(name)
    except UnicodeDecodeError:
        return None
    return name.replace("_", "-")
