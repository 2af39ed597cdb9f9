"""`ab --until-decided`: after each image, whether the evidence is enough, in the order in which they were drawn."""

from __future__ import annotations

from typing import Any

from engine.compare import statistics as st
from engine.compare.asking import Answers
from engine.compare.deciding import Rule, Winner
from engine.compare.labels import Live
from engine.compare.records import ERROR_SHARE, Pool
from engine.store.workspace import SLOTS, TITLES
from engine.tasks.labelled import Labelled

_MORE = "label more images, or have live requests labelled (shadow.share, then: label)"


class Until:
    """Called after every answer: the number of images at which the comparison is decided, or None.

    Answers come back out of order, and a slow one may be slow because of what it says; so only the beginning
    without gaps is counted. That the images after it are left out costs a few and keeps the stopping time honest.

    Args:
        before: what earlier comparisons of the two on this set say; `live`: what labelled live requests say.
        last: with `chosen` every image of the set was asked.
    """

    def __init__(
        self, rule: Rule, before: Pool, live: Live, chosen: list[Labelled], answers: Answers, *, last: bool = False
    ) -> None:
        self._rule, self._before, self._live, self._last = rule, before, live, last
        self._chosen, self._answers = chosen, answers
        self._place = self._n = self._b = self._c = 0
        self._errors = dict.fromkeys(SLOTS, 0)
        self.winner: Winner | None = None

    def __call__(self) -> int | None:
        pairs = self._answers.pairs
        while self.winner is None and self._place < len(pairs) and (pair := pairs[self._place]) is not None:
            label = self._chosen[self._place].label
            self._place += 1
            if all(answer.bad_image for answer in pair.values()):
                continue
            self._n += 1
            tobe, asis = pair["tobe"].label == label, pair["asis"].label == label
            self._b += tobe and not asis
            self._c += asis and not tobe
            for slot in SLOTS:
                self._errors[slot] += pair[slot].error is not None
            if max(self._errors.values()) <= ERROR_SHARE * self._n:
                self.winner = self._judge()
        return self._place if self.winner else None

    def _judge(self) -> Winner | None:
        before, live = self._before, self._live
        return self._rule.winner(
            before.b + self._b, before.c + self._c, before.n + self._n, live.b, live.c, live.weight
        )

    def verdict(self, summary: dict[str, Any]) -> dict[str, Any]:
        """The verdict and its reason, where they are about all the evidence and not about this comparison alone."""
        figures, said = self._weighed()
        if self.winner is not None:
            return {**figures, "verdict": self.winner, "reason": f"decided for {TITLES[self.winner]}: {said}"}
        spoiled = any(summary[slot]["errors"] > ERROR_SHARE * summary["n"] for slot in SLOTS)
        if spoiled or summary["status"] != "completed":
            return figures
        end = f"; these were the last of {summary['data']}: {_MORE}" if self._last else ""
        reason = f"not decided after {summary['n']:,} images: {said}{end}"
        return {**figures, "verdict": "undecided", "reason": reason}

    def nothing_left(self, newest: dict[str, Any]) -> dict[str, Any]:
        """The same where every image was asked before and nothing is: `newest` is the last comparison that counts.

        One look at a number fixed beforehand keeps its own verdict.
        """
        self.winner = self._judge()
        figures, said = self._weighed()
        used = f"every image of {newest['data']} was asked before"
        if self._before.looks == 1 and not self._before.sequential and not self._live.labelled:
            return {**figures, "reason": f"{used}: {newest['reason']}"}
        if self.winner is not None:
            reason = f"{used}: decided for {TITLES[self.winner]}: {said}"
            return {**figures, "verdict": self.winner, "reason": reason}
        return {**figures, "verdict": "undecided", "reason": f"{used}, and it is not decided: {said}; {_MORE}"}

    def _weighed(self) -> tuple[dict[str, Any], str]:
        """All the evidence so far, as fields and in words."""
        before, live = self._before, self._live
        b, c, n = before.b + self._b, before.c + self._c, before.n + self._n
        e_value = st.exponential(st.log_e_value(b, c) + st.log_e_value(live.b, live.c))
        more = f", {live.b + live.c:,} labelled live requests" if live.b + live.c else ""
        said = f"e-value {e_value:.3g} of {self._rule.e_needed:.3g} on all {n:,} images so far{more}"
        pooled = {"n": n, "b": b, "c": c, "e_value": e_value, "winner": self.winner}
        return {"pooled": pooled, "used_up": self._last}, said
