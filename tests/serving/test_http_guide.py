"""The Python examples of docs/http.md run as they are printed, on another port."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import PROJECT
from tests.serving.conftest import Served
from tests.serving.releases import image

EXAMPLES = re.findall(r"```python\n(.*?)```", (PROJECT / "docs/http.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=["httpx", "tritonclient"])
def test_example(
    example: str, live: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dog.jpg").write_bytes(image())
    monkeypatch.chdir(tmp_path)
    exec(compile(example.replace("8891", str(live.port)), "docs/http.md", "exec"), {})
    shown = capsys.readouterr().out
    assert "a-red 0." in shown or shown.startswith("[[")
