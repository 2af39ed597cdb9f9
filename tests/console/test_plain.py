"""`--plain`: every action as questions, against a recorder in the engine's place; and how it is chosen."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from console import words
from console.actions import ACTIONS
from console.dialogue import TALKS
from console.options import Options, parse
from console.plain import REPLAY, SCREEN_ONLY, Plain
from console.replay import Replay
from engine.protocol import Held
from tests.console.conftest import RECORDINGS, Started, filled
from tests.console.scenes import NEW

MakePlain = Callable[..., Plain]


class Silent:
    """A feed that has said everything."""

    problem = ""
    damaged = 0
    state = "live"

    def start(self, wake: Callable[[], None]) -> None: ...

    def stop(self) -> None: ...

    def drain(self) -> list[object]:
        return []


@pytest.fixture
def make_plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakePlain:
    def make(recording: str = "evening", **options: bool) -> Plain:
        plain = Plain(Options(**options), Silent(), Started(tmp_path))  # type: ignore[arg-type]
        plain.store, last = filled(recording)
        monkeypatch.setattr("console.plain.time.time", lambda: last)
        return plain

    return make


def talk(plain: Plain, *lines: str) -> str:
    """What is said to these lines, one after the other."""
    return "\n".join("\n".join(plain.answer(line)) for line in lines)


def lines_of(plain: Plain) -> list[list[str]]:
    assert isinstance(plain.commands, Started)
    return plain.commands.lines


def test_every_action_is_a_word_or_only_for_a_screen() -> None:
    known = set(TALKS) | set(REPLAY) | SCREEN_ONLY | {"sort", "reverse", "help", "quit"}
    panes = {action.id for action in ACTIONS if action.id.startswith("pane_")}
    assert {action.id for action in ACTIONS} == known | panes
    assert {action.id for action in ACTIONS if action.changes} <= set(TALKS)


@pytest.mark.parametrize(
    ("said", "command"),
    [
        (["sync"], ["sync"]),
        (["ab", ""], ["ab"]),
        (["ab 200"], ["ab", "--images", "200"]),
        (["promote", NEW[:8], "a hotfix"], ["promote", "--expect", NEW, "--force", "--reason", "a hotfix"]),
        ([f"promote {NEW[:8]}", "why"], ["promote", "--expect", NEW, "--force", "--reason", "why"]),
        (["rollback", "2", "yes"], ["rollback", "model_8891_backup_20261109_091204.bin"]),
        (["undo", "yes"], ["rollback", "model_8891_backup_20261117_132611.bin"]),
        (["train", ""], ["train", "--detach"]),
        (["train training.epochs=3 model=litecnn"], ["train", "--detach", "training.epochs=3", "model=litecnn"]),
        (["stop", "yes"], ["train", "--stop", "0042"]),
        (["resume", "0040", "yes"], ["train", "--detach", "--resume", "0040"]),
        (["deploy 1", "yes"], ["deploy", "/home/love-lee/mycnn/checkpoints_cycle8/best_model_cycle8.pth"]),
        (["hold an audit"], ["hold", "--reason", "an audit"]),
        (["reject", "", "yes"], ["reject", NEW]),
        (["label 3f2a cat"], ["label", "3f2a", "cat"]),
        (["label 3f2a skip"], ["label", "--skip", "3f2a"]),
    ],
)
def test_what_a_screen_does_a_line_does(make_plain: MakePlain, said: list[str], command: list[str]) -> None:
    plain = make_plain()
    assert "started" in talk(plain, *said)
    assert lines_of(plain) == [[*command, "--json"]]
    assert plain.talk is None


def test_unhold_and_serve_follow_the_state(make_plain: MakePlain) -> None:
    plain = make_plain()
    assert "both slots are served" in talk(plain, "serve")
    object.__setattr__(plain.store.slots.tobe, "state", "down")  # type: ignore[union-attr]
    object.__setattr__(plain.store.health, "held", Held(by="hana"))
    talk(plain, "serve", "yes", "hold", "yes")
    assert lines_of(plain) == [["serve", "tobe", "--json"], ["unhold", "--json"]]


@pytest.mark.parametrize(
    ("said", "answer"),
    [
        (["promote", "00000000"], "not the release's first eight digits"),
        (["promote", NEW[:8], ""], "nothing was changed"),
        (["promote", ""], "nothing was changed"),
        (["rollback", "3", "yes"], "damaged"),
        (["rollback", "17"], "there is no row 17"),
        (["undo", "no"], "nothing was changed"),
        (["stop", "cancel"], "nothing was changed"),
        (["ab none"], "whole number above 0"),
        (["train --force"], "is not section.key=value"),
        (["deploy 99"], "there is no row 99"),
        (["promte"], "unknown: promte"),
    ],
)
def test_what_a_screen_refuses_a_line_refuses(make_plain: MakePlain, said: list[str], answer: str) -> None:
    plain = make_plain()
    assert answer in talk(plain, *said)
    assert lines_of(plain) == []
    assert plain.talk is None


def test_promote_shows_what_the_sheet_shows(make_plain: MakePlain) -> None:
    plain = make_plain()
    shown = talk(plain, "promote")
    for fact in (
        "a3f9c1e2",
        "b7c4e1f3",
        "+2.0 [+0.4, +3.7]",
        "1,240 paired images",
        "model_8891_backup_",
        "Gate closed",
    ):
        assert fact in shown, fact
    plain = make_plain()
    object.__setattr__(plain.store.health.gate, "open", True)  # type: ignore[union-attr]
    talk(plain, "promote", "yes")
    assert lines_of(plain) == [["promote", "--expect", NEW, "--json"]]


def test_nothing_is_changed_by_old_figures_or_where_it_is_not_allowed(make_plain: MakePlain) -> None:
    changing = [action.id for action in ACTIONS if action.changes]
    plain = make_plain(readonly=True)
    assert all("read only" in talk(plain, word) for word in changing)
    plain.feed = Replay(RECORDINGS / "evening.jsonl")
    plain.options = Options()
    assert all("recording" in talk(plain, word) for word in changing)
    plain = make_plain()
    plain.store.feed, plain.store.feed_why = "offline", "the cable"
    assert all(
        "not live (the cable)" in talk(plain, word) for word in ("promote", "rollback", "undo", "reject", "stop")
    )
    assert lines_of(plain) == []


def test_the_panes_and_what_only_looks(make_plain: MakePlain) -> None:
    plain = make_plain()
    for action in ACTIONS:
        if action.id.startswith("pane_") and action.id not in (*SCREEN_ONLY, "pane_log"):
            assert talk(plain, action.id.removeprefix("pane_")), action.id
    assert "  2       7  best_model_cycle7.pth" in talk(plain, "checkpoints")
    assert "sha256" in talk(plain, "details checkpoints 2")
    assert "difference" in talk(plain, "mark 1 2")
    assert talk(plain, "copy training 1") == "0042"
    assert "weights are not" in talk(plain, "filter checkpoints nan", "checkpoints")
    assert "cycle" in talk(plain, "filter checkpoints", "sort")
    assert talk(plain, "subject 3").startswith("Checkpoint")
    talk(plain, "images", "board", "log sync")
    assert isinstance(plain.commands, Started)
    assert plain.commands.questions == [
        ["differing", "--limit", "24", "--width", "8", "--json"],
        ["go", "suggest", "--held-out", "1", "--slots", "--top-k", "5", "--json"],
        ["logs", "sync", "--lines", "30", "--json"],
    ]
    assert "logs was asked" in "\n".join(plain.take())


def test_plain_speaks_korean(make_plain: MakePlain) -> None:
    words.choose("ko")
    try:
        plain = make_plain()
        assert "앞 여덟 자리" in talk(plain, "promote")
        assert "바뀐 것이 없습니다" in talk(plain, "취소")
        talk(plain, "undo", "예")
        assert lines_of(plain) == [["rollback", "model_8891_backup_20261117_132611.bin", "--json"]]
        assert "슬롯" in talk(plain, "help")
    finally:
        words.choose("en")


def test_a_dumb_terminal_chooses_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    assert parse([]).plain
    monkeypatch.setenv("TERM", "xterm-256color")
    assert not parse([]).plain
    assert parse(["--plain"]).plain
