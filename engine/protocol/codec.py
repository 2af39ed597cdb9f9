"""Messages to lines of JSON and back; what does not fit is refused in words that name the place."""

from __future__ import annotations

import json
import math
import types
import typing
from collections.abc import Iterable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from engine.errors import UnderstudyError
from engine.protocol.messages import KINDS, OLDEST, VERSION, Message

T = TypeVar("T")


class ProtocolError(UnderstudyError):
    """A line that cannot be read; `kind` is `damaged` or `version`."""

    default_kind = "damaged"


def encode(message: Message) -> str:
    """The message as one line of JSON without its newline. Numbers that are not finite become null."""
    return json.dumps(to_json(message), ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def parse(line: str | bytes) -> Message:
    """One line of a stream.

    Raises:
        ProtocolError: not a message (`damaged`), or of a version that is not read here (`version`).
    """
    try:
        value = json.loads(line)
    except ValueError:
        raise ProtocolError("a line of the stream is not JSON", "was it cut off?") from None
    if not isinstance(value, dict) or not isinstance(value.get("v"), int):
        raise ProtocolError("a line of the stream is not a message", "is this the output of `engine watch`?")
    version = value["v"]
    if not OLDEST <= version <= VERSION:
        where = value.get("host", "the other host")
        newer = version > VERSION
        raise ProtocolError(
            f"{where} speaks version {version} of the stream, this reads {OLDEST} to {VERSION}",
            "update Understudy here" if newer else f"update Understudy on {where}",
            kind="version",
        )
    envelope = {key: value.get(key) for key in ("v", "seq", "at", "host", "kind")}
    data = value.get("data")
    if not isinstance(data, dict):
        raise ProtocolError("a message has no data", "was it cut off?")
    shape = KINDS.get(str(envelope["kind"]))
    envelope["data"] = {}
    message = from_json(Message, envelope, "message")
    content = from_json(shape, data, message.kind) if shape else data
    return Message(v=message.v, seq=message.seq, at=message.at, host=message.host, kind=message.kind, data=content)


def read_stream(lines: Iterable[str | bytes]) -> Iterator[Message]:
    """The messages of a recording or a pipe, one a line; empty lines and a last line cut short are passed over.

    Raises:
        ProtocolError: as `parse`, for any other line.
    """
    for line in lines:
        if not line.strip():
            continue
        try:
            yield parse(line)
        except ProtocolError as error:
            if error.kind == "damaged" and line[-1:] not in ("\n", b"\n"):
                return
            raise


def to_json(value: Any) -> Any:
    """Dataclasses as objects, everything else as JSON has it."""
    if is_dataclass(value):
        return {item.name: to_json(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, dict):
        return {key: to_json(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def from_json(shape: type[T], value: Any, where: str = "value") -> T:
    """An instance of the dataclass `shape` from a JSON object; unknown keys are passed over.

    Raises:
        ProtocolError: a key without a default is missing, or a value has another type; names the place.
    """
    return typing.cast(T, _convert(shape, value, where))


@cache
def _fields(shape: type) -> tuple[tuple[str, Any, bool], ...]:
    hints = typing.get_type_hints(shape)
    return tuple(
        (item.name, hints[item.name], item.default is MISSING and item.default_factory is MISSING)
        for item in fields(shape)
    )


def _convert(shape: Any, value: Any, where: str) -> Any:
    if is_dataclass(shape) and isinstance(shape, type):
        return _object(shape, value, where)
    origin = get_origin(shape)
    if shape is Any:
        return value
    if origin in (Union, types.UnionType):
        return _union(shape, value, where)
    if origin is Literal:
        if value in get_args(shape):
            return value
        raise _wrong(where, f"one of {', '.join(map(str, get_args(shape)))}", value)
    if origin is list:
        if not isinstance(value, list):
            raise _wrong(where, "a list", value)
        (item,) = get_args(shape)
        return [_convert(item, entry, f"{where}[{index}]") for index, entry in enumerate(value)]
    if origin is dict:
        if not isinstance(value, dict):
            raise _wrong(where, "an object", value)
        item = get_args(shape)[1]
        return {key: _convert(item, entry, f"{where}.{key}") for key, entry in value.items()}
    return _scalar(shape, value, where)


def _object(shape: type, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise _wrong(where, "an object", value)
    found = {}
    for name, hint, needed in _fields(shape):
        if name in value:
            found[name] = _convert(hint, value[name], f"{where}.{name}")
        elif needed:
            raise ProtocolError(f"{where} has no '{name}'", "the stream is damaged or of another program")
    return shape(**found)


def _union(shape: Any, value: Any, where: str) -> Any:
    options = get_args(shape)
    if value is None and type(None) in options:
        return None
    shapes = [option for option in options if option is not type(None)]
    if len(shapes) > 1:
        if isinstance(value, dict):
            return value
        raise _wrong(where, "an object", value)
    return _convert(shapes[0], value, where)


def _scalar(shape: type, value: Any, where: str) -> Any:
    if shape is float and isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    if shape is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, shape) and (shape is bool or not isinstance(value, bool)):
        return value
    names = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    raise _wrong(where, names.get(shape, shape.__name__), value)


def _wrong(where: str, expected: str, value: Any) -> ProtocolError:
    shown = json.dumps(value, ensure_ascii=False)
    return ProtocolError(
        f"{where} should be {expected}, not {shown[:40]}", "the stream is damaged or of another program"
    )
