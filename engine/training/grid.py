"""The grid of a sweep: comma lists, `range()` and `choice()` on the command line, as Hydra reads them.

    model=resnet34,resnet50                 two values
    training.learning_rate=choice(0.01,0.1) the same
    training.seed=range(0,3)                0, 1, 2: half open; range(3), range(0.1,0.5,0.1) and start=, stop=, step= too
    data.mean=[0.5,0.5,0.5]                 one value: commas in brackets, braces and quotes, and \\, belong to it

Every combination is checked on the typed schema before anything is made.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from engine.config import Loaded
from engine.config.load import GROUPS
from engine.errors import UsageError
from engine.training.plan import SECTIONS

LIMIT = 1000  # runs of one sweep
# lists by nature, or nothing that could differ between runs
WHOLE = frozenset(("training.trackers", "training.mirror", "training.parallel", "training.cycle"))
_CALL = re.compile(r"^(range|choice)\((.*)\)$", re.DOTALL)
_PAIRS = {"(": ")", "[": "]", "{": "}"}


@dataclass(frozen=True)
class Cell:
    """One run of the grid: the swept overrides alone, and all overrides of its command line."""

    swept: tuple[str, ...]
    words: tuple[str, ...]


def expand(overrides: Sequence[str]) -> list[Cell]:
    """The runs of a command line; the last axis varies fastest.

    Args:
        overrides: `key=value` in their order; of two for one key the later wins.

    Raises:
        UsageError: a list or call that cannot be read, an empty one, or more than `LIMIT` runs.
    """
    axes: dict[str, list[str]] = {}
    for word in overrides:
        key, _, text = word.partition("=")
        axes.pop(key, None)
        axes[key] = values(key, text) if sweepable(key) else [text]
    count = math.prod(len(axis) for axis in axes.values())
    if count > LIMIT:
        raise UsageError(f"this sweep would have {count:,} runs", f"at most {LIMIT:,}; sweep over less at once")
    swept = [key for key, axis in axes.items() if len(axis) > 1]
    cells = []
    for choice in itertools.product(*axes.values()):
        words = {key: f"{key}={value}" for key, value in zip(axes, choice, strict=True)}
        cells.append(Cell(tuple(words[key] for key in swept), tuple(words.values())))
    return cells


def check(cells: Sequence[Cell], load: Callable[[Sequence[str]], Loaded]) -> list[Loaded]:
    """Each cell's settings on the typed schema.

    Raises:
        UsageError: of the first one that is wrong; it names the run where the grid has several.
    """
    found = []
    for cell in cells:
        try:
            found.append(load(cell.words))
        except UsageError as error:
            if len(cells) == 1 or not cell.swept:
                raise
            raise UsageError(f"{error.message} (in {' '.join(cell.swept)})", error.hint, kind=error.kind) from None
    return found


def sweepable(key: str) -> bool:
    """Whether runs may differ in this setting; what is not of the run is taken as it stands."""
    return (key in GROUPS or key.partition(".")[0] in (*SECTIONS, "defaults")) and key not in WHOLE


def values(key: str, text: str) -> list[str]:
    """The values of one override.

    Raises:
        UsageError: it cannot be read, or there are none.
    """
    parts = _split(key, text)
    call = _CALL.match(text.strip()) if len(parts) == 1 else None
    if call is None:
        if len(parts) > 1 and any(_CALL.match(part) for part in parts):
            raise UsageError(f"'{key}={text}' mixes a list and a call", "write choice(...) or range(...) alone")
        found = parts
    elif call[1] == "range":
        found = _range(key, text, [part for part in _split(key, call[2]) if part])
    else:
        found = _split(key, call[2])
    if (len(found) > 1 or call) and not all(found):
        raise UsageError(f"'{key}={text}' has an empty value", "write key=a,b or key=choice(a,b)")
    return [_plain(value) if key in GROUPS or key.startswith("defaults.") else value for value in found]


def _split(key: str, text: str) -> list[str]:
    """`text` at the commas that separate; an escaped comma loses its backslash."""
    parts, current, closing, quote, position = [], "", [], "", 0
    while position < len(text):
        char = text[position]
        if text[position : position + 2] == "\\,":
            current, position = current + ",", position + 2
            continue
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in _PAIRS:
            closing.append(_PAIRS[char])
        elif closing and char == closing[-1]:
            closing.pop()
        elif char == "," and not closing:
            parts.append(current.strip())
            current, position = "", position + 1
            continue
        current, position = current + char, position + 1
    if (closing or quote) and parts:
        raise UsageError(
            f"'{key}={text}' is not closed: {quote or closing[-1]} is missing", "close it, or quote it"
        )
    return [*parts, current.strip()] if parts else [current]


def _range(key: str, text: str, words: list[str]) -> list[str]:
    """Hydra's `range(stop)`, `range(start, stop[, step])`, also with the names; exact in decimals."""
    names = ["start", "stop", "step"]
    given: dict[str, str] = {}
    plain = [word for word in words if "=" not in word]
    given |= {"stop": plain[0]} if len(plain) == 1 else dict(zip(names, plain, strict=False))
    for word in words:
        name, equals, value = word.partition("=")
        if equals:
            given[name.strip()] = value.strip()
    try:
        if len(plain) > 3 or not set(given) <= set(names):
            raise KeyError
        start, stop, step = (Decimal({"start": "0", "step": "1", **given}[name]) for name in names)
        count = math.ceil((stop - start) / step)
    except (KeyError, InvalidOperation, ArithmeticError, ValueError, OverflowError):
        raise UsageError(
            f"'{key}={text}' is not a range", "write range(start,stop) or range(start,stop,step)"
        ) from None
    if count < 1:
        raise UsageError(f"'{key}={text}' is empty", "a range holds its start and leaves out its stop")
    if count > LIMIT:
        raise UsageError(f"'{key}={text}' has {count:,} values", f"at most {LIMIT:,}; sweep over less at once")
    return [format(start + step * number, "f") for number in range(count)]


def _plain(text: str) -> str:
    """A group's name without its quotes."""
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text
