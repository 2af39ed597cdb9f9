"""`service`: both slots and sync as boot services, with what the host has: systemd or launchd.

One service a slot and no parent above both, so that neither falls with the other; sync is a timer. Each name
carries a mark of its workspace, so that several workspaces of one host have services of their own.
"""

from __future__ import annotations

import hashlib
import os
import plistlib
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from engine.cli.verb import Session, Verb
from engine.errors import Failed, UsageError, nearest
from engine.store.files import atomic_write
from engine.store.workspace import SLOTS, TITLES

ACTIONS = ("show", "install", "remove")
PROJECT = Path(__file__).resolve().parents[2]
_DRAIN_SPARE_S = 10


@dataclass(frozen=True)
class Unit:
    """One file of the service manager; `enabled`: it is started now and at boot."""

    name: str
    path: Path
    text: str
    enabled: bool
    command: list[str]

    @property
    def installed(self) -> bool:
        return self.path.is_file() and self.path.read_text(encoding="utf-8") == self.text


@click.command(cls=Verb, words=("show|install|remove", 0, 1))
@click.option("--folder", metavar="DIR", help="Where the units lie, instead of the service manager's own folder.")
def service(session: Session, words: list[str], folder: str | None) -> None:
    """Show, install or remove the boot services of the slots and of sync."""
    action = words[0] if words else "show"
    if action not in ACTIONS:
        raise UsageError(f"unknown action '{action}'", nearest(action, ACTIONS))
    place = Path(folder).expanduser().absolute() if folder else None
    manager = Launchd(session, place) if sys.platform == "darwin" else Systemd(session, place)
    units = manager.units()
    before = all(unit.installed for unit in units)
    notes: list[str] = []
    if action == "install":
        notes = [*manager.install(units), *session.forgotten_secrets(PROJECT)]
    elif action == "remove":
        before = any(unit.path.exists() for unit in units)
        manager.remove(units)
    result = {
        "units": [
            {
                "name": unit.name,
                "path": str(unit.path),
                "installed": unit.installed,
                "enabled": unit.enabled,
                "command": unit.command,
                "text": unit.text,
            }
            for unit in units
        ],
        "action": action,
        "manager": manager.name,
        "scope": manager.scope,
        "changed": (action == "install" and not before) or (action == "remove" and before),
        "notes": notes,
    }
    session.emit(result, _text)


class Systemd:
    """Units of the user's systemd, or of the system's for root."""

    name = "systemd"

    def __init__(self, session: Session, folder: Path | None) -> None:
        self._session = session
        self.scope = "system" if os.geteuid() == 0 else "user"
        home = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
        usual = Path("/etc/systemd/system") if self.scope == "system" else home / "systemd" / "user"
        self.folder = folder or usual

    def units(self) -> list[Unit]:
        """What this session's config asks for: a service a slot, and sync with its timer."""
        mark, settings = _mark(self._session), self._session.settings
        where = _escaped(str(self._session.workspace.root))
        target = "multi-user.target" if self.scope == "system" else "default.target"
        found = []
        for slot in SLOTS:
            command = self._session.engine_command("serve", slot)
            body = [
                "Type=exec",
                "Restart=always",
                "RestartSec=1",
                "KillMode=mixed",
                f"TimeoutStopSec={settings.servers.drain_timeout_s + _DRAIN_SPARE_S:g}",
                f"OOMScoreAdjust={-200 if self.scope == 'system' and slot == 'asis' else 0}",
            ]
            head = [f"Description=Understudy {TITLES[slot]} ({where})"]
            found.append(
                self._unit(f"{mark}-{slot}.service", [*head, "StartLimitIntervalSec=0"], body, command, target)
            )
        head = [f"Description=Understudy sync ({where})"]
        command = self._session.engine_command("sync", "--json")
        found.append(self._unit(f"{mark}-sync.service", head, ["Type=oneshot"], command, None))
        timer = [
            "[Unit]",
            f"Description=Understudy sync every {settings.source.poll_minutes:g} minutes",
            "",
            "[Timer]",
            "OnBootSec=1min",
            f"OnUnitActiveSec={settings.source.poll_minutes * 60:g}s",
            "",
            "[Install]",
            "WantedBy=timers.target",
        ]
        name = f"{mark}-sync.timer"
        return [*found, Unit(name, self.folder / name, "\n".join(timer) + "\n", True, [])]

    def _unit(self, name: str, head: list[str], body: list[str], command: list[str], target: str | None) -> Unit:
        lines = ["[Unit]", *head]
        if self.scope == "system":
            lines += ["Wants=network-online.target", "After=network-online.target"]
        lines += ["", "[Service]", *body, f"WorkingDirectory={_escaped(str(PROJECT))}"]
        lines += [f"ExecStart={' '.join(_quoted(word) for word in command)}"]
        if target:
            lines += ["", "[Install]", f"WantedBy={target}"]
        return Unit(name, self.folder / name, "\n".join(lines) + "\n", target is not None, command)

    def install(self, units: list[Unit]) -> list[str]:
        """Write the units, have them read, enabled and started; returns what the person may still do.

        Raises:
            Failed: this host has no systemctl, or it refuses.
        """
        self._needed()
        former = [unit.name for unit in units if unit.command and unit.path.exists() and not unit.installed]
        for unit in units:
            if not unit.installed:
                atomic_write(unit.path, unit.text)
        self._systemctl("daemon-reload")
        for unit in units:
            if unit.enabled:
                self._systemctl("enable", "--now", unit.name)
        user = ["--user"] if self.scope == "user" else []
        notes = []
        if former:  # production is not interrupted unasked
            restart = " ".join(["systemctl", *user, "try-restart", *former])
            notes.append(f"what runs keeps its former settings until: {restart}")
        if user:
            notes.append(f"so that they start at boot without a login, once: loginctl enable-linger {_account()}")
        return notes

    def remove(self, units: list[Unit]) -> None:
        self._needed()
        present = [unit for unit in units if unit.path.exists()]
        for unit in present:
            if unit.enabled:
                self._systemctl("disable", "--now", unit.name)
        for unit in present:
            unit.path.unlink()
        if present:
            self._systemctl("daemon-reload")

    def _needed(self) -> None:
        if shutil.which("systemctl") is None:
            raise Failed(
                "this host has no systemctl",
                "start the commands of `service show` with what it has, or keep `serve all` running; "
                "sync: cron install",
                kind="no_systemd",
            )

    def _systemctl(self, *words: str) -> None:
        _call(["systemctl", *(["--user"] if self.scope == "user" else []), *words])


class Launchd:
    """Agents of the user's launchd, on macOS."""

    name, scope = "launchd", "user"

    def __init__(self, session: Session, folder: Path | None) -> None:
        self._session = session
        self.folder = folder or Path.home() / "Library" / "LaunchAgents"

    def units(self) -> list[Unit]:
        mark, settings = _mark(self._session), self._session.settings
        kept = {"KeepAlive": True, "ThrottleInterval": 1}
        kept["ExitTimeOut"] = int(settings.servers.drain_timeout_s + _DRAIN_SPARE_S)
        found = [
            self._agent(f"{mark}-{slot}", self._session.engine_command("serve", slot), kept) for slot in SLOTS
        ]
        every = {"StartInterval": int(settings.source.poll_minutes * 60)}
        return [*found, self._agent(f"{mark}-sync", self._session.engine_command("sync", "--json"), every)]

    def _agent(self, label: str, command: list[str], more: dict[str, Any]) -> Unit:
        log = str(self._session.workspace.logs / f"{label}.out")
        value = {
            "Label": label,
            "ProgramArguments": command,
            "WorkingDirectory": str(PROJECT),
            "RunAtLoad": True,
            "StandardErrorPath": log,
            "StandardOutPath": log,
            **more,
        }
        return Unit(label, self.folder / f"{label}.plist", plistlib.dumps(value).decode(), True, command)

    def install(self, units: list[Unit]) -> list[str]:
        self._session.workspace.logs.mkdir(parents=True, exist_ok=True)
        for unit in units:
            if not unit.installed:
                if unit.path.exists():
                    self._launchctl("bootout", f"{self._domain}/{unit.name}")
                atomic_write(unit.path, unit.text)
                self._launchctl("bootstrap", self._domain, str(unit.path))
        return []

    def remove(self, units: list[Unit]) -> None:
        for unit in units:
            if unit.path.exists():
                self._launchctl("bootout", f"{self._domain}/{unit.name}")
                unit.path.unlink()

    @property
    def _domain(self) -> str:
        return f"gui/{os.getuid()}"

    def _launchctl(self, *words: str) -> None:
        _call(["launchctl", *words])


def _mark(session: Session) -> str:
    """`understudy-NAME-HASH`: readable, and one a workspace."""
    root = session.workspace.root.absolute()
    name = re.sub(r"[^A-Za-z0-9]+", "-", root.name).strip("-") or "workspace"
    return f"understudy-{name[:24]}-{hashlib.sha256(os.fsencode(root)).hexdigest()[:6]}"


def _quoted(word: str) -> str:
    """A word of ExecStart as systemd reads it: `%` and `$` are its own, quotes as in C (systemd.service(5))."""
    if "\n" in word:
        raise UsageError("a unit cannot hold a path with a line break", "move the config or the workspace")
    plain = _escaped(word).replace("$", "$$")
    if re.fullmatch(r"[\w@%+=:,./$-]+", plain):
        return plain
    return '"' + plain.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _escaped(text: str) -> str:
    return text.replace("%", "%%")


def _account() -> str:
    import getpass

    return getpass.getuser()


def _call(command: list[str]) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    except OSError as error:
        raise Failed(f"cannot run {command[0]} ({error.strerror})", "check its rights", kind="service") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise Failed(
            f"'{' '.join(command)}' failed ({said[-1] if said else done.returncode})",
            "mend it, then run `service install` again: it goes on where it stopped",
            kind="service",
        )


def _text(result: dict[str, Any]) -> str:
    lines = []
    for unit in result["units"]:
        state = "installed" if unit["installed"] else "not installed"
        lines.append(f"# {unit['path']} ({state})")
        if result["action"] == "show":
            lines += [unit["text"].rstrip(), ""]
    lines += [f"note: {note}" for note in result["notes"]]
    said = {"show": "", "install": "installed and started", "remove": "stopped and removed"}[result["action"]]
    if said:
        lines.append(said if result["changed"] else f"{said} already")
    return "\n".join(lines).rstrip()
