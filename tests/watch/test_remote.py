"""Other hosts over a real OpenSSH server on loopback, with a stand-in for `nvidia-smi` alone."""

from __future__ import annotations

import asyncio
import getpass
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from engine.config.schema import Host
from engine.protocol import Devices, Health
from engine.store.workspace import Workspace
from engine.watch import remote
from engine.watch.agentless import read_answer
from engine.watch.remote import RemoteHost, sample_all
from tests.conftest import PATIENCE_S, PROJECT, Result, free_port
from tests.sync.conftest import Sshd, make_sshd, source_root  # noqa: F401 - fixtures

SMI = """#!/bin/sh
case "$*" in
*query-gpu*) echo "0, NVIDIA A40, 46068, 1024, 43, 55, 120.50, 300.00, GPU-1"
             echo "1, Tesla T4, 15360, 2, [N/A], 40, [Not Supported], 70.00, GPU-2";;
*query-compute-apps*) echo "GPU-1, 4711, 900, /usr/bin/python3";;
esac
"""

GOLDEN = PROJECT / "tests" / "protocol" / "golden"


def host_of(server: Sshd, **more: Any) -> Host:
    values = {"port": server.port, "user": getpass.getuser(), "key": server.key, "known_hosts": server.known_hosts}
    return Host.model_validate({"address": "127.0.0.1", **values, **more})


@pytest.fixture
def gpu_box(make_sshd: Callable[..., Sshd], tmp_path: Path) -> Callable[..., Sshd]:  # noqa: F811
    def make(smi: str = SMI) -> Sshd:
        folder = tmp_path / "bin"
        folder.mkdir()
        (folder / "nvidia-smi").write_text(smi)
        (folder / "nvidia-smi").chmod(0o755)
        return make_sshd(f"SetEnv PATH={folder}:/usr/bin:/bin")

    return make


def test_a_host_with_nothing_of_ours_shows_its_gpus(gpu_box: Callable[..., Sshd]) -> None:
    async def look() -> list[Devices]:
        host = RemoteHost("gpu-box", host_of(gpu_box()))
        try:
            return [await host.sample(), await host.sample()]
        finally:
            await host.close()

    first, second = asyncio.run(look())
    assert (first.name, first.state, first.problem) == ("gpu-box", "live", None)
    a40, t4, cpu = first.devices
    assert (a40.name, a40.total_bytes, a40.used_bytes) == ("NVIDIA A40", 46068 * 2**20, 1024 * 2**20)
    assert (a40.utilization, a40.temperature_c, a40.power_w) == (0.43, 55.0, 120.5)
    assert [(p.pid, p.name, p.used_bytes) for p in a40.processes] == [(4711, "python3", 900 * 2**20)]
    assert (t4.utilization, t4.power_w, t4.index) == (None, None, 1)
    assert cpu.kind == "cpu"
    assert (first.memory_total_bytes or 0) > (first.memory_available_bytes or 0) > 0
    assert (first.disk_total_bytes or 0) > 0
    assert len(second.devices) == 3


def test_a_driver_that_fails_there_is_said_and_the_rest_shown(gpu_box: Callable[..., Sshd]) -> None:
    async def look() -> Devices:
        host = RemoteHost("gpu-box", host_of(gpu_box("#!/bin/sh\necho 'Failed to initialize NVML'; exit 18\n")))
        try:
            return await host.sample()
        finally:
            await host.close()

    found = asyncio.run(look())
    assert found.state == "live"
    assert found.problem in ("Failed to initialize NVML", "nvidia-smi there failed with exit code 18")
    assert [device.kind for device in found.devices] == ["cpu"]


def test_a_dead_host_says_so_and_blocks_no_other(gpu_box: Callable[..., Sshd]) -> None:
    server = gpu_box()

    async def look() -> list[Devices]:
        hosts = [
            RemoteHost("dead", Host(address="127.0.0.1", port=free_port())),
            RemoteHost("stranger", host_of(server, known_hosts=server.key)),
            RemoteHost("alive", host_of(server)),
        ]
        try:
            return await sample_all(hosts)
        finally:
            await asyncio.gather(*(host.close() for host in hosts))

    dead, stranger, alive = asyncio.run(look())
    assert (dead.state, stranger.state, alive.state) == ("offline", "offline", "live")
    assert "127.0.0.1" in (dead.problem or "")
    assert "hosts.dead.address" in (dead.problem or "")
    assert stranger.problem
    assert len(alive.devices) == 3


def test_a_host_that_stops_answering_keeps_its_last_figures_and_comes_back(gpu_box: Callable[..., Sshd]) -> None:
    server = gpu_box()

    async def look() -> list[Devices]:
        host = RemoteHost("gpu-box", host_of(server), connect_s=PATIENCE_S)
        found = [await host.sample()]
        server.stop()
        await host.close()
        found.append(await host.sample())
        server.start()
        found.append(await host.sample())
        await host.close()
        return found

    before, gone, back = asyncio.run(look())
    assert (before.state, gone.state, back.state) == ("live", "offline", "live")
    assert gone.devices == before.devices
    assert gone.since is not None
    assert back.problem is None


def test_an_engine_there_has_its_stream_merged(make_sshd: Callable[..., Sshd], tmp_path: Path) -> None:  # noqa: F811
    there = Workspace(tmp_path / "there")
    engine = f"env PYTHONPATH={PROJECT} {sys.executable} -m engine --workspace {there.root}"
    server = make_sshd()
    heard: dict[str, Any] = {}

    async def follow() -> None:
        done = asyncio.Event()

        def put(kind: str, data: Any) -> None:
            heard[kind] = data
            if len(heard) == 8:
                done.set()

        task = asyncio.create_task(RemoteHost("gpu-box", host_of(server, engine=engine)).follow(1.0, put))
        try:
            await asyncio.wait_for(done.wait(), PATIENCE_S)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(follow())
    assert heard["devices"].name == "gpu-box"
    assert isinstance(heard["health"], Health)
    assert heard["health"].workspace == str(there.root)


def follow(host: RemoteHost, enough: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    """What a host says, the newest of each kind, until that is enough."""
    heard: dict[str, Any] = {}

    async def run() -> None:
        done = asyncio.Event()

        def put(kind: str, data: Any) -> None:
            heard[kind] = data
            if enough(heard):
                done.set()

        task = asyncio.create_task(host.follow(0.2, put))
        try:
            await asyncio.wait_for(done.wait(), PATIENCE_S)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())
    return heard


@pytest.mark.fault(55)
def test_an_engine_of_another_version_is_refused_in_words_and_its_gpus_are_shown(
    gpu_box: Callable[..., Sshd],
) -> None:
    host = RemoteHost("gpu-box", host_of(gpu_box(), engine=f"cat {GOLDEN / 'version_2.jsonl'} #"))
    found = follow(host, lambda heard: "devices" in heard)["devices"]
    assert (found.state, [device.kind for device in found.devices]) == ("live", ["cuda", "cuda", "cpu"])
    assert "speaks version 2 of the stream" in found.problem
    assert "update Understudy here" in (host.detail or "")


@pytest.mark.fault(55)
@pytest.mark.parametrize(("recording", "name"), [("older.jsonl", None), ("newer.jsonl", "B300")])
def test_an_older_or_newer_writer_of_this_version_is_read(
    gpu_box: Callable[..., Sshd], recording: str, name: str | None
) -> None:
    engine = f"sh -c 'cat {GOLDEN / recording}; sleep 60' #"
    host = RemoteHost("gpu-box", host_of(gpu_box(), engine=engine))
    found = follow(host, lambda heard: "devices" in heard)["devices"]
    assert (found.name, host.problem) == ("gpu-box", None)
    assert name is None or found.devices[0].name == name


@pytest.mark.fault(49)
def test_a_driver_that_hangs_there_is_said_and_the_rest_shown(
    gpu_box: Callable[..., Sshd], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "SCRIPT", remote.SCRIPT.replace("-k 1 5", "-k 1 1"))
    server = gpu_box("#!/bin/sh\nexec sleep 60\n")

    async def look() -> Devices:
        host = RemoteHost("gpu-box", host_of(server))
        try:
            return await host.sample()
        finally:
            await host.close()

    found = asyncio.run(look())
    assert (found.state, [device.kind for device in found.devices]) == ("live", ["cpu"])
    assert "has not answered for" in (found.problem or "")


def test_the_devices_verb_shows_the_other_host(
    gpu_box: Callable[..., Sshd], engine: Callable[..., Result]
) -> None:
    server = gpu_box()
    values = host_of(server).model_dump(mode="json", exclude_none=True)
    done = engine("devices", "--json", *(f"hosts.gpu-box.{key}={value}" for key, value in values.items()))
    assert done.code == 0, done.err
    here, there = done.json["hosts"]
    assert there["name"] == "gpu-box"
    assert [device["kind"] for device in there["devices"]] == ["cuda", "cuda", "cpu"]
    assert here["devices"][-1]["kind"] == "cpu"


def test_what_is_missing_in_an_answer_is_none() -> None:
    found = read_answer(
        "mac", "@system\nDarwin arm64\n@memory\n@chip\nApple M1\n@darwin\n17179869184\n@stat\n@end\n"
    )
    (cpu,) = found.devices
    assert (cpu.name, cpu.total_bytes, cpu.used_bytes, cpu.utilization) == ("Apple M1", 16 * 2**30, None, None)
    assert found.problem is None
    assert read_answer("cut", "@memory\nMemTotal: 10 kB\n").problem == "its answer was cut off"
    hung = read_answer("hung", "@gpu\n@failed 124\n@end\n")
    assert "has not answered" in (hung.problem or "")
