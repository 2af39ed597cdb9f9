"""Shadow traffic against the real servers of both slots: what is mirrored, counted and kept, and what it never does."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from engine.compare.labels import Labels
from engine.compare.shadow import Counts, image_path, read_counts, read_items
from engine.config.schema import Shadow as Settings
from engine.release.control import NOT_LIVE, slot_stats
from engine.serving.link import Answer
from engine.serving.shadow import Shadow
from engine.store.workspace import Workspace
from tests.compare.conftest import Slot
from tests.conftest import PATIENCE_S
from tests.serving.conftest import Served, until
from tests.serving.releases import colour_net, image, make_release, point

CLASSES = ["red", "green", "blue", "neither"]
STRONG, PALE = (230, 40, 40), (130, 110, 110)


@pytest.fixture
def start(workspace: Workspace) -> Iterator[Callable[..., Served]]:
    """Both slots with the given shadow settings: AS-IS calls pale colours "neither", TO-BE knows them."""
    running: list[Served] = []

    def begin(*settings: str, both: bool = True) -> Served:
        point(workspace, "asis", make_release(workspace, net=colour_net(1.0), classes=CLASSES))
        if both:
            point(workspace, "tobe", make_release(workspace, net=colour_net(0.0), classes=CLASSES))
        patient = ("shadow.share=1", "shadow.waiting=1000", f"shadow.timeout_s={PATIENCE_S}")
        running.append(Served(workspace, *patient, *settings, slot="all"))

        def live() -> bool:
            wanted = ("asis", "tobe") if both else ("asis",)
            return all((slot_stats(workspace, slot) or {}).get("state") == "live" for slot in wanted)

        until(live, "the slots live")
        return running[-1]

    yield begin
    for served in running:
        served.close()


def releases(workspace: Workspace) -> tuple[str, str]:
    asis, tobe = (slot_stats(workspace, slot) or {} for slot in ("asis", "tobe"))
    return str(asis["release"]), str(tobe["release"])


def shades(base: tuple[int, int, int], count: int) -> list[bytes]:
    """So many images of different bytes."""
    return [image((base[0], base[1] + number % 8, base[2] + number // 8), form="PNG") for number in range(count)]


def test_what_differs_is_counted_kept_and_given_to_label(
    workspace: Workspace, start: Callable[..., Served]
) -> None:
    served = start("shadow.keep=true")
    asis, tobe = releases(workspace)
    strong, pale = shades(STRONG, 12), shades(PALE, 6)
    for content in shades((60, 60, 60), 5):  # asked by `ab` or by the check after a swap: no live traffic
        assert served.predict(content, headers=NOT_LIVE).status_code == 200
    assert not slot_stats(workspace, "asis")["answers"][asis]["requests"]  # type: ignore[index]
    for content in (*strong, *pale, *pale):  # an image counts once
        assert served.predict(content).json()["release"] == asis
    multipart = served.http.post("/predict", files={"file": ("x.png", shades(PALE, 7)[6], "image/png")})
    assert multipart.status_code == 200
    until(lambda: len(read_items(workspace, asis, tobe)) == 7, "seven kept")
    shown = served.http.get("/metrics").text
    for result, count in (("agreed", 12), ("differed", 7)):
        assert f'understudy_shadow_total{{result="{result}",slot="asis"}} {count}.0' in shown
    assert served.stop() == 0
    counts = read_counts(workspace, asis, tobe)
    assert (counts.agreed, counts.differed, counts.failed, counts.kept, counts.dropped) == (12, 7, 0, 7, 0)

    labels = Labels(workspace, asis, tobe)
    assert {(item.asis.label, item.tobe.label) for item in labels.items.values()} == {("neither", "red")}
    for item in labels.items.values():
        content = image_path(workspace, asis, tobe, item.id).read_bytes()
        assert hashlib.sha256(content).hexdigest() == item.sha256


def test_from_traffic_to_a_promotion_by_labels_alone(
    workspace: Workspace, start: Callable[..., Served], tmp_path: Path
) -> None:
    """No labelled set at all: traffic, forty labels from a CSV, and the gate says what opened it."""
    served = start("shadow.keep=true")
    asis, tobe = releases(workspace)
    for content in (*shades(STRONG, 100), *shades(PALE, 40)):
        served.predict(content)
    until(lambda: read_counts(workspace, asis, tobe).mirrored == 140, "the traffic mirrored")
    config = workspace.root.parent / f"all-{served.port}.toml"
    command = [sys.executable, "-m", "engine", "--config", str(config), "--workspace", str(workspace.root)]

    def engine(*words: str) -> dict[str, Any]:
        done = subprocess.run([*command, *words, "--json"], capture_output=True, text=True, check=False)
        assert done.returncode in (0, 3), done.stderr
        return dict(json.loads(done.stdout))

    closed = engine("promote")
    assert not closed["promoted"]
    waiting = engine("label", "--limit", "999")["items"]
    rows = tmp_path / "labels.csv"
    rows.write_text("id,label\n" + "".join(f"{item['id']},red\n" for item in waiting))
    assert engine("label", "--import", str(rows))["live"]["tobe_only"] == len(waiting)
    promoted = engine("promote")
    assert (promoted["promoted"], promoted["forced"]) == (True, False)
    assert f"{len(waiting)} labelled of" in promoted["reason"]
    assert served.predict(shades(PALE, 1)[0]).json()["label"] == "red"


def test_counts_go_on_after_a_restart_and_nothing_is_kept_unless_asked(
    workspace: Workspace, start: Callable[..., Served]
) -> None:
    served = start()
    asis, tobe = releases(workspace)
    for content in shades(PALE, 3):
        served.predict(content)
    until(lambda: (slot_stats(workspace, "tobe") or {})["requests"] == 3, "three mirrored")
    assert served.stop() == 0
    served = start()
    for content in shades(STRONG, 2):
        served.predict(content)
    until(lambda: (slot_stats(workspace, "tobe") or {})["requests"] == 2, "two more mirrored")
    assert served.stop() == 0
    counts = read_counts(workspace, asis, tobe)
    assert (counts.agreed, counts.differed) == (2, 3)
    assert not list((workspace.root / "shadow").glob("*/items"))


def test_an_empty_tobe_costs_nothing_and_no_answer(workspace: Workspace, start: Callable[..., Served]) -> None:
    served = start(both=False)
    assert [served.predict(content).status_code for content in shades(STRONG, 5)] == [200] * 5
    served.stop()
    assert not (workspace.root / "shadow").exists()


def test_a_tobe_that_dies_or_holds_the_same_release_fails_no_request(
    workspace: Workspace, start: Callable[..., Served]
) -> None:
    served = start()
    asis, tobe = releases(workspace)
    stats = slot_stats(workspace, "tobe") or {}
    contents = shades(PALE, 60)

    def ask(content: bytes) -> int:
        return httpx.post(
            f"http://127.0.0.1:{served.port}/predict", content=content, timeout=PATIENCE_S
        ).status_code

    with ThreadPoolExecutor(4) as pool:
        first = list(pool.map(ask, contents[:20]))
        (worker,) = [p for p in served.family() if p.pid == stats["worker_pid"]]
        worker.kill()
        second = list(pool.map(ask, contents[20:40]))
        point(workspace, "tobe", make_release(workspace, net=colour_net(1.0), classes=CLASSES))
        third = list(pool.map(ask, contents[40:]))
    assert {*first, *second, *third} == {200}
    served.stop()
    counts = read_counts(workspace, asis, tobe)
    assert 0 < counts.mirrored <= 60


# the thread itself, against a server of the test's own -------------------------------------------------


def answered(release: str, label: str = "cat") -> Answer:
    body = f'{{"label":"{label}","index":0,"confidence":0.5,"top_k":[],"release":"{release}"'
    return Answer(200, 1, 0, 0, 0.5, body.encode(), release)


def counted(workspace: Workspace, slots: tuple[Slot, Slot]) -> Counts:
    return read_counts(workspace, slots[0].served, slots[1].served)


@pytest.fixture
def shadow(workspace: Workspace) -> Iterator[Callable[..., Shadow]]:
    running: list[Shadow] = []

    def begin(**settings: Any) -> Shadow:
        running.append(Shadow(workspace, Settings(share=1.0, **settings), "127.0.0.1"))
        assert running[-1].start()
        return running[-1]

    yield begin
    for one in running:
        one.close()


def test_a_slow_tobe_is_passed_over_and_never_waited_for(
    workspace: Workspace, slots: tuple[Slot, Slot], shadow: Callable[..., Shadow]
) -> None:
    offered = threading.Event()
    slots[1].answer = lambda content: (offered.wait(PATIENCE_S), (200, "cat"))[1]
    running = shadow(waiting=4, timeout_s=PATIENCE_S)
    for number in range(500):  # had one been waited for, nobody would end the waiting
        running.offer(b"%d" % number, answered(slots[0].served))
    offered.set()
    until(lambda: slots[1].bodies, "something mirrored")
    running.close()
    counts = counted(workspace, slots)
    assert counts.passed_over >= 494
    assert 1 <= counts.agreed <= 6


def test_time_outs_and_refusals_are_failures_and_no_evidence(
    workspace: Workspace, slots: tuple[Slot, Slot], shadow: Callable[..., Shadow]
) -> None:
    over = threading.Event()
    slots[1].answer = lambda content: (over.wait(PATIENCE_S), (200, "dog"))[1] if content == b"slow" else (422, "")
    running = shadow(timeout_s=0.2)
    for content in (b"slow", b"refused"):
        running.offer(content, answered(slots[0].served))
    until(lambda: len(slots[1].bodies) == 2, "both asked")
    running.close()
    over.set()
    counts = counted(workspace, slots)
    assert (counts.failed, counts.mirrored) == (2, 0)


def test_only_the_workspaces_own_tobe_gets_what_clients_sent(
    workspace: Workspace, slots: tuple[Slot, Slot], shadow: Callable[..., Shadow]
) -> None:
    slots[1].state = "loading"
    running = shadow()
    running.offer(b"private", answered(slots[0].served))
    running.close()
    assert slots[1].bodies == []


def test_a_share_of_zero_starts_nothing(workspace: Workspace) -> None:
    idle = Shadow(workspace, Settings(), "127.0.0.1")
    assert not idle.start()
    idle.offer(b"x", answered("a" * 64))
    idle.close()


def test_the_share_is_the_share(workspace: Workspace, slots: tuple[Slot, Slot]) -> None:
    some = Shadow(workspace, Settings(share=0.2, waiting=10_000), "127.0.0.1")
    for _ in range(5000):
        some.offer(b"x", answered(slots[0].served))
    assert some._queue.qsize() / 5000 == pytest.approx(0.2, abs=0.03)
