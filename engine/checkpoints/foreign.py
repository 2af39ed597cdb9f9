"""Weights that another program saved, read as data alone and laid beside a net's own. Torch-light.

Read are a state dict by itself or in a dict of any usual make (`model_state_dict`, timm's and Lightning's
`state_dict`, averaged weights beside them), of torch's or safetensors' format. Names are matched by taking one
prefix off (`module.`, `model.`, `net.`, `backbone.`, `ema.` and whatever else there is): the one with which most
of the net's parameters are found with their shapes.
"""

from __future__ import annotations

import math
import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.checkpoints.files import CARD
from engine.errors import UsageError

LEAST_SHARE = 0.5  # of a net's parameters; with less in common the file is of another net
_AVERAGED = ("model_ema", "model_avg", "state_dict_ema", "ema_state_dict", "ema_model", "ema")
_PLAIN = ("model_state_dict", "state_dict", "model", "net", "weights", "params")
_SAVE_STATE = "save the weights alone: torch.save({'model_state_dict': model.state_dict()}, PATH)"
_PLAIN_TYPES = frozenset(f"builtins.{name}" for name in ("dict", "list", "int", "float", "bool", "str", "object"))
# Names that belong to no record of settings.
_CODE = re.compile(
    r"builtins\.|__builtin__|(os|posix|nt|sys|subprocess|socket|shutil|importlib|runpy|pty|ctypes)\.|torch\."
    r"|(_?operator|functools|types)\."
)


@dataclass(frozen=True)
class Foreign:
    """What a file holds.

    Attributes:
        state: the weights by the file's own names, tensors on the CPU.
        content: all of the file's dict ({} for safetensors).
        notes: what a person should know: which weights were taken of several, which objects were passed over.
    """

    path: Path
    state: dict[str, Any]
    content: dict[str, Any]
    notes: list[str] = field(default_factory=list)

    @property
    def card(self) -> dict[str, Any] | None:
        """What Understudy wrote beside the weights, or None."""
        card = self.content.get(CARD)
        return card if isinstance(card, dict) else None


@dataclass(frozen=True)
class Alignment:
    """A state dict beside the one that a net expects.

    Attributes:
        taken: the net's name: the file's tensor, where both have one of the same shape.
        differing: the net's name: (the file's shape, the net's).
        missing: the net's names that the file does not have; counters that nothing reads are not among them.
        surplus: the file's names that the net does not have.
        removed, added: the prefix that was taken off, or put before, the file's names.
        share: how much of the net's parameters is in `taken`, 0 to 1.
    """

    taken: dict[str, Any]
    differing: dict[str, tuple[tuple[int, ...], tuple[int, ...]]]
    missing: list[str]
    surplus: list[str]
    removed: str
    added: str
    share: float

    @property
    def complete(self) -> bool:
        return not self.differing and not self.missing

    def renamed(self) -> str:
        """What was done to the names, in words; "" where nothing was."""
        if self.removed:
            return f"'{self.removed}' was taken off their names"
        return f"'{self.added}' was put before their names" if self.added else ""


class _Unknown:
    """Stands for every class that a file names: takes anything, keeps nothing, and nothing of the file is run."""

    def __new__(cls, *_args: Any, **_named: Any) -> Any:
        return OrderedDict()  # torch's reader fills and dresses this one type


def read_foreign(path: Path) -> Foreign:
    """Read somebody's checkpoint with `weights_only=True`; a class in it (a config, a namespace) stays unread.

    Raises:
        UsageError: no such file, damaged (a zip's CRCs are checked), it names code, or it has no weights.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise UsageError(f"the weights {path}: it {what}", "check the path", kind="not_found")
    if path.suffix == ".safetensors":
        return Foreign(path, _read_safetensors(path), {})
    passed_over: list[str] = []
    content = _read_torch(path, passed_over)
    if not isinstance(content, dict):
        raise _unusable(path, f"holds a {type(content).__name__}, not weights", _SAVE_STATE)
    notes = [f"passed over what is no data: {_some(passed_over)}"] if passed_over else []
    place, state = _weights_in(content)
    if not state:
        found = ", ".join(repr(str(key)) for key in list(content)[:5]) or "nothing"
        raise _unusable(path, f"holds no weights (it has {found})", _SAVE_STATE)
    if place in _AVERAGED:
        notes.append(f"took the averaged weights ('{place}')")
    return Foreign(path, state, content, notes)


def align(expected: Mapping[str, Any], state: Mapping[str, Any]) -> Alignment:
    """Lay `state` beside `expected` (a net's own state dict) with the prefix that fits best.

    Of prefixes that fit equally well one of averaged weights goes first, then the shortest.
    """
    names = {name.replace("_orig_mod.", ""): value for name, value in state.items()}  # torch.compile's, anywhere
    wanted = {name: tuple(value.shape) for name, value in expected.items()}
    sizes = {name: math.prod(shape) for name, shape in wanted.items()}
    shapes = {name: tuple(value.shape) for name, value in names.items()}

    def score(pair: tuple[str, str]) -> tuple[int, bool, int]:
        removed, added = pair
        found = sum(
            sizes[name]
            for name in wanted
            if name.startswith(added) and shapes.get(removed + name.removeprefix(added)) == wanted[name]
        )
        return found, "ema" in removed, -len(removed) - len(added)

    pairs = [(prefix, "") for prefix in _prefixes(names)] + [
        ("", prefix) for prefix in _prefixes(wanted) if prefix
    ]
    removed, added = max(pairs, key=score)
    own = {name: removed + name.removeprefix(added) for name in wanted if name.startswith(added)}
    taken = {name: names[theirs] for name, theirs in own.items() if shapes.get(theirs) == wanted[name]}
    differing = {
        name: (shapes[theirs], wanted[name])
        for name, theirs in own.items()
        if theirs in names and name not in taken
    }
    missing = [
        n for n in wanted if n not in taken and n not in differing and not n.endswith("num_batches_tracked")
    ]
    used = set(own.values())
    surplus = [name for name in names if name not in used]
    share = sum(sizes[name] for name in taken) / max(sum(sizes.values()), 1)
    return Alignment(taken, differing, missing, surplus, removed, added, share)


def adopt(model: Any, path: Path) -> tuple[dict[str, Any], list[str]]:
    """Give a net the weights of a file, as far as they fit; what does not stays as it was initialised.

    Returns:
        The facts for a manifest, and what was done in sentences: taken, left, other shapes.

    Raises:
        UsageError: as `read_foreign`; less than half of the net's parameters are found, or one is not finite.
    """
    foreign = read_foreign(path)
    expected = model.state_dict()
    found = align(expected, foreign.state)
    if found.share < LEAST_SHARE:
        raise _unusable(
            path,
            f"fits only {found.share:.0%} of the net's parameters "
            f"(its names: {_some(list(foreign.state))}; the net's: {_some(list(expected))})",
            "name the architecture that it was trained with: model=NAME",
            kind="other_net",
        )
    _check_finite(path, found.taken)
    model.load_state_dict(found.taken, strict=False)  # `align` has compared names and shapes
    done = f"took {len(found.taken)} of {len(expected)} tensors ({found.share:.1%} of the parameters) of {path}"
    lines = ["; ".join(part for part in (done, found.renamed()) if part), *foreign.notes]
    left = [
        f"{name} {list(net)} (the file's is {list(theirs)})" for name, (theirs, net) in found.differing.items()
    ]
    if left or found.missing:
        lines.append(f"newly initialised: {_some([*left, *found.missing])}")
    if found.surplus:
        lines.append(f"not used of the file: {_some(found.surplus)}")
    facts = {
        "path": str(path),
        "taken": len(found.taken),
        "share": round(found.share, 6),
        "initialised": [*found.differing, *found.missing],
        "unused": len(found.surplus),
    }
    return facts, lines


def _read_safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from None


def _read_torch(path: Path, passed_over: list[str]) -> Any:
    import torch

    try:
        names: list[str] = []
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if broken := archive.testzip():
                    raise _unusable(path, f"is damaged at {broken}", "copy it again", kind="damaged")
            names = torch.serialization.get_unsafe_globals_in_checkpoint(path)
        if code := sorted(name for name in names if name not in _PLAIN_TYPES and _CODE.match(name)):
            raise _unusable(path, f"holds more than data: it names {_some(code)}, which is never run", _SAVE_STATE)
        passed_over += sorted(set(names) - _PLAIN_TYPES)
        with torch.serialization.safe_globals([(_Unknown, name) for name in names]):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise _unusable(path, f"is no checkpoint that may be read ({_first_line(error)})", _SAVE_STATE) from None
    except UsageError:
        raise
    except Exception as error:  # noqa: BLE001 - bytes that are no checkpoint may raise anything
        if not zipfile.is_zipfile(path):
            raise _unusable(path, "is damaged, or no file of torch", "copy it again", kind="damaged") from None
        raise _damaged(path, error) from None


def _weights_in(content: dict[Any, Any]) -> tuple[str, dict[str, Any]]:
    """Where in a file's dict the weights are ("" for the dict itself), averaged ones first, and those weights."""
    for place in (*_AVERAGED, *_PLAIN):
        inner = content.get(place)
        if isinstance(inner, dict):
            inner = inner.get("module", inner) if isinstance(inner.get("module"), dict) else inner
            if state := _tensors(inner):
                return place, state
    return "", _tensors(content)


def _tensors(values: dict[Any, Any]) -> dict[str, Any]:
    import torch

    return {
        name: value for name, value in values.items() if isinstance(name, str) and isinstance(value, torch.Tensor)
    }


def _prefixes(names: Iterable[str]) -> list[str]:
    found = {""}
    for name in names:
        parts = name.split(".")
        found.update(".".join(parts[:depth]) + "." for depth in range(1, len(parts)))
    return sorted(found)


def _check_finite(path: Path, taken: dict[str, Any]) -> None:
    import torch

    for name, value in taken.items():
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise _unusable(path, f"has NaN or Inf in '{name}'", "its training diverged: take an earlier one")


def _some(names: list[str]) -> str:
    return ", ".join(names[:4]) + (f" and {len(names) - 4} more" if len(names) > 4 else "")


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:160].rstrip(".")


def _damaged(path: Path, error: BaseException) -> UsageError:
    return _unusable(path, f"cannot be read ({_first_line(error)})", "copy it again", kind="damaged")


def _unusable(path: Path, what: str, hint: str, *, kind: str = "no_weights") -> UsageError:
    return UsageError(f"the weights {path}: it {what}", hint, kind=kind)
