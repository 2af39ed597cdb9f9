"""The Korean catalogue: every sentence of the console is in it, and double width is set right."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest
from rich.cells import cell_len

from console import words
from console.actions import ACTIONS
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
                found |= {part.value for part in parts if isinstance(part, ast.Constant)}
    return {one for one in found if isinstance(one, str) and len(one) > 1}


def test_every_sentence_is_translated() -> None:
    catalogue = words.read_catalogue(words.LOCALES / "ko.po")
    assert sentences() - set(catalogue) == set()


@pytest.mark.parametrize("size", [(80, 24), (120, 40)])
async def test_korean_fills_every_row_exactly(korean: None, make_app: MakeApp, size: tuple[int, int]) -> None:
    app = make_app(language="ko")
    async with app.run_test(size=size) as pilot:
        for key in ("2", "4", "5", "p"):
            await pilot.press(key)
            shown = screen_text(app)
            assert {cell_len(line) for line in shown.splitlines()} == {size[0]}
        assert "승격" in shown
        assert "취소" in shown
        assert "적으십시오" in shown
