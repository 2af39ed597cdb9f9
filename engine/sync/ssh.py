"""One SSH connection to a source: keys only, known hosts only, and a sentence for everything that can fail.

The way there is the one that `ssh` would take: aliases, users, ports, keys and jump hosts of the person's
`~/.ssh/config` count, and `source.*` goes before them. Each host on the way shows its own known key.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.config.schema import Source as Place
from engine.errors import UsageError
from engine.sync.hostkeys import PORT, HostKeyOther, HostKeyUnknown, KnownHost, known_host, remember
from engine.sync.library import asyncssh
from engine.sync.source import Unreachable

_CONFIGS = ("~/.ssh/config", "/etc/ssh/ssh_config")
_MOST_JUMPS = 8


class _Witness(asyncssh.SSHClient):
    """Accepts no key by itself; keeps the one that was offered and not known, to name it."""

    def __init__(self) -> None:
        self.offered: asyncssh.SSHKey | None = None

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        self.offered = key
        return False


@dataclass(frozen=True)
class _Hop:
    """One host on the way, as asked for; asyncssh fills in the rest from the person's config."""

    asked: str
    options: dict[str, Any]
    place: Place

    def resolved(self) -> asyncssh.SSHClientConnectionOptions:
        return asyncssh.SSHClientConnectionOptions(host=self.asked, known_hosts=(), **self.options)


def account(place: Place) -> str:
    """`user@host` as people write it; without a configured user, the host alone."""
    return f"{place.user}@{place.host}" if place.user else str(place.host)


async def connect(place: Place) -> asyncssh.SSHClientConnection:
    """Connect and log in, over the jump hosts that the person's SSH config names; `source.timeout_s` for each.

    Raises:
        UsageError: `source.key` names no usable key, or a file of SSH settings cannot be used.
        HostKeyUnknown, HostKeyChanged: no key is ever accepted by itself.
        Unreachable: no connection, or not let in.
    """
    options: dict[str, Any] = {}
    if place.user:
        options["username"] = place.user
    if place.port != PORT:  # the default leaves room for a Port in the person's config
        options["port"] = place.port
    if place.key is not None and (key := _private_key(place.key)) is not None:
        options["client_keys"] = [key]
    return await _reach(_Hop(str(place.host), {**_common(place), **options}, place), ())


async def pin(place: Place, fingerprint: str) -> str | None:
    """Make the host key with this fingerprint known, if it is the one that an unknown host on the way shows.

    Returns:
        The file that the line was added to; None when every host on the way is known already.

    Raises:
        HostKeyOther: an unknown host shows another key; nothing was written.
        HostKeyChanged, Unreachable, UsageError: as `connect`.
    """
    try:
        connection = await connect(place)
    except HostKeyUnknown as unknown:
        if unknown.fingerprint != fingerprint:
            raise HostKeyOther(unknown, fingerprint) from None
        remember(unknown)
        return str(unknown.file)
    connection.abort()
    return None


def _common(place: Place) -> dict[str, Any]:
    return {
        "config": [path for name in _CONFIGS if os.access(path := Path(name).expanduser(), os.R_OK)],
        "preferred_auth": "publickey",
        "encryption_algs": "^aes128-gcm@openssh.com",
        "connect_timeout": place.timeout_s,
        "login_timeout": place.timeout_s,
        "keepalive_interval": max(place.timeout_s / 2, 0.1),
        "keepalive_count_max": 2,
    }


async def _reach(hop: _Hop, before: tuple[str, ...]) -> asyncssh.SSHClientConnection:
    """Connect to a host, first to those that its config puts before it."""
    try:
        found = hop.resolved()
    except (OSError, ValueError, asyncssh.KeyImportError) as error:
        raise UsageError(
            f"cannot use the SSH settings for {hop.asked} ({error})", "check ~/.ssh/config and source.*"
        ) from None
    if hop.asked in before or len(before) > _MOST_JUMPS:
        raise UsageError(f"the jump hosts of {before[0]} lead in a circle", "check ProxyJump in ~/.ssh/config")
    tunnel: asyncssh.SSHClientConnection | None = None
    jumps = found.tunnel.split(",") if isinstance(found.tunnel, str) and found.tunnel != "none" else []
    try:
        for jump in jumps:
            tunnel = (
                await _log_in(_jump(jump, hop.place), tunnel)
                if tunnel
                else await _reach(_jump(jump, hop.place), (*before, hop.asked))
            )
        return await _log_in(hop, tunnel)
    except BaseException:
        if tunnel is not None:
            tunnel.abort()
        raise


def _jump(words: str, place: Place) -> _Hop:
    """The host that a ProxyJump names: `[user@]host[:port]`, or an alias of the config."""
    user, _, rest = words.strip().rpartition("@")
    host, colon, port = rest.rpartition(":")
    options = _common(place)
    if user:
        options["username"] = user
    if colon and port.isdigit():
        options["port"] = int(port)
    return _Hop((host if colon and port.isdigit() else rest).strip("[]"), options, place)


async def _log_in(hop: _Hop, tunnel: asyncssh.SSHClientConnection | None) -> asyncssh.SSHClientConnection:
    found, place = hop.resolved(), hop.place
    known = known_host(found.host_key_alias or found.host, found.port, _known_hosts_files(found, place))
    if found.host_key_alias:
        known = KnownHost(known.host, PORT, known.files, known.entries)  # as OpenSSH writes an alias
    where, witness = f"{found.username}@{hop.asked} port {found.port}", _Witness()
    try:
        connection = await asyncssh.connect(
            hop.asked,
            client_factory=lambda: witness,
            known_hosts=lambda host, address, port: known.match(address),
            tunnel=tunnel,
            **hop.options,
        )
    except asyncssh.HostKeyNotVerifiable as error:
        raise known.problem(witness.offered, str(error)) from None
    except (asyncssh.KeyExchangeFailed, asyncssh.ConnectionLost, ConnectionResetError, BrokenPipeError) as error:
        # A server that no longer has a key of the known kind fails the exchange, or just hangs up.
        if (offered := await _other_kind(known, found, tunnel, place.timeout_s)) is not None:
            raise known.problem(offered, str(error)) from None
        raise Unreachable(
            f"{where} ended the connection before the login ({error})", f"try: {_by_hand(hop)}"
        ) from None
    except asyncssh.PermissionDenied:
        raise Unreachable(
            f"{found.username}@{hop.asked} does not let this host in with its keys",
            "add the public key to ~/.ssh/authorized_keys there, or set source.user and source.key",
            kind="login_refused",
        ) from None
    except TimeoutError:
        raise Unreachable(
            f"no answer from {where} within {place.timeout_s:g} s", "check that it is up and reachable from here"
        ) from None
    except socket.gaierror as error:
        raise Unreachable(f"cannot find the host {found.host} ({error.strerror})", "check source.host") from None
    except asyncssh.ChannelOpenError as error:
        raise Unreachable(
            f"the jump host cannot reach {where} ({error.reason})", f"try: {_by_hand(hop)}"
        ) from None
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno is not None and error.errno > 0:
            reason = os.strerror(error.errno)
        raise Unreachable(
            f"cannot connect to {where} ({reason})", "check that the host is up, and source.host and source.port"
        ) from None
    except asyncssh.Error as error:
        raise Unreachable(f"the connection to {where} failed ({error})", f"try: {_by_hand(hop)}") from None
    except ValueError as error:
        raise UsageError(
            f"cannot use the SSH settings for {hop.asked} ({error})", "check ~/.ssh/config and source.*"
        ) from None
    if tunnel is not None:
        connection.set_tunnel(tunnel)  # so that it ends with the connection that it carries
    return connection


def _known_hosts_files(found: asyncssh.SSHClientConnectionOptions, place: Place) -> list[Path]:
    """`source.known_hosts` for every host on the way, else the files that the person's config names, if any."""
    if place.known_hosts is not None:
        return [place.known_hosts.expanduser()]
    named = found.known_hosts if isinstance(found.known_hosts, list) else []
    return [Path(name).expanduser() for name in named]


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


async def _other_kind(
    known: KnownHost,
    found: asyncssh.SSHClientConnectionOptions,
    tunnel: asyncssh.SSHClientConnection | None,
    timeout_s: float,
) -> asyncssh.SSHKey | None:
    """The host's key where it has none of the kinds that are known for it, else None."""

    async def ask(kinds: Sequence[str]) -> asyncssh.SSHKey | None:
        try:
            async with asyncio.timeout(timeout_s):
                return await asyncssh.get_server_host_key(
                    found.host, found.port, server_host_key_algs=kinds, tunnel=tunnel, config=[]
                )
        except (OSError, asyncssh.Error):
            return None

    kinds = [name.decode() for key in known.keys for name in key.sig_algorithms]
    return None if not kinds or await ask(kinds) else await ask(())


def _by_hand(hop: _Hop) -> str:
    words = ["ssh"]
    if "port" in hop.options:
        words += ["-p", str(hop.options["port"])]
    if hop.place.known_hosts is not None:
        words += ["-o", f"UserKnownHostsFile={hop.place.known_hosts}"]
    user = hop.options.get("username")
    return shlex.join([*words, f"{user}@{hop.asked}" if user else hop.asked])
