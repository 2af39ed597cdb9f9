"""What a torch checkpoint says of itself, read without torch and without unpickling anything.

`torch.save` writes a zip whose `data.pkl` is a pickle. Its opcodes are walked by a tiny machine that knows plain
values, dicts, lists and tuples; everything else (tensors, classes, calls) is an opaque token. Nothing that the file
names is ever imported or called, so a hostile file can only be misread. For showing; never for deciding.
"""

from __future__ import annotations

import math
import pickletools
import zipfile
from pathlib import Path
from typing import Any

_LARGEST = 8 << 20  # bytes of data.pkl; real ones have kilobytes
_MARK, _OPAQUE = object(), object()
_VALUES = frozenset(
    [
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "BINUNICODE8",
        "UNICODE",
        "BININT",
        "BININT1",
        "BININT2",
        "INT",
        "LONG",
        "LONG1",
        "LONG4",
        "BINFLOAT",
        "FLOAT",
    ]
)
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_IGNORED = frozenset(("PROTO", "FRAME", "STOP"))


def peek(path: Path) -> dict[str, Any]:
    """`epoch`, `step`, `accuracy` (a fraction), `loss` and `cycle` as far as the file says them; {} if it cannot be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            member = next(name for name in archive.namelist() if name.endswith("/data.pkl") or name == "data.pkl")
            if archive.getinfo(member).file_size > _LARGEST:
                return {}
            content = _walk(archive.read(member))
    except (
        OSError,
        zipfile.BadZipFile,
        StopIteration,
        ValueError,
        IndexError,
        KeyError,
        TypeError,
        NotImplementedError,
    ):
        return {}
    if not isinstance(content, dict):
        return {}
    card = content.get("understudy")
    card = card if isinstance(card, dict) else {}
    facts = {
        "epoch": _whole(content.get("epoch")),
        "step": _whole(card.get("step", content.get("step"))),
        "accuracy": _number(content.get("accuracy")),
        "loss": _number(content.get("loss")),
        "cycle": _whole(card.get("cycle")),
    }
    if facts["accuracy"] is not None and facts["accuracy"] > 1:
        facts["accuracy"] /= 100  # the team's own checkpoints say percent
    return {name: value for name, value in facts.items() if value is not None}


def _walk(pickled: bytes) -> Any:
    """The value that a pickle describes, with everything that is not plain left opaque.

    Raises:
        ValueError, IndexError, KeyError, TypeError: not a pickle of the shape that `torch.save` writes.
    """
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    for opcode, argument, _ in pickletools.genops(pickled):
        name = opcode.name
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name == "MARK":
            stack.append(_MARK)
        elif name in ("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE"):
            stack.append({} if name == "EMPTY_DICT" else [])
        elif name in ("BINPUT", "LONG_BINPUT", "PUT"):
            memo[int(str(argument))] = stack[-1]
        elif name == "MEMOIZE":
            memo[len(memo)] = stack[-1]
        elif name in ("BINGET", "LONG_BINGET", "GET"):
            stack.append(memo[int(str(argument))])
        elif name == "SETITEM":
            value, key = stack.pop(), stack.pop()
            _set(stack[-1], [key, value])
        elif name == "SETITEMS":
            pairs = _to_mark(stack)
            _set(stack[-1], pairs)
        elif name == "APPEND":
            value = stack.pop()
            if isinstance(stack[-1], list):
                stack[-1].append(value)
        elif name == "APPENDS":
            values = _to_mark(stack)
            if isinstance(stack[-1], list):
                stack[-1].extend(values)
        elif name in ("TUPLE", "LIST"):
            stack.append(_to_mark(stack))
        elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
            count = int(name[-1])
            stack[-count:] = [stack[-count:]]
        elif name == "GLOBAL":
            stack.append(_OPAQUE)
        elif name in ("STACK_GLOBAL", "REDUCE", "NEWOBJ"):
            stack[-2:] = [_OPAQUE]
        elif name == "BINPERSID":
            stack[-1] = _OPAQUE
        elif name == "BUILD":
            stack.pop()
        elif name not in _IGNORED:
            raise ValueError(f"unexpected opcode {name}")
    return stack[-1]


def _to_mark(stack: list[Any]) -> list[Any]:
    place = len(stack) - 1 - next(index for index, value in enumerate(reversed(stack)) if value is _MARK)
    values = stack[place + 1 :]
    del stack[place:]
    return values


def _set(target: Any, pairs: list[Any]) -> None:
    if isinstance(target, dict):
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            if isinstance(key, str):
                target[key] = value


def _number(value: Any) -> float | None:
    plain = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if plain else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
