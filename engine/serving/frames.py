"""The frames between a slot's front and its worker, over one local stream socket.

A request is `length, id, kind, argument` and `length` bytes of body; an answer is `length, id, status,
rows, head` and its body. All numbers are little-endian and unsigned.
"""

from __future__ import annotations

import struct

REQUEST = struct.Struct("<IIBI")  # body length, id, kind, argument
ANSWER = struct.Struct("<IIHHI")  # body length, id, HTTP status, rows of the batch, inference header length

LOAD = 1  # body: JSON {path, release, max_pixels}
PREDICT = 2  # argument: top_k; body: an encoded image
INFER = 3  # argument: inference header length, or WHOLE; body: an inference request

WHOLE = 0xFFFFFFFF  # no header length was given: the body is JSON and nothing else
HELLO = 0  # the id of the answer that a worker sends unasked once its libraries are imported
