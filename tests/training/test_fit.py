"""The memory forecast: its trace, verdicts, suggestions, cache, and what `train` makes of it."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from engine.config import Settings, load_settings
from engine.devices.detect import ChosenDevice
from engine.errors import UsageError
from engine.store.workspace import Workspace
from engine.training import fit, fit_kernels, fit_run
from engine.training.fit import NotTraced, TraceCache, forecast, trace_here
from engine.training.fit_heap import Heap, Step, heap_bytes
from engine.training.fit_parts import Facts, Tracer

GIB = 2**30
DATA = Facts(10, 1000)


def settings_of(workspace: Path, *words: str) -> Settings:
    return load_settings(None, workspace, ["device.prefer=cpu", *words]).settings


def line(
    _settings: Settings, _classes: int, batch: int, _whole: int, _precision: str, _device: str
) -> dict[str, int]:
    """A net whose step takes 1 GiB a sample at 32 px, by area at others."""
    step = int(batch * GIB * (_settings.data.img_size / 32) ** 2)
    return {"batch": batch, "weights": 0, "buffers": 0, "learning": 0, "live": step, "judged": 0, "heap": 0}


def asked(settings: Settings, available_gib: float, tracer: Tracer = line) -> fit.Forecast:
    return forecast(settings, DATA, "cpu", "fp32", int(available_gib * GIB), tracer)


def test_trace_counts_what_backward_keeps(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, "data.augment=light")
    few, many = (trace_here(settings, 10, batch, 8, "fp32", "cpu") for batch in (4, 8))
    assert few["weights"] == many["weights"] > 900_000
    assert few["learning"] == few["weights"]
    assert few["live"] > few["learning"]  # gradients, and activations besides
    assert 1.6 < many["live"] / few["live"] <= 2.0
    half = trace_here(settings, 10, 8, 8, "bf16", "cpu")
    assert half["live"] < many["live"]


def test_the_heap_takes_the_smallest_hole_and_joins_neighbours() -> None:
    heap = Heap(32 << 20)
    first, second, third = (heap.take(1 << 20) for _ in range(3))
    heap.give(first)
    heap.give(third)
    before = heap.most
    assert heap.take(900 << 10)[0] == first[0]
    heap.give(second)
    heap.take((2 << 20) - 4096)  # where the second and the third were
    assert heap.most == before
    mapped = heap.take(40 << 20)
    assert mapped[0] < 0
    heap.give(mapped)
    heap.take(31 << 20)
    assert heap.most < before + (41 << 20)


def test_small_pieces_lie_in_cells_and_not_between_tensors() -> None:
    heap = Heap(32 << 20, cells=2)
    first, small, second = heap.take(1 << 20), heap.take(1000), heap.take(1 << 20)
    heap.give(first)
    heap.give(second)
    assert heap.take((2 << 20) - 4096)[0] == first[0]
    before = heap.most
    heap.give(small)
    heap.take(60_000)
    assert 58_000 < heap.most - before < 60_000 + 4096


def test_a_step_taken_in_parts_adds_its_gradients_up() -> None:
    prepared, passed = [1 << 20], [8 << 20, 4 << 20, -2]  # inputs; activations, gradients

    def most(parts: int) -> int:
        step = Step(prepared, passed, frozenset((3,)), parts)
        return heap_bytes([(4 << 20, False)], [], [], step, [], 64 << 20, averaged=False)

    assert 17 << 20 <= most(1) < 26 << 20
    assert most(1) < most(2) < 31 << 20
    assert most(2) == most(4)


def test_a_stand_in_gives_way_to_the_module_that_it_stands_for(monkeypatch: pytest.MonkeyPatch) -> None:
    stood_for = {"this_is_no_module": {"bool": bool}, "colorsys": {"rgb_to_yiq": bool}}
    monkeypatch.setattr(fit_kernels, "_STAND_INS", stood_for)
    monkeypatch.delitem(sys.modules, "colorsys", raising=False)
    with fit_kernels.without_compiler():
        import colorsys

        import this_is_no_module  # type: ignore[import-not-found]

        assert this_is_no_module.bool is bool
        assert colorsys.rgb_to_yiq is bool
        assert colorsys.rgb_to_hsv(1, 0, 0) == (0, 1, 1)
        assert sys.modules["colorsys"] is not colorsys
    assert "this_is_no_module" not in sys.modules
    assert importlib.import_module("colorsys").rgb_to_yiq is not bool


def test_frozen_weights_have_no_gradient(tmp_path: Path) -> None:
    frozen = trace_here(settings_of(tmp_path, "training.freeze=backbone"), 10, 4, 8, "fp32", "cpu")
    assert frozen["learning"] < frozen["weights"] / 10


def test_verdicts_and_biggest_batch(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, "training.batch_size=8")
    assert asked(settings, 100).verdict == "fits"
    assert asked(settings, 100).suggestion is None
    assert asked(settings, 8.5).verdict == "edge"
    tight = asked(settings, 5)
    assert (tight.verdict, tight.suggestion, tight.biggest_batch) == ("cannot", "training.micro_batch=4", 4)


def test_suggests_a_smaller_image_then_a_smaller_model(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, "data.img_size=128", "training.batch_size=4")
    assert asked(settings, 6).suggestion == "data.img_size=64 training.micro_batch=1"
    assert asked(settings, 0.01).suggestion is None


def test_automatic_batch_is_the_biggest_sensible(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, "training.batch_size=auto")
    assert asked(settings, 11).batch_size == 8
    assert asked(settings, 1000).batch_size == 32  # an epoch has twenty steps at least


def test_a_trace_is_made_once(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    made = []

    def tracer(*arguments: object) -> dict[str, int]:
        made.append(arguments)
        return line(*arguments)  # type: ignore[arg-type]

    first = asked(settings, 100, TraceCache(tmp_path, tracer))
    count = len(made)
    assert asked(settings, 100, TraceCache(tmp_path, None)) == first
    assert len(made) == count
    with pytest.raises(NotTraced):
        asked(settings_of(tmp_path, "data.img_size=64"), 100, TraceCache(tmp_path, None))
    (tmp_path / "fit.json").write_text("{damaged")
    assert asked(settings, 100, TraceCache(tmp_path, tracer)) == first


def test_train_refuses_what_cannot_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = settings_of(tmp_path)

    class Digits:
        name, classes, train_samples = "images", range(10), 1000

    monkeypatch.setattr(fit_run, "trace_here", line)
    said: list[str] = []
    arguments = (Workspace(tmp_path), settings, Digits(), ChosenDevice("cpu", "x"), "fp32", said.append)
    monkeypatch.setattr(fit_run, "available_bytes", lambda *_: 10 * GIB)
    with pytest.raises(UsageError, match=r"training\.micro_batch=8") as refused:
        fit_run.ask(*arguments)  # type: ignore[arg-type]
    assert refused.value.exit_code == 2
    monkeypatch.setattr(fit_run, "available_bytes", lambda *_: 33 * GIB)
    found = fit_run.ask(*arguments)  # type: ignore[arg-type]
    assert found
    assert found.verdict == "edge"
    assert "training.micro_batch=16" in said[0]


def test_asked_again_the_verb_imports_no_torch(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    cache = TraceCache(Workspace(tmp_path).cache, line)
    forecast(settings, fit.facts_of(settings), "cpu", "fp32", GIB, cache)
    code = (
        "import sys; from engine.cli.main import main; code = main(sys.argv[1:]);"
        " sys.exit(code or 70 * ('torch' in sys.modules))"
    )
    words = ["--workspace", str(tmp_path), "fit", "device.prefer=cpu", "--json"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert {"device", "predicted_bytes", "available_bytes", "verdict", "suggestion"} <= set(answer)
