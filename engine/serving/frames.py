"""The frames between a slot's front and its worker, over one local stream socket.

A request is `length, id, kind, argument` and `length` bytes of body; an answer is `length, id, status,
rows, head, top, confidence` and its body. All numbers are little-endian.
"""

from __future__ import annotations

import struct

REQUEST = struct.Struct("<IIBI")  # body length, id, kind, argument
ANSWER = struct.Struct("<IIHHIif")  # body length, id, HTTP status, rows, inference header length, top, confidence

LOAD = 1  # body: JSON {path, release, max_pixels, runtime, device, task, batch_window_ms}
PREDICT = 2  # argument: top_k; body: a request in the task's media type
INFER = 3  # argument: inference header length, or WHOLE; body: an inference request
ALONE = 0x80  # added to a kind: nothing else is asked of this worker, so all cores may work on it

WHOLE = 0xFFFFFFFF  # no header length was given: the body is JSON and nothing else
HELLO = 0  # the id of the answer that a worker sends unasked once its libraries are imported
NO_TOP = -1  # `top` of an answer without one most probable class: an error, a batch
