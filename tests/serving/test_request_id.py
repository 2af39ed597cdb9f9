"""A request's id: in its answer, in the access log, in the JSON logs."""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Callable

from engine.serving.requests import request_id
from engine.store.logfile import log_path
from engine.store.workspace import Workspace
from tests.serving.conftest import PATIENCE_S, Served
from tests.serving.releases import image, make_release, point

GIVEN = "trace-1/a=b:c.d~e+f@g"


def test_an_id_of_the_client_is_kept_where_no_log_or_header_breaks_by_it() -> None:
    assert request_id([(b"accept", b"*/*"), (b"x-request-id", GIVEN.encode())]) == GIVEN.encode()
    for bad in (b"", b"a b", b"a" * 129, b'a"b', b"a\xff", b"a\nb"):
        made = request_id([(b"x-request-id", bad)])
        assert re.fullmatch(rb"[0-9a-f]{12}-[0-9a-f]+", made), bad
    assert request_id([]) != request_id([])


def test_each_answer_names_its_request_and_so_do_the_logs(
    workspace: Workspace, serve: Callable[..., Served]
) -> None:
    release = make_release(workspace)
    point(workspace, "asis", release)
    served = serve(workspace, "servers.access_log=true", "logging.format=json")
    assert served.state()["state"] == "live"
    given = {"x-request-id": GIVEN}
    answers = [
        served.predict(image(), headers=given),
        served.predict(b"no image", headers={"x-request-id": "two"}),
        served.predict(image(), headers={"x-request-id": "not well formed"}),
        served.http.get("/model", headers=given),
        served.http.get("/nothing", headers={"x-request-id": "four"}),
        served.http.get("/predict"),
    ]
    ids = [answer.headers.get_list("x-request-id") for answer in answers]
    assert [len(one) for one in ids] == [1] * len(ids)
    found = [one for (one,) in ids]
    assert [found[0], found[1], found[3], found[4]] == [GIVEN, "two", GIVEN, "four"]
    assert len({found[2], found[5]}) == 2
    assert "not" not in found[2]
    with socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE_S) as stream:
        stream.sendall(b"no HTTP at all\r\n\r\n")
        (unread,) = re.findall(rb"\r\nx-request-id: ([^\r]+)", stream.recv(65536))
    assert served.stop() == 0

    assert served.process.stderr is not None
    records = [json.loads(line) for line in served.process.stderr.read().splitlines()]
    asked = [one for one in records if one["logger"] == "uvicorn.access"]
    assert [(one["request_id"], one["status"]) for one in asked] == [
        *((name, answer.status_code) for name, answer in zip(found, answers, strict=True)),
        (unread.decode(), 400),
    ]
    assert [one["method"] for one in asked] == ["POST"] * 3 + ["GET"] * 3 + ["-"]
    assert asked[0]["release"] == release.id
    assert {one["kind"] for one in records if one["logger"] == "understudy.events"} == {"started", "stopped"}

    lines = [line for line in log_path(workspace, "asis").read_text().splitlines() if "HTTP/1.1" in line]
    assert [line.rsplit(" ", 1)[1] for line in lines] == [*found, unread.decode()], (
        "the file is for people, and has the ids too"
    )
