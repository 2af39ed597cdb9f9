"""The comparison's mathematics: published figures, laws that hold for all counts, and error rates by simulation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.compare import statistics as s

counts = st.integers(0, 400)


@st.composite
def tables(draw: st.DrawFn) -> tuple[int, int, int]:
    b, c = draw(counts), draw(counts)
    return b, c, b + c + draw(st.integers(0, 2000))


@pytest.mark.parametrize(
    ("b", "c", "exact", "mid_p", "low", "high"),
    [
        (2, 0, 0.500, 0.250, -1.9, 5.8),
        (5, 3, 0.727, 0.508, -4.1, 8.0),
        (11, 9, 0.824, 0.664, -7.0, 11.0),
        (15, 13, 0.851, 0.711, -8.6, 12.5),
    ],
)
def test_the_table_of_the_manual(b: int, c: int, exact: float, mid_p: float, low: float, high: float) -> None:
    assert s.mcnemar(b, c) == (pytest.approx(exact, abs=5e-4), pytest.approx(mid_p, abs=5e-4))
    interval = s.difference_interval(b, c, 100)
    assert interval == (pytest.approx(low / 100, abs=5e-4), pytest.approx(high / 100, abs=5e-4))


@pytest.mark.parametrize(("discordance", "images"), [(0.05, 979), (0.10, 1960), (0.20, 3922)])
def test_images_needed_for_85_against_87_percent(discordance: float, images: int) -> None:
    assert s.images_needed(discordance, 0.02) == images
    assert s.images_needed(discordance, -0.02) == images


def test_no_gap_needs_no_number_and_an_impossible_gap_is_an_error() -> None:
    assert s.images_needed(0.1, 0.0) is None
    with pytest.raises(ValueError, match="discordance"):
        s.images_needed(0.01, 0.02)
    for impossible in (lambda: s.mcnemar(-1, 2), lambda: s.difference_interval(3, 3, 5), lambda: s.wilson(3, 2)):
        with pytest.raises(ValueError, match=r"impossible|correct"):
            impossible()


def test_quantiles() -> None:
    assert s.quantile(0.975) == pytest.approx(1.959963984540054, abs=1e-12)
    assert s.quantile(0.8) == pytest.approx(0.8416212335729143, abs=1e-12)
    assert s.quantile(1e-10) == pytest.approx(-6.361340902404, abs=1e-9)
    assert s.quantile(0.5) == pytest.approx(0, abs=1e-15)


def test_wilson_against_published_figures() -> None:
    assert s.wilson(0, 0) == (0.0, 1.0)
    assert s.wilson(81, 263) == (pytest.approx(0.2553, abs=5e-5), pytest.approx(0.3662, abs=5e-5))  # Newcombe 1998
    assert s.wilson(0, 20) == (0.0, pytest.approx(0.1611, abs=5e-5))
    assert s.wilson(29, 29) == (pytest.approx(0.8830, abs=5e-5), 1.0)


@given(counts, counts)
def test_p_values_are_probabilities_symmetric_and_exact(b: int, c: int) -> None:
    exact, mid_p = s.mcnemar(b, c)
    assert 0 <= mid_p <= exact <= 1
    assert (exact, mid_p) == s.mcnemar(c, b)
    if b == c:
        assert (exact, mid_p) == (1, 1)
    else:
        tail = sum(math.comb(b + c, i) for i in range(min(b, c) + 1))
        point = math.comb(b + c, min(b, c))
        assert exact == pytest.approx(min(1, 2 * tail / 2 ** (b + c)), rel=1e-9, abs=1e-300)
        assert mid_p == pytest.approx((2 * tail - point) / 2 ** (b + c), rel=1e-9, abs=1e-300)


@given(tables())
def test_the_interval_is_bounded_mirrors_itself_and_holds_the_adjusted_gap(table: tuple[int, int, int]) -> None:
    b, c, n = table
    low, high = s.difference_interval(b, c, n)
    assert -1 <= low <= (b - c) / (n + 2) <= high <= 1
    assert s.difference_interval(c, b, n) == (pytest.approx(-high), pytest.approx(-low))
    assert s.non_inferior(b, c, n, 0.02) == (n > 0 and low > -0.02)


@given(st.integers(0, 500), st.integers(0, 500))
def test_wilson_is_bounded_and_mirrors_itself(correct: int, wrong: int) -> None:
    n = correct + wrong
    low, high = s.wilson(correct, n)
    assert 0 <= low <= (correct / n if n else 0.5) + 1e-12
    assert (correct / n if n else 0.5) - 1e-12 <= high <= 1
    mirrored = s.wilson(wrong, n)
    assert (low, high) == (pytest.approx(1 - mirrored[1]), pytest.approx(1 - mirrored[0]))


@given(st.lists(st.tuples(st.booleans(), st.booleans()), max_size=300))
def test_the_running_process_is_the_closed_form_and_its_p_value_never_rises(
    outcomes: list[tuple[bool, bool]],
) -> None:
    process, last = s.EProcess(), 1.0
    for tobe, asis in outcomes:
        process.see(tobe, asis)
        assert process.p_value <= last
        last = process.p_value
    assert process.log_e == pytest.approx(s.log_e_value(process.b, process.c), abs=1e-9)
    assert s.log_e_value(process.b, process.c) == pytest.approx(s.log_e_value(process.c, process.b))
    assert 0 < process.p_value <= 1


@given(st.integers(0, 60), st.integers(0, 60))
def test_the_e_process_is_a_martingale_under_the_null(b: int, c: int) -> None:
    following = (math.exp(s.log_e_value(b + 1, c)) + math.exp(s.log_e_value(b, c + 1))) / 2
    assert following == pytest.approx(math.exp(s.log_e_value(b, c)), rel=1e-9)


@given(tables(), st.floats(0, 0.2))
def test_the_non_inferiority_process_never_gains_on_average_at_the_margin(
    table: tuple[int, int, int], margin: float
) -> None:
    b, c, n = table
    worse = (0.1 + margin) / 1.0  # b with 10%, c with 10% + margin: a mean of exactly -margin
    base = s.log_non_inferiority_e_value(b, c, n, margin)
    following = (
        0.1 * math.exp(s.log_non_inferiority_e_value(b + 1, c, n + 1, margin) - base)
        + worse * math.exp(s.log_non_inferiority_e_value(b, c + 1, n + 1, margin) - base)
        + (0.9 - worse) * math.exp(s.log_non_inferiority_e_value(b, c, n + 1, margin) - base)
    )
    assert following <= 1 + 1e-9


def test_very_large_counts_neither_overflow_nor_take_long() -> None:
    assert s.mcnemar(60_000, 50_000)[0] < 1e-100
    assert s.e_value(500_000, 100_000) == pytest.approx(math.exp(690))


def test_further_images_are_what_brings_e_to_the_threshold() -> None:
    def reached(b: float, c: float, n: float) -> bool:
        return b > c and s.log_e_value(b, c) >= math.log(20)

    more = s.further_images(60, 40, 1000, reached)
    assert more is not None
    grown = (1000 + more) / 1000
    assert s.e_value(60 * grown, 40 * grown) == pytest.approx(20, rel=0.02)
    assert s.further_images(40, 60, 1000, reached) is None
    assert s.further_images(0, 0, 0, reached) is None
    assert s.further_images(90, 10, 1000, reached) == 0


def test_looking_at_every_image_errs_less_than_alpha_and_a_fixed_n_p_value_does_not() -> None:
    """2,000 images, psi .10, no difference: the e-process at every image, the p-value at every hundredth."""
    random = np.random.default_rng(20261120)
    trials, images = 1500, 2000
    steps = random.choice(np.array([1, -1, 0], np.int8), p=[0.05, 0.05, 0.9], size=(trials, images))
    e_errs = p_errs = 0
    for path in steps:
        process = s.EProcess()
        for step in path[path != 0]:
            process.see(bool(step > 0), bool(step < 0))
        e_errs += process.p_value <= 0.05
        b, c = np.cumsum(path > 0), np.cumsum(path < 0)
        p_errs += any(s.mcnemar(int(b[i]), int(c[i]))[1] < 0.05 for i in range(99, images, 100))
    assert e_errs / trials < 0.05
    assert p_errs / trials == pytest.approx(0.24, abs=0.035)


@pytest.mark.parametrize(("asis", "tobe"), [(0.85, 0.87), (0.9, 0.9), (0.5, 0.4)])
def test_the_interval_covers_the_true_gap(asis: float, tobe: float) -> None:
    random = np.random.default_rng(7)
    gap, n, trials = tobe - asis, 200, 3000
    only_tobe = 0.05 + max(gap, 0)
    only_asis = only_tobe - gap
    draws = random.multinomial(n, [only_tobe, only_asis, 1 - only_tobe - only_asis], size=trials)
    covered = sum(
        low <= gap <= high for low, high in (s.difference_interval(int(b), int(c), n) for b, c, _ in draws)
    )
    assert covered / trials == pytest.approx(0.95, abs=0.02)


def test_wilson_covers_the_true_accuracy() -> None:
    random = np.random.default_rng(3)
    drawn = random.binomial(300, 0.87, 4000)
    covered = sum(low <= 0.87 <= high for low, high in (s.wilson(int(right), 300) for right in drawn))
    assert covered / 4000 == pytest.approx(0.95, abs=0.02)


def test_more_correct_answers_win_is_noise_and_the_gate_has_the_stated_power() -> None:
    random = np.random.default_rng(11)

    def drawn(n: int, gap: float, trials: int = 4000) -> list[tuple[int, int]]:
        cells = [0.05 + gap / 2, 0.05 - gap / 2, 0.9]
        return [(int(b), int(c)) for b, c, _ in random.multinomial(n, cells, size=trials)]

    assert sum(b > c for b, c in drawn(100, 0)) / 4000 == pytest.approx(0.44, abs=0.025)
    assert sum(b > c for b, c in drawn(100, -0.02)) / 4000 == pytest.approx(0.21, abs=0.025)
    for n, power in ((100, 0.07), (300, 0.17), (1000, 0.49), (2000, 0.83)):
        opened = sum(b > c and s.mcnemar(b, c)[1] < 0.05 for b, c in drawn(n, 0.02)) / 4000
        assert opened == pytest.approx(power, abs=0.025), n


@pytest.mark.parametrize("alpha", [0.1, 0.05, 0.01])
def test_a_first_look_by_mid_p_and_all_later_ones_by_e_stay_under_alpha(alpha: float) -> None:
    """Exactly: what each may err, given how many images of the first were right for one release alone."""
    first = []
    for discordant in range(150):
        needed = s.later_e_value(discordant, alpha)
        assert needed >= 1 / alpha
        named = later = 0.0
        for b in range(discordant + 1):
            share = math.comb(discordant, b) / 2**discordant
            if s.mcnemar(b, discordant - b)[1] < s.FIRST_SHARE * alpha:
                named += share
            else:
                later += share * min(1.0, s.e_value(b, discordant - b) / needed)
        first.append(named)
        assert later <= (1 - s.FIRST_SHARE) * alpha * (1 + 1e-9), "Ville's bound, however often one looks"
    for mean in (2, 5, 8, 10, 20, 50, 100):  # how many differ is chance too
        chances = [math.exp(m * math.log(mean) - mean - math.lgamma(m + 1)) for m in range(150)]
        assert sum(map(math.prod, zip(chances, first, strict=True))) <= s.FIRST_SHARE * alpha
    assert s.later_e_value(20_000, alpha) == 1 / alpha, "a large first look leaves all to the later ones"
