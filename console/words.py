"""The console's language: `_()` looks a sentence up in the catalogue that was chosen at start."""

from __future__ import annotations

import gettext
from pathlib import Path

LOCALES = Path(__file__).parent / "locales"
LANGUAGES = ("en", "ko")

_translations: gettext.NullTranslations = gettext.NullTranslations()


def choose(language: str) -> None:
    """Take the catalogue of `language` ("en" is the source text; a missing catalogue falls back to it)."""
    global _translations
    _translations = (
        gettext.NullTranslations()
        if language == "en"
        else gettext.translation("console", LOCALES, [language], fallback=True)
    )


def _(sentence: str) -> str:
    """The sentence in the chosen language."""
    return _translations.gettext(sentence)
