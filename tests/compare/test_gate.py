"""The gate: which comparisons count, and what they open."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.compare import records
from engine.compare import statistics as st
from engine.compare.gate import gate
from engine.config import Settings
from engine.release.slots import write_pointer
from engine.store.clock import timestamp
from engine.store.files import write_json
from engine.store.workspace import Workspace
from tests.compare.conftest import release_of


@pytest.fixture
def pair(workspace: Workspace) -> dict[str, str]:
    """Release "old" on AS-IS and "new" on TO-BE; their ids."""
    return {slot: point(workspace, slot, name) for slot, name in (("asis", "old"), ("tobe", "new"))}


def point(workspace: Workspace, slot: str, name: str) -> str:
    release = release_of(workspace, name)
    write_pointer(workspace, slot, release, "test")
    return release.id


def compared(
    workspace: Workspace,
    pair: dict[str, str],
    *,
    b: int,
    c: int,
    n: int,
    start: int = 0,
    errors: int = 0,
    data: str = "/labelled",
    **more: Any,
) -> dict[str, Any]:
    """Store a comparison of images start .. start + n, with b and c spread over them; errors are TO-BE's."""
    kinds = ["b"] * b + ["c"] * c + ["e"] * errors + ["="] * (n - b - c - errors)
    order = np.random.default_rng(start + n).permutation(n)
    answers = {"b": ("y", "x"), "c": ("x", "y"), "e": ("x", None), "=": ("x", "x")}
    rows: list[list[str | None]] = [
        [f"{start + place:064x}", "x", *answers[kinds[kind]], f"x/{start + place}.png"]
        for place, kind in enumerate(order)
    ]
    summary = {
        "id": records.next_id(workspace),
        "at": timestamp(),
        "n": n,
        "asis": {"release": pair["asis"], "errors": 0},
        "tobe": {"release": pair["tobe"], "errors": errors},
        "status": "completed",
        "reason": "a reason",
        "data_key": data,
        "available": 100_000,
        **more,
    }
    records.store(workspace, summary, rows)
    return summary


def test_nothing_to_weigh(workspace: Workspace, settings: Settings) -> None:
    assert gate(workspace, settings)["reason"].startswith("TO-BE is empty")
    point(workspace, "tobe", "new")
    assert gate(workspace, settings)["reason"].startswith("AS-IS is empty")
    point(workspace, "asis", "new")
    assert "the same release" in gate(workspace, settings)["reason"]
    point(workspace, "asis", "old")
    answer = gate(workspace, settings)
    assert (answer["open"], answer["ab"], answer["evidence"]["n"]) == (False, None, 0)
    assert "not compared yet" in answer["reason"]


def test_one_look_is_judged_by_its_mid_p(workspace: Workspace, settings: Settings, pair: dict[str, str]) -> None:
    compared(workspace, pair, b=30, c=10, n=500)
    answer = gate(workspace, settings)
    assert answer["open"]
    assert answer["ab"]["id"] == 1
    assert "rows" not in answer["ab"]
    evidence = answer["evidence"]
    assert (evidence["n"], evidence["b"], evidence["c"], evidence["looks"]) == (500, 30, 10, 1)
    assert evidence["p_value"] == st.mcnemar(30, 10)[1]
    assert evidence["difference_ci95"] == list(st.difference_interval(30, 10, 500))


def test_after_more_looks_only_the_e_value_opens(
    workspace: Workspace, settings: Settings, pair: dict[str, str]
) -> None:
    compared(workspace, pair, b=12, c=6, n=300)
    compared(workspace, pair, b=12, c=4, n=300, start=300)
    answer = gate(workspace, settings)
    evidence = answer["evidence"]
    assert st.mcnemar(24, 10)[1] < 0.05
    assert evidence["e_value"] == pytest.approx(st.e_value(24, 10))
    assert evidence["looks"] == 2
    assert not answer["open"]
    missing = evidence["images_missing"]
    assert answer["reason"].startswith(f"about {missing:,} more images needed")

    grown = (600 + missing) / 600
    assert evidence["e_needed"] == st.later_e_value(18, 0.05) > 20, (
        "the first look by mid-p has spent some of alpha"
    )
    assert st.e_value(24 * grown, 10 * grown) == pytest.approx(evidence["e_needed"], rel=0.03)
    compared(workspace, pair, b=40, c=10, n=1500, start=600)
    answer = gate(workspace, settings)
    assert answer["open"]
    assert answer["evidence"]["p_value"] <= 1.001 / st.e_value(64, 20)


def test_an_image_counts_once_and_the_same_images_again_are_no_look(
    workspace: Workspace, settings: Settings, pair: dict[str, str]
) -> None:
    compared(workspace, pair, b=15, c=6, n=300)
    once = gate(workspace, settings)["evidence"]
    compared(workspace, pair, b=15, c=6, n=300)
    assert gate(workspace, settings)["evidence"] == once


def test_an_error_is_mended_by_a_later_answer(
    workspace: Workspace, settings: Settings, pair: dict[str, str]
) -> None:
    compared(workspace, pair, b=0, c=0, n=300, errors=3)
    assert gate(workspace, settings)["evidence"]["c"] == 3
    compared(workspace, pair, b=0, c=0, n=300)
    evidence = gate(workspace, settings)["evidence"]
    assert (evidence["n"], evidence["c"], evidence["looks"]) == (300, 0, 2)


def test_a_comparison_with_too_many_errors_is_no_evidence(
    workspace: Workspace, settings: Settings, pair: dict[str, str]
) -> None:
    compared(workspace, pair, b=40, c=0, n=300, errors=4)
    answer = gate(workspace, settings)
    assert not answer["open"]
    assert "comparison 1 decides nothing: a reason" in answer["reason"]
    compared(workspace, pair, b=40, c=0, n=300)
    assert gate(workspace, settings)["open"]


def test_only_these_two_releases_count(workspace: Workspace, settings: Settings, pair: dict[str, str]) -> None:
    compared(workspace, pair, b=40, c=2, n=500)
    assert gate(workspace, settings)["open"]
    point(workspace, "tobe", "newer")
    answer = gate(workspace, settings)
    assert not answer["open"]
    assert "comparison 1 was of other releases" in answer["reason"]
    point(workspace, "tobe", "new")
    assert gate(workspace, settings)["open"]
    point(workspace, "asis", "other")
    assert not gate(workspace, settings)["open"]


def test_too_few_images_never_open_it(workspace: Workspace, settings: Settings, pair: dict[str, str]) -> None:
    compared(workspace, pair, b=40, c=0, n=60)
    answer = gate(workspace, settings)
    assert not answer["open"]
    assert answer["reason"].startswith("at least 40 more images needed")


def test_a_set_that_is_used_up_says_so(workspace: Workspace, settings: Settings, pair: dict[str, str]) -> None:
    compared(workspace, pair, b=8, c=4, n=300, available=320)
    assert "the labelled set has 20 left, so label more" in gate(workspace, settings)["reason"]


def test_when_as_is_is_better_no_number_of_images_is_promised(
    workspace: Workspace, settings: Settings, pair: dict[str, str]
) -> None:
    compared(workspace, pair, b=5, c=30, n=500)
    answer = gate(workspace, settings)
    assert answer["reason"].startswith("AS-IS is better")
    assert answer["evidence"]["images_missing"] is None


def test_a_release_that_was_taken_down_needs_a_new_comparison(
    workspace: Workspace, settings: Settings, pair: dict[str, str]
) -> None:
    compared(workspace, pair, b=40, c=2, n=500)
    time.sleep(0.005)
    write_json(workspace.state / "taken_down.json", {pair["tobe"]: timestamp()})
    answer = gate(workspace, settings)
    assert not answer["open"]
    assert "was rolled back from AS-IS" in answer["reason"]
    time.sleep(0.005)
    compared(workspace, pair, b=40, c=2, n=500)
    answer = gate(workspace, settings)
    assert answer["open"]
    assert answer["evidence"]["looks"] == 1


def test_a_rejected_release_never_passes(workspace: Workspace, settings: Settings, pair: dict[str, str]) -> None:
    compared(workspace, pair, b=40, c=2, n=500)
    write_json(
        workspace.state / "rejected.json", {pair["tobe"]: {"at": timestamp(), "actor": "ada", "reason": "bias"}}
    )
    answer = gate(workspace, settings)
    assert not answer["open"]
    assert "rejected by ada" in answer["reason"]
    assert answer["evidence"]["rejected"]


def test_another_labelled_set_is_not_pooled_and_divides_alpha(
    workspace: Workspace, settings: Settings, pair: dict[str, str]
) -> None:
    compared(workspace, pair, b=9, c=8, n=300, data="/first")
    compared(workspace, pair, b=20, c=9, n=300, data="/second")
    assert 0.025 < st.mcnemar(20, 9)[1] < 0.05
    answer = gate(workspace, settings)
    assert not answer["open"]
    assert (answer["evidence"]["n"], answer["evidence"]["alpha"]) == (300, 0.025)
    assert "2 labelled sets were tried" in answer["reason"]


def test_an_interrupted_look_is_judged_by_its_e_value(
    workspace: Workspace, settings: Settings, pair: dict[str, str]
) -> None:
    assert st.mcnemar(14, 5)[1] < 0.05
    compared(workspace, pair, b=14, c=5, n=400, status="interrupted")
    answer = gate(workspace, settings)
    assert not answer["open"]
    assert "a look that could end at any image" in answer["reason"]


def test_not_worse_than_by_the_margin(workspace: Workspace, settings: Settings, pair: dict[str, str]) -> None:
    settings.gate.rule, settings.gate.margin = "non_inferior", 0.02
    compared(workspace, pair, b=20, c=20, n=1000)
    assert st.difference_interval(20, 20, 1000)[0] > -0.02
    answer = gate(workspace, settings)
    assert answer["open"]
    assert answer["reason"].startswith("TO-BE is not worse by 2.00%")
    settings.gate.rule = "superior"
    assert not gate(workspace, settings)["open"]
    settings.gate.rule = "non_inferior"
    compared(workspace, pair, b=1, c=1, n=50, start=1000)
    answer = gate(workspace, settings)
    assert not answer["open"]
    compared(workspace, pair, b=60, c=60, n=answer["evidence"]["images_missing"] + 2000, start=1050)
    assert gate(workspace, settings)["open"]


def test_a_damaged_comparison_closes_it(workspace: Workspace, settings: Settings, pair: dict[str, str]) -> None:
    compared(workspace, pair, b=40, c=2, n=500)
    assert gate(workspace, settings)["open"]
    records.comparison_path(workspace, 1).write_text("{")
    answer = gate(workspace, settings)
    assert not answer["open"]
    assert "comparison 1 is damaged" in answer["reason"]


@pytest.mark.parametrize("spoil", ["unlink", "text", "other"])
def test_what_is_remembered_can_be_thrown_away(
    workspace: Workspace, settings: Settings, pair: dict[str, str], spoil: str
) -> None:
    compared(workspace, pair, b=12, c=6, n=300)
    compared(workspace, pair, b=12, c=4, n=300, start=300)
    before = gate(workspace, settings)
    path = workspace.state / "comparisons.json"
    if spoil == "unlink":
        path.unlink()
    else:
        path.write_text("{" if spoil == "text" else '{"format": 0}')
    assert gate(workspace, settings) == before
    assert json.loads(path.read_text())["format"] == 1


def test_a_gate_that_is_asked_after_each_hundred_images_errs_less_than_alpha(settings: Settings) -> None:
    """The gate's whole rule (first look mid-p, then the e-value) under no difference, psi .10, 2,000 images."""
    random = np.random.default_rng(5)
    opened, trials = 0, 2000
    for _ in range(trials):
        steps = random.multinomial(100, [0.05, 0.05, 0.9], size=20)
        b, c = np.cumsum(steps[:, 0]), np.cumsum(steps[:, 1])
        first = b[0] > c[0] and st.mcnemar(int(b[0]), int(c[0]))[1] < 0.05
        later = any(
            x > y and st.log_e_value(int(x), int(y)) >= -math.log(0.05) for x, y in zip(b[1:], c[1:], strict=True)
        )
        opened += bool(first or later)
    assert opened / trials < 0.05


def test_fifty_comparisons_are_weighed_without_reading_them_again(
    workspace: Workspace, settings: Settings, pair: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(50):
        compared(workspace, pair, b=6, c=5, n=200, start=number * 200)
    first = gate(workspace, settings)
    read: list[Path] = []
    original = Path.read_text
    monkeypatch.setattr(Path, "read_text", lambda path, *a, **k: (read.append(path), original(path, *a, **k))[1])
    assert gate(workspace, settings) == first
    assert not [path for path in read if path.parent == workspace.comparisons]
    assert first["evidence"]["n"] == 10_000


def test_the_gate_imports_nothing_heavy() -> None:
    code = "import sys, engine.compare.gate; print([m for m in ('torch', 'numpy', 'httpx', 'PIL') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
