"""Shadow traffic: AS-IS's answered images, a share of them, asked of TO-BE too, unseen by the client.

The request path only draws a number and, for the share, puts a reference on a bounded queue; it never waits. One
thread of low ambition asks TO-BE one image after the other: what TO-BE is too slow for is passed over, and AS-IS is
as quick as without. It asks only a server that the private channel knows as this workspace's TO-BE, live with another
release than AS-IS's. What came of it is kept by engine.compare.shadow.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import logging
import queue
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from engine.compare.shadow import (
    Counts,
    Item,
    Keeper,
    Said,
    drop_old,
    item_id,
    read_counts,
    write_counts,
)
from engine.config.schema import Shadow as Settings
from engine.errors import UnderstudyError
from engine.release.control import slot_stats
from engine.serving.link import Answer
from engine.store.clock import timestamp
from engine.store.workspace import Workspace

log = logging.getLogger("understudy.serving")

_CHECK_S = 5.0  # how often TO-BE is asked what it serves, and how long one that cannot answer is left alone
_WRITE_S = 1.0
_PAUSE_S = 1.0
_REMEMBERED = 50_000  # images that are known to have been mirrored: an image counts once
_MOST_FAILURES = 5  # in a row, and TO-BE is left alone for a while


class Shadow:
    """Mirrors from `start` to `close`; `offer` is called on the event loop, everything else happens in a thread.

    Args:
        host: where TO-BE listens; its port is what its server says.
        count: called with `agreed`, `differed`, `failed` or `passed_over` for each image.
    """

    def __init__(
        self, workspace: Workspace, settings: Settings, host: str, count: Callable[[str], None] = lambda _: None
    ) -> None:
        self._count = count
        self._workspace, self._settings = workspace, settings
        self._host = "127.0.0.1" if host in ("0.0.0.0", "", "::") else host
        self._queue: queue.SimpleQueue[tuple[bytes, bytes] | None] = queue.SimpleQueue()
        # Each is written by one thread alone: what waits is the difference.
        self._offered_bytes = self._taken_bytes = 0
        self._passed_over = self._passed_over_told = 0
        self._open = settings.share > 0
        self._closing = False
        self._target: tuple[str, int] | None = None  # TO-BE's release and port
        self._check_at = 0.0
        self._failures = 0
        self._connection: http.client.HTTPConnection | None = None
        self._seen: OrderedDict[bytes, None] = OrderedDict()
        self._counts: Counts | None = None
        self._unwritten = False
        self._write_at = 0.0
        self._keeper = Keeper(workspace, settings)
        self._thread = threading.Thread(target=self._run, name="shadow", daemon=True)

    def start(self) -> bool:
        """Begin; False where no share of the traffic is asked for. Deletes what was kept too long in either case."""
        if self._settings.share > 0:
            self._thread.start()
            return True
        drop_old(self._workspace, self._settings.retention_days)
        return False

    def offer(self, image: bytes, answer: Answer) -> None:
        """Perhaps mirror an image that AS-IS has answered well; returns at once."""
        if not self._open or random.random() >= self._settings.share:
            return
        bound = self._settings
        waiting_bytes = self._offered_bytes - self._taken_bytes
        if self._queue.qsize() >= bound.waiting or waiting_bytes + len(image) > bound.waiting_bytes:
            self._passed_over += 1
            self._count("passed_over")
            return
        self._offered_bytes += len(image)
        self._queue.put((image, answer.body))

    def close(self, timeout_s: float = 3.0) -> None:
        """Stop, and write what was counted."""
        self._open, self._closing = False, True
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join(timeout_s)

    def _run(self) -> None:
        while not self._closing:
            try:
                self._next()
            except (UnderstudyError, OSError, ValueError, KeyError, TypeError) as error:
                log.warning("shadow traffic: an image was lost (%s: %s)", type(error).__name__, error)
                time.sleep(_PAUSE_S)
        with contextlib.suppress(OSError):
            self._write(now=True)
        self._disconnect()

    def _next(self) -> None:
        self._keeper.sweep()
        try:
            taken = self._queue.get(timeout=_WRITE_S)
        except queue.Empty:
            self._write()
            return
        if taken is None:
            return
        image, answer = taken
        self._taken_bytes += len(image)
        self._look_at_tobe()
        if self._target is not None and not self._closing:
            self._mirror(image, json.loads(answer + b"}"))  # a worker leaves the brace to whoever adds the latency
        self._write()

    def _look_at_tobe(self) -> None:
        if time.monotonic() < self._check_at:
            return
        self._check_at = time.monotonic() + _CHECK_S
        stats, mine = (slot_stats(self._workspace, slot) or {} for slot in ("tobe", "asis"))
        ready = stats.get("state") == "live" and stats.get("release") != mine.get("release")
        target = (str(stats["release"]), int(stats["port"])) if ready else None
        if target != self._target:
            self._disconnect()
            self._target = target

    def _mirror(self, image: bytes, mine: dict[str, Any]) -> None:
        digest = hashlib.sha256(image)
        if digest.digest()[:16] in self._seen:
            return
        assert self._target is not None
        release, port = self._target
        found = self._ask(image, port)
        tobe = str(found["release"]) if found else release
        asis = str(mine["release"])
        if asis == tobe:
            self._check_at = 0.0  # a swap is under way
            return
        counts = self._counts_of(asis, tobe)
        self._unwritten = True
        if found is None:
            counts.failed += 1
            self._count("failed")
            return
        self._remember(digest.digest()[:16])
        if found["label"] == mine["label"]:
            counts.agreed += 1
            self._count("agreed")
            return
        counts.differed += 1
        self._count("differed")
        if self._settings.keep:
            said = [Said(str(one["label"]), float(one["confidence"])) for one in (mine, found)]
            sha256 = digest.hexdigest()
            item = Item(item_id(sha256), sha256, timestamp(), len(image), said[0], said[1])
            kept = self._keeper.keep(asis, tobe, item, image)
            counts.kept += kept is True
            counts.dropped += kept is False

    def _ask(self, image: bytes, port: int) -> dict[str, Any] | None:
        """TO-BE's answer, or None where it gives none in time."""
        reused = self._connection is not None
        try:
            try:
                found = self._post(image, port)
            except (ConnectionError, http.client.RemoteDisconnected):
                self._disconnect()
                if not reused:
                    raise
                found = self._post(image, port)  # the server had closed a connection that was idle for long
        except (OSError, http.client.HTTPException, ValueError):
            self._disconnect()
            found = None
        self._failures = 0 if found else self._failures + 1
        if found is None and self._failures % _MOST_FAILURES == 0:
            self._target, self._check_at = None, time.monotonic() + _CHECK_S
        return found

    def _post(self, image: bytes, port: int) -> dict[str, Any] | None:
        if self._connection is None:
            self._connection = http.client.HTTPConnection(self._host, port, timeout=self._settings.timeout_s)
        headers = {"content-type": "application/octet-stream"}
        self._connection.request("POST", "/predict?top_k=1", image, headers)
        response = self._connection.getresponse()
        body = response.read()
        return dict(json.loads(body)) if response.status == 200 else None

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _remember(self, digest: bytes) -> None:
        self._seen[digest] = None
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)

    def _counts_of(self, asis: str, tobe: str) -> Counts:
        counts = self._counts
        if counts is None or (counts.asis, counts.tobe) != (asis, tobe):
            self._write(now=True)
            self._seen.clear()
            counts = self._counts = read_counts(self._workspace, asis, tobe)
        return counts

    def _write(self, *, now: bool = False) -> None:
        if self._counts is None or not self._unwritten or (not now and time.monotonic() < self._write_at):
            return
        self._write_at = time.monotonic() + _WRITE_S
        passed_over = self._passed_over
        self._counts.passed_over += passed_over - self._passed_over_told
        self._passed_over_told = passed_over
        write_counts(self._workspace, self._counts)
        self._unwritten = False
