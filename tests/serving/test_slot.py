"""A slot on its own event loop, with real workers: what takes too long to wait for from outside."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from engine.config.schema import Servers
from engine.errors import Failed
from engine.release.bundle import Release
from engine.serving import frames, reserve
from engine.serving import slot as slots
from engine.serving.link import Answer, WorkerGone
from engine.serving.slot import Slot, Unavailable
from engine.store.workspace import Workspace
from tests.conftest import PATIENCE_S
from tests.serving.conftest import freeze
from tests.serving.releases import image, make_release, point


async def until(true: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while not true():
            await asyncio.sleep(0.01)


async def ask(slot: Slot) -> Answer:
    found: asyncio.Future[Answer | Exception] = asyncio.get_running_loop().create_future()
    slot.submit(frames.PREDICT, 1, image(), found.set_result)
    answer = await found
    if isinstance(answer, Exception):
        raise answer
    return answer


@pytest.fixture
def release(workspace: Workspace) -> Release:
    made = make_release(workspace)
    point(workspace, "asis", made)
    return made


@pytest.fixture
async def slot(workspace: Workspace, release: Release, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Slot]:
    monkeypatch.setattr(slots, "_POLL_S", 0.02)
    monkeypatch.setattr(reserve, "_SPARE_AFTER_S", 0.0)
    monkeypatch.setattr(slots, "_WAIT_FOR_WORKER_S", PATIENCE_S)
    made = Slot(workspace, "asis", Servers(threads=2))
    await made.follow()
    run = asyncio.create_task(made.run())
    yield made
    run.cancel()
    await made.close()


async def test_a_request_that_ends_two_workers_fails_and_the_slot_goes_on(slot: Slot) -> None:
    first = slot.active
    assert first is not None
    ended = []

    def stop_successor() -> None:
        assert slot.active is not None
        freeze(slot.active.process.pid)
        ended.append(slot.active)

    slot._on_change = stop_successor
    freeze(first.process.pid)
    asked = asyncio.create_task(ask(slot))
    await until(lambda: first.in_flight)
    first.process.kill()
    await until(lambda: ended and ended[0].in_flight)
    slot._on_change = lambda: None
    ended[0].process.kill()
    with pytest.raises(WorkerGone):
        await asked
    assert (await ask(slot)).status == 200
    assert slot.restarts == 2


async def test_a_worker_that_hangs_is_replaced(slot: Slot, monkeypatch: pytest.MonkeyPatch) -> None:
    hung = slot.active
    assert hung is not None
    freeze(hung.process.pid)
    monkeypatch.setattr(slots, "_SILENT_S", 0.3)
    asked = asyncio.create_task(ask(slot))
    await until(hung.gone.is_set)
    monkeypatch.setattr(slots, "_SILENT_S", PATIENCE_S)  # its successor is not hung where it is only slow
    assert (await asked).status == 200
    assert slot.active is not hung


async def test_what_nobody_follows_is_not_kept(
    workspace: Workspace, slot: Slot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reserve, "_PREPARED_S", 0.05)
    await slot.prepare(make_release(workspace, "b").id)
    assert slot._reserve._prepared is not None
    link = slot._reserve._prepared[0]
    await until(lambda: slot._reserve._prepared is None and link.process.poll() is not None)


async def test_a_release_that_ends_every_worker_is_given_pauses(
    workspace: Workspace, slot: Slot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(slots, "_WAIT_FOR_WORKER_S", 0.1)
    monkeypatch.setattr(slots, "_STEADY_S", 10 * PATIENCE_S)
    pauses: list[float] = []
    for _ in range(3):
        assert slot.active is not None
        link = slot.active
        link.process.kill()
        await until(lambda link=link: slot.active is not link)  # type: ignore[misc]
        pauses.append(slot._deaths)
        if slot.active is None and slot._deaths > 1:
            with pytest.raises(Unavailable, match="not back yet"):
                await ask(slot)
        await until(lambda: slot.active is not None)
    assert pauses == [1, 2, 3]
    assert slot.state == "live"
    assert slot.problem == "its worker dies again and again", "and whoever reads messages is told"
    await slot.follow()  # as when it has lived for a while
    assert slot.problem is None


async def test_a_workspace_that_goes_away_empties_nothing(
    workspace: Workspace, slot: Slot, release: Release
) -> None:
    away = workspace.slots.with_name("away")
    workspace.slots.rename(away)
    with pytest.raises(Failed, match="gone"):
        await slot.follow()
    assert (await ask(slot)).status == 200
    away.rename(workspace.slots)
    await slot.follow()
    assert slot.problem is None


async def test_without_a_release_there_is_no_answer(workspace: Workspace) -> None:
    empty = Slot(workspace, "tobe", Servers(threads=1))
    await empty.follow()
    assert empty.state == "empty"
    with pytest.raises(Unavailable, match="no release"):
        await ask(empty)
    await empty.close()
