"""Themes: one TOML file each, checked; a role (what a colour says) becomes a terminal style.

A theme names a colour for each role; text never says a state by its colour alone, so a theme may leave
all of them alike (see mono.toml).
"""

from __future__ import annotations

import os
import re
import tomllib
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from rich.color import Color
from rich.style import Style

from console import tint
from engine.errors import UsageError

SHIPPED = Path(__file__).resolve().parents[1] / "themes"
ROLES = {
    "background": "the ground",
    "foreground": "figures and names",
    "dim": "labels, units and what matters less",
    "rule": "lines between panes",
    "title": "a pane's name",
    "accent": "keys, and what has the focus",
    "asis": "the production slot",
    "tobe": "the candidate slot",
    "good": "live, done, better",
    "warning": "stale, undecided, at the edge",
    "danger": "offline, refused, worse",
    "loss": "the loss curve",
    "accuracy": "the accuracy curve",
    "memory": "a memory bar",
    "load": "a utilisation curve",
    "selection": "the ground of the selected row",
    "sheet": "the ground of a sheet",
}
GROUNDS = ("background", "selection", "sheet")
ATTRIBUTES = ("bold", "dim", "italic", "underline", "reverse")
ANSI = (
    "default", "black", "red", "green", "yellow", "blue", "magenta", "cyan", "white", "bright_black", "bright_red",
    "bright_green", "bright_yellow", "bright_blue", "bright_magenta", "bright_cyan", "bright_white",
)  # fmt: skip
_HEX = re.compile(r"#[0-9a-fA-F]{6}$")
_KEYS = {"name", "dark", "description", "colors", "styles"}


@dataclass(frozen=True)
class Fault:
    """What is wrong in a theme file, and on which line (1 for the whole file)."""

    path: Path
    line: int
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.message}"


@dataclass(frozen=True)
class ConsoleTheme:
    """A checked theme. `styles` adds attributes (bold, dim, ...) to roles; `ascii`: the terminal draws no other signs."""

    name: str
    dark: bool
    colors: dict[str, str]
    styles: dict[str, tuple[str, ...]] = field(default_factory=dict)
    description: str = ""
    ascii: bool = False

    @cached_property
    def terminal(self) -> bool:
        """Whether it uses the terminal's own colours alone."""
        return not any(color.startswith("#") for color in self.colors.values())

    @cached_property
    def _cache(self) -> dict[tuple[str, str], Style]:
        return {}

    def style(self, roles: str = "", ground: str = "background") -> Style:
        """The style of roles and attributes separated by blanks, on a ground (background, sheet, ...).

        `good/3` alone is a shade: see `_shade`.
        """
        key = (roles, ground)
        found = self._cache.get(key)
        if found is None:
            found = self._cache[key] = self._build(roles, ground)
        return found

    def _build(self, roles: str, ground: str) -> Style:
        color = self.colors["foreground"]
        attributes: dict[str, Any] = dict.fromkeys(self.styles.get(ground, ()), True)
        for word in roles.split():
            if word in GROUNDS:
                ground = word
                attributes.update(dict.fromkeys(self.styles.get(word, ()), True))
            elif word in self.colors:
                color = self.colors[word]
                attributes.update(dict.fromkeys(self.styles.get(word, ()), True))
            elif "/" in word:
                role, _slash, level = word.partition("/")
                return self._shade(role, int(level), ground)
            else:
                attributes[word] = True
        return Style(color=Color.parse(color), bgcolor=Color.parse(self.colors[ground]), **attributes)

    def _shade(self, role: str, level: int, ground: str) -> Style:
        """A ground at a level from 1 to 4 on the way to a role's colour, and a colour that can be read on it.

        Where the colours are the terminal's own there is nothing between them: from level 3 on it is reversed.
        """
        if self.terminal:
            return Style(color=Color.parse(self.colors[role]), reverse=level >= 3, dim=level == 1)
        shade = tint.mixed(self.colors[ground], self.colors[role], level)
        return Style(color=Color.parse(tint.readable(shade)), bgcolor=Color.parse(shade))


def user_folder() -> Path:
    """Where a person's own themes lie."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "understudy" / "themes"


def read_theme(path: Path) -> tuple[ConsoleTheme | None, list[Fault]]:
    """One theme file; every fault of it, each with its line."""
    try:
        text = path.read_text(encoding="utf-8")
        document = tomllib.loads(text)
    except OSError as error:
        return None, [Fault(path, 1, f"cannot be read ({error.strerror})")]
    except UnicodeDecodeError:
        return None, [Fault(path, 1, "is not UTF-8")]
    except tomllib.TOMLDecodeError as error:
        at = re.search(r"line (\d+)", str(error))
        return None, [Fault(path, int(at.group(1)) if at else 1, f"is not valid TOML ({error})")]
    faults = [Fault(path, _line(text, key), message) for key, message in _check(document)]
    if faults:
        return None, faults
    styles = {role: tuple(str(words).split()) for role, words in document.get("styles", {}).items()}
    return (
        ConsoleTheme(
            name=path.stem,
            dark=bool(document.get("dark", True)),
            colors={role: str(document["colors"][role]).lower() for role in ROLES},
            styles=styles,
            description=str(document.get("description", "")),
        ),
        [],
    )


def load_themes(folders: list[Path] | None = None) -> tuple[dict[str, ConsoleTheme], list[Fault]]:
    """Every theme of the folders by name, a later folder's over an earlier one's, and every fault."""
    themes: dict[str, ConsoleTheme] = {}
    faults: list[Fault] = []
    for folder in folders if folders is not None else [SHIPPED, user_folder()]:
        for path in sorted(folder.glob("*.toml")) if folder.is_dir() else []:
            theme, wrong = read_theme(path)
            faults += wrong
            if theme:
                themes[theme.name] = theme
    return themes, faults


def fitting(themes: dict[str, ConsoleTheme], ascii: bool) -> dict[str, ConsoleTheme]:
    """The themes as this terminal can draw them."""
    return {name: replace(theme, ascii=ascii) for name, theme in themes.items()}


def stamp(folders: list[Path] | None = None) -> tuple[tuple[str, int], ...]:
    """Every theme file with the time of its last change: equal while nothing has changed."""
    found = []
    for folder in folders if folders is not None else [SHIPPED, user_folder()]:
        for path in sorted(folder.glob("*.toml")) if folder.is_dir() else []:
            try:
                found.append((str(path), path.stat().st_mtime_ns))
            except FileNotFoundError:
                continue
    return tuple(found)


def pick(themes: dict[str, ConsoleTheme], name: str) -> ConsoleTheme:
    """The theme of that name.

    Raises:
        UsageError: there is none; the nearest is named.
    """
    from engine.errors import nearest

    if name not in themes:
        raise UsageError(f"unknown theme '{name}'", nearest(name, themes), kind="unknown_theme")
    return themes[name]


def _check(document: dict[str, Any]) -> list[tuple[str, str]]:
    wrong = [(key, f"unknown key '{key}'") for key in document if key not in _KEYS]
    if not isinstance(document.get("dark", True), bool):
        wrong.append(("dark", "'dark' must be true or false"))
    colors = document.get("colors")
    if not isinstance(colors, dict):
        return [*wrong, ("colors", "needs a table [colors]")]
    wrong += [
        ("[colors]", f"colors.{role} is missing ({say})") for role, say in ROLES.items() if role not in colors
    ]
    for role, color in colors.items():
        if role not in ROLES:
            wrong.append((role, f"unknown role 'colors.{role}'"))
        elif not isinstance(color, str) or not (_HEX.match(color) or color in ANSI):
            wrong.append((role, f"colors.{role} must be #rrggbb or one of the 16 ANSI names, not {color!r}"))
    styles = document.get("styles", {})
    for role, words in styles.items() if isinstance(styles, dict) else []:
        unknown = [word for word in str(words).split() if word not in ATTRIBUTES]
        if role not in ROLES:
            wrong.append((role, f"unknown role 'styles.{role}'"))
        elif unknown:
            wrong.append((role, f"styles.{role}: '{unknown[0]}' is none of {', '.join(ATTRIBUTES)}"))
    return wrong


def _line(text: str, key: str) -> int:
    pattern = re.compile(rf"^\s*(?:{re.escape(key)}\s*=|{re.escape(key)}\s*$|\[{re.escape(key)}\])")
    return next((number for number, line in enumerate(text.splitlines(), 1) if pattern.match(line)), 1)
