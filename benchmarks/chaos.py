"""Commands killed by SIGKILL at random moments while clients ask: is a slot ever neither old nor new?

`python -m benchmarks.chaos [--json] [--points N] [--seed S] [--what promote,rollback,sync,deploy]`

Real slots serve tiny releases on free ports, and clients check every answer. A point is one command killed
at a moment drawn evenly from the time it takes (every other one: from the time that it takes after the slot's
pointer is written, which is short), a look at what that left, then the same command once more, as an operator
or cron would give it. After that the slot must hold the new release and serve it, with one
event of this change, its backup verified, and nothing left lying about. Exit 1 when anything is wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks._commands import Commands, Ran
from benchmarks._load import PROJECT, load, picture
from engine.release.backups import find_backups
from engine.release.bundle import Release
from engine.release.control import slot_stats
from engine.release.journal import pending
from engine.release.slots import pointer_path, read_pointer
from engine.store.events import verify_events
from engine.store.files import sha256_file
from engine.store.workspace import Workspace
from tests.conftest import free_port
from tests.release.bundles import put

WHAT = ("promote", "rollback", "sync", "deploy")
FORCE = ("--force", "--reason", "chaos", "--json")
_CONNECTIONS, _PAUSE_S = 4, 0.02
_CALIBRATION, _NEW_CHECKPOINTS = 5, 0.3


@dataclass
class Tally:
    """What the points of one verb found; everything below `undone` must be 0."""

    what: str
    points: int = 0
    killed: int = 0
    finished: int = 0
    undone: int = 0
    neither_old_nor_new: int = 0
    events_missing: int = 0
    events_doubled: int = 0
    backups_unverified: int = 0
    left_over: int = 0
    repairs_by_hand: int = 0
    seconds_a_point: float = 0.0

    @property
    def bad(self) -> int:
        return (
            self.neither_old_nor_new + self.events_missing + self.events_doubled
            + self.backups_unverified + self.left_over + self.repairs_by_hand
        )  # fmt: skip


@dataclass
class Host:
    """One workspace with its served slots."""

    workspace: Workspace
    config: Path
    ports: dict[str, int]
    commands: Commands
    events_read: int = 0
    problems: list[str] = field(default_factory=list)

    def new_events(self) -> list[dict[str, Any]]:
        with self.workspace.events.open("rb") as stream:
            stream.seek(self.events_read)
            block = stream.read()
        whole = block[: block.rfind(b"\n") + 1]
        self.events_read += len(whole)
        return [json.loads(line) for line in whole.splitlines()]

    def served(self, slot: str) -> str:
        """The release that a client's answer names."""
        url = f"http://127.0.0.1:{self.ports[slot]}/predict"
        with urllib.request.urlopen(urllib.request.Request(url, picture()), timeout=20) as answer:
            return str(json.loads(answer.read())["release"])

    def held(self, slot: str) -> str | None:
        pointer = read_pointer(self.workspace, slot)
        return pointer.release if pointer else None


@dataclass(frozen=True)
class Change:
    """One change of a slot: the command's words, from which release to which, the event it leaves."""

    verb: str
    words: tuple[str, ...]
    slot: str
    old: str
    new: str | None  # None: known by the checkpoint's hash alone
    sha256: str | None
    event: str
    known: bool = True  # the checkpoint went through admission before

    def arrived(self, host: Host) -> bool:
        pointer = read_pointer(host.workspace, self.slot)
        if pointer is None:
            return False
        return self.new == pointer.release if self.new else self.sha256 == pointer.checkpoint.sha256


@contextlib.contextmanager
def host(root: Path, releases: list[Release]) -> Iterator[Host]:
    """Both slots served, AS-IS with the first release and TO-BE with the last; commands ready."""
    workspace = Workspace(root / "workspace")
    ports = {"asis": free_port(), "tobe": free_port()}
    config = root / "config.toml"
    text = "".join(f"[servers.{slot}]\nport = {port}\n" for slot, port in ports.items())
    config.write_text(f'{text}[bake]\nminutes = 0\n[source]\nsettle_s = 0.05\nroot = "{root / "source"}"\n')
    for slot, release in zip(("asis", "tobe"), releases, strict=True):
        put(workspace, slot, release)
    common = ("--config", str(config), "--workspace", str(workspace.root))
    with (root / "serve.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "engine", *common, "serve", "all"], cwd=PROJECT, stdout=log, stderr=log
        )
    commands = Commands(*common)
    try:
        deadline = time.monotonic() + 60
        while not all((slot_stats(workspace, slot) or {}).get("state") == "live" for slot in ports):
            if server.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"the slots never came up: {(root / 'serve.log').read_text()[-2000:]}")
            time.sleep(0.05)
        yield Host(workspace, config, ports, commands)
    finally:
        server.send_signal(signal.SIGTERM)
        commands.close()
        server.wait(60)


class Points:
    """Kills one change after another on a host and counts what is wrong afterwards."""

    def __init__(self, host: Host, seed: int) -> None:
        self.host, self.random = host, random.Random(seed)
        self.tallies: dict[str, Tally] = {}
        self.took: dict[tuple[str, bool], list[Ran]] = {}

    def point(self, change: Change) -> None:
        """One change, killed (once its usual time is known), looked at and given again."""
        took = self.took.setdefault((change.verb, change.known), [])
        host, pointer = self.host, pointer_path(self.host.workspace, change.slot)
        host.new_events()
        began = time.monotonic()
        if len(took) < _CALIBRATION:
            ran = host.commands.run(*change.words, watch=pointer)
            took.append(ran)
            if ran.code:
                raise SystemExit(f"{' '.join(change.words)} fails unkilled: {ran.err}{ran.out}")
            return
        tally = self.tallies.setdefault(change.verb, Tally(change.verb))
        tally.points += 1
        late = tally.points % 2 == 0
        usual = statistics.median(ran.tail_s if late else ran.seconds for ran in took[-_CALIBRATION:])
        moment = self.random.uniform(0, 1.05 * usual)
        first = host.commands.run(*change.words, kill_after_s=moment, watch=pointer if late else None)
        tally.killed += first.killed
        begun = pending(host.workspace)
        came = change.arrived(host)
        tally.finished += came
        if first.killed and not came and begun is not None:
            tally.undone += 1
        where = f"{change.verb} killed {moment * 1e3:.1f} ms {'after the pointer' if late else 'in'} of {usual * 1e3:.1f}"
        self._either(tally, change, came, where)
        again = host.commands.run(*change.words, watch=pointer)
        took += [ran for ran in (first, again) if ran.code == 0 and ran.tail_s]  # the whole change, as of late
        if again.code and not (again.code == 3 and came and "same release" in again.out):
            tally.repairs_by_hand += 1
            host.problems.append(f"{where}: the next {change.verb} says {again.code}: {again.err}{again.out}")
        self._settled(tally, change, where)
        tally.seconds_a_point += (time.monotonic() - began - tally.seconds_a_point) / tally.points

    def _either(self, tally: Tally, change: Change, came: bool, where: str) -> None:
        """Right after the kill: the pointer and the answers are those of the old release or of the new."""
        held, served = self.host.held(change.slot), self.host.served(change.slot)
        allowed = {change.old, change.new or (held if came else change.old)}
        if held not in allowed or served not in allowed:
            tally.neither_old_nor_new += 1
            self.host.problems.append(f"{where}: holds {held}, serves {served}, of {allowed}")

    def _settled(self, tally: Tally, change: Change, where: str) -> None:
        """After the next command: all of the new release, told once, backed up, nothing left over."""
        host, problems = self.host, self.host.problems
        held = host.held(change.slot)
        if not change.arrived(host) or host.served(change.slot) != held:
            tally.neither_old_nor_new += 1
            problems.append(f"{where}: afterwards it holds {held} and serves {host.served(change.slot)}")
        events = host.new_events()
        told = [event for event in events if event["kind"] == change.event]
        pointer = read_pointer(host.workspace, change.slot)
        right = [
            event
            for event in told
            if pointer and event["detail"]["to"] == held and event["detail"]["transaction"] == pointer.transaction
        ]
        taken = [event for event in events if event["kind"] == "synced"]
        undone = [event["detail"]["undone"] for event in events if "undone" in event["detail"]]
        if not right or (change.verb == "sync" and not taken):
            tally.events_missing += 1
            problems.append(f"{where}: no event of it: {[event['kind'] for event in events]}")
        if len(told) > 1 or len(taken) > 1 or len(undone) != len(set(undone)):
            tally.events_doubled += 1
            problems.append(f"{where}: told more than once: {[event['kind'] for event in events]}")
        if change.slot == "asis" and right:
            name = right[0]["detail"]["backup_made"]
            path = host.workspace.backups / str(name)
            if not name or not path.is_file() or sha256_file(path) != change.old:
                tally.backups_unverified += 1
                problems.append(f"{where}: the backup {name} is not of {change.old}")
        scraps = [path for folder in ("backups", "slots", "releases", "state", "incoming")
                  for path in (host.workspace.root / folder).glob("**/*")
                  if path.name.endswith(".part") or path.name.startswith("admission-")]  # fmt: skip
        if host.workspace.journal.exists() or scraps:
            tally.left_over += 1
            problems.append(f"{where}: left over: {[str(path) for path in scraps]}")
            for path in scraps:
                path.unlink(missing_ok=True)  # so that it is counted once


def roads(points: Points, names: set[str], count: int) -> None:
    """AS-IS goes to the candidate and back; whichever of the two is not asked for is done unkilled."""
    host = points.host
    old, new = str(host.held("asis")), str(host.held("tobe"))
    while any(points.tallies.get(name, Tally(name)).points < count for name in names):
        forth = Change("promote", ("promote", *FORCE), "asis", old, new, None, "promoted")
        if "promote" in names:
            points.point(forth)
        else:
            host.commands.run(*forth.words)
        name = next(
            b.name for b in find_backups(host.workspace, host.ports["asis"], verify=False) if b.release == old
        )
        back = Change("rollback", ("rollback", name, "--json"), "asis", new, old, None, "rolled_back")
        if "rollback" in names:
            points.point(back)
        else:
            host.commands.run(*back.words)


def candidates(points: Points, names: set[str], count: int, root: Path) -> None:
    """TO-BE gets one checkpoint after another; some are new and go through the whole admission."""
    from tests.release import checkpoints

    host, turn = points.host, 0
    made: list[Path] = []
    target = root / "source" / "checkpoints_cycle1" / "best_model_cycle1.pth"
    target.parent.mkdir(parents=True, exist_ok=True)
    for verb in sorted(names):  # one after the other: sync leaves alone what was deployed by hand
        while points.tallies.get(verb, Tally(verb)).points < count:
            turn += 1
            if fresh := len(made) < 3 or points.random.random() < _NEW_CHECKPOINTS:
                made.append(checkpoints.save(root / f"{turn}.pth", checkpoints.content(1000 + turn)))
            holding = read_pointer(host.workspace, "tobe")
            assert holding is not None
            chosen = made[-1] if fresh else points.random.choice(made[-4:])
            sha256 = sha256_file(chosen)
            if sha256 == holding.checkpoint.sha256:
                continue
            scratch = target.with_name("next.pth.part")
            scratch.write_bytes(chosen.read_bytes())
            scratch.replace(target)
            words = ("deploy", str(target), "--json") if verb == "deploy" else ("sync", "--json")
            points.point(Change(verb, words, "tobe", holding.release, None, sha256, "deployed", not fresh))


def run(count: int, seed: int, what: list[str]) -> dict[str, Any]:
    """`count` points of each verb in `what`: `results` (a dict a verb), `answers`, `failed_requests`, `problems`."""
    tallies: list[Tally] = []
    answers, failed, problems = 0, 0, []
    for names, slot in (({"promote", "rollback"}, "asis"), ({"sync", "deploy"}, "tobe")):
        if not (wanted := names & set(what)):
            continue
        with tempfile.TemporaryDirectory(prefix="chaos-") as folder, contextlib.ExitStack() as stack:
            root = Path(folder)
            here = stack.enter_context(host(root, _releases(root, slot)))
            points = Points(here, seed)
            with load(here.ports[slot], _CONNECTIONS, _PAUSE_S) as seen:
                if slot == "asis":
                    roads(points, wanted, count)
                else:
                    candidates(points, wanted, count, root)
            if broken := verify_events(here.workspace):
                here.problems.append(broken)
            mixed = [release for release, labels in seen["labels"].items() if len(labels) > 1]
            answers, failed = answers + seen["answers"], failed + seen["failures"] + len(mixed)
            problems += here.problems + seen["failed"] + [f"{release} gave several answers" for release in mixed]
            tallies += points.tallies.values()
    results = [asdict(tally) for tally in tallies]
    bad = sum(tally.bad for tally in tallies) + failed + bool(problems)
    return {"results": results, "answers": answers, "failed_requests": failed, "problems": problems, "ok": not bad}


def _releases(root: Path, slot: str) -> list[Release]:
    workspace = Workspace(root / "workspace")
    if slot == "asis":
        from tests.serving.releases import make_release

        return [make_release(workspace, prefix) for prefix in "ab"]
    from engine.config import load_settings
    from engine.release.admit import admit
    from tests.release import checkpoints

    settings = load_settings(workspace=workspace.root).settings
    files = [checkpoints.save(root / f"{seed}.pth", checkpoints.content(seed)) for seed in (1, 2)]
    return [admit(workspace, settings, path, name=path.name, cycle=1, expect_classes=None) for path in files]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--points", type=int, default=25, help="of each verb")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--what", default=",".join(WHAT))
    options = parser.parse_args(argv)
    what = options.what.split(",")
    if unknown := set(what) - set(WHAT):
        parser.error(f"unknown: {', '.join(sorted(unknown))}; one of {', '.join(WHAT)}")
    found = run(options.points, options.seed, what)
    if options.json:
        print(json.dumps(found))
    else:
        for result in found["results"]:
            print("  ".join(f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}"
                            for key, value in result.items()))  # fmt: skip
        print(f"answers checked {found['answers']}, failed requests {found['failed_requests']}")
        for problem in found["problems"][:20]:
            print(f"  {problem}")
    if not found["ok"]:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
