"""The deeds that change something: what each key and sheet starts, and what stops it."""

from __future__ import annotations

import pytest

from console.actions import ACTIONS
from console.sheets.slots import Promote, Rollback
from engine.protocol import Held
from tests.console.conftest import SIZE, MakeApp, Started, screen_text, started
from tests.console.scenes import NEW


async def test_promote_through_an_open_gate_is_two_keys_away(make_app: MakeApp) -> None:
    app = make_app()
    gate = app.store.health.gate  # type: ignore[union-attr]
    release = app.store.slots.tobe.release  # type: ignore[union-attr]
    object.__setattr__(gate, "open", True)
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("p")
        assert isinstance(app.sheet, Promote)
        await pilot.press("enter")  # Cancel has the focus
        assert app.sheet is None
        assert started(app) == []
        await pilot.press("p", "tab", "enter")
    assert started(app) == [["promote", "--expect", release, "--json"]]


async def test_a_closed_gate_wants_the_digits_and_a_reason(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("p", "tab", "enter")
        assert "first eight digits" in screen_text(app)
        assert started(app) == []
        await pilot.press("tab", *NEW[:8], "tab", *"hotfix", "tab", "tab", "enter")
    assert started(app) == [["promote", "--expect", NEW, "--force", "--reason", "hotfix", "--json"]]


async def test_a_candidate_that_changes_under_the_sheet_is_not_promoted(make_app: MakeApp) -> None:
    app = make_app()
    object.__setattr__(app.store.health.gate, "open", True)  # type: ignore[union-attr]
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("p")
        object.__setattr__(app.store.slots.tobe, "release", "f" * 64)  # type: ignore[union-attr]
        await pilot.press("tab", "enter")
        assert "has changed" in screen_text(app)
    assert started(app) == []


@pytest.mark.parametrize("typed", [["00000000", "why"], [NEW[:8], ""]], ids=["wrong digits", "no reason"])
async def test_a_closed_gate_is_not_passed_by_half(make_app: MakeApp, typed: list[str]) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("p", "tab", "tab", *typed[0], "tab", *typed[1], "tab", "tab", "enter")
        assert app.sheet is not None
        assert "release's first eight digits" in screen_text(app) or "a reason is needed" in screen_text(app)
    assert started(app) == []


async def test_the_promotion_sheet_says_all_that_is_to_be_known(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("p")
        shown = screen_text(app)
    for fact in ("a3f9c1e2", "b7c4e1f3", "85.0% checked", "87.0% checked", "+2.0 [+0.4, +3.7] points", "1,240 paired",
                 "p 0.017", "e 4.5 of 20", "31 ms", "29 ms", "model_8891_backup_2026", "u puts the old release back",
                 "Gate closed", "[ Cancel ]"):  # fmt: skip
        assert fact in shown, fact


async def test_figures_that_grow_old_under_an_open_sheet_stop_it(make_app: MakeApp) -> None:
    for keys in (["p", "tab", "tab", *NEW[:8], "tab", *"why", "tab", "tab", "enter"], ["r", "tab", "enter"],
                 ["u", "tab", "enter"]):  # fmt: skip
        app = make_app()
        async with app.run_test(size=SIZE) as pilot:
            await pilot.press(keys[0])
            app.store.feed, app.store.feed_why = "offline", "the cable"
            await pilot.press(*keys[1:])
            assert app.sheet is not None
            assert "not live (the cable)" in screen_text(app)
        assert started(app) == []


async def test_production_that_changes_under_the_sheet_stops_it(make_app: MakeApp) -> None:
    for key in ("p", "r", "u"):
        app = make_app()
        object.__setattr__(app.store.health.gate, "open", True)  # type: ignore[union-attr]
        async with app.run_test(size=SIZE) as pilot:
            await pilot.press(key)
            object.__setattr__(app.store.slots.asis, "release", "e" * 64)  # type: ignore[union-attr]
            await pilot.press("tab", "enter")
            assert "AS-IS has changed" in screen_text(app)
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


async def test_a_training_is_stopped_and_another_gone_on_with(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("x")
        assert "Stops run 0042" in screen_text(app)
        await pilot.press("enter")  # Cancel has the focus
        assert started(app) == []
        await pilot.press("x", "tab", "enter")
        await pilot.press("R", *"0037", "enter")
        assert "Goes on with run 0037" in screen_text(app)
        await pilot.press("tab", "enter")
    assert started(app) == [
        ["train", "--stop", "0042", "--json"],
        ["train", "--detach", "--resume", "0037", "--json"],
    ]


async def test_deploy_serve_hold_and_reject(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("d", "tab", "enter", "S")
        assert "both slots are served" in screen_text(app)
        object.__setattr__(app.store.slots.tobe, "state", "down")  # type: ignore[union-attr]
        await pilot.press("S", "tab", "enter", "H", *"an audit", "enter")
        await pilot.press("X", "tab", "tab", *"worse on cats", "enter")
        assert "worse on cats" in screen_text(app), "a grave thing is confirmed by its button"
        await pilot.press("tab", "enter")
        object.__setattr__(app.store.health, "held", Held(by="hana"))
        await pilot.press("H", "tab", "enter")
    path = app.store.checkpoints.checkpoints[0].path  # type: ignore[union-attr]
    assert started(app) == [
        ["deploy", path, "--json"],
        ["serve", "tobe", "--json"],
        ["hold", "--reason", "an audit", "--json"],
        ["reject", NEW, "--reason", "worse on cats", "--json"],
        ["unhold", "--json"],
    ]


async def test_live_requests_are_labelled_one_after_the_other(make_app: MakeApp) -> None:
    app = make_app()
    assert isinstance(app.commands, Started)
    waiting = {"id": "3f2ac0de", "answers": [{"label": "cat"}, {"label": "dog"}]}
    app.commands.answers["label"] = {**waiting, "items": [waiting], "live": {"waiting": 12}}
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("c")
        await pilot.pause()
        assert "12 wait" in screen_text(app)
        await pilot.press("2")
        await pilot.press("s")
        await pilot.press("tab", *"fox", "enter")
        await pilot.pause()
        app.commands.answers["label"] = {"items": []}
        await pilot.press("shift+tab", "n")
        await pilot.pause()
        assert "no request waits" in screen_text(app)
    marked = [words[1:-1] for words in app.commands.questions if words[1] not in ("--limit", "--show")]
    assert marked == [["3f2ac0de", "dog"], ["--skip", "3f2ac0de"], ["3f2ac0de", "fox"], ["--neither", "3f2ac0de"]]
