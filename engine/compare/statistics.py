"""What paired right and wrong answers say about which of two releases is better.

Of n images that both releases answered, b count those that only TO-BE got right and c those that only
AS-IS got right; the others carry no information about which is better. Pure `math`: a statistics package
would cost every quick verb half a second.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache

A = 10.0  # both parameters of the e-process's beta prior: tuned to gaps of a fifth of the discordant images
FIRST_SHARE = 0.9  # of alpha: what a first look at a fixed number of images may spend
_LN2 = math.log(2)


def quantile(probability: float) -> float:
    """The standard normal quantile of a probability in (0, 1), to about 1e-12 (Newton's method on erfc)."""
    if not 0 < probability < 1:
        raise ValueError(f"probability {probability} is not between 0 and 1")
    low, high = -40.0, 40.0
    guess = 0.0
    for _ in range(200):
        below = 0.5 * math.erfc(-guess / math.sqrt(2)) - probability
        if below > 0:
            high = guess
        else:
            low = guess
        density = math.exp(-guess * guess / 2) / math.sqrt(2 * math.pi)
        step = guess - below / density if density > 0 else math.inf
        following = step if low <= step <= high else (low + high) / 2
        if abs(following - guess) < 1e-14 * max(1.0, abs(guess)):
            return following
        guess = following
    return guess


def mcnemar(b: int, c: int) -> tuple[float, float]:
    """McNemar's two-sided p-values of b against c: (exact, mid-p); both are 1 when b = c.

    Exact: min(1, 2 P[Bin(b+c, 1/2) <= min(b, c)]). Mid-p: that less P[Bin(b+c, 1/2) = min(b, c)]
    (Fagerland, Lydersen, Laake 2013, BMC Med Res Methodol 13:91).

    Raises:
        ValueError: a negative count.
    """
    _check(b, c)
    if b == c:
        return 1.0, 1.0
    trials, fewer = b + c, min(b, c)
    point = math.exp(
        math.lgamma(trials + 1) - math.lgamma(fewer + 1) - math.lgamma(trials - fewer + 1) - trials * _LN2
    )
    tail = term = point
    for successes in range(fewer, 0, -1):
        term *= successes / (trials - successes + 1)
        tail += term
        if term < tail * 1e-18:
            break
    return min(1.0, 2 * tail), min(1.0, max(0.0, 2 * tail - point))


def difference_interval(b: float, c: float, n: float, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of TO-BE's accuracy less AS-IS's, both fractions.

    Bonett and Price 2012 (J. Educ. Behav. Stat. 37(4)): the Wald interval of paired proportions after one
    image is added to each of the two discordant cells.

    Raises:
        ValueError: negative counts, or b + c > n.
    """
    _check(b, c, n)
    total = n + 2
    gained, lost = (b + 1) / total, (c + 1) / total
    middle = gained - lost
    half = quantile(0.5 + confidence / 2) * math.sqrt((gained + lost - middle * middle) / total)
    return max(-1.0, middle - half), min(1.0, middle + half)


def wilson(correct: int, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of one accuracy, a fraction (Wilson 1927, J. Am. Stat. Assoc. 22:209); (0, 1) for no images.

    Raises:
        ValueError: `correct` is not between 0 and n.
    """
    if not 0 <= correct <= n:
        raise ValueError(f"{correct} correct of {n}")
    if n == 0:
        return 0.0, 1.0
    z = quantile(0.5 + confidence / 2)
    share, weight = correct / n, z * z / n
    middle = (share + weight / 2) / (1 + weight)
    half = z * math.sqrt(share * (1 - share) / n + weight / (4 * n)) / (1 + weight)
    low = 0.0 if correct == 0 else max(0.0, middle - half)
    high = 1.0 if correct == n else min(1.0, middle + half)
    return low, high


def images_needed(discordance: float, difference: float, alpha: float = 0.05, power: float = 0.8) -> int | None:
    """How many images in all show a gap of this size in one look, or None when there is no gap.

    N = (z[1-alpha/2] sqrt(psi) + z[power] sqrt(psi - delta^2))^2 / delta^2, to the nearest image
    (Connor 1987, Biometrics 43:207).

    Args:
        discordance: psi, the share of images that exactly one release gets right.
        difference: delta, the gap of accuracies, a fraction; its sign does not matter.

    Raises:
        ValueError: the gap is wider than the discordance allows.
    """
    gap = abs(difference)
    if gap == 0:
        return None
    if gap > discordance + 1e-12:
        raise ValueError(f"a gap of {gap} needs a discordance of at least that, not {discordance}")
    spread = math.sqrt(max(0.0, discordance - gap * gap))
    wanted = quantile(1 - alpha / 2) * math.sqrt(discordance) + quantile(power) * spread
    return max(1, round(wanted * wanted / (gap * gap)))


def log_e_value(b: float, c: float, a: float = A) -> float:
    """The natural logarithm of E = 2^(b+c) B(a+b, a+c) / B(a, a).

    E is an e-process under b ~ Bin(b+c, 1/2): it passes 1/alpha, at whatever image one looks, with
    probability alpha at most (Ville 1939; Robbins 1970, Ann. Math. Stat. 41:1397; Howard et al. 2021,
    Ann. Stat. 49(2)).
    """
    _check(b, c)
    return (b + c) * _LN2 + _log_beta(a + b, a + c) - _log_beta(a, a)


@lru_cache(maxsize=64)
def later_e_value(discordant: int, alpha: float) -> float:
    """What the e-value must reach after a first look at a fixed number of images that named nobody.

    That look spends FIRST_SHARE of alpha: mid-p below it, on m = `discordant` images. The rest is for all later
    looks (alpha spending: Lan and DeMets 1983, Biometrika 70:659). Given m, "equally good" makes k = min(b, c)
    binomial, and the e-process goes on from E(k) as a martingale: from there it ever reaches K with probability
    E(k) / K at most (Ville 1939). So a later look names a winner with probability at most

        sum of P(k) E(k) / K over the k that the first look left undecided,

    where the sum is 1 less that over the k that it decided, for the mean of E is 1. The K returned makes this
    (1 - FIRST_SHARE) alpha; it is never below 1 / alpha.
    """
    below = decided = 0.0
    for fewer in range((discordant + 1) // 2):
        log_point = math.lgamma(discordant + 1) - math.lgamma(fewer + 1) - math.lgamma(discordant - fewer + 1)
        log_point -= discordant * _LN2
        if 2 * below + math.exp(log_point) >= FIRST_SHARE * alpha:  # the mid-p of this k
            break
        below += math.exp(log_point)
        decided += 2 * math.exp(log_point + log_e_value(discordant - fewer, fewer))
    return max(1 / alpha, (1 - decided) / ((1 - FIRST_SHARE) * alpha))


def e_value(b: float, c: float, a: float = A) -> float:
    """E itself, as `log_e_value`; at most the largest float."""
    return exponential(log_e_value(b, c, a))


def exponential(logarithm: float) -> float:
    """exp, at most 1e300: a figure that JSON can carry."""
    return math.exp(min(logarithm, 690.0))


@dataclass
class EProcess:
    """The e-process along a sequence of discordant images, with the largest value so far.

    `p_value` is valid at every image at once: 1 / max E so far.
    """

    a: float = A
    b: int = 0
    c: int = 0
    log_e: float = 0.0
    log_max: float = field(default=0.0)

    def see(self, tobe_right: bool, asis_right: bool) -> float:
        """Take one image's two outcomes in and return log E; images on which both agree change nothing."""
        if tobe_right != asis_right:
            ahead = self.a + (self.b if tobe_right else self.c)
            self.log_e += _LN2 + math.log(ahead / (2 * self.a + self.b + self.c))
            self.b += tobe_right
            self.c += asis_right
            self.log_max = max(self.log_max, self.log_e)
        return self.log_e

    @property
    def p_value(self) -> float:
        return math.exp(-self.log_max)


def further_images(b: int, c: int, n: int, reached: Callable[[float, float, float], bool]) -> int | None:
    """About how many more images satisfy `reached(b, c, n)` if they go on as the n so far, or None.

    A projection, not a promise: the counts are extended in proportion. None when 10^9 images would not do.
    """
    _check(b, c, n)
    if n == 0:
        return None
    low, high = 0.0, 1.0
    if reached(b, c, n):
        return 0
    while not reached(b * (1 + high), c * (1 + high), n * (1 + high)):
        low, high = high, high * 2
        if high * n > 1e9:
            return None
    while (high - low) * n > 0.5:
        middle = 1 + (low + high) / 2
        low, high = (low, middle - 1) if reached(b * middle, c * middle, n * middle) else (middle - 1, high)
    return math.ceil(high * n)


def two_phase_difference(
    b: int, c: int, labelled: int, differing: int, mirrored: int, confidence: float = 0.95
) -> tuple[float, float, float]:
    """TO-BE's accuracy less AS-IS's on live traffic, and its interval: (difference, low, high), fractions.

    Both releases answer `mirrored` requests and give different answers to `differing` of them; a random
    `labelled` of those get a true label: b times TO-BE is right, c times AS-IS, else neither. Where the answers
    agree both are right or both wrong, so that stratum adds exactly nothing to the difference and needs no label
    (Schatzkin, Connor, Taylor, Bunnag 1987, Am. J. Epidemiol. 125:672: comparing two tests by McNemar's where the
    reference cannot be had for everybody). What is left is double sampling (Neyman 1938, J. Am. Stat. Assoc. 33:101):

        delta = psi tau,  psi = differing / mirrored,  tau = (b - c) / labelled.

    Given how many differ, tau is a mean over a random part of them and independent of psi, so by the delta method

        Var = psi^2 ((b + c)/labelled - tau^2) / labelled + tau^2 psi (1 - psi) / mirrored.

    The interval is Wald's after the adjustment of Bonett and Price 2012: one more request that only TO-BE gets
    right and one more that only AS-IS does, in all three totals. With every differing request labelled the
    variance collapses to theirs, and the interval equals `difference_interval(b, c, mirrored)`.

    Raises:
        ValueError: b + c > labelled > differing > mirrored somewhere, or nothing was labelled.
    """
    if not 0 <= b + c <= labelled <= differing <= mirrored or min(b, c) < 0 or labelled == 0:
        raise ValueError(f"impossible counts: b {b}, c {c}, labelled {labelled} of {differing} of {mirrored}")
    parts, differ, total = labelled + 2, differing + 2, mirrored + 2
    psi, tau = differ / total, (b - c) / parts
    spread = (b + c + 2) / parts - tau * tau
    variance = psi * psi * spread / parts + tau * tau * psi * (1 - psi) / total
    middle, half = psi * tau, quantile(0.5 + confidence / 2) * math.sqrt(variance)
    found = differing / mirrored * (b - c) / labelled
    return found, max(-1.0, middle - half), min(1.0, middle + half)


def non_inferior(b: float, c: float, n: float, margin: float, confidence: float = 0.95) -> bool:
    """Whether the lower end of the difference's interval is above -margin: TO-BE is not worse by the margin."""
    return n > 0 and difference_interval(b, c, n, confidence)[0] > -margin


def log_non_inferiority_e_value(b: float, c: float, n: float, margin: float) -> float:
    """The natural logarithm of an e-process under "TO-BE is worse by the margin or more".

    Each image pays x = +1, -1 or 0 (TO-BE alone right, AS-IS alone right, no difference); under the null its
    mean is at most -margin, so the product of 1 + s (x + margin) is a supermartingale for every stake s in
    [0, 1 / (1 - margin)), and so is the mean over stakes (Waudby-Smith and Ramdas 2024, J. R. Stat. Soc. B
    86(1)). It may be looked at after every image.

    Raises:
        ValueError: negative counts, b + c > n, or a margin outside [0, 1).
    """
    _check(b, c, n)
    if not 0 <= margin < 1:
        raise ValueError(f"margin {margin} is not in [0, 1)")
    largest = 1 / (1 - margin)
    logs = []
    for step in range(1, 41):
        stake = largest * 0.95 * (step / 40) ** 2
        won, lost, same = 1 + stake * (1 + margin), 1 - stake * (1 - margin), 1 + stake * margin
        logs.append(b * math.log(won) + c * math.log(lost) + (n - b - c) * math.log(same))
    top = max(logs)
    return top + math.log(sum(math.exp(value - top) for value in logs) / len(logs))


def _log_beta(first: float, second: float) -> float:
    return math.lgamma(first) + math.lgamma(second) - math.lgamma(first + second)


def _check(b: float, c: float, n: float | None = None) -> None:
    if b < 0 or c < 0 or (n is not None and b + c > n * (1 + 1e-12)):
        raise ValueError(f"impossible counts: b {b}, c {c}" + ("" if n is None else f", n {n}"))
