"""A promoted release that does worse live is noticed, told once, and taken down where the config says so."""

from __future__ import annotations

import math
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from scipy import stats

from engine.config import Settings, load_settings
from engine.release import bake, drift
from engine.release.control import slot_stats
from engine.release.slots import read_pointer
from engine.store.events import read_events
from engine.store.workspace import Workspace
from tests.conftest import PATIENCE_S, PROJECT, Result, until
from tests.release.bundles import make_release, put
from tests.serving.releases import colour_net, image
from tests.serving.releases import make_release as servable

Engine = Callable[..., Result]


def test_the_tests_are_those_of_a_statistics_package() -> None:
    assert math.isclose(
        drift.more_errors(5, 100, 1, 200), stats.fisher_exact([[5, 95], [1, 199]], alternative="greater")[1]
    )
    assert math.isclose(drift.errors_above(5, 100, 0.01), stats.binom.sf(4, 100, 0.01))
    for freedom in range(1, 9):
        for value in (0.3, 2.0, 9.0, 40.0):
            assert math.isclose(drift.chi_square_tail(value, freedom), stats.chi2.sf(value, freedom), rel_tol=1e-9)
    now, before = {"0": 30, "1": 60, "2": 10}, {"0": 100, "1": 80, "2": 20}
    distance, p = drift.class_shift(now, before)
    assert math.isclose(distance, 0.2)
    assert math.isclose(p, stats.chi2_contingency([[30, 60, 10], [100, 80, 20]], correction=False)[1])
    one, other = [0] * 10 + [40] * 5 + [60] * 5, [0] * 10 + [60] * 5 + [40] * 5
    distance, p = drift.confidence_shift(one, other)
    spread = [[bin_ for bin_, count in enumerate(counts) for _ in range(count)] for counts in (one, other)]
    reference = stats.ks_2samp(*spread, method="asymp")
    assert math.isclose(distance, reference.statistic)
    assert math.isclose(p, reference.pvalue, rel_tol=0.15)
    assert drift.more_errors(0, 100, 5, 100) == drift.errors_above(0, 9, 0.1) == 1
    assert drift.confidence_shift([], []) == drift.class_shift({}, {}) == (0.0, 1.0)


class Server:
    """What a slot's server would say, counted by the test."""

    def __init__(self) -> None:
        self.started_at = "first"
        self.answers: dict[str, dict[str, Any]] = {}

    def count(self, release: str, requests: int, errors: int = 0, p99: float = 20.0, skew: float = 0.8) -> None:
        good = requests - errors
        high = round(good * skew)
        confidence = [0] * 20
        confidence[19], confidence[8] = high, good - high
        self.answers[release] = {
            "requests": requests,
            "errors": errors,
            "latency_ms": {"p50": 5.0, "p99": p99},
            "confidence": confidence,
            "classes": {"0": high, "1": good - high},
            "since": "",
        }

    def __call__(self, workspace: Workspace, slot: str, timeout_s: float = 2.0) -> dict[str, Any]:
        return {"started_at": self.started_at, "answers": self.answers}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    fake = Server()
    monkeypatch.setattr(bake, "slot_stats", fake)
    return fake


@pytest.fixture
def pair(workspace: Workspace) -> tuple[str, str]:
    """AS-IS was promoted from the first to the second a moment ago."""
    old, new = make_release(workspace, "old"), make_release(workspace, "new", cycle=2)
    for release in (old, new):
        put(workspace, "asis", release)
    return old.id, new.id


@pytest.fixture
def settings_of(workspace: Workspace) -> Callable[..., Settings]:
    return lambda *words: load_settings(None, workspace.root, words).settings


@pytest.mark.fault(53)
@pytest.mark.parametrize(
    ("worse", "said"),
    [
        ({"errors": 40}, "errors"),
        ({"p99": 90.0}, "p99 is 90 ms"),
        ({"skew": 0.2}, "confidence"),
    ],
)
def test_a_release_that_does_worse_raises_one_alarm(
    worse: dict[str, Any],
    said: str,
    workspace: Workspace,
    pair: tuple[str, str],
    server: Server,
    settings_of: Callable[..., Settings],
) -> None:
    settings, told = settings_of(), []
    server.count(pair[0], 1000)
    for requests in (200, 400, 800):
        server.count(pair[1], requests, **worse)
        bake.look(workspace, settings, lambda *words: told.append(words))
    found = bake.standing(workspace)
    assert found is not None
    assert (found["state"], found["release"], found["replaced"]) == ("alarm", pair[1], pair[0])
    assert said in found["reason"]
    assert len(told) == 1
    assert [event["detail"]["reason"] for event in read_events(workspace) if event["kind"] == "alert"] == [
        found["reason"]
    ]
    assert not bake.due(workspace, settings)
    pointer = read_pointer(workspace, "asis")
    assert pointer is not None
    assert pointer.release == pair[1], "nothing goes back unasked"


def test_an_equal_release_passes_and_few_answers_say_nothing(
    workspace: Workspace,
    pair: tuple[str, str],
    server: Server,
    settings_of: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings = settings_of()
    server.count(pair[0], 1000, errors=2)
    server.count(pair[1], 50, errors=40)
    assert bake.look(workspace, settings)["state"] == "watching"  # type: ignore[index]
    server.count(pair[1], 300)
    assert bake.look(workspace, settings)["state"] == "watching"  # type: ignore[index]
    server.started_at = "again"  # a restart, or a reboot: what was counted stays
    server.count(pair[1], 5)
    assert bake.look(workspace, settings)["requests"] == 305  # type: ignore[index]
    late = bake.now() + bake.timedelta(hours=1)
    monkeypatch.setattr(bake, "now", lambda: late)
    found = bake.look(workspace, settings)
    assert found is not None
    assert (found["state"], found["requests"]) == ("passed", 305)


def test_too_few_answers_are_no_pass_and_are_judged_when_they_came(
    engine: Engine,
    workspace: Workspace,
    pair: tuple[str, str],
    server: Server,
    settings_of: Callable[..., Settings],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    settings, told = settings_of("bake.rollback=true"), []
    server.count(pair[0], 1000)
    server.count(pair[1], 12, errors=12)
    bake.look(workspace, settings)
    late = bake.now() + bake.timedelta(hours=1)
    monkeypatch.setattr(bake, "now", lambda: late)

    def look() -> dict[str, Any]:
        return bake.look(workspace, settings, lambda *words: told.append(words)) or {}

    wanted = ("unjudged", "not enough answers: 12 of 100 (bake.min_requests)")
    assert [(found["state"], found["reason"]) for found in (look(), look())] == [wanted, wanted]
    pointer = read_pointer(workspace, "asis")
    assert pointer is not None
    assert pointer.release == pair[1], "a lack of traffic takes nothing down"
    assert not bake.due(workspace, settings), "nobody waits for clients without end"
    assert bake.needed(workspace) >= set(pair)
    ((subject, text, fix),) = told
    assert (pair[1][:8] in subject, text) == (True, wanted[1])
    assert "python -m engine bake; or take it down: python -m engine rollback model_" in fix

    def ends() -> list[tuple[str, str]]:
        events = [event["detail"] for event in read_events(workspace) if event["kind"] == "baked"]
        return [(detail["outcome"], detail["reason"]) for detail in events]

    assert ends() == [wanted]
    assert f"bake      not judged: {wanted[1]}" in engine("status").out
    assert engine("status", "--json").json["bake"]["state"] == "unjudged"
    said = engine("bake", "bake.minutes=0.001").out
    assert "not judged" in said
    assert "next:   have clients ask it" in said

    assert bake.due(workspace, settings_of("bake.minutes=120")) is False
    assert (bake.look(workspace, settings_of("bake.minutes=120")) or {})["state"] == "watching", "longer, if asked"
    later = late + bake.timedelta(hours=1)
    monkeypatch.setattr(bake, "now", lambda: later)
    assert look()["state"] == "unjudged"
    server.count(pair[1], 150)
    assert look()["state"] == "passed"
    assert [outcome for outcome, _ in ends()] == ["unjudged", "passed"]
    assert len(told) == 1


def test_what_goes_down_by_hand_ends_the_watch(
    workspace: Workspace, pair: tuple[str, str], server: Server, settings_of: Callable[..., Settings]
) -> None:
    settings = settings_of()
    assert bake.due(workspace, settings)
    bake.look(workspace, settings)
    assert bake.needed(workspace) >= set(pair)
    assert not bake.due(workspace, settings_of("bake.minutes=0"))
    put(workspace, "tobe", make_release(workspace, "third"))
    from engine.release.promote import list_backups, rollback

    name = list_backups(workspace, settings_of("servers.asis.port=8891"))[0]["name"]
    rollback(workspace, settings, name)
    found = bake.look(workspace, settings) or {}
    assert (found["state"], found["by_itself"]) == ("rolled_back", False), (
        "a person's rollback is told by `rollback`"
    )
    assert not bake.needed(workspace)


@contextmanager
def running(config: Path, workspace: Workspace) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "engine", "--config", str(config), "--workspace", str(workspace.root)]
    child = subprocess.Popen([*command, "serve", "asis"], cwd=PROJECT, stdin=subprocess.DEVNULL)
    try:
        until(lambda: (slot_stats(workspace, "asis") or {}).get("state") == "live", "a live slot")
        yield child
    finally:
        child.send_signal(signal.SIGTERM)
        child.wait(PATIENCE_S)


@pytest.mark.fault(53)
def test_a_bad_release_goes_back_by_itself_whoever_promoted_it(
    engine: Engine, workspace: Workspace, config: Path
) -> None:
    """Real server, real clients: the promote command is long gone when its release proves to be another."""
    config.write_text(config.read_text() + "[bake]\nrollback = true\nmin_requests = 40\n")
    old, new = servable(workspace, "a"), servable(workspace, "a", net=colour_net(6.0))
    put(workspace, "asis", old)
    put(workspace, "tobe", new)
    port = load_settings(config).settings.port("asis")
    with (
        running(config, workspace),
        httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE_S) as client,
    ):

        def answers() -> str:
            return str(client.post("/predict", content=image()).json()["release"])

        assert {answers() for _ in range(60)} == {old.id}
        assert engine("promote", "--force", "--reason", "test").code == 0
        assert answers() == new.id
        until(lambda: answers() == old.id, "the old release")
        until(lambda: (bake.standing(workspace) or {}).get("state") == "rolled_back", "the bake's end")
    kinds = [event["kind"] for event in read_events(workspace)]
    assert (kinds.count("rolled_back"), kinds.count("alert")) == (1, 1)
    shown = engine("bake", "--json").json["bake"]
    assert "confidence is distributed otherwise" in shown["reason"]
    assert shown["by_itself"]
    assert engine("promote", "--json").code == 3, "the gate is closed to it"
