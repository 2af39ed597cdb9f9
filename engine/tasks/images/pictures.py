"""A few fixed pictures, made by hand: the quick verbs ask a slot for them and import no image library."""

from __future__ import annotations

import struct
import zlib

_SIDE = 64


def pictures() -> list[bytes]:
    """Black, a gradient and blocks, as PNG."""
    grid = range(_SIDE)
    return [
        _png(b"".join(b"\0" + bytes(3 * _SIDE) for _ in grid)),
        _png(b"".join(b"\0" + b"".join(bytes((4 * x, 4 * y, 2 * (x + y))) for x in grid) for y in grid)),
        _png(b"".join(b"\0" + b"".join(bytes(((x ^ y) * 4, x & 32 and 255, y & 16 and 255)) for x in grid) for y in grid)),
    ]  # fmt: skip


def _png(rows: bytes) -> bytes:
    def chunk(name: bytes, content: bytes) -> bytes:
        checked = name + content
        return struct.pack(">I", len(content)) + checked + struct.pack(">I", zlib.crc32(checked))

    header = struct.pack(">IIBBBBB", _SIDE, _SIDE, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    )
