"""The model's own process: `python -m engine.serving.worker FD THREADS`, spawned by a slot's front.

The threads take turns reading a frame from the inherited socket, then work side by side: decoding and
inference release the interpreter's lock. The process ends when the front does.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path
from typing import Any, NamedTuple

from engine.devices.cores import Place, cores_of
from engine.errors import UnderstudyError
from engine.release.bundle import read_release
from engine.serving import frames
from engine.serving.infer import infer
from engine.serving.lifeline import die_with_parent
from engine.serving.runtime import Model, prepare_decoders
from engine.tasks.medium import InputError
from engine.tasks.memory import give_memory_back

_LARGE_BYTES = 4 * 1024 * 1024  # one such body at a time: a JSON tensor takes ten times its size
_OOM_LOADING, _OOM_SERVING = 800, 300


class Found(NamedTuple):
    """One answer, as `frames.ANSWER` has it."""

    status: int
    body: bytes
    rows: int = 0
    head: int = 0
    top: int = frames.NO_TOP
    confidence: float = 0.0


class Worker:
    """Answers the front's frames until the socket ends."""

    def __init__(self, stream: socket.socket, threads: int) -> None:
        self._stream = stream
        self._threads = threads
        self._reading = threading.Lock()
        self._writing = threading.Lock()
        self._large = threading.Lock()
        self._model: Model | None = None
        self._batches = False
        self._cores: list[int] = []

    def run(self) -> None:
        self._answer(frames.HELLO, Found(200, b"{}"))
        self._cores = cores_of(self._threads)
        for number in range(1, self._threads):
            threading.Thread(target=self._work, args=[number], daemon=True).start()
        self._work(0)

    def _work(self, number: int) -> None:
        place = Place()
        # Whoever is alone runs where the one before ran, and ONNX Runtime's pool on the other cores.
        own, first = (self._cores[number], self._cores[0]) if number < len(self._cores) else (None, None)
        try:
            while True:
                with self._reading:
                    length, ident, kind, argument = frames.REQUEST.unpack(self._receive(frames.REQUEST.size))
                    body = self._receive(length)
                if self._batches or kind & ~frames.ALONE == frames.LOAD:
                    place.stay(None)
                else:
                    place.stay(first if kind & frames.ALONE else own)
                with self._large if length > _LARGE_BYTES else contextlib.nullcontext():
                    answer = self._handle(kind, argument, body)
                self._answer(ident, answer)
                if length > _LARGE_BYTES:
                    del body
                    give_memory_back()
        except OSError:
            os._exit(0)  # the front is gone: other threads may be deep in native code

    def _receive(self, count: int) -> bytes:
        found = b""
        while len(found) < count:
            more = self._stream.recv(count - len(found), socket.MSG_WAITALL)
            if not more:
                raise ConnectionError
            found = found + more if found else more
        return found

    def _answer(self, ident: int, found: Found) -> None:
        head = frames.ANSWER.pack(
            len(found.body), ident, found.status, found.rows, found.head, found.top, found.confidence
        )
        with self._writing:
            self._stream.sendall(head + found.body)

    def _handle(self, kind: int, argument: int, body: bytes) -> Found:
        alone = bool(kind & frames.ALONE)
        kind &= ~frames.ALONE
        try:
            if kind == frames.LOAD:
                return Found(200, self._load(json.loads(body)))
            assert self._model is not None
            if kind == frames.PREDICT:
                found = self._model.predict(body, argument, alone=alone)
                return Found(200, found.body, 1, top=found.top, confidence=found.confidence)
            rows, head, answer = infer(self._model, body, argument)
            return Found(200, answer, rows, head)
        except InputError as refusal:
            return Found(refusal.status, _error(refusal.kind, refusal.message, refusal.hint, kind))
        except UnderstudyError as error:
            return Found(500, _error(error.kind, error.message, error.hint, kind))
        except MemoryError:
            return Found(503, _error("memory", "not enough memory for this request", "send less at once", kind))
        except Exception as error:  # noqa: BLE001 - one bad request must not end the worker
            sentence = f"unexpected {type(error).__name__}: {' '.join(str(error).split())[:300]}"
            return Found(500, _error("defect", sentence, "see the server's log", kind))

    def _load(self, order: dict[str, Any]) -> bytes:
        _set_oom_score(_OOM_LOADING)
        self._model = None  # a former worker's net goes before the next one comes
        release = read_release(Path(order["path"]), expect=order["release"])
        model = Model(
            release,
            order["max_pixels"],
            trusted=order["task"],
            runtime=order["runtime"],
            device=order["device"],
            window_s=order["batch_window_ms"] / 1000,
        )
        model.warm_up()
        gc.collect()
        gc.freeze()
        give_memory_back()
        self._model, self._batches = model, model.in_flight > 0
        for number in range(self._threads, model.in_flight):  # an accelerator's batch is made of waiting requests
            threading.Thread(target=self._work, args=[number], daemon=True).start()
        self._threads = max(self._threads, model.in_flight)
        _set_oom_score(_OOM_SERVING)
        return json.dumps(model.card()).encode()


def _error(kind: str, message: str, hint: str, frame: int) -> bytes:
    value: Any = {"kind": kind, "message": message, "hint": hint}
    if frame == frames.INFER:
        value = f"{message}: {hint}" if hint else message
    return json.dumps({"error": value}, ensure_ascii=False).encode()


def _set_oom_score(score: int) -> None:
    """When memory runs out, a model that is loading goes first, then one that serves, and the front last."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(str(score))


def main() -> None:
    # Ctrl-C and a service manager signal the whole group: the front drains, then closes the socket.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    die_with_parent(signal.SIGKILL)
    handle, threads = map(int, sys.argv[1:3])
    prepare_decoders()
    with contextlib.suppress(OSError):
        Worker(socket.socket(fileno=handle), threads).run()
    os._exit(0)


if __name__ == "__main__":
    main()
