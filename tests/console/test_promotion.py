"""A promotion and its undo from the console, against a real workspace and the real engine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from console.app import ConsoleApp
from console.commands import Commands, Outcome
from console.feed import LiveFeed
from console.keymap import default_keys
from console.options import Options
from console.sheets.slots import Promote, Rollback
from console.theme import SHIPPED, load_themes
from engine.store.events import read_events
from engine.store.workspace import Workspace
from tests.release.bundles import make_release, put

PATIENCE_S = 60.0


async def until(happened: Callable[[], bool], what: str) -> None:
    for _turn in range(int(PATIENCE_S / 0.05)):
        if happened():
            return
        await asyncio.sleep(0.05)
    pytest.fail(f"{what} did not happen")


async def test_a_promotion_against_a_closed_gate_and_its_undo(
    workspace: Workspace, config: Path, tmp_path: Path
) -> None:
    old, new = make_release(workspace, "old"), make_release(workspace, "new", cycle=2, accuracy=0.98)
    put(workspace, "asis", old)
    put(workspace, "tobe", new)
    options = Options(config=str(config), workspace=str(workspace.root))
    themes, _faults = load_themes([SHIPPED])
    app = ConsoleApp(options, themes, default_keys(), LiveFeed(options.engine("watch")))
    ended: list[Outcome] = []
    app.commands = Commands(ended.append, tmp_path / "commands")

    def asis() -> str | None:
        return app.store.slots.asis.release if app.store.slots else None

    async with app.run_test(size=(120, 40)) as pilot:
        await until(lambda: app.store.health is not None and asis() == old.id, "the first figures")
        await pilot.press("p", "tab", "tab", *"00000000", "tab", *"wrong")
        sheet = app.sheet
        assert isinstance(sheet, Promote)
        await pilot.click("#confirm")
        assert sheet.note
        await pilot.press("tab", "ctrl+u", *new.id[:8], "tab", "ctrl+u", *"worse")
        await pilot.click("#confirm")
        assert app.sheet is None
        await until(lambda: asis() == new.id and len(ended) == 1, "the promotion")
        await pilot.press("u")
        await pilot.pause()
        assert isinstance(app.sheet, Rollback)
        await pilot.click("#confirm")
        await until(lambda: asis() == old.id and len(ended) == 2, "the undo")
    assert [outcome.code for outcome in ended] == [0, 0]
    assert f"promoted {new.id[:8]} → AS-IS" in ended[0].sentence
    assert ended[1].sentence == f"restored {old.id[:8]} → AS-IS"
    promoted, restored = read_events(workspace)[-2:]
    assert (promoted["kind"], promoted["detail"]["reason"]) == ("promoted", "worse")
    assert restored["kind"] == "rolled_back"


async def test_what_was_shown_is_what_is_promoted(workspace: Workspace, config: Path, tmp_path: Path) -> None:
    shown, other = make_release(workspace, "shown"), make_release(workspace, "other", cycle=2)
    put(workspace, "tobe", other)  # by the time the engine gets to it
    options = Options(config=str(config), workspace=str(workspace.root))
    ended: list[Outcome] = []
    commands = Commands(ended.append, tmp_path / "commands")
    words = ("promote", "--expect", shown.id, "--force", "--reason", "x", "--json")
    commands.start(options.engine(*words), "promote")
    await until(lambda: bool(ended), "the end of the command")
    assert (ended[0].code, ended[0].role) == (3, "warning")
