"""A group of verbs whose modules are imported only when they are called; common options stand anywhere."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click

from engine.cli.verb import COMMON, Session, as_settings, is_override, take_common, valued_options
from engine.errors import UsageError, nearest


class VerbGroup(click.Group):
    """Verbs by a table: name -> (module below engine.cli, one line of help).

    Args:
        prefix: what a verb's function is called by before its name, `go_` for `go parse`.
    """

    def __init__(self, table: Mapping[str, tuple[str, str]], prefix: str = "", **kwargs: Any) -> None:
        super().__init__(params=list(COMMON), no_args_is_help=True, **kwargs)
        self.table, self.prefix = table, prefix

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        session = ctx.ensure_object(Session)
        valued = valued_options(COMMON)
        args = as_settings(args, valued)
        rest, position = [], 0
        while position < len(args):
            word = args[position]
            if word in valued:
                rest += args[position : position + 2]
                position += 2
            elif is_override(word, wide=True):
                session.overrides.append(word)
                position += 1
            elif word.startswith("-"):
                rest.append(word)
                position += 1
            else:
                break
        return super().parse_args(ctx, rest + args[position:])

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(self.table)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in self.table:
            return None
        module = importlib.import_module(f"engine.cli.{self.table[name][0]}")
        command = getattr(module, self.prefix + name)
        assert isinstance(command, click.Command)
        return command

    def resolve_command(self, ctx: click.Context, args: list[str]) -> tuple[str, click.Command, list[str]]:
        command = self.get_command(ctx, args[0])
        if command is None:
            said = f"unknown verb '{ctx.command.name} {args[0]}'" if self.prefix else f"unknown verb '{args[0]}'"
            raise UsageError(said, nearest(args[0], self.table), kind="unknown_verb")
        return args[0], command, args[1:]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Verbs"):
            formatter.write_dl([(name, self.table[name][1]) for name in sorted(self.table)])

    def invoke(self, ctx: click.Context) -> Any:
        take_common(ctx.ensure_object(Session), ctx.params)
        return super().invoke(ctx)
