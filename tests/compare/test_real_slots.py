"""`ab` against the real servers of both slots, with small real nets."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from engine.compare.ab import run_ab
from engine.compare.gate import gate
from engine.config import load_settings
from engine.errors import Failed
from engine.release.control import follow, slot_stats
from engine.store.workspace import Workspace
from tests.serving.conftest import Served, until
from tests.serving.releases import colour_net, image, make_release, point

CLASSES = ["red", "green", "blue", "neither"]


@pytest.fixture
def served(workspace: Workspace) -> Iterator[Served]:
    """AS-IS calls pale colours "neither", TO-BE knows them."""
    point(workspace, "asis", make_release(workspace, net=colour_net(1.0), classes=CLASSES))
    point(workspace, "tobe", make_release(workspace, net=colour_net(0.0), classes=CLASSES))
    running = Served(workspace, slot="all")

    def live() -> bool:
        return all((slot_stats(workspace, slot) or {}).get("state") == "live" for slot in ("asis", "tobe"))

    try:
        until(live, "both slots live")
        yield running
    finally:
        running.close()


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    """40 images a colour, every second one pale."""
    folder = tmp_path / "colours"
    for place, name in enumerate(CLASSES[:3]):
        (folder / name).mkdir(parents=True)
        for number in range(40):
            strength = 20 + number if number % 2 else 100 + number
            colour = [110, 110, 110]
            colour[place] += strength
            (folder / name / f"{number}.png").write_bytes(image((colour[0], colour[1], colour[2]), form="PNG"))
    return folder


@pytest.fixture
def ab(workspace: Workspace, served: Served, colours: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        ports = [f"servers.{slot}.port={port}" for slot, port in served.ports.items()]
        command = [sys.executable, "-m", "engine", "--workspace", str(workspace.root), "ab", f"ab.data={colours}"]
        return subprocess.run([*command, *ports, *words], capture_output=True, text=True, check=False)

    return run


def test_the_better_release_wins_and_opens_the_gate(
    workspace: Workspace, served: Served, ab: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = ab("--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["n"], result["tobe"]["correct"], result["asis_only"]) == (120, 120, 0)
    assert result["tobe_only"] >= 10
    assert (result["verdict"], result["gate"]["open"]) == ("tobe", True)
    assert (result["asis"]["errors"], result["tobe"]["errors"]) == (0, 0)
    assert result["asis"]["port"] == served.ports["asis"]
    assert sum(row["n"] for row in result["per_class"]) == 120

    point(workspace, "tobe", make_release(workspace, net=colour_net(0.5), classes=CLASSES))
    follow(workspace, "tobe")
    settings = load_settings(None, workspace.root).settings
    assert not gate(workspace, settings)["open"]


def test_a_swap_in_the_middle_stops_it(workspace: Workspace, served: Served, colours: Path) -> None:
    settings = load_settings(None, workspace.root, [f"ab.data={colours}"]).settings
    other = make_release(workspace, net=colour_net(0.5), classes=CLASSES)

    def swap(done: int, total: int) -> None:
        if done == 30:
            point(workspace, "tobe", other)
            follow(workspace, "tobe")

    with pytest.raises(Failed, match="TO-BE changed from"):
        run_ab(workspace, settings, on_progress=swap)


def test_a_slot_that_is_down_is_named(
    workspace: Workspace, served: Served, ab: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    assert served.stop(signal.SIGTERM) == 0
    time.sleep(0.05)
    done = ab("--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["error"]["kind"] == "slot_down"
    assert "AS-IS" in done.stderr
    assert "engine serve" in done.stderr
