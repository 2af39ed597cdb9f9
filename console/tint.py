"""Grounds between a theme's ground and one of its roles: how a figure is shaded, and what can be read on it."""

from __future__ import annotations

from rich.color import Color

LEVELS = (0.16, 0.34, 0.55, 0.8)  # the role's part at levels 1 to 4


def mixed(ground: str, role: str, level: int) -> str:
    """The colour at a level from 1 to 4 between two `#rrggbb`."""
    part = LEVELS[level - 1]
    pairs = zip(_rgb(ground), _rgb(role), strict=True)
    return "#" + "".join(f"{round(low + (high - low) * part):02x}" for low, high in pairs)


def readable(ground: str) -> str:
    """Black or white: one of them always can be read on `ground`, with 16 colours too."""
    return max("#000000", "#ffffff", key=lambda color: contrast(color, ground))


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2 of two `#rrggbb`, from 1 to 21."""
    dark, light = sorted(_luminance(color) + 0.05 for color in (one, other))
    return light / dark


def _luminance(color: str) -> float:
    """Relative luminance, from 0 to 1 (WCAG 2)."""
    parts = (part / 255 for part in _rgb(color))
    linear = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def _rgb(color: str) -> tuple[int, int, int]:
    found = Color.parse(color).get_truecolor()
    return found.red, found.green, found.blue
