"""What every verb shares: the common options, overrides among the words, one JSON object or text."""

from __future__ import annotations

import json
import math
import re
import select
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import click

from engine.config import Loaded, Settings, load_settings, mask, missing_from
from engine.config.load import OVERRIDE, portable_overrides
from engine.errors import UnderstudyError, UsageError
from engine.store import logjson
from engine.store.logfile import MAX_BYTES, LogFile, is_open_on
from engine.store.schema import ensure
from engine.store.workspace import Workspace

_AS_SETTING = {"--device": "device.prefer", "--workspace": "workspace"}
STRIKE = "\u0336"  # combining: through the letter before it
_ANY_ASSIGNMENT = re.compile(r"^[A-Za-z_][\w.-]*=", re.DOTALL)


@dataclass
class Session:
    """One call of the command line: its settings, and where its words go."""

    config: str | None = None
    environment: str | None = None
    overrides: list[str] = field(default_factory=list)
    json: bool = False
    debug: bool = False
    log: LogFile | None = None

    @cached_property
    def loaded(self) -> Loaded:
        loaded = load_settings(self.config, None, self.overrides, self.environment)
        logjson.begin(loaded.settings.logging.format)
        return loaded

    @property
    def settings(self) -> Settings:
        return self.loaded.settings

    @cached_property
    def workspace(self) -> Workspace:
        root = Path(self.settings.workspace)
        if root.exists() and not root.is_dir():
            raise UsageError(
                f"the workspace {root} is not a folder", "check its path; --workspace DIR gives another"
            )
        found = Workspace(root)
        ensure(found)
        return found

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
        if self.log:
            self.log.line((text(value) if callable(text) else text) or "")

    def log_to(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        """From now on what is said to people, results and the error at the end too, also goes to this log file."""
        log = LogFile(path, max_bytes)
        if is_open_on(path, sys.stdout):  # cron's line sends it there
            log.turn_over()
        else:
            self.log = log

    def say(self, line: str) -> None:
        """Progress for people: standard output, or standard error where that carries JSON; a record with JSON logs."""
        if logjson.begun():
            logjson.say(line)
        else:
            stream = sys.stderr if self.json else sys.stdout
            stream.write(mask(line) + "\n")
            stream.flush()
        if self.log:
            self.log.line(line)

    def flush_messages(self, besides: str) -> None:
        """Have what waits in the outbox sent by a process of its own, which nobody waits for."""
        root = self.__dict__.get("workspace")  # a command that never asked for it has none to look into
        if besides == "notify" or root is None or not (root.state / "outbox").is_dir():
            return
        from engine.notify.flusher import flush_beside

        flush_beside(root, self.engine_command("notify", "--flush"))

    def forgotten_secrets(self, start: Path) -> list[str]:
        """A note about secrets that a process which cron or the boot starts in `start` would not find, if any."""
        place = self.loaded.path.absolute().parent if self.loaded.path else start
        missing = missing_from([start, place])
        if not missing:
            return []
        return [f"only this shell has {', '.join(missing)}: put them into {place / '.env'} (mode 600)"]

    def tell_registry(self) -> None:
        """Where MLflow tracks: have its registry follow the slots, in a process that nobody waits for."""
        if "mlflow" in self.settings.training.trackers:
            from engine.notify.flusher import start_apart

            start_apart(self.engine_command("trackers", "register"))

    def engine_command(self, *words: str) -> list[str]:
        """The command line of an engine child with this session's config, environment, workspace and overrides."""
        command = [sys.executable, "-m", "engine", "--workspace", str(self.settings.workspace)]
        return [*command, *self.loaded.options, *words, *portable_overrides(self.loaded)]


COMMON = (
    click.Option(["--config"], metavar="FILE", help="The config file (default: the project's config.toml)."),
    click.Option(["--workspace"], metavar="DIR", help="The folder that holds this host's state."),
    click.Option(["--environment"], metavar="NAME", help="Lay the config's [environments.NAME] over it."),
    click.Option(["--device"], metavar="NAME", help="auto, cuda, mps, cpu or xpu (same as device.prefer=NAME)."),
    click.Option(["--json", "as_json"], is_flag=True, help="Print exactly one JSON object on standard output."),
    click.Option(["--debug"], is_flag=True, help="Show the traceback of an error."),
)


def is_override(word: str, *, wide: bool = False) -> bool:
    """Whether a word of the command line is `section.key=value` or `group=NAME`; `wide`: any `name=value`."""
    return bool((_ANY_ASSIGNMENT if wide else OVERRIDE).match(word))


class FiniteRange(click.FloatRange):
    """A range of numbers without `nan` and `inf`, which click takes for numbers within it."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{value} is no finite number", param, ctx)
        return number


class Verb(click.Command):
    """A command with the common options; its words are overrides first, positionals after.

    Args:
        words: name, least and greatest number of positional words, e.g. `("BACKUP", 0, 1)`.
    """

    def __init__(self, *args: Any, words: tuple[str, int, int | None] = ("", 0, 0), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.word_name, self.least, self.greatest = words
        self.params += [click.Argument(["words"], nargs=-1, type=click.UNPROCESSED, metavar="", required=False)]
        # `or None`: where is_flag is said to be False, click takes a missing value for none given
        self.params += [click.Option([*option.opts, option.name], is_flag=option.is_flag or None,
                                     metavar=option.metavar, help=option.help) for option in COMMON]  # fmt: skip

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, as_settings(args, valued_options(self.params)))

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        name = f"[{self.word_name.strip('[]')}]" if self.word_name and not self.least else self.word_name
        return ["[OPTIONS]", *([name] if name else []), "[section.key=value ...]"]

    def invoke(self, ctx: click.Context) -> Any:
        session: Session = ctx.ensure_object(Session)
        take_common(session, ctx.params)
        takes_words = self.greatest != 0
        positionals: list[str] = []
        for word in ctx.params.pop("words"):
            (session.overrides if is_override(word, wide=not takes_words) else positionals).append(word)
        if self.greatest is not None and len(positionals) > self.greatest:
            raise UsageError(
                f"unexpected argument '{positionals[self.greatest]}'", f"see: {ctx.command_path} --help"
            )
        if len(positionals) < self.least:
            raise UsageError(f"'{ctx.info_name}' needs {self.word_name}", f"see: {ctx.command_path} --help")
        assert self.callback is not None
        try:
            return self.callback(session, *([positionals] if takes_words else []), **ctx.params)
        except UnderstudyError as error:
            if session.log and not is_open_on(session.log.path, sys.stderr):
                session.log.line(f"error: {error}")
            raise
        finally:
            session.flush_messages(besides=str(ctx.info_name))


def valued_options(params: Sequence[click.Parameter]) -> set[str]:
    """The options among `params` that take the word after them."""
    return {
        name
        for option in params
        if isinstance(option, click.Option) and not option.is_flag
        for name in option.opts
    }


def as_settings(args: Sequence[str], valued: set[str]) -> list[str]:
    """`--device X` and `--workspace DIR` as overrides in the same place, so that of two settings the later wins.

    Raises:
        UsageError: one of them has an empty value, as from a variable of a script that is not set.
    """
    words: list[str] = []
    position = 0
    while position < len(args):
        name, equals, value = args[position].partition("=")
        taken = 1
        if name in _AS_SETTING and not equals and position + 1 < len(args):
            value, equals, taken = args[position + 1], "=", 2
        if args[position] == "--":
            return [*words, *args[position:]]
        if name in _AS_SETTING and equals:
            if not value:
                raise UsageError(f"'{name}' has an empty value", f"leave {name} out, or give it one")
            words.append(f"{_AS_SETTING[name]}={value}")
        else:
            taken = 2 if args[position] in valued else 1
            words += args[position : position + taken]
        position += taken
    return words


def take_common(session: Session, params: dict[str, Any]) -> None:
    """Move the common options out of `params` into the session; those of `as_settings` are overrides by now."""
    if config := params.pop("config"):
        session.config = config
    if (environment := params.pop("environment")) is not None:
        session.environment = environment
    for name in _AS_SETTING:
        params.pop(name.removeprefix("--"))
    session.json = params.pop("as_json") or session.json
    session.debug = params.pop("debug") or session.debug


def reader_gone() -> Callable[[], bool]:
    """Whether whoever read our standard output has closed it: known at once, not at the next line."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return lambda: any(event & (select.POLLERR | select.POLLHUP | select.POLLNVAL) for _, event in poll.poll(0))


def table(rows: Sequence[Sequence[object]], header: Sequence[str] = ()) -> str:
    """Left-aligned columns, numbers right-aligned, for people."""
    cells = [[str(cell) for cell in row] for row in ([header] if header else []) + list(rows)]
    if not cells:
        return ""
    bare = [[cell.replace(STRIKE, "") for cell in row] for row in cells]  # a struck letter is one column wide
    widths = [max(len(row[column]) for row in bare) for column in range(len(cells[0]))]
    numeric = [
        all(re.fullmatch(r"[-+–]?[\d,.]*\s?[%A-Za-z/]{0,5}", row[column]) for row in bare[bool(header) :])
        for column in range(len(cells[0]))
    ]
    return "\n".join(
        "  ".join(
            cell.rjust(width + cell.count(STRIKE)) if right else cell.ljust(width + cell.count(STRIKE))
            for cell, width, right in zip(row, widths, numeric, strict=True)
        ).rstrip()
        for row in cells
    )
