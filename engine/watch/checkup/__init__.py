"""`doctor`'s checks: everything that a person would look at, each with what was found and how to mend it."""

from engine.watch.checkup.check import Check
from engine.watch.checkup.run import run_checks

__all__ = ["Check", "run_checks"]
