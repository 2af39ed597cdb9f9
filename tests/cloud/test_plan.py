"""`cloud plan`: hours and dollars from a measured rate, memory from `fit`, the cheapest that fits first."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from engine.cli.cloud import _plan_text
from engine.cli.verb import STRIKE
from engine.cloud.plan import Plan, Rate, advice, hours_on, make_plan, trace
from engine.cloud.prices import Row, find_gpu, gpu_count, keep_catalogue, plain, price_table, speedup_of
from engine.config import Settings, load_settings
from engine.devices.cores import available_cores
from engine.errors import Failed, UsageError
from engine.store.files import write_json
from engine.store.workspace import Workspace
from engine.training import fit

CPU = Rate(100.0, "cpu", "the test")


def plan(workspace: Workspace, *words: str, rate: Rate | None = CPU) -> Plan:
    return make_plan(load_settings(None, workspace.root, words).settings, workspace, rate)


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
    assert hours_on(row, 36_000, Rate(10.0, "cuda", "run 0001", "NVIDIA GeForce RTX 4090")) == (1.0, 1.0)
    assert hours_on(row, 36_000, Rate(10.0, "cuda", "run 0001", "H200")) is None
    assert hours_on(row, 36_000, None) is None


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


def test_memory_that_nobody_traced_is_unknown_not_guessed(workspace: Workspace) -> None:
    found = plan(workspace)
    assert found.need_bytes is None
    assert {option.fits for option in found.options} == {None}


def test_without_a_rate_the_hours_are_unknown_and_a_run_gives_one(workspace: Workspace) -> None:
    assert plan(workspace, rate=None).rate is None
    settings = load_settings(None, workspace.root).settings
    kept = {"model": {"name": settings.model.name}, "data": {"img_size": settings.data.img_size}}
    manifest = {"run": "0001", "status": "completed", "samples_per_s": 321.0, "device": "cpu", "settings": kept}
    write_json(workspace.runs / "0001" / "manifest.json", manifest)
    found = plan(workspace, rate=None)
    assert found.rate == Rate(321.0, "cpu", "run 0001")
    assert any(option.provider == "here" and option.total_usd for option in found.options)


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
        "M4000": [item(accelerator_name="M4000", device_memory=None)],
    }
    assert keep_catalogue(workspace.state, offers, "2026-11-21") == 2
    settings = load_settings(None, workspace.root).settings
    rows = {(row.provider, plain(row.gpu)): row for row in price_table(settings, workspace.state)}
    assert (rows["runpod", "rtx4090:1"].hourly_usd, rows["runpod", "rtx4090:1"].memory_gb) == (0.59, 24)
    assert rows["aws", "l4:4"].memory_gb == 96
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
