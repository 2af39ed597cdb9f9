"""The processes: ports, signals, deaths, orphans."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import stat
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psutil
import pytest

from engine.config import Settings
from engine.notify import slots
from engine.release.control import follow, prepare, slot_stats, socket_path
from engine.serving import service
from engine.store.events import read_events
from engine.store.workspace import Workspace
from tests.conftest import PATIENCE_S, Result, free_port
from tests.serving.conftest import Served, freeze, gone, until
from tests.serving.releases import image, make_release, point

HEAVY = ("numpy", "PIL", "onnxruntime", "torch")


def is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


@pytest.mark.fault(41)
def test_a_port_in_use_is_named_with_its_holder(engine: Callable[..., Result], workspace: Workspace) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        for slot in ("tobe", "all"):
            result = engine("serve", slot, "--json", f"servers.tobe.port={port}")
            assert result.code == 4, result
            error = json.loads(result.out.splitlines()[-1])["error"]
            assert error["kind"] == "port_in_use"
            assert str(port) in error["message"]
            assert f"pid {os.getpid()}" in error["message"]
            assert result.err.rstrip().splitlines()[-1].startswith("error: port")
    assert slot_stats(workspace, "asis") is None


@pytest.mark.fault(41)
def test_a_stranger_on_the_port_is_never_taken_for_the_slot(
    engine: Callable[..., Result], workspace: Workspace
) -> None:
    release = make_release(workspace)
    point(workspace, "asis", release)

    class Stranger(BaseHTTPRequestHandler):
        """Says that all is well and that it has the very release."""

        def do_GET(self) -> None:
            body = json.dumps({"ready": True, "live": True, "state": "live", "release": release.id}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_: object) -> None:
            return

    with ThreadingHTTPServer(("127.0.0.1", 0), Stranger) as stranger:
        threading.Thread(target=stranger.serve_forever, daemon=True).start()
        result = engine("status", "--json", f"servers.asis.port={stranger.server_port}")
        assert result.code == 0, result
        assert json.loads(result.out)["slots"]["asis"]["state"] != "live"
        assert not prepare(workspace, "asis", release.id)
        assert not follow(workspace, "asis")
        stranger.shutdown()


@pytest.mark.parametrize("words", [("both",), ("asis", "tobe"), ("asis", "servers.asis.port=70000")])
def test_wrong_usage(engine: Callable[..., Result], words: tuple[str, ...]) -> None:
    assert engine("serve", *words).code == 2


def test_wrong_hosts_and_equal_ports(engine: Callable[..., Result]) -> None:
    assert engine("serve", "asis", "servers.host=192.0.2.1").code == 2
    assert engine("serve", "asis", "servers.host=not a host").code == 2
    assert engine("serve", "servers.asis.port=7001", "servers.tobe.port=7001").code == 2


def test_a_workspace_that_is_a_file(engine: Callable[..., Result], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    result = engine("serve", "asis", "--workspace", str(tmp_path / "file"))
    assert result.code == 2, result
    assert "check its path" in result.err


def test_the_access_log_is_there_on_request(workspace: Workspace, serve: Callable[..., Served]) -> None:
    served = serve(workspace, "servers.access_log=true")
    served.state()
    served.http.get("/health/live")
    served.stats()
    assert served.stop() == 0
    assert served.process.stderr is not None
    lines = [line for line in served.process.stderr.read().splitlines() if "HTTP/1.1" in line]
    assert len(lines) == 1
    assert '"GET /health/live HTTP/1.1" 200' in lines[0]


def test_a_second_server_of_a_slot_is_busy(
    workspace: Workspace, engine: Callable[..., Result], empty: Served
) -> None:
    words = ("--workspace", str(empty.workspace.root), f"servers.tobe.port={free_port()}")
    result = engine("serve", "tobe", *words)
    assert result.code == 4
    assert str(empty.process.pid) in result.err
    assert "TO-BE is served already" in result.err
    assert "--wait" not in result.err, "serve has no such option"


@pytest.mark.fault(42)
def test_sigterm_answers_what_is_under_way_and_leaves_nothing(
    workspace: Workspace, serve: Callable[..., Served]
) -> None:
    point(workspace, "asis", make_release(workspace))
    served = serve(workspace)
    assert served.state()["state"] == "live"
    family = served.family()
    worker = served.stats()["worker_pid"]
    freeze(worker)
    answers: list[int] = []
    asker = threading.Thread(target=lambda: answers.append(served.predict(image()).status_code))
    asker.start()
    until(lambda: served.stats()["waiting"] == 1, "a request under way")
    served.process.send_signal(signal.SIGTERM)
    until(lambda: is_free(served.port), "the port is closed")
    os.kill(worker, signal.SIGCONT)
    assert served.process.wait(PATIENCE_S) == 0
    asker.join()
    assert answers == [200]
    assert gone(family)
    assert not socket_path(workspace, "asis").exists()
    events = [(event["kind"], event["subject"], event["detail"]["pid"]) for event in read_events(workspace)]
    assert events == [("started", "asis", served.process.pid), ("stopped", "asis", served.process.pid)]


def test_ctrl_c_is_130(workspace: Workspace, serve: Callable[..., Served]) -> None:
    served = serve(workspace)
    served.state()
    assert served.stop(signal.SIGINT) == 130


@pytest.mark.fault(43)
def test_sigkill_of_the_front_leaves_no_worker_and_the_next_one_finds_its_release(
    workspace: Workspace, serve: Callable[..., Served]
) -> None:
    release = make_release(workspace)
    point(workspace, "asis", release)
    served = serve(workspace)
    assert served.state()["release"] == release.id
    until(lambda: len(served.family()) == 3, "a worker and a spare one")
    family = served.family()
    served.stop(signal.SIGKILL)
    until(lambda: gone(family), "every worker's end")
    assert socket_path(workspace, "asis").exists()
    assert slot_stats(workspace, "asis") is None
    again = serve(workspace, ports=served.ports)
    assert again.state()["release"] == release.id
    assert again.predict(image()).status_code == 200


def test_the_front_imports_nothing_heavy_and_is_private(live: Served) -> None:
    live.predict(image())
    live.http.get("/docs/swagger-ui-bundle.js")
    front, *workers = live.family()
    maps = {Path(region.path).name.split(".")[0] for region in front.memory_maps() if ".so" in region.path}
    assert not [name for name in maps if name.startswith(("_multiarray", "_imaging", "onnxruntime", "libtorch"))]
    assert front.memory_info().rss < 90 * 2**20
    assert sum(process.memory_info().rss for process in (front, *workers)) < 350 * 2**20
    path = socket_path(live.workspace, "asis")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    listening = {one.laddr for one in front.net_connections("tcp") if one.status == psutil.CONN_LISTEN}
    assert listening == {("127.0.0.1", live.port)}


@pytest.mark.parametrize("path", ["/prepare", "/follow", "/stats"])
def test_nothing_on_the_public_port_changes_a_slot(live: Served, path: str) -> None:
    other = make_release(live.workspace, "z")
    before = live.http.get("/model").json()["release"]
    for method in ("GET", "POST", "PUT"):
        answer = live.http.request(method, path, json={"release": other.id} if method != "GET" else None)
        assert answer.status_code == 404
    assert live.http.get("/model").json()["release"] == before


def test_a_server_that_does_not_start_again_is_announced(workspace: Workspace) -> None:
    settings = Settings.model_validate({"servers": {"tobe": {"port": 1234}}})
    said: list[dict[str, Any]] = []
    runs = iter(
        [
            "print('{}')",
            """print('{"error": {"kind": "port_in_use", "message": "port 1234 is taken", "hint": ""}}')""",
        ]
    )

    class Family(service._Family):
        def _command(self, slot: str) -> list[str]:
            return [sys.executable, "-c", next(runs)]

    def announce(state: dict[str, Any]) -> None:
        said.append(state)
        if state:
            family._stopping.set()

    family = Family(workspace, settings, announce)
    asyncio.run(family._keep("tobe"))
    assert [(one["slot"], one["port"], one["state"]) for one in said[1:]] == [("tobe", 1234, "down")]
    assert "port 1234 is taken" in said[1]["problem"]


@pytest.mark.fault(43)
def test_all_serves_both_and_ends_both(workspace: Workspace, serve: Callable[..., Served]) -> None:
    point(workspace, "tobe", make_release(workspace, "b"))
    served = serve(workspace, slot="all")
    states = {state["slot"]: state["state"] for state in (served.state(), served.state())}
    assert states == {"asis": "empty", "tobe": "live"}
    family = served.family()
    child = served.stats("tobe")["pid"]
    os.kill(child, signal.SIGKILL)
    state = served.state()
    assert (state["slot"], state["state"]) == ("tobe", "live")
    assert state["pid"] != child
    family += served.family()
    assert served.stop() == 0
    until(lambda: gone(family), "the end of all")
    assert is_free(served.ports["asis"])
    assert is_free(served.ports["tobe"])


@pytest.mark.fault(43)
def test_sigkill_of_all_leaves_nothing(
    workspace: Workspace, serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    served = serve(workspace, slot="all")
    served.state(), served.state()
    family = served.family()
    served.stop(signal.SIGKILL)
    until(lambda: gone(family), "the end of all")
    assert is_free(served.ports["asis"])
    assert is_free(served.ports["tobe"])
    monkeypatch.setattr(slots, "_RESTART_S", 0)
    assert slots.check_served(workspace, Settings()) == ["asis", "tobe"], "nobody stopped them"


def test_what_is_stopped_is_not_missed(workspace: Workspace, serve: Callable[..., Served]) -> None:
    served = serve(workspace, slot="all")
    served.state(), served.state()
    assert served.stop() == 0
    assert slots.check_served(workspace, Settings()) == []
