"""What a request says of itself: its id, the client's own `X-Request-Id` where it is well formed, else one made here;
and whether it is a client's."""

from __future__ import annotations

import itertools
import re
import secrets
from collections.abc import Sequence

from engine.release.control import NOT_LIVE

HEADER = b"x-request-id"
_NOT_LIVE = {(name.encode(), value.encode()) for name, value in NOT_LIVE.items()}
_WELL_FORMED = re.compile(rb"[A-Za-z0-9._~+/=:@-]{1,128}")  # nothing that could break a line of a log or a header
_process = secrets.token_hex(6).encode()
_count = itertools.count(1)


def is_live(headers: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether a client asks. Where Understudy itself does (`ab`, the check after a swap), neither the bake nor shadow
    traffic counts it: a labelled image that also came back as a live request would be evidence twice."""
    return _NOT_LIVE.isdisjoint(headers)


def request_id(headers: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The id of the request with these headers, whose names are in lower case."""
    for name, value in headers:
        if name == HEADER:
            if _WELL_FORMED.fullmatch(value):
                return value
            break
    return b"%b-%x" % (_process, next(_count))
