"""What was found out: fit verdicts, the confusion matrix, the proof of exports, sweeps; and what starts them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from console import orders, words
from console.app import ConsoleApp
from console.glyphs import ASCII
from console.orders import Refused
from console.panes import checkpoints, confusion, exports, fit, sweeps, training
from console.sheets import findings
from console.view import View
from engine.cli.export import FORMATS
from engine.protocol import Analysis, Checkpoints
from tests.console.conftest import MakeApp, Started, screen_text
from tests.console.scenes import NEW, crowded
from tests.console.test_panes import shown, view
from tests.console.test_plain import MakePlain, lines_of, make_plain, talk

__all__ = ["make_plain"]
PATH = "/home/love-lee/mycnn/checkpoints_cycle8/best_model_cycle8.pth"
WORKSPACE = "/Users/hana/.understudy"


def started(app: ConsoleApp) -> list[list[str]]:
    assert isinstance(app.commands, Started)
    return app.commands.lines


def analysed(found: View) -> Analysis:
    assert found.store.checkpoints
    assert found.store.checkpoints.analysis
    return found.store.checkpoints.analysis


def known(found: View) -> Checkpoints:
    assert found.store.checkpoints
    return found.store.checkpoints


# the room there is ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["en", "ko"])
def test_findings_fit_into_every_room(language: str) -> None:
    words.choose(language)
    try:
        for recording in ("evening", "busy"):
            found = view(recording)
            for width in (16, 24, 37, 56, 74, 96, 128, 196):
                rows = confusion.rows(found, analysed(found), width)
                rows += [confusion.brief(found, analysed(found), width)]
                rows += sweeps.every(found, width)
                for export in known(found).exports:
                    rows += [*exports.table(found, export, width), exports.brief(found, export, width)]
                assert not [row.plain for row in rows if row.at > width], (recording, width)
    finally:
        words.choose("en")


# the matrix ----------------------------------------------------------------------------------------------


def test_ten_classes_are_counted_in_80_columns() -> None:
    found = view()
    rows = confusion.rows(found, analysed(found), 74)
    assert len(rows) >= 14
    lines = shown(rows).splitlines()
    assert lines[3].split() == [str(number) for number in range(1, 11)]
    assert lines[13].split() == ["10", "whippet", "·", "17", "·", "5", "·", "·", "·", "·", "·", "98"]
    assert "whippet → borzoi" in lines[16]
    roles = {text.strip(): role for text, role in rows[13].spans if "/" in role}
    assert roles == {"17": "danger/2", "5": "danger/1", "98": "good/4"}


def test_twenty_of_120_classes_are_percents_with_the_rest() -> None:
    found = view("busy")
    many = crowded()
    lines = shown(confusion.rows(found, many, 74)).splitlines()
    assert "20 of 120" in " ".join(lines[2:4])
    assert lines[4].split() == [*map(str, range(1, 21)), "+"]
    row = lines[16].split()
    assert (row[0], row[13], row[14], row[-1]) == ("12", "38", "55", "3")
    wide = shown(confusion.rows(found, many, 240)).splitlines()
    assert wide[3].split()[-1] == "rest"
    assert "106" in wide[15].split()
    assert "too narrow" in shown(confusion.rows(found, many, 56))


def test_the_matrix_is_read_without_colour() -> None:
    found = view(glyphs=ASCII)
    ground = shown(confusion.rows(found, analysed(found), 74))
    assert "whippet > borzoi" in ground


# the proof -----------------------------------------------------------------------------------------------


def test_the_selected_checkpoints_export_comes_first() -> None:
    found = view()
    rows = checkpoints.items(found)
    assert exports.known(found, rows[1])[0].checkpoint == "best_model_cycle7.pth"
    assert exports.known(found, rows[0])[0].checkpoint == "best_model_cycle8.pth"
    said = shown(exports.every(found, rows[0], 74))
    assert "int8         2.1 MiB   3.88×    4.10   5.22×    86.8%  −0.20 [−0.6, +0.2]" in said
    assert "torchscript: not written: the net has a branch" in said
    assert "taken away" in said
    assert "pruned 30%" in said
    assert "export.json is not JSON" in said
    pane = shown(checkpoints.draw(found, 76, 17)).splitlines()
    assert pane[-2] == "[E] best_model_cycle8.pth → int8  3.9× smaller  5.2× faster  −0.2 points"
    assert pane[-1].startswith("[C] best_model_cycle8.pth  accuracy 92.0%  worst whippet → borzoi 14%")
    assert "[E]" in shown(checkpoints.draw(found, 76, 8))
    assert "[C]" not in shown(checkpoints.draw(found, 76, 8))
    assert "[E]" not in shown(checkpoints.draw(found, 76, 6))


# fit -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("verdict", "said"), [("fits", "● fits"), ("edge", "◐ at the edge"), ("cannot", "✕ cannot fit")]
)
def test_the_verdict_stands_with_forecast_and_measure(verdict: str, said: str) -> None:
    found = view()
    run = replace(found.store.progress()[0][1], fit_verdict=verdict)
    row = fit.line(found, run, 19_971_597_926, 76)
    assert row
    assert row.plain == f"memory {said}  forecast 18.9/24 GiB free  measured 18.6 GiB (98%)"
    assert fit.line(found, replace(run, fit_verdict=None), None, 76) is None


def test_a_run_that_is_over_says_whether_it_fitted() -> None:
    found = view()
    found.ui.place("training").cursor = 3
    assert "◐ at the edge  forecast 22.9/24 GiB free" in shown(training.draw(found, 76, 17))


# sweeps --------------------------------------------------------------------------------------------------


def test_sweeps_are_ranked_and_the_best_is_marked() -> None:
    lines = shown(findings.sweep_rows(view(), 110)).splitlines()
    assert "2/5" in lines[0]
    assert lines[2].split()[:6] == ["◆", "1", "3", "0.8771", "88.3%", "30/30"]
    assert lines[6].strip() == "the loss is no number any more, at epoch 1, step 12"
    assert lines[-1] == "5 older ones"
    zoomed = shown(training.draw(view(), 116, 34))
    assert "◆   1    3  0.8771" in zoomed
    assert "◆" not in shown(training.draw(view(), 116, 24))


# what starts them ----------------------------------------------------------------------------------------


def test_the_console_offers_the_engines_formats() -> None:
    assert orders.FORMATS == FORMATS


async def test_export_and_analyze_write_into_the_workspace(make_app: MakeApp) -> None:
    app = make_app()
    async with app.run_test(size=(80, 24)) as pilot:
        await pilot.press("e", *"onnx,int9", "enter", "enter")
        assert "'int9' is none of all, onnx" in screen_text(app)
        await pilot.press("shift+tab", "backspace", "8", "enter", "enter")
        assert app.sheet is None
        await pilot.press("A", *"/d", "enter")
        folder = "best_model_cycle8-" + str(known(app.view()).checkpoints[0].sha256)[:8]
        assert started(app) == [
            ["export", "--checkpoint", PATH, "--output-dir", f"{WORKSPACE}/exports/{folder}", "--format", "onnx",
             "--format", "int8", "--json"],
            ["analyze", "--checkpoint", PATH, "--output-dir", f"{WORKSPACE}/analysis/{folder}", "--data", "/d", "--json"],
        ]  # fmt: skip
        await pilot.press("down", "down", "down", "e")
        assert "refused: weights are not finite" in app.notice[0]
        assert len(started(app)) == 2


async def test_findings_are_read_in_a_readonly_console_and_nothing_is_started(make_app: MakeApp) -> None:
    app = make_app(readonly=True)
    async with app.run_test(size=(80, 24)) as pilot:
        for key, heading in (("C", "Confusion matrix"), ("E", "Proof of exports"), ("v", "Sweeps")):
            await pilot.press(key)
            assert heading in screen_text(app)
            await pilot.press("escape")
        for key in ("e", "A"):
            await pilot.press(key)
            assert app.sheet is None
            assert "read only" in app.notice[0]
        await pilot.press("C")
        app.store.clear()  # a replay that goes back takes it from under the sheet
        app.redraw()
        assert "nothing was analysed yet" in screen_text(app)
    assert started(app) == []


async def test_before_the_first_finding_the_way_to_it_is_told(make_app: MakeApp) -> None:
    app = make_app("empty")
    async with app.run_test(size=(80, 24)) as pilot:
        for key, said in (("C", "A on a checkpoint"), ("E", "e on a checkpoint"), ("v", "train --multirun")):
            await pilot.press(key)
            assert app.sheet is None
            assert said in app.notice[0]


def test_a_release_names_its_folder_and_old_figures_export_nothing() -> None:
    found = view()
    one = replace(known(found).checkpoints[0], release=NEW)
    assert orders.export(found, one, "", "")[-1] == f"{WORKSPACE}/exports/b7c4e1f3"
    assert orders.export(found, one, "all", "/d")[5:] == ("--data", "/d", "--format", "all")
    found.now += 3600
    with pytest.raises(Refused, match="not live"):
        orders.whole(found, one)


def test_in_plain_words(make_plain: MakePlain) -> None:
    plain = make_plain()
    assert "whippet" in talk(plain, "confusion")
    assert "3.88×" in talk(plain, "proof").replace("x", "×")
    assert "resnet50" in talk(plain, "sweeps")
    talk(plain, "export 1", "onnx", "", "analyze 1", "")
    assert [line[0] for line in lines_of(plain)] == ["export", "analyze"]
    assert lines_of(plain)[0][-3:] == ["--format", "onnx", "--json"]
    assert "refused" in talk(plain, "analyze 4")
    assert "nothing was analysed" in talk(make_plain("empty"), "confusion")
