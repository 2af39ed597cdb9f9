"""Labels of live requests on which the two releases differ, and what they are worth as evidence.

Which requests are labelled must have nothing to do with which release is right. So the order is the system's: a
round is drawn at random from what waits and appended to `labels.jsonl`, and evidence is only the beginning of that
order in which every request was labelled, or passed over on the record. A label out of turn is kept and counts when
its turn has come. Whoever labels is not told which release gave which answer, so skipping cannot favour one.

Of labelled requests b are those that only TO-BE got right, c only AS-IS; where neither is right the request says
nothing about which is better. Under "both are equally good on live traffic" b ~ Bin(b + c, 1/2): McNemar's test and
the e-process hold on differing pairs alone, whatever share of the traffic they are (Schatzkin et al. 1987, Am. J.
Epidemiol. 125:672; comparing models by labelling where they differ: Sawade, Landwehr, Scheffer 2012, NIPS 25).
"""

from __future__ import annotations

import json
import os
import random
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from engine.compare import statistics as st
from engine.compare.shadow import Counts, Item, kept_ids, pair_folder, read_counts, read_items
from engine.errors import Failed
from engine.store.clock import parse, timestamp
from engine.store.events import actor
from engine.store.locks import hold
from engine.store.workspace import Workspace

_ROUND = 50  # a new round is drawn when fewer than this many of the last ones wait


@dataclass(frozen=True)
class Live:
    """What labelled live requests say of two releases. `skipped`: passed over by a person or deleted unlabelled."""

    b: int = 0
    c: int = 0
    neither: int = 0
    skipped: int = 0
    out_of_turn: int = 0
    waiting: int = 0
    agreed: int = 0
    differed: int = 0

    @property
    def labelled(self) -> int:
        return self.b + self.c + self.neither

    @property
    def mirrored(self) -> int:
        return self.agreed + self.differed

    @property
    def weight(self) -> float:
        """How many requests the labels stand for: as many of the mirrored as of those that differ are labelled."""
        return self.mirrored * self.labelled / self.differed if self.differed else 0.0

    @property
    def log_e(self) -> float:
        return st.log_e_value(self.b, self.c)

    @property
    def reversible(self) -> bool:
        """Whether TO-BE's lead would be gone if AS-IS were right on every request that was passed over."""
        return self.b > self.c and self.b <= self.c + self.skipped

    def difference(self) -> tuple[float, float, float] | None:
        """TO-BE's accuracy less AS-IS's on live traffic with its 95% interval, or None without a label."""
        if not self.labelled:
            return None
        return st.two_phase_difference(self.b, self.c, self.labelled, self.differed, self.mirrored)

    def as_json(self) -> dict[str, Any]:
        difference = self.difference()
        return {
            "mirrored": self.mirrored,
            "agreed": self.agreed,
            "differed": self.differed,
            "labelled": self.labelled,
            "tobe_only": self.b,
            "asis_only": self.c,
            "neither": self.neither,
            "skipped": self.skipped,
            "out_of_turn": self.out_of_turn,
            "waiting": self.waiting,
            "p_value": st.mcnemar(self.b, self.c)[1],
            "e_value": st.exponential(self.log_e),
            "difference": difference[0] if difference else None,
            "difference_ci95": list(difference[1:]) if difference else None,
        }


@dataclass(frozen=True)
class Mark:
    """What a person said of a request last: its label, or None for passed over."""

    label: str | None
    asis: str
    tobe: str
    item_at: str

    @property
    def outcome(self) -> str:
        if self.label is None:
            return "skipped"
        return "b" if self.label == self.tobe else "c" if self.label == self.asis else "neither"


class Labels:
    """The labels of one pair of releases."""

    def __init__(self, workspace: Workspace, asis: str, tobe: str) -> None:
        self.workspace, self.asis, self.tobe = workspace, asis, tobe
        self.path = pair_folder(workspace, asis, tobe) / "labels.jsonl"
        self.order: list[str] = []
        self.marks: dict[str, Mark] = {}
        self._drawn_at: dict[str, str] = {}
        for line in _lines(self.path):
            if line["kind"] == "draw":
                self.order += [entry["id"] for entry in line["items"]]
                self._drawn_at |= {entry["id"]: entry["at"] for entry in line["items"]}
            else:
                self.marks[line["id"]] = Mark(line["label"], line["asis"], line["tobe"], line["item_at"])
        self.kept = kept_ids(workspace, asis, tobe)

    @cached_property
    def items(self) -> dict[str, Item]:
        """The requests that are kept, by their id, oldest first."""
        return read_items(self.workspace, self.asis, self.tobe)

    @property
    def waiting(self) -> list[Item]:
        """What is to be labelled, in the order drawn; then what no round has drawn yet."""
        drawn = [self.items[one] for one in self.order if one in self.items and one not in self.marks]
        known = set(self.order)
        return drawn + [item for item in self.items.values() if item.id not in known and item.id not in self.marks]

    def draw(self) -> None:
        """Draw a round where few of the last ones are left: all that waits undrawn, in a random order."""
        drawn = [one for one in self.order if one in self.items and one not in self.marks]
        known = set(self.order)
        fresh = [item for item in self.items.values() if item.id not in known]
        if not fresh or len(drawn) >= _ROUND:
            return
        random.SystemRandom().shuffle(fresh)
        entries = [{"id": item.id, "at": item.at} for item in fresh]
        self._append({"kind": "draw", "items": entries, "at": timestamp()})
        self.order += [item.id for item in fresh]
        self._drawn_at |= {item.id: item.at for item in fresh}

    def mark(self, item: Item, label: str | None) -> None:
        """Label a request, or pass it over with None; the last word counts, all of them are kept."""
        mark = Mark(label, item.asis.label, item.tobe.label, item.at)
        self._append(
            {
                "kind": "label",
                "id": item.id,
                "sha256": item.sha256,
                "label": label,
                "asis": mark.asis,
                "tobe": mark.tobe,
                "item_at": item.at,
                "at": timestamp(),
                "by": actor(),
            }
        )
        self.marks[item.id] = mark

    def live(self, since: str | None = None) -> Live:
        """The evidence; with `since` that of requests that came after it alone."""
        tally = dict.fromkeys(("b", "c", "neither", "skipped"), 0)
        turn = len(self.order)
        for place, identity in enumerate(self.order):
            mark = self.marks.get(identity)
            if mark is None and identity in self.kept:
                turn = place  # it still waits, and what was labelled behind it waits with it
                break
            at = mark.item_at if mark else self._drawn_at[identity]
            if since is None or parse(at) > parse(since):
                tally[mark.outcome if mark else "skipped"] += 1
        counts = read_counts(self.workspace, self.asis, self.tobe)
        labelled = tally["b"] + tally["c"] + tally["neither"]
        return Live(
            **tally,
            out_of_turn=len(self.marks.keys() - set(self.order[:turn])),
            waiting=len(self.kept - self.marks.keys()),
            agreed=counts.agreed,
            differed=max(counts.differed, labelled),  # a crash may have cost the last counts, not a kept image
        )

    def _append(self, line: dict[str, Any]) -> None:
        _append(self.path, line)


def label_lock(workspace: Workspace, *, wait: bool = True) -> Any:
    """Hold this while reading labels in order to write them."""
    return hold(workspace.lock("label"), "label", wait=wait)


def read_live(workspace: Workspace, asis: str, tobe: str, since: str | None = None) -> Live:
    """What labelled live requests say of these two releases; nothing was mirrored: all zeros.

    Raises:
        Failed: the labels are damaged.
    """
    if not pair_folder(workspace, asis, tobe).is_dir():
        return Live()
    return Labels(workspace, asis, tobe).live(since)


def shadow_state(workspace: Workspace, share: float, asis: str | None, tobe: str | None) -> dict[str, Any] | None:
    """The protocol's `Shadow` of the two releases in the slots, or None where nothing was ever mirrored."""
    if asis is None or tobe is None:
        return None
    counts: Counts = read_counts(workspace, asis, tobe)
    if not share and not counts.mirrored:
        return None
    live = read_live(workspace, asis, tobe)
    return {
        "share": share,
        "mirrored": counts.mirrored,
        "agreed": counts.agreed,
        "differed": counts.differed,
        "failed": counts.failed,
        "queued": live.waiting,
        "labelled": live.labelled,
    }


def _lines(path: Path) -> list[dict[str, Any]]:
    """The whole lines; a last one that a crash cut short was never acknowledged."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    try:
        return [json.loads(line) for line in content.split(b"\n")[:-1] if line]
    except ValueError:
        raise Failed(
            f"{path} is damaged", "move it away: its labels are lost as evidence", kind="damaged"
        ) from None


def _append(path: Path, line: dict[str, Any]) -> None:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        size = os.fstat(handle).st_size
        if size and os.pread(handle, 1, size - 1) != b"\n":
            content = path.read_bytes()
            os.ftruncate(handle, content.rfind(b"\n") + 1)
        os.write(handle, json.dumps(line, ensure_ascii=False).encode() + b"\n")
        os.fsync(handle)
    finally:
        os.close(handle)
