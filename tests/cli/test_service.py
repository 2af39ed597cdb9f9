"""The slots as boot services: what is written, enabled and removed, and that a reboot brings the releases back."""

from __future__ import annotations

import contextlib
import json
import os
import plistlib
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine.cli.service import Launchd
from engine.cli.verb import Session
from engine.release.control import slot_stats
from engine.store.workspace import SLOTS, Workspace
from tests.conftest import PATIENCE_S, Result, until
from tests.release.bundles import put
from tests.serving.releases import make_release

Engine = Callable[..., Result]


@pytest.fixture
def systemctl(tmp_path: Path) -> Callable[..., list[str]]:
    """A systemctl that writes down its calls; `systemctl()` gives them, without `--user`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "systemctl"
    script.write_text(f'#!/bin/sh\necho "$@" >> {shlex.quote(str(tmp_path / "calls"))}\n')
    script.chmod(0o755)

    def calls() -> list[str]:
        path = tmp_path / "calls"
        found = path.read_text().replace("--user ", "").splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return found

    return calls


def test_install_writes_and_enables_and_remove_undoes(
    engine: Engine, tmp_path: Path, systemctl: Callable[..., list[str]]
) -> None:
    folder, env = tmp_path / "units", {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}

    def service(action: str, *words: str) -> dict[str, Any]:
        done = engine("service", action, "--folder", str(folder), "--json", *words, env=env)
        assert done.code == 0, done.err
        return done.json

    shown = service("show")
    assert not folder.exists()
    names = [unit["name"].rsplit("-", 1)[1] for unit in shown["units"]]
    assert names == ["asis.service", "tobe.service", "sync.service", "sync.timer"]
    assert systemctl() == []

    done = service("install")
    assert done["changed"]
    assert all(unit["installed"] for unit in done["units"])
    enabled = [unit["name"] for unit in done["units"] if unit["enabled"]]
    assert systemctl() == ["daemon-reload", *(f"enable --now {name}" for name in enabled)]
    assert len(enabled) == 3, "sync is started by its timer alone"
    assert {path.name for path in folder.iterdir()} == {unit["name"] for unit in done["units"]}
    for unit in done["units"]:
        text = Path(unit["path"]).read_text()
        assert "PartOf=" not in text
        assert "Requires=" not in text, "no slot falls with another unit"
    again = service("install")
    assert not again["changed"]
    assert not any("former" in note for note in again["notes"])
    former = next(note for note in service("install", "servers.threads=1")["notes"] if "former" in note)
    assert all(unit["name"] in former for unit in done["units"] if unit["command"])
    systemctl()

    gone = service("remove")
    assert gone["changed"]
    assert systemctl() == [*(f"disable --now {name}" for name in enabled), "daemon-reload"]
    assert not list(folder.iterdir())
    assert not service("remove")["changed"]
    assert systemctl() == []


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_understands_the_units(
    engine: Engine, tmp_path: Path, systemctl: Callable[..., list[str]]
) -> None:
    env = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}"}
    odd = tmp_path / 'odd 100% "name" $HOME'
    folder = tmp_path / "units"
    done = engine("service", "install", "--folder", str(folder), "--workspace", str(odd), "--json", env=env)
    assert done.code == 0, done.err
    units = [unit["path"] for unit in done.json["units"]]
    checked = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    about_ours = [line for line in checked.stderr.splitlines() if "understudy" in line and "man " not in line]
    assert not about_ours
    (line,) = [line for line in Path(units[0]).read_text().splitlines() if line.startswith("ExecStart=")]
    words = shlex.split(line.removeprefix("ExecStart=").replace("$$", "$").replace("%%", "%"))
    assert words == done.json["units"][0]["command"]


def test_a_host_without_systemctl_says_what_to_do_instead(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    done = engine(
        "service", "install", "--folder", str(tmp_path / "u"), "--json", env={"PATH": str(tmp_path / "empty")}
    )
    assert (done.code, done.json["error"]["kind"]) == (1, "no_systemd")
    assert not (tmp_path / "u").exists()
    assert engine("service", "stop").code == 2


def test_the_plists_of_macos(tmp_path: Path, workspace: Workspace, config: Path) -> None:
    session = Session(config=str(config), overrides=[f"workspace={workspace.root}"])
    for unit, verb in zip(Launchd(session, tmp_path).units(), ("asis", "tobe", "sync"), strict=True):
        value = plistlib.loads(unit.text.encode())
        assert value["Label"] == unit.name
        assert value["ProgramArguments"] == unit.command
        assert verb in unit.command
        assert value["RunAtLoad"]
        assert ("KeepAlive" in value) == (verb != "sync") == ("StartInterval" not in value)


@pytest.mark.fault(54)
def test_a_reboot_brings_back_what_was_live(engine: Engine, workspace: Workspace) -> None:
    """Everything dies at once, as with the power; then what the units say is started, as systemd would."""
    held = {slot: make_release(workspace, prefix) for slot, prefix in zip(SLOTS, "ab", strict=True)}
    for slot, release in held.items():
        put(workspace, slot, release)
    units = engine("service", "show", "--json").json["units"]
    commands = [unit["command"] for unit in units if "serve" in unit["command"]]
    for number in (signal.SIGKILL, signal.SIGTERM):
        children = [
            subprocess.Popen(command, cwd=_folder(unit), env={"PATH": "/usr/bin:/bin"}, stdin=subprocess.DEVNULL)
            for unit, command in zip(units, commands, strict=False)
        ]
        try:
            until(lambda: _live(workspace), "both slots live")
            for slot, release in held.items():
                assert (slot_stats(workspace, slot) or {})["release"] == release.id
        finally:
            family = [
                process for child in children for process in psutil.Process(child.pid).children(recursive=True)
            ]
            for child in children:
                child.send_signal(number)
            for process in family if number == signal.SIGKILL else ():
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            for child in children:
                child.wait(PATIENCE_S)
    assert json.loads(engine("status", "--json").out)["slots"]["asis"]["release"] == held["asis"].id


def _live(workspace: Workspace) -> bool:
    return all((slot_stats(workspace, slot) or {}).get("state") == "live" for slot in SLOTS)


def _folder(unit: dict[str, Any]) -> str:
    (line,) = [line for line in unit["text"].splitlines() if line.startswith("WorkingDirectory=")]
    return str(line.removeprefix("WorkingDirectory="))
