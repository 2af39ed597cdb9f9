"""A run on a "rented" host that is cut off and killed three times, against the same run undisturbed.

    python -m benchmarks.cloud [--json] [--epochs 25] [--hourly 0.69]

The host is a real sshd on loopback with a home of its own; `cloud launch` uploads the code there and starts the guard, as
it does for everybody. Then the training's process gets SIGKILL, every open connection is cut while somebody follows the
log, and the whole host loses its power (sshd and all that lives in its home) and comes back. Nobody resumes anything by
hand. Wanted: the weights and the optimiser of the undisturbed run, bit for bit; its best checkpoint on TO-BE at home; no process
left over; a bill that is the time in which something ran, as it was seen from outside, to the second.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks._rented import Rented, missing
from engine.cloud.ledger import Entry, Ledger
from engine.release.slots import read_pointer
from engine.store.files import sha256_file
from engine.store.locks import holder
from engine.store.workspace import Workspace

PROJECT = Path(__file__).resolve().parents[1]
NAME = "rented"
# a small net, and as many threads at home as there: the same sums in the same order
WORDS = ["model=litecnn", "data.img_size=16", "data.augment=document", "training.ema_decay=0.9",
         "training.save_every_steps=20", "training.seed=7", "device.prefer=cpu"]  # fmt: skip
_LOOK_S = 5.0  # the guard's, the least that cloud.poll_s may be
_BEAT_S = 1.5  # a host that dies is counted to the beat that did not come, one a second
_LIMIT_S = 240.0


def main(argv: list[str] | None = None) -> None:
    """Disturb, compare, print; with --json one object `{"results": [...]}`. Ends with 1 where the figure is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--hourly", type=float, default=0.69, help="what an hour of the host costs, US dollars")
    arguments = parser.parse_args(argv)
    stream = sys.stderr if arguments.json else sys.stdout
    if why := missing():
        print(f"not measured: {why}", file=stream)
        if arguments.json:
            print(json.dumps({"results": []}))
        return
    os.environ |= {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
    with tempfile.TemporaryDirectory(prefix="understudy-rented-") as name:
        result = measure(
            Path(name), arguments.epochs, arguments.hourly, lambda line: print(line, file=stream, flush=True)
        )
    print(_text(result), file=stream)
    if arguments.json:
        print(json.dumps({"results": [result]}))
    if not result["ok"]:
        sys.exit(1)


def measure(folder: Path, epochs: int, hourly_usd: float, say: Callable[[str], None]) -> dict[str, Any]:
    """The whole figure; `ok` where every part of it is reached."""
    words = [*WORDS, f"training.epochs={epochs}"]
    undisturbed = _train(folder / "undisturbed", words)
    say(f"undisturbed: {undisturbed['seconds_s']:.1f} s of training, {undisturbed['state_sha256']}")
    home = Workspace(folder / "home")
    ledger = Ledger(home)
    with Rented(folder / "host") as host:
        cloud = host.words(python=sys.executable, hourly_usd=hourly_usd, grace_s=30)
        cloud += ["cloud.provider=ssh", f"cloud.poll_s={_LOOK_S}", "source.settle_s=0.1"]
        ordered = time.time()
        _engine(home, "cloud", "launch", "--name", NAME, "--budget", "5", "--detach", *words, *cloud)
        disturbed, lost = _disturb(host, home, cloud, say)
        job = host.home / "understudy" / "jobs" / NAME / "state.json"
        _wait(
            lambda: not job.exists() or json.loads(job.read_text())["status"] == "completed", "the training's end"
        )
        done = time.time()
        say("the training is completed there")
        _wait(lambda: not ledger.read(NAME).open, "the machine's end")
        entry = ledger.read(NAME)
        _wait(lambda: not host.processes(), "the last process on the host")
        _wait(lambda: holder(home.lock(f"cloud-{NAME}-guard")) is None, "the guard's end")
        left = len(host.processes())
        there = next((host.home / "understudy" / "workspace" / "checkpoints").glob("*/best_model*.pth"))
        pointer = read_pointer(home, "tobe")
        deployed = pointer is not None and pointer.checkpoint.sha256 == sha256_file(there)
    manifest = _manifest(ledger.files(NAME) / "runs")
    bill = _bill(entry, ordered, lost, done)
    same = manifest["state_sha256"] == undisturbed["state_sha256"]
    result: dict[str, Any] = {"name": "rented host, cut off and killed", "identical": same, "left_over": left}
    result |= {"sha256": manifest["state_sha256"], "wanted_sha256": undisturbed["state_sha256"]}
    result |= {"deployed": deployed, "launches": entry.launches, **disturbed, **bill}
    result["ok"] = (
        same
        and not left
        and abs(bill["off_s"]) <= _BEAT_S
        and disturbed["resumed"] >= 2
        and disturbed["log_whole"]
    )
    return result


def _disturb(
    host: Rented, home: Workspace, cloud: list[str], say: Callable[[str], None]
) -> tuple[dict[str, Any], float]:
    """Kill the training, cut the line, pull the plug; each when the run has gone on for a while.

    Returns:
        Facts for the result, and when the power was lost, seconds since the epoch.
    """
    began = time.monotonic()
    place = _Place(host)
    place.wait(2)
    # somebody reads along, from home, over the same line
    command = _command(home, "cloud", "logs", NAME, "--follow", *cloud)
    reader = subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    heard: list[str] = []
    assert reader.stdout is not None
    listener = threading.Thread(target=lambda: heard.extend(line.rstrip("\n") for line in reader.stdout or ()))
    listener.start()

    place.wait(2)
    host.training()[0].kill()
    say(f"{time.monotonic() - began:5.1f} s: the training was killed, at epoch {place.epoch()}")
    place.wait(2)
    _wait(lambda: bool(heard), "the log")
    cut = host.cut()
    say(f"{time.monotonic() - began:5.1f} s: {cut} connections were cut, at epoch {place.epoch()}")
    place.wait(2)
    off, lost = time.monotonic(), time.time()
    whole = (host.home / "understudy" / "jobs" / NAME / "log").read_text().splitlines()
    host.power_off()
    say(
        f"{off - began:5.1f} s: the host lost its power, at epoch {place.epoch()}; {len(host.processes())} processes live"
    )
    time.sleep(1.0)
    host.power_on()
    place.wait(1)
    back_s = time.monotonic() - off
    say(f"{time.monotonic() - began:5.1f} s: it trains again, {back_s:.1f} s after that")
    reader.terminate()
    reader.wait(30)
    listener.join(30)
    resumed = (host.home / "understudy" / "jobs" / NAME / "log").read_text().count("keeper: resumed run")
    common = [line for line in heard if line in set(whole)]
    facts = {"killed": 1, "cut": cut, "power_lost": 1, "resumed": resumed, "back_s": round(back_s, 1),
            "log_whole": common == whole[: len(common)] and len(common) >= len(whole) - 3}  # fmt: skip
    return facts, lost


class _Place:
    """Where the run on the host is, by its own files."""

    def __init__(self, host: Rented) -> None:
        self._runs = host.home / "understudy" / "workspace" / "runs"

    def epoch(self) -> int:
        """Finished epochs."""
        try:
            return len(next(self._runs.glob("*/metrics.jsonl")).read_text().splitlines())
        except (StopIteration, FileNotFoundError):
            return 0

    def wait(self, more: int) -> None:
        """Until so many more epochs are done."""
        wanted = self.epoch() + more
        _wait(lambda: self.epoch() >= wanted, f"epoch {wanted}")


def _bill(entry: Entry, ordered: float, lost: float, done: float) -> dict[str, Any]:
    """What was counted, against what was seen from outside: from the order to the loss of power, and from the second
    launch to the training's end. `off_s` is the difference."""
    first, second = entry.intervals
    paid = sum(span.until - span.since for span in entry.intervals if span.until is not None)
    seen = (lost - first.since) + (done - second.since)
    return {"paid_s": round(paid, 3), "seen_s": round(seen, 3), "off_s": round(paid - seen, 3),
            "not_counted_s": round(second.since - lost, 3), "counted_after_order_s": round(first.since - ordered, 3),
            "cost_usd": round(entry.cost_usd(done), 6), "hourly_usd": entry.hourly_usd}  # fmt: skip


def _train(root: Path, words: list[str]) -> dict[str, Any]:
    _engine(Workspace(root), "train", *words)
    return _manifest(root / "runs")


def _manifest(runs: Path) -> dict[str, Any]:
    return dict(json.loads(next(runs.glob("*/manifest.json")).read_text()))


def _command(workspace: Workspace, *words: str) -> list[str]:
    return [sys.executable, "-m", "engine", "--workspace", str(workspace.root), *words]


def _engine(workspace: Workspace, *words: str) -> None:
    done = subprocess.run(_command(workspace, *words), cwd=PROJECT, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(words[:2])} failed: {done.stderr or done.stdout}")


def _wait(what: Callable[[], bool], name: str) -> None:
    deadline = time.monotonic() + _LIMIT_S
    while not what():
        if time.monotonic() > deadline:
            sys.exit(f"waited {_LIMIT_S:.0f} s for {name}")
        time.sleep(0.05)


def _text(result: dict[str, Any]) -> str:
    same = "the same weights and optimiser, bit for bit" if result["identical"] else "OTHER weights"
    return "\n".join((
        f"killed, cut off and without power: resumed {result['resumed']} times by itself, {same}; {result['left_over']} processes left over",
        f"its best checkpoint is {'on TO-BE at home, by sync' if result['deployed'] else 'NOT on TO-BE at home'}; it trained again"
        f" {result['back_s']:.0f} s after the power was lost; the log that somebody followed is {'whole' if result['log_whole'] else 'NOT whole'}",
        f"bill: {result['paid_s']:.1f} s at ${result['hourly_usd']:g} an hour = ${result['cost_usd']:.5f}; seen from outside"
        f" {result['seen_s']:.1f} s (off by {result['off_s']:+.2f} s); not counted: {result['not_counted_s']:.1f} s without power and until the guard's look",
    ))  # fmt: skip


if __name__ == "__main__":
    main()
