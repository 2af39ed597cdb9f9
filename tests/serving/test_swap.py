"""A release takes another's place, or fails to, while clients go on."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import httpx
import pytest

from engine.errors import Failed
from engine.release.bundle import Release, release_path
from engine.release.control import follow, prepare
from engine.release.slots import pointer_path
from engine.store.events import read_events
from engine.store.files import read_json
from engine.store.workspace import Workspace
from tests.serving.conftest import PATIENCE_S, Served, freeze, gone, until
from tests.serving.releases import colour_net, damage, image, make_release, point


@contextmanager
def load(served: Served, answers: list[tuple[int, str, str]], clients: int = 4) -> Iterator[None]:
    """Clients that ask without a pause; `answers` gets (status, release, label) of each, status 0 for none."""
    ended = threading.Event()

    def ask() -> None:
        with httpx.Client(base_url=f"http://127.0.0.1:{served.port}", timeout=PATIENCE_S) as client:
            while not ended.is_set():
                try:
                    answer = client.post("/predict", content=image())
                    found = answer.json()
                    answers.append((answer.status_code, found.get("release", ""), found.get("label", "")))
                except httpx.HTTPError as error:
                    answers.append((0, "", repr(error)))

    threads = [threading.Thread(target=ask) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        until(lambda: len(answers) > 20, "answers")
        yield
    finally:
        ended.set()
        for thread in threads:
            thread.join()


def grown(answers: list[tuple[int, str, str]], what: str) -> None:
    """Wait for twenty more answers."""
    wanted = len(answers) + 20
    until(lambda: len(answers) > wanted, what)


def restarted(served: Served, count: int) -> bool:
    return bool(served.stats()["restarts"] == count)


@pytest.fixture
def two(workspace: Workspace) -> tuple[Release, Release]:
    return make_release(workspace, "a"), make_release(workspace, "b")


@pytest.fixture
def served(workspace: Workspace, two: tuple[Release, Release], serve: Callable[..., Served]) -> Served:
    point(workspace, "asis", two[0])
    started = serve(workspace, "servers.threads=2")
    assert started.state() | {"port": 0, "pid": 0} == {
        "slot": "asis", "host": "127.0.0.1", "port": 0, "pid": 0, "state": "live", "release": two[0].id, "problem": None
    }  # fmt: skip
    return started


def test_swaps_under_load_fail_nothing(workspace: Workspace, two: tuple[Release, Release], served: Served) -> None:
    answers: list[tuple[int, str, str]] = []
    with load(served, answers):
        for count in range(1, 5):
            release = two[count % 2]
            if count > 2:
                assert prepare(workspace, "asis", release.id)
            point(workspace, "asis", release)
            assert follow(workspace, "asis")
            assert served.stats()["release"] == release.id
            grown(answers, "answers of the new release")
    labels = {two[0].id: "a-red", two[1].id: "b-red"}
    assert {status for status, _, _ in answers} == {200}, [one for one in answers if one[0] != 200][:3]
    assert all(label == labels[release] for _, release, label in answers)
    assert {release for _, release, _ in answers} == set(labels)
    assert served.stats()["swaps"] == 4
    assert "understudy_swaps_total" in served.http.get("/metrics").text


def test_the_worker_that_is_replaced_answers_what_it_was_asked(
    workspace: Workspace, two: tuple[Release, Release], served: Served
) -> None:
    old = served.stats()["worker_pid"]
    freeze(old)
    answers: list[tuple[int, str]] = []

    def ask() -> None:
        answer = httpx.post(f"http://127.0.0.1:{served.port}/predict", content=image(), timeout=PATIENCE_S)
        answers.append((answer.status_code, answer.json()["release"]))

    askers = [threading.Thread(target=ask) for _ in range(3)]
    try:
        for asker in askers:
            asker.start()
        until(lambda: served.stats()["waiting"] == 3, "requests that the old worker has")
        point(workspace, "asis", two[1])
        assert follow(workspace, "asis")
        assert served.predict(image()).json()["release"] == two[1].id
        assert not answers
    finally:
        os.kill(old, signal.SIGCONT)
    for asker in askers:
        asker.join()
    assert answers == [(200, two[0].id)] * 3
    assert served.stats()["worker_pid"] != old


def test_the_pointer_is_followed_without_being_told(
    workspace: Workspace, two: tuple[Release, Release], served: Served
) -> None:
    point(workspace, "asis", two[1])
    assert served.state()["release"] == two[1].id
    assert served.http.get("/model").json()["release"] == two[1].id
    pointer_path(workspace, "asis").unlink()
    assert served.state()["state"] == "empty"
    assert served.http.get("/model").status_code == 404
    point(workspace, "asis", two[0])
    assert served.state()["release"] == two[0].id


def test_a_bad_release_keeps_the_old_one(
    workspace: Workspace, two: tuple[Release, Release], served: Served
) -> None:
    broken = make_release(workspace, "c", net=b"no net at all")
    wrong = make_release(workspace, "d", classes=["one", "two"])
    not_finite = make_release(workspace, "e", net=colour_net(float("nan")))
    damage(workspace, two[1])
    for release, said in (
        (broken, "does not load"),
        (wrong, "2 classes"),
        (not_finite, "finite"),
        (two[1], "damaged"),
    ):
        with pytest.raises(Failed, match=said):
            prepare(workspace, "asis", release.id)
        point(workspace, "asis", release)
        with pytest.raises(Failed, match=said):
            follow(workspace, "asis")
        assert said in served.stats()["problem"]
        assert served.predict(image()).json()["release"] == two[0].id
    told = workspace.state / "alerts.json"
    until(lambda: "asis" in (read_json(told) or {}), "whoever reads messages is told")
    missing = make_release(workspace, "f")
    release_path(workspace, missing.id).unlink()
    with pytest.raises(Failed, match="missing"):
        prepare(workspace, "asis", missing.id)
    pointer_path(workspace, "asis").write_text("{")
    with pytest.raises(Failed, match="damaged"):
        follow(workspace, "asis")
    assert served.predict(image()).json()["release"] == two[0].id
    point(workspace, "asis", two[0])
    assert follow(workspace, "asis")
    stats = served.stats()
    assert (stats["problem"], stats["swaps"], stats["release"]) == (None, 0, two[0].id)
    until(lambda: "asis" not in read_json(told), "and told of the end")
    point(workspace, "asis", broken)
    until(lambda: served.stats()["problem"], "in trouble again")
    good = make_release(workspace, "g")
    point(workspace, "asis", good)
    while (state := served.state())["release"] != good.id:
        pass
    assert state["problem"] is None, "what serves now has no problem of another"


def test_a_worker_that_dies_is_replaced_without_an_error(
    workspace: Workspace, two: tuple[Release, Release], served: Served
) -> None:
    answers: list[tuple[int, str, str]] = []
    with load(served, answers):
        for count in (1, 2):
            before = served.stats()["worker_pid"]
            os.kill(before, signal.SIGKILL)
            until(partial(restarted, served, count), "another worker")
            assert served.stats()["worker_pid"] != before
            grown(answers, "answers of the other worker")
    assert {status for status, _, _ in answers} == {200}, [one for one in answers if one[0] != 200][:3]
    until(lambda: any(event["kind"] == "alert" for event in read_events(workspace)), "an alert")


def test_what_was_prepared_and_died_is_loaded_again(
    workspace: Workspace, two: tuple[Release, Release], served: Served
) -> None:
    assert prepare(workspace, "asis", two[1].id)
    others = [process for process in served.family()[1:] if process.pid != served.stats()["worker_pid"]]
    for process in others:
        process.kill()
    until(lambda: gone(others), "the prepared worker's end")
    point(workspace, "asis", two[1])
    assert follow(workspace, "asis")
    assert served.predict(image()).json()["label"] == "b-red"


def test_without_a_server_the_channel_says_so(workspace: Workspace, two: tuple[Release, Release]) -> None:
    assert not prepare(workspace, "asis", two[0].id)
    assert not follow(workspace, "asis")
