"""`engine watch` as a child process: what it says, when it says it, and how it ends."""

from __future__ import annotations

import http.server
import json
import os
import queue
import signal
import socketserver
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.protocol import KINDS, Events, Health, Message, Progress, Runs, Slots, parse
from engine.release.control import socket_path
from engine.release.slots import write_pointer
from engine.store.events import append_event
from engine.store.files import write_json
from engine.store.workspace import Workspace
from engine.training.runs import process_identity
from tests.conftest import PATIENCE_S, PROJECT, free_port
from tests.release.bundles import make_release


class Watching:
    """A running `engine watch`, its lines parsed as they come."""

    def __init__(self, workspace: Workspace, config: Path, *words: str) -> None:
        command = [sys.executable, "-m", "engine", "--config", str(config), "--workspace", str(workspace.root)]
        self.child = subprocess.Popen(
            [*command, "watch", "--interval", "0.2", *words],
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.seen: list[Message] = []
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        assert self.child.stdout is not None
        self._stdout = self.child.stdout
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self._stdout:
            self._lines.put(line)
        self._lines.put("")

    def until(self, wanted: Callable[[Message], Any]) -> Message:
        """The next message for which `wanted` is true."""
        deadline = time.monotonic() + PATIENCE_S
        while (left := deadline - time.monotonic()) > 0:
            try:
                line = self._lines.get(timeout=left)
            except queue.Empty:
                break
            if not line:
                break
            message = parse(line)
            self.seen.append(message)
            if wanted(message):
                return message
        pytest.fail(f"it never came; seen: {[message.kind for message in self.seen]}")

    def ever(self, wanted: Callable[[Message], Any]) -> Message:
        """The first message for which `wanted` is true, of those that came already or will come."""
        return next((message for message in self.seen if wanted(message)), None) or self.until(wanted)

    def all_kinds(self) -> None:
        usual = set(KINDS) - {"cloud"}  # which comes where something was rented, and nowhere else
        missing = usual - {message.kind for message in self.seen}
        while missing:
            missing.discard(self.until(lambda message: message.kind in missing).kind)


@pytest.fixture
def watching(workspace: Workspace, config: Path) -> Iterator[Callable[..., Watching]]:
    started: list[Watching] = []

    def start(*words: str) -> Watching:
        started.append(Watching(workspace, config, *words))
        return started[-1]

    yield start
    for one in started:
        if one.child.poll() is None:
            one.child.kill()
        one.child.wait(PATIENCE_S)


@pytest.fixture
def slot_server(workspace: Workspace) -> Iterator[dict[str, Any]]:
    """Something that answers on AS-IS's private socket as its server would; `hang` makes it silent."""
    answer: dict[str, Any] = {"state": "live", "pid": os.getpid(), "requests": 10, "errors": 0, "p50_ms": 9.4}
    path = socket_path(workspace, "asis")
    path.parent.mkdir(parents=True, exist_ok=True)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if answer.get("hang"):
                time.sleep(3)
            answer["requests"] += 5
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def address_string(self) -> str:
            return "slot"

        def log_message(self, *args: object) -> None:
            pass

    class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a client that gave up

    server = Server(str(path), Handler)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    yield answer
    server.shutdown()
    server.server_close()


def test_every_kind_comes_at_the_start_and_numbers_count_up(watching: Callable[..., Watching]) -> None:
    stream = watching()
    stream.all_kinds()
    assert [message.seq for message in stream.seen] == list(range(1, len(stream.seen) + 1))
    stream.ever(
        lambda message: message.kind == "health" and message.data.next and message.data.next.action == "train"
    )


def test_a_change_is_sent_and_nothing_is_said_twice(
    workspace: Workspace, watching: Callable[..., Watching]
) -> None:
    append_event(workspace, "started", "asis")
    stream = watching()
    stream.all_kinds()
    append_event(workspace, "alert", "source", {"reason": "gone"})
    told = stream.until(lambda message: message.kind == "events" and message.data.total == 2).data
    assert isinstance(told, Events)
    assert [event.subject for event in told.events] == ["asis", "source"]
    assert told.head == told.events[-1].hash
    shown = [message for message in stream.seen if message.kind not in ("devices", "health")]
    assert len(shown) == len({(message.kind, repr(message.data)) for message in shown})


def test_a_training_is_followed_and_one_that_dies_is_lost(
    workspace: Workspace, watching: Callable[..., Watching]
) -> None:
    sleeper = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        folder = workspace.runs / "0001"
        manifest = {
            "run": "0001",
            "status": "running",
            "epochs": 5,
            "device": "cpu",
            **process_identity(sleeper.pid),
        }
        folder.mkdir(parents=True)
        write_json(folder / "manifest.json", manifest)
        (folder / "metrics.jsonl").write_text('{"epoch": 1, "loss": 0.9, "accuracy": 0.5}\n{"epoch": 2, "lo')
        write_json(folder / "progress.json", {"epoch": 2, "step": 3, "steps": 10, "memory_bytes": 7})
        stream = watching()
        first = stream.until(lambda message: message.kind == "progress" and message.data.runs).data
        assert isinstance(first, Progress)
        assert (first.runs[0].epoch, first.runs[0].step, first.runs[0].memory_bytes) == (2, 3, 7)
        assert [(point.epoch, point.accuracy) for point in first.runs[0].points] == [(1, 0.5)]
        write_json(folder / "progress.json", {"epoch": 2, "step": 9, "steps": 10})
        stream.until(lambda message: message.kind == "progress" and message.data.runs[0].step == 9)
    finally:
        sleeper.kill()
        sleeper.wait()
    lost = stream.until(lambda message: message.kind == "runs" and message.data.runs[0].status == "lost").data
    assert isinstance(lost, Runs)
    assert "ended without a word" in (lost.runs[0].problem or "")


def test_a_slot_is_polled_and_one_that_stops_is_down(
    workspace: Workspace, watching: Callable[..., Watching], slot_server: dict[str, Any]
) -> None:
    release = make_release(workspace, "one", cycle=7)
    write_pointer(workspace, "asis", release, "test")
    slot_server["release"] = release.id
    stream = watching()
    live = stream.until(lambda message: message.kind == "slots" and message.data.asis.requests_per_s).data
    assert isinstance(live, Slots)
    assert (live.asis.state, live.asis.cycle, live.asis.release) == ("live", 7, release.id)
    assert (live.tobe.state, live.tobe.release) == ("empty", None)
    slot_server["hang"] = True
    down = stream.until(lambda message: message.kind == "slots" and message.data.asis.state == "down").data
    assert isinstance(down, Slots)
    assert down.asis.problem == "no server answers"
    assert down.asis.release == release.id  # what it should serve stands in its pointer
    told = stream.until(lambda message: message.kind == "health" and message.data.next.action == "serve")
    assert told.host
    slot_server["hang"] = False
    stream.until(lambda message: message.kind == "slots" and message.data.asis.state == "live")


def test_damaged_files_are_said_and_the_stream_goes_on(
    workspace: Workspace, watching: Callable[..., Watching]
) -> None:
    workspace.slots.mkdir(parents=True)
    (workspace.slots / "tobe.json").write_text("{")
    (workspace.root / "events.jsonl").write_text("not json\n")
    (workspace.runs / "0001").mkdir(parents=True)
    (workspace.runs / "0001" / "manifest.json").write_text("[")
    stream = watching()
    slots = stream.ever(lambda message: message.kind == "slots").data
    assert isinstance(slots, Slots)
    assert "damaged" in (slots.tobe.problem or "")
    runs = stream.ever(lambda message: message.kind == "runs" and message.data.runs).data
    assert isinstance(runs, Runs)
    assert runs.runs[0].status == "lost"

    def said(message: Message) -> bool:
        return isinstance(message.data, Health) and any(
            source.state != "live" and "damaged" in (source.detail or "") for source in message.data.sources
        )

    stream.ever(said)
    (workspace.root / "events.jsonl").unlink()
    append_event(workspace, "started", "asis")
    stream.until(lambda message: message.kind == "events" and message.data.total == 1)


def test_a_damaged_event_costs_itself_alone(workspace: Workspace, watching: Callable[..., Watching]) -> None:
    for number in range(3):
        append_event(workspace, "started", f"slot {number}")
    lines = workspace.events.read_bytes().splitlines(keepends=True)
    workspace.events.write_bytes(lines[0] + b"\x00\xff damaged {\n" + lines[2])
    stream = watching()

    def state_of(name: str) -> Callable[[Message], bool]:
        return lambda message: (
            isinstance(message.data, Health)
            and any(source.name == name and source.state != "live" for source in message.data.sources)
        )

    told = stream.ever(lambda message: message.kind == "events").data
    assert [event.subject for event in told.events] == ["slot 0", "slot 2"]
    stream.ever(
        lambda message: (
            state_of("events")(message)
            and all(source.state == "live" for source in message.data.sources if source.name != "events")
        )
    )
    append_event(workspace, "alert", "source")
    stream.until(lambda message: message.kind == "events" and message.data.total == 4)
    workspace.events.write_bytes(b"".join(lines))
    stream.until(lambda message: isinstance(message.data, Health) and not state_of("events")(message))


@pytest.mark.parametrize("content", ["[]", '"text"', '{"release": 7}', "{", "\x00\x01"])
def test_files_of_a_shape_nobody_foresaw_end_no_look(
    workspace: Workspace, watching: Callable[..., Watching], content: str
) -> None:
    """Each file that the stream reads holds something else; it goes on, and takes what is mended."""
    places = ["slots/asis.json", "slots/journal.json", "state/last_sync.json", "state/last_ab.json", "state/hold.json",
              "state/ab_progress.json", "state/backups.json", "state/rejected.json", "state/refused.json",
              "state/checkpoints.json", "comparisons/1.json", "runs/0001/manifest.json", "runs/0001/progress.json",
              "runs/0001/metrics.jsonl", "events.jsonl"]  # fmt: skip
    for place in places:
        (workspace.root / place).parent.mkdir(parents=True, exist_ok=True)
        (workspace.root / place).write_text(content)
    stream = watching()
    stream.until(lambda message: message.kind == "health")
    for place in places:
        (workspace.root / place).unlink()
    append_event(workspace, "started", "asis")
    stream.until(lambda message: message.kind == "events" and message.data.total == 1)
    stream.until(
        lambda message: (
            isinstance(message.data, Health) and all(source.state == "live" for source in message.data.sources)
        )
    )
    stream.all_kinds()


@pytest.mark.fault(49)
def test_a_source_that_hangs_is_said_within_seconds_and_the_stream_beats_on(workspace: Workspace) -> None:
    from engine.config import load_settings
    from engine.watch.stream import Stream, _Watch

    said: list[Message] = []
    settings = load_settings(None, None, [f"workspace={workspace.root}"]).settings
    hung = threading.Event()
    watch = _Watch(workspace, settings, {}, 0.2, Stream(lambda line: said.append(parse(line))))
    for worker in watch._workers:
        if worker.name in ("slots", "files", "devices"):
            worker._look = lambda look=worker._look: hung.wait(60) and look()  # type: ignore[misc]
    deadline = time.monotonic() + PATIENCE_S

    def over() -> bool:
        told = [message.data for message in said if isinstance(message.data, Health)]
        states = {source.name: source.state for source in told[-1].sources} if told else {}
        if all(states.get(name) == "stale" for name in ("slots", "files", "devices")):
            hung.set()
        done = hung.is_set() and all(state == "live" for state in states.values())
        return done or time.monotonic() > deadline

    watch.run(over)
    assert hung.is_set()
    assert time.monotonic() < deadline
    last = said[-1].data
    assert isinstance(last, Health)
    assert last.beat_s == 2.0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT, "reader gone"])
def test_it_ends_cleanly(watching: Callable[..., Watching], how: signal.Signals | str) -> None:
    stream = watching()
    stream.all_kinds()
    if isinstance(how, signal.Signals):
        stream.child.send_signal(how)
    else:
        replacement = os.open(os.devnull, os.O_RDONLY)
        os.dup2(replacement, stream._stdout.fileno())
        os.close(replacement)
    assert stream.child.wait(PATIENCE_S) == 0
    assert stream.child.stderr is not None
    assert stream.child.stderr.read() == ""


def test_a_host_out_of_reach_is_offline_and_the_rest_goes_on(watching: Callable[..., Watching]) -> None:
    stream = watching("hosts.box.address=127.0.0.1", f"hosts.box.port={free_port()}")
    gone = stream.until(lambda message: message.host == "box")
    assert gone.kind == "devices"
    assert gone.data.state == "offline"
    stream.all_kinds()


def test_wrong_words(workspace: Workspace, config: Path) -> None:
    command = [sys.executable, "-m", "engine", "--config", str(config), "watch", "--host", "nobody"]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 2
    assert "unknown host 'nobody'" in done.stderr
