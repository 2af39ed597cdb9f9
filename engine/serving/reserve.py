"""The workers of a slot beside the one that answers: one prepared for a swap that comes, and a spare.

The spare is a worker that has its libraries imported, so that a release only has to be loaded; or the one that
answered before, which still has its release: a rollback then only switches back.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import Any

from engine.config.schema import Servers
from engine.release.bundle import release_path
from engine.serving.link import Link
from engine.store.clock import timestamp
from engine.store.workspace import Workspace

_PREPARED_S = 60.0
_SPARE_AFTER_S = 1.0
_RETRY_S = 30.0


class Reserve:
    """Everything runs on the slot's event loop.

    Args:
        threads: of each worker.
        device: where torch runs a net, as `device.prefer`.
        task: code of one's own that a release may name as its task, as the setting `task`.
        spawn: runs something in the slot's background.

    Attributes:
        loading: a worker is loading a release.
    """

    def __init__(
        self,
        workspace: Workspace,
        servers: Servers,
        threads: int,
        device: str,
        task: str,
        spawn: Callable[[Coroutine[Any, Any, Any]], None],
    ) -> None:
        self.loading = False
        self._workspace, self._servers, self._threads, self._spawn = workspace, servers, threads, spawn
        self._how = {
            "max_pixels": servers.max_pixels,
            "runtime": servers.runtime,
            "device": device,
            "task": task,
            "batch_window_ms": servers.batch_window_ms,
        }
        self._prepared: tuple[Link, float] | None = None
        self._spare: Link | None = None
        self._spare_due = 0.0
        self._closing = False

    async def worker(self, release: str) -> Link:
        """A worker that has the release: the prepared one, the former one, or one that loads it now.

        Raises:
            Failed: it does not load.
            OSError: no process can be started.
        """
        return self._take_prepared(release) or self._take_former(release) or await self._load(release)

    async def prepare(self, release: str) -> None:
        """Keep a worker with the release for a while; raises as `worker`."""
        link = await self.worker(release)
        await self._drop_prepared()
        self._prepared = (link, time.monotonic() + _PREPARED_S)

    async def retire(self, old: Link) -> None:
        """Let the worker that was replaced answer what it has, then keep it as the spare; another release than its
        own it loads as any spare would."""
        if not await old.idle(self._servers.drain_timeout_s) or self._closing:
            await old.end()
            return
        (spare, self._spare) = (self._spare, old)
        if spare is not None:
            await spare.end()

    def spare_soon(self) -> None:
        """Another worker has taken over: a spare is wanted, but not in the same moment."""
        self._spare_due = time.monotonic() + _SPARE_AFTER_S

    async def look_after(self, calm: Callable[[], bool]) -> None:
        """What the clock asks for: the end of an unused preparation, and a spare where none is, while `calm()`."""
        moment = time.monotonic()
        if self._prepared is not None and (moment > self._prepared[1] or self._prepared[0].gone.is_set()):
            await self._drop_prepared()
        if self._spare is not None and self._spare.gone.is_set():
            await self._spare.end()
            self._spare, self._spare_due = None, moment + _RETRY_S
        if self._spare is None and moment > self._spare_due and calm():
            self._spare_due = moment + _RETRY_S  # should spawning fail
            self._spare = await Link.spawn(self._threads)

    async def close(self) -> None:
        """End every worker here, and whatever retires from now on."""
        self._closing = True
        await self._drop_prepared()
        if self._spare is not None:
            await self._spare.end()
        self._spare = None

    async def _load(self, release: str) -> Link:
        self.loading = True
        link: Link | None = None
        try:
            link, self._spare = self._spare, None
            if link is None or link.gone.is_set():
                link = await Link.spawn(self._threads)
            await link.load(release, release_path(self._workspace, release), timestamp(), self._how)
            return link
        except BaseException:
            if link is not None:
                self._spawn(link.end())
            raise
        finally:
            self.loading = False

    def _take_former(self, release: str) -> Link | None:
        """The spare, where it is a former worker of this very release."""
        spare = self._spare
        if spare is None or spare.gone.is_set() or spare.card.get("release") != release:
            return None
        self._spare = None
        return spare

    def _take_prepared(self, release: str) -> Link | None:
        if self._prepared is None or self._prepared[0].card["release"] != release:
            return None
        (link, _), self._prepared = self._prepared, None
        if not link.gone.is_set():
            return link
        self._spawn(link.end())
        return None

    async def _drop_prepared(self) -> None:
        if self._prepared is not None:
            (link, _), self._prepared = self._prepared, None
            await link.end()
