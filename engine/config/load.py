"""Reading and merging the settings: built-in defaults, groups, `config.toml`, an environment, the command line.

Later layers win: schema defaults < built-in group < the file's group body < the file's sections <
its [environments.NAME] < the variables UNDERSTUDY_WORKSPACE and UNDERSTUDY_LOG_FORMAT < command line. Every merged
key remembers the layer it came from.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import tomli
from pydantic import BaseModel, ValidationError

from engine.config.schema import Defaults, Settings
from engine.config.secrets import look_beside, refer
from engine.environments import pick
from engine.errors import UsageError, nearest

GROUPS = ("data", "model", "training")
TASK_GROUPS = {"motion": {"data": "motion", "model": "mdm", "training": "motion"}}  # where nobody chose others
OVERRIDE = re.compile(r"^(workspace|task|data|model|training|[a-z_]+(?:\.[A-Za-z0-9_-]+)+)=", re.DOTALL)
_LOCAL_PATHS = (
    "workspace",
    "checkpoints.root",
    "source.key",
    "source.known_hosts",
    "data.root",
    "model.pretrained",
    "ab.data",
    "training.mirror",
    "go.shards",
    "go.val_shards",
    "console.keymap",
)
_LINE = "command line"
_YES_OR_NO = frozenset(("true", "false", "yes", "no", "on", "off", "1", "0"))  # model.pretrained is one, or a path


@dataclass(frozen=True)
class Loaded:
    """Merged settings with the layer that each dotted key came from, and the file they were read from."""

    settings: Settings
    origins: dict[str, str]
    path: Path | None
    arguments: tuple[str, ...] = ()
    environment: str = ""
    environments: tuple[str, ...] = ()  # those of the file

    @property
    def options(self) -> list[str]:
        """What names file and environment on the command line of a child."""
        file = ["--config", str(self.path.absolute())] if self.path else []
        return [*file, *(["--environment", self.environment] if self.environment else [])]


def project_config() -> Path | None:
    """The `config.toml` beside the engine package, or None in an installed copy that has none."""
    path = Path(__file__).resolve().parents[2] / "config.toml"
    return path if path.is_file() else None


def load_settings(
    config: str | Path | None = None,
    workspace: str | Path | None = None,
    overrides: Iterable[str] = (),
    environment: str | None = None,
) -> Loaded:
    """Merge all layers into checked settings.

    Args:
        config: a TOML file; None takes UNDERSTUDY_CONFIG, else the project's config.toml.
        workspace: the workspace folder; None takes UNDERSTUDY_WORKSPACE, else the file's.
        overrides: `section.key=value` or `data|model|training=GROUP`, later ones win.
        environment: the file's [environments.NAME] to lay over it; None takes UNDERSTUDY_ENVIRONMENT, else none.

    Raises:
        UsageError: unreadable file, unknown key, group or environment (the nearest is named), or a bad value.
    """
    config = config or os.environ.get("UNDERSTUDY_CONFIG") or project_config()
    path = Path(config).expanduser() if config else None
    document = _read(path) if path else {}
    if path:
        look_beside(path)
    overrides = tuple(overrides)
    origins: dict[str, str] = {}
    merged: dict[str, Any] = {}

    groups = _groups(document.pop("groups", {}))
    tables = document.pop("environments", {})
    environment, overlay = pick(tables, environment)
    for name, table in tables.items():
        _refuse_unknown(table, f" in [environments.{name}]")
    base = path.resolve().parent if path else Path.cwd()
    line_choices, line_layer = _parse_overrides(overrides)
    layers = (
        (str(path), _resolve_paths(document, base)),
        (f"{path} [environments.{environment}]", _resolve_paths(overlay, base)),
        (_LINE, _resolve_paths(line_layer, Path.cwd())),
    )

    choices = Defaults().model_dump()
    for origin, layer in (*layers[:2], (_LINE, {"defaults": line_choices}), layers[2]):
        chosen = layer.get("defaults", {})
        if not isinstance(chosen, Mapping):
            raise UsageError(
                "'defaults' in the config must be a table", 'write [defaults] and data = "..." below it'
            )
        for name in GROUPS:
            if name in chosen:
                choices[name] = str(chosen[name])
                origins[f"defaults.{name}"] = origin
    task = next((layer["task"] for _, layer in reversed(layers) if "task" in layer), "")
    for name, choice in TASK_GROUPS.get(str(task), {}).items():
        usual = choices[name] == getattr(Defaults(), name)
        if usual and origins.get(f"defaults.{name}") != _LINE:
            choices[name] = choice
    choosers = dict(origins)
    for name, choice in choices.items():
        body, origin = _group_body(name, choice, groups)
        _merge(merged, {name: _resolve_paths({name: body}, base)[name]})
        origins.update({key: origin for key, _ in _leaves({name: body})})
    for origin, layer in layers:
        _merge(merged, layer)
        origins.update({key: origin for key, _ in _leaves(layer)})
    origins |= choosers
    merged["defaults"] = choices

    place = workspace or os.environ.get("UNDERSTUDY_WORKSPACE")
    if place and "workspace" not in line_layer:
        merged["workspace"] = str(Path(place).expanduser().absolute())
        origins["workspace"] = _LINE if workspace else "environment"
    merged["workspace"] = str(Path(merged.get("workspace", "~/.understudy")).expanduser().absolute())
    log_format = os.environ.get("UNDERSTUDY_LOG_FORMAT")
    if log_format and origins.get("logging.format") != _LINE:
        _merge(merged, {"logging": {"format": log_format}})
        origins["logging.format"] = "environment"
    _refuse_unknown(merged)
    try:
        settings = Settings.model_validate(merged)
    except ValidationError as error:
        raise _validation_error(error, origins) from None
    if settings.source.kind == "local" and settings.source.root:
        here = Path.cwd() if origins.get("source.root") == _LINE else base
        settings.source.root = str(here / Path(settings.source.root).expanduser())
    refer(settings.secrets)
    return Loaded(settings, origins, path, overrides, environment, tuple(sorted(tables)))


def portable_overrides(loaded: Loaded) -> list[str]:
    """The overrides for a command that runs in another folder: paths made absolute, the workspace left out.

    A caller gives the workspace with `--workspace`.
    """
    local = {*_LOCAL_PATHS, *(("source.root",) if loaded.settings.source.kind == "local" else ())}
    words = []
    for word in loaded.arguments:
        key, _, text = word.partition("=")
        if key in local and text and _value(text) is not None and text.lower() not in _YES_OR_NO:
            word = f"{key}={Path.cwd() / Path(str(_value(text))).expanduser()}"
        if key != "workspace":
            words.append(word)
    return words


def known_keys() -> list[str]:
    """Every dotted key of the schema, sorted; open tables (`hosts.NAME.*`) are left out."""
    return sorted(_schema_keys(Settings, ""))


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomli.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UsageError(f"no config file at {path}", "check --config or UNDERSTUDY_CONFIG") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(
            f"cannot read the config file {path} ({error})", "check its rights and encoding"
        ) from None
    except tomli.TOMLDecodeError as error:
        raise UsageError(f"{path} is not valid TOML: {error}", "mend the line named", kind="bad_config") from None


@cache
def _builtin_groups() -> dict[str, dict[str, dict[str, Any]]]:
    return tomli.loads(resources.files("engine.config").joinpath("groups.toml").read_text(encoding="utf-8"))


def known_models() -> frozenset[str]:
    """The nets that the built-in groups name."""
    return frozenset(str(body["name"]) for body in _builtin_groups()["model"].values())


def _groups(from_file: Any) -> dict[str, dict[str, tuple[dict[str, Any], str]]]:
    if not isinstance(from_file, Mapping):
        raise UsageError("'groups' in the config must be tables", "write [groups.data.NAME]")
    groups: dict[str, dict[str, tuple[dict[str, Any], str]]] = {
        kind: {name: (dict(body), f"group {kind}={name}") for name, body in bodies.items()}
        for kind, bodies in _builtin_groups().items()
    }
    for kind, bodies in from_file.items():
        if kind not in GROUPS:
            raise UsageError(f"unknown group kind 'groups.{kind}'", nearest(kind, GROUPS), kind="unknown_group")
        if not isinstance(bodies, Mapping):
            raise UsageError(f"groups.{kind} must be a table", f"write [groups.{kind}.NAME]")
        for name, body in bodies.items():
            if not isinstance(body, Mapping):
                raise UsageError(f"groups.{kind}.{name} must be a table", f"write [groups.{kind}.{name}]")
            base = groups[kind].get(name, ({}, ""))[0]
            groups[kind][name] = ({**base, **body}, f"group {kind}={name}")
    return groups


def _group_body(
    kind: str, choice: str, groups: Mapping[str, Mapping[str, tuple[dict[str, Any], str]]]
) -> tuple[dict[str, Any], str]:
    if choice in groups[kind]:
        return groups[kind][choice]
    if kind == "model" and (":" in choice or _is_of_timm(choice)):
        return {"name": choice}, f"model={choice}"
    close = nearest(choice, groups[kind])
    if kind == "model" and find_spec("timm") is not None and not close.startswith("did you mean"):
        return {"name": choice}, f"model={choice}"
    if kind == "model" and not close.startswith("did you mean"):
        close += "; any timm name works once the 'zoo' extra is installed, or module:factory"
    raise UsageError(f"unknown {kind} group '{choice}'", close, kind="unknown_group")


def _is_of_timm(choice: str) -> bool:
    """Whether the installed timm defines a net of this name, by its source: to import it would load torch."""
    found = find_spec("timm")
    places = (found.submodule_search_locations if found else None) or ()
    wanted = f"@register_model\ndef {choice.partition('.')[0]}("
    files = (file for place in places for file in Path(place, "models").glob("*.py"))
    return any(wanted in file.read_text(encoding="utf-8") for file in files)


def _parse_overrides(overrides: Iterable[str]) -> tuple[dict[str, str], dict[str, Any]]:
    choices: dict[str, str] = {}
    layer: dict[str, Any] = {}
    for item in overrides:
        key, separator, text = item.partition("=")
        if not separator:
            raise UsageError(f"'{item}' is not an override", "write section.key=value")
        if key in GROUPS:
            choices[key] = text
            continue
        node = layer
        *parents, last = key.split(".")
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = _value(text, typed=not key.startswith("model.settings."))
    return choices, layer


def _value(text: str, *, typed: bool = True) -> Any:
    """A list, table or quoted string is TOML; anything else stays text for the schema to convert.

    Where the schema knows no type (`typed` false), numbers and booleans are TOML too.
    """
    if text in ("null", "none", "None"):
        return None
    if not typed or text[:1] in ("[", "{", '"', "'"):
        try:
            return tomli.loads(f"value = {text}")["value"]
        except tomli.TOMLDecodeError:
            return text
    return text


def _resolve_paths(layer: Mapping[str, Any], base: Path) -> dict[str, Any]:
    copy = {key: dict(value) if isinstance(value, Mapping) else value for key, value in layer.items()}
    for dotted in _LOCAL_PATHS:
        section, _, key = dotted.rpartition(".")
        table = copy.get(section, {}) if section else copy
        if not isinstance(table, dict) or not isinstance(table.get(key), str) or not table[key]:
            continue
        if table[key].lower() in _YES_OR_NO:
            continue
        path = Path(table[key]).expanduser()
        table[key] = str(path if path.is_absolute() else base / path)
    return copy


def _merge(into: dict[str, Any], layer: Mapping[str, Any]) -> None:
    for key, value in layer.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value


def _leaves(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in tree.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _schema_keys(model: type[BaseModel], prefix: str) -> Iterator[str]:
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            yield from _schema_keys(kind, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _refuse_unknown(settings: Mapping[str, Any], where: str = "") -> None:
    known = set(known_keys())
    open_tables = ("hosts.", "model.settings", "secrets.")
    for key, _ in _leaves(settings):
        if key in known or key.startswith(open_tables):
            continue
        if any(name.startswith(f"{key}.") for name in known):
            raise UsageError(f"'{key}'{where} is a section, not a value", f"set {key}.KEY", kind="unknown_key")
        raise UsageError(f"unknown setting '{key}'{where}", _near(key, known), kind="unknown_key")


def _near(key: str, known: Iterable[str]) -> str:
    """The hint for an unknown key: one whose section was left out, else the nearest of all."""
    tails = sorted(
        (name for name in known if name.endswith(f".{key}")), key=lambda name: name.split(".")[0] not in GROUPS
    )
    return f"did you mean '{tails[0]}'?" if tails else nearest(key, [*known, *GROUPS])


def _validation_error(error: ValidationError, origins: Mapping[str, str]) -> UsageError:
    first = error.errors()[0]
    key = ".".join(str(part) for part in first["loc"])
    origin = origins.get(key)
    where = f" (from {origin})" if origin else ""
    given = first.get("input")
    shown = f", not {given!r}" if isinstance(given, str | int | float | bool) else ""
    said = first["msg"].removeprefix("Value error, ")
    return UsageError(f"bad value for '{key}'{where}", f"{said}{shown}", kind="bad_value")
