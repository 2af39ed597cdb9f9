"""When the evidence about two releases decides, at whatever image one looks: the rule of the gate, and of
`ab --until-decided`, which stops by it.

Two kinds of evidence are weighed together: images of a labelled set, and labelled live requests on which the two
differ. Each has an e-process under "both are equally good"; they are about different images, each one's next
image is a fair coin given everything before in both, so their product is an e-process too (a product of test
martingales in one filtration: Shafer et al. 2011, Stat. Sci. 26:84; Vovk and Wang 2021, Ann. Stat. 49:1736).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from engine.compare import statistics as st
from engine.config.schema import Gate

Winner = Literal["tobe", "asis"]


@dataclass(frozen=True)
class Rule:
    """What decides. `alpha` is the gate's, divided by the number of labelled sets that were tried."""

    alpha: float
    margin: float | None  # of non-inferiority; None: TO-BE must be better
    min_images: int
    first: int | None = None  # discordant images of a first look at a fixed number, which mid-p judged

    @classmethod
    def of(cls, gate: Gate, sets: int = 1, first: int | None = None) -> Rule:
        margin = gate.margin if gate.rule == "non_inferior" else None
        return cls(gate.alpha / sets, margin, gate.min_images, first)

    @property
    def first_level(self) -> float:
        """What the mid-p of a first look at a fixed number of images must be below; the rest is for later looks."""
        return st.FIRST_SHARE * self.alpha

    @property
    def e_needed(self) -> float:
        """The e-value that decides: 1/alpha, or more after a first look that mid-p judged."""
        return 1 / self.alpha if self.first is None else st.later_e_value(self.first, self.alpha)

    @property
    def threshold(self) -> float:
        """What the logarithm of an e-value must reach."""
        return math.log(self.e_needed)

    def enough(self, b: float, c: float, n: float, live_b: int = 0, live_c: int = 0, live_n: float = 0) -> bool:
        """Whether TO-BE passes; b, c, n of the labelled set, `live_*` of labelled live requests."""
        return self.winner(b, c, n, live_b, live_c, live_n) == "tobe"

    def winner(
        self, b: float, c: float, n: float, live_b: int = 0, live_c: int = 0, live_n: float = 0
    ) -> Winner | None:
        """Who wins on counts that may be looked at after every image, or None while nothing is decided."""
        if n + live_n < self.min_images:
            return None
        log_e = st.log_e_value(b, c) + st.log_e_value(live_b, live_c)
        ahead = (b + live_b) - (c + live_c)
        if log_e >= self.threshold and ahead > 0 and not self.contradicted(b, c, live_b, live_c):
            return "tobe"
        if self.not_worse(b, c, n):
            return "tobe"
        return "asis" if log_e >= self.threshold and ahead < 0 else None

    def not_worse(self, b: float, c: float, n: float) -> bool:
        """Whether the labelled set alone shows TO-BE not worse by the margin: live labels, taken where the two
        differ, say who is better and nothing of a margin."""
        if self.margin is None or n == 0:
            return False
        return st.log_non_inferiority_e_value(b, c, n, self.margin) >= math.log(2 / self.alpha)

    def contradicted(self, b: float, c: float, live_b: int, live_c: int) -> bool:
        """Whether one of the two kinds of evidence alone speaks for AS-IS, beyond chance at one look."""
        return any(
            lost > won and st.mcnemar(int(won), int(lost))[1] < self.alpha
            for won, lost in ((b, c), (live_b, live_c))
        )
