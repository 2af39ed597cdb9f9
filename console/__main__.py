"""`python -m console`: the operator's screen on a workspace, or on a recording."""

from __future__ import annotations

import gc
import os
import sys
from typing import TYPE_CHECKING

from engine.errors import UnderstudyError, UsageError

if TYPE_CHECKING:
    from console.feed import Feed
    from console.options import Options


def main(arguments: list[str] | None = None) -> int:
    """Run the console; the exit code is the engine's for the same kind of error."""
    gc.disable()  # a quarter of the start would go into looking through what is only being loaded; see `ConsoleApp`
    try:
        return _run(sys.argv[1:] if arguments is None else arguments)
    except UnderstudyError as error:
        sys.stderr.write(f"error: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def _run(arguments: list[str]) -> int:
    from console.options import parse

    options = parse(arguments)
    os.environ["UNDERSTUDY_LOG_FORMAT"] = "text"  # the words of its commands are shown to a person
    from console.feed import LiveFeed
    from console.replay import Replay

    feed: Feed
    if options.replay is not None:
        feed = Replay(options.replay, options.speed)
    else:
        feed = LiveFeed(options.engine("watch"))
    try:
        return _draw(options, feed)
    finally:
        feed.stop()


def _draw(options: Options, feed: Feed) -> int:
    from console import words
    from console.keymap import load_keys
    from console.theme import load_themes, pick

    words.choose(options.language)
    if options.plain:
        from console.plain import run

        gc.enable()
        return run(options, feed)
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("the console needs a terminal", "run it in one, or give --plain")
    themes, faults = load_themes()
    for fault in faults:
        sys.stderr.write(f"theme left out: {fault}\n")
    if os.environ.get("NO_COLOR"):
        options.settings["theme"] = "mono"
    pick(themes, options.theme)
    keys = load_keys(options.keymap)
    from console.app import ConsoleApp

    app = ConsoleApp(options, themes, keys, feed)
    app.run(mouse=options.mouse)
    return app.return_code or 0


if __name__ == "__main__":
    sys.exit(main())
