"""The gate before AS-IS: whether the evidence about exactly these two releases says that TO-BE may go there.

All comparisons of the two on one labelled set are pooled, each image once. One completed look is judged by its
mid-p (or its interval); after more, or one that could end at any image, by the e-value, which may be looked at as
often as one likes. A first look by mid-p spends a part of alpha (`statistics.later_e_value`), and the e-value of the
looks after it must reach more, so that all of them together name a wrong winner with alpha at most. Each further
labelled set that was tried for the same two divides alpha.

Labelled live requests (engine.compare.labels) come as they please, so with them the evidence is always sequential:
their e-value multiplies that of the labelled set (engine.compare.deciding). The reason names what opened it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from engine.compare import records
from engine.compare import statistics as st
from engine.compare.deciding import Rule
from engine.compare.labels import Live, read_live
from engine.compare.records import Pool
from engine.config import Settings
from engine.errors import Failed
from engine.release.hold import rejection
from engine.release.journal import taken_down
from engine.release.slots import Pointer, read_pointer
from engine.store.clock import parse
from engine.store.workspace import Workspace


def gate(workspace: Workspace, settings: Settings) -> dict[str, Any]:
    """Whether `promote` may go on without force.

    Returns:
        `open` (bool); `reason`, a sentence a person can act on; `ab`, the last comparison of these two
        releases without its rows, or None; `evidence`: `n`, `b` (only TO-BE right), `c`, `looks`, `p_value`
        (mid-p of one look, else the always-valid 1 / max E), `e_value`, `e_needed` (which decides), `difference`, `difference_ci95`,
        `images_needed` (in all, for a gap of this size in one look), `images_missing` (about how many more
        from here), `rule`, `alpha`, `live` (labelled live requests, see `Live.as_json`; None without any),
        `opened_by` (of an open gate: `labelled_set`, `live`, or both),
        `rejected` (an operator rejected TO-BE's release).

    Raises:
        Failed: a pointer file is damaged.
    """
    verdict = _judge(workspace, settings)
    return {
        "open": verdict.open,
        "reason": verdict.reason,
        "ab": verdict.ab,
        "evidence": _evidence(verdict, settings),
    }


def evidence_so_far(workspace: Workspace, asis: Pointer, tobe: Pointer, data_key: str) -> tuple[Pool, Live, int]:
    """What a comparison on this labelled set adds to: the pool on it, the live labels, and how many sets were
    tried with this one.

    Raises:
        Failed: a comparison or the labels are damaged.
    """
    down_at = taken_down(workspace).get(tobe.release)
    every = [summary for summary in records.summaries(workspace) if not summary.get("damaged")]
    pair = _since(_of_pair(every, asis, tobe), down_at)
    good = [summary for summary in pair if records.usable(summary)]
    same = [summary for summary in good if summary["data_key"] == data_key]
    live = read_live(workspace, asis.release, tobe.release, down_at)
    return records.pool(workspace, same), live, len({summary["data_key"] for summary in good} | {data_key})


_NOTHING = Pool()
_UNLABELLED = Live()
_UNRULED = Rule(0.05, None, 1)


@dataclass(frozen=True)
class _Verdict:
    open: bool
    reason: str
    ab: dict[str, Any] | None = None
    pool: Pool = _NOTHING
    live: Live = _UNLABELLED
    rule: Rule = _UNRULED
    missing: int | None = None
    rejected: bool = False

    @property
    def sequential(self) -> bool:
        return self.pool.looks > 1 or self.pool.sequential or self.live.labelled > 0

    @property
    def log_e(self) -> float:
        return self.pool.log_e + self.live.log_e


def _judge(workspace: Workspace, settings: Settings) -> _Verdict:
    shut = _Verdict(False, "", rule=Rule.of(settings.gate))
    asis, tobe = read_pointer(workspace, "asis"), read_pointer(workspace, "tobe")
    if tobe is None:
        return replace(shut, reason="TO-BE is empty: there is nothing to promote")
    if asis is None:
        nothing = "AS-IS is empty: there is nothing to compare with; promote with --force --reason TEXT"
        return replace(shut, reason=nothing)
    if asis.release == tobe.release:
        return replace(shut, reason="both slots hold the same release: there is nothing to promote")
    if why := rejection(workspace, release=tobe.release, sha256=tobe.checkpoint.sha256):
        return replace(shut, reason=f"{why}; deploy another", rejected=True)
    every = records.summaries(workspace)
    if broken := [summary["id"] for summary in every if summary.get("damaged")]:
        why = f"comparison {broken[0]} is damaged; move {broken[0]}.json away and compare again"
        return replace(shut, reason=why)
    down_at = taken_down(workspace).get(tobe.release)
    try:
        live = read_live(workspace, asis.release, tobe.release, down_at)
        return _weigh(workspace, settings, replace(shut, live=live), _of_pair(every, asis, tobe), down_at, every)
    except Failed as error:
        return replace(shut, reason=str(error))


def _weigh(
    workspace: Workspace,
    settings: Settings,
    shut: _Verdict,
    pair: list[dict[str, Any]],
    down_at: str | None,
    every: list[dict[str, Any]],
) -> _Verdict:
    pair = _since(pair, down_at)
    good = [summary for summary in pair if records.usable(summary)]
    newest = pair[-1] if pair else None
    shut = replace(shut, ab=newest)
    same = [summary for summary in good if newest and summary["data_key"] == newest["data_key"]]
    if not same and not shut.live.labelled:
        if down_at is not None and not pair:
            when = down_at[:16].replace("T", " ")
            why = f"TO-BE's release was rolled back from AS-IS on {when}; compare anew, run: ab"
        elif newest is None:
            other = f"; comparison {every[-1]['id']} was of other releases" if every else ""
            waiting = shut.live.waiting
            live = f", or label the {waiting:,} live requests on which they differ: label" if waiting else ""
            why = f"these two releases were not compared yet{other}; run: ab{live}"
        else:
            why = f"comparison {newest['id']} decides nothing: {newest['reason']}"
        return replace(shut, reason=why)
    sets = max(1, len({summary["data_key"] for summary in good}))
    pooled = records.pool(workspace, same) if same else _NOTHING
    return _decide(replace(shut, pool=pooled, rule=Rule.of(settings.gate, sets, pooled.first)), sets)


def _decide(verdict: _Verdict, sets: int) -> _Verdict:
    pool, live, rule = verdict.pool, verdict.live, verdict.rule
    passed, grounds = _passes(verdict)
    tail = f"; {sets} labelled sets were tried, so each is judged at {rule.alpha:.3g}" if sets > 1 else ""
    said = f"{_weighed(verdict)} ({grounds}){tail}"
    b, c = pool.b + live.b, pool.c + live.c

    if pool.n + live.weight < rule.min_images:
        missing = math.ceil(rule.min_images - pool.n - live.weight)
        total = f"{pool.n + round(live.weight):,} of gate.min_images {rule.min_images:,}"
        reason = f"at least {missing:,} more images needed: {total}"
        return _closed(verdict, reason + _more_labels(verdict, missing), missing)
    if passed and live.reversible:
        return _closed(
            verdict,
            f"{live.skipped:,} live requests were passed over, more than TO-BE's lead of {live.b - live.c:,} on them: "
            f"label some of those; {said}",
        )
    if passed:
        name = "TO-BE is better" if rule.margin is None else f"TO-BE is not worse by {rule.margin:.2%}"
        return replace(verdict, open=True, reason=f"{name}: {said}")
    if rule.contradicted(pool.b, pool.c, live.b, live.c) and b > c:
        return _closed(verdict, f"the labelled set and live requests contradict each other: {said}; look why")
    if _as_is_wins(verdict):
        return _closed(verdict, f"AS-IS is better: {said}; keep it, and reject this release or wait for a new one")
    if not pool.n:
        return _closed(verdict, f"undecided after {said}; label more live requests, or run: ab")

    def enough(b: float, c: float, n: float) -> bool:
        return rule.enough(b, c, n, live.b, live.c, live.weight)

    missing_now = st.further_images(pool.b, pool.c, pool.n, enough)
    if missing_now is None:
        return _closed(verdict, f"undecided, TO-BE is not ahead: {said}")
    reason = f"about {missing_now:,} more images needed: undecided after {said}"
    return _closed(verdict, reason + _more_labels(verdict, missing_now), missing_now)


def _passes(verdict: _Verdict) -> tuple[bool, str]:
    """Whether the rule holds, and the figure that decides, in words."""
    pool, live, rule = verdict.pool, verdict.live, verdict.rule
    b, c, n = pool.b, pool.c, pool.n
    if not verdict.sequential:
        if rule.margin is None:
            mid_p = st.mcnemar(b, c)[1]
            return b > c and mid_p < rule.first_level, f"mid-p {mid_p:.3g}, below {rule.first_level:.3g} decides"
        low, _ = st.difference_interval(b, c, n, 1 - rule.alpha)
        return low > -rule.margin, f"interval's lower end {low * 100:+.1f} points, margin {rule.margin * 100:.1f}"
    passed = rule.enough(b, c, n, live.b, live.c, live.weight)
    needed, e_value = rule.e_needed, st.exponential(verdict.log_e)
    if rule.margin is not None and n and not (b + live.b > c + live.c and verdict.log_e >= rule.threshold):
        needed, e_value = 2 / rule.alpha, st.exponential(st.log_non_inferiority_e_value(b, c, n, rule.margin))
    looks = f"{pool.looks} looks" if pool.looks > 1 else "a look that could end at any image"
    if not live.labelled:
        return passed, f"e-value {e_value:.3g} of {needed:.3g} after {looks}"
    parts = f"{st.exponential(pool.log_e):.3g} of the set x {st.exponential(live.log_e):.3g} live"
    return passed, f"e-value {e_value:.3g} of {needed:.3g}" + (f" = {parts}" if n else " live")


def _as_is_wins(verdict: _Verdict) -> bool:
    pool, live, rule = verdict.pool, verdict.live, verdict.rule
    if verdict.sequential:
        return rule.winner(pool.b, pool.c, pool.n, live.b, live.c, live.weight) == "asis"
    return pool.c > pool.b and st.mcnemar(pool.b, pool.c)[1] < rule.first_level


def _closed(verdict: _Verdict, reason: str, missing: int | None = None) -> _Verdict:
    return replace(verdict, open=False, reason=reason, missing=missing)


def _weighed(verdict: _Verdict) -> str:
    """What was looked at, in words: both kinds of evidence where there are both."""
    pool, live = verdict.pool, verdict.live
    said = []
    if pool.n:
        said.append(f"{pool.n:,} images, TO-BE {(pool.b - pool.c) / pool.n * 100:+.2f} points")
    if found := live.difference():
        passed_over = f", {live.skipped:,} passed over" if live.skipped else ""
        said.append(
            f"{live.labelled:,} labelled of {live.differed:,} differing live requests, TO-BE alone right {live.b:,} "
            f"times, AS-IS {live.c:,}{passed_over}, so {found[0] * 100:+.2f} points of {live.mirrored:,}"
        )
    return " and ".join(said)


def _more_labels(verdict: _Verdict, missing: int) -> str:
    if verdict.ab is None:
        return ""
    left = max(0, verdict.ab["available"] - verdict.pool.n)
    if left >= missing:
        return ""
    waiting = verdict.live.waiting
    live = f", or the {waiting:,} live requests that wait: label" if waiting else ""
    return f"; the labelled set has {left:,} left, so label more{live}"


def _evidence(verdict: _Verdict, settings: Settings) -> dict[str, Any]:
    pool, live = verdict.pool, verdict.live
    evidence: dict[str, Any] = {
        "n": pool.n,
        "b": pool.b,
        "c": pool.c,
        "looks": pool.looks,
        "p_value": 1.0,
        "e_value": st.exponential(verdict.log_e),
        "e_needed": verdict.rule.e_needed,
        "difference": None,
        "difference_ci95": None,
        "images_needed": None,
        "images_missing": verdict.missing,
        "rule": settings.gate.rule,
        "alpha": verdict.rule.alpha,
        "live": live.as_json() if live.mirrored or live.labelled else None,
        "opened_by": _opened_by(verdict),
        "rejected": verdict.rejected,
    }
    if live.labelled:
        evidence["p_value"] = min(1.0, math.exp(-verdict.log_e))
    elif pool.n:
        always_valid = math.exp(-pool.log_max)
        evidence["p_value"] = always_valid if verdict.sequential else st.mcnemar(pool.b, pool.c)[1]
    if pool.n:
        difference = (pool.b - pool.c) / pool.n
        evidence |= {
            "difference": difference,
            "difference_ci95": list(st.difference_interval(pool.b, pool.c, pool.n)),
            "images_needed": st.images_needed((pool.b + pool.c) / pool.n, difference),
        }
    return evidence


def _opened_by(verdict: _Verdict) -> list[str]:
    """Which evidence opened the gate: each kind that is there and does not speak against TO-BE."""
    if not verdict.open:
        return []
    kinds = {
        "labelled_set": (verdict.pool.n, verdict.pool.log_e),
        "live": (verdict.live.labelled, verdict.live.log_e),
    }
    there = [kind for kind, (count, _) in kinds.items() if count]
    return [kind for kind in there if len(there) == 1 or kinds[kind][1] > 0] or there


def _since(pair: list[dict[str, Any]], down_at: str | None) -> list[dict[str, Any]]:
    """Those after a rollback took TO-BE's release down; all of them without one."""
    return pair if down_at is None else [summary for summary in pair if parse(summary["at"]) > parse(down_at)]


def _of_pair(every: list[dict[str, Any]], asis: Pointer, tobe: Pointer) -> list[dict[str, Any]]:
    return [s for s in every if s["asis"]["release"] == asis.release and s["tobe"]["release"] == tobe.release]
