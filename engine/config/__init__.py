"""Settings: the typed schema, its layers and the secrets."""

from engine.config.load import Loaded, known_keys, load_settings
from engine.config.schema import Settings
from engine.config.secrets import mask, missing_from, reference, secret, whence

__all__ = [
    "Loaded",
    "Settings",
    "known_keys",
    "load_settings",
    "mask",
    "missing_from",
    "reference",
    "secret",
    "whence",
]
