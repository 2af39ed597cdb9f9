"""The console's language: `_()` looks a sentence up in the catalogue that was chosen at start.

A catalogue is a gettext `.po` file, read as it is, so that no compiled copy of it can grow old. The engine speaks
English; `said()` knows its sentences by their templates, the entries of the catalogue that hold `{name}` for a figure.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

LOCALES = Path(__file__).parent / "locales"
LANGUAGES = ("en", "ko")

_catalogue: dict[str, str] = {}
_templates: list[tuple[re.Pattern[str], str]] = []
_BLANK = re.compile(r"\\\{(\w+)\\\}")  # a `{name}` after re.escape


def choose(language: str) -> None:
    """Take the catalogue of `language`; "en" is the source text itself."""
    _catalogue.clear()
    _templates.clear()
    if language != "en":
        _catalogue.update(read_catalogue(LOCALES / f"{language}.po"))
        patterns = sorted((one for one in _catalogue if "{" in one), key=len, reverse=True)
        _templates.extend((_pattern(one), _catalogue[one]) for one in patterns)


def _pattern(template: str) -> re.Pattern[str]:
    return re.compile(_BLANK.sub(r"(?P<\1>.+?)", re.escape(template)), re.DOTALL)


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


def said(sentence: str) -> str:
    """A sentence of the engine in the chosen language; what has no translation stays as it was said.

    The longest template that fits gives the sentence, and what stands in its places is looked up in turn. Where none
    fits, the parts between semicolons are looked up one by one.
    """
    if not _catalogue or not sentence:
        return sentence
    if sentence in _catalogue:
        return _catalogue[sentence]
    for pattern, translation in _templates:
        if found := pattern.fullmatch(sentence):
            parts = {name: said(part) for name, part in found.groupdict().items()}
            return translation.format_map(parts)
    head, semicolon, rest = sentence.partition("; ")
    return f"{said(head)}; {said(rest)}" if semicolon else sentence
