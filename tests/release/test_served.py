"""Changes of a slot whose server runs: it warms the new release first, and keeps the old one when it cannot."""

from __future__ import annotations

import contextlib
import resource
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import numpy as np
import onnx
import psutil
import pytest

from engine.config import load_settings
from engine.release.backups import remember, write_backup
from engine.release.bundle import read_release, release_path
from engine.release.control import slot_stats
from engine.release.golden import pictures
from engine.release.journal import slots_lock
from engine.release.slots import read_pointer
from engine.store.events import read_events
from engine.store.locks import hold
from engine.store.workspace import Workspace
from tests.conftest import PATIENCE_S, PROJECT, Result, until
from tests.release.bundles import make_release, put
from tests.serving.releases import colour_net
from tests.serving.releases import make_release as servable

Engine = Callable[..., Result]


@pytest.fixture
def server(engine: Engine, used: tuple[Workspace, Path, Path], config: Path) -> Iterator[subprocess.Popen[bytes]]:
    """`serve asis` with the second checkpoint's release live."""
    workspace = used[0]
    assert engine("promote", "--force", "--reason", "test").code == 0
    command = [sys.executable, "-m", "engine", "--config", str(config), "--workspace", str(workspace.root)]
    child = subprocess.Popen([*command, "serve", "asis"], cwd=PROJECT, stdin=subprocess.DEVNULL)
    try:
        until(lambda: child.poll() is not None or (slot_stats(workspace, "asis") or {}).get("state") == "live")
        assert child.poll() is None
        yield child
    finally:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM)
        child.wait(PATIENCE_S)


def served(config: Path) -> str:
    port = load_settings(config).settings.port("asis")
    return str(httpx.get(f"http://127.0.0.1:{port}/model", timeout=PATIENCE_S).json()["release"])


def test_the_server_follows_a_promotion_and_a_rollback(
    engine: Engine, used: tuple[Workspace, Path, Path], server: subprocess.Popen[bytes], config: Path
) -> None:
    _, first, _ = used
    before = served(config)
    release = engine("deploy", str(first), "--json").json["release"]
    done = engine("promote", "--force", "--reason", "test", "--json")
    assert done.code == 0, done.err
    assert (done.json["live"], served(config)) == (True, release)
    back = engine("rollback", done.json["backup"], "--json")
    assert (back.json["live"], served(config)) == (True, before)


@pytest.mark.fault(31)
def test_a_release_that_does_not_load_leaves_the_old_one(
    engine: Engine, used: tuple[Workspace, Path, Path], server: subprocess.Popen[bytes], config: Path
) -> None:
    workspace = used[0]
    before, pointer = served(config), read_pointer(workspace, "asis")
    put(workspace, "tobe", make_release(workspace, "no net at all"))
    events = read_events(workspace)
    failed = engine("promote", "--force", "--reason", "test", "--json")
    assert failed.code == 1
    assert failed.json["error"]["hint"]
    assert failed.json["error"]["kind"] != "defect"
    assert (served(config), read_pointer(workspace, "asis")) == (before, pointer)
    assert not list(workspace.backups.glob("*"))
    assert not workspace.journal.exists()
    assert engine("promote", "--force", "--reason", "test").code == 1
    (alert,) = read_events(workspace)[len(events) :]
    assert (alert["kind"], alert["subject"]) == ("alert", "AS-IS"), "said once, however often it is tried"


def failing_on_black() -> bytes:
    """A net that answers noise, on which a worker warms up, and gives NaN to a black image: the root of -0.1."""
    model = onnx.load_from_string(colour_net())
    graph = model.graph
    graph.initializer.append(onnx.numpy_helper.from_array(np.array([1.9], np.float32), "shift"))
    at = next(index for index, node in enumerate(graph.node) if node.op_type == "Gemm")
    graph.node[at].input[0] = "rooted"
    flat = graph.node[at - 1].output[0]
    graph.node.insert(at, onnx.helper.make_node("Sqrt", ["shifted"], ["rooted"]))
    graph.node.insert(at, onnx.helper.make_node("Add", [flat, "shift"], ["shifted"]))
    return bytes(model.SerializeToString())


@pytest.mark.fault(30)
def test_a_release_that_fails_its_clients_after_the_swap_goes_back_by_itself(
    engine: Engine, used: tuple[Workspace, Path, Path], server: subprocess.Popen[bytes], config: Path
) -> None:
    workspace = used[0]
    before = served(config)
    put(workspace, "tobe", servable(workspace, "bad", net=failing_on_black()))
    failed = engine("promote", "--force", "--reason", "test", "--json")
    assert (failed.code, failed.json["error"]["kind"]) == (1, "unhealthy"), failed.out
    pointer = read_pointer(workspace, "asis")
    assert pointer is not None
    assert (served(config), pointer.release) == (before, before)
    assert not list(workspace.backups.glob("*"))
    assert not workspace.journal.exists()
    last = read_events(workspace)[-1]
    assert (last["kind"], last["detail"]["verb"]) == ("alert", "promote")


def test_both_ways_the_answers_of_its_admission_are_asked_for(
    engine: Engine, used: tuple[Workspace, Path, Path], server: subprocess.Popen[bytes], config: Path
) -> None:
    """A checkpoint's release carries them; one whose net answers otherwise neither comes up nor comes back."""
    workspace, first, _ = used
    before = served(config)
    release = engine("deploy", str(first), "--json").json["release"]
    kept = read_release(release_path(workspace, release), expect=release).manifest.golden
    assert kept is not None
    assert [round(sum(answer.values()), 2) for answer in kept] == [1.0] * 3, "of three classes all are kept"
    done = engine("promote", "--force", "--reason", "test", "--json")
    assert done.code == 0, done.err
    assert engine("rollback", done.json["backup"], "--json").code == 0

    wrong = [{3: 0.9, 0: 0.05}] * 3
    lying = servable(workspace, "lying", golden=wrong)
    put(workspace, "tobe", lying)
    failed = engine("promote", "--force", "--reason", "test", "--json")
    assert (failed.code, failed.json["error"]["kind"]) == (1, "unhealthy"), failed.out
    assert "as when the release was admitted" in failed.json["error"]["message"]
    write_backup(
        workspace, name := f"model_{load_settings(config).settings.port('asis')}_backup_20260101_000000.bin", lying
    )
    remember(workspace, name, lying.id)
    failed = engine("rollback", name, "--json")
    assert (failed.code, failed.json["error"]["kind"]) == (1, "unhealthy"), failed.out
    assert served(config) == before
    assert not workspace.journal.exists()


@pytest.mark.fault(30)
def test_a_server_that_dies_leaves_a_whole_slot(
    engine: Engine, used: tuple[Workspace, Path, Path], server: subprocess.Popen[bytes]
) -> None:
    workspace, first, _ = used
    release = engine("deploy", str(first), "--json").json["release"]
    server.send_signal(signal.SIGKILL)
    server.wait(PATIENCE_S)
    done = engine("promote", "--force", "--reason", "test", "--json")
    assert done.code == 0, done.err
    assert (done.json["live"], done.json["to"]) == (False, release)
    pointer = read_pointer(workspace, "asis")
    assert pointer is not None
    assert pointer.release == release


@pytest.mark.fault(31)
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV, "memory"])
def test_a_new_worker_that_dies_takes_only_itself_along(
    engine: Engine, used: tuple[Workspace, Path, Path], server: subprocess.Popen[bytes], config: Path, how: object
) -> None:
    """Every process that is begun for the new release is ended natively, or finds no memory, while it loads."""
    workspace, first, _ = used
    before, pointer = served(config), read_pointer(workspace, "asis")
    assert engine("deploy", str(first)).code == 0
    front, stats = psutil.Process(server.pid), slot_stats(workspace, "asis")
    assert stats is not None
    over = threading.Event()

    def strike() -> None:
        while not over.wait(0.002):
            for child in front.children(recursive=True):
                with contextlib.suppress(psutil.Error, OSError):
                    if child.pid != stats["worker_pid"] and "engine.serving.worker" in " ".join(child.cmdline()):
                        if isinstance(how, signal.Signals):
                            child.send_signal(how)
                        else:
                            child.rlimit(resource.RLIMIT_AS, (1 << 20, 1 << 20))

    thread = threading.Thread(target=strike)
    thread.start()
    failed = engine("promote", "--force", "--reason", "test", "--json")
    over.set()
    thread.join()
    assert failed.code == 1, failed.out
    assert failed.json["error"]["kind"] != "defect"
    assert (served(config), read_pointer(workspace, "asis")) == (before, pointer)
    assert not workspace.journal.exists()
    assert server.poll() is None


@pytest.mark.fault(46)
def test_locked_files_hold_up_commands_and_never_an_answer(
    engine: Engine, used: tuple[Workspace, Path, Path], server: subprocess.Popen[bytes], config: Path
) -> None:
    workspace = used[0]
    port = load_settings(config).settings.port("asis")
    with (
        slots_lock(workspace, "test"),
        hold(workspace.lock("events"), "test"),
        hold(workspace.lock("admit"), "test"),
    ):
        assert engine("rollback", "model_1_backup_20260101_000000.bin").code == 4
        assert engine("status").code == 0
        answer = httpx.post(f"http://127.0.0.1:{port}/predict", content=pictures()[1], timeout=PATIENCE_S)
        assert answer.status_code == 200
