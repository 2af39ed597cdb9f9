"""Which host keys are trusted: read from the person's files, added to by `sync --pin` alone, never by themselves."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from engine.errors import UsageError
from engine.sync.library import asyncssh
from engine.sync.source import Unreachable

PORT = 22
_SYSTEM_KNOWN_HOSTS = Path("/etc/ssh/ssh_known_hosts")


class HostKeyUnknown(Unreachable):
    """A host that no file knows. `fingerprint` is what it shows, `line` what would make it known, in `file`."""

    default_kind = "host_key_unknown"

    def __init__(self, known: KnownHost, offered: asyncssh.SSHKey) -> None:
        self.fingerprint, self.file = offered.get_fingerprint(), known.files[0]
        self.line = f"{known.name} {offered.export_public_key().decode().strip()}"
        super().__init__(
            f"the host key of {known.name} is not known: it shows {shown(offered)}, and {self.file} has none for it",
            f"compare that with the host's own (there: {_ask_there(offered)}), and when it is the same: "
            f"python -m engine sync --pin {self.fingerprint}",
        )


class HostKeyOther(Unreachable):
    """A host that shows another key than the one that a person asked to pin."""

    default_kind = "host_key_other"

    def __init__(self, unknown: HostKeyUnknown, wanted: str) -> None:
        super().__init__(
            f"the host shows {unknown.fingerprint}, not {wanted}: nothing was pinned",
            "check the fingerprint for a slip; if it is the host's own (there: ssh-keygen -lf "
            "/etc/ssh/ssh_host_*_key.pub), something else answers in its place: do not connect",
        )


class HostKeyChanged(Unreachable):
    """A host that shows another key than the known one, or one that is marked as revoked."""

    default_kind = "host_key_changed"


@dataclass(frozen=True)
class KnownHost:
    """What is known of one host: its name as `known_hosts` writes it, and the files that were read."""

    host: str
    port: int
    files: tuple[Path, ...]
    entries: asyncssh.SSHKnownHosts

    @property
    def name(self) -> str:
        return self.host if self.port == PORT else f"[{self.host}]:{self.port}"

    def match(self, address: str = "") -> Sequence[Sequence[object]]:
        """asyncssh's seven lists of trusted and revoked keys; without the port where none is known with it."""
        if self.port != PORT:
            found = self.entries.match(self.host, address, self.port)
            if any(found):
                return found
        return self.entries.match(self.host, address, None)

    @property
    def keys(self) -> list[asyncssh.SSHKey]:
        return list(self.match()[0])  # type: ignore[arg-type]

    def problem(self, offered: asyncssh.SSHKey | None, detail: str) -> Unreachable:
        """The sentence for a key that was not accepted; `offered` is None for a certificate."""
        if "revoked" in detail:
            return HostKeyChanged(
                f"the host key of {self.name} is marked as revoked", "do not connect before its owner has said why"
            )
        if offered is None:
            return Unreachable(
                f"{self.name} shows a host certificate that no file vouches for ({detail})",
                f"add its authority to {self.files[0]} as an @cert-authority line",
                kind="host_key_unknown",
            )
        known = self.keys
        if not known:
            return HostKeyUnknown(self, offered)
        before = ", ".join(key.get_fingerprint() for key in known)
        drop = shlex.join(["ssh-keygen", "-R", self.name, "-f", str(self.files[0])])
        return HostKeyChanged(
            f"the host key of {self.name} has changed: it shows {shown(offered)}, {self.files[0]} has {before}",
            "stop here unless the server was set up anew; if it was, compare the fingerprint with the host's own "
            f"(there: {_ask_there(offered)}), then: {drop} && python -m engine sync --pin {offered.get_fingerprint()}",
        )


def known_host(host: str, port: int, wanted: Sequence[Path]) -> KnownHost:
    """Read what the files say; one that is not there knows nobody.

    Args:
        wanted: the files in their order; none means the person's and the system's.

    Raises:
        UsageError: a file is there and cannot be read.
    """
    files = tuple(wanted) or (Path("~/.ssh/known_hosts").expanduser(), _SYSTEM_KNOWN_HOSTS)
    readable = [str(path) for path in files if path.is_file() and (path in wanted or os.access(path, os.R_OK))]
    try:
        return KnownHost(host, port, files, asyncssh.read_known_hosts(readable))
    except (OSError, ValueError) as error:
        raise UsageError(
            f"cannot read {' or '.join(readable)} ({error})", "mend the line", kind="bad_known_hosts"
        ) from None


def remember(unknown: HostKeyUnknown) -> None:
    """Add the host's line to its file, which is made where there is none.

    Raises:
        UsageError: the file cannot be written.
    """
    try:
        unknown.file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        torn = unknown.file.exists() and unknown.file.read_bytes()[-1:] not in (b"", b"\n")
        handle = os.open(unknown.file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(handle, b"\n" * torn + f"{unknown.line}\n".encode())
            os.fsync(handle)
        finally:
            os.close(handle)
    except OSError as error:
        raise UsageError(
            f"cannot write {unknown.file} ({error.strerror})", "mend its rights, or set source.known_hosts"
        ) from None


def shown(key: asyncssh.SSHKey) -> str:
    """A key as people compare it: `ssh-ed25519 SHA256:...`."""
    return f"{key.get_algorithm()} {key.get_fingerprint()}"


def _ask_there(key: asyncssh.SSHKey) -> str:
    kind = key.get_algorithm().removeprefix("ssh-").partition("-")[0]
    return f"ssh-keygen -lf /etc/ssh/ssh_host_{kind}_key.pub"
