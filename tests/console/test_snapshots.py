"""Every screen as text, in dark, light and mono: what stands where, and in which style.

A picture of a screen is kept as its text and, for each theme, its styles by row (`b12` are twelve cells in style
b): the three themes share the text, which must not depend on them, so that one file of a few kilobytes holds what
three SVG files of thirty would, and a change reads as a difference of lines. `--snapshot-update` writes them anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

import pytest
from rich.cells import cell_len
from rich.style import Style
from syrupy.assertion import SnapshotAssertion
from syrupy.extensions.single_file import SingleFileSnapshotExtension, WriteMode

from console import words
from console.app import ConsoleApp
from console.keymap import default_keys
from console.options import Options
from console.store import Store
from console.text import moment
from console.theme import SHIPPED, ConsoleTheme, load_themes
from tests.console.conftest import Started, heard

SMALL, MIDDLE, LARGE = (80, 24), (120, 40), (200, 60)
THEMES = ("understudy", "daylight", "mono")
PANES = {
    "devices": "1",
    "training": "2",
    "checkpoints": "3",
    "compare": "4",
    "events": "5",
    "log": "6",
    "slots": "7",
}
SHEETS = {
    "promote": "p", "rollback": "r", "undo": "u", "ab": "a", "train": "t", "details": "enter", "help": "question_mark",
    "palette": "colon", "theme": "T", "confusion": "C", "proof": "E", "sweeps": "v", "export": "e",
}  # fmt: skip


def _case(name: str, recording: str, keys: str, *sizes: tuple[int, int]) -> Iterator[object]:
    for size in sizes:
        yield pytest.param(recording, keys, size, id=f"{name}-{size[0]}x{size[1]}")


SCREENS = [
    *(one for name, key in PANES.items() for one in _case(name, "evening", key, SMALL, MIDDLE)),
    *(one for name, key in PANES.items() for one in _case(f"zoomed-{name}", "busy", f"{key} z", MIDDLE)),
    *(one for name, key in SHEETS.items() for one in _case(f"sheet-{name}", "evening", key, SMALL, MIDDLE)),
    *(one for name in ("trouble", "empty", "busy") for one in _case(name, name, "", SMALL, MIDDLE)),
    *_case("filter", "evening", "slash n a n", SMALL),
    *_case("filtered", "evening", "slash n a n enter", MIDDLE),
    *_case("sorted", "evening", "o o O m", MIDDLE),
    *_case("old-run", "evening", "2 down down down z", MIDDLE),
    *_case("evening", "evening", "", LARGE, (60, 15), (40, 10), (100, 30)),
    *_case("busy-training", "busy", "2", LARGE),
    *_case("busy-slots", "busy", "7 z", LARGE),
    *_case("busy-confusion", "busy", "C", SMALL, LARGE),
    *_case("trouble", "trouble", "", (60, 15)),
    *_case("busy-devices", "busy", "1", (60, 15)),
]


class Screen(SingleFileSnapshotExtension):
    _write_mode = WriteMode.TEXT
    file_extension = "txt"
    _file_extension = "txt"


class Lines:
    """A log that is followed."""

    name = "0042"
    problem = ""
    lines = (
        *(f"2026-11-20T17:{30 + i // 4}:{i % 4 * 15:02d}.120+09:00 epoch {i // 2} step {i * 13 % 312} loss {2 / (i + 2):.3f}" for i in range(60)),
        "2026-11-20T17:45:00.120+09:00 warning: the loss of step 77 was not finite and was passed over",
        "2026-11-20T17:45:02.007+09:00 saved best 0.871 at epoch 22: checkpoints/0042/best_model_cycle9.pth",
        "2026-11-20T17:45:11.401+09:00 ERROR webhook: the answer was 503, tried again in 30 s",
    )  # fmt: skip


def screen(recording: str, folder: Path, *, language: str = "en", ascii: bool = False) -> ConsoleApp:
    """The app on a recording; the log pane shows `Lines`."""
    themes, _faults = load_themes([SHIPPED])
    store, last = Store(), 0.0
    for message in heard(recording):
        last = moment(message.at) or last
        store.apply(message, last)
    options = Options(settings={"theme": THEMES[0], "language": language}, ascii=ascii)
    app = ConsoleApp(options, themes, default_keys(), store=store, now=lambda: last, commands=Started(folder))
    app.log_lines.shown = Lines()
    return app


def text_of(app: ConsoleApp) -> list[str]:
    strips = app.screen._compositor.render_strips()
    return ["".join(segment.text for segment in strip) for strip in strips]


def styles_of(app: ConsoleApp, theme: ConsoleTheme) -> list[str]:
    """The styles of a theme, a letter each, and the letters of every row."""
    names: dict[str, str] = {}
    rows = []
    for strip in app.screen._compositor.render_strips():
        cells = [(_said(segment.style), cell_len(segment.text)) for segment in strip if segment.text]
        row = ""
        for style, run in groupby(cells, key=lambda cell: cell[0]):
            letter = names.setdefault(style, _letter(len(names)))
            row += f"{letter}{sum(count for _style, count in run)}"
        rows.append(row)
    return [theme.name, *(f"{letter} {style}" for style, letter in names.items()), *rows]


def _letter(index: int) -> str:
    return chr(ord("a") + index) if index < 26 else chr(ord("A") + index - 26)


def _said(style: Style | None) -> str:
    return str(style) if style is not None else "none"


async def drawn(app: ConsoleApp, keys: str, size: tuple[int, int]) -> str:
    """The screen after these keys: its text, then its styles in every theme."""
    async with app.run_test(size=size) as pilot:
        app.redraw()
        if keys:
            await pilot.press(*keys.split())
        await pilot.pause()
        shown = text_of(app)
        parts = [f"{size[0]}x{size[1]}", *(line.rstrip() for line in shown)]
        for name in THEMES:
            notice = app.notice
            app.wear(name)
            app.say(*notice)
            await pilot.pause()
            assert text_of(app) == shown, f"{name} shows another text"
            parts += ["", *styles_of(app, app.look)]
    return "\n".join(parts) + "\n"


@pytest.fixture
def korean() -> Iterator[None]:
    words.choose("ko")
    yield
    words.choose("en")


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("recording", "keys", "size"), SCREENS)
async def test_screen(
    snapshot: SnapshotAssertion, tmp_path: Path, recording: str, keys: str, size: tuple[int, int]
) -> None:
    assert await drawn(screen(recording, tmp_path), keys, size) == snapshot(extension_class=Screen)


@pytest.mark.parametrize("size", [SMALL, MIDDLE], ids=["80x24", "120x40"])
async def test_korean(snapshot: SnapshotAssertion, korean: None, tmp_path: Path, size: tuple[int, int]) -> None:
    found = await drawn(screen("busy", tmp_path, language="ko"), "", size)
    assert found == snapshot(extension_class=Screen)


POSITION = {
    "to_play": "W", "size": 9, "held_out": 3, "of": 88, "game": "1f", "played": "E3", "last": "G7",
    "board": [".........", ".........", "..O...X..", ".........", "....X....", ".........", "..X...O..", ".........", "........."],
    "nets": [
        {"net": net, "moves": [{"move": f"{'ABCDEFGHJ'[c - 1]}{r}", "row": r, "column": c, "confidence": p}
                               for r, c, p in moves]}
        for net, moves in (("asis", [(3, 5, 0.412), (7, 5, 0.21), (5, 7, 0.08), (2, 3, 0.05), (8, 8, 0.031)]),
                           ("tobe", [(3, 5, 0.533), (5, 3, 0.18), (5, 7, 0.06), (6, 4, 0.04), (2, 2, 0.02)]))
    ],
}  # fmt: skip


@pytest.mark.parametrize(
    ("size", "language"), [(SMALL, "en"), (MIDDLE, "en"), (SMALL, "ko")], ids=["80x24", "120x40", "ko"]
)
async def test_go_board(snapshot: SnapshotAssertion, tmp_path: Path, size: tuple[int, int], language: str) -> None:
    words.choose(language)
    try:
        app = screen("evening", tmp_path, language=language)
        assert isinstance(app.commands, Started)
        app.commands.answers["go"] = POSITION
        assert await drawn(app, "b", size) == snapshot(extension_class=Screen)
    finally:
        words.choose("en")


@pytest.mark.parametrize("keys", ["", "4 z", "7 z"], ids=["all", "compare", "slots"])
async def test_ascii(snapshot: SnapshotAssertion, tmp_path: Path, keys: str) -> None:
    assert await drawn(screen("busy", tmp_path, ascii=True), keys, MIDDLE) == snapshot(extension_class=Screen)
