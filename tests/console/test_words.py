"""The Korean catalogue: every sentence of the console is in it, and double width is set right."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.cells import cell_len

from console import text, words
from console.actions import ACTIONS
from console.layout import PANES
from console.panes import checkpoints, cloud, slots, sweeps, training
from console.sheets import details
from console.sheets.asking import Read
from console.sheets.base import Sheet
from console.sheets.choosing import Choose
from console.sheets.slots import Promote, Rollback
from console.sorting import COLUMNS
from console.svg import widen
from console.theme import SHIPPED, load_themes
from tests.console.conftest import MakeApp, screen_text

CONSOLE = Path(words.__file__).parent


@pytest.fixture
def korean() -> Iterator[None]:
    words.choose("ko")
    yield
    words.choose("en")


def sentences() -> set[str]:
    """Every literal that is looked up, and the registry's words."""
    found = {word for action in ACTIONS for word in (action.label, action.help, action.group)}
    for path in CONSOLE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "_":
                asked = node.args[0]
                parts = [asked.body, asked.orelse] if isinstance(asked, ast.IfExp) else [asked]
                found |= {str(part.value) for part in parts if isinstance(part, ast.Constant)}
    return {one for one in found if isinstance(one, str) and len(one) > 1}


def words_of_data() -> set[str]:
    """Words that come with the data, or from tables, and are looked up where they are drawn."""
    found = {word for word, _role in checkpoints.STANDS.values() if word.islower()}
    found |= {column for columns in COLUMNS.values() for column in columns} | set(PANES)
    found |= (
        {label for label, _show in details.FACTS} | set(training.STATUS) | set(sweeps.STATUS) | set(slots.STATES)
    )
    found |= {kind.replace("_", " ") for kind in EVENTS} | set(cloud.STATE) | set(cloud.JOB)
    found |= {theme.description for theme in load_themes([SHIPPED])[0].values()}
    for sheet in (Sheet, Promote, Rollback, Read, Choose):
        found |= {word for word in (sheet.confirm, sheet.cancel) if word}
    return found | {"Undo", "Roll back"}


EVENTS = ("deployed", "promoted", "rolled_back", "undeployed", "refused", "rejected", "alert", "compared", "trained",
          "synced", "held", "unheld", "unrejected", "baked", "notified", "started", "stopped")  # fmt: skip


def test_every_sentence_is_translated() -> None:
    catalogue = words.read_catalogue(words.LOCALES / "ko.po")
    assert (sentences() | words_of_data()) - set(catalogue) == set()


def engine_sentences(path: str, names: set[str]) -> set[str]:
    """The sentences that a module of the engine gives as `text=`, `reason=` or to one of these names, figures as 7."""
    found = set()
    for node in ast.walk(ast.parse((CONSOLE.parent / path).read_text(encoding="utf-8"))):
        values: list[ast.expr] = []
        if isinstance(node, ast.Call):
            values = [item.value for item in node.keywords if item.arg in ("text", "reason")]
            if isinstance(node.func, ast.Name) and node.func.id == "_closed":
                values.append(node.args[1])
        elif (
            isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id in names
        ):
            values = [node.value]
        for value in values:
            if isinstance(value, ast.JoinedStr):
                parts = (str(part.value) if isinstance(part, ast.Constant) else "7" for part in value.values)
                found.add("".join(parts))
            elif isinstance(value, ast.Constant) and value.value:
                found.add(str(value.value))
    return found


@pytest.mark.parametrize("path", ["engine/watch/advice.py", "engine/compare/gate.py"])
def test_what_the_engine_advises_is_translated(korean: None, path: str) -> None:
    found = engine_sentences(path, {"why", "reason", "nothing"})
    assert len(found) >= 12
    bare = {re.sub("(?<=[a-z])7", "", sentence) for sentence in found if sentence != "7: 7"}
    spoken = {text.advice(sentence) for sentence in bare}
    assert {sentence for sentence in spoken if not re.search("[가-힣]", sentence)} == set()


def test_figures_and_parts_of_a_sentence_keep_their_places(korean: None) -> None:
    said = "about 480 more images needed: undecided after 1,240 images, TO-BE +2.02 points (e-value 4.5 of 20 after 3 looks)"
    assert (
        words.said(said)
        == "약 480장이 더 필요합니다. 1,240장, TO-BE +2.02포인트 (e값 20 가운데 4.5, 3번 봄)에서 미정입니다"
    )
    assert words.said("the disk is on fire") == "the disk is on fire"
    assert text.advice("AS-IS is down; run: python -m engine serve asis") == "AS-IS가 멈췄습니다"


def test_a_template_keeps_all_its_places() -> None:
    for sentence, translation in words.read_catalogue(words.LOCALES / "ko.po").items():
        assert set(re.findall(r"{(\w+)}", sentence)) == set(re.findall(r"{(\w+)}", translation)), sentence


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_korean_fills_every_row_exactly(korean: None, make_app: MakeApp, size: tuple[int, int]) -> None:
    app = make_app(language="ko")
    async with app.run_test(size=size) as pilot:
        for key in ("2", "4", "5", "6", "7", "p"):
            await pilot.press(key)
            shown = screen_text(app)
            assert {cell_len(line) for line in shown.splitlines()} == {size[0]}
        assert "승격" in shown
        assert "취소" in shown
        assert "적으십시오" in shown


async def test_a_sheet_lies_over_korean_panes_that_stay_whole(korean: None, make_app: MakeApp) -> None:
    app = make_app(language="ko")
    async with app.run_test(size=(120, 40)) as pilot:
        before = screen_text(app).splitlines()
        await pilot.press("p")
        assert app.sheet is not None
        shown = screen_text(app).splitlines()
        assert {cell_len(line) for line in shown} == {120}
        assert "체크포인트" in "".join(shown), "the panes around the sheet stay"
        heading = next(line for line in shown if "승격 TO-BE" in line)
        assert "╭ 승격 TO-BE → AS-IS ─" in heading
        await pilot.press("escape")
        assert screen_text(app).splitlines()[5] == before[5]


def test_a_picture_gives_wide_characters_their_room() -> None:
    line = '<text class="a" x="0" y="20" textLength="{}" clip-path="url(#b)">{}</text>'
    assert widen(line.format("24.4", "정확")) == line.format("48.8", "정확")
    assert widen(line.format("24.4", "a&amp;")) == line.format("24.4", "a&amp;")
