"""The id of a request: the client's own `X-Request-Id` where it is well formed, else one made here."""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Sequence

HEADER = b"x-request-id"
_WELL_FORMED = re.compile(rb"[A-Za-z0-9._~+/=:@-]{1,128}")  # nothing that could break a line of a log or a header
_process = secrets.token_hex(6).encode()
_count = itertools.count(1)


def request_id(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The id of the request with these headers, whose names are in lower case."""
    for name, value in headers:
        if name == HEADER:
            if _WELL_FORMED.fullmatch(value):
                return value
            break
    return b"%b-%x" % (_process, next(_count))
