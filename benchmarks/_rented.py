"""A "rented" host on loopback: a real sshd with a home of its own, which can lose its line, its power and come back."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import Self

import psutil

from engine.config.schema import CloudSsh
from tests.conftest import PATIENCE_S, free_port

SSHD = Path("/usr/sbin/sshd")
_THREADS = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY")
_SFTP = ("/usr/lib/openssh/sftp-server", "/usr/libexec/openssh/sftp-server", "/usr/libexec/sftp-server")


def missing() -> str | None:
    """Why there can be no such host here; None where there can."""
    if not SSHD.exists() or shutil.which("ssh-keygen") is None or not any(Path(path).exists() for path in _SFTP):
        return "no OpenSSH server on this host"
    return None if Path("/proc/self/environ").exists() else "the host's part is for Linux"


class Rented:
    """The host below `folder`; used as a context manager, at whose end nothing of it lives."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "home"
        self.home.mkdir(parents=True)
        for key in ("user", "host"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
        self.port = free_port()
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {(folder / 'host.pub').read_text()}")
        sftp = next(path for path in _SFTP if Path(path).exists())
        # a number of threads that is set here holds there too: the same sums in the same order
        there = {"HOME": str(self.home), **{name: os.environ[name] for name in _THREADS if name in os.environ}}
        there_words = " ".join(f"{name}={value}" for name, value in there.items())
        (folder / "sshd_config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\n"
            f"PidFile none\nStrictModes no\nUsePAM no\nSetEnv {there_words}\nPermitRootLogin yes\n"
            f"Subsystem sftp {sftp}\nMaxStartups 100\n"
        )
        self._server: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.power_on()
        return self

    def __exit__(self, *exception: object) -> None:
        self.power_off()

    def settings(self, **more: object) -> CloudSsh:
        """`[cloud.ssh]` as its owner writes it; the root is absolute, for sshd starts in the account's real home."""
        place = {"address": "127.0.0.1", "port": self.port, "user": getpass.getuser(), "key": self.folder / "user"}
        place |= {
            "known_hosts": self.folder / "known_hosts",
            "root": str(self.home / "understudy"),
            "timeout_s": PATIENCE_S,
        }
        return CloudSsh.model_validate(place | more)

    def words(self, **more: object) -> list[str]:
        """The same as overrides of a command line."""
        shown = self.settings(**more).model_dump(mode="json", exclude_unset=True)
        return [f"cloud.ssh.{key}={value}" for key, value in shown.items()]

    def power_on(self) -> None:
        if os.geteuid() == 0:
            Path("/run/sshd").mkdir(exist_ok=True)
        with (self.folder / "sshd.log").open("ab") as log:
            self._server = subprocess.Popen(
                [str(SSHD), "-D", "-e", "-f", str(self.folder / "sshd_config")], stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline and self._server.poll() is None:
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        raise RuntimeError(f"sshd does not start: {(self.folder / 'sshd.log').read_text()[-300:]}")

    def power_off(self) -> None:
        """What a pulled plug does: the server and everything that lives in this home, at once and unasked."""
        if self._server is None:
            return
        while found := [*self._of_server(), *self.processes()]:
            for process in found:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            self._server.poll()
            time.sleep(0.02)
        self._server.wait(PATIENCE_S)
        self._server = None

    def cut(self) -> int:
        """Break every connection that is open, as a network does; how many there were."""
        open_ones = self._of_server()[1:]
        for process in open_ones:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        return len(open_ones)

    def processes(self) -> list[psutil.Process]:
        """Everything that lives in this host's home: what a login has started, and its descendants."""
        found, wanted = [], str(self.home)
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error, OSError):
                if process.environ().get("HOME") == wanted and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def training(self) -> list[psutil.Process]:
        """Of these the trainings and what they have started."""
        return [process for process in self.processes() if self._marked(process)]

    def _marked(self, process: psutil.Process) -> bool:
        try:
            return "UNDERSTUDY_JOB" in process.environ()
        except (psutil.Error, OSError):
            return False

    def _of_server(self) -> list[psutil.Process]:
        """The server first, then the processes of its connections."""
        assert self._server is not None
        try:
            server = psutil.Process(self._server.pid)
            # what a login runs is a descendant too, and not the line's
            return [server, *(process for process in server.children(recursive=True) if _is_line(process))]
        except psutil.NoSuchProcess:
            return []


def _is_line(process: psutil.Process) -> bool:
    try:
        return "sshd" in process.name() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
