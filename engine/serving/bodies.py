"""Request bodies within bounds, and the file in a multipart one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from engine.serving.replies import RETRY, ClientGone, HttpError, Receive

_BUDGET_BODIES = 4
_LEAST_BUDGET_BYTES = 64 * 1024 * 1024


class Bodies:
    """Bodies of at most `limit` bytes each, and never more than a few such bodies held in all."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._budget = max(_LEAST_BUDGET_BYTES, _BUDGET_BODIES * limit)
        self._held = 0

    def refuse_announced(self, headers: Iterable[tuple[bytes, bytes]]) -> None:
        """Raise HttpError 413 when Content-Length says too much, 415 for an encoded body."""
        for name, value in headers:
            if name == b"content-length":
                if value.isdigit() and int(value) > self._limit:
                    raise self._too_large(close=bool(header(headers, b"expect")))
            elif name == b"content-encoding" and value.lower() != b"identity":
                raise HttpError(
                    415, "encoded_body", f"a body in {value.decode('latin-1')} is not taken", "send it as it is"
                )

    def hold(self, count: int, size: int) -> None:
        """Take in `count` bytes more of a body that has then `size`; `release` gives them back.

        Raises:
            HttpError: 413 more than the limit, 503 too many large bodies at once; the bytes count as held.
        """
        self._held += count
        if size > self._limit:
            raise self._too_large()
        if self._held > self._budget:
            raise HttpError(503, "busy", "too many large bodies at once", "try again", RETRY)

    def release(self, count: int) -> None:
        self._held -= count

    async def read(self, receive: Receive) -> bytes:
        """The whole body of an ASGI request, held until `release`.

        Raises:
            HttpError: as `hold`.
            ClientGone: the connection ended first.
        """
        parts: list[bytes] = []
        size = 0
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise ClientGone
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                self.hold(len(parts[-1]), size)
                if not message.get("more_body", False):
                    return b"".join(parts)
        except BaseException:
            self.release(size)
            raise

    def _too_large(self, *, close: bool = False) -> HttpError:
        return HttpError(
            413,
            "too_large",
            f"the body is more than {self._limit:,} bytes",
            "send a smaller file, or raise servers.max_body_bytes",
            [(b"connection", b"close")] if close else [],
        )


def header(headers: Iterable[tuple[bytes, bytes]], wanted: bytes) -> bytes:
    """The value of a header (name in lower case), or b""."""
    for name, value in headers:
        if name == wanted:
            return bytes(value)
    return b""


def multipart_file(content_type: bytes, body: bytes) -> bytes:
    """The content of the field `file`.

    Raises:
        HttpError: 422, the body is not well formed or has no such field.
    """
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser, parse_options_header

    _, options = parse_options_header(content_type)
    boundary = options.get(b"boundary")
    if not boundary:
        raise HttpError(422, "bad_multipart", "the multipart body names no boundary", "let the client set it")
    collector = _Collector(body)
    try:
        parser = MultipartParser(boundary, collector.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise HttpError(422, "bad_multipart", f"the multipart body is not well formed ({error})") from None
    if collector.found is None:
        if collector.unfinished:
            raise HttpError(422, "truncated", "the multipart body ends in the middle of its file")
        raise HttpError(422, "no_file", "the multipart body has no field 'file'", "name the field 'file'")
    return collector.found


class _Collector:
    """Callbacks of the multipart parser that keep the first field called `file`."""

    def __init__(self, body: bytes) -> None:
        self.found: bytes | None = None
        self.unfinished = False
        self._header: list[bytes] = [b"", b""]
        self._wanted = False
        self._parts: list[bytes] = []

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin,
            "on_header_begin": self._header_begin,
            "on_header_field": lambda data, start, end: self._add(0, data[start:end]),
            "on_header_value": lambda data, start, end: self._add(1, data[start:end]),
            "on_header_end": self._header_end,
            "on_part_data": lambda data, start, end: self._parts.append(data[start:end]) if self._wanted else None,
            "on_part_end": self._end,
        }

    def _begin(self) -> None:
        self._wanted, self._parts = False, []

    def _header_begin(self) -> None:
        self._header = [b"", b""]

    def _add(self, place: int, part: bytes) -> None:
        self._header[place] += part

    def _header_end(self) -> None:
        from python_multipart.multipart import parse_options_header

        if self._header[0].lower() == b"content-disposition" and self.found is None:
            _, options = parse_options_header(self._header[1])
            self._wanted = self.unfinished = options.get(b"name") == b"file"

    def _end(self) -> None:
        if self._wanted:
            self.found, self.unfinished = b"".join(self._parts), False
            self._wanted = False
