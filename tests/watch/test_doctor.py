"""`doctor` on workspaces with one thing wrong at a time."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.release.slots import pointer_path
from engine.store.events import append_event
from engine.store.workspace import Workspace
from tests.conftest import Result
from tests.release.bundles import PORT, make_release, put


def checks(result: Result) -> dict[str, dict[str, Any]]:
    return {check["name"]: check for check in result.json["checks"]}


def test_an_empty_workspace_is_well(engine: Callable[..., Result], workspace: Workspace) -> None:
    done = engine("doctor", "--json")
    assert (done.code, done.json["ok"]) == (0, True), done.out
    for check in done.json["checks"]:
        assert {"name", "ok", "detail", "fix"} <= check.keys()
    found = checks(done)
    assert {
        "python",
        "packages",
        "config",
        "workspace",
        "disk",
        "source",
        "checkpoint",
        "AS-IS port",
    } <= found.keys()
    assert {"devices", "clock", "messages", "cron", "locks", "audit log", "backups"} <= found.keys()
    assert "all is well" in engine("doctor").out
    assert not workspace.root.exists()


def test_the_best_checkpoint_is_looked_at_as_a_person_does(
    engine: Callable[..., Result], workspace: Workspace
) -> None:
    folder = workspace.root / "checkpoints" / "checkpoints_cycle3"
    folder.mkdir(parents=True)
    best = folder / "best_model_cycle3.pth"
    best.write_bytes(b"0" * 5_000_000)
    best.chmod(0o600)
    found = checks(engine("doctor", "--json"))
    assert "cycle 3" in found["checkpoint"]["detail"]
    assert "5.0 MB, normal" in found["checkpoint size"]["detail"]
    assert found["checkpoint rights"]["fix"].startswith("chmod 644")
    assert found["checkpoint rights"]["ok"]
    assert "new" in found["checkpoint hash"]["detail"]
    best.write_bytes(b"")
    done = engine("doctor", "--json")
    assert done.code == 1
    assert not checks(done)["checkpoint size"]["ok"]


def test_a_source_out_of_reach(engine: Callable[..., Result], tmp_path: Path) -> None:
    done = engine("doctor", "--json", f"source.root={tmp_path / 'gone'}")
    assert done.code == 1
    assert not checks(done)["source"]["ok"]
    assert checks(done)["source"]["fix"]
    key = tmp_path / "key"
    key.write_text("x")
    key.chmod(0o644)
    remote = ("source.kind=ssh", "source.host=127.0.0.1", "source.port=1", "source.root=x", f"source.key={key}")
    done = engine("doctor", "--json", *remote)
    assert checks(done)["source key"]["fix"] == f"chmod 600 {key}"
    assert not checks(done)["source"]["ok"]


def test_a_port_that_another_process_holds(engine: Callable[..., Result], config: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        done = engine("doctor", "--json", f"servers.asis.port={other.getsockname()[1]}")
    assert done.code == 1
    port = checks(done)["AS-IS port"]
    assert not port["ok"]
    assert str(os.getpid()) in port["detail"]


@pytest.mark.parametrize("damage", ["release", "pointer", "backup", "log", "journal"])
def test_what_is_damaged_is_named(
    engine: Callable[..., Result], workspace: Workspace, config: Path, damage: str
) -> None:
    first, second = make_release(workspace, "first"), make_release(workspace, "second", cycle=2)
    put(workspace, "asis", first)
    backup = put(workspace, "asis", second)
    port = (f"servers.asis.port={PORT + 20000}",)  # the backup's name says which port it belongs to
    assert backup
    wanted = workspace.backups / backup.replace(str(PORT), str(PORT + 20000))
    (workspace.backups / backup).rename(wanted)
    index = workspace.state / "backups.json"
    index.write_text(index.read_text().replace(backup, wanted.name))
    well = engine("doctor", "--json", *port)
    assert well.json["ok"], [check for check in well.json["checks"] if not check["ok"]]
    target = {
        "release": second.path,
        "pointer": pointer_path(workspace, "asis"),
        "backup": wanted,
        "log": workspace.events,
        "journal": workspace.journal,
    }[damage]
    if damage == "log":
        lines = target.read_text().splitlines()
        event = json.loads(lines[0])
        target.write_text("\n".join([json.dumps({**event, "subject": "edited"}), *lines[1:]]) + "\n")
    elif damage == "journal":
        target.write_text(json.dumps({"verb": "promote"}))
    else:
        content = bytearray(target.read_bytes())
        content[len(content) // 2] ^= 1
        if damage == "pointer":
            content = content[:40]
        target.chmod(0o644)
        target.write_bytes(content)
    done = engine("doctor", "--json", *port)
    assert done.code == 1
    name = {"release": "AS-IS release", "pointer": "AS-IS release", "log": "audit log"}.get(damage, damage)
    failed = [check["name"] for check in done.json["checks"] if not check["ok"]]
    assert failed == [name]
    assert checks(done)[name]["fix"]


def test_a_clock_that_went_back_and_an_open_env_file(
    engine: Callable[..., Result], workspace: Workspace, config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = time.time() + 86_400
    monkeypatch.setattr(
        "engine.store.events.timestamp", lambda: time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(later))
    )
    append_event(workspace, "started", "asis")
    env = config.parent / ".env"
    env.write_text("")
    env.chmod(0o644)
    found = checks(engine("doctor", "--json"))
    assert not found["clock"]["ok"]
    assert found[".env"]["fix"] == f"chmod 600 {env}"
