"""What keeps one client from harming the others: time, size and number."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import threading
from collections.abc import Callable, Iterator

import httpx
import pytest

from engine.store.workspace import Workspace
from tests.serving.conftest import PATIENCE_S, Served, freeze, until
from tests.serving.releases import image, make_release, point


@pytest.fixture(scope="module")
def hasty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A slot that waits a second for a request."""
    workspace = Workspace(tmp_path_factory.mktemp("hasty") / "workspace")
    point(workspace, "asis", make_release(workspace))
    served = Served(workspace, "servers.receive_timeout_s=1")
    try:
        assert served.state()["state"] == "live"
        yield served
    finally:
        served.close()


def raw(served: Served) -> socket.socket:
    return socket.create_connection(("127.0.0.1", served.port), timeout=PATIENCE_S)


def answer_of(stream: socket.socket) -> tuple[int, dict[str, object]]:
    """Status and JSON of what the server says before it closes."""
    text = b""
    while part := stream.recv(65536):
        text += part
    head, _, body = text.partition(b"\r\n\r\n")
    assert b"connection: close" in head.lower()
    assert head.lower().count(b"\r\nx-request-id: ") == 1
    return int(head.split()[1]), json.loads(body)


def kind_of(found: dict[str, object]) -> object:
    error = found["error"]
    assert isinstance(error, dict)
    return error["kind"]


@pytest.mark.parametrize(
    ("start", "status"),
    [
        (b"POST /predict HTTP/1.1\r\nHost: a\r\nX-Slow: ", 408),
        (b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n12345", 408),
        (b"POST /predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n", 408),
        (b"GET /model HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nConnection: close\r\n", 408),
        (b"no HTTP at all\r\n\r\n", 400),
        (b"GET /model HTTP/1.1\r\nX-Long: " + b"a" * 100_000, 431),
    ],
)
def test_slow_or_odd_senders_are_told_and_closed(hasty: Served, start: bytes, status: int) -> None:
    with raw(hasty) as stream:
        stream.sendall(start)
        found, body = answer_of(stream)
        assert found == status
        assert kind_of(body) in ("too_slow", "bad_http", "headers_too_large")
    url = f"http://127.0.0.1:{hasty.port}/predict"
    assert httpx.post(url, content=image(), timeout=PATIENCE_S).status_code == 200


@pytest.mark.parametrize(
    ("rest", "name"),
    [
        (b"GET /model HTTP/1.1\r\nX-Request-Id: second\r\nX-Slow: ", b"second"),
        (
            b"POST /v2/models/understudy/infer HTTP/1.1\r\nX-Request-Id: second\r\nContent-Length: 9\r\n\r\n1",
            b"second",
        ),
        (b"GET /mod", None),
        (b"\r\n", None),
    ],
)
def test_a_refusal_has_the_id_of_its_own_request(hasty: Served, rest: bytes, name: bytes | None) -> None:
    with raw(hasty) as stream:
        stream.sendall(b"GET /health/live HTTP/1.1\r\nHost: a\r\nX-Request-Id: first\r\n\r\n")
        text = stream.recv(65536)
        while not text.endswith(b"}"):
            text += stream.recv(65536)
        assert b"x-request-id: first" in text.lower()
        stream.sendall(rest)
        text = b""
        while part := stream.recv(65536):
            text += part
    head, _, body = text.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 408")
    (found,) = re.findall(rb"(?i)\r\nx-request-id: ([^\r]+)", head)
    assert found == name if name else found != b"first"
    assert isinstance(json.loads(body)["error"], str) is (b"/v2/" in rest), "under /v2 an error is a string"


def test_a_connection_that_says_nothing_is_closed(hasty: Served) -> None:
    with raw(hasty) as stream:
        assert stream.recv(100) == b""


@pytest.mark.fault(44)
def test_a_trickle_does_not_keep_a_connection(hasty: Served) -> None:
    with raw(hasty) as stream:
        stream.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
        ended = threading.Event()

        def trickle() -> None:
            while not ended.wait(0.05):
                try:
                    stream.send(b"x")
                except OSError:
                    return

        sender = threading.Thread(target=trickle)
        sender.start()
        try:
            assert stream.recv(100).startswith(b"HTTP/1.1 408")
        finally:
            ended.set()
            sender.join()


@pytest.mark.fault(44)
def test_too_large_is_refused_before_the_body(live: Served) -> None:
    with raw(live) as stream:
        stream.sendall(
            b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 300001\r\nExpect: 100-continue\r\n\r\n"
        )
        status, body = answer_of(stream)
        assert (status, kind_of(body)) == (413, "too_large")


@pytest.mark.parametrize("headers", [{}, {"connection": "close"}])
def test_too_large_reaches_a_client_that_goes_on_sending(live: Served, headers: dict[str, str]) -> None:
    for size in (300_001, 3_000_000):
        assert live.predict(bytes(size), headers=headers).status_code == 413
        assert live.predict(image(), headers=headers).status_code == 200


@pytest.mark.fault(44)
def test_too_large_in_chunks(live: Served) -> None:
    def chunks() -> Iterator[bytes]:
        for _ in range(40):
            yield bytes(10_000)

    answer = live.http.post("/predict", content=chunks())
    assert answer.status_code == 413
    assert live.http.post("/predict", content=iter([image()[:100], image()[100:]])).status_code == 200


def test_two_requests_in_one_packet(live: Served) -> None:
    one = image()
    request = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(one) + one
    with raw(live) as stream:
        stream.sendall(request + request.replace(b"Host: a", b"Host: a\r\nConnection: close"))
        text = b""
        while part := stream.recv(65536):
            text += part
    assert text.count(b"HTTP/1.1 200 OK") == 2


def test_an_offer_to_upgrade_is_ignored(live: Served) -> None:
    offer = {
        "connection": "Upgrade, HTTP2-Settings",
        "upgrade": "h2c",
        "http2-settings": "AAEAAEAAAAIAAAABAAMAAABk",
    }
    answer = live.predict(image(), headers=offer)
    assert (answer.status_code, answer.json()["label"]) == (200, "a-red")
    with raw(live) as stream:
        stream.sendall(b"POST /predict HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUp")
        stream.sendall(b"grade: h2c\r\nContent-Length: 9\r\n\r\n123456789")
        assert stream.recv(4096).startswith(b"HTTP/1.1 4")


@pytest.mark.parametrize(
    "request_line", [b"GET /model\xff HTTP/1.1", b"GET http://a:b/model HTTP/1.1", b"OPTIONS * HTTP/1.1"]
)
def test_odd_requests_are_4xx(live: Served, request_line: bytes) -> None:
    with raw(live) as stream:
        stream.sendall(request_line + b"\r\nHost: [\r\n\r\n")
        assert stream.recv(4096).startswith(b"HTTP/1.1 4")


@pytest.mark.fault(45)
def test_a_full_queue_says_so_before_the_body(workspace: Workspace, serve: Callable[..., Served]) -> None:
    point(workspace, "asis", make_release(workspace))
    served = serve(workspace, "servers.queue=2")
    assert served.state()["state"] == "live"
    worker = served.stats()["worker_pid"]
    freeze(worker)
    try:
        answers: list[int] = []

        def ask() -> None:
            with httpx.Client(timeout=PATIENCE_S) as client:
                url = f"http://127.0.0.1:{served.port}/predict"
                answers.append(client.post(url, content=image()).status_code)

        askers = [threading.Thread(target=ask) for _ in range(2)]
        for asker in askers:
            asker.start()
        until(lambda: served.stats()["waiting"] == 2, "two requests wait")
        with raw(served) as stream:
            stream.sendall(
                b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\nConnection: close\r\n\r\n"
            )
            head = stream.recv(4096).lower()
            assert head.startswith(b"http/1.1 503")
            assert b"retry-after: 1" in head
        assert served.http.get("/health/ready").status_code == 200
    finally:
        os.kill(worker, signal.SIGCONT)
    for asker in askers:
        asker.join()
    assert answers == [200, 200]
    assert served.predict(image()).status_code == 200


@pytest.mark.fault(44)
def test_hostile_images_are_4xx_memory_comes_back_and_others_are_answered(
    workspace: Workspace, serve: Callable[..., Served]
) -> None:
    point(workspace, "asis", make_release(workspace))
    served = serve(workspace, "servers.threads=2")
    assert served.state()["state"] == "live"
    bomb = image(size=(7400, 7400), form="PNG")  # 54.8 megapixels in some hundred kilobytes
    large = image(size=(6900, 6900), form="PNG")  # within the limit: 190 MB once decoded
    for content, status in ((b"GIF89a but not one", 415), (image()[:400], 422), (bomb, 413), (large, 200)):
        assert served.predict(content).status_code == status
    statuses: list[int] = []

    def ask(content: bytes) -> None:
        url = f"http://127.0.0.1:{served.port}/predict"
        statuses.append(httpx.post(url, content=content, timeout=PATIENCE_S).status_code)

    clients = [threading.Thread(target=ask, args=(content,)) for content in (large, large, image(), image())]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    assert statuses == [200] * 4
    until(lambda: sum(one.memory_info().rss for one in served.family()) < 350 * 2**20, "memory that comes back")


@pytest.mark.fault(45)
def test_ten_times_the_load_is_refused_at_once_and_the_accepted_are_answered(
    workspace: Workspace, serve: Callable[..., Served]
) -> None:
    point(workspace, "asis", make_release(workspace))
    served = serve(workspace, "servers.queue=4")
    assert served.state()["state"] == "live"
    statuses: list[int] = []
    content, worker = image(size=(900, 700)), served.stats()["worker_pid"]
    freeze(worker)  # until more ask than the queue holds, however slow they are

    def ask() -> None:
        with httpx.Client(timeout=PATIENCE_S) as client:
            for _ in range(10):
                answer = client.post(f"http://127.0.0.1:{served.port}/predict", content=content)
                statuses.append(answer.status_code)
                assert answer.status_code == 200 or answer.headers["retry-after"] == "1"

    askers = [threading.Thread(target=ask) for _ in range(40)]
    try:
        for asker in askers:
            asker.start()
        until(lambda: 503 in statuses, "a refusal")
    finally:
        os.kill(worker, signal.SIGCONT)
    for asker in askers:
        asker.join()
    assert len(statuses) == 400
    assert set(statuses) == {200, 503}
    assert statuses.count(200) >= 4
    assert served.stats()["errors"] == statuses.count(503)
    assert served.predict(image()).status_code == 200
