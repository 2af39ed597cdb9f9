"""The gate before AS-IS: whether the comparisons of exactly these two releases say that TO-BE may go there.

All comparisons of the two on one labelled set are pooled, each image once. One completed look is judged by its
mid-p (or its interval); after more, or one that was interrupted, by the e-value, which may be looked at as often as
one likes. Both let a worse-than-equal TO-BE pass with at most alpha/2, so even a first look followed by
others stays under alpha. Each further labelled set that was tried for the same two divides alpha.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from engine.compare import records
from engine.compare import statistics as st
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
        (mid-p of one look, else the always-valid 1 / max E), `e_value`, `difference`, `difference_ci95`,
        `images_needed` (in all, for a gap of this size in one look), `images_missing` (about how many more
        from here), `rule`, `alpha`.

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


_NOTHING = Pool()


@dataclass(frozen=True)
class _Verdict:
    open: bool
    reason: str
    ab: dict[str, Any] | None = None
    pool: Pool = _NOTHING
    alpha: float = 0.05
    missing: int | None = None

    @property
    def sequential(self) -> bool:
        return self.pool.looks > 1 or self.pool.interrupted


def _judge(workspace: Workspace, settings: Settings) -> _Verdict:
    alpha = settings.gate.alpha
    asis, tobe = read_pointer(workspace, "asis"), read_pointer(workspace, "tobe")
    if tobe is None:
        return _Verdict(False, "TO-BE is empty: there is nothing to promote", alpha=alpha)
    if asis is None:
        return _Verdict(
            False,
            "AS-IS is empty: there is nothing to compare with; promote with --force --reason TEXT",
            alpha=alpha,
        )
    if asis.release == tobe.release:
        return _Verdict(False, "both slots hold the same release: there is nothing to promote", alpha=alpha)
    if why := rejection(workspace, release=tobe.release, sha256=tobe.checkpoint.sha256):
        return _Verdict(False, f"{why}; deploy another", alpha=alpha)
    every = records.summaries(workspace)
    if broken := [summary["id"] for summary in every if summary.get("damaged")]:
        return _Verdict(
            False, f"comparison {broken[0]} is damaged; move {broken[0]}.json away and compare again", alpha=alpha
        )
    return _weigh(workspace, settings, _of_pair(every, asis, tobe), taken_down(workspace).get(tobe.release), every)


def _weigh(
    workspace: Workspace,
    settings: Settings,
    pair: list[dict[str, Any]],
    down_at: str | None,
    every: list[dict[str, Any]],
) -> _Verdict:
    alpha = settings.gate.alpha
    if down_at is not None:
        pair = [summary for summary in pair if parse(summary["at"]) > parse(down_at)]
        if not pair:
            when = down_at[:16].replace("T", " ")
            return _Verdict(
                False, f"TO-BE's release was rolled back from AS-IS on {when}; compare anew, run: ab", alpha=alpha
            )
    if not pair:
        other = f"; comparison {every[-1]['id']} was of other releases" if every else ""
        return _Verdict(False, f"these two releases were not compared yet{other}; run: ab", alpha=alpha)
    newest = pair[-1]
    good = [summary for summary in pair if records.usable(summary)]
    same = [summary for summary in good if summary["data_key"] == newest["data_key"]]
    if not same:
        return _Verdict(
            False, f"comparison {newest['id']} decides nothing: {newest['reason']}", newest, alpha=alpha
        )
    sets = len({summary["data_key"] for summary in good})
    try:
        pooled = records.pool(workspace, same)
    except Failed as error:
        return _Verdict(False, str(error), newest, alpha=alpha)
    verdict = _Verdict(False, "", newest, pooled, alpha / sets)
    return _decide(verdict, settings, sets)


def _decide(verdict: _Verdict, settings: Settings, sets: int) -> _Verdict:
    rule, pool, alpha = settings.gate.rule, verdict.pool, verdict.alpha
    passed, grounds = _passes(verdict, settings)
    tail = f"; {sets} labelled sets were tried, so each is judged at {alpha:.3g}" if sets > 1 else ""
    said = f"{pool.n:,} images, {_points(pool)} ({grounds}){tail}"

    def enough(b: float, c: float, n: float) -> bool:
        if n < settings.gate.min_images:
            return False
        if b > c and st.log_e_value(b, c) >= -math.log(alpha):
            return True
        return rule == "non_inferior" and (
            st.log_non_inferiority_e_value(b, c, n, settings.gate.margin) >= -math.log(alpha / 2)
        )

    if pool.n < settings.gate.min_images:
        missing = settings.gate.min_images - pool.n
        reason = (
            f"at least {missing:,} more images needed: {pool.n:,} of gate.min_images {settings.gate.min_images:,}"
        )
        return _closed(verdict, reason + _more_labels(verdict, missing), missing)
    if passed:
        name = "TO-BE is better" if rule == "superior" else f"TO-BE is not worse by {settings.gate.margin:.2%}"
        return _Verdict(True, f"{name}: {said}", verdict.ab, pool, alpha)
    if pool.c > pool.b and st.mcnemar(pool.b, pool.c)[1] < alpha:
        return _closed(verdict, f"AS-IS is better: {said}; keep it, and reject this release or wait for a new one")
    missing_now = st.further_images(pool.b, pool.c, pool.n, enough)
    if missing_now is None:
        return _closed(verdict, f"undecided, TO-BE is not ahead: {said}")
    reason = f"about {missing_now:,} more images needed: undecided after {said}"
    return _closed(verdict, reason + _more_labels(verdict, missing_now), missing_now)


def _passes(verdict: _Verdict, settings: Settings) -> tuple[bool, str]:
    """Whether the rule holds, and the figure that decides, in words."""
    pool, alpha, margin = verdict.pool, verdict.alpha, settings.gate.margin
    b, c, n = pool.b, pool.c, pool.n
    if verdict.sequential:
        better = b > c and pool.log_e >= -math.log(alpha)
        looks = f"{pool.looks} looks" if pool.looks > 1 else "an interrupted look"
        if settings.gate.rule == "superior":
            return better, f"e-value {st.exponential(pool.log_e):.3g} of {1 / alpha:.3g} after {looks}"
        log_e = st.log_non_inferiority_e_value(b, c, n, margin)
        return (
            better or log_e >= -math.log(alpha / 2),
            f"e-value {st.exponential(log_e):.3g} of {2 / alpha:.3g} after {looks}",
        )
    if settings.gate.rule == "superior":
        mid_p = st.mcnemar(b, c)[1]
        return b > c and mid_p < alpha, f"mid-p {mid_p:.3g}"
    low, _ = st.difference_interval(b, c, n, 1 - alpha)
    return low > -margin, f"interval's lower end {low * 100:+.1f} points, margin {margin * 100:.1f}"


def _closed(verdict: _Verdict, reason: str, missing: int | None = None) -> _Verdict:
    return _Verdict(False, reason, verdict.ab, verdict.pool, verdict.alpha, missing)


def _points(pool: Pool) -> str:
    return f"TO-BE {(pool.b - pool.c) / pool.n * 100:+.2f} points"


def _more_labels(verdict: _Verdict, missing: int) -> str:
    assert verdict.ab is not None
    left = max(0, verdict.ab["available"] - verdict.pool.n)
    return f"; the labelled set has {left:,} left, so label more" if left < missing else ""


def _evidence(verdict: _Verdict, settings: Settings) -> dict[str, Any]:
    pool = verdict.pool
    evidence: dict[str, Any] = {
        "n": pool.n,
        "b": pool.b,
        "c": pool.c,
        "looks": pool.looks,
        "p_value": 1.0,
        "e_value": 1.0,
        "difference": None,
        "difference_ci95": None,
        "images_needed": None,
        "images_missing": verdict.missing,
        "rule": settings.gate.rule,
        "alpha": verdict.alpha,
    }
    if pool.n:
        difference = (pool.b - pool.c) / pool.n
        evidence |= {
            "p_value": math.exp(-pool.log_max) if verdict.sequential else st.mcnemar(pool.b, pool.c)[1],
            "e_value": st.exponential(pool.log_e),
            "difference": difference,
            "difference_ci95": list(st.difference_interval(pool.b, pool.c, pool.n)),
            "images_needed": st.images_needed((pool.b + pool.c) / pool.n, difference),
        }
    return evidence


def _of_pair(every: list[dict[str, Any]], asis: Pointer, tobe: Pointer) -> list[dict[str, Any]]:
    return [s for s in every if s["asis"]["release"] == asis.release and s["tobe"]["release"] == tobe.release]
