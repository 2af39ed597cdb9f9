"""A picture of the console from a recording: `python -m console.screenshot RECORDING PICTURE.svg`."""

from __future__ import annotations

import argparse
import asyncio
import sys
from pathlib import Path

from console import words
from console.app import ConsoleApp
from console.keymap import default_keys
from console.options import Options
from console.replay import read_all
from console.store import Store
from console.text import moment
from console.theme import load_themes, pick


async def draw(app: ConsoleApp, width: int, height: int, keys: list[str]) -> str:
    """The app's screen as SVG, after these keys."""
    async with app.run_test(size=(width, height)) as pilot:
        await pilot.press(*keys)
        await pilot.pause()
        return app.picture()


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m console.screenshot", description=__doc__)
    parser.add_argument("recording", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--size", default="120x40", metavar="WIDTHxHEIGHT")
    parser.add_argument("--theme", default="understudy")
    parser.add_argument("--language", choices=words.LANGUAGES, default="en")
    parser.add_argument("--keys", default="", help="keys to press first, separated by commas")
    options = parser.parse_args(arguments)
    words.choose(options.language)
    width, height = (int(part) for part in options.size.split("x"))
    store, last = Store(), 0.0
    for message in read_all(options.recording):
        last = moment(message.at) or last
        store.apply(message, last)
    themes, _faults = load_themes()
    pick(themes, options.theme)
    app = ConsoleApp(
        Options(settings={"theme": options.theme}), themes, default_keys(), store=store, now=lambda: last
    )
    keys = [key for key in options.keys.split(",") if key]
    options.picture.write_text(asyncio.run(draw(app, width, height, keys)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
