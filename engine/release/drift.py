"""Whether what one release answers differs from what another answered: one-sided and two-sample tests.

All take counts and give a p-value under "no different". In plain `math`: a statistics package costs half a
second and 50 MB in a process that lives as long as the bake. Sources are named at each test.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

_LEAST_EXPECTED = 5.0  # Cochran 1954: cells below it are pooled


def more_errors(errors: int, requests: int, errors_before: int, requests_before: int) -> float:
    """P that the new one has so many errors or more when both err alike (Fisher's exact test, one-sided;
    Fisher 1935): the upper tail of the hypergeometric distribution with all margins given."""
    total, bad = requests + requests_before, errors + errors_before
    if not errors:
        return 1.0
    logs = [
        _log_choose(bad, k) + _log_choose(total - bad, requests - k) - _log_choose(total, requests)
        for k in range(errors, min(bad, requests) + 1)
        if requests - k <= total - bad
    ]
    return min(1.0, sum(math.exp(value) for value in logs))


def errors_above(errors: int, requests: int, limit: float) -> float:
    """P of so many errors or more when the true rate is `limit`: the exact binomial tail
    (Clopper and Pearson 1934), for a release with nothing to compare it with."""
    if not errors:
        return 1.0
    low, high = math.log(limit), math.log1p(-limit)
    logs = (_log_choose(requests, k) + k * low + (requests - k) * high for k in range(errors, requests + 1))
    return min(1.0, sum(math.exp(value) for value in logs))


def confidence_shift(now: Sequence[int], before: Sequence[int]) -> tuple[float, float]:
    """`(D, p)` of the two-sample Kolmogorov-Smirnov test on two histograms with the same bins.

    D is the greatest distance of the two distribution functions, 0 to 1. p is Smirnov's limit (1948) with
    Stephens' correction for small samples (1970); on binned values it errs on the side of no alarm
    (Noether 1963).
    """
    n, m = sum(now), sum(before)
    if not n or not m:
        return 0.0, 1.0
    distance = above = below = 0.0
    for new, old in zip(now, before, strict=True):
        above, below = above + new / n, below + old / m
        distance = max(distance, abs(above - below))
    root = math.sqrt(n * m / (n + m))
    scaled = (root + 0.12 + 0.11 / root) * distance
    if scaled < 0.2:
        return distance, 1.0
    terms = (2 * (-1) ** (j - 1) * math.exp(-2 * (j * scaled) ** 2) for j in range(1, 101))
    return distance, min(1.0, max(0.0, sum(terms)))


def class_shift(now: Mapping[str, int], before: Mapping[str, int]) -> tuple[float, float]:
    """`(distance, p)`: the total variation distance of two class mixes, 0 to 1, and Pearson's chi-square test
    of homogeneity (1900), with classes too rare for it pooled."""
    n, m = sum(now.values()), sum(before.values())
    if not n or not m:
        return 0.0, 1.0
    names = sorted({*now, *before})
    pairs = [(now.get(name, 0), before.get(name, 0)) for name in names]
    distance = sum(abs(new / n - old / m) for new, old in pairs) / 2
    cells = _pooled(pairs, n, m)
    if len(cells) < 2:
        return distance, 1.0
    statistic = sum(
        (count - expected) ** 2 / expected
        for new, old in cells
        for count, expected in ((new, (new + old) * n / (n + m)), (old, (new + old) * m / (n + m)))
    )
    return distance, chi_square_tail(statistic, len(cells) - 1)


def chi_square_tail(value: float, freedom: int) -> float:
    """P[chi-square with `freedom` degrees > value], by its finite sums (Abramowitz and Stegun 26.4.4-5)."""
    half, odd = value / 2, freedom % 2
    if half <= 0:
        return 1.0
    powers = [step + odd / 2 for step in range(freedom // 2)]
    terms = (math.exp(-half + power * math.log(half) - math.lgamma(power + 1)) for power in powers)
    return min(1.0, (math.erfc(math.sqrt(half)) if odd else 0.0) + sum(terms))


def _pooled(pairs: Sequence[tuple[int, int]], n: int, m: int) -> list[tuple[int, int]]:
    """The pairs with those of small expectation in the smaller sample put together."""
    share = min(n, m) / (n + m)
    common = [pair for pair in pairs if sum(pair) * share >= _LEAST_EXPECTED]
    rare = [pair for pair in pairs if sum(pair) * share < _LEAST_EXPECTED]
    rest = (sum(new for new, _ in rare), sum(old for _, old in rare))
    if sum(rest) * share >= _LEAST_EXPECTED:
        return [*common, rest]
    if common and sum(rest):
        smallest = min(range(len(common)), key=lambda index: sum(common[index]))
        common[smallest] = (common[smallest][0] + rest[0], common[smallest][1] + rest[1])
    return common


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
