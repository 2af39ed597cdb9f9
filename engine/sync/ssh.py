"""One SSH connection to a source: keys only, known hosts only, and a sentence for everything that can fail."""

from __future__ import annotations

import asyncio
import os
import shlex
import socket
from collections.abc import Sequence
from pathlib import Path

import asyncssh

from engine.config.schema import Source as Place
from engine.errors import UsageError
from engine.sync.source import Unreachable

_SYSTEM_KNOWN_HOSTS = Path("/etc/ssh/ssh_known_hosts")


class _Witness(asyncssh.SSHClient):
    """Accepts no key by itself; keeps the one that was offered and not known, to name it."""

    def __init__(self) -> None:
        self.offered: asyncssh.SSHKey | None = None

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.offered = key
        return False


def account(place: Place) -> str:
    """`user@host` as people write it; without a configured user, the host alone."""
    return f"{place.user}@{place.host}" if place.user else str(place.host)


def known_hosts_files(place: Place) -> list[Path]:
    """The files that say which host keys are trusted: `source.known_hosts`, else the user's and the system's."""
    if place.known_hosts is not None:
        return [place.known_hosts]
    return [Path("~/.ssh/known_hosts").expanduser(), _SYSTEM_KNOWN_HOSTS]


async def connect(place: Place) -> asyncssh.SSHClientConnection:
    """Connect and log in within `source.timeout_s` each.

    Raises:
        UsageError: `source.key` names no usable key, or `source.known_hosts` no readable file.
        Unreachable: no connection, not let in, or a host key that is not known (`host_key_unknown`) or is
            another than the known one (`host_key_changed`); no key is ever accepted by itself.
    """
    witness = _Witness()
    where = f"{account(place)} port {place.port}"
    options: dict[str, object] = {}
    if place.user:
        options["username"] = place.user
    if place.port != 22:  # 22 is the default: leave room for a Port in the user's ssh config
        options["port"] = place.port
    if place.key is not None and (key := _private_key(place.key)) is not None:
        options["client_keys"] = [key]
    try:
        return await asyncssh.connect(
            str(place.host),
            client_factory=lambda: witness,
            known_hosts=_trusted(place),
            preferred_auth="publickey",
            encryption_algs="^aes128-gcm@openssh.com",
            connect_timeout=place.timeout_s,
            login_timeout=place.timeout_s,
            keepalive_interval=max(place.timeout_s / 2, 0.1),
            keepalive_count_max=2,
            **options,
        )
    except asyncssh.HostKeyNotVerifiable as error:
        raise await _host_key_problem(place, witness.offered, str(error)) from None
    except (asyncssh.KeyExchangeFailed, asyncssh.ConnectionLost, ConnectionResetError, BrokenPipeError) as error:
        # A server that no longer has a key of the known kind fails the exchange, or just hangs up.
        if (offered := await _other_kind(place)) is not None:
            raise await _host_key_problem(place, offered, str(error)) from None
        raise Unreachable(
            f"{where} ended the connection before the login ({error})", f"try: {_by_hand(place)}"
        ) from None
    except asyncssh.PermissionDenied:
        raise Unreachable(
            f"{account(place)} does not let this host in with its keys",
            "add the public key to ~/.ssh/authorized_keys there, or set source.user and source.key",
        ) from None
    except TimeoutError:
        raise Unreachable(
            f"no answer from {where} within {place.timeout_s:g} s", "check that it is up and reachable from here"
        ) from None
    except socket.gaierror as error:
        raise Unreachable(f"cannot find the host {place.host} ({error.strerror})", "check source.host") from None
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno is not None and error.errno > 0:
            reason = os.strerror(error.errno)
        raise Unreachable(
            f"cannot connect to {where} ({reason})", "check that the host is up, and source.host and source.port"
        ) from None
    except asyncssh.Error as error:
        raise Unreachable(f"the connection to {where} failed ({error})", f"try: {_by_hand(place)}") from None
    except ValueError as error:
        raise UsageError(
            f"cannot use the SSH settings for {place.host} ({error})", "check ~/.ssh/config and source.*"
        ) from None


def _private_key(path: Path) -> asyncssh.SSHKey | None:
    """The key in the file; None where it is locked by a passphrase and an agent may hold it."""
    hint = "set source.key to a private key of this account (make one with: ssh-keygen -t ed25519)"
    try:
        return asyncssh.read_private_key(path.expanduser())
    except OSError as error:
        raise UsageError(f"cannot read the key {path} ({error.strerror})", hint, kind="bad_key") from None
    except (asyncssh.KeyImportError, asyncssh.KeyEncryptionError) as error:
        locked = "passphrase" in str(error).lower()
        if locked and os.environ.get("SSH_AUTH_SOCK"):
            return None
        if locked:
            hint = "load it into an SSH agent (ssh-add), or use a key without one for cron"
        raise UsageError(f"cannot use the key {path} ({error})", hint, kind="bad_key") from None


def _trusted(place: Place) -> object:
    """The known hosts for asyncssh: never None, which would mean "trust anyone"."""
    if place.known_hosts is not None and not place.known_hosts.is_file():
        raise UsageError(
            f"no known hosts file at {place.known_hosts}", "correct source.known_hosts", kind="bad_known_hosts"
        )
    files = [str(path) for path in known_hosts_files(place) if path.is_file() and os.access(path, os.R_OK)]
    try:
        return asyncssh.read_known_hosts(files)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"cannot read {' or '.join(files)} ({error})", "mend the line", kind="bad_known_hosts"
        ) from None


def _known_keys(place: Place) -> list[asyncssh.SSHKey]:
    """The host keys that are trusted for this place."""
    known = asyncssh.read_known_hosts(
        [str(path) for path in known_hosts_files(place) if path.is_file() and os.access(path, os.R_OK)]
    )
    port = place.port if place.port != 22 else None
    return list(known.match(str(place.host), "", port)[0])


async def _other_kind(place: Place) -> asyncssh.SSHKey | None:
    """The host's key where it has none of the kinds that are known for it, else None."""
    known = _known_keys(place)
    if not known:
        return None
    kinds = [name.decode() for key in known for name in key.sig_algorithms]
    return None if await _ask_key(place, kinds) else await _ask_key(place, ())


async def _ask_key(place: Place, kinds: Sequence[str]) -> asyncssh.SSHKey | None:
    try:
        async with asyncio.timeout(place.timeout_s):
            return await asyncssh.get_server_host_key(str(place.host), place.port, server_host_key_algs=kinds)
    except (OSError, asyncssh.Error):
        return None


async def _host_key_problem(place: Place, offered: asyncssh.SSHKey | None, detail: str) -> Unreachable:
    if "revoked" in detail:
        return Unreachable(
            f"the host key of {place.host} is marked as revoked",
            "do not connect before its owner has said why",
            kind="host_key_changed",
        )
    shown = f"{offered.get_algorithm()} {offered.get_fingerprint()}" if offered else "a certificate"
    file = known_hosts_files(place)[0]
    name = str(place.host) if place.port == 22 else f"[{place.host}]:{place.port}"
    known = _known_keys(place)
    if known:
        before = ", ".join(key.get_fingerprint() for key in known)
        return Unreachable(
            f"the host key of {name} has changed: it shows {shown}, {file} has {before}",
            "stop here unless the server was set up anew; if it was, compare the fingerprint on its own console, then: "
            f"ssh-keygen -R {shlex.quote(name)} -f {shlex.quote(str(file))} && {_by_hand(place)}",
            kind="host_key_changed",
        )
    return Unreachable(
        f"the host key of {name} is not known: it shows {shown}, and {file} has none for it",
        f"compare the fingerprint on the server's own console, then accept it once with: {_by_hand(place)}",
        kind="host_key_unknown",
    )


def _by_hand(place: Place) -> str:
    words = ["ssh"]
    if place.port != 22:
        words += ["-p", str(place.port)]
    if place.known_hosts is not None:
        words += ["-o", f"UserKnownHostsFile={place.known_hosts}"]
    return shlex.join([*words, account(place)])
