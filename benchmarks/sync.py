"""`sync` with nothing to do, as cron runs it: wall time and peak memory of the whole process.

    python -m benchmarks.sync [--json] [--large] [--many N]

Local, and over SSH to an sshd on loopback where there is one; the source's best checkpoint has 8 MB and is
what TO-BE holds. Median of seven child processes; over SSH in turn with a bare `ssh HOST true`, which pays for the
same login. Targets: 0.45 s and 70 MB local, 0.5 s over SSH.

`--large` copies 1 GiB from that sshd too, hashed as it comes, in turn with `rsync` and `scp` over the same cipher
(aes128-gcm): medians of three, of fewer where that would take too long. Targets: at least 0.9 of rsync's speed,
under 120 MB. Needs 2 GiB of disk.

`--many N` starts N at once on a real checkpoint: one deploys it, the others end with exit code 4 and its process's
name. Then the holder of the lock is killed, and the next sync has to deploy the next checkpoint.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import secrets
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from engine.release.slots import Pointer, pointer_path
from engine.store.clock import timestamp
from engine.store.files import atomic_write, digest_file
from engine.store.workspace import Workspace

RUNS = 7
BYTES = 8_000_000
LARGE_RUNS = 3
LARGE_BYTES = 1 << 30
LARGE_S = 90.0  # no further round is begun after that
TARGETS: dict[str, tuple[float, int | None]] = {"local": (0.45, 70_000_000), "ssh, loopback": (0.5, None)}
_COPY = """
import resource, sys
from pathlib import Path
from engine.config.schema import Source
from engine.sync.part import Part
from engine.sync.remote import RemoteSource
words = dict(word.removeprefix("source.").split("=", 1) for word in sys.argv[3:])
with RemoteSource(Source.model_validate(words)) as source:
    source.listing()
    seen = source.look(sys.argv[1])
    print("ready", flush=True)
    sys.stdin.readline()
    with Part(Path(sys.argv[2]), seen.bytes) as part:
        source.fetch(sys.argv[1], seen, part)
        print(part.sha256() == seen.sha256, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, flush=True)
"""
_CHECKPOINTS = """
import sys
from pathlib import Path
import torch
from engine.tasks.images.models import build_model
for seed, folder in enumerate(("checkpoints_cycle1", "later")):
    torch.manual_seed(seed)
    path = Path(sys.argv[1]) / folder / "best_model.pth"
    path.parent.mkdir(parents=True)
    torch.save({"model_state_dict": build_model("litecnn", 3).state_dict(), "epoch": 3, "accuracy": 87.2}, path)
"""
SSHD = Path("/usr/sbin/sshd")
SFTP = [
    Path("/usr/lib/openssh/sftp-server"),
    Path("/usr/libexec/openssh/sftp-server"),
    Path("/usr/libexec/sftp-server"),
]


def main(argv: list[str] | None = None) -> None:
    """Measure and print; with --json one object `{results}`."""
    wanted = sys.argv[1:] if argv is None else argv
    if "--many" in wanted:
        result = _many(int(wanted[wanted.index("--many") + 1]))
        print(json.dumps(result) if "--json" in wanted else "\n".join(f"{key}: {result[key]}" for key in result))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        root = folder / "mycnn"
        workspace = _prepare(folder, root)
        results = [_measure("local", workspace, [f"source.root={root}"])]
        with _sshd(folder) as words:
            if words is not None:
                results.append(
                    _measure("ssh, loopback", workspace, [f"source.root={root}", *words], _bare_login(words))
                )
                if "--large" in wanted:
                    results += _large(folder, words)
    if "--json" in wanted:
        print(json.dumps({"results": results}))
        return
    for result in results:
        if "tool" in result:
            print(
                f"1 GiB by {result['tool']}: {result['wall_s']:.2f} s ({result['of_rsync']:.2f} of rsync's speed)"
                + (f", {result['peak_bytes'] / 1e6:.1f} MB" if result["peak_bytes"] else "")
            )
            continue
        target = f"  (target {result['target_s']} s" if result["target_s"] else ""
        target += f", {result['target_bytes'] / 1e6:.0f} MB" if result["target_bytes"] else ""
        target += ")" if target else ""
        print(
            f"sync with nothing to do, {result['source']}: {result['wall_s']:.3f} s "
            f"(CPU {result['cpu_s']:.3f} s), "
            f"{result['peak_bytes'] / 1e6:.1f} MB{target}"
            + (f"; ssh HOST true: {result['login_s']:.3f} s" if result["login_s"] else "")
        )


def _prepare(folder: Path, root: Path) -> Workspace:
    """A source with one best checkpoint among others, and a TO-BE that holds it already."""
    for cycle in range(1, 9):
        place = root / f"checkpoints_cycle{cycle}"
        place.mkdir(parents=True)
        (place / f"best_model_cycle{cycle}.pth").write_bytes(secrets.token_bytes(BYTES if cycle == 8 else 1000))
        for epoch in range(0, 100, 10):
            (place / f"checkpoint_epoch{epoch}.pth").write_bytes(b"x")
    best = root / "checkpoints_cycle8" / "best_model_cycle8.pth"
    digest = digest_file(best)
    workspace = Workspace(folder / "workspace")
    pointer = Pointer.model_validate(
        {
            "release": digest.sha256,
            "since": timestamp(),
            "precision": "fp32",
            "architecture": "litecnn_pro",
            "checkpoint": {"name": best.name, "sha256": digest.sha256, "md5": digest.md5, "bytes": digest.bytes},
            "transaction": "benchmark",
        }
    )
    atomic_write(pointer_path(workspace, "tobe"), pointer.model_dump_json())
    return workspace


def _measure(source: str, workspace: Workspace, words: list[str], peer: list[str] | None = None) -> dict[str, Any]:
    command = [sys.executable, "-m", "engine", "--workspace", str(workspace.root), "sync", "--json", *words]
    walls, cpus, peaks, logins = [], [], [], []
    for _ in range(RUNS):
        if peer:
            began = time.perf_counter()
            subprocess.run(peer, check=True)
            logins.append(time.perf_counter() - began)
        began = time.perf_counter()
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert child.stdout is not None
        answer = child.stdout.read()
        _, status, usage = os.wait4(child.pid, 0)
        walls.append(time.perf_counter() - began)
        cpus.append(usage.ru_utime + usage.ru_stime)
        peaks.append(usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024))
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != 0 or json.loads(answer)["changed"] is not False:
            raise SystemExit(f"sync did not find nothing to do: {answer.decode()}")
    target_s, target_bytes = TARGETS.get(source, (None, None))
    return {
        "source": source,
        "wall_s": round(statistics.median(walls), 3),
        "cpu_s": round(statistics.median(cpus), 3),
        "peak_bytes": int(statistics.median(peaks)),
        "login_s": round(statistics.median(logins), 3) if logins else None,
        "target_s": target_s,
        "target_bytes": target_bytes,
        "runs": RUNS,
    }


def _options(words: list[str]) -> tuple[dict[str, str], list[str]]:
    """The settings of the source, and what OpenSSH's tools need of them."""
    facts = dict(word.removeprefix("source.").split("=", 1) for word in words)
    return facts, ["-i", facts["key"], "-o", f"UserKnownHostsFile={facts['known_hosts']}", "-F", "none"]


def _bare_login(words: list[str]) -> list[str]:
    facts, options = _options(words)
    return ["ssh", "-p", facts["port"], *options, f"{facts['user']}@{facts['host']}", "true"]


def _many(count: int) -> dict[str, Any]:
    """So many syncs at once, then a killed one; how they ended."""
    with tempfile.TemporaryDirectory() as name:
        root, workspace = Path(name) / "mycnn", Path(name) / "workspace"
        subprocess.run([sys.executable, "-c", _CHECKPOINTS, str(root)], check=True)
        command = [sys.executable, "-m", "engine", "--workspace", str(workspace), "sync", "--json"]
        command += ["source.model=litecnn", "source.classes=cat,dog,owl", "source.img_size=32"]
        command += ["source.mean=0.5,0.5,0.5", "source.std=0.5,0.5,0.5", f"source.root={root}"]

        def start(settle_s: float) -> subprocess.Popen[str]:
            words = [*command, f"source.settle_s={settle_s}"]
            return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

        began = time.monotonic()
        children = [start(count * 0.6) for _ in range(count)]  # held until the last of them has asked
        answers = [(child, json.loads(child.communicate()[0])) for child in children]
        wall_s = time.monotonic() - began
        won = [child.pid for child, answer in answers if child.returncode == 0 and answer["deployed"]]
        named = [
            child
            for child, answer in answers
            if child.returncode == 4 and any(f"(pid {pid})" in answer["error"]["message"] for pid in won)
        ]
        (root / "later").rename(root / "checkpoints_cycle2")
        holder = start(600)
        assert holder.stderr is not None
        holder.stderr.readline()
        holder.kill()
        holder.communicate()
        following = start(0.1)
        answer = json.loads(following.communicate()[0])
        return {
            "started": count,
            "deployed": len(won),
            "exit 4, naming the holder": len(named),
            "wall_s": round(wall_s, 1),
            "deployed after the holder's SIGKILL": bool(answer.get("deployed")),
        }


def _large(folder: Path, words: list[str]) -> list[dict[str, Any]]:
    """One file of 1 GiB by each tool in turn; the peak is that of our own process, on Linux in KiB."""
    large, target = folder / "large.pth", folder / "copy"
    with large.open("wb") as stream:
        for _ in range(LARGE_BYTES >> 20):
            stream.write(secrets.token_bytes(1 << 20))
    facts, options = _options(words)
    options += ["-c", "aes128-gcm@openssh.com"]
    at = f"{facts['user']}@127.0.0.1:{large}"
    shell = " ".join(["ssh", "-p", facts["port"], *options])
    peers = {
        "rsync": ["rsync", "-W", "-e", shell, at, str(target)],
        "scp": ["scp", "-q", "-P", facts["port"], *options, at, str(target)],
    }
    walls: dict[str, list[float]] = {"understudy": [], **{tool: [] for tool in peers if shutil.which(tool)}}
    peak, started = 0, time.monotonic()
    for _ in range(LARGE_RUNS):
        if time.monotonic() - started > LARGE_S:
            break
        for tool, taken in walls.items():
            for path in folder.glob("copy*"):
                path.unlink()
            if tool in peers:
                began = time.perf_counter()
                subprocess.run(peers[tool], check=True)
                taken.append(time.perf_counter() - began)
                continue
            command = [sys.executable, "-c", _COPY, large.name, str(target), *words, f"source.root={folder}"]
            child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdout.readline()
            began = time.perf_counter()
            child.stdin.write("go\n")
            child.stdin.flush()
            right, size = child.stdout.readline().split()
            taken.append(time.perf_counter() - began)
            child.communicate()
            if right != "True":
                raise SystemExit("the copy does not have the content that was promised")
            peak = max(peak, int(size) * 1024)
    medians = {tool: statistics.median(taken) for tool, taken in walls.items()}
    rsync = medians.get("rsync", float("nan"))
    return [
        {
            "tool": tool,
            "bytes": LARGE_BYTES,
            "wall_s": round(wall, 3),
            "of_rsync": round(rsync / wall, 3),
            "peak_bytes": peak if tool == "understudy" else None,
            "runs": len(walls[tool]),
        }
        for tool, wall in medians.items()
    ]


@contextlib.contextmanager
def _sshd(folder: Path) -> Iterator[list[str] | None]:
    """The overrides that point at an sshd of this user's own, or None where there is none to start."""
    sftp = next((path for path in SFTP if path.exists()), None)
    if not SSHD.exists() or sftp is None or shutil.which("ssh-keygen") is None:
        print("no OpenSSH server on this host: local only", file=sys.stderr)
        yield None
        return
    for key in ("user", "host"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/user.pub\n"
        f"PidFile none\nStrictModes no\nUsePAM no\nSetEnv HOME={folder}\nPermitRootLogin yes\nSubsystem sftp {sftp}\n"
    )
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)
    server = subprocess.Popen([str(SSHD), "-D", "-f", str(folder / "sshd_config")], stderr=subprocess.DEVNULL)
    try:
        for _ in range(200):
            with socket.socket() as client:
                if client.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.02)
        yield [
            "source.kind=ssh",
            "source.host=127.0.0.1",
            f"source.port={port}",
            f"source.user={getpass.getuser()}",
            f"source.key={folder}/user",
            f"source.known_hosts={folder}/known_hosts",
        ]
    finally:
        server.terminate()
        server.wait(10)


if __name__ == "__main__":
    main()
