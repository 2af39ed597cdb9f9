"""What a run does: its settings as they are kept in its manifest, and what a resume may change of them."""

from __future__ import annotations

from typing import Any

from engine.config import Loaded, Settings
from engine.config.schema import Data, Go, Model, Training
from engine.errors import UsageError

SECTIONS = ("data", "model", "training", "device", "go")
DEVICES = ("cpu", "cuda", "mps", "xpu")
# keys that cannot change the weights
HARMLESS = frozenset(
    (
        "training.num_workers",
        "training.save_every_steps",
        "training.max_checkpoints",
        "training.mirror",
        "training.trackers",
        "training.parallel",
        "training.stalled_minutes",
        "training.stalled_steps",
        "data.cache",
        "data.cache_bytes",
    )
)


def kept_settings(settings: Settings) -> dict[str, Any]:
    """The part of the settings that a run depends on, as JSON."""
    whole = settings.model_dump(mode="json")
    return {name: whole[name] for name in SECTIONS} | {"checkpoints": {"root": str(settings.checkpoints_root)}}


def go_settings(loaded: Loaded) -> Settings:
    """The settings of a new Go run: `go.*` stands in for the `training.*` that this command line does not set."""
    settings = loaded.settings.model_copy(deep=True)
    go = settings.go
    for name, value in (
        ("epochs", go.epochs),
        ("batch_size", go.batch_size),
        ("learning_rate", go.learning_rate),
        ("micro_batch", go.micro_batch),
    ):
        if loaded.origins.get(f"training.{name}") != "command line":
            setattr(settings.training, name, value)
    settings.model.name, settings.defaults.data = go.net, "go"
    return settings


def without_overruled(settings: Settings, loaded: Loaded) -> Settings:
    """The settings without what a device's table says of keys that this command line sets itself."""
    settings = settings.model_copy(deep=True)
    for name in ("batch_size", "num_workers"):
        if loaded.origins.get(f"training.{name}") == "command line":
            for kind in DEVICES:
                setattr(getattr(settings.device, kind), name, None)
    return settings


def on_device(settings: Settings, kind: str) -> Settings:
    """The settings as the table of the device asks for them."""
    limits = getattr(settings.device, kind)
    wanted = {name: getattr(limits, name) for name in ("batch_size", "num_workers")}
    wanted = {name: value for name, value in wanted.items() if value is not None}
    if not wanted:
        return settings
    return settings.model_copy(update={"training": settings.training.model_copy(update=wanted)})


def memory_limit_bytes(settings: Settings, kind: str) -> int | None:
    """What the table of the device allows, None for all that there is."""
    gigabytes = getattr(settings.device, kind).memory_limit_gb
    return None if gigabytes is None else int(gigabytes * 2**30)


def resumed_settings(loaded: Loaded, kept: dict[str, Any]) -> Settings:
    """The settings of a resumed run: those it began with, and the harmless overrides of this command line.

    Raises:
        UsageError: an override would change the result.
    """
    return _settings_of(loaded, kept, frozen=True)


def repeated_settings(loaded: Loaded, kept: dict[str, Any]) -> Settings:
    """The settings of a run that repeats another: that one's, changed by what this command line sets."""
    return _settings_of(loaded, kept, frozen=False)


def _settings_of(loaded: Loaded, kept: dict[str, Any], *, frozen: bool) -> Settings:
    now = kept_settings(loaded.settings)
    kept = {**{name: now[name] for name in SECTIONS}, **kept}
    result = {name: dict(values) for name, values in kept.items()}
    for argument in loaded.arguments:
        key = argument.partition("=")[0]
        section, _, name = key.partition(".")
        section = section if section != "defaults" else name
        if section not in SECTIONS:
            continue
        names = [name.partition(".")[0]] if "." in key and not key.startswith("defaults.") else list(now[section])
        for one in names:
            if now[section].get(one) == kept[section].get(one):
                continue
            given = _given(loaded, f"{section}.{one}", key)
            if f"{section}.{one}" in HARMLESS or (given and not frozen):
                result[section][one] = now[section][one]
            elif given:
                raise UsageError(
                    f"'{argument}' would change the result of a run that has begun"
                    f" (it has {section}.{one}={kept[section].get(one)})",
                    "leave it out, or start a new run",
                    kind="changes_result",
                )
    settings = loaded.settings.model_copy(deep=True)
    settings.data = Data.model_validate(result["data"])
    settings.model = Model.model_validate(result["model"])
    settings.training = Training.model_validate(result["training"])
    settings.device = type(settings.device).model_validate(result["device"])
    settings.go = Go.model_validate(result["go"])
    settings.checkpoints.root = type(settings.checkpoints).model_validate(kept["checkpoints"]).root
    return settings


def _given(loaded: Loaded, dotted: str, key: str) -> bool:
    """Whether this command line set `dotted`, by its own key or by choosing the group that holds it."""
    origin = loaded.origins.get(dotted, "")
    return key.startswith(dotted) or origin in ("command line", "") or origin.startswith(("group ", "model="))
