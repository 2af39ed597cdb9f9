"""What the admission child gives up before it touches a file: the network, core files, endless time.

Best effort where the kernel decides (a host may forbid namespaces); the limits on time and file size
always hold. The parent watches memory.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_PDEATHSIG, _PR_SET_NO_NEW_PRIVS = 1, 38


def enter(parent: int, cpu_s: int, file_bytes: int) -> bool:
    """Limit this process. Call it first, while there is one thread.

    Args:
        parent: the pid that must be our parent; when it dies, so do we.

    Returns:
        Whether the network was taken away.
    """
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_CPU, cpu_s)
    _lower(resource.RLIMIT_FSIZE, file_bytes)
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    isolated = _leave_network(libc)
    libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # after unshare, which clears it
    if os.getppid() != parent:
        os._exit(1)
    return isolated


def _lower(kind: int, wanted: int) -> None:
    _, hard = resource.getrlimit(kind)
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(kind, (limit, limit))


def _leave_network(libc: ctypes.CDLL) -> bool:
    if libc.unshare(_CLONE_NEWNET) == 0:  # with the right to: no other user namespace is needed
        return True
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        return False
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        try:
            with open(f"/proc/self/{name}", "w") as stream:  # noqa: PTH123 - no pathlib yet: we are not settled
                stream.write(text)
        except OSError:  # without a map we are "nobody" there, and still who we are to the file system
            break
    return True
