"""The typed schema of `config.toml`: every section and key, its type, default and meaning.

The names are the contract's; scripts set them as `section.key=value`. A `None` default means
"derived": the field's description says from what.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from engine.config.references import described, is_reference
from engine.config.secrets import NAMES, PLAIN
from engine.errors import nearest


def _split_commas(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _without_brackets(value: Any) -> Any:
    """`[a,b]` without quotes, as a shell leaves it, is the list that was meant."""
    return value[1:-1] if isinstance(value, str) and value.startswith("[") and value.endswith("]") else value


TRACKERS = ("tensorboard", "wandb", "mlflow")


def _known_trackers(names: list[str]) -> list[str]:
    for name in names:
        if name not in TRACKERS and ":" not in name:
            raise ValueError(f"no tracker '{name}': {nearest(name, TRACKERS)}; or module:factory of one's own")
    return names


def _references(given: dict[str, str]) -> dict[str, str]:
    """Where secrets are found, never what they are; nothing that stood there is said again."""
    for name, text in given.items():
        if name not in (*NAMES, *PLAIN):
            raise ValueError(f"no secret '{name}': {nearest(name, (*NAMES, *PLAIN))}")
        if not is_reference(text):
            raise ValueError(
                f"{name} must be a reference, env:NAME, file:PATH or cmd:COMMAND: no secret stands here"
            )
        described(text)
    return given


def _none_is_a_word(value: Any) -> Any:
    """`key=none` on a command line means null; of a key with a choice called none it means that choice."""
    return "none" if value is None else value


OrNone = BeforeValidator(_none_is_a_word)
Strings = Annotated[list[str], BeforeValidator(_split_commas)]
Floats = Annotated[list[float], BeforeValidator(_split_commas)]
Port = Annotated[int, Field(ge=1, le=65535)]
Fraction = Annotated[float, Field(gt=0, lt=1)]


def _auto(value: Any) -> Any:
    return 0 if value == "auto" else value


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", protected_namespaces=(), defer_build=True, allow_inf_nan=False)


class Defaults(Section):
    data: str = "digits"
    model: str = "litecnn"
    training: str = "default"


class Checkpoints(Section):
    root: Path | None = None  # None: WORKSPACE/checkpoints


class Source(Section):
    kind: Literal["local", "ssh"] = "local"
    root: str | None = None  # None: checkpoints.root
    host: str | None = None
    port: Port = 22
    user: str | None = None
    key: Path | None = None
    known_hosts: Path | None = None
    poll_minutes: Annotated[float, Field(gt=0)] = 30
    settle_s: Annotated[float, Field(ge=0)] = 2.0
    timeout_s: Annotated[float, Field(gt=0)] = 20.0
    max_bytes: Annotated[int, Field(gt=0)] = 4 * 1024**3
    missed_looks: Annotated[int, Field(ge=0)] = 3  # 0: never an alert
    model: str | None = None
    classes: Strings | None = None
    img_size: Annotated[int, Field(ge=8, le=4096)] | None = None
    mean: Floats | None = None
    std: Floats | None = None


class SlotServer(Section):
    port: Port


class Servers(Section):
    host: str = "127.0.0.1"
    asis: SlotServer = SlotServer(port=8891)
    tobe: SlotServer = SlotServer(port=8892)
    runtime: Literal["auto", "onnx", "torch"] = "auto"
    batch_window_ms: Annotated[float, Field(ge=0, le=1000)] = 2.0
    threads: Annotated[int, Field(ge=0)] = 0  # 0: one a CPU core
    queue: Annotated[int, Field(ge=1)] = 256
    max_wait_s: Annotated[float, Field(gt=0)] = 0.5
    max_body_bytes: Annotated[int, Field(ge=1024)] = 32 * 1024 * 1024
    max_pixels: Annotated[int, Field(ge=64)] = 50_000_000
    receive_timeout_s: Annotated[float, Field(gt=0)] = 10.0
    drain_timeout_s: Annotated[float, Field(gt=0)] = 10.0
    access_log: bool = False


class Data(Section):
    kind: Literal["digits", "folder"] = "folder"
    root: Path | None = None
    img_size: Annotated[int, Field(ge=8, le=4096)] = 128
    train_size: Annotated[int, Field(ge=8, le=4096)] | None = None  # None: img_size
    val_fraction: Fraction = 0.2
    resize: Literal["crop", "squash", "pad"] = "crop"
    augment: Annotated[Literal["none", "light", "standard", "document"], OrNone] = "standard"
    mean: Floats = [0.485, 0.456, 0.406]
    std: Floats = [0.229, 0.224, 0.225]
    cache: Literal["disk", "memory"] = "disk"
    cache_bytes: Annotated[int, Field(ge=0)] = 4 * 1024**3


class Model(Section):
    name: str = "litecnn"
    # published weights, or a file of weights to begin with
    pretrained: Annotated[bool | Path, Field(union_mode="left_to_right")] = False
    settings: dict[str, Any] = {}


class Training(Section):
    epochs: Annotated[int, Field(ge=1)] | None = None  # None: by the size of the data set
    batch_size: Annotated[int, BeforeValidator(_auto), Field(ge=0)] = (
        32  # 0, or auto: the biggest sensible that fits
    )
    micro_batch: Annotated[int, Field(ge=1)] | None = None  # None: the whole batch at once
    learning_rate: Annotated[float, Field(gt=0)] = 0.008
    optimizer: Literal["adamw", "sgd"] = "adamw"
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9  # of sgd
    nesterov: bool = True
    schedule: Literal["cosine", "onecycle", "constant"] = "cosine"
    weight_decay: Annotated[float, Field(ge=0)] = 0.05
    warmup_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.1
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.1
    ema_decay: Annotated[float, Field(ge=0, lt=1)] = 0.0
    clip_norm: Annotated[float, Field(ge=0)] = 0.0  # 0: off
    early_stop: Annotated[int, Field(ge=0)] = 0  # epochs without a better one; 0: never
    freeze: Strings = []
    quantization_aware: bool = False
    class_weights: Annotated[Literal["none", "balanced"], OrNone] = "none"
    mixup: Annotated[float, Field(ge=0)] | None = None  # alpha; None for both: as data.augment has them
    cutmix: Annotated[float, Field(ge=0)] | None = None
    mix_share: Annotated[float, Field(ge=0, le=1)] | None = None
    randaugment: Annotated[int, Field(ge=0, le=8)] = 0
    randaugment_magnitude: Annotated[float, Field(ge=0, le=10)] = 9.0
    erasing: Annotated[float, Field(ge=0, le=1)] | None = None  # None: as data.augment has it
    sampling: Literal["uniform", "balanced"] = "uniform"
    num_workers: Annotated[int, Field(ge=0)] = 0
    processes: Annotated[int, BeforeValidator(_auto), Field(ge=0)] = 0  # 0, or auto: one a CUDA device, else one
    compile: bool = False
    seed: int = 0
    cycle: Annotated[int, Field(ge=0)] | None = None  # None: the next free number
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    save_every_steps: Annotated[int, Field(ge=0)] = 0  # 0: at the end of each epoch
    max_checkpoints: Annotated[int, Field(ge=1)] = 5
    mirror: Path | None = None
    trackers: Annotated[Strings, BeforeValidator(_without_brackets), AfterValidator(_known_trackers)] = []
    parallel: Annotated[int, Field(ge=1)] | None = None  # None: one a CUDA device, else one
    stalled_minutes: Annotated[float, Field(ge=0)] = 10.0  # 0: never an alert
    stalled_steps: Annotated[float, Field(ge=1)] = 50.0


class Trackers(Section):
    project: str = "understudy"
    timeout_s: Annotated[float, Field(gt=0)] = 20.0
    waiting: Annotated[int, Field(ge=10)] = 1000
    wandb_entity: str | None = None
    mlflow_uri: str | None = None  # None: sqlite:///WORKSPACE/mlflow/mlflow.db
    mlflow_model: str = "understudy"


class DeviceLimits(Section):
    batch_size: Annotated[int, Field(ge=1)] | None = None  # None, here and below: as training has it
    num_workers: Annotated[int, Field(ge=0)] | None = None
    memory_limit_gb: Annotated[float, Field(gt=0)] | None = None  # None: all there is


class Device(Section):
    prefer: Literal["auto", "cuda", "mps", "cpu", "xpu"] = "auto"
    cpu: DeviceLimits = DeviceLimits()
    cuda: DeviceLimits = DeviceLimits()
    mps: DeviceLimits = DeviceLimits()
    xpu: DeviceLimits = DeviceLimits()


class AB(Section):
    data: Path | None = None  # None with data=digits: the embedded held-out digits
    images: Annotated[int, Field(ge=1)] = 1000
    seed: int = 0
    concurrency: Annotated[int, Field(ge=1, le=64)] = 4
    timeout_s: Annotated[float, Field(gt=0)] = 10.0


class Gate(Section):
    rule: Literal["superior", "non_inferior"] = "superior"
    alpha: Fraction = 0.05
    margin: Annotated[float, Field(ge=0, lt=1)] = 0.01
    min_images: Annotated[int, Field(ge=1)] = 100


class Bake(Section):
    minutes: Annotated[float, Field(ge=0)] = 30  # 0: off
    min_requests: Annotated[int, Field(ge=1)] = 100
    alpha: Fraction = 0.01
    max_error_rate_increase: Fraction = 0.01
    max_p99_ratio: Annotated[float, Field(gt=1)] = 2.0
    max_confidence_shift: Fraction = 0.25
    max_class_shift: Fraction = 0.25
    rollback: bool = False


class Retention(Section):
    releases: Annotated[int, Field(ge=1)] = 10
    backups: Annotated[int, Field(ge=1)] = 10
    days: Annotated[float, Field(ge=0)] = 30
    automatic: bool = False


class Shadow(Section):
    share: Annotated[float, Field(ge=0, le=1)] = 0.0  # 0: off
    timeout_s: Annotated[float, Field(gt=0)] = 2.0
    waiting: Annotated[int, Field(ge=1)] = 32
    waiting_bytes: Annotated[int, Field(ge=1024)] = 32 * 1024 * 1024
    keep: bool = False
    keep_images: Annotated[int, Field(ge=1)] = 1000
    keep_bytes: Annotated[int, Field(ge=1024)] = 256 * 1024 * 1024
    retention_days: Annotated[float, Field(gt=0)] = 30


class Host(Section):
    address: str
    user: str | None = None
    port: Port = 22
    key: Path | None = None
    known_hosts: Path | None = None
    engine: str | None = None  # None: understudy-engine on the PATH there, if it is installed


class Export(Section):
    quantization: bool = True
    dtype: Literal["int8", "fp16"] = "int8"
    pruning: bool = False
    sparsity: Annotated[float, Field(ge=0, lt=1)] = 0.3
    formats: Strings = ["onnx", "torchscript"]
    images: Annotated[int, Field(ge=1)] = 1000
    calibration: Annotated[int, Field(ge=8)] = 256
    max_loss: Annotated[float, Field(ge=0, lt=1)] = 0.005
    recover: Literal["fp32", "qat"] = "fp32"
    pruning_method: Literal["structured", "unstructured"] = "structured"
    finetune_epochs: Annotated[int, Field(ge=0)] = 10
    finetune_rate: Annotated[float, Field(gt=0, le=1)] = 0.2


class Go(Section):
    shards: Path | None = None  # None: WORKSPACE/go/shards
    games_per_shard: Annotated[int, Field(ge=1)] = 500
    board_size: Annotated[int, Field(ge=2, le=25)] = 19
    min_rank: str | None = None
    since: str | None = None
    until: str | None = None
    result: Literal["any", "known", "black", "white"] = "any"
    net: str = "plain32x6"
    val_fraction: Fraction = 0.02
    val_shards: Path | None = None  # games that judge instead, all of them
    epoch_positions: Annotated[int, Field(ge=1)] | None = None  # None: a whole pass
    batch_size: Annotated[int, Field(ge=1)] = 256
    micro_batch: Annotated[int, Field(ge=1)] = 64
    epochs: Annotated[int, Field(ge=1)] = 5
    learning_rate: Annotated[float, Field(gt=0)] = 0.001


class Notify(Section):
    events: Strings = ["trained", "deployed", "compared", "promoted", "rolled_back", "alert"]
    timeout_s: Annotated[float, Field(gt=0)] = 10.0
    telegram_api: str = "https://api.telegram.org"


class Console(Section):
    theme: str = "understudy"
    language: Literal["en", "ko"] = "en"
    keymap: Path | None = None
    mouse: bool = True


class Price(Section):
    """One GPU of one provider, as a person would write it down."""

    provider: str
    gpu: str
    memory_gb: Annotated[float, Field(gt=0)]  # of the GPU, or of all of them together
    hourly_usd: Annotated[float, Field(ge=0)]
    spot_usd: Annotated[float, Field(ge=0)] | None = None  # None: not offered
    speedup: Annotated[list[float], Field(min_length=2, max_length=2)] | None = (
        None  # None: as the GPU's other rows
    )
    at: str  # the day of these prices, YYYY-MM-DD
    source: str = "config"


class CloudSsh(Section):
    address: str | None = None
    user: str | None = None
    port: Port = 22
    key: Path | None = None
    known_hosts: Path | None = None
    root: str = "understudy"  # below the account's home, or absolute
    python: str | None = None  # None: an environment is made there by `setup`
    setup: str | None = None  # None: a venv with the uploaded project
    files: Strings | None = None  # None: what git tracks
    data: str | None = None  # None: data.root is uploaded
    boot: bool = False
    grace_s: Annotated[float, Field(gt=0)] = 60.0
    timeout_s: Annotated[float, Field(gt=0)] = 20.0
    hourly_usd: Annotated[float, Field(ge=0)] = 0.0


class Cloud(Section):
    provider: Literal["skypilot", "ssh"] | None = None
    skypilot: str = "sky"  # the command, in an environment of its own
    infra: str | None = None  # SkyPilot's word for cloud, region, zone; None: wherever it is cheapest
    budget_usd: Annotated[float, Field(gt=0)] | None = None
    max_hourly_usd: Annotated[float, Field(gt=0)] | None = None
    idle_minutes: Annotated[int, Field(ge=1)] = 10
    reserve_minutes: Annotated[float, Field(ge=1)] = 5.0
    poll_s: Annotated[float, Field(ge=5)] = 60.0
    relaunches: Annotated[int, Field(ge=0)] = 20
    timeout_s: Annotated[float, Field(gt=0)] = 120.0
    prices: list[Price] = []  # besides, or instead of, those of engine/cloud/prices.toml
    price_days: Annotated[float, Field(gt=0)] = 30.0
    cpu_hourly_usd: Annotated[float, Field(ge=0)] = 0.15
    ssh: CloudSsh = CloudSsh()


class Logging(Section):
    format: Literal["text", "json"] = "text"


class Cluster(Section):
    address: str | None = None  # None: this machine alone
    cpus: Annotated[int, Field(ge=1)] | None = None  # None: a GPU's share, else a whole node
    retries: Annotated[int, Field(ge=0)] = 3


class Settings(Section):
    """All settings of one host, merged and checked."""

    workspace: Path = Path("~/.understudy")
    task: str = "images"  # images, go, motion, or module:factory of one's own
    defaults: Defaults = Defaults()
    checkpoints: Checkpoints = Checkpoints()
    source: Source = Source()
    servers: Servers = Servers()
    data: Data = Data()
    model: Model = Model()
    training: Training = Training()
    trackers: Trackers = Trackers()
    device: Device = Device()
    ab: AB = AB()
    gate: Gate = Gate()
    bake: Bake = Bake()
    retention: Retention = Retention()
    shadow: Shadow = Shadow()
    hosts: dict[str, Host] = {}
    export: Export = Export()
    go: Go = Go()
    notify: Notify = Notify()
    console: Console = Console()
    cloud: Cloud = Cloud()
    cluster: Cluster = Cluster()
    logging: Logging = Logging()
    secrets: Annotated[dict[str, str], AfterValidator(_references)] = {}

    @property
    def checkpoints_root(self) -> Path:
        return self.checkpoints.root or self.workspace / "checkpoints"

    def port(self, slot: str) -> int:
        """The configured TCP port of slot "asis" or "tobe"."""
        return self.servers.asis.port if slot == "asis" else self.servers.tobe.port
