"""A slot: which worker answers, and how another takes its place without a failed request.

The pointer file is the truth (engine.release.slots). A change of it is followed by loading the new
release in a worker beside the old one (engine.serving.reserve); only a worker that has answered real
images takes over, and the old one first answers what it was asked.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Coroutine
from typing import Any

from engine.config.schema import Servers
from engine.devices.cores import available_cores
from engine.errors import Failed, UnderstudyError
from engine.release.slots import pointer_path, read_pointer
from engine.serving.link import Answer, Link, WorkerGone
from engine.serving.reserve import Reserve
from engine.store.workspace import Workspace

log = logging.getLogger("understudy.serving")

_POLL_S = 0.25
_RETRY_S = 30.0
_SILENT_S = 60.0  # a worker that answers nothing for so long while asked hangs
_WAIT_FOR_WORKER_S = 5.0
_STEADY_S = 10.0  # a worker that lived so long died of something else than its release
_LONGEST_PAUSE_S = 30.0


class Unavailable(Exception):
    """Nothing can answer now. `kind` is `empty`, `loading` or `no_worker`."""

    def __init__(self, kind: str, message: str, hint: str) -> None:
        super().__init__(message)
        self.kind, self.message, self.hint = kind, message, hint


class Slot:
    """Serves what the slot's pointer says; everything runs on one event loop.

    Args:
        name: "asis" or "tobe".
        device: where torch runs a net, as `device.prefer`.
        task: code of one's own that a release may name as its task, as the setting `task`.
        on_change: called after the slot's state, release or problem changed.
        on_alert: called with a sentence when a release cannot be served or a worker died.
    """

    def __init__(
        self,
        workspace: Workspace,
        name: str,
        servers: Servers,
        *,
        device: str = "auto",
        task: str = "images",
        on_change: Callable[[], None] = lambda: None,
        on_alert: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self.workspace, self.name, self._servers = workspace, name, servers
        self.threads = servers.threads or available_cores()
        self._reserve = Reserve(workspace, servers, self.threads, device, task, self._spawn)
        self.problem: str | None = None
        self.swaps = self.restarts = 0
        self.since: str | None = None
        self._on_change, self._on_alert = on_change, on_alert
        self._active: Link | None = None
        self._last: Link | None = None
        self._wanted: str | None = None
        self._available = asyncio.Event()
        self._changing = asyncio.Lock()
        self._background: set[asyncio.Task[Any]] = set()
        self._followed: object = None
        self._retry_at = 0.0
        self._deaths = 0
        self._closing = False

    @property
    def state(self) -> str:
        if self._active is not None:
            return "live"
        return "loading" if self._reserve.loading or self._wanted else "empty"

    @property
    def active(self) -> Link | None:
        return self._active

    @property
    def shown(self) -> Link | None:
        """What the slot serves, also in the moment in which a dead worker is being replaced."""
        return self._last if self._wanted is not None else None

    def submit(self, kind: int, argument: int, body: bytes, done: Callable[[Answer | Exception], None]) -> None:
        """Have the present release answer; asked again once when its worker dies of something.

        `done` gets the answer, or Unavailable (nothing is there to answer), or WorkerGone (it died twice).
        """
        link = self._active
        if link is None:
            self._spawn(self._ask(kind, argument, body, done, tries=2))
            return

        def answered(answer: Answer | None) -> None:
            if answer is not None:
                done(answer)
            else:
                self._spawn(self._ask(kind, argument, body, done, tries=1))

        link.ask(kind, argument, body, answered)

    async def _ask(
        self, kind: int, argument: int, body: bytes, done: Callable[[Answer | Exception], None], tries: int
    ) -> None:
        found: Answer | Exception = WorkerGone()
        for _ in range(tries):
            try:
                found = await (await self._worker()).request(kind, argument, body)
                break
            except WorkerGone:
                continue
            except Unavailable as why:
                found = why
                break
        done(found)

    def refuse_if_unavailable(self) -> None:
        """Raise Unavailable where waiting would not help: the slot is empty, or loads its first release."""
        if self._active is None and self._wanted is None:
            if self._reserve.loading:
                raise Unavailable(
                    "loading", f"the slot {self.name} is loading its release", "try again in a second"
                )
            raise Unavailable(
                "empty", self.problem or f"the slot {self.name} holds no release", "deploy or promote one first"
            )

    async def _worker(self) -> Link:
        """The worker that answers now; while a dead one is being replaced, its successor."""
        deadline = time.monotonic() + _WAIT_FOR_WORKER_S
        while True:
            link = self._active
            if link is not None and not link.gone.is_set():
                return link
            self.refuse_if_unavailable()
            left = deadline - time.monotonic()
            if left <= 0:
                raise Unavailable(
                    "no_worker", "the model's process died and is not back yet", "try again in a while"
                )
            if link is not None:
                await asyncio.sleep(0.001)  # dead, and `_watch` is about to see it
                continue
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._available.wait(), left)

    async def run(self) -> None:
        """Follow the pointer until cancelled."""
        while True:
            try:
                seen = self._signature()
                if seen != self._followed or (self.problem and time.monotonic() > self._retry_at):
                    with contextlib.suppress(UnderstudyError):
                        await self.follow()
                await self._look_after()
            except Exception:
                log.exception("%s: looking after the slot failed", self.name)
                await asyncio.sleep(_LONGEST_PAUSE_S / 10)
            await asyncio.sleep(_POLL_S)

    async def follow(self) -> None:
        """Serve what the pointer says now.

        Raises:
            Failed: it cannot be served; the slot goes on with what it has.
        """
        async with self._changing:
            seen = self._signature()
            try:
                await self._follow()
            except (UnderstudyError, OSError) as error:
                self._retry_at = time.monotonic() + _RETRY_S
                expected = _as_failed(error)
                self._tell_problem(expected.message)
                raise expected from None
            else:
                if self.problem is not None:
                    self._tell_problem(None)
            finally:
                self._followed = seen

    async def _follow(self) -> None:
        pointer = read_pointer(self.workspace, self.name)
        if pointer is None:
            if self._wanted is not None and not self.workspace.slots.is_dir():
                raise Failed(
                    f"the folder {self.workspace.slots} is gone", "bring the workspace back", kind="missing"
                )
            old, self._active, self._wanted, self.since = self._active, None, None, None
            self._available.clear()
            if old is not None:
                self._spawn(old.drain(self._servers.drain_timeout_s))
                self._on_change()
            return
        if self._active is not None and self._active.card["release"] == pointer.release:
            self.since = pointer.since
            return
        link = await self._reserve.worker(pointer.release)
        swap = self._wanted not in (None, pointer.release)
        old, self._active = self._active, link
        self._last = link
        self._wanted, self.since, self._deaths = pointer.release, pointer.since, 0
        self.swaps += swap
        self._available.set()
        self._keep_watch(link)
        if old is not None:
            link.take_over(old, self.threads - 1)
            self._spawn(self._reserve.retire(old))
        self._reserve.spare_soon()
        log.info("%s serves %s", self.name, pointer.release[:8])
        self.problem = None  # before it is said: what serves now has none
        self._on_change()

    async def prepare(self, release: str) -> None:
        """Load and warm `release` beside the one that is served, and keep it for the follow that comes.

        Raises:
            Failed: it does not load.
        """
        async with self._changing:
            if self._active is not None and self._active.card["release"] == release:
                return
            try:
                await self._reserve.prepare(release)
            except OSError as error:
                raise _as_failed(error) from None

    async def close(self) -> None:
        """End every worker."""
        self._closing = True
        for task in self._background:
            task.cancel()
        await self._reserve.close()
        if self._active is not None:
            await self._active.end()
        self._active = None

    def _keep_watch(self, link: Link) -> None:
        if not link.watched:  # a former worker that answers again is watched still
            link.watched = True
            self._spawn(self._watch(link))

    async def _watch(self, link: Link) -> None:
        """Put another worker in the place of one that dies."""
        started = time.monotonic()
        await link.gone.wait()
        if link is not self._active or self._closing:
            return
        self._active = None
        self._available.clear()
        self._deaths = 0 if time.monotonic() - started > _STEADY_S else self._deaths + 1
        again = self._deaths > 1
        code = await link.end()
        release = link.card["release"]
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        self._on_alert(f"the {self.name} worker of {release[:8]} died ({how}) and is replaced")
        while not self._closing:
            await asyncio.sleep(min(_LONGEST_PAUSE_S, 0.25 * 2**self._deaths) if self._deaths > 1 else 0)
            async with self._changing:
                if self._active is not None or self._wanted != release:
                    return
                try:
                    fresh = await self._reserve.worker(release)
                except (UnderstudyError, OSError) as error:
                    self._deaths += 1
                    self._retry_at = time.monotonic() + _RETRY_S
                    self._tell_problem(_as_failed(error).message)
                    continue
                self.restarts += 1
                self._active = self._last = fresh
                self._available.set()
                self._keep_watch(fresh)
                self._reserve.spare_soon()
                if again:
                    self._retry_at = time.monotonic() + _STEADY_S  # the look then takes the problem back
                    self._tell_problem("its worker dies again and again")
                elif self.problem:
                    self._tell_problem(None)
                self._on_change()
                return

    async def _look_after(self) -> None:
        """What the clock asks for: the end of a worker that hangs, and what the reserve wants."""
        active = self._active
        if active is not None and active.in_flight and time.monotonic() - active.heard > _SILENT_S:
            log.error("%s: the worker answered nothing for %.0f s; it is ended", self.name, _SILENT_S)
            active.process.kill()
        await self._reserve.look_after(lambda: self._active is not None and not self._changing.locked())

    def _tell_problem(self, problem: str | None) -> None:
        if problem != self.problem:
            self.problem = problem
            if problem:
                self._on_alert(f"{self.name}: {problem}")
            self._on_change()

    def _signature(self) -> tuple[int, int, int] | None:
        try:
            found = os.stat(pointer_path(self.workspace, self.name))  # noqa: PTH116 - four times a second
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size

    def _spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)


def _as_failed(error: UnderstudyError | OSError) -> UnderstudyError:
    if isinstance(error, UnderstudyError):
        return error
    return Failed(f"the slot cannot be changed ({error})", "mend it, then try again", kind="system")
