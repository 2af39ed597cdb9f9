"""What keys do: every one of the registry, the sheets that change something, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from console.actions import ACTIONS, BY_ID
from console.deeds import DEEDS
from console.sheets.slots import Promote, Rollback
from console.theme import SHIPPED
from tests.console.conftest import MakeApp, Started, screen_text
from tests.console.record import NEW

SIZE = (120, 40)


def started(app) -> list[list[str]]:  # type: ignore[no-untyped-def]
    assert isinstance(app.commands, Started)
    return app.commands.lines


def test_every_action_is_done_by_something_and_has_a_key() -> None:
    assert set(DEEDS) == set(BY_ID)
    assert all(action.keys for action in ACTIONS)
    keys = [key for action in ACTIONS for key in action.keys]
    assert len(keys) == len(set(keys))
    assert not {"ctrl+s", "ctrl+q", "ctrl+a", "ctrl+b", "ctrl+j"} & set(keys)


@pytest.mark.parametrize("recording", ["evening", "empty", "trouble"])
async def test_a_walk_of_every_key(make_app: MakeApp, recording: str) -> None:
    app = make_app(recording)
    async with app.run_test(size=SIZE) as pilot:
        for action in ACTIONS:
            if action.id == "quit":
                continue
            for key in action.keys:
                await pilot.press(key)
                await pilot.press("escape")
                await pilot.press("escape")
        assert app.sheet is None
        await pilot.press("q")
    assert app.return_code == 0


@pytest.mark.parametrize("size", [(1, 1), (20, 5), (60, 15), (79, 23), (100, 30), (300, 90)])
async def test_nothing_breaks_at_odd_sizes(make_app: MakeApp, size: tuple[int, int]) -> None:
    app = make_app()
    async with app.run_test(size=size) as pilot:
        for key in ("p", "escape", "z", "2", "question_mark", "escape"):
            await pilot.press(key)


async def test_promote_through_an_open_gate_is_two_keys_away(make_app: MakeApp) -> None:
    app = make_app()
    gate = app.store.health.gate  # type: ignore[union-attr]
    object.__setattr__(gate, "open", True)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("p")
        assert isinstance(app.sheet, Promote)
        await pilot.press("enter")  # Cancel has the focus
        assert app.sheet is None
        assert started(app) == []
        await pilot.press("p", "tab", "enter")
    assert started(app) == [["promote", "--json"]]


async def test_a_closed_gate_wants_the_digits_and_a_reason(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("p", "tab", "enter")
        assert "first eight digits" in screen_text(app)
        assert started(app) == []
        await pilot.press("tab", *NEW[:8], "tab", *"hotfix", "tab", "tab", "enter")
    assert started(app) == [["promote", "--force", "--reason", "hotfix", "--json"]]


async def test_a_candidate_that_changes_under_the_sheet_is_not_promoted(make_app: MakeApp) -> None:
    app = make_app()
    object.__setattr__(app.store.health.gate, "open", True)  # type: ignore[union-attr]
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("p")
        object.__setattr__(app.store.slots.tobe, "release", "f" * 64)  # type: ignore[union-attr]
        await pilot.press("tab", "enter")
        assert "has changed" in screen_text(app)
    assert started(app) == []


async def test_nothing_is_changed_by_old_figures(make_app: MakeApp) -> None:
    app = make_app(later=300)
    async with app.run_test(size=SIZE) as pilot:
        assert "stale" in screen_text(app)
        for key in ("p", "r", "u"):
            await pilot.press(key)
            assert app.sheet is None
            assert "not live" in app.notice[0]


async def test_rollback_takes_the_backup_under_the_cursor(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("r", "down")
        assert isinstance(app.sheet, Rollback)
        await pilot.press("tab", "enter")
        await pilot.press("r", "down", "down", "tab", "enter")
        assert "damaged" in screen_text(app)
        await pilot.press("escape", "u", "tab", "enter")
    assert started(app) == [
        ["rollback", "model_8891_backup_20261109_091204.bin", "--json"],
        ["rollback", "model_8891_backup_20261117_132611.bin", "--json"],
    ]


async def test_readonly_shows_everything_and_changes_nothing(make_app: MakeApp) -> None:
    app = make_app(readonly=True)
    async with app.run_test(size=SIZE) as pilot:
        assert "READ ONLY" in screen_text(app)
        for action in ACTIONS:
            if action.changes:
                await pilot.press(action.keys[0])
                assert app.sheet is None
                assert "read only" in app.notice[0]
    assert started(app) == []


async def test_sync_ab_and_train_start_the_engine(make_app: MakeApp) -> None:
    app = make_app(config="c.toml", workspace="w")
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("s")
        await pilot.press("a", *"200", "enter")
        await pilot.press("t", *"training.epochs=3", "enter")
    common = ["--config", "c.toml", "--workspace", "w"]
    assert started(app) == [
        [*common, "sync", "--json"],
        [*common, "ab", "--images", "200", "--json"],
        [*common, "train", "--detach", "training.epochs=3", "--json"],
    ]


async def test_filter_sort_and_details(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("slash", *"nan", "enter")
        assert "1/9" in screen_text(app)
        await pilot.press("enter")
        assert "weights are not finite" in screen_text(app)
        await pilot.press("escape", "escape", "o", "O")
        assert app.ui.filters["checkpoints"] == ""
        assert (app.ui.orders["checkpoints"].column, app.ui.orders["checkpoints"].descending) == ("cycle", False)
        await pilot.press("home", "m", "down", "m")
        assert "Two checkpoints" in screen_text(app)


async def test_the_mouse_reaches_footer_panes_and_buttons(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.click("#events", offset=(3, 2))
        assert app.ui.focus == "events"
        assert app.ui.place("events").cursor == 2
        start = next(start for start, _end, action in app._spots if action == "promote")
        await pilot.click("#footer", offset=(start, 0))
        assert isinstance(app.sheet, Promote)
        await pilot.click("#cancel")
        assert app.sheet is None


async def test_the_palette_finds_a_theme(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("colon", *"ember", "enter")
    assert app.look.name == "ember"


async def test_a_changed_theme_is_drawn_at_once_and_a_faulty_one_is_told(
    make_app: MakeApp, tmp_path: Path
) -> None:
    app = make_app(theme="ember")
    good = (SHIPPED / "ember.toml").read_text()
    async with app.run_test(size=SIZE):
        app.theme_folders = [tmp_path]
        (tmp_path / "ember.toml").write_text(good.replace("#e8dccb", "#ffffff"))
        app.tick()
        assert app.look.colors["foreground"] == "#ffffff"
        (tmp_path / "ember.toml").write_text(good.replace("#e8dccb", "white-ish"))
        app.tick()
        assert "colors.foreground" in app.notice[0]
        assert app.look.colors["foreground"] == "#ffffff"
