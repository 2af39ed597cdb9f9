"""The main screens as pictures, in both sizes and in dark, light and mono."""

from __future__ import annotations

import pytest

from tests.console.conftest import MakeApp

SIZES = [(80, 24), (120, 40)]
THEMES = ["understudy", "daylight", "mono"]


@pytest.mark.parametrize("theme", THEMES)
@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
@pytest.mark.parametrize(
    ("name", "recording", "keys"),
    [
        ("overview", "evening", []),
        ("promote", "evening", ["p"]),
        ("rollback", "evening", ["r"]),
        ("trouble", "trouble", []),
        ("empty", "empty", []),
    ],
)
def test_screens(
    snap_compare, make_app: MakeApp, name: str, recording: str, keys: list[str], size, theme: str
) -> None:  # type: ignore[no-untyped-def]
    assert snap_compare(make_app(recording, theme=theme), press=keys, terminal_size=size)


@pytest.mark.parametrize("key", ["1", "2", "4", "5", "question_mark", "colon", "u", "t"])
def test_each_pane_alone(snap_compare, make_app: MakeApp, key: str) -> None:  # type: ignore[no-untyped-def]
    assert snap_compare(make_app(), press=[key], terminal_size=(80, 24))


@pytest.mark.parametrize("size", [(60, 15), (200, 60)], ids=["60x15", "200x60"])
def test_the_smallest_and_the_largest(snap_compare, make_app: MakeApp, size) -> None:  # type: ignore[no-untyped-def]
    assert snap_compare(make_app(), terminal_size=size)


def test_ascii(snap_compare, make_app: MakeApp) -> None:  # type: ignore[no-untyped-def]
    assert snap_compare(make_app(theme="mono", ascii=True), terminal_size=(120, 40))
