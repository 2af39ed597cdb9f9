"""`serve`: one slot in this process, or each slot in an engine process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from engine.config import Settings
from engine.environments import VARIABLE
from engine.errors import Busy, Failed, Interrupted, UnderstudyError, UsageError
from engine.notify.looks import watching_looks
from engine.notify.slots import telling_of_slots
from engine.serving.lifeline import child_environment, die_with_parent
from engine.serving.server import Announce, serve_slot
from engine.store import logjson
from engine.store.workspace import TITLES, Workspace

log = logging.getLogger("understudy.serving")

_END_S = 5.0
_PAUSES_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_ERRORS: dict[int, type[UnderstudyError]] = {1: Failed, 2: UsageError, 4: Busy}


def serve(
    workspace: Workspace,
    settings: Settings,
    slots: Sequence[str],
    announce: Announce | None = None,
    *,
    tied: bool = False,
) -> None:
    """Serve slots until stopped: returns after SIGTERM, the normal end.

    Args:
        slots: "asis", "tobe" or both; several run as one engine process each, so that none falls with
            another, and one that dies is started again.
        announce: called with `{slot, port, host, state, release, pid, problem}` when a slot is ready and
            after each change of it; None prints a line.
        tied: end also when standard input closes.

    Raises:
        Busy: a port is taken, or the workspace's slot is served already.
        Interrupted: stopped by SIGINT.
    """
    announce = announce or _print
    _log_to_stderr()
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    if tied:
        die_with_parent(signal.SIGTERM)
    with contextlib.ExitStack() as stack:
        if not tied:  # of several engine processes the one that a person or the boot started tells of trouble
            stack.enter_context(watching_looks(workspace, settings))
            announce = stack.enter_context(telling_of_slots(workspace, settings, announce))
        if len(slots) == 1:
            stopped_by = serve_slot(
                workspace,
                settings.servers,
                slots[0],
                announce,
                device=settings.device.prefer,
                task=settings.task,
                shadow=settings.shadow,
                tied=tied,
            )
        else:
            stopped_by = asyncio.run(_Family(workspace, settings, announce).run(slots))
    if stopped_by == signal.SIGINT:
        raise Interrupted("interrupted", "the slots keep their releases")


def _log_to_stderr() -> None:
    """What is logged goes to standard error: as lines, where JSON logs have not begun."""
    logging.getLogger().setLevel(logging.INFO)
    if not logjson.begun():
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logjson.TextFormatter())
        logging.getLogger().addHandler(handler)


def line(state: dict[str, Any]) -> str:
    """What is printed of a slot: "AS-IS serving a3f9c1e2 on http://127.0.0.1:8891"."""
    host = f"[{state['host']}]" if ":" in state["host"] else state["host"]
    what = f"serving {state['release'][:8]}" if state["release"] else state["state"]
    problem = f" ({state['problem']})" if state["problem"] else ""
    return f"{TITLES[state['slot']]} {what} on http://{host}:{state['port']}{problem}"


def _print(state: dict[str, Any]) -> None:
    sys.stdout.write(line(state) + "\n")
    sys.stdout.flush()


class _Family:
    """One child engine process a slot."""

    def __init__(self, workspace: Workspace, settings: Settings, announce: Announce) -> None:
        self._workspace, self._settings, self._announce = workspace, settings, announce
        self._children: dict[str, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()
        self._signal = 0

    async def run(self, slots: Sequence[str]) -> int:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        keepers = [asyncio.create_task(self._keep(slot)) for slot in slots]
        stop = asyncio.create_task(self._stopping.wait())
        try:
            await asyncio.wait([*keepers, stop], return_when=asyncio.FIRST_COMPLETED)
            for keeper in keepers:
                if keeper.done():
                    keeper.result()
            return self._signal
        finally:
            self._stopping.set()
            stop.cancel()
            await self._end(keepers)

    def _stop(self, number: int) -> None:
        self._signal = self._signal or number
        self._stopping.set()

    async def _end(self, keepers: list[asyncio.Task[None]]) -> None:
        for child in self._children.values():
            with contextlib.suppress(ProcessLookupError):
                child.terminate()
        _, late = await asyncio.wait(keepers, timeout=self._settings.servers.drain_timeout_s + _END_S)
        for child in self._children.values() if late else ():
            with contextlib.suppress(ProcessLookupError):
                child.kill()
        await asyncio.gather(*keepers, return_exceptions=True)

    async def _keep(self, slot: str) -> None:
        """Run the slot's child, again and again once it has served, until told to stop.

        Raises:
            UnderstudyError: it could not start at all.
        """
        tries = 0
        while not self._stopping.is_set():
            child = await asyncio.create_subprocess_exec(
                *self._command(slot),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
                env=self._environment(),
            )
            self._children[slot] = child
            found = _Relay(self._announce)
            await asyncio.gather(found.states(child.stdout), found.words(child.stderr))
            code = await child.wait()
            if self._stopping.is_set():
                return
            if not found.served and not tries:
                error = found.error or {
                    "kind": "failed",
                    "message": f"the {slot} server ended ({code})",
                    "hint": "",
                }
                raise _ERRORS.get(code, Failed)(error["message"], error["hint"], kind=error["kind"])
            if not found.served:
                why = found.error["message"] if found.error else f"its server ended ({code})"
                self._announce(self._down(slot, f"its server does not start again: {why}"))
            pause = _PAUSES_S[0 if found.served else min(tries, len(_PAUSES_S) - 1)]
            tries = 1 if found.served else tries + 1
            log.error("the %s server ended (%s) and is started again in %s s", slot, code, pause)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause)

    def _down(self, slot: str, problem: str) -> dict[str, Any]:
        servers = self._settings.servers
        where = {"slot": slot, "port": getattr(servers, slot).port, "host": servers.host}
        return {**where, "state": "down", "release": None, "pid": None, "problem": problem}

    def _command(self, slot: str) -> list[str]:
        settings = [
            f"{key}={json.dumps(value) if isinstance(value, bool) else value}"
            for section in ("servers", "shadow", "device", "logging")
            for key, value in _leaves(getattr(self._settings, section).model_dump(), f"{section}.")
        ]
        words = ["--workspace", str(self._workspace.root), "serve", slot, "--tied", "--json"]
        words += [f"task={self._settings.task}", *settings]
        return [sys.executable, "-m", "engine", *words]

    def _environment(self) -> dict[str, str]:
        environment = child_environment()
        root = str(Path(__file__).resolve().parents[2])
        environment.pop(VARIABLE, None)  # what it says is in the settings; another config may not know the name
        path = environment.get("PYTHONPATH")
        return {**environment, "PYTHONPATH": f"{root}{os.pathsep}{path}" if path else root}


class _Relay:
    """Passes on what a child says, and keeps the error that it ended with."""

    def __init__(self, announce: Announce) -> None:
        self._announce = announce
        self.served = False
        self.error: dict[str, Any] | None = None

    async def states(self, stream: asyncio.StreamReader | None) -> None:
        assert stream is not None
        async for text in stream:
            value = json.loads(text)
            if "error" in value:
                self.error = value["error"]
            else:
                self.served = True
                self._announce(value)

    async def words(self, stream: asyncio.StreamReader | None) -> None:
        """The child's standard error; the error it ends with is told by this process instead."""
        assert stream is not None
        async for text in stream:
            if not text.startswith(b"error: ") and not logjson.is_last(text) and text.strip():
                sys.stderr.write(text.decode(errors="replace"))
                sys.stderr.flush()


def _leaves(tree: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    found: list[tuple[str, Any]] = []
    for key, value in tree.items():
        found += _leaves(value, f"{prefix}{key}.") if isinstance(value, dict) else [(f"{prefix}{key}", value)]
    return found
