"""One's own GPU server over a real sshd: one training whatever dies, an end that is checked, a timer that holds."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks._rented import Rented, missing
from engine.cloud.provider import Job, Machine, StillRunning
from engine.cloud.ssh import split_words
from engine.cloud.ssh_line import program
from engine.errors import Busy, Failed, UsageError
from tests.cloud.own_server import OwnServer, settled
from tests.conftest import PATIENCE_S, until

pytestmark = [
    pytest.mark.skipif(missing() is not None, reason=str(missing())),
]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OwnServer]:
    with Rented(tmp_path / "host") as host:
        yield OwnServer(host, tmp_path / "code")
        assert not host.training()


def begun(server: OwnServer, machine: Machine) -> int:
    """How far the count is."""
    folder = server.host.home / "understudy" / "workspace" / "runs" / str(machine.facts["run"])
    return int((folder / "last.json").read_text()) if (folder / "last.json").exists() else 0


def test_one_training_whatever_dies(server: OwnServer) -> None:
    """Launched twice; its process, every connection, the keeper and the whole host are killed: it counts to its end
    once, nothing is left over, and who follows its log reads every line once."""
    provider, host = server.provider, server.host
    server.hold()
    job = server.job("training.epochs=3", "trackers.to=80")
    machine = provider.launch(job)
    assert provider.launch(job) == machine
    assert len(host.training()) == 1

    heard: list[str] = []
    listener = threading.Thread(target=lambda: heard.extend(provider.logs(machine, follow=True)))
    listener.start()
    until(lambda: begun(server, machine) > 3)
    host.training()[0].kill()
    until(lambda: heard)
    host.cut()  # while somebody listens
    count = begun(server, machine)
    until(lambda: begun(server, machine) > count)  # resumed
    next(p for p in host.processes() if "keep" in p.cmdline()).kill()
    until(lambda: not host.training())  # ended by the kernel's word, or by the warden
    listener.join(PATIENCE_S)

    host.power_off()
    assert host.processes() == []
    assert provider.status(machine).state == "unknown"
    host.power_on()
    assert provider.status(machine).state == "preempted"
    boot = [sys.executable, "-I", f"{machine.root}/bin/{program()[0]}", "boot", machine.root]
    assert provider.run(machine, boot).code == 0  # as the line of `cloud.ssh.boot` does, before any guard
    assert settled(provider.status(machine)) == ("running", "running")
    server.let_end()
    lines = list(provider.logs(machine, follow=True))
    assert settled(provider.status(provider.launch(job))) == ("stopped", "done")  # nothing is begun anew

    assert heard == lines[: len(heard)]
    starts = [line for line in lines if line.startswith("from ")]
    assert starts[0] == "from 0 train --claimed 0001 training.epochs=3 trackers.to=80 "
    assert {line.split(" ", 2)[2] for line in starts[1:]} == {"train --resume 0001 trackers.to=80 "}
    assert len(starts) == 3
    assert lines.count("ends with 0") == 1
    assert begun(server, machine) >= 80
    provider.down(machine)
    provider.down(machine)  # gone already
    assert settled(provider.status(machine)) == ("gone", "none")
    until(lambda: not host.processes())


def test_the_timer_ends_it_whoever_is_dead(server: OwnServer) -> None:
    """The time runs out with nobody of ours there, and for a keeper that hangs with a training that is deaf."""
    provider, host = server.provider, server.host
    job, deaf = server.job("trackers.to=4000"), server.job("deaf=1", "trackers.to=4000", name="deaf")
    server.hold()
    provider.launch(replace(deaf, stop_at=time.time() + 600))
    hung = next(p for p in host.processes() if "keep" in p.cmdline())
    hung.send_signal(signal.SIGSTOP)
    provider.launch(replace(deaf, stop_at=time.time()))
    machine = provider.launch(replace(job, stop_at=time.time() + 600))
    provider.launch(replace(job, stop_at=time.time()))
    until(lambda: provider.status(machine).state == "stopped")
    state, count = provider.status(machine), begun(server, machine)
    assert state.job == "failed"
    assert "time is out" in state.reason
    provider.launch(replace(job, stop_at=time.time() + 600))  # more budget: it goes on
    until(lambda: begun(server, machine) > count)
    provider.stop(machine)
    until(lambda: not host.training())
    until(lambda: not hung.is_running())


def test_stop_and_what_cannot_go_on(server: OwnServer) -> None:
    """A stopped job goes on; another of its name is refused; wrong usage ends at once, a failure at its second try."""
    provider, host = server.provider, server.host
    fails = provider.launch(server.job("trackers.to=1", "trackers.code=1", name="fails"))
    server.hold()
    machine = provider.launch(server.job("trackers.to=60"))
    with pytest.raises(Busy, match="another job 'train-1'"):
        provider.launch(server.job("trackers.to=61"))
    provider.stop(machine)
    assert settled(provider.status(machine)) == ("stopped", "none")
    server.let_end()
    provider.launch(server.job("trackers.to=60"))
    with pytest.raises(Failed, match="ends with 2") as failed:
        provider.launch(server.job("trackers.to=0", "trackers.code=2", name="usage"))
    assert failed.value.hint == "see: python -m engine cloud logs usage"
    assert "ends with 0" in list(provider.logs(machine, follow=True))
    provider.bring_home(machine, home := host.folder / "came home")
    assert int((home / str(machine.facts["run"]) / "last.json").read_text()) >= 60
    until(lambda: provider.status(fails).job == "failed")
    assert "ended with code 1, 2 times without getting further: ends with 1" in provider.status(fails).reason


def test_a_host_out_of_reach(server: OwnServer) -> None:
    """What cannot be asked is said to cost money still; no setting is called by another section's name."""
    provider, host = server.provider, server.host
    machine = provider.launch(server.job("trackers.to=0"))
    done = provider.run(machine, ["echo", "a b; exit 3 $(false)"])
    assert (done.code, done.out) == (0, "a b; exit 3 $(false)\n")
    with pytest.raises(Failed, match="not done within"):
        provider.run(machine, ["sleep", "30"], timeout_s=0.3)
    server.settings["python"] = "/nowhere/python"
    with pytest.raises(UsageError, match="no '/nowhere/python' on"):
        server.provider.launch(server.job(name="python"))
    (host.folder / "known_hosts").write_text("")
    unknown = provider.status(machine)
    assert unknown.state == "unknown"
    assert "sync --pin SHA256:" in unknown.reason
    assert f"source.port={host.port}" in unknown.reason
    host.power_off()
    with pytest.raises(StillRunning, match="still running and costing money"):
        provider.down(machine)
    with pytest.raises(Failed) as refused:
        provider.launch(server.job())
    assert "source." not in str(refused.value)


def test_the_environment_is_made_once(server: OwnServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the command of the settings; half of one never counts; nothing of our environment goes there."""
    monkeypatch.setenv("TOKEN", "from home")
    python = server.settings.pop("python")
    made = server.host.home / "made"
    make = f'echo "$CODE" >>{made}; mkdir "$ENVIRONMENT/bin"; ln -s {python} "$ENVIRONMENT/bin/python"'
    server.settings["setup"] = f'{make}; [ "$(wc -l <{made})" -gt 1 ]'  # fails at its first
    with pytest.raises(Failed, match="could not be made"):
        server.provider.launch(server.job("trackers.to=1"))
    provider = server.provider
    for name in ("train-1", "two"):
        machine = provider.launch(server.job("trackers.to=1", name=name))
        lines = list(provider.logs(machine, follow=True))
        assert "ends with 0" in lines
        assert not any("from home" in line for line in lines)
    assert len(made.read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["sync"], "not a training"),
        (["go", "parse"], "not a training"),
        (["train", "--multirun"], "cannot be given"),
        (["train", "--detach"], "cannot be given"),
    ],
)
def test_words_a_keeper_cannot_keep(words: list[str], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        split_words(words)


def test_a_resume_settles_nothing() -> None:
    words = ["train", "--strict", "model=resnet34", "training.epochs=3", "--device", "cuda", "trackers.x=1"]
    assert split_words(words) == (["train"], words[1:], ["--strict", "trackers.x=1"])
    assert split_words(["go", "train", "go.epochs=1"])[0] == ["go", "train"]
    assert Job.from_json(Job("a", tuple(words), Path("/x")).as_json()).words == tuple(words)
