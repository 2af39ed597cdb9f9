"""`demo`: the whole road on the embedded digits, driven through the same commands that a person types."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from engine.cli.verb import Session, Verb
from engine.errors import Failed, UsageError
from engine.release.control import slot_stats
from engine.store.files import atomic_write
from engine.store.workspace import SLOTS, Workspace

_MARKER = "demo.json"
_SHORT_EPOCHS = 1
_READY_S = 60.0


@click.command(cls=Verb)
def demo(session: Session) -> int:
    """Train, sync, serve, compare, promote and roll back on embedded data, in a fresh workspace."""
    workspace = _fresh_workspace(session)
    ports = _ports(session)
    config = workspace.root / "config.toml"
    atomic_write(
        config, "".join(f"[servers.{slot}]\nport = {port}\n" for slot, port in zip(SLOTS, ports, strict=True))
    )
    atomic_write(workspace.root / _MARKER, json.dumps({"made_by": "python -m engine demo"}) + "\n")
    session.say(f"The road on 1,797 handwritten digits, in {workspace.root}\n")
    road = _Road(session, workspace, config)
    try:
        road.drive(ports)
    finally:
        road.stop_serving()
    ok = all(stage["ok"] for stage in road.stages)
    session.emit(
        {"stages": road.stages, "ok": ok, "workspace": str(workspace.root), "config": str(config)},
        lambda _: _closing(ok, road.stages, workspace),
    )
    return 0 if ok else 1


@dataclass
class _Road:
    """Runs the stages one after another; the first that fails is the last."""

    session: Session
    workspace: Workspace
    config: Path
    stages: list[dict[str, Any]] = field(default_factory=list)
    server: subprocess.Popen[bytes] | None = None

    def drive(self, ports: tuple[int, int]) -> None:
        backup = ""

        def promote_2() -> tuple[str, dict[str, Any]]:
            nonlocal backup
            detail, figures = self._promote("promote")
            backup = figures["backup"]
            return detail, figures

        steps: list[tuple[str, Callable[[], tuple[str, dict[str, Any]]]]] = [
            ("train_1", lambda: self._train("training.cycle=1", f"training.epochs={_SHORT_EPOCHS}")),
            ("sync_1", self._sync),
            ("serve", lambda: self._serve(ports)),
            (
                "promote_1",
                lambda: self._promote("promote", "--force", "--reason", "the first release has no rival"),
            ),
            ("train_2", lambda: self._train("training.cycle=2")),
            ("sync_2", self._sync),
            ("compare", self._compare),
            ("promote_2", promote_2),
            ("rollback", lambda: self._rollback(backup)),
        ]
        for name, step in steps:
            started = time.monotonic()
            try:
                detail, figures = step()
                ok = True
            except Failed as error:
                detail, figures, ok = str(error), {}, False
            seconds = round(time.monotonic() - started, 2)
            self.stages.append(
                {"name": name, "ok": ok, "seconds_s": seconds, "detail": detail, "figures": figures}
            )
            self.session.say(f"{'●' if ok else '✗'} {name:<10} {seconds:>6.1f} s  {detail}")
            if not ok:
                return

    def stop_serving(self) -> None:
        if self.server and self.server.poll() is None:
            self.server.send_signal(signal.SIGTERM)
            try:
                self.server.wait(30)
            except subprocess.TimeoutExpired:
                self.server.kill()
                self.server.wait()

    def _engine(self, *words: str) -> dict[str, Any]:
        command = self._command(words[0], *self.session.overrides, *words[1:], "--json")
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=_quiet_environment())
        try:
            answer = dict(json.loads(done.stdout))
        except json.JSONDecodeError:
            answer = {}
        if done.returncode != 0 or not answer:
            last = done.stderr.strip().splitlines()[-1:] or [f"exit {done.returncode}"]
            raise Failed(f"{words[0]} failed", last[0])
        return answer

    def _command(self, *words: str) -> list[str]:
        place = ["--config", str(self.config), "--workspace", str(self.workspace.root)]
        return [sys.executable, "-m", "engine", *place, *words]

    def _train(self, *overrides: str) -> tuple[str, dict[str, Any]]:
        result = self._engine("train", *overrides)
        best = result["best"]
        return (
            f"{Path(result['checkpoint']).name}: validation accuracy {best['accuracy']:.2%}"
            f" at epoch {best['epoch']} of {result['epochs']}, {result['samples_per_s']:,.0f} images/s on {result['device']}",
            result,
        )

    def _sync(self) -> tuple[str, dict[str, Any]]:
        result = self._engine("sync")
        if not result["deployed"]:
            raise Failed("nothing was deployed", json.dumps(result["skipped"]))
        candidate = result["candidate"]
        return f"{Path(candidate['path']).name} checked, release {result['release'][:8]} on TO-BE", result

    def _serve(self, ports: tuple[int, int]) -> tuple[str, dict[str, Any]]:
        log = self.workspace.logs / "serve.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as stream:
            self.server = subprocess.Popen(
                self._command("serve", "all", *self.session.overrides),
                stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, env=_quiet_environment(),
            )  # fmt: skip
        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline:
            if self.server.poll() is not None:
                break
            states = {slot: (slot_stats(self.workspace, slot) or {}).get("state") for slot in SLOTS}
            if states == {"asis": "empty", "tobe": "live"}:
                return f"AS-IS empty on {ports[0]}, TO-BE live on {ports[1]}", {"ports": list(ports)}
            time.sleep(0.05)
        raise Failed("the slots did not come up", f"see {log}")

    def _compare(self) -> tuple[str, dict[str, Any]]:
        result = self._engine("ab")
        low, high = result["difference_ci95"]
        winner = {"asis": "AS-IS", "tobe": "TO-BE"}.get(result["verdict"], result["verdict"])
        return (
            f"AS-IS {result['asis']['accuracy']:.2%}, TO-BE {result['tobe']['accuracy']:.2%} on {result['n']} unseen"
            f" images, gap {100 * result['difference']:+.1f} points [{100 * low:+.1f}, {100 * high:+.1f}],"
            f" p {result['p_value']:.2g}, winner: {winner}",
            result,
        )

    def _promote(self, *words: str) -> tuple[str, dict[str, Any]]:
        result = self._engine(*words)
        before = (result["from"] or "empty")[:8]
        how = "forced" if result["forced"] else "through the gate"
        kept = f", backup {result['backup']}" if result["backup"] else ""
        return f"AS-IS {before} → {result['to'][:8]}, {how}{kept}", result

    def _rollback(self, backup: str) -> tuple[str, dict[str, Any]]:
        result = self._engine("rollback", backup)
        return f"AS-IS {result['from'][:8]} → {result['restored'][:8]}, backup {result['backup_made']}", result


def _fresh_workspace(session: Session) -> Workspace:
    """The workspace named, emptied when it is an earlier demo's; the default one gets a folder of its own."""
    explicit = session.loaded.origins.get("workspace") in ("command line", "environment")
    root = session.workspace.root if explicit else session.workspace.root / "demo"
    workspace = Workspace(root)
    if root.exists() and any(root.iterdir()):
        if not (root / _MARKER).exists():
            raise UsageError(
                f"the workspace {root} is in use and is not a demo's", "give an empty one with --workspace DIR"
            )
        if any(slot_stats(workspace, slot) for slot in SLOTS):
            raise UsageError(f"servers still run on the demo's workspace {root}", "stop them first (Ctrl-C there)")
        shutil.rmtree(root)
    root.mkdir(parents=True, exist_ok=True)
    return workspace


def _ports(session: Session) -> tuple[int, int]:
    """The configured ports, or two free ones where another program has either."""
    wanted = session.settings.servers
    ports = (wanted.asis.port, wanted.tobe.port)
    if all(_is_free(wanted.host, port) for port in ports):
        return ports
    with socket.socket() as first, socket.socket() as second:
        for probe in (first, second):
            probe.bind((wanted.host, 0))
        free = (first.getsockname()[1], second.getsockname()[1])
    session.say(f"ports {ports[0]} and {ports[1]} are taken; the demo uses {free[0]} and {free[1]}")
    return free


def _is_free(host: str, port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def _quiet_environment() -> dict[str, str]:
    """The demo's children post no messages and see no other workspace or config."""
    silent = {"DISCORD_WEBHOOK_URL": "", "TELEGRAM_BOT_TOKEN": "", "TELEGRAM_CHAT_ID": ""}
    ours = ("UNDERSTUDY_CONFIG", "UNDERSTUDY_WORKSPACE", "UNDERSTUDY_ENVIRONMENT")
    return {name: value for name, value in os.environ.items() if name not in ours} | silent


def _closing(ok: bool, stages: list[dict[str, Any]], workspace: Workspace) -> str:
    total = sum(stage["seconds_s"] for stage in stages)
    if not ok:
        return f"\nfailed at {stages[-1]['name']} after {total:.0f} s"
    place = f"--config {workspace.root}/config.toml --workspace {workspace.root}"
    return (
        f"\nThe whole road in {total:.0f} s; nothing is left running. Look at what it left behind:\n"
        f"  python -m engine {place} status\n  python -m engine {place} events"
    )
