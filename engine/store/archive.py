"""One file that holds a workspace's state: a tar with a manifest of every file's SHA-256 first.

In it is what cannot be made again: slots, releases, backups, comparisons, labels, remembered facts, the audit
log. Not in it: runs (unless asked), logs, locks, data sets, what is on its way in, messages that wait, and `.env`: secrets do not travel.
The caller holds the locks.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import io
import json
import os
import secrets
import shutil
import socket
import tarfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from engine.errors import Failed, UsageError
from engine.store.clock import now, timestamp
from engine.store.files import CHUNK, atomic_writer, fsync_folder, sha256_file
from engine.store.schema import VERSION, version
from engine.store.workspace import Workspace

MANIFEST = "understudy-workspace.json"
_LEFT_OUT = frozenset(
    [
        "runs",
        "multirun",
        "incoming",
        "logs",
        "locks",
        "data",
        "checkpoints",
        "go",
        "damaged",
        "cache",
        "mlflow",
        ".env",
    ]
)
_MAX_MANIFEST_BYTES = 64 * 1024 * 1024
_AT_FDCWD, _RENAME_EXCHANGE = -100, 2


def write_archive(workspace: Workspace, target: Path, *, runs: bool = False) -> dict[str, Any]:
    """Write the workspace's state to `target` and read it back against its manifest before it gets the name.

    Returns:
        The manifest: `format, schema, host, at, files` (`{path: {sha256, bytes}}`).
    """
    # The log grows under a lock of its own: what is archived of it is what it holds at this moment.
    log = workspace.events.read_bytes() if workspace.events.exists() else b""
    log = log[: log.rfind(b"\n") + 1]
    paths = list(_state_files(workspace, runs))
    files = {str(path.relative_to(workspace.root)): _facts(path) for path in paths}
    files["events.jsonl"] = {"sha256": hashlib.sha256(log).hexdigest(), "bytes": len(log)}
    manifest = {
        "format": 1,
        "schema": version(workspace),
        "host": socket.gethostname(),
        "at": timestamp(),
        "workspace": str(workspace.root),
        "files": files,
    }
    with atomic_writer(target, 0o600) as stream:
        with tarfile.open(fileobj=stream, mode="w") as archive:
            _add(archive, MANIFEST, json.dumps(manifest, indent=1).encode())
            _add(archive, "events.jsonl", log)
            for path in paths:
                archive.add(path, str(path.relative_to(workspace.root)), recursive=False)
        stream.flush()
        with os.fdopen(os.dup(stream.fileno()), "rb") as reading:  # the scratch file has no name of its own here
            reading.seek(0)
            for _ in _members(reading, None):
                pass
    return manifest


def read_manifest(source: Path) -> dict[str, Any]:
    """The manifest of an archive.

    Raises:
        UsageError: no such file, or not an archive of ours.
    """
    try:
        with tarfile.open(source, "r:") as archive:
            first = archive.next()
            if first is None or first.name != MANIFEST or first.size > _MAX_MANIFEST_BYTES:
                raise tarfile.ReadError
            stream = archive.extractfile(first)
            manifest: dict[str, Any] = json.loads(stream.read()) if stream else {}
        if manifest["format"] != 1 or not all(_is_plain(name) for name in manifest["files"]):
            raise ValueError
    except FileNotFoundError:
        raise UsageError(f"{source} does not exist", "check the path", kind="not_found") from None
    except (OSError, tarfile.TarError, ValueError, KeyError, TypeError):
        raise UsageError(f"{source} is not a backup of a workspace", "give one that backup wrote") from None
    if manifest["schema"] > VERSION:
        raise UsageError(
            f"{source.name} is of a workspace of version {manifest['schema']}, this Understudy knows {VERSION}",
            "use the newer Understudy",
            kind="newer_workspace",
        )
    return manifest


def unpack(source: Path, workspace: Workspace) -> Path:
    """Unpack an archive beside the workspace, every file verified; returns the scratch folder.

    Raises:
        Failed: a file is missing, altered, doubled or not named by the manifest; nothing is left then.
    """
    manifest = read_manifest(source)
    needed = sum(int(facts["bytes"]) for facts in manifest["files"].values())
    parent = workspace.root.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(parent).free < needed + CHUNK:
        raise Failed(f"no room to restore: {needed / 1e6:.0f} MB are needed in {parent}", "free disk space")
    scratch = parent / f".{workspace.root.name}.restoring-{secrets.token_hex(4)}"
    scratch.mkdir(mode=0o700)
    try:
        with source.open("rb") as stream:
            for name in _members(stream, scratch):
                fsync_folder((scratch / name).parent)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return scratch


def take_place(scratch: Path, workspace: Workspace) -> Path | None:
    """Give the unpacked folder the workspace's name in one step; returns where the former one lies now.

    What the archive left out (runs, logs, data) moves on into the new one.
    """
    root = workspace.root.absolute()
    if not root.exists() or not any(root.iterdir()):
        with contextlib.suppress(FileNotFoundError):
            root.rmdir()
        scratch.rename(root)
        fsync_folder(root.parent)
        return None
    former = root.with_name(f"{root.name}.replaced-{now():%Y%m%d_%H%M%S}-{secrets.token_hex(2)}")
    if _exchange(scratch, root):
        scratch.rename(former)
    else:
        root.rename(former)
        scratch.rename(root)
    fsync_folder(root.parent)
    for name in sorted(_LEFT_OUT - {"locks"}):
        if (former / name).exists() and not (root / name).exists():
            (former / name).rename(root / name)
    return former


def is_used(workspace: Workspace) -> bool:
    """Whether there is something that a restore would replace."""
    return workspace.events.exists() or any(
        folder.is_dir() and any(folder.iterdir())
        for folder in (workspace.slots, workspace.releases, workspace.backups, workspace.comparisons)
    )


def _state_files(workspace: Workspace, runs: bool) -> Iterator[Path]:
    for top in sorted(workspace.root.iterdir()):
        if top.is_symlink() or (top.name in _LEFT_OUT and not (runs and top.name in ("runs", "multirun"))):
            continue
        for path in sorted(top.rglob("*")) if top.is_dir() else [top]:
            inner = path.relative_to(workspace.root)
            passed_over = inner.parts[:2] == ("state", "outbox") or path.name.endswith(".part")
            if path.is_file() and not path.is_symlink() and not passed_over and path != workspace.events:
                yield path


def _facts(path: Path) -> dict[str, Any]:
    return {"sha256": sha256_file(path), "bytes": path.stat().st_size}


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = len(content), 0o644, int(now().timestamp())
    archive.addfile(info, io.BytesIO(content))


def _members(stream: BinaryIO, target: Path | None) -> Iterator[str]:
    """Each file of the archive, checked against the manifest, and written below `target` where given."""
    damaged = "take another backup"
    seen: set[str] = set()
    try:
        with tarfile.open(fileobj=stream, mode="r:") as archive:
            first = archive.next()
            content = archive.extractfile(first) if first and first.name == MANIFEST else None
            files = json.loads(content.read())["files"] if content else {}
            for member in archive:
                facts = files.get(member.name)
                if member.name == MANIFEST:
                    continue
                if facts is None or member.name in seen or not member.isreg() or not _is_plain(member.name):
                    raise Failed(f"the backup holds '{member.name}', which its manifest does not", damaged)
                seen.add(member.name)
                reading = archive.extractfile(member)
                if reading is None or _copy(reading, target / member.name if target else None) != facts["sha256"]:
                    raise Failed(f"'{member.name}' in the backup is damaged", damaged, kind="damaged")
                yield member.name
    except (tarfile.TarError, ValueError, KeyError, EOFError) as error:
        raise Failed(f"the backup is truncated or damaged ({error})", damaged, kind="damaged") from None
    if missing := sorted(files.keys() - seen):
        raise Failed(f"'{missing[0]}' is missing in the backup", damaged, kind="damaged")


def _copy(reading: Any, target: Path | None) -> str:
    digest = hashlib.sha256()
    with contextlib.ExitStack() as stack:
        writing = None
        if target is not None:
            target.parent.mkdir(parents=True, exist_ok=True)
            writing = stack.enter_context(target.open("xb"))
        while chunk := reading.read(CHUNK):
            digest.update(chunk)
            if writing:
                writing.write(chunk)
        if writing:
            writing.flush()
            os.fsync(writing.fileno())
    return digest.hexdigest()


def _is_plain(name: str) -> bool:
    path = PurePosixPath(name)
    return not path.is_absolute() and ".." not in path.parts and name == str(path) and name != "."


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names in one step where the kernel can (Linux)."""
    rename = getattr(ctypes.CDLL(None), "renameat2", None)
    if rename is None:
        return False
    names = (os.fsencode(one), os.fsencode(other))
    return bool(rename(_AT_FDCWD, names[0], _AT_FDCWD, names[1], ctypes.c_uint(_RENAME_EXCHANGE)) == 0)
