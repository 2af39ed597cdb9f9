"""A person's own keys: TOML, `action = "key"` or `action = ["key", ...]`, checked before the console starts."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from console.actions import ACTIONS, BY_ID, sign
from console.theme import Fault
from engine.errors import UsageError, nearest

NAMED = {
    "up", "down", "left", "right", "home", "end", "pageup", "pagedown", "insert", "delete", "enter", "tab", "shift+tab",
    "space", "backspace", "escape", *(f"f{number}" for number in range(1, 25)),
}  # fmt: skip
DEAD = {
    "ctrl+s": "the terminal stops its output on it",
    "ctrl+q": "the terminal takes it for going on after ctrl+s",
    "ctrl+a": "screen takes it",
    "ctrl+b": "tmux takes it",
    "ctrl+j": "the terminal sends it for enter",
    "ctrl+m": "the terminal sends it for enter",
    "ctrl+i": "the terminal sends it for tab",
    "ctrl+h": "many terminals send it for backspace",
    "ctrl+z": "the shell takes it",
    "ctrl+c": "it always leaves the console",
}
FIXED = ("escape",)
_BY_SIGN = {
    "/": "slash", ":": "colon", "?": "question_mark", "[": "left_square_bracket", "]": "right_square_bracket",
    "-": "minus", "+": "plus", "=": "equals_sign", " ": "space", ".": "full_stop", ",": "comma", ";": "semicolon",
    "!": "exclamation_mark", "<": "less_than_sign", ">": "greater_than_sign", "#": "number_sign", "*": "asterisk",
    "@": "at", "_": "underscore", "(": "left_parenthesis", ")": "right_parenthesis", "'": "apostrophe",
    '"': "quotation_mark", "\\": "backslash", "|": "vertical_line", "~": "tilde", "$": "dollar_sign",
    "%": "percent_sign", "&": "ampersand", "^": "circumflex_accent", "`": "grave_accent",
    "{": "left_curly_bracket", "}": "right_curly_bracket",
}  # fmt: skip


def default_keys() -> dict[str, tuple[str, ...]]:
    """Every action's keys as the registry has them."""
    return {action.id: action.keys for action in ACTIONS}


def load_keys(path: Path | None) -> dict[str, tuple[str, ...]]:
    """The registry's keys with a person's own over them.

    Raises:
        UsageError: every fault of the file (unknown action, clash, dead key), each with its line.
    """
    keys = default_keys()
    if path is None:
        return keys
    try:
        content = path.read_text(encoding="utf-8")
        document = tomllib.loads(content)
    except FileNotFoundError:
        raise UsageError(f"no keymap at {path}", "check console.keymap") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read the keymap {path} ({error})", "check its rights and encoding") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not valid TOML: {error}", "mend the line named", kind="bad_keymap") from None
    faults = _merge(keys, document, path, content)
    if faults:
        shown = "; ".join(str(fault) for fault in faults)
        raise UsageError(f"the keymap has {len(faults)} fault(s): {shown}", "mend them", kind="bad_keymap")
    return keys


def _merge(keys: dict[str, tuple[str, ...]], document: dict[str, object], path: Path, content: str) -> list[Fault]:
    faults: list[Fault] = []
    lines = {name: _line(content, name) for name in document}
    for name, wanted in document.items():
        if name not in BY_ID:
            faults.append(Fault(path, lines[name], f"unknown action '{name}', {nearest(name, BY_ID)}"))
            continue
        listed = [wanted] if isinstance(wanted, str) else wanted
        if not isinstance(listed, list) or not all(isinstance(key, str) and key for key in listed):
            faults.append(Fault(path, lines[name], f"'{name}' needs a key or a list of keys"))
            continue
        mine = []
        for key in listed:
            known, why = _key(key)
            if why:
                faults.append(Fault(path, lines[name], f"'{key}' never arrives here: {why}"))
            mine.append(known)
        keys[name] = tuple(mine)
    taken: dict[str, str] = {}
    for name in [*document, *(name for name in keys if name not in document)]:
        for key in keys.get(name, ()):
            if key not in taken:
                taken[key] = name
            elif taken[key] != name:
                line = lines.get(taken[key]) or lines.get(name) or 1
                other = lines.get(name)
                where = f"line {other}" if other else "its own key"
                faults.append(Fault(path, line, f"'{sign(key)}' is both {taken[key]} and {name} ({where})"))
    return faults


def _key(key: str) -> tuple[str, str]:
    """A key's name as Textual has it, and why it is dead ("" where it is not)."""
    known = _BY_SIGN.get(key, key if len(key) == 1 else key.lower())
    if known in DEAD:
        return known, DEAD[known]
    if known in FIXED:
        return known, "it always closes"
    if len(known) == 1 or known in NAMED or known in _BY_SIGN.values():
        return known, ""
    if re.fullmatch(r"ctrl\+[a-z]", known) or re.fullmatch(r"(shift|ctrl|alt)\+.+", known):
        base = known.split("+")[-1]
        if base in NAMED or (len(base) == 1 and not known.startswith("shift")):
            return known, ""
    return known, "no terminal sends it by that name"


def _line(content: str, name: str) -> int:
    pattern = re.compile(rf'^\s*"?{re.escape(name)}"?\s*=')
    return next((number for number, line in enumerate(content.splitlines(), 1) if pattern.match(line)), 1)
