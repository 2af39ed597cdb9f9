"""What a training would cost where: hours from a measured rate and the documents' speed-ups, memory from `fit`.

Hours on a GPU are the samples of the run through the rate that this machine's CPU was measured at, divided by the
GPU's speed-up. The documents' speed-ups are ranges over a CPU of 8 cores; this machine's own rate stands for that
CPU in proportion to its cores. A rate that was measured on the very GPU counts for more than any table.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from engine.cloud.prices import Row, plain, price_table
from engine.config import Settings
from engine.devices.cores import available_cores
from engine.errors import UsageError
from engine.store.workspace import Workspace
from engine.tasks.images.length import DIGITS_EPOCHS, default_epochs
from engine.training.fit import Facts, Forecast, NotTraced, TraceCache, facts_of, forecast
from engine.training.runs import RunFolder, list_runs

REFERENCE_CORES = 8  # of the documents' CPU
_LOOKED_AT = 50  # a rate is sought in so many of the newest runs
_ADVICE = ((1_000, "a CPU will do"), (10_000, "a local GPU"), (100_000, "an RTX 4090"))
_PRODUCTION = "an A100, as for production"
UNBOUNDED = 1 << 50  # bytes of a GPU on which everything fits


@dataclass(frozen=True)
class Rate:
    """Training samples a second, and where the figure is from."""

    per_s: float
    device: str
    source: str
    gpu: str | None = None


@dataclass(frozen=True)
class Option:
    """One way to run the training; `reason` says why it does not fit, None: it does, or nobody knows.

    `total_usd` and `hours` are the middle of the documents' range, `hours_range` and `total_range` its ends.
    """

    provider: str
    gpu: str
    memory_gb: float
    hourly_usd: float
    spot_usd: float | None
    hours: float | None
    total_usd: float | None
    hours_range: tuple[float, float] | None
    total_range: tuple[float, float] | None
    spot_total_usd: float | None
    fits: bool | None
    reason: str | None
    price_at: str
    price_age_days: int
    price_source: str

    @property
    def total(self) -> float:
        totals = [total for total in (self.total_usd, self.spot_total_usd) if total is not None]
        return min(totals, default=float("inf"))


@dataclass(frozen=True)
class Plan:
    """The options, cheapest first that fits, and what they were reckoned from."""

    options: tuple[Option, ...]
    samples: int
    epochs: int
    rate: Rate | None
    need_bytes: int | None  # on a GPU, by `fit`; None: not traced
    advice: str

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def make_plan(settings: Settings, workspace: Workspace, rate: Rate | None = None) -> Plan:
    """The plan of the training that the settings describe. Torch-free: memory is known as far as `fit` has traced it.

    Args:
        rate: a measured one; None seeks it in the runs of the workspace.

    Raises:
        UsageError: the data's files cannot be listed, or a price is none.
    """
    facts = facts_of(settings)
    if settings.data.kind == "folder" and settings.data.root is None:
        raise UsageError("data.root is not set", "say which data the training takes: data.root=DIR")
    samples = facts.samples
    epochs = settings.training.epochs or (
        DIGITS_EPOCHS if settings.data.kind == "digits" else default_epochs(samples)
    )
    rate = rate or measured_rate(settings, workspace)
    rows = price_table(settings, workspace.state)
    options = [_here(settings, samples * epochs, rate)] if rate and rate.device == "cpu" else []
    need = memory_forecast(settings, workspace, facts) if settings.task == "images" else None
    for row in rows:
        fits, reason = _fits(settings, workspace, facts, need, row)
        options.append(_option(row, samples * epochs, rate, fits, reason))
    options.sort(key=lambda option: (option.fits is False, option.total, option.hourly_usd))
    return Plan(tuple(options), samples, epochs, rate, need.predicted_bytes if need else None, advice(samples))


def advice(samples: int) -> str:
    """The documents' advice by the size of the data, in images."""
    for limit, what in _ADVICE:
        if samples < limit:
            return f"{samples:,} images: {what} (the team's advice for under {limit:,})"
    return f"{samples:,} images: {_PRODUCTION}"


def measured_rate(settings: Settings, workspace: Workspace) -> Rate | None:
    """The rate of the newest run with the same net and image size; None where there was none."""
    for entry, kept in _runs(workspace):
        same = (kept.get("model") or {}).get("name") == settings.model.name
        same = same and (kept.get("data") or {}).get("img_size") == settings.data.img_size
        if same and entry["samples_per_s"]:
            device = str(entry["device"])
            gpu = entry.get("device_name") if device == "cuda" else None
            return Rate(float(entry["samples_per_s"]), device, f"run {entry['run']}", gpu)
    return None


def _runs(workspace: Workspace) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    for entry in list_runs(workspace)[:_LOOKED_AT]:
        manifest = RunFolder(workspace.runs / str(entry["run"])).read_manifest()
        yield {**entry, "device_name": manifest.get("device_name")}, manifest.get("settings") or {}


def _here(settings: Settings, samples: int, rate: Rate) -> Option:
    hours = samples / rate.per_s / 3600
    total = hours * settings.cloud.cpu_hourly_usd
    return Option("here", f"CPU, {available_cores()} cores", 0, settings.cloud.cpu_hourly_usd, None, hours, total,
                  (hours, hours), (total, total), None, None, None, "", 0, "config")  # fmt: skip


def _option(row: Row, samples: int, rate: Rate | None, fits: bool | None, reason: str | None) -> Option:
    span = hours_on(row, samples, rate)
    hours = (span[0] * span[1]) ** 0.5 if span else None
    return Option(
        row.provider,
        row.gpu,
        row.memory_gb,
        row.hourly_usd,
        row.spot_usd,
        hours,
        hours * row.hourly_usd if hours is not None else None,
        span,
        (span[0] * row.hourly_usd, span[1] * row.hourly_usd) if span else None,
        hours * row.spot_usd if hours is not None and row.spot_usd is not None else None,
        fits,
        reason,
        row.at,
        row.age_days(),
        row.source,
    )


def hours_on(row: Row, samples: int, rate: Rate | None) -> tuple[float, float] | None:
    """Least and greatest hours of so many samples on a GPU; None where nobody has measured what it would take."""
    if rate is None:
        return None
    if rate.gpu is not None and plain(rate.gpu) == plain(row.gpu):
        hours = samples / rate.per_s / 3600
        return hours, hours
    if rate.device != "cpu" or row.speedup is None:
        return None
    reference = rate.per_s * REFERENCE_CORES / available_cores()
    least, greatest = row.speedup
    return samples / reference / greatest / 3600, samples / reference / least / 3600


def _fits(
    settings: Settings, workspace: Workspace, facts: Facts, need: Forecast | None, row: Row
) -> tuple[bool | None, str | None]:
    """Whether the training fits into the memory of one such GPU; None: `fit` has not traced it."""
    if need is None:
        return None, None
    there = int(row.memory_gb / row.count * 1e9)
    if need.predicted_bytes <= there:
        return True, None
    reason = f"needs {need.predicted_bytes / 1e9:.1f} GB of {there / 1e9:.0f} GB"
    smaller = memory_forecast(settings, workspace, facts, there)
    if smaller and smaller.predicted_bytes <= there:  # batch_size = "auto" takes fewer samples there
        return True, None
    return False, f"{reason}; it would fit with {smaller.suggestion}" if smaller and smaller.suggestion else reason


def memory_forecast(
    settings: Settings, workspace: Workspace, facts: Facts, available: int = UNBOUNDED
) -> Forecast | None:
    """`fit`'s forecast for a CUDA device with so many bytes, from its cache alone; None where it holds too little."""
    for precision in ("bf16", "fp32"):
        try:
            return forecast(settings, facts, "cuda", precision, available, TraceCache(workspace.cache, None))
        except NotTraced:
            continue
    return None


def trace(settings: Settings, workspace: Workspace) -> Forecast:
    """Have `fit` trace the training for a CUDA device, so that plans know of its memory. Imports torch.

    Of each GPU that is too small the smaller settings are traced too, until one fits: plans can name it.

    Raises:
        UsageError: the net cannot be built.
    """
    from engine.training.fit import trace_here

    traces = TraceCache(workspace.cache, trace_here)
    facts = facts_of(settings)
    need = forecast(settings, facts, "cuda", "bf16", UNBOUNDED, traces)
    for there in sorted({int(row.memory_gb / row.count * 1e9) for row in price_table(settings, workspace.state)}):
        if there < need.predicted_bytes:
            forecast(settings, facts, "cuda", "bf16", there, traces)
    return need
