"""asyncssh, imported without its search for two libraries that it does without.

It asks for liboqs and nettle through `ctypes.util.find_library`, which starts ldconfig, gcc and ld for each of five
names: longer than all the rest of a look at a source that has nothing new. Neither is wanted: ML-KEM comes from
`cryptography`, and an AES-GCM connection has no MAC of its own. Collecting garbage while modules are read finds none.
"""

from __future__ import annotations

import ctypes.util
import gc

_find_library = ctypes.util.find_library
ctypes.util.find_library = lambda name: None
gc.disable()
try:
    import asyncssh
finally:
    gc.enable()
    ctypes.util.find_library = _find_library

__all__ = ["asyncssh"]
