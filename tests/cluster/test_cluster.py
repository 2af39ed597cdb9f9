"""Ray: nothing of it without a cluster; shares of nodes; the same results on one, also where a worker is killed."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

from engine.cluster import joining, node
from engine.cluster.joining import Cluster, Share, join
from engine.cluster.runs import RemoteRun, places, starter
from engine.config import load_settings
from engine.errors import Failed, UsageError
from engine.store.locks import hold
from engine.store.workspace import Workspace
from engine.tasks.go.parse import parse
from engine.tasks.go.plan import Filters
from engine.training.plan import kept_settings
from engine.training.runs import RunFolder, describe_run
from engine.training.signals import StopRequest
from engine.training.sweep import Place, Sweep
from engine.training.sweeps import make_sweep, read_sweep
from tests.conftest import until

DEADLINE_S = 120


def test_without_an_address_ray_is_never_imported(workspace: Workspace) -> None:
    code = (
        "import sys\n"
        "import engine.cli.train, engine.cli.sweep, engine.cli.go, engine.cli.analyze, engine.cli.ensemble\n"
        "import engine.cluster.runs, engine.cluster.games, engine.cluster.processes\n"
        "from engine.cli.main import main\n"
        f"assert main(['--workspace', {str(workspace.root)!r}, 'status', '--json']) == 0\n"
        "found = {'ray', 'torch', 'pandas', 'pyarrow'} & set(sys.modules)\n"
        "assert not found, found\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=DEADLINE_S)
    assert done.returncode == 0, done.stderr


def test_shares() -> None:
    cpus = Cluster(None, (Share(8), Share(4)))
    assert cpus.share(None, gpu=True) == (Share(4), 3)  # a whole node, as the smallest has it
    assert cpus.share(None, gpu=False, at_once=6) == (Share(2), 6)
    assert cpus.share(2, gpu=False) == (Share(2), 6)
    mixed = Cluster(None, (Share(16, 2), Share(8, 1), Share(32)))
    assert mixed.share(None, gpu=True) == (Share(8, 1), 3)
    assert mixed.share(None, gpu=False) == (Share(8), 7)
    with pytest.raises(UsageError, match="no node has more than 16"):
        mixed.share(17, gpu=True)
    settings = [load_settings(None, None, ["device.prefer=cpu"]).settings]
    share, spots = places(cpus, settings, None, 3)
    assert (share, [dict(spot.env) for spot in spots]) == (Share(4), [{"OMP_NUM_THREADS": "4"}] * 3)


@pytest.fixture
def child(workspace: Workspace) -> RunFolder:
    found = RunFolder(workspace.runs / "0001")
    found.root.mkdir(parents=True)
    return found


def test_a_node_that_does_not_see_the_workspace_says_so(tmp_path: Path) -> None:
    with pytest.raises(node.Unseen, match="does not see"):
        node.train(str(tmp_path / "elsewhere"), ["status"], {})


def test_a_run_waits_for_the_orphan_of_a_lost_worker(child: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "_ORPHAN_S", 0.2)
    held, over = threading.Event(), threading.Event()

    def orphan() -> None:
        with hold(child.lock, "train"):
            held.set()
            over.wait(DEADLINE_S)

    thread = threading.Thread(target=orphan)
    thread.start()
    held.wait(DEADLINE_S)
    try:
        with pytest.raises(node.Killed, match="still held by pid"):
            node.begin(str(child.root), ["status"], {})
    finally:
        over.set()
        thread.join()


def _process(code: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-S", "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def test_a_child_is_asked_to_stop_and_its_end_is_told() -> None:
    waits = _process(
        "import signal,sys,time\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))\n"
        "print(1, flush=True)\n"
        "time.sleep(100)"
    )
    assert waits.stdout
    waits.stdout.readline()
    assert node.attend(waits, lambda: True) == 130
    assert node.attend(_process("raise SystemExit(3)")) == 3
    with pytest.raises(node.Killed, match="signal 9"):
        node.attend(_process("import os; os.kill(os.getpid(), 9)"))
    waits.stdout.close()


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    if importlib.util.find_spec("ray") is None:  # imported by `join`, which says first how it is to be
        pytest.skip("the extra cluster is not installed")
    with join("auto", lambda line: None) as found:
        yield found


def test_one_that_is_started_here_listens_on_loopback_alone(cluster: Cluster) -> None:
    assert [one["NodeManagerAddress"] for one in cluster.ray.nodes()] == ["127.0.0.1"]
    family = psutil.Process().children(recursive=True)
    listening = [place.laddr.ip for one in family for place in _listens(one) if place.status == psutil.CONN_LISTEN]
    assert listening
    assert set(listening) <= {"127.0.0.1", "::1", "::ffff:127.0.0.1"}
    assert not any("dashboard.py" in words and "--modules-to-load=" not in words for words in map(_words, family))


def _listens(process: psutil.Process) -> list[Any]:
    with contextlib.suppress(psutil.Error):  # it may have ended meanwhile
        return list(process.net_connections("inet"))
    return []


def _words(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def _games(folder: Path) -> Path:
    folder.mkdir()
    for number in range(12):
        moves = "".join(f";{'BW'[i % 2]}[{chr(97 + (i * 7 + number) % 19)}{chr(97 + i)}]" for i in range(9))
        (folder / f"{number}.sgf").write_text(f"(;GM[1]SZ[19]RE[B+R]{moves})")
    (folder / "damaged.sgf").write_text("(;GM[1]SZ[19]")
    return folder


def test_shards_are_the_same_bytes_on_a_cluster(cluster: Cluster, tmp_path: Path) -> None:
    from engine.cluster.games import hands

    games, said = _games(tmp_path / "games"), []
    here, there = tmp_path / "here", tmp_path / "there"
    options: dict[str, Any] = {"filters": Filters(), "games_per_shard": 5, "workers": 1}
    one = parse([games], here, **options)
    two = parse([games], there, **options, hands=hands(cluster, 2), say=said.append)
    timed = {"seconds_s", "games_per_s"}
    assert {key: one[key] for key in one.keys() - timed} == {key: two[key] for key in two.keys() - timed}
    assert two["shards"] == 3
    assert not list(there.glob("*.claim"))
    for path in here.glob("batch_*"):
        assert (there / path.name).read_bytes() == path.read_bytes()
    assert parse([games], there, **options, hands=hands(cluster, 2))["parsed"] == 0


def test_answers_are_the_same_on_a_cluster(
    cluster: Cluster, tmp_path: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    from engine.cluster import answering
    from engine.tasks.labelled import Labelled
    from engine.tasks.medium import Limits
    from engine.training.inference import answer_all, file_of, load_for_inference
    from tests.serving.releases import image, make_release

    settings = load_settings(None, workspace.root, ["device.prefer=cpu"]).settings
    loaded = load_for_inference(workspace, settings, make_release(workspace).id)
    items = [Labelled(None, str(n), "", content=image((3 * n, 250 - 2 * n, 90))) for n in range(70)]
    items[40] = Labelled(None, "empty", "", content=b"")
    items[66] = Labelled(tmp_path / "gone.png", "gone", "")
    monkeypatch.setattr(answering, "_CALLS", 1)  # three blocks
    wanted, told = answer_all([loaded], items, Limits()), []
    found = answering.answer_on(
        cluster, settings, [loaded], [file_of(workspace, loaded)], items, Limits(), lambda *done: told.append(done)
    )
    assert (found.kept, found.failed) == (wanted.kept, wanted.failed)
    assert [entry["path"] for entry in found.failed] == ["empty", "gone"]
    np.testing.assert_array_equal(found.rows[0], wanted.rows[0])
    assert told[-1] == (70, 70)


def test_a_sweep_whose_worker_is_killed_goes_on_after_its_step(
    cluster: Cluster, workspace: Workspace, capfd: pytest.CaptureFixture[str]
) -> None:
    words = ["data.val_fraction=0.8", "data.img_size=8", "training.epochs=3", "device.prefer=cpu"]
    settings = load_settings(None, workspace.root, words).settings
    folder = make_sweep(workspace, [([], {"settings": kept_settings(settings), "model": "litecnn"})], [])
    child = folder.child(0)
    share, spots = places(cluster, [settings], 1, 1)
    killed: list[int] = []

    def command(run: RunFolder) -> list[str]:
        return ["--workspace", str(workspace.root), "train", "--resume", run.run, "--tied"]

    def kill() -> None:
        deadline = time.monotonic() + DEADLINE_S
        while time.monotonic() < deadline:
            entry = describe_run(child)
            pid = child.read_manifest().get("pid")
            if entry["status"] == "running" and (entry.get("progress") or entry["epoch"]) and pid:
                killed.append(psutil.Process(pid).ppid())
                os.kill(killed[0], signal.SIGKILL)
                return
            time.sleep(0.01)

    thread = threading.Thread(target=kill)
    thread.start()
    Sweep(folder, spots, starter(cluster, share, 2, command), lambda line: None, StopRequest()).run()
    thread.join()
    found = read_sweep(folder)
    assert killed
    assert (found["state"], found["runs"][0]["epoch"]) == ("completed", 3)
    assert "resumed at" in child.log.read_text()
    assert capfd.readouterr().out == ""  # with --json one object alone belongs there


def test_what_cannot_begin_on_its_node_says_why(cluster: Cluster, tmp_path: Path) -> None:
    told: list[str] = []
    reference = cluster.task(node.train, Share(1), 0).remote(str(tmp_path / "gone"), ["status"], {})
    assert _end(RemoteRun(cluster.ray, reference, told.append)) == 1
    assert "does not see" in told[0]


def test_a_signal_asks_the_child_on_its_node(cluster: Cluster, workspace: Workspace, child: RunFolder) -> None:
    start = starter(cluster, Share(1), 0, lambda run: ["--workspace", str(workspace.root), "watch"])
    run = start(child, Place("", {}))
    until(lambda: _watching(workspace), "its process")
    run.send_signal(signal.SIGTERM)
    assert _end(run) is not None
    assert not _watching(workspace)


def _watching(workspace: Workspace) -> bool:
    return any(f" {workspace.root} watch" in _words(one) for one in psutil.Process().children(recursive=True))


def _end(run: RemoteRun) -> int | None:
    deadline = time.monotonic() + DEADLINE_S
    while (code := run.poll()) is None and time.monotonic() < deadline:
        time.sleep(0.02)
    return code


class _Alone:
    """Ray where no cluster is."""

    def init(self, **options: Any) -> None:
        raise ConnectionError(f"nobody answers at {options['address']}")


def test_the_note_of_a_cluster_that_was_killed_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[str] = []

    class Ray(_Alone):
        def init(self, **options: Any) -> None:
            asked.append(options["address"])
            super().init(**options)

    note = tmp_path / "ray_current_cluster"
    monkeypatch.setattr(joining, "_import", Ray)
    monkeypatch.setattr(joining, "_FOUND", note)
    with socket.create_server(("127.0.0.1", 0)) as standing:
        note.write_text(f"127.0.0.1:{standing.getsockname()[1]}")
        with pytest.raises(Failed), join("auto", lambda line: None):
            pass
    for _ in ("its port is closed now", "no note"):
        with pytest.raises(Failed), join("auto", lambda line: None):
            pass
        note.unlink(missing_ok=True)
    assert asked == ["auto", "local", "local"]


def test_no_cluster_at_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "_import", _Alone)
    with pytest.raises(Failed, match="no Ray cluster at there:1"), join("there:1", lambda line: None):
        pass
