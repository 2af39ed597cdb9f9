"""`make bench`: every measurement in turn, each a module of this folder with `main(argv)`."""

from __future__ import annotations

import importlib
import pkgutil
import sys

import benchmarks

if __name__ == "__main__":
    wanted = sys.argv[1:]
    for module in pkgutil.iter_modules(benchmarks.__path__):
        if module.ispkg or module.name.startswith("_") or (wanted and module.name not in wanted):
            continue
        print(f"== {module.name}", flush=True)
        importlib.import_module(f"benchmarks.{module.name}").main([])
