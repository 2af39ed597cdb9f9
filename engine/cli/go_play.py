"""`go suggest`, `go play` and `go gtp`: the network on a board."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from engine import __version__
from engine.cli.verb import Session, Verb, table
from engine.errors import UsageError
from engine.store.workspace import SLOTS, TITLES

if TYPE_CHECKING:
    from engine.release.bundle import Release
    from engine.tasks.go.board import GoBoard
    from engine.tasks.go.player import Player, Suggestion

_CHECKPOINT = click.option(
    "--checkpoint",
    metavar="C",
    help="A checkpoint file or a release (default: AS-IS's net, else the newest best).",
)
_MARKS = "abcdefghijklmnopqrstuvwxyz"


@click.command(cls=Verb, words=("SGF", 0, 1))
@_CHECKPOINT
@click.option("--top-k", type=click.IntRange(1, 26), default=5, show_default=True, help="How many moves.")
@click.option("--move", "number", type=click.IntRange(min=0), help="The position after so many moves.")
@click.option(
    "--held-out",
    "held",
    type=click.IntRange(min=1),
    metavar="N",
    help="Instead of an SGF: the Nth held-out position, as ab draws them.",
)
@click.option("--slots", "both", is_flag=True, help="The moves of AS-IS's and TO-BE's nets side by side.")
@click.option("--ascii", "ascii_only", is_flag=True, help="Draw the board in ASCII.")
def go_suggest(
    session: Session,
    words: list[str],
    checkpoint: str | None,
    top_k: int,
    number: int | None,
    held: int | None,
    both: bool,
    ascii_only: bool,
) -> None:
    """The net's best moves in a position: the end of an SGF game, a held-out one, or the empty board."""
    if (held and words) or (both and checkpoint):
        raise UsageError(
            "one position and one choice of nets at a time", "SGF or --held-out; --checkpoint or --slots"
        )
    if number is not None and not words:
        raise UsageError("--move is for the position of an SGF", "name an SGF file, or leave --move out")
    nets = _slot_players(session) if both else [(None, *_player(session, checkpoint))]
    size = nets[0][2]
    place: dict[str, Any] = {}
    if held:
        board, place = _held_out(session, held, size)
    else:
        board = _board_of(Path(words[0]), number) if words else _empty(size)
    if board.size != size:
        raise UsageError(f"a board of size {board.size}", f"this net plays on {size}×{size}")
    said = [(name, player.suggest(board, top_k)) for name, player, _ in nets]
    lists = [{"net": name, "moves": [_move(board, one) for one in found]} for name, found in said]
    value = {
        "to_play": "BW"[board.to_play - 1],
        "size": size,
        "moves": lists[0]["moves"],
        **({"nets": lists} if both else {}),
        **place,
        "board": _rows(board),
        "last": board.name(board.moves[-1][1]) if board.moves else None,
    }
    session.emit(value, lambda _: "\n\n".join(_drawn(board, found, ascii_only, name) for name, found in said))


def _move(board: GoBoard, one: Suggestion) -> dict[str, Any]:
    row, column = divmod(one.point, board.size)
    return {
        "move": board.name(one.point),
        "row": row + 1,
        "column": column + 1,
        "confidence": round(one.confidence, 6),
    }


def _rows(board: GoBoard) -> list[str]:
    """The position as text, the highest row first: `X` black, `O` white, `.` empty."""
    signs = [".XO"[stone] for stone in board.points.tolist()]
    rows = ["".join(signs[start : start + board.size]) for start in range(0, len(signs), board.size)]
    return rows[::-1]


def _held_out(session: Session, number: int, size: int) -> tuple[GoBoard, dict[str, Any]]:
    """A labelled position (the same that `ab` asks about), and what is known of it: its game, the move played."""
    from engine.tasks.go.labelled import labelled_positions
    from engine.tasks.go.records import board_of, read_record

    items = labelled_positions(session.settings, None, session.settings.ab.seed, size).images
    if number > len(items):
        raise UsageError(
            f"there are {len(items):,} held-out positions, one a game, and no number {number:,}",
            "give a smaller --held-out",
        )
    item = items[number - 1]
    assert item.content is not None
    known = {"held_out": number, "of": len(items), "game": item.name, "played": item.label}
    return board_of(read_record(item.content)), known


@click.command(cls=Verb)
@_CHECKPOINT
@click.option("--colour", type=click.Choice(["black", "white"]), default="black", show_default=True, help="Yours.")
@click.option("--handicap", type=click.IntRange(0, 9), default=0, help="Black's stones.")
@click.option("--komi", type=float, help="Default: 7.5, with a handicap 0.5.")
@click.option("--ascii", "ascii_only", is_flag=True, help="Draw the board in ASCII.")
def go_play(
    session: Session, checkpoint: str | None, colour: str, handicap: int, komi: float | None, ascii_only: bool
) -> None:
    """Play against the net: type a point such as Q16, or pass, undo, suggest, score, resign."""
    from engine.tasks.go.rules import BLACK, WHITE

    if session.json:
        raise UsageError("go play talks to a person, not in JSON", "use go suggest --json, or go gtp")
    player, size = _player(session, checkpoint)
    board = _empty(size)
    board.komi = komi if komi is not None else 0.5 if handicap else 7.5
    if handicap:
        board.place([(BLACK, point) for point in board.fixed_handicap(handicap)])
    mine = BLACK if colour == "black" else WHITE
    while True:
        click.echo("\n" + board.display(ascii_only=ascii_only))
        if len(board.moves) >= 2 and all(point == board.passing for _, point in board.moves[-2:]):
            click.echo(_score(board))
            return
        if board.to_play == mine:
            if not _ask(board, player, ascii_only):
                return
            continue
        point = player.choose(board)
        if point is None:
            click.echo("the net resigns: you win")
            return
        click.echo(f"the net plays {board.name(point)}")
        board.play(point)


@click.command(cls=Verb)
@_CHECKPOINT
def go_gtp(session: Session, checkpoint: str | None) -> None:
    """Speak GTP 2 on standard input and output, for any Go program."""
    from engine.tasks.go.gtp import GtpEngine

    player, size = _player(session, checkpoint)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # an answer of GTP and not an end, whatever the bytes
    GtpEngine(player, size=size, version=__version__).run()


def _slot_players(session: Session) -> list[tuple[str | None, Player, int]]:
    """AS-IS's and TO-BE's nets as (name, player, board size); where no slot has one, the newest best."""
    from engine.release.slots import open_slot

    found: list[tuple[str | None, Player, int]] = []
    for slot in SLOTS:
        release = open_slot(session.workspace, slot)
        if release is not None and release.manifest.task == "go":
            found.append((slot, *_player_of(release)))
    return found or [(None, *_player(session, None))]


def _player_of(release: Release) -> tuple[Player, int]:
    from engine.tasks.go.player import Player
    from engine.tasks.go.weights import net_of_onnx

    return Player(net_of_onnx(release.onnx())), int(release.manifest.preprocess["board_size"])


def _player(session: Session, checkpoint: str | None) -> tuple[Player, int]:
    from engine.tasks.go.player import Player

    path = Path(checkpoint).expanduser() if checkpoint else None
    release = None if path and path.exists() else _release(session, checkpoint)
    if release is not None:
        if release.manifest.task != "go":
            raise UsageError(f"release {release.id[:8]} is no Go network", "name one with --checkpoint")
        return _player_of(release)
    from engine.checkpoints.files import CARD, load_checkpoint_file
    from engine.tasks.go.weights import net_of_checkpoint

    path = path or _newest_best(session)
    content = load_checkpoint_file(path)
    net, size = net_of_checkpoint(content, content.get(CARD), str(path))
    return Player(net), size


def _release(session: Session, name: str | None) -> Release | None:
    """The release that is named; without a name AS-IS's, or None where it holds no Go network."""
    from engine.release.bundle import read_release, release_path, resolve_release
    from engine.release.slots import open_slot

    if name is None:
        release = open_slot(session.workspace, "asis")
        return release if release and release.manifest.task == "go" else None
    try:
        identity = resolve_release(session.workspace, name)
    except UsageError as error:
        raise UsageError(f"no checkpoint and no release {name}", error.hint, kind="not_found") from None
    return read_release(release_path(session.workspace, identity), expect=identity)


def _newest_best(session: Session) -> Path:
    from engine.training.runs import list_runs

    for entry in list_runs(session.workspace):
        if entry.get("task") == "go" and entry["checkpoint"] and Path(entry["checkpoint"]).exists():
            return Path(entry["checkpoint"])
    raise UsageError("no Go network has been trained here", "run: go train, or name one with --checkpoint")


def _empty(size: int) -> GoBoard:
    from engine.tasks.go.board import GoBoard

    return GoBoard(size)


def _board_of(path: Path, number: int | None) -> GoBoard:
    from engine.tasks.go.records import BadRecord, board_of, read_record

    try:
        record = read_record(sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes())
    except FileNotFoundError:
        raise UsageError(f"no file {path}", "name an SGF file, or - for standard input") from None
    except BadRecord as error:
        raise UsageError(f"{path}: {error}", "name the SGF file of one game") from None
    if number is not None and number > len(record.moves):
        raise UsageError(f"{path} has {len(record.moves)} moves", "choose a smaller --move")
    return board_of(record, number)


def _drawn(board: GoBoard, found: list[Suggestion], ascii_only: bool, net: str | None = None) -> str:
    marks = {one.point: _MARKS[index] for index, one in enumerate(found)}
    moves = [_move(board, one) for one in found]
    rows = [
        (mark, one["move"], one["row"], one["column"], f"{one['confidence']:.2%}")
        for mark, one in zip(_MARKS, moves, strict=False)
    ]
    whose = "black" if board.to_play == 1 else "white"
    said = table(rows, ("", "move", "row", "column", "confidence")) if rows else "no legal move but pass"
    return f"{board.display(marks, ascii_only=ascii_only)}\n\n{whose} to play{f', {TITLES[net]}' if net else ''}\n{said}"


def _ask(board: GoBoard, player: Player, ascii_only: bool) -> bool:
    """One entry of the person; False when the game is over."""
    try:
        words: Any = input("your move: ").strip()
    except EOFError:
        return False
    command = words.lower()
    if command in ("quit", "resign"):
        click.echo("you resign" if command == "resign" else "")
        return False
    try:
        if command == "undo":
            board.undo()
            if board.moves:
                board.undo()
        elif command == "suggest":
            click.echo(_drawn(board, player.suggest(board), ascii_only))
        elif command == "score":
            click.echo(_score(board))
        else:
            board.play(board.point(words))
    except UsageError as error:
        click.echo(f"{error.message}: {error.hint}")
    return True


def _score(board: GoBoard) -> str:
    from engine.tasks.go.playouts import estimate

    lead = estimate(board).lead
    return f"about {'black' if lead > 0 else 'white'} +{abs(lead):.1f} (by random playouts)"
