"""What keys and the mouse do: every one of the registry, and the sheets that only show."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest
from textual.pilot import Pilot

from console.actions import ACTIONS, BY_ID
from console.app import ConsoleApp
from console.deeds import DEEDS
from console.replay import Replay
from console.sheets.slots import Promote, Rollback
from console.theme import SHIPPED
from tests.console.conftest import RECORDINGS, SIZE, MakeApp, Started, screen_text, started


def test_every_action_is_done_by_something_and_has_a_key() -> None:
    assert set(DEEDS) == set(BY_ID)
    assert all(action.keys for action in ACTIONS)
    keys = [key for action in ACTIONS for key in action.keys]
    assert len(keys) == len(set(keys))
    assert not {"ctrl+s", "ctrl+q", "ctrl+a", "ctrl+b", "ctrl+j"} & set(keys)


OF_A_PANE = ("open", "filter", "sort", "reverse", "copy", "subject", "stop", "resume", "deploy", "down", "bottom")


async def press_everything(app: ConsoleApp, pilot: Pilot[None], *others: str) -> None:
    """Every key of the registry, and from the other lists those that act on a row; Esc leaves each."""
    for pane in ("checkpoints", *others):
        for action in ACTIONS:
            if action.id in ("quit", "picture") or (pane != "checkpoints" and action.id not in OF_A_PANE):
                continue
            app.ui.focus = pane
            for key in action.keys if pane == "checkpoints" else action.keys[:1]:
                await pilot.press(key)
                if app.sheet is not None or app.filter.has_focus:
                    await pilot.press("escape")
                assert app.sheet is None, key
                assert not app.filter.has_focus, key


@pytest.mark.parametrize(("recording", "readonly"), [("evening", False), ("trouble", True), ("empty", False)])
async def test_a_walk_of_every_key(make_app: MakeApp, recording: str, readonly: bool) -> None:
    app = make_app(recording, readonly=readonly)
    async with app.run_test(size=(80, 24)) as pilot:
        await press_everything(app, pilot, *(("training", "events") if recording == "evening" else ()))
        await pilot.press("w")
        assert list(Path.cwd().glob("understudy-*.svg"))
        await pilot.press("q")
    assert app.return_code == 0
    assert [line[0] for line in started(app)] == ([] if readonly else ["sync"])


async def test_a_walk_of_every_key_in_a_replay(make_app: MakeApp) -> None:
    app = make_app("empty", feed=Replay(RECORDINGS / "evening.jsonl", 50.0))
    async with app.run_test(size=(80, 24)) as pilot:
        await press_everything(app, pilot)
        assert app.log_lines.shown is None
        await pilot.press("q")
    assert started(app) == []


@pytest.mark.parametrize("size", [(1, 1), (20, 5), (60, 15), (79, 23), (100, 30), (300, 90)])
async def test_nothing_breaks_at_odd_sizes(make_app: MakeApp, size: tuple[int, int]) -> None:
    app = make_app()
    async with app.run_test(size=size) as pilot:
        for key in ("p", "escape", "z", "2", "question_mark", "escape"):
            await pilot.press(key)


async def test_an_event_leads_to_what_it_is_about(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        for word, pane, row in (("deployed", "checkpoints", 0), ("promoted", "checkpoints", 1), ("compared", "compare", 0),
                                ("trained", "training", None), ("refused", "checkpoints", 3)):  # fmt: skip
            app.ui.focus, app.ui.filters["events"] = "events", word
            await pilot.press("f")
            assert app.ui.focus == pane, word
            assert row is None or app.ui.place(pane).cursor == row, word
        app.ui.focus, app.ui.filters["events"] = "events", "notified"
        await pilot.press("f")
        assert "no longer listed" in app.notice[0]


async def test_the_images_are_drawn_and_paged(make_app: MakeApp) -> None:
    app = make_app()
    picture = {"label": "cat", "asis": "dog", "tobe": "cat", "width": 24, "height": 24, "path": "x.png",
               "sha256": "0" * 64, "rgb": base64.b64encode(bytes(24 * 24 * 3)).decode()}  # fmt: skip
    assert isinstance(app.commands, Started)
    app.commands.answers["differing"] = {"id": 14, "total": 109, "images": [picture] * 24}
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("i")
        await pilot.pause()
        assert app.commands.questions == [["differing", "--limit", "24", "--width", "24", "--json"]]
        assert "1–8 of 109" in screen_text(app).replace("of ", "of ")
        assert "AS-IS dog ✕" in screen_text(app)
        await pilot.press("right")
        assert "9–16" in screen_text(app)
        await pilot.press("escape")
        assert app.sheet is None
        del app.commands.answers["differing"]
        await pilot.press("i")
        await pilot.pause()
        assert "differing was asked" in screen_text(app)


async def test_the_board_turns_from_position_to_position(make_app: MakeApp) -> None:
    app = make_app()
    assert isinstance(app.commands, Started)
    move = {"move": "D4", "row": 4, "column": 4, "confidence": 0.25}
    answer = {"to_play": "B", "board": ["." * 19] * 19, "last": None, "moves": [move], "held_out": 1, "of": 3}
    app.commands.answers["go"] = answer
    words = [["go", "suggest", "--held-out", number, "--slots", "--top-k", "5", "--json"] for number in "13"]
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("b")
        await pilot.pause()
        assert "1/3" in screen_text(app)
        assert "the newest net" in screen_text(app)
        assert "a D4" in screen_text(app)
        await pilot.press("left")
        await pilot.pause()
        assert app.commands.questions == words
        del app.commands.answers["go"]
        await pilot.press("right")
        await pilot.pause()
        assert "a D4" in screen_text(app), "the last position stays where the engine has no answer"
        assert "go was asked" in screen_text(app)


async def test_the_log_of_the_last_command_is_chosen(make_app: MakeApp, tmp_path: Path) -> None:
    app = make_app()
    app.commands.last = tmp_path / "ab-1.log"
    app.commands.last.write_text("asked 200 images\n")
    app.commands.last.with_suffix(".json").write_text("{}\n")
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("L", *"last", "enter")
        assert app.ui.focus == "log"
        assert app.log_lines.chosen == ""
        app.log_lines.look(app.view(), True)
        app.redraw()
        await pilot.pause()
        assert "asked 200 images" in screen_text(app)
        await pilot.press("3")
        app.log_lines.look(app.view(), False)
        assert app.log_lines.shown is None


async def test_copy_says_where_it_went(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("y")
        assert app.clipboard == app.store.checkpoints.checkpoints[0].sha256  # type: ignore[union-attr]
        kept = app.commands.folder.parent / "clipboard.txt"
        assert str(kept) in app.notice[0]
        assert kept.read_text().strip() == app.clipboard


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
        await pilot.click("#asis", offset=(3, 1))
        assert app.ui.focus == "slots"
        await pilot.press("2", "z")
        place = app.ui.place("training")
        assert place.first is not None
        await pilot.click("#training", offset=(3, place.first + 2))
        assert place.cursor == 2
        await pilot.press("z")
        start = next(start for start, _end, action in app._spots if action == "promote")
        await pilot.click("#footer", offset=(start, 0))
        assert isinstance(app.sheet, Promote)
        await pilot.click("#cancel")
        assert app.sheet is None


async def test_the_mouse_chooses_in_lists_of_sheets(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("r")
        assert isinstance(app.sheet, Rollback)
        await pilot.click(app.sheet._frame, offset=(5, 1 + app.sheet._first + 1))
        assert app.sheet.chosen == "model_8891_backup_20261109_091204.bin"
        await pilot.click("#confirm")
    assert started(app) == [["rollback", "model_8891_backup_20261109_091204.bin", "--json"]]


async def test_a_theme_is_tried_on_and_put_back(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("T", *"ember")
        assert app.look.name == "ember"
        await pilot.press("escape")
        assert app.look.name == "understudy"
        await pilot.press("colon", *"ember", "enter")
        assert app.look.name == "ember"
        await pilot.press("T", "pageup", "enter")
        assert app.look.name == sorted(app.themes)[0]


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


async def test_a_filter_finds_hosts_and_says_where_it_finds_nothing(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("1", "slash", *"tritonserver", "enter")
        assert "H200" in screen_text(app)
        assert "M1" not in screen_text(app)
        await pilot.press("escape", "4", "slash")
        assert "no list" in app.notice[0]
        assert not app.filter.has_focus
