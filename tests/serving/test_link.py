"""The order of answers when one worker follows another, and threads that stay on their core."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
from typing import Any, cast

import pytest

from engine.devices.cores import Place, cores_of
from engine.serving import frames
from engine.serving.link import Answer, Link
from tests.conftest import PATIENCE_S


class Wire:
    """The transport of a link: keeps what was sent."""

    def __init__(self) -> None:
        self.sent: list[int] = []

    def writelines(self, parts: list[bytes] | tuple[bytes, ...]) -> None:
        self.sent += [frames.REQUEST.unpack(part)[1] for part in parts if len(part) == frames.REQUEST.size]


def make_link() -> tuple[Link, Wire]:
    link, wire = Link(cast("subprocess.Popen[bytes]", None)), Wire()
    link.connection_made(cast(Any, wire))
    return link, wire


def ask(link: Link, count: int) -> list[Answer | None]:
    answers: list[Answer | None] = []
    for _ in range(count):
        link.ask(frames.PREDICT, 1, b"an image's content", answers.append)
    return answers


def answer(link: Link, *idents: int) -> None:
    for ident in idents:
        link.data_received(frames.ANSWER.pack(2, ident, 200, 1, 0, 0, 0.5) + b"{}")


async def test_a_successor_begins_when_its_predecessor_leaves_a_core_free() -> None:
    (old, before), (new, after) = make_link(), make_link()
    ask(old, 3)
    new.take_over(old, left=1)
    ask(new, 2)
    answer(old, 1)
    assert (before.sent, after.sent) == ([1, 2, 3], [])
    answer(old, 2)
    assert after.sent == [1, 2]
    ask(new, 1)
    assert after.sent == [1, 2, 3]


async def test_a_successor_begins_at_once_when_its_predecessor_dies() -> None:
    (old, _), (new, after) = make_link(), make_link()
    lost = ask(old, 3)
    new.take_over(old, left=0)
    ask(new, 2)
    old.connection_lost(None)
    assert (lost, after.sent) == ([None] * 3, [1, 2])


async def test_a_slow_predecessor_holds_its_successor_for_a_short_while(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.serving.link._LONGEST_HOLD_S", 0.01)
    (old, _), (new, after) = make_link(), make_link()
    ask(old, 3)
    new.take_over(old, left=0)
    ask(new, 1)
    assert after.sent == []
    async with asyncio.timeout(PATIENCE_S):
        while not after.sent:
            await asyncio.sleep(0.005)


async def test_going_back_at_once_waits_for_nobody_who_waits() -> None:
    (first, before), (second, after) = make_link(), make_link()
    ask(first, 3)
    second.take_over(first, left=0)
    ask(second, 2)
    first.take_over(second, left=0)
    ask(first, 1)
    assert after.sent == [1, 2]
    answer(second, 1, 2)
    assert before.sent == [1, 2, 3, 4]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no CPU affinity")
def test_a_thread_stays_where_it_is_told() -> None:
    found: list[set[int]] = []
    everywhere = os.sched_getaffinity(0)
    core = min(everywhere)

    def work() -> None:
        place = Place()
        for where in (core, None):
            place.stay(where)
            found.append(os.sched_getaffinity(0))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found == [{core}, everywhere]
    assert os.sched_getaffinity(0) == everywhere


def test_a_core_for_each_thread_or_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {5, 2}, raising=False)
    assert cores_of(2) == [2, 5]
    assert cores_of(3) == []
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {7}, raising=False)
    assert cores_of(1) == []
    monkeypatch.delattr(os, "sched_getaffinity")
    assert cores_of(2) == []
