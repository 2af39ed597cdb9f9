"""Sweeps: the grid, the children and their ends, the stop, the resume, the table."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.config import load_settings
from engine.errors import UsageError
from engine.store.files import read_json, write_json
from engine.store.workspace import Workspace
from engine.training import sweep as runner
from engine.training.grid import check, expand, values
from engine.training.plan import kept_settings, resumed_settings
from engine.training.runs import RunFolder, describe_run, find_run, process_identity
from engine.training.signals import StopRequest, stop_requests, stop_with
from engine.training.sweeps import SweepFolder, find_sweep, list_sweeps, make_sweep, read_sweep
from engine.watch.sources import FileSource
from tests.conftest import Result

GRID = ["model=litecnn,litecnn_pro", "training.seed=range(0,2)", "notify.events=alert,trained"]


@pytest.mark.parametrize(
    ("key", "text", "found"),
    [
        ("training.seed", "7", ["7"]),
        ("training.seed", "1,2", ["1", "2"]),
        ("training.learning_rate", "choice(0.1, 0.2)", ["0.1", "0.2"]),
        ("training.seed", "range(3)", ["0", "1", "2"]),
        ("training.learning_rate", "range(0.1,0.4,0.1)", ["0.1", "0.2", "0.3"]),
        ("training.seed", "range(start=5,stop=0,step=-2)", ["5", "3", "1"]),
        ("data.mean", "[1,2,3],[4,5,6]", ["[1,2,3]", "[4,5,6]"]),
        ("data.mean", "[1,2,3]", ["[1,2,3]"]),
        ("data.root", "/a\\,b", ["/a,b"]),
        ("data.root", "'a,b'", ["'a,b'"]),
        ("model", "'resnet34','resnet50'", ["resnet34", "resnet50"]),
        ("model.settings.x", "{a=1,b=2}", ["{a=1,b=2}"]),
    ],
)
def test_a_value_is_read_as_hydra_reads_it(key: str, text: str, found: list[str]) -> None:
    assert values(key, text) == found


@pytest.mark.parametrize(
    "text",
    ["range(0,5,0)", "range(5,0)", "range(x)", "range()", "range(nan,3)", "range(0,1e12)", "a,,b", "choice()",
     "a,choice(b,c)", "1,[2"],
)  # fmt: skip
def test_a_grid_that_cannot_be_read_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        expand([f"training.seed={text}"])


def test_the_grid_is_every_combination_and_is_checked_whole() -> None:
    cells = expand(["training.seed=9", *GRID])
    assert [cell.swept for cell in cells[:2]] == [
        ("model=litecnn", "training.seed=0"),
        ("model=litecnn", "training.seed=1"),
    ]
    assert len(cells) == 4
    assert all("notify.events=alert,trained" in cell.words for cell in cells)  # a list by nature stays one value
    names = [one.settings.model.name for one in check(cells, lambda words: load_settings(None, None, words))]
    assert names == ["litecnn", "litecnn", "litecnn_pro", "litecnn_pro"]
    with pytest.raises(UsageError, match=r"litecnn_por.*in model=litecnn_por.*litecnn_pro"):
        check(expand(["model=litecnn,litecnn_por"]), lambda words: load_settings(None, None, words))
    with pytest.raises(UsageError, match="at most"):
        expand(["training.seed=range(0,100)", "training.epochs=range(1,100)"])


class Child:
    """A training that ends as it was told to, at the second time that somebody looks."""

    pid = 1

    def __init__(self, folder: RunFolder, ends: dict[str, Any] | int) -> None:
        self.folder, self.ends, self.looks, self.asked = folder, ends, 0, False
        self._write({"status": "running", **process_identity()})

    def _write(self, facts: dict[str, Any]) -> None:
        self.folder.write_manifest(self.folder.read_manifest() | facts)

    def poll(self) -> int | None:
        self.looks += 1
        if self.asked:
            self._write({"status": "interrupted", "error": "stopped"})
            return 130
        if self.looks < 2:
            return None
        if isinstance(self.ends, int):  # killed
            self._write({"pid": 2**22 + 1})
            return self.ends
        self._write(self.ends)
        return 0 if self.ends["status"] == "completed" else 1

    def send_signal(self, sig: int) -> None:
        self.asked = sig == signal.SIGTERM


def done(accuracy: float, f1: float | None) -> dict[str, Any]:
    best = {"epoch": 1, "accuracy": accuracy, "f1_macro": f1, "loss": 1.0}
    return {"status": "completed", "best": best, "checkpoint": "best.pth"}


@pytest.fixture
def sweep(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> SweepFolder:
    monkeypatch.setattr(runner, "_POLL_S", 0.001)
    kept = kept_settings(load_settings(None, workspace.root).settings)
    runs = [([f"training.seed={n}"], {"settings": kept, "model": "litecnn", "data": "digits"}) for n in range(4)]
    return make_sweep(workspace, runs, [])


def go(
    sweep: SweepFolder, ends: Callable[[int], Any], *, spots: int = 2, **more: Any
) -> tuple[list[str], list[str]]:
    """Run the sweep with children that end as told: what was said, and which runs were started where."""
    said: list[str] = []
    started: list[str] = []

    def start(child: RunFolder, place: runner.Place) -> Child:
        started.append(f"{child.root.name} {place.name}")
        return Child(child, ends(int(child.root.name)))

    places = [runner.Place(f"cuda {n}", {}) for n in range(spots)]
    runner.Sweep(sweep, places, start, said.append, more.pop("stop", StopRequest()), **more).run()
    return said, started


def test_a_failed_or_killed_run_stops_no_other_and_the_rest_are_ranked(
    sweep: SweepFolder, workspace: Workspace
) -> None:
    outcomes = [done(0.9, 0.5), {"status": "failed", "error": "diverged"}, -9, done(0.8, 0.7)]
    said, started = go(sweep, lambda n: outcomes[n])
    assert started[:2] == ["0 cuda 0", "1 cuda 1"]
    assert sorted(line[0] for line in started) == ["0", "1", "2", "3"]
    found = read_sweep(sweep)
    assert (found["state"], found["done"], found["failed"], found["metric"]) == ("failed", 2, 2, "f1_macro")
    assert [(entry["n"], entry["rank"], entry["status"]) for entry in found["runs"]] == [
        (3, 1, "completed"), (0, 2, "completed"), (1, None, "failed"), (2, None, "lost"),
    ]  # fmt: skip
    assert found["best"]["n"] == 3
    assert any("run 2 lost: its process was ended by signal 9" in line for line in said)
    assert set(json.loads(sweep.record.read_text())["runs"][0]) >= {
        "n", "overrides", "status", "accuracy", "f1_macro", "loss", "seconds_s", "checkpoint", "error",
    }  # fmt: skip
    # what ended well is kept, what was lost goes on, what failed only when asked for
    assert [line[0] for line in go(sweep, lambda n: done(0.6, 0.6))[1]] == ["2"]
    assert [line[0] for line in go(sweep, lambda n: done(0.5, 0.9), again=True)[1]] == ["1"]
    found = read_sweep(sweep)
    assert (found["state"], found["best"]["n"], found["done"]) == ("completed", 1, 4)
    assert [one["sweep"] for one in list_sweeps(workspace)] == [sweep.sweep]


def test_a_stop_lets_the_runs_end_their_step_and_the_rest_waits(sweep: SweepFolder, workspace: Workspace) -> None:
    stop = StopRequest()

    def ends(number: int) -> dict[str, Any]:
        if number == 1:
            stop(signal.SIGINT, None)
        return done(0.5, 0.5)

    said, started = go(sweep, ends, stop=stop)
    assert len(started) == 2
    found = read_sweep(find_sweep(workspace, "latest"))
    assert found["state"] == "interrupted"
    assert [entry["status"] for entry in sorted(found["runs"], key=lambda entry: entry["n"])] == [
        "interrupted", "interrupted", "waiting", "waiting",
    ]  # fmt: skip
    assert any("between two steps" in line for line in said)
    go(sweep, lambda n: done(0.5, 0.5))
    assert read_sweep(sweep)["state"] == "completed"


def test_a_run_whose_process_still_lives_is_not_started_twice(sweep: SweepFolder) -> None:
    """An orphan of a killed sweep holds the run's lock until its step is done."""
    lock = sweep.child(0).lock
    code = "import fcntl,os,sys; h=os.open(sys.argv[1],os.O_RDWR|os.O_CREAT); fcntl.flock(h,fcntl.LOCK_EX); print(1,flush=True); input()"
    orphan = subprocess.Popen(
        [sys.executable, "-c", code, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert orphan.stdin
    assert orphan.stdout
    orphan.stdout.readline()

    def ends(number: int) -> dict[str, Any]:
        if number == 3 and orphan.poll() is None:
            orphan.communicate("\n")
        return done(0.5, 0.5)

    said, started = go(sweep, ends, spots=1)
    assert [line[0] for line in started] == ["1", "2", "3", "0"]
    assert sum("run 0 still has a process" in line for line in said) == 1


def test_a_sweep_whose_process_is_gone_is_lost(sweep: SweepFolder) -> None:
    record = json.loads(sweep.record.read_text())
    sweep.record.write_text(json.dumps(record | {"state": "running", "pid": 2**22 + 1}))
    assert read_sweep(sweep)["state"] == "lost"


def test_a_child_stops_when_its_sweep_is_gone() -> None:
    reading, writing = os.pipe()
    with stop_requests() as stop:
        stop_with(reading)
        os.write(writing, b"still here")
        assert not stop
        os.close(writing)  # as the kernel does when the sweep is killed
        deadline = time.monotonic() + 30
        while not stop and time.monotonic() < deadline:
            time.sleep(0.005)
    assert stop.asked == "SIGTERM"
    os.close(reading)


def test_the_stream_shows_sweeps_and_their_live_runs(sweep: SweepFolder, workspace: Workspace) -> None:
    me = process_identity()
    child = sweep.child(2)
    child.write_manifest(child.read_manifest() | me | {"status": "running"})
    write_json(child.progress, {"epoch": 3, "epochs": 9, "step": 1, "steps": 4, "loss": 0.5})
    write_json(sweep.record, json.loads(sweep.record.read_text()) | me | {"state": "running"})
    found = FileSource(workspace, load_settings(None, workspace.root).settings).look()
    (shown,) = found["runs"].sweeps
    assert (shown.state, shown.done, shown.total, found["runs"].sweeps_total) == ("running", 0, 4, 1)
    assert {row.n: row.status for row in shown.runs}[2] == "running"
    (live,) = found["progress"].runs
    assert (live.run, live.epoch, live.steps) == (child.run, 3, 4)


def test_places_are_the_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = [load_settings(None, None).settings]
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    two = [dict(place.env) for place in runner.places(settings, lambda: 2, None)]
    assert two == [{"CUDA_VISIBLE_DEVICES": "2"}, {"CUDA_VISIBLE_DEVICES": "3"}]
    assert len(runner.places(settings, lambda: 2, 5)) == 5
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert [place.name for place in runner.places(settings, lambda: 3, None)] == ["cuda 0", "cuda 1", "cuda 2"]
    assert [dict(place.env) for place in runner.places(settings, lambda: 0, None)] == [{}]
    cores = max(1, len(os.sched_getaffinity(0)) // 2)
    assert runner.places(settings, lambda: 0, 2)[1].env == {"OMP_NUM_THREADS": str(cores)}


@pytest.mark.parametrize("word", ["training.sed=1,2", "model=litecnn,litecnm", "training.learning_rate=0.1,-1"])
def test_a_wrong_grid_changes_nothing(engine: Callable[..., Result], workspace: Workspace, word: str) -> None:
    assert engine("train", "--multirun", word).code == 2
    assert not workspace.root.exists()


def test_a_sweep_from_outside(engine: Callable[..., Result], workspace: Workspace, config: Path) -> None:
    words = ["data.val_fraction=0.8", "data.img_size=8", "training.epochs=1", "training.learning_rate=0.004,1e30"]
    result = engine("train", "--multirun", "--json", "--jobs", "2", *words)
    assert result.code == 1, result.err
    assert "1 of 2 runs failed" in result.err.splitlines()[-1]
    value = result.json
    good, bad = value["runs"]
    assert (good["status"], bad["status"]) == ("completed", "failed")
    assert good["overrides"] == ["training.learning_rate=0.004"]
    assert "no number" in bad["error"]
    assert value["deploy"].endswith(f"multirun/{value['sweep']}/0/best.pth")
    assert Path(good["checkpoint"]).is_file()
    assert not (workspace.root / "checkpoints").exists()
    folder = find_run(workspace, good["run"])
    assert {"manifest.json", "metrics.jsonl", "last.pth", "data_report.json"} <= {
        p.name for p in folder.root.iterdir()
    }
    listed = engine("runs", "--json").json
    assert {entry["run"] for entry in listed["runs"]} == {good["run"], bad["run"]}
    assert listed["sweeps"][0]["best"]["n"] == 0
    assert describe_run(folder)["status"] == "completed"
    loaded = load_settings(config, workspace.root, ["training.learning_rate=0.5"])
    with pytest.raises(UsageError, match="would change the result"):
        resumed_settings(loaded, folder.read_manifest()["settings"])
    trained = [
        event["subject"] for event in engine("events", "--json").json["events"] if event["kind"] == "trained"
    ]
    assert trained == [f"run {good['run']}"]
    shutil.rmtree(folder.root.with_name("1"))
    record = read_json(folder.root.parent / "sweep.json") or {}
    write_json(folder.root.parent / "sweep.json", record | {"runs": record["runs"][:1]})
    again = engine("train", "--multirun", "--resume", "latest")
    assert again.code == 0
    assert "every run is completed" in again.out


@pytest.mark.parametrize("beside", [("--jobs", "2"), ("--again",), ("--detach",), ("--resume", "latest")])
def test_stop_takes_no_other_option(engine: Callable[..., Result], beside: tuple[str, ...]) -> None:
    found = engine("train", "--multirun", "--stop", "latest", *beside)
    assert found.code == 2
    assert f"'{beside[0]}' says nothing to --stop" in found.err
