"""A few of the fifty failures of `benchmarks.cloud_budget`, and the verbs with real processes on the same fake cloud."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import cloud_budget
from engine.cloud.ledger import Ledger
from engine.store.events import read_events
from engine.store.workspace import Workspace
from tests.conftest import Result

SOME = (
    "killed: guard before down",
    "machine: neither works",
)
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="forks")


@pytest.mark.parametrize("name", SOME)
def test_no_failure_lets_a_machine_run_past_its_budget(name: str) -> None:
    case = next(case for case in cloud_budget.cases() if case.name == name)
    result = cloud_budget.run_case(case)
    assert not result["over"], result
    assert result["counted_usd"] >= result["bill_usd"] > 0


def test_one_empty_list_ends_no_training() -> None:
    case = next(case for case in cloud_budget.cases() if case.name == "API: the list is empty once")
    result = cloud_budget.run_case(case)
    assert (result["machines"], result["closed"]) == (1, True)
    assert result["bill_usd"] > 0.8  # it trained to the end of its budget


def test_there_are_fifty_different_failures() -> None:
    found = cloud_budget.cases()
    assert len({case.name for case in found}) == len(found) == 50


@pytest.mark.long(17)
def test_launch_status_cost_down(
    engine: Callable[..., Result], workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Real processes: the verb, the guard and the launcher; only SkyPilot's command is played."""
    quick = {"provision_s": 0.0, "setup_s": 0.0, "going_s": 0.0}
    words = ["cloud.provider=skypilot", "cloud.poll_s=5"]
    with cloud_budget.fake_cloud(tmp_path, cloud_budget.Case("quick", machine=quick)) as place:
        (place / "now").unlink()
        words.append(f"cloud.skypilot={place / 'sky'}")
        plain = engine("cloud", "launch", "--name", "box", "--gpu", "RTX 4090", *words, "--json")
        assert (plain.code, "budget" in plain.err) == (2, True)
        assert not Ledger(workspace).names()
        order = ["cloud", "launch", "--name", "box", "--gpu", "RTX 4090", "--budget", "5", "--max-hourly", "0.69"]
        tried = engine(*order, "--dry-run", *words, "--json").json
        assert "autostop" in tried["task"]
        launched = engine(*order, *words, "--json")
        assert launched.code == 0, launched.err
        assert (launched.json["state"], launched.json["job"], launched.json["budget_usd"]) == (
            "running",
            "running",
            5.0,
        )
        assert engine(*order, *words).code == 4
        cost = engine("cloud", "cost", *words, "--json").json
        assert 0 < cost["total_usd"] < 0.1
        gone = engine("cloud", "down", "box", *words, "--json", timeout=120)
        assert (gone.code, gone.json["state"]) == (0, "gone"), gone.err
        clusters = json.loads((place / "cloud.json").read_text())["clusters"]
        assert [cluster["why"] for cluster in clusters] == ["sky down"]
        assert clusters[0]["gone_at"] <= time.time()
    assert any(
        event["kind"] == "stopped" and event["subject"] == "cloud box" for event in read_events(workspace, last=20)
    )
