"""Runs one promotion, or one recovery, and kills itself with SIGKILL before or after a named step.

    python -m tests.release.crash_child WORKSPACE promote|recover before|after STEP

The steps are the functions that `engine.release.journal` calls; nothing in the engine knows of this.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.release import backups, journal
from engine.release.slots import open_slot
from engine.store.workspace import Workspace
from tests.release.bundles import PORT

STEPS: dict[str, tuple[Any, str]] = {
    "intent": (journal, "write_json"),
    "copy": (backups, "copy_verified"),
    "backup": (journal, "write_backup"),
    "prepare": (journal.control, "prepare"),
    "pointer": (journal, "write_pointer"),
    "follow": (journal.control, "follow"),
    "remember": (journal, "remember"),
    "event": (journal, "append_event"),
    "drop": (journal, "_drop_journal"),
    "undo": (journal, "_undo"),
    "sweep": (journal, "_sweep"),
}


def killed(step: Callable[..., Any], when: str) -> Callable[..., Any]:
    def run(*args: Any, **kwargs: Any) -> Any:
        if when == "after":
            step(*args, **kwargs)
        os.kill(os.getpid(), signal.SIGKILL)

    return run


def main() -> None:
    root, action, when, step = sys.argv[1:]
    workspace = Workspace(Path(root))
    if action == "recover":
        _arm(when, step)
        with journal.slots_lock(workspace, "recover"):
            return
    with journal.slots_lock(workspace, "promote"):
        target = open_slot(workspace, "tobe")
        assert target is not None
        replaced = open_slot(workspace, "asis")
        _arm(when, step)
        journal.switch(
            workspace,
            "asis",
            target,
            verb="promote",
            backup_of=replaced,
            detail={"forced": False},
            event_kind="promoted",
            subject=target.id,
            port=PORT,
        )


def _arm(when: str, step: str) -> None:
    module, name = STEPS[step]
    setattr(module, name, killed(getattr(module, name), when))


if __name__ == "__main__":
    main()
