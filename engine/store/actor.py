"""Who acts: the person, not the account that they borrowed."""

from __future__ import annotations

import base64
import binascii
import getpass
import hashlib
import os
import pwd
from pathlib import Path

_NO_LOGIN = 2**32 - 1  # /proc/self/loginuid of what no person started, cron's children among them


def actor() -> str:
    """Who acts, as "alice", "alice as root", "alice via ssh 10.0.0.7, key SHA256:Gz...".

    The person is who logged in (the kernel keeps that through `su` and sudo, and no variable can say otherwise),
    else who called sudo, else the account.
    The key is the one that the SSH session was opened with; sshd tells it with `ExposeAuthInfo yes`.
    """
    account = getpass.getuser()
    person = _login() or os.environ.get("SUDO_USER") or account
    words = person if person == account else f"{person} as {account}"
    came_from = os.environ.get("SSH_CONNECTION", "").split()
    if came_from:
        words += f" via ssh {came_from[0]}"
        if key := _ssh_key():
            words += f", key {key}"
    return words


def _login() -> str | None:
    try:
        number = int(Path("/proc/self/loginuid").read_text())
        return None if number == _NO_LOGIN else pwd.getpwuid(number).pw_name
    except (OSError, ValueError, KeyError):
        return None  # another system, or an account that is gone


def _ssh_key() -> str | None:
    """The fingerprint, as `ssh-keygen -l` prints it, of the public key in sshd's `SSH_USER_AUTH` file."""
    path = os.environ.get("SSH_USER_AUTH")
    if not path:
        return None
    try:
        lines = Path(path).read_text(errors="replace").splitlines()
    except OSError:
        return None  # sshd removes it with the session; a command that outlives it has no key to tell
    for line in lines:
        method, _, rest = line.partition(" ")
        fields = rest.split()
        if method == "publickey" and len(fields) == 2:
            try:
                digest = hashlib.sha256(base64.b64decode(fields[1], validate=True)).digest()
            except binascii.Error:
                continue
            return "SHA256:" + base64.b64encode(digest).decode().rstrip("=")
    return None
