"""What the admission child gives up before it touches a file: network, programs, other files, endless time.

Four layers, each taken where the host allows it: a network namespace without an interface, a filter of
system calls (no sockets, no programs, no other processes), Landlock (writes below the scratch folder alone),
and limits on CPU time, file size and core files, which always hold. The parent watches memory and takes
secrets out of the environment. `python -m engine.release.sandbox PARENT SCRATCH` prints which layers hold on this host.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import signal
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from engine.release import kernel

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Layers:
    """Which layers are in force: `namespace` (no network interface), `calls` (seccomp), `files` (Landlock)."""

    namespace: bool
    calls: bool
    files: bool

    @property
    def isolated(self) -> bool:
        """Whether the network is out of reach, by one way or the other."""
        return self.namespace or self.calls

    def __str__(self) -> str:
        words = {
            "no network (namespace)": self.namespace,
            "no sockets, no programs (seccomp)": self.calls,
            "writes to its scratch folder alone (Landlock)": self.files,
        }
        held = [word for word, holds in words.items() if holds]
        return ", ".join([*held, "limits on time, memory and file size"])


def enter(parent: int, cpu_s: int, file_bytes: int, scratch: Path) -> Layers:
    """Shut this process in. Call it first, while there is one thread.

    Args:
        parent: the pid that must be our parent; when it dies, so do we.
        scratch: the one folder that may be written.

    Returns:
        The layers that hold.
    """
    _lower(resource.RLIMIT_CORE, 0)
    _lower(resource.RLIMIT_CPU, cpu_s)
    _lower(resource.RLIMIT_FSIZE, file_bytes)
    if sys.platform != "linux":
        return Layers(namespace=False, calls=False, files=False)
    libc = ctypes.CDLL(None, use_errno=True)
    namespace = _leave_network(libc)
    kernel.no_new_privileges()
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # after unshare, which clears it
    if os.getppid() != parent:
        os._exit(1)
    files = kernel.write_only_below(scratch)
    return Layers(namespace=namespace, calls=kernel.forbid_calls(), files=files)


def _lower(kind: int, wanted: int) -> None:
    _, hard = resource.getrlimit(kind)
    limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(kind, (limit, limit))


def _leave_network(libc: ctypes.CDLL) -> bool:
    """Into a network without an interface, and a user namespace: root there has no power outside it."""
    uid, gid = os.getuid(), os.getgid()
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        return bool(libc.unshare(_CLONE_NEWNET) == 0)  # root on a host that forbids user namespaces
    for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
        try:
            with open(f"/proc/self/{name}", "w") as stream:  # noqa: PTH123 - no pathlib yet: we are not settled
                stream.write(text)
        except OSError:  # without a map we are "nobody" there, and still who we are to the file system
            break
    return True


def main() -> None:
    """Enter as the child does and print the layers as JSON: `sandbox PARENT SCRATCH`."""
    sys.stdout.write(json.dumps(asdict(enter(int(sys.argv[1]), 10, 1 << 20, Path(sys.argv[2])))) + "\n")


if __name__ == "__main__":
    main()
