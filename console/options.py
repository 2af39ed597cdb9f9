"""The console's command line, and the `[console]` table of the config; the engine checks everything else."""

from __future__ import annotations

import argparse
import os
import sys
import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.environments import pick
from engine.errors import UsageError, nearest

KEYS = ("theme", "language", "keymap", "mouse")
TRUTH = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}


@dataclass(frozen=True)
class Options:
    """How the console was started; `settings` are the `[console]` table's, the line's over the file's."""

    config: str | None = None
    environment: str | None = None
    workspace: str | None = None
    readonly: bool = False
    plain: bool = False
    replay: Path | None = None
    speed: float = 1.0
    ascii: bool = False
    mouse: bool = True
    overrides: tuple[str, ...] = ()
    settings: dict[str, str] = field(default_factory=dict)

    @property
    def theme(self) -> str:
        return self.settings.get("theme", "understudy")

    @property
    def language(self) -> str:
        return self.settings.get("language", "en")

    @property
    def keymap(self) -> Path | None:
        named = self.settings.get("keymap")
        return Path(named).expanduser() if named else None

    def engine(self, *words: str) -> list[str]:
        """The command line of an engine command on the same config, environment and workspace."""
        command = [sys.executable, "-m", "engine"]
        if self.config:
            command += ["--config", self.config]
        if self.environment:
            command += ["--environment", self.environment]
        if self.workspace:
            command += ["--workspace", self.workspace]
        return [*command, *words, *self.overrides]


def parse(arguments: list[str]) -> Options:
    """The options of a command line.

    Raises:
        UsageError: an unknown option, a file that cannot be read, or a bad value in `[console]`.
    """
    parser = argparse.ArgumentParser(prog="python -m console", description="Understudy's operator console.")
    parser.add_argument("--config", metavar="FILE", help="the config file (default: the project's config.toml)")
    parser.add_argument("--environment", metavar="NAME", help="lay the config's [environments.NAME] over it")
    parser.add_argument("--workspace", metavar="DIR", help="the folder that holds this host's state")
    parser.add_argument("--readonly", action="store_true", help="show everything, change nothing")
    parser.add_argument(
        "--plain", action="store_true", help="lines of text, for screen readers and dumb terminals"
    )
    parser.add_argument("--replay", metavar="FILE", type=Path, help="draw a recording of `engine watch`")
    parser.add_argument("--speed", metavar="X", type=float, default=1.0, help="how fast to replay (default 1)")
    parser.add_argument("--ascii", action="store_true", help="draw with ASCII characters only")
    parser.add_argument("--no-mouse", action="store_true", help="leave the mouse to the terminal")
    parser.add_argument("overrides", nargs="*", metavar="section.key=value", help="settings, as for the engine")
    found = parser.parse_intermixed_args(arguments)
    for word in found.overrides:
        if "=" not in word:
            raise UsageError(f"unexpected argument '{word}'", "see: python -m console --help")
    if found.replay is not None and not found.replay.is_file():
        raise UsageError(f"no recording at {found.replay}", "make one with: python -m engine watch > FILE")
    if found.speed <= 0:
        raise UsageError(f"--speed must be above 0, not {found.speed:g}", "try --speed 10")
    config = found.config or os.environ.get("UNDERSTUDY_CONFIG") or None
    environment, settings = _settings(config, found.environment, found.overrides)
    encoding = (sys.stdout.encoding or "utf-8").lower().replace("-", "")
    return Options(
        config=config,
        environment=environment or None,
        workspace=found.workspace,
        readonly=found.readonly,
        plain=found.plain or os.environ.get("TERM") == "dumb",
        replay=found.replay,
        speed=found.speed,
        ascii=found.ascii or not encoding.startswith("utf"),
        mouse=not found.no_mouse and TRUTH[settings.get("mouse", "true").lower()],
        overrides=tuple(found.overrides),
        settings=settings,
    )


def _settings(config: str | None, environment: str | None, overrides: list[str]) -> tuple[str, dict[str, str]]:
    """The chosen environment, and the `[console]` table with what the environment and the command line change."""
    path = Path(config).expanduser() if config else Path(__file__).resolve().parents[1] / "config.toml"
    document: dict[str, Any] = {}
    if config or path.is_file():
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise UsageError(f"no config file at {path}", "check --config or UNDERSTUDY_CONFIG") from None
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"cannot read the config file {path} ({error})", "check its rights") from None
        except tomllib.TOMLDecodeError as error:
            raise UsageError(f"{path} is not valid TOML: {error}", "mend the line named") from None
    environment, overlay = pick(document.get("environments", {}), environment)
    settings: dict[str, str] = {}
    for table in (document.get("console", {}), overlay.get("console", {})):
        if not isinstance(table, dict):
            raise UsageError("'console' in the config must be a table", "write [console]")
        settings |= {key: str(value) for key, value in table.items()}
    if settings.get("keymap"):
        settings["keymap"] = str(path.resolve().parent / Path(settings["keymap"]).expanduser())
    for word in overrides:
        key, _, value = word.partition("=")
        if key.startswith("console."):
            settings[key.removeprefix("console.")] = value
    for key in settings:
        if key not in KEYS:
            raise UsageError(f"unknown setting 'console.{key}'", nearest(key, KEYS), kind="unknown_key")
    if settings.get("language", "en") not in ("en", "ko"):
        raise UsageError(f"unknown language '{settings['language']}'", "known: en, ko", kind="bad_value")
    if settings.get("mouse", "true").lower() not in TRUTH:
        raise UsageError(f"console.mouse is '{settings['mouse']}'", "true or false", kind="bad_value")
    return environment, settings
