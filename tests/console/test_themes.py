"""Every shipped theme can be read: contrast after WCAG 2, and colours that stay apart without red or green."""

from __future__ import annotations

import itertools

import pytest
from rich.color import Color, ColorSystem

from console.theme import GROUNDS, SHIPPED, ConsoleTheme, load_themes

THEMES = load_themes([SHIPPED])[0]
COLOURED = [name for name, theme in THEMES.items() if not theme.terminal]
READ = ("foreground", "title", "accent", "asis", "tobe", "good", "warning", "danger", "loss", "accuracy")
DRAWN = ("dim", "memory", "load")
SAFE = ("okabe", "okabe-light", "contrast", "contrast-light")
# what a person tells apart by colour at a glance, the word or sign beside it apart
PAIRS = (
    ("asis", "tobe"), ("good", "danger"), ("good", "warning"), ("loss", "accuracy"), ("memory", "load"),
)  # fmt: skip
# Machado, Oliveira and Fernandes 2009, severity 1.0, on linear RGB
DEFICIENCIES = {
    "protan": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deutan": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritan": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}
Triple = tuple[float, float, float]


def linear(color: str) -> Triple:
    """An sRGB colour as linear RGB."""
    found = Color.parse(color).get_truecolor()
    parts = [part / 255 for part in (found.red, found.green, found.blue)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return red, green, blue


def contrast(one: str, other: str) -> float:
    """The contrast ratio of WCAG 2, from 1 to 21."""
    light, dark = sorted(
        (sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear(color), strict=True)) + 0.05)
        for color in (other, one)
    )[::-1]
    return light / dark


def lab(rgb: Triple) -> Triple:
    """Linear RGB as CIE L*a*b* (D65)."""
    rows = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
    x, y, z = (
        sum(weight * part for weight, part in zip(row, rgb, strict=True)) / white
        for row, white in zip(rows, (0.9505, 1.0, 1.089), strict=True)
    )
    x, y, z = (part ** (1 / 3) if part > 0.008856 else 7.787 * part + 16 / 116 for part in (x, y, z))
    return 116 * y - 16, 500 * (x - y), 200 * (y - z)


def apart(one: str, other: str, matrix: tuple[Triple, Triple, Triple] | None) -> float:
    """The colour difference (CIE76) as somebody with this deficiency sees it; above about 12 it is plain."""
    seen = []
    for color in (one, other):
        rgb = linear(color)
        if matrix:
            red, green, blue = (
                max(0.0, sum(weight * part for weight, part in zip(row, rgb, strict=True))) for row in matrix
            )
            rgb = red, green, blue
        seen.append(lab(rgb))
    return sum((a - b) ** 2 for a, b in zip(*seen, strict=True)) ** 0.5


def test_there_are_themes_for_everybody() -> None:
    assert len(THEMES) >= 12
    assert {"mono", "terminal", *SAFE} <= set(THEMES)
    assert sum(not theme.dark for theme in THEMES.values()) >= 4
    assert all(theme.description for theme in THEMES.values())


@pytest.mark.parametrize("name", COLOURED)
def test_a_theme_is_readable_on_each_of_its_grounds(name: str) -> None:
    theme: ConsoleTheme = THEMES[name]
    weak = []
    for ground in GROUNDS:
        for role, least in (*((role, 4.5) for role in READ), *((role, 3.0) for role in DRAWN)):
            found = contrast(theme.colors[role], theme.colors[ground])
            if found < least:
                weak.append(f"{role} on {ground}: {found:.2f} of {least}")
    assert not weak


@pytest.mark.parametrize("name", COLOURED)
def test_the_roles_of_a_theme_are_told_apart(name: str) -> None:
    colors = THEMES[name].colors
    assert all(apart(colors[one], colors[other], None) >= 12 for one, other in PAIRS)
    assert contrast(colors["rule"], colors["background"]) < contrast(colors["dim"], colors["background"])


@pytest.mark.parametrize(("name", "deficiency"), itertools.product(SAFE, DEFICIENCIES))
def test_colour_blind_safe_themes_stay_apart(name: str, deficiency: str) -> None:
    colors = THEMES[name].colors
    near = {
        f"{one} and {other}": round(apart(colors[one], colors[other], DEFICIENCIES[deficiency]), 1)
        for one, other in PAIRS
        if apart(colors[one], colors[other], DEFICIENCIES[deficiency]) < 12
    }
    assert not near


@pytest.mark.parametrize("name", COLOURED)
def test_a_figure_is_read_on_every_shade(name: str) -> None:
    weak = []
    for ground, role, level in itertools.product(GROUNDS, ("good", "danger"), (1, 2, 3, 4)):
        style = THEMES[name].style(f"{role}/{level}", ground)
        assert style.color
        assert style.bgcolor
        pair = (style.color, style.bgcolor)
        few = [color.downgrade(ColorSystem.STANDARD) for color in pair]
        for colors, least in ((pair, 4.5), (few, 3.5)):
            found = contrast(*("#" + bytes(color.get_truecolor()).hex() for color in colors))
            if found < least:
                weak.append(f"{role}/{level} on {ground}: {found:.2f} of {least}")
    assert not weak


@pytest.mark.parametrize("name", ["mono", "terminal"])
def test_a_terminals_own_colours_shade_by_weight(name: str) -> None:
    assert [THEMES[name].style(f"good/{level}").reverse for level in (1, 2, 3, 4)] == [False, False, True, True]
