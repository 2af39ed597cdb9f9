"""What every verb shares: the common options, overrides among the words, one JSON object or text."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import click

from engine.config import Loaded, Settings, load_settings, mask
from engine.config.load import OVERRIDE
from engine.errors import UsageError
from engine.store.workspace import Workspace

_ANY_ASSIGNMENT = re.compile(r"^[A-Za-z_][\w.-]*=", re.DOTALL)


@dataclass
class Session:
    """One call of the command line: its settings, and where its words go."""

    config: str | None = None
    workspace_option: str | None = None
    overrides: list[str] = field(default_factory=list)
    json: bool = False
    debug: bool = False

    @cached_property
    def loaded(self) -> Loaded:
        return load_settings(self.config, self.workspace_option, self.overrides)

    @property
    def settings(self) -> Settings:
        return self.loaded.settings

    @cached_property
    def workspace(self) -> Workspace:
        return Workspace(self.settings.workspace)

    def emit(self, value: dict[str, Any], text: str | Callable[[dict[str, Any]], str] | None = None) -> None:
        """The verb's result: with --json the object on one line, else `text` for people."""
        if self.json:
            sys.stdout.write(mask(json.dumps(value, ensure_ascii=False, allow_nan=False)) + "\n")
        else:
            shown = text(value) if callable(text) else text
            if shown is None:
                shown = json.dumps(value, indent=2, ensure_ascii=False)
            if shown:
                sys.stdout.write(mask(shown).rstrip("\n") + "\n")
        sys.stdout.flush()

    def say(self, line: str) -> None:
        """Progress for people: standard output, or standard error where that carries JSON."""
        stream = sys.stderr if self.json else sys.stdout
        stream.write(mask(line) + "\n")
        stream.flush()

    def engine_command(self, *words: str) -> list[str]:
        """The command line of an engine child with this session's config, workspace and overrides."""
        command = [sys.executable, "-m", "engine", "--workspace", str(self.settings.workspace)]
        if self.loaded.path:
            command += ["--config", str(self.loaded.path.absolute())]
        return [*command, *words, *self.overrides]


COMMON = (
    click.Option(["--config"], metavar="FILE", help="The config file (default: the project's config.toml)."),
    click.Option(["--workspace"], metavar="DIR", help="The folder that holds this host's state."),
    click.Option(["--device"], metavar="NAME", help="auto, cuda, mps, cpu or xpu (same as device.prefer=NAME)."),
    click.Option(["--json", "as_json"], is_flag=True, help="Print exactly one JSON object on standard output."),
    click.Option(["--debug"], is_flag=True, help="Show the traceback of an error."),
)


def is_override(word: str, *, wide: bool = False) -> bool:
    """Whether a word of the command line is `section.key=value` or `group=NAME`; `wide`: any `name=value`."""
    return bool((_ANY_ASSIGNMENT if wide else OVERRIDE).match(word))


class Verb(click.Command):
    """A command with the common options; its words are overrides first, positionals after.

    Args:
        words: name, least and greatest number of positional words, e.g. `("BACKUP", 0, 1)`.
    """

    def __init__(self, *args: Any, words: tuple[str, int, int | None] = ("", 0, 0), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.word_name, self.least, self.greatest = words
        self.params += [click.Argument(["words"], nargs=-1, type=click.UNPROCESSED, metavar="", required=False)]
        self.params += [click.Option([*option.opts, option.name], is_flag=option.is_flag, metavar=option.metavar,
                                     help=option.help) for option in COMMON]  # fmt: skip

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        name = f"[{self.word_name}]" if self.word_name and not self.least else self.word_name
        return ["[OPTIONS]", *([name] if name else []), "[section.key=value ...]"]

    def invoke(self, ctx: click.Context) -> Any:
        session: Session = ctx.ensure_object(Session)
        take_common(session, ctx.params)
        takes_words = self.greatest != 0
        positionals: list[str] = []
        for word in ctx.params.pop("words"):
            (session.overrides if is_override(word, wide=not takes_words) else positionals).append(word)
        if self.greatest is not None and len(positionals) > self.greatest:
            raise UsageError(f"unexpected argument '{positionals[self.greatest]}'", f"see: {ctx.info_name} --help")
        if len(positionals) < self.least:
            raise UsageError(f"'{ctx.info_name}' needs {self.word_name}", f"see: {ctx.info_name} --help")
        assert self.callback is not None
        return self.callback(session, *([positionals] if takes_words else []), **ctx.params)


def take_common(session: Session, params: dict[str, Any]) -> None:
    """Move the common options out of `params` into the session; of two settings the later one wins."""
    if config := params.pop("config"):
        session.config = config
    if workspace := params.pop("workspace"):
        session.workspace_option = workspace
    if device := params.pop("device"):
        session.overrides.append(f"device.prefer={device}")
    session.json = params.pop("as_json") or session.json
    session.debug = params.pop("debug") or session.debug


def table(rows: Sequence[Sequence[object]], header: Sequence[str] = ()) -> str:
    """Left-aligned columns, numbers right-aligned, for people."""
    cells = [[str(cell) for cell in row] for row in ([header] if header else []) + list(rows)]
    if not cells:
        return ""
    widths = [max(len(row[column]) for row in cells) for column in range(len(cells[0]))]
    numeric = [
        all(re.fullmatch(r"[-+–]?[\d,.]*\s?[%A-Za-z/]{0,5}", row[column]) for row in cells[bool(header) :])
        for column in range(len(cells[0]))
    ]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in cells
    )
