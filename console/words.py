"""The console's language: `_()` looks a sentence up in the catalogue that was chosen at start.

A catalogue is a gettext `.po` file, read as it is, so that no compiled copy of it can grow old.
"""

from __future__ import annotations

import ast
from pathlib import Path

LOCALES = Path(__file__).parent / "locales"
LANGUAGES = ("en", "ko")

_catalogue: dict[str, str] = {}


def choose(language: str) -> None:
    """Take the catalogue of `language`; "en" is the source text itself."""
    _catalogue.clear()
    if language != "en":
        _catalogue.update(read_catalogue(LOCALES / f"{language}.po"))


def read_catalogue(path: Path) -> dict[str, str]:
    """The sentences of a `.po` file: source text to translation; an empty translation is left out."""
    found: dict[str, str] = {}
    parts: dict[str, str] = {}
    current = ""
    for line in [*path.read_text(encoding="utf-8").splitlines(), 'msgid ""']:
        word, _blank, rest = line.partition(" ")
        if word == "msgid" and parts.get("msgid") and parts.get("msgstr"):
            found[parts["msgid"]] = parts["msgstr"]
        if word in ("msgid", "msgstr"):
            current = word
            parts[current] = ast.literal_eval(rest)
        elif line.startswith('"'):
            parts[current] += ast.literal_eval(line)
    return found


def _(sentence: str) -> str:
    """The sentence in the chosen language."""
    return _catalogue.get(sentence, sentence)
