"""`cloud plan`: hours and dollars from a measured rate, memory from `fit`, the cheapest that fits first."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from benchmarks import devices
from engine.cli.cloud import _plan_text
from engine.cli.verb import STRIKE
from engine.cloud.plan import Hours, Plan, advice, hours_on, make_plan, trace
from engine.cloud.prices import Row, find_gpu, gpu_count, keep_catalogue, plain, price_table, speedup_of
from engine.cloud.rates import Rate, keep_rates, measured_rates
from engine.config import Settings, load_settings
from engine.devices.cores import available_cores
from engine.devices.detect import ChosenDevice
from engine.errors import Failed, UsageError
from engine.store.files import write_json
from engine.store.workspace import Workspace
from engine.training import fit

CPU = Rate(100.0, "cpu", "the test")


def plan(workspace: Workspace, *words: str, rates: Sequence[Rate] | None = (CPU,)) -> Plan:
    return make_plan(load_settings(None, workspace.root, words).settings, workspace, rates)


def test_hours_are_the_samples_through_the_documents_speed_ups(workspace: Workspace) -> None:
    found = plan(workspace, "training.epochs=100")
    assert (found.samples, found.epochs) == (1438, 100)
    row = next(option for option in found.options if option.gpu == "RTX 4090")
    here = 143_800 / (100.0 * 8 / available_cores()) / 3600  # of the documents' CPU of eight cores
    assert row.hours_range == pytest.approx((here / 25, here / 15))
    assert row.hours is not None
    assert row.hours_range[0] < row.hours < row.hours_range[1]  # type: ignore[index]
    assert row.total_usd == pytest.approx(row.hours * 0.69)
    assert row.spot_total_usd == pytest.approx(row.hours * 0.207)


def test_a_rate_of_the_very_gpu_counts_for_more_than_any_table() -> None:
    row = Row("runpod", "RTX 4090", 24, 0.69, None, (15, 25), "2026-01-01", "config")
    own = Rate(10.0, "cuda", "run 0001", gpu="NVIDIA GeForce RTX 4090")
    assert hours_on(row, 36_000, (CPU, own)) == Hours(1.0, 1.0, "run 0001")
    assert hours_on(row, 36_000, (Rate(10.0, "cuda", "run 0001", gpu="NVIDIA GeForce RTX 4090:2"),)) is None
    assert hours_on(row, 36_000, (Rate(10.0, "cuda", "run 0001", gpu="H200"),)) is None
    assert hours_on(row, 36_000, ()) is None


def test_options_are_sorted_by_total_and_what_does_not_fit_is_last_with_the_reason(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    traced = {"weights": 10**9, "buffers": 0, "learning": 10**9, "live": 2 * 10**10, "judged": 10**9, "heap": 0}
    monkeypatch.setattr(fit.TraceCache, "__call__", lambda *arguments: traced)
    found = plan(workspace)
    assert found.need_bytes
    assert found.need_bytes > 2.4e10
    fitting = [option for option in found.options if option.fits]
    assert {option.gpu for option in fitting} == {"A40", "A100-40GB", "A100-80GB", "A100-40GB:8"}
    assert [option.total for option in fitting] == sorted(option.total for option in fitting)
    last = found.options[-4:]
    assert all(option.fits is False and "needs 2" in str(option.reason) for option in last)


def test_what_is_too_big_is_crossed_out_with_the_nearest_setting_that_fits(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`trace` has filled the cache with all that a plan, which traces nothing, wants to say of a smaller GPU."""

    def traced(settings: Settings, classes: int, batch: int, whole: int, *rest: str) -> dict[str, int]:
        live = batch * 10**8
        return {"weights": 10**8, "buffers": 0, "learning": 10**8, "live": live, "judged": live, "heap": 0}

    monkeypatch.setattr(fit, "trace_here", traced)
    words = ("training.batch_size=256", "training.epochs=1")
    trace(load_settings(None, workspace.root, words).settings, workspace)
    found = plan(workspace, *words)
    t4 = next(option for option in found.options if option.gpu == "T4")
    assert t4.fits is False
    assert "it would fit with training.micro_batch=128" in str(t4.reason)
    lines = _plan_text(found.as_json()).splitlines()
    header = next(line for line in lines if "provider" in line)
    plain_lines = [line.replace(STRIKE, "") for line in lines]
    row = next(line for line in plain_lines if " T4 " in line)
    assert row.index("T4") == header.index("GPU")  # strikes take no room
    assert any(STRIKE in line for line in lines)
    assert "<0.1" in row  # never nothing

    automatic = plan(workspace, "training.batch_size=auto", "training.epochs=1")
    assert all(option.fits is not False for option in automatic.options)


def test_go_is_reckoned_by_its_shards_and_its_own_nets_runs(workspace: Workspace) -> None:
    with pytest.raises(UsageError, match="go parse"):
        plan(workspace, "task=go")
    shards = workspace.root / "go" / "shards"
    write_json(shards / "batch_0001.json", {"games": 2, "positions": 500, "skipped": []})
    (shards / "batch_0001.npz").write_bytes(b"")
    go = load_settings(None, workspace.root).settings.go
    trained(
        workspace,
        "0001",
        samples_per_s=50.0,
        task="go",
        settings={"go": {"net": go.net, "board_size": go.board_size}},
    )
    trained(
        workspace,
        "0002",
        samples_per_s=10.0,
        task="go",
        settings={"go": {"net": "another", "board_size": go.board_size}},
    )
    found = plan(workspace, "task=go", "go.epochs=4", "go.epoch_positions=250", rates=None)
    assert (found.samples, found.epochs, found.model, found.advice) == (250, 4, go.net, None)
    assert [rate.per_s for rate in found.rates] == [50.0]
    assert "advice" not in _plan_text(found.as_json())
    with pytest.raises(UsageError, match="knows images and go"):
        plan(workspace, "task=motion")


def test_memory_that_nobody_traced_is_unknown_not_guessed(workspace: Workspace) -> None:
    found = plan(workspace)
    assert found.need_bytes is None
    assert {option.fits for option in found.options} == {None}


def test_without_a_rate_the_hours_are_unknown_and_a_run_gives_one(workspace: Workspace) -> None:
    nothing = plan(workspace, rates=None)
    assert nothing.rates == ()
    assert "bench devices -- --model litecnn --img-size" in _plan_text(nothing.as_json())
    trained(workspace, "0001", samples_per_s=321.0)
    found = plan(workspace, rates=None)
    assert [(rate.per_s, rate.device, rate.origin) for rate in found.rates] == [
        (321.0, "cpu", "run 0001, 2026-11-20")
    ]
    assert any(option.provider == "here" and option.total_usd for option in found.options)
    assert "321 samples/s on cpu (run 0001, 2026-11-20)" in _plan_text(found.as_json())


def trained(workspace: Workspace, run: str, **facts: Any) -> None:
    """A run of the default settings, as its manifest has it."""
    settings = load_settings(None, workspace.root).settings
    kept = {"model": {"name": settings.model.name}, "data": {"img_size": settings.data.img_size}}
    manifest = {"run": run, "status": "completed", "device": "cpu", "settings": kept, "started_at": "2026-11-20T12:00:00+00:00"}  # fmt: skip
    write_json(workspace.runs / run / "manifest.json", manifest | facts)


def measured(device: str = "cpu", **facts: Any) -> dict[str, Any]:
    settings = load_settings(None, Path("/")).settings
    return {"device": device, "name": device, "model": settings.model.name, "img_size": settings.data.img_size,
            "batch_size": 32, "precision": "fp32", "samples_per_s": 100.0, "epoch_s": 1.0, **facts}  # fmt: skip


def test_bench_devices_gives_the_rates_that_no_run_has(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One a device, the newest; another net's, another size's and another host's count for nothing."""
    settings = load_settings(None, workspace.root).settings
    keep_rates(workspace, [measured(samples_per_s=90.0), measured(model="resnet50"), measured(img_size=777)])
    keep_rates(workspace, [measured(), measured("cuda", name="Tesla T4", samples_per_s=900.0)])
    monkeypatch.setattr("socket.gethostname", lambda: "another")
    keep_rates(workspace, [measured(samples_per_s=1.0)])
    monkeypatch.undo()
    found = measured_rates(settings, workspace)
    assert [(rate.per_s, rate.device, rate.gpu) for rate in found] == [
        (900.0, "cuda", "Tesla T4"),
        (100.0, "cpu", None),
    ]
    assert {rate.source for rate in found} == {"bench devices"}
    rows = {option.gpu: option for option in plan(workspace, rates=None).options}
    t4, rtx = rows["T4"], rows["RTX 4090"]
    assert t4.hours_range is not None
    assert t4.hours_range[0] == t4.hours_range[1] == rows["Tesla T4"].hours
    assert rtx.hours_from == f"bench devices, {date.today()}"
    trained(workspace, "0001", samples_per_s=321.0)
    assert [rate.source for rate in measured_rates(settings, workspace)] == ["run 0001", "bench devices"]


def test_rates_that_cannot_be_read_are_said_and_measured_anew(workspace: Workspace) -> None:
    path = keep_rates(workspace, [measured()])
    for text in ("[1]", '[{"host": 1}]'):
        path.write_text(text if text == "[1]" else path.read_text().replace('"samples_per_s"', '"rate"'))
        with pytest.raises(Failed, match="bench devices"):
            plan(workspace, rates=None)
        keep_rates(workspace, [measured()])
        assert plan(workspace, rates=None).rates


def test_bench_devices_keeps_what_it_has_measured(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    result = {
        key: value for key, value in measured().items() if key not in ("device", "name", "model", "img_size")
    }
    monkeypatch.setattr(devices, "photographs", lambda folder, count: folder)
    monkeypatch.setattr(devices, "_measure", lambda *words: result | {"latency_ms": 1.0, "peak_memory_bytes": 1, "epoch_usd": None})  # fmt: skip
    monkeypatch.setattr(devices, "devices_there", lambda: [ChosenDevice("cpu", "a CPU")])
    settings = load_settings(None, workspace.root).settings
    devices.main(["--model", settings.model.name, "--img-size", str(settings.data.img_size), "--workspace", str(workspace.root)])  # fmt: skip
    assert [rate.per_s for rate in measured_rates(settings, workspace)] == [100.0]


def test_the_advice_is_the_documents() -> None:
    said = [advice(count) for count in (999, 1_000, 99_999, 100_000)]
    assert [part in one for part, one in zip(("CPU", "local GPU", "RTX 4090", "A100"), said, strict=True)] == [
        True
    ] * 4


def test_the_newest_price_of_a_gpu_counts(workspace: Workspace) -> None:
    words = ['cloud.prices=[{provider="runpod", gpu="rtx4090", memory_gb=24, hourly_usd=0.5, at="2026-02-03"}]']
    settings = load_settings(None, workspace.root, words).settings
    found = find_gpu(price_table(settings, workspace.state), "RTX 4090")
    assert [(row.hourly_usd, row.at, row.speedup) for row in found] == [(0.5, "2026-02-03", (15, 25))]
    with pytest.raises(UsageError, match="RTX 3090"):
        find_gpu(price_table(settings, workspace.state), "RTX 4080")


def test_skypilots_catalogue_becomes_rows_of_today(workspace: Workspace) -> None:
    def item(**more: Any) -> dict[str, Any]:
        return {"cloud": "RunPod", "instance_type": "1x_RTX4090_SECURE", "accelerator_name": "RTX4090",
                "accelerator_count": 1.0, "cpu_count": 8.0, "device_memory": 0.0234375, "memory": 24.0, "price": 0.69,
                "spot_price": 0.35, "region": "US", **more}  # fmt: skip

    offers = {
        "RTX4090": [item(), item(price=0.59), item(cloud="AWS", price=float("nan"))],
        "L4": [item(accelerator_name="L4", accelerator_count=4.0, spot_price=None, cloud="AWS")],
        "RTX6000-Ada": [item(accelerator_name="RTX6000-Ada", device_memory=48 / 1024, price=0.77)],
        "M4000": [item(accelerator_name="M4000", device_memory=None)],
    }
    assert keep_catalogue(workspace.state, offers, "2026-11-21") == 3
    settings = load_settings(None, workspace.root).settings
    rows = {(row.provider, plain(row.gpu)): row for row in price_table(settings, workspace.state)}
    assert (rows["runpod", "rtx4090:1"].hourly_usd, rows["runpod", "rtx4090:1"].memory_gb) == (0.59, 24)
    assert rows["aws", "l4:4"].memory_gb == 96
    assert rows["runpod", "rtx6000ada:1"].memory_gb == 48
    assert rows["aws", "l4:4"].spot_usd is None
    with pytest.raises(Failed, match="no GPU"):
        keep_catalogue(workspace.state, {"M4000": [item(price=0)]}, "2026-11-21")


def test_names_that_people_write_differently_are_one_gpu() -> None:
    assert plain("RTX 4090") == plain("rtx4090") == plain("NVIDIA GeForce RTX-4090")
    assert plain("NVIDIA A100-SXM4-80GB") == plain("A100-80GB")
    assert gpu_count("A100-40GB:8") == ("A100-40GB", 8)
    many, one = speedup_of("A100-40GB:8"), speedup_of("A100-40GB")
    assert many is not None
    assert one is not None
    assert 7 < many[0] / one[0] < 8
    assert speedup_of("H100") is None


def test_every_price_of_the_table_has_a_day(tmp_path: Path) -> None:
    for row in price_table(load_settings(None, tmp_path).settings, tmp_path):
        assert date.fromisoformat(row.at) <= date.today()
        assert row.hourly_usd > (row.spot_usd or 0)
