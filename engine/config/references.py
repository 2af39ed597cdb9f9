"""References to secrets, so that any secret manager serves: `env:NAME`, `file:PATH`, `cmd:COMMAND`.

A command's output is read and never logged, neither as it is nor in an error.
"""

from __future__ import annotations

import contextlib
import logging
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from engine.errors import Failed, UsageError

if TYPE_CHECKING:
    import subprocess

DEADLINE_S = 15.0
KEPT_S = 300.0  # a rotated secret is taken over after this time
_MOST_BYTES = 64 * 1024
_OF_THIS_CONTAINER = Path("/run/secrets")  # mounted for it alone, readable by all in it (Docker, Compose, Podman)

_found: dict[str, tuple[str, float]] = {}
_warned: set[Path] = set()


def is_reference(text: str) -> bool:
    return text.startswith(("env:", "file:", "cmd:"))


def described(text: str) -> str:
    """A reference for people: of a command only its program, for its arguments may be secret too, and so may the
    value of a variable before it (`TOKEN=... program`).

    Raises:
        UsageError: nothing stands behind the colon, or a relative path.
    """
    kind, _, rest = text.partition(":")
    if not rest.strip():
        raise UsageError(f"the reference '{text}' is empty", "write env:NAME, file:PATH or cmd:COMMAND")
    if kind == "file" and not file_of(text).is_absolute():
        raise UsageError(f"the reference '{text}' is a relative path", "write file:/PATH or file:~/PATH")
    return f"cmd:{rest.split()[0].partition('=')[0]} …" if kind == "cmd" else text


def known() -> list[str]:
    """The values that this process has got from files and commands: what it must not say."""
    return [value for value, _ in _found.values() if value]


def forget() -> None:
    """Look everything up again when it is next asked for."""
    _found.clear()
    _warned.clear()


def file_of(text: str) -> Path:
    """The path in a `file:` reference."""
    return Path(text.removeprefix("file:").strip()).expanduser()


def readable_by_all(path: Path) -> bool:
    """Whether every account of this host may read the file of a secret."""
    return bool(stat.S_IMODE(path.stat().st_mode) & stat.S_IROTH) and _OF_THIS_CONTAINER not in path.parents


def resolve(name: str, text: str, variable: Callable[[str], str | None]) -> str:
    """The value that a reference stands for; one level, so that `env:` also leads to a value that looks like one.

    Args:
        name: the secret's, for errors.
        variable: a variable of the environment or of `.env`.

    Returns:
        "" for an empty file, which switches the secret off.

    Raises:
        Failed: it cannot be had; the sentence holds nothing of what a command said.
        UsageError: as of `described`.
    """
    shown = described(text)
    kind, _, rest = text.partition(":")
    if kind == "env":
        if value := variable(rest.strip()):
            return value
        raise _lost(name, f"{rest.strip()} is not set", f"set it, or mend {shown}")
    if text in _found and time.monotonic() - _found[text][1] < KEPT_S:
        return _found[text][0]
    value = (_of_file(name, file_of(text)) if kind == "file" else _of_command(name, rest, shown)).rstrip("\r\n")
    if not value and kind == "cmd":
        raise _lost(name, f"{shown} gave nothing", "run it by hand; what it says is not shown here")
    _found[text] = (value, time.monotonic())
    return value


def _lost(name: str, what: str, hint: str) -> Failed:
    return Failed(f"the secret {name} cannot be had: {what}", hint, kind="secret")


def _of_file(name: str, path: Path) -> str:
    try:
        with path.open("rb") as stream:
            content = stream.read(_MOST_BYTES + 1)
        if readable_by_all(path) and path not in _warned:
            _warned.add(path)
            log = logging.getLogger("understudy.config")
            log.warning("the file of %s can be read by everybody: chmod 600 %s", name, path)
    except OSError as error:
        raise _lost(name, f"{path}: {error.strerror}", "mend the reference or the file's rights") from None
    return _text(name, content, str(path))


def _of_command(name: str, command: str, shown: str) -> str:
    import signal
    import subprocess

    child = subprocess.Popen(
        ["/bin/sh", "-c", command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,  # such tools say the secret there, too
        start_new_session=True,
    )
    try:
        content = _output(child, time.monotonic() + DEADLINE_S)
    except TimeoutError:
        raise _lost(
            name, f"{shown} gave no answer in {DEADLINE_S:g} s", "run it by hand: it may ask something"
        ) from None
    finally:
        if child.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        if child.stdout is not None:
            child.stdout.close()
    if child.returncode and len(content) <= _MOST_BYTES:
        raise _lost(
            name, f"{shown} ended with {child.returncode}", "run it by hand; what it says is not shown here"
        )
    return _text(name, content, shown)


def _output(child: subprocess.Popen[bytes], deadline: float) -> bytes:
    """What the command writes, until it ends or has written too much.

    Raises:
        TimeoutError: it has not ended at the deadline.
    """
    import selectors
    import subprocess

    assert child.stdout is not None
    content = b""
    with selectors.DefaultSelector() as waiting:
        waiting.register(child.stdout, selectors.EVENT_READ)
        while len(content) <= _MOST_BYTES:
            if not waiting.select(max(0.0, deadline - time.monotonic())):
                raise TimeoutError
            block = os.read(child.stdout.fileno(), _MOST_BYTES)
            if not block:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(max(0.0, deadline - time.monotonic()))
                    return content
                raise TimeoutError
            content += block
    return content


def _text(name: str, content: bytes, where: str) -> str:
    if len(content) > _MOST_BYTES:
        raise _lost(name, f"{where} gave more than {_MOST_BYTES} bytes", "mend the reference")
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise _lost(name, f"{where} gave no text", "mend the reference") from None
