"""Somebody notices when looks at the source stop coming: the servers run all the time, so they ask.

`sync` writes `state/last_sync.json` at each look, whether it worked or failed. When that file stands still for
`source.missed_looks` intervals, cron is dead, or every sync ends before it can look.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator

from engine.config import Settings
from engine.errors import Busy, UnderstudyError
from engine.notify.alerts import clear_alert, raise_alert
from engine.store.clock import now, parse
from engine.store.files import read_json
from engine.store.locks import hold
from engine.store.workspace import Workspace

_LONGEST_PAUSE_S = 60.0
_LOG = logging.getLogger("understudy.notify")


def check_looks(workspace: Workspace, settings: Settings) -> str | None:
    """Send one alert when looks stop coming and one when they come again.

    Returns:
        The time of the last look while they are missed, else None.
    """
    source = settings.source
    last = read_json(workspace.state / "last_sync.json")
    if not source.missed_looks or not isinstance(last, dict) or not last.get("at"):
        return None
    with hold(workspace.lock("looks"), "see whether sync still looks"):
        # A quarter of the interval is left for the look itself and for cron's grain.
        silence_s = (now() - parse(last["at"])).total_seconds() - source.poll_minutes * 15
        if silence_s < source.missed_looks * source.poll_minutes * 60:
            clear_alert(workspace, settings, "looks", "sync looks again")
            return None
        text = f"no look at the source came since {last['at'][:19].replace('T', ' ')}"
        fix = "see whether cron runs (python -m engine doctor), then: python -m engine sync"
        raise_alert(workspace, settings, "looks", "missed", "sync has stopped looking", text, fix)
        return str(last["at"])


@contextlib.contextmanager
def watching_looks(workspace: Workspace, settings: Settings) -> Iterator[None]:
    """Check now and then while the block runs, in a thread of its own; nothing here ends the block."""
    done = threading.Event()
    pause_s = min(settings.source.poll_minutes * 30, _LONGEST_PAUSE_S)

    def run() -> None:
        while not done.wait(pause_s):
            try:
                check_looks(workspace, settings)
            except Busy:
                continue  # another server is at it
            except (UnderstudyError, OSError, ValueError) as error:
                _LOG.warning("whether sync still looks cannot be seen: %s", error)

    threading.Thread(target=run, name="looks", daemon=True).start()
    try:
        yield
    finally:
        done.set()
