"""A checkpoint's pickle read as a list of instructions, never run: what it names and what it would load.

An abstract machine walks the instructions with the stack effects that `pickletools` documents for each. It
builds strings, numbers and tuples alone, because only those can name something; every other object is opaque.
Torch-free, so a hostile file is refused before torch is even imported; `torch.load(weights_only=True)` then
reads what passed and checks it again by its own rules.
"""

from __future__ import annotations

import pickletools
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from engine.release.refusal import Refusal

ONLY_DATA = "save only tensors, numbers, strings, lists and dicts in it"
SAVE_STATE = "save it as torch.save({'model_state_dict': model.state_dict(), 'epoch': ..., 'accuracy': ...}, PATH)"
_SAVE_AGAIN = "save it again with torch.save(..., PATH)"
_MAX_PICKLES = 16  # an old torch file has five
_MAX_INSTRUCTIONS = 400_000  # five thousand tensors need half of them; more would only cost time

# What torch's own weights_only unpickler understands (torch/_weights_only_unpickler.py), and nothing else.
_ALLOWED = frozenset(
    [
        "PROTO",
        "STOP",
        "GLOBAL",
        "NEWOBJ",
        "REDUCE",
        "BUILD",
        "APPEND",
        "APPENDS",
        "SETITEM",
        "SETITEMS",
        "MARK",
        "TUPLE",
        "TUPLE1",
        "TUPLE2",
        "TUPLE3",
        "NONE",
        "NEWFALSE",
        "NEWTRUE",
        "EMPTY_TUPLE",
        "EMPTY_LIST",
        "EMPTY_DICT",
        "EMPTY_SET",
        "BININT",
        "BININT1",
        "BININT2",
        "BINFLOAT",
        "BINUNICODE",
        "SHORT_BINSTRING",
        "BINPERSID",
        "BINGET",
        "LONG_BINGET",
        "BINPUT",
        "LONG_BINPUT",
        "LONG1",
    ]
)
_PLAIN = re.compile(
    r"collections\.(OrderedDict|Counter)|torch\.Size|torch\.device|torch\.Tensor|torch\.nn\.parameter\.Parameter"
    r"|torch\._utils\._rebuild_(tensor|tensor_v2|tensor_v3|parameter|parameter_with_state)"
    r"|torch\._tensor\._rebuild_from_type_v2|torch\.(storage\.)?[A-Z]\w*Storage"
    r"|torch\.(bool|bfloat16|u?int\d+|float\d+\w*|complex\d+|half|float|double)"
    r"|_codecs\.encode|(builtins|__builtin__)\.(bytearray|set|complex)"
)
_LAYOUTS = re.compile(
    r"torch\._utils\._rebuild_(qtensor|sparse_tensor|meta_tensor_no_storage|nested_tensor|wrapper_subclass|device_.*)"
    r"|torch\.serialization\._get_layout|torch\.per_(tensor|channel)_.*|torch\.q(u?int|uint)\w+|torch\.nested\..*"
    r"|torch\.distributed\..*"
)
_HARMLESS = ("argparse.", "numpy.", "collections.", "pathlib.", "datetime.", "omegaconf.", "torch.", "types.")
# Names that a checkpoint has no innocent reason for: they run programs, load code or reach the network.
_CODE = re.compile(
    r"(os|posix|nt|sys|subprocess|_posixsubprocess|shutil|socket|_socket|runpy|importlib|ctypes|_ctypes|pty|code)\."
    r"|(codeop|commands|webbrowser|pickle|_pickle|cPickle|marshal|urllib|http|requests|pip|pdb|bdb|timeit)\."
    r"|(cProfile|profile|trace|multiprocessing|asyncio|threading|signal|platform|pydoc|doctest|imaplib|smtplib)\."
    r"|(ftplib|telnetlib|tempfile|fileinput|linecache|glob|pkgutil|zipimport|_frozen_importlib\w*|site|venv)\."
    r"|(builtins|__builtin__)\.(eval|exec|execfile|compile|open|input|__import__|getattr|setattr|delattr|apply)$"
    r"|(builtins|__builtin__)\.(breakpoint|globals|locals|vars|map|filter|help|memoryview|type)$"
    r"|(operator|_operator|functools|types)\.(attrgetter|methodcaller|itemgetter|reduce|partial|FunctionType|CodeType)$"
    r"|torch\.(hub|jit|ops|utils|package|multiprocessing|load|_C)\b|numpy\.(load|f2py|testing)\b"
    r"|.*\.(os|posix|nt|sys|subprocess|__globals__|__builtins__|__reduce\w*__)(\.|$)"
)


@dataclass
class Pickle:
    """What one pickle holds: names it asks for, storages it loads, instructions that weights have no use for."""

    names: set[str] = field(default_factory=set)
    storages: list[Any] = field(default_factory=list)  # the tuples handed to persistent_load
    foreign: set[str] = field(default_factory=set)
    hidden: bool = False  # it names something that cannot be told without running it
    end: int = 0  # bytes up to its STOP; 0: it is damaged


class Name(str):
    """A global that the pickle asks for, where its value would be."""

    __slots__ = ()


class _Unknown:
    """An object that is never built."""


class _Mark:
    """The pickle machine's mark."""


_UNKNOWN, _MARK = _Unknown(), _Mark()


def _effect(opcode: pickletools.OpcodeInfo) -> tuple[bool, int, int]:
    """Whether an instruction takes all down to the mark, how many more objects it takes, how many it puts."""
    before = opcode.stack_before
    to_mark = pickletools.markobject in before
    return to_mark, before.index(pickletools.markobject) if to_mark else len(before), len(opcode.stack_after)


_EFFECTS = {opcode.name: _effect(opcode) for opcode in pickletools.opcodes}
_PUSHES = frozenset(name for name, effect in _EFFECTS.items() if effect == (False, 0, 1))


def read_pickle(data: bytes) -> Pickle:
    """Walk one pickle up to its STOP.

    Raises:
        Refusal: it is no pickle, is cut short, or is longer than weights can need.
    """
    found = Pickle()
    try:
        _Machine(found).run(data)
    except (ValueError, IndexError, KeyError, UnicodeError, OverflowError) as error:
        if found.names:  # what it named before it broke still says what it was for
            return found
        kind = type(error).__name__
        raise Refusal("pickle", f"holds a damaged pickle ({kind})", _SAVE_AGAIN) from None
    return found


def names_in(data: bytes) -> set[str]:
    """The names in all pickles of a file that may hold several, one behind another, as old torch files do."""
    names: set[str] = set()
    for start in _starts(data):
        try:
            names |= read_pickle(data[start:]).names
        except Refusal:
            continue
    return names


def check_pickle(data: bytes) -> Pickle:
    """Refuse a pickle that holds more than tensors and plain values.

    Raises:
        Refusal: with what it names; `dangerous` where that would run code.
    """
    found = read_pickle(data)
    foreign = {name for name in found.names if not _PLAIN.fullmatch(name)}
    if foreign:
        raise refuse_names(foreign)
    if found.hidden:
        raise Refusal(
            "pickle",
            "would load something that it does not name openly; it was not executed",
            "do not open it elsewhere; find out who wrote it",
            dangerous=True,
        )
    if found.foreign:
        named = ", ".join(sorted(found.foreign)[:3])
        raise Refusal(
            "pickle",
            f"is pickled with instructions that weights do not need ({named})",
            "save it with torch.save(..., PATH), without pickle_protocol",
        )
    if found.end != len(data):
        what = "something behind the end of its pickle" if found.end else "a damaged pickle"
        raise Refusal("pickle", f"holds {what}", _SAVE_AGAIN)
    return found


def refuse_names(names: set[str]) -> Refusal:
    """The refusal of a pickle that asks for these names, which are more than data."""
    code = sorted(name for name in names if _CODE.match(name))
    layouts = [name for name in names if _LAYOUTS.fullmatch(name)]
    shown = ", ".join(f"'{_shown(name)}'" for name in (code or sorted(names))[:3])
    if code:
        return Refusal(
            "pickle",
            f"would run code when opened: it names {shown}; it was not executed",
            "do not open it elsewhere; find out who wrote it",
            dangerous=True,
        )
    if len(layouts) == len(names):
        return Refusal(
            "content",
            f"has tensors in a layout that is not plain ({shown})",
            "save a plain float model: no sparse, quantised, nested or meta tensors",
        )
    if any(name.startswith("torch.nn.") or not name.startswith(_HARMLESS) for name in names):
        hint = f"save the weights, not the whole object: {SAVE_STATE}"
    else:
        hint = f"{ONLY_DATA}, for instance vars(args) for a namespace and float(x) for a numpy number"
    return Refusal("pickle", f"holds more than data: {shown}, which is never executed here", hint)


def is_code(names: set[str]) -> bool:
    """Whether any of these names would run code."""
    return any(_CODE.match(name) for name in names)


class _Machine:
    """Walks the instructions; one table look-up each, because a file may hold hundreds of thousands."""

    def __init__(self, found: Pickle) -> None:
        self.found = found
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.steps: dict[str, Callable[[Any], None]] = {
            "GLOBAL": self._global,
            "INST": self._instance,
            "STACK_GLOBAL": self._stack_global,
            "BINPERSID": self._storage,
            "MEMOIZE": lambda _: self._put(len(self.memo)),
            "TUPLE": lambda _: self.stack.append(tuple(self._to_mark())),
            **dict.fromkeys(("BINPUT", "LONG_BINPUT", "PUT"), self._put),
            **dict.fromkeys(("BINGET", "LONG_BINGET", "GET"), lambda at: self.stack.append(self.memo[int(at)])),
            **dict.fromkeys(("EXT1", "EXT2", "EXT4"), self._extension),
            **{f"TUPLE{size}": partial(self._tuple, size) for size in (1, 2, 3)},
        }

    def run(self, data: bytes) -> None:
        stack, steps = self.stack, self.steps
        end: int | None = None
        for count, (opcode, argument, at) in enumerate(pickletools.genops(data)):
            name = opcode.name
            if count >= _MAX_INSTRUCTIONS:
                raise Refusal("pickle", "has far more instructions than weights need", ONLY_DATA)
            if name not in _ALLOWED:
                self.found.foreign.add(name)
            if step := steps.get(name):
                step(argument)
            elif name == "MARK":
                stack.append(_MARK)
            elif name in _PUSHES:
                stack.append(argument if isinstance(argument, str | int) else _UNKNOWN)
            else:
                self._generic(name)
            end = at
        self.found.end = (end or 0) + 1

    def _global(self, argument: Any) -> None:
        self._named(*str(argument).split(" ", 1))
        self.stack.append(Name(str(argument).replace(" ", ".", 1)))

    def _instance(self, argument: Any) -> None:
        self._named(*str(argument).split(" ", 1))
        self._to_mark()
        self.stack.append(Name(str(argument).replace(" ", ".", 1)))

    def _stack_global(self, _: Any) -> None:
        attribute, module = self.stack.pop(), self.stack.pop()
        self._named(module, attribute)
        self.stack.append(_UNKNOWN)

    def _extension(self, _: Any) -> None:
        self.found.hidden = True
        self.stack.append(_UNKNOWN)

    def _storage(self, _: Any) -> None:
        self.found.storages.append(self.stack.pop())
        self.stack.append(_UNKNOWN)

    def _put(self, place: Any) -> None:
        self.memo[int(place)] = self.stack[-1]

    def _tuple(self, size: int, _: Any) -> None:
        items = tuple(self.stack[-size:])
        if len(items) != size:
            raise IndexError("the stack is empty")
        del self.stack[-size:]
        self.stack.append(items)

    def _generic(self, name: str) -> None:
        """Take off and put on as many objects as the instruction is documented to."""
        to_mark, takes, puts = _EFFECTS[name]
        if to_mark:
            self._to_mark()
        for _ in range(takes):
            self.stack.pop()
        self.stack.extend([_UNKNOWN] * puts)

    def _to_mark(self) -> list[Any]:
        for at in range(len(self.stack) - 1, -1, -1):
            if self.stack[at] is _MARK:
                items = self.stack[at + 1 :]
                del self.stack[at:]
                return items
        raise IndexError("no mark")

    def _named(self, module: Any, attribute: Any = "") -> None:
        if isinstance(module, str) and isinstance(attribute, str):
            self.found.names.add(f"{module}.{attribute}")
        else:
            self.found.hidden = True


def _starts(data: bytes) -> Iterator[int]:
    """Where pickles begin in a row of them: each at the STOP of the one before."""
    at = 0
    for _ in range(_MAX_PICKLES):
        if data[at : at + 1] not in (b"\x80", b"(", b"c", b"]", b"}"):
            return
        yield at
        try:
            for _, _, position in pickletools.genops(data[at:]):
                end = at + int(position or 0) + 1
        except ValueError:
            return
        at = end


def _shown(name: str) -> str:
    return "".join(letter if letter.isprintable() else "?" for letter in name)[:120]
