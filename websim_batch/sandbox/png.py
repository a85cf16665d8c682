"""Small real PNG pictures, made with the standard library."""

from __future__ import annotations

import math
import struct
import zlib

MAX_SIDE = 2048
_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PALETTE_COLOURS = 2


def picture(seed: bytes, width: int, height: int) -> bytes:
    """A PNG of so many pixels: a disc on a ground, both colours taken from `seed` (6 bytes or more)."""
    width, height = (max(1, min(side, MAX_SIDE)) for side in (width, height))
    header = struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)  # 8 bits a pixel, palette
    pixels = b"".join(b"\0" + _line(y, width, height) for y in range(height))
    return b"".join(
        (
            _SIGNATURE,
            _chunk(b"IHDR", header),
            _chunk(b"PLTE", seed[: 3 * _PALETTE_COLOURS]),
            _chunk(b"IDAT", zlib.compress(pixels, 1)),
            _chunk(b"IEND", b""),
        )
    )


def _line(y: int, width: int, height: int) -> bytes:
    """One line of pixels: 1 within the disc, 0 outside."""
    radius = min(width, height) * 0.4
    reach_squared = radius * radius - (y + 0.5 - height / 2) ** 2
    if reach_squared <= 0:
        return bytes(width)
    left = max(0, round(width / 2 - math.sqrt(reach_squared)))
    inside = max(0, width - 2 * left)
    return bytes(left) + b"\1" * inside + bytes(width - left - inside)


def _chunk(kind: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(kind + data)
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", checksum)
