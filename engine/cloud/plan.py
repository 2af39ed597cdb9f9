"""What a training would cost where: hours from a measured rate and the documents' speed-ups, memory from `fit`.

Hours on a GPU are the samples of the run through the rate that this machine's CPU was measured at, divided by the
GPU's speed-up. The documents' speed-ups are ranges over a CPU of 8 cores; this machine's own rate stands for that
CPU in proportion to its cores. A rate that was measured on the very GPU counts for more than any table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from engine.cloud.prices import Row, plain, price_table
from engine.cloud.rates import Rate, measured_rates
from engine.config import Settings
from engine.devices.cores import available_cores
from engine.errors import UsageError
from engine.store.workspace import Workspace
from engine.tasks.images.length import DIGITS_EPOCHS, default_epochs
from engine.training.fit import Facts, Forecast, NotTraced, TraceCache, facts_of, forecast

REFERENCE_CORES = 8  # of the documents' CPU
_ADVICE = ((1_000, "a CPU will do"), (10_000, "a local GPU"), (100_000, "an RTX 4090"))
_PRODUCTION = "an A100, as for production"
UNBOUNDED = 1 << 50  # bytes of a GPU on which everything fits


@dataclass(frozen=True)
class Option:
    """One way to run the training; `reason` says why it does not fit, None: it does, or nobody knows.

    `total_usd` and `hours` are the middle of the documents' range, `hours_range` and `total_range` its ends;
    `hours_from` is the measurement that they were reckoned from. `price_old`: older than `cloud.price_days`.
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
    hours_from: str | None
    fits: bool | None
    reason: str | None
    price_at: str
    price_old: bool
    price_source: str
    price_from: str

    @property
    def total(self) -> float:
        totals = [total for total in (self.total_usd, self.spot_total_usd) if total is not None]
        return min(totals, default=float("inf"))


@dataclass(frozen=True)
class Plan:
    """The options, cheapest first that fits, and what they were reckoned from: `rates` that were measured, and the
    team's advice for so many images."""

    options: tuple[Option, ...]
    task: str
    model: str
    img_size: int
    samples: int
    epochs: int
    rates: tuple[Rate, ...]
    need_bytes: int | None  # on a GPU, by `fit`; None: not traced
    advice: str | None

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def make_plan(settings: Settings, workspace: Workspace, rates: Sequence[Rate] | None = None) -> Plan:
    """The plan of the training that the settings describe. Torch-free: memory is known as far as `fit` has traced it.

    Args:
        rates: measured ones; None seeks them in the workspace.

    Raises:
        UsageError: as `work_of`, or a price is none.
        Failed: a file of kept prices or rates is damaged.
    """
    count, epochs = work_of(settings, workspace)
    samples, images = count * epochs, settings.task == "images"
    rates = tuple(measured_rates(settings, workspace) if rates is None else rates)
    options = [_here(settings, samples, rate) for rate in rates]
    facts = facts_of(settings) if images else None
    need = memory_forecast(settings, workspace, facts) if facts else None
    for row in price_table(settings, workspace.state):
        fits, reason = fits_into(settings, workspace, facts, need, row.gpu_bytes) if facts else (None, None)
        options.append(_option(row, settings.cloud.price_days, hours_on(row, samples, rates), fits, reason))
    options.sort(key=lambda option: (option.fits is False, option.total, option.hourly_usd))
    return Plan(
        tuple(options),
        settings.task,
        settings.model.name if images else settings.go.net,
        settings.data.img_size if images else settings.go.board_size,
        count,
        epochs,
        rates,
        need.predicted_bytes if need else None,
        advice(count) if images else None,
    )


def work_of(settings: Settings, workspace: Workspace) -> tuple[int, int]:
    """How many samples an epoch has, and how many epochs the training takes; what it decides by itself is known by
    its data.

    Raises:
        UsageError: the data's files cannot be listed, there are none, or nobody knows how to count this task's.
    """
    if settings.task == "go":
        from engine.tasks.go.parse import summary

        folder = settings.go.shards or workspace.root / "go" / "shards"
        positions = int(summary(folder.expanduser())["positions"])
        if not positions:
            raise UsageError(f"no positions in {folder}", "make shards first: go parse PATHS", kind="not_found")
        return min(settings.go.epoch_positions or positions, positions), settings.go.epochs
    if settings.task != "images":
        raise UsageError(
            f"nobody can count the samples of the task {settings.task}", "cloud plan knows images and go"
        )
    if settings.data.kind == "folder" and settings.data.root is None:
        raise UsageError("data.root is not set", "say which data the training takes: data.root=DIR")
    root = settings.data.root if settings.data.kind != "digits" else None
    if root is not None and not root.exists():  # of data that are not there `facts_of` has the manual's figures
        raise UsageError(f"no data at {root}", "check data.root", kind="not_found")
    count = facts_of(settings).samples
    automatic = DIGITS_EPOCHS if settings.data.kind == "digits" else default_epochs(count)
    return count, settings.training.epochs or automatic


def advice(samples: int) -> str:
    """The documents' advice by the size of the data, in images."""
    for limit, what in _ADVICE:
        if samples < limit:
            return f"{samples:,} images: {what} (the team's advice for under {limit:,})"
    return f"{samples:,} images: {_PRODUCTION}"


def _here(settings: Settings, samples: int, rate: Rate) -> Option:
    name = rate.gpu or (f"CPU, {available_cores()} cores" if rate.device == "cpu" else rate.device)
    hours, hourly = samples / rate.per_s / 3600, settings.cloud.cpu_hourly_usd
    span, totals = (hours, hours), (hours * hourly, hours * hourly)
    return Option("here", name, 0, hourly, None, hours, totals[0], span, totals, None, rate.origin, None, None, "",
                  False, "config", "config")  # fmt: skip


@dataclass(frozen=True)
class Hours:
    """Least and greatest hours on a GPU, and the measurement that they are reckoned from."""

    least: float
    greatest: float
    origin: str

    @property
    def middle(self) -> float:
        return float((self.least * self.greatest) ** 0.5)


def _option(row: Row, price_days: float, hours: Hours | None, fits: bool | None, reason: str | None) -> Option:
    middle = hours.middle if hours else None
    return Option(
        row.provider,
        row.gpu,
        row.memory_gb,
        row.hourly_usd,
        row.spot_usd,
        middle,
        middle * row.hourly_usd if middle is not None else None,
        (hours.least, hours.greatest) if hours else None,
        (hours.least * row.hourly_usd, hours.greatest * row.hourly_usd) if hours else None,
        middle * row.spot_usd if middle is not None and row.spot_usd is not None else None,
        hours.origin if hours else None,
        fits,
        reason,
        row.at,
        row.age_days() > price_days,
        row.source,
        row.origin,
    )


def hours_on(row: Row, samples: int, rates: Sequence[Rate]) -> Hours | None:
    """The hours of so many samples on a GPU: by a rate of this very GPU, else by the CPU's and the documents'
    speed-up; None where nobody has measured what it would take."""
    for rate in rates:
        if rate.gpu is not None and plain(rate.gpu) == plain(row.gpu):
            hours = samples / rate.per_s / 3600
            return Hours(hours, hours, rate.origin)
    cpu = next((rate for rate in rates if rate.device == "cpu"), None)
    if cpu is None or row.speedup is None:
        return None
    reference = cpu.per_s * REFERENCE_CORES / available_cores()
    least, greatest = row.speedup
    return Hours(samples / reference / greatest / 3600, samples / reference / least / 3600, cpu.origin)


def fits_into(
    settings: Settings, workspace: Workspace, facts: Facts, need: Forecast | None, there: int
) -> tuple[bool | None, str | None]:
    """Whether the training fits into a GPU with so many bytes, and if not, why; None: `fit` has not traced it.

    Args:
        need: `memory_forecast` where everything fits.
    """
    if need is None:
        return None, None
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
    for there in sorted({row.gpu_bytes for row in price_table(settings, workspace.state)}):
        if there < need.predicted_bytes:
            forecast(settings, facts, "cuda", "bf16", there, traces)
    return need
