"""The slot's TCP socket, and who has the port when it is taken."""

from __future__ import annotations

import contextlib
import errno
import socket

from engine.errors import Busy, UsageError


def listen_on(host: str, port: int) -> socket.socket:
    """A bound TCP socket; the port is ours alone.

    Raises:
        Busy: another process has the port; it is named where it can be seen.
        UsageError: the host is no address of this machine, or the port needs more rights.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except socket.gaierror as error:
        raise UsageError(f"servers.host '{host}' is no address ({error.strerror})", "use 127.0.0.1") from None
    # Of a name with both, such as localhost, IPv4: that is what clients are told to use.
    family, kind, protocol, _, address = min(found, key=lambda one: one[0] != socket.AF_INET)
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a port in TIME_WAIT is free
        listener.bind(address)
        listener.listen(2048)
        return listener
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise Busy(
                f"port {port} is in use{_by_whom(port)}",
                "stop that process, or set another port (servers.asis.port, servers.tobe.port)",
                kind="port_in_use",
            ) from None
        if error.errno in (errno.EACCES, errno.EADDRNOTAVAIL):
            raise UsageError(
                f"cannot listen on {host} port {port} ({error.strerror})", "set servers.host and the port"
            ) from None
        raise


def _by_whom(port: int) -> str:
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN and connection.laddr.port == port and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return ""
