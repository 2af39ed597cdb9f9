"""What a slot keeps of each release's answers, for the bake after a promotion."""

from __future__ import annotations

from collections.abc import Callable

from engine.release.control import follow, prepare
from engine.serving.answers import Answers
from engine.store.workspace import Workspace
from tests.conftest import until
from tests.serving.conftest import Served
from tests.serving.releases import colour_net, image, make_release, point


def test_counts_of_the_live_release_and_of_the_one_before() -> None:
    answers = Answers()
    answers.goes_live("a", "t0")
    for status, top, confidence in (
        (200, 1, 0.999),
        (200, 1, 1.0),
        (422, -1, 0.0),
        (500, -1, 0.0),
        (200, 0, 0.05),
    ):
        answers.count("a", status, 0.010, top, confidence)
    answers.goes_live("b", "t1")
    answers.count("a", 200, 0.030, 2, 0.5)  # asked before the swap, answered after it
    answers.goes_live("b", "t2")  # its worker was replaced
    found = answers.to_dict()
    assert (found["a"]["requests"], found["a"]["errors"], found["a"]["since"]) == (6, 1, "t0")
    assert found["a"]["classes"] == {"0": 1, "1": 2, "2": 1}
    assert {i: n for i, n in enumerate(found["a"]["confidence"]) if n} == {1: 1, 10: 1, 19: 2}
    assert found["a"]["latency_ms"] == {"p50": 10.0, "p99": 30.0}
    assert found["b"] == {
        "requests": 0, "errors": 0, "latency_ms": {"p50": None, "p99": None},
        "confidence": [0] * 20, "classes": {}, "since": "t1",
    }  # fmt: skip
    answers.goes_live("a", "t3")
    assert answers.to_dict()["a"]["requests"] == 0, "it went live anew"
    answers.goes_live("c", "t4")
    assert set(answers.to_dict()) == {"a", "c"}


def test_a_server_counts_by_release_and_a_rollback_takes_the_warm_worker(
    workspace: Workspace, serve: Callable[..., Served]
) -> None:
    old, new = make_release(workspace, "a"), make_release(workspace, "b", net=colour_net(0.5))
    point(workspace, "asis", old)
    served = serve(workspace)
    served.state()
    worker = served.stats()["worker_pid"]
    assert served.predict(image()).json()["release"] == old.id
    assert served.predict(b"no image").status_code == 415
    prepare(workspace, "asis", new.id)
    point(workspace, "asis", new)
    follow(workspace, "asis")
    assert served.predict(image((0, 0, 255))).json()["label"] == "b-blue"
    found = served.stats()["answers"]
    assert (found[old.id]["requests"], found[old.id]["errors"], found[old.id]["classes"]) == (2, 0, {"0": 1})
    assert (found[new.id]["requests"], found[new.id]["classes"], sum(found[new.id]["confidence"])) == (
        1,
        {"2": 1},
        1,
    )
    point(workspace, "asis", old)
    follow(workspace, "asis")
    assert served.stats()["worker_pid"] == worker, "the former worker was kept warm"
    assert served.predict(image()).json()["release"] == old.id
    until(lambda: len(served.family()) <= 3, "a front, a worker, a spare one")
