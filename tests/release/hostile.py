"""Checkpoints that must not get in: hostile, broken and merely wrong ones, each made on demand.

`CASES` names each file, the check that must refuse it, words of the reason, and whether it is a critical alert.
A payload that ran would make the file `canary(path)`.
"""

from __future__ import annotations

import argparse
import datetime
import io
import os
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.release.checkpoints import CLASSES, Touch, card, content, save, weights

Maker = Callable[[Path], object]


@dataclass(frozen=True)
class Case:
    """One bad file. `torch`: refused only by what torch has read; else by the torch-free scan."""

    make: Maker
    check: str
    words: str
    dangerous: bool = False
    torch: bool = False


def canary(path: Path) -> Path:
    """The file that a payload of the checkpoint `path` would make."""
    return path.with_name(f"{path.name}.owned")


# --- how the files are made -------------------------------------------------------------------------------


@cache
def _sound() -> dict[str, bytes]:
    """The parts of a checkpoint that would be admitted."""
    stream = io.BytesIO()
    torch.save(content(), stream)
    with zipfile.ZipFile(stream) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _zip(path: Path, parts: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


def _parts(**replaced: bytes) -> dict[str, bytes]:
    """The sound parts, with some replaced by the last word of their name (`data_pkl` for data.pkl)."""
    names = {word.replace("_", ".", 1): data for word, data in replaced.items()}
    return {name: names.get(name.rsplit("/", 1)[-1], data) for name, data in _sound().items()}


def _pickled(make: Callable[[str], bytes]) -> Maker:
    """A torch zip whose pickle is what `make` gives for a shell command that would touch the canary."""
    return lambda path: _zip(path, _parts(data_pkl=make(f"touch {canary(path)}")))


def _text(word: str) -> bytes:
    raw = word.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def _call(module: str, name: str, *arguments: bytes) -> bytes:
    """A pickle, protocol 2, that calls module.name(*arguments)."""
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"(" + b"".join(arguments) + b"tR."


def _python(code: str) -> str:
    return f"__import__('os').system({code!r})"


def _stack_global(command: str) -> bytes:
    return b"\x80\x04\x8c\x02os\x8c\x06system\x93" + _text(command) + b"\x85R."


def _stack_global_from_memo(command: str) -> bytes:
    return b"\x80\x04\x8c\x06system\x940\x8c\x02os\x940h\x01h\x00\x93" + _text(command) + b"\x85R."


def _hidden_name(command: str) -> bytes:
    """The module's name is what another call returns: it cannot be told without running it."""
    built = b"c_codecs\nencode\n" + _text("os") + b"\x85R"
    return b"\x80\x04" + built + b"\x8c\x06system\x93" + _text(command) + b"\x85R."


def _nested(command: str) -> bytes:
    module = b"c__builtin__\n__import__\n" + _text("os") + b"\x85R"
    return b"\x80\x02c__builtin__\ngetattr\n(" + module + _text("system") + b"tR" + _text(command) + b"\x85R."


def _built(command: str) -> bytes:
    """BUILD on a module: its __setstate__ would get a dict of the attacker's."""
    return b"\x80\x02ctorch.nn.modules.module\nModule\n)\x81}" + _text("forward") + _text(command) + b"sb."


def _storage(kind: str, key: str, count: int) -> bytes:
    kind_of = (
        b"ctorch\n" + kind.encode() + b"\n" if "." not in kind else f"c{kind.replace('.', chr(10))}\n".encode()
    )
    return b"((" + _text("storage") + kind_of + _text(key) + _text("cpu") + b"J" + struct.pack("<i", count) + b"tQ"


def _tensor(kind: str = "FloatStorage", key: str = "0", count: int = 4, size: int = 4, stride: int = 1,
            offset: int = 0) -> bytes:  # fmt: skip
    """A pickle of a checkpoint with one tensor [size], as torch writes it but for what is wrong with it."""
    numbers = [b"J" + struct.pack("<i", number) for number in (offset, size, stride)]
    built = b"ctorch._utils\n_rebuild_tensor_v2\n" + _storage(kind, key, count) + numbers[0]
    built += numbers[1] + b"\x85" + numbers[2] + b"\x85\x89ccollections\nOrderedDict\n)RtR"
    return b"\x80\x02}" + _text("model_state_dict") + b"}" + _text("weight") + built + b"ss."


def _raw(make: Callable[[bytes], bytes]) -> Maker:
    """The sound file's bytes with something done to them."""

    def write(path: Path) -> None:
        stream = io.BytesIO()
        torch.save(content(), stream)
        path.write_bytes(make(stream.getvalue()))

    return write


def _flip(raw: bytes, at: int) -> bytes:
    return raw[:at] + bytes([raw[at] ^ 0x40]) + raw[at + 1 :]


def _flip_in(part: str, beyond: int = 40) -> Maker:
    """One byte of a part's content changed, `beyond` its start."""

    def make(raw: bytes) -> bytes:
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            member = next(info for info in archive.infolist() if info.filename.endswith(part))
        name, extra = struct.unpack_from("<HH", raw, member.header_offset + 26)
        return _flip(raw, member.header_offset + 30 + name + extra + beyond)

    return _raw(make)


def _directory(change: Callable[[bytes], bytes]) -> Maker:
    """The central directory's bytes changed, and nothing else."""

    def make(path: Path) -> None:
        _zip(path, _sound())
        raw = path.read_bytes()
        start = struct.unpack_from("<I", raw, len(raw) - 6)[0]
        path.write_bytes(raw[:start] + change(raw[start:]))

    return make


def _patched(at: int, value: bytes) -> Callable[[bytes], bytes]:
    """Overwrite a field of the directory's first entry."""
    return lambda directory: directory[:at] + value + directory[at + len(value) :]


def _overlapping(directory: bytes) -> bytes:
    """The second entry points at the first one's data, as in the bombs without recursion."""
    second = directory.index(b"PK\1\2", 4)
    return directory[: second + 42] + directory[42:46] + directory[second + 46 :]


def _twice(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in [*_sound().items(), *list(_sound().items())[:1]]:
            archive.writestr(zipfile.ZipInfo(name), data)


def _link_inside(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in _sound().items():
            archive.writestr(name, data)
        info = zipfile.ZipInfo("archive/data/900")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")


def _bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in _sound().items():
            archive.writestr(name, data)
        with archive.open("archive/data/900", "w") as part:
            for _ in range(64):
                part.write(bytes(1 << 20))


def _many(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(30_000):
            archive.writestr(f"archive/data/{number}", b"")


def _tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        data = pickle.dumps(Touch(canary(path)))
        info = tarfile.TarInfo("pickle")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))


def _link_out(path: Path) -> None:
    outside = path.parent.parent / "outside"
    outside.mkdir(exist_ok=True)
    path.symlink_to(save(outside / "model.pth", content()))


def _nest(depth: int) -> Any:
    value: Any = 1.0
    for _ in range(depth):
        value = [value]
    return value


def _laughs() -> Any:
    value: Any = ["ha"] * 8
    for _ in range(40):
        value = [value, value]
    return value


def _deep_pickle(_: str) -> bytes:
    """Lists within lists, deeper than any recursion survives."""
    depth = 100_000
    return b"\x80\x02}" + _text("model_state_dict") + b"]" * depth + b"a" * (depth - 1) + b"s."


def _deep_key(_: str) -> bytes:
    """A key of tuples within tuples: hashing it recurses in C until the stack is gone."""
    return b"\x80\x02}" + b")" + b"\x85" * 300_000 + b"K\x01s."


def _state(**replaced: torch.Tensor) -> Maker:
    return lambda path: save(path, content(model_state_dict=weights() | replaced))


def _bias(value: float, kind: torch.dtype) -> Maker:
    bias = torch.tensor([0.0, value, 0.0], dtype=kind)
    return lambda path: save(path, content(model_state_dict=weights() | {"head.bias": bias}))


def _without(name: str) -> Maker:
    return lambda path: save(path, content(model_state_dict={k: v for k, v in weights().items() if k != name}))


def _scaled(factor: float) -> Maker:
    state = {k: v * factor if v.dtype.is_floating_point else v for k, v in weights().items()}
    return lambda path: save(path, content(model_state_dict=state))


def _sparse(path: Path) -> None:
    save(path, content(model_state_dict=weights() | {"head.bias": torch.zeros(3).to_sparse()}))


def _quantised(path: Path) -> None:
    tensor = torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8)
    save(path, content(model_state_dict=weights() | {"head.bias": tensor}))


def _nested_tensor(path: Path) -> None:
    tensor = torch.nested.nested_tensor([torch.zeros(1), torch.zeros(2)])
    save(path, content(model_state_dict=weights() | {"head.bias": tensor}))


# --- what they are ----------------------------------------------------------------------------------------

_CODE = "would run code when opened"

PICKLES: dict[str, Case] = {
    "os.system, as torch.save writes it": Case(
        lambda path: save(path, content(payload=Touch(canary(path)))), "pickle", "system", True
    ),
    "posix.system by GLOBAL": Case(_pickled(lambda c: _call("posix", "system", _text(c))), "pickle", _CODE, True),
    "nt.system": Case(_pickled(lambda c: _call("nt", "system", _text(c))), "pickle", _CODE, True),
    "subprocess.Popen": Case(
        _pickled(lambda c: _call("subprocess", "Popen", b"](" + b"".join(map(_text, c.split())) + b"e")),
        "pickle",
        "subprocess.Popen",
        True,
    ),
    "builtins.eval": Case(_pickled(lambda c: _call("builtins", "eval", _text(_python(c)))), "pickle", _CODE, True),
    "builtins.exec": Case(_pickled(lambda c: _call("builtins", "exec", _text(_python(c)))), "pickle", _CODE, True),
    "eval by its old name": Case(
        _pickled(lambda c: _call("__builtin__", "eval", _text(_python(c)))), "pickle", _CODE, True
    ),
    "getattr of an import": Case(_pickled(_nested), "pickle", _CODE, True),
    "STACK_GLOBAL": Case(_pickled(_stack_global), "pickle", "os.system", True),
    "STACK_GLOBAL from the memo": Case(_pickled(_stack_global_from_memo), "pickle", "os.system", True),
    "a name that a call builds": Case(_pickled(_hidden_name), "pickle", "not name openly", True),
    "INST": Case(_pickled(lambda c: b"(" + _text(c) + b"ios\nsystem\n."), "pickle", "os.system", True),
    "OBJ": Case(_pickled(lambda c: b"(cos\nsystem\n" + _text(c) + b"o."), "pickle", "os.system", True),
    "NEWOBJ_EX": Case(
        _pickled(lambda c: b"\x80\x04csubprocess\nPopen\n" + _text(c) + b"\x85}\x92."), "pickle", "Popen", True
    ),
    "EXT1": Case(
        _pickled(lambda c: b"\x80\x02\x82\x01" + _text(c) + b"\x85R."), "pickle", "not name openly", True
    ),
    "BUILD of a module": Case(_pickled(_built), "pickle", "torch.nn.modules.module.Module"),
    "functools.partial": Case(
        _pickled(lambda c: _call("functools", "partial", b"cos\nsystem\n", _text(c))), "pickle", _CODE, True
    ),
    "operator.methodcaller": Case(
        _pickled(lambda c: _call("operator", "methodcaller", _text("system"), _text(c))), "pickle", _CODE, True
    ),
    "runpy": Case(_pickled(lambda c: _call("runpy", "_run_code", _text(_python(c)), b"}")), "pickle", _CODE, True),
    "importlib": Case(
        _pickled(lambda c: _call("importlib", "import_module", _text("antigravity"))), "pickle", _CODE, True
    ),
    "ctypes": Case(_pickled(lambda c: _call("ctypes", "CDLL", _text("libc.so.6"))), "pickle", _CODE, True),
    "a socket": Case(
        _pickled(lambda c: _call("socket", "create_connection", _text("127.0.0.1"))), "pickle", _CODE, True
    ),
    "pickle.loads": Case(_pickled(lambda c: _call("pickle", "loads", _text(c))), "pickle", "pickle.loads", True),
    "torch.hub.load": Case(
        _pickled(lambda c: _call("torch.hub", "load", _text("owner/name"), _text(c))), "pickle", _CODE, True
    ),
    "code object": Case(_pickled(lambda c: _call("types", "CodeType", _text(c))), "pickle", _CODE, True),
    "cut short after naming os.system": Case(
        _pickled(lambda c: b"\x80\x02cos\nsystem\nX\xff\xff\xff\x7f" + c.encode()), "pickle", "os.system", True
    ),
    "a second pickle behind the first": Case(
        _pickled(lambda c: b"\x80\x02}." + _call("os", "system", _text(c))), "pickle", "behind the end"
    ),
    "a persistent id in text": Case(_pickled(lambda c: b"Pmodule\n."), "pickle", "PERSID"),
    "a persistent id of code": Case(
        _pickled(lambda c: b"\x80\x02(" + _text("module") + _text(c) + b"tQ."), "pickle", "not a tensor's data"
    ),
    "protocol 4": Case(lambda path: save(path, content(), pickle_protocol=4), "pickle", "without pickle_protocol"),
    "more instructions than weights need": Case(
        _pickled(lambda c: b"\x80\x02" + b"N0" * 300_000 + b"}."), "pickle", "far more instructions"
    ),
    "noise for a pickle": Case(_pickled(lambda c: bytes(range(128, 256)) * 9), "pickle", "damaged pickle"),
    "a plain pickle with a payload": Case(
        lambda path: path.write_bytes(pickle.dumps(Touch(canary(path)))), "pickle", "system", True
    ),
    "the old torch format with a payload": Case(
        lambda path: save(path, content(payload=Touch(canary(path))), _use_new_zipfile_serialization=False),
        "pickle",
        "system",
        True,
    ),
    "a tar with a payload": Case(_tar, "container", "tar file"),
    "argparse.Namespace": Case(
        lambda path: save(path, content(args=argparse.Namespace(lr=1))), "pickle", "vars(args)"
    ),
    "numpy scalar": Case(lambda path: save(path, content(accuracy=np.float64(0.9))), "pickle", "float(x)"),
    "numpy array of objects": Case(
        lambda path: save(path, content(extra=np.array([None], dtype=object))), "pickle", "more than data"
    ),
    "a datetime": Case(
        lambda path: save(path, content(at=datetime.datetime(2026, 2, 6))), "pickle", "datetime.datetime"
    ),
    "the whole model": Case(
        lambda path: save(path, {"model_state_dict": torch.nn.Linear(2, 2)}), "pickle", "state_dict()"
    ),
    "a key that crashes its reader": Case(_pickled(_deep_key), "crashed", "SIGSEGV", torch=True),
}

ZIPS: dict[str, Case] = {
    "a deflated bomb": Case(_bomb, "container", "compression"),
    "overlapping parts": Case(_directory(_overlapping), "container", "disagree"),
    "30,000 parts": Case(_many, "container", "30,000 parts"),
    "a part of 4 GB, it says": Case(
        _directory(_patched(20, struct.pack("<II", 2**32 - 2, 2**32 - 2))),
        "container",
        "more than its size allows",
    ),
    "a document": Case(
        lambda path: _zip(path, {"[Content_Types].xml": b"<Types/>", "word/document.xml": b"<w/>"}),
        "container",
        "not one that torch.save made",
    ),
    "an empty zip": Case(lambda path: _zip(path, {}), "container", "not one that torch.save made"),
    "an encrypted part": Case(_directory(_patched(8, struct.pack("<H", 1))), "container", "encrypted"),
    "a part twice": Case(_twice, "container", "twice"),
    "a part above it": Case(
        lambda path: _zip(path, _sound() | {"../../evil": b"x"}), "container", "would lead out"
    ),
    "a part at the root": Case(lambda path: _zip(path, _sound() | {"/etc/evil": b"x"}), "container", "lead out"),
    "a part by backslashes": Case(
        lambda path: _zip(path, _sound() | {"a\\..\\..\\evil": b"x"}), "container", "lead out"
    ),
    "a part on a drive": Case(lambda path: _zip(path, _sound() | {"C:/evil": b"x"}), "container", "lead out"),
    "a link inside": Case(_link_inside, "container", "has a link in it"),
    "TorchScript": Case(lambda path: torch.jit.script(torch.nn.Linear(2, 2)).save(path), "container", "program"),
    "two pickles": Case(
        lambda path: _zip(path, _sound() | {"other/data.pkl": b"\x80\x02}."}), "container", "not one that torch"
    ),
    "no version": Case(
        lambda path: _zip(path, {n: d for n, d in _sound().items() if not n.endswith("version")}),
        "container",
        "not one that torch.save made",
    ),
    "other names in the parts than in the directory": Case(
        _directory(
            lambda directory: directory.replace(b"archive/data.pkl", b"archive/date.pkl", 1).replace(
                b"archive/version", b"archive/data.pkl"[:15], 1
            )
        ),
        "container",
        "",
    ),
    "a zip in two volumes": Case(
        _directory(lambda d: d[:-18] + struct.pack("<HH", 1, 0) + d[-14:]), "container", "several"
    ),
    "cut at a quarter": Case(_raw(lambda raw: raw[: len(raw) // 4]), "container", "truncated"),
    "cut in half": Case(_raw(lambda raw: raw[: len(raw) // 2]), "container", "truncated"),
    "cut in the directory": Case(_raw(lambda raw: raw[:-200]), "container", "truncated"),
    "the last byte missing": Case(_raw(lambda raw: raw[:-1]), "container", "truncated"),
    "something behind its end": Case(_raw(lambda raw: raw + b"#!/bin/sh\n" * 9), "container", "truncated"),
    "a flipped byte in a tensor": Case(_flip_in("data/0"), "crc", "checksum"),
    "a flipped byte in the pickle": Case(_flip_in("data.pkl"), "crc", "data.pkl"),
    "a flipped byte in the directory": Case(
        _raw(lambda raw: _flip(raw, raw.rindex(b"PK\1\2") + 2)), "container", ""
    ),
    "a flipped byte in a name": Case(_raw(lambda raw: _flip(raw, raw.rindex(b"PK\1\2") + 60)), "container", ""),
}

FILES: dict[str, Case] = {
    "text": Case(lambda path: path.write_text("epoch 3, accuracy 87%\n" * 40), "container", "text file"),
    "a web page": Case(lambda path: path.write_text("<!doctype html><p>404</p>\n"), "container", "text file"),
    "a Git LFS pointer": Case(
        lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "container", "git lfs pull"
    ),
    "zeros": Case(lambda path: path.write_bytes(bytes(9000)), "container", "zeros"),
    "noise": Case(lambda path: path.write_bytes(bytes(range(256)) * 9), "container", "not a torch checkpoint"),
    "gzip": Case(
        lambda path: path.write_bytes(b"\x1f\x8b\x08" + bytes(99)), "container", "not a torch checkpoint"
    ),
    "HDF5": Case(lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(99)), "container", "HDF5"),
    "safetensors": Case(
        lambda path: path.write_bytes(struct.pack("<Q", 16) + b'{"a":{"x":[1]}} ' + bytes(9)),
        "container",
        "safetensors",
    ),
    "a plain pickle": Case(lambda path: path.write_bytes(pickle.dumps({"a": 1})), "container", "plain pickle"),
    "the old torch format": Case(
        lambda path: save(path, content(), _use_new_zipfile_serialization=False), "container", "torch 1.6"
    ),
    "empty": Case(lambda path: path.write_bytes(b""), "file", "empty"),
    "a link that leads away": Case(_link_out, "file", "link that leads out"),
    "a pipe": Case(lambda path: os.mkfifo(path), "file", "regular file"),
    "a link to a device": Case(lambda path: path.symlink_to("/dev/zero"), "file", "link that leads out"),
    "sparse, 5 GB": Case(lambda path: (path.touch(), os.truncate(path, 5 * 1024**3)), "file", "5.4 GB"),
}

STORAGES: dict[str, Case] = {
    "a storage that is not there": Case(_pickled(lambda c: _tensor(key="77")), "content", "lacks the data"),
    "a storage above the file": Case(
        _pickled(lambda c: _tensor(key="../../version")), "content", "lacks the data"
    ),
    "more data than its part holds": Case(
        _pickled(lambda c: _tensor(count=10**9)), "content", "4,000,000,000 bytes"
    ),
    "less data than its part holds": Case(_pickled(lambda c: _tensor(count=1)), "content", "has 4 bytes"),
    "a negative size": Case(_pickled(lambda c: _tensor(count=-1)), "pickle", "not plain"),
    "a storage of objects": Case(_pickled(lambda c: _tensor(kind="ObjectStorage")), "pickle", "not plain"),
    "sparse": Case(_sparse, "content", "not plain"),
    "quantised": Case(_quantised, "content", "not plain"),
    "nested": Case(_nested_tensor, "content", "not plain"),
    "meta": Case(
        lambda path: save(
            path, content(model_state_dict=weights() | {"head.bias": torch.zeros(3, device="meta")})
        ),
        "content",
        "not plain",
    ),
    "a string of 9 MB": Case(lambda path: save(path, content(note="x" * 9_000_000)), "container", "more than"),
}

WRONG: dict[str, Case] = {
    **{
        f"{name} in {kind}": Case(
            _bias(value, getattr(torch, kind)), "finite", f"{name} in 'head.bias'", torch=True
        )
        for kind in ("float32", "float64", "float16", "bfloat16")
        for name, value in (("NaN", float("nan")), ("Inf", float("-inf")))
    },
    "too large for float32": Case(_bias(1e300, torch.float64), "finite", "too large for float32", torch=True),
    "complex": Case(_bias(1.0, torch.complex64), "content", "complex", torch=True),
    "whole numbers": Case(_bias(1.0, torch.int64), "shapes", "wants torch.float32", torch=True),
    "stretched over one number": Case(
        lambda path: save(path, content(model_state_dict={"a": torch.zeros(1).expand(10**12)})),
        "content",
        "larger than its data",
        torch=True,
    ),
    "a stride beyond its data": Case(
        lambda path: _zip(path, _parts(data_pkl=_tensor(count=_count("0"), size=9, stride=10**6))),
        "pickle",
        "cannot be read as data",
        torch=True,
    ),
    "a negative stride": Case(
        lambda path: _zip(path, _parts(data_pkl=_tensor(count=_count("0"), size=4, stride=-1, offset=3))),
        "pickle",
        "cannot be read as data",
        torch=True,
    ),
    "an offset before its data": Case(
        lambda path: _zip(path, _parts(data_pkl=_tensor(count=_count("0"), offset=-4))),
        "pickle",
        "cannot be read as data",
        torch=True,
    ),
    "overlapping strides": Case(
        _state(**{"head.bias": torch.arange(4.0).as_strided((3, 3), (1, 0))}), "content", "larger", torch=True
    ),
    "lists without end": Case(
        lambda path: save(path, content(extra=_laughs())), "content", "without end", torch=True
    ),
    "lists 100 deep": Case(
        lambda path: save(path, content(extra=_nest(100))), "content", "without end", torch=True
    ),
    "lists 100,000 deep": Case(_pickled(_deep_pickle), "content", "without end", torch=True),
    "a bare state dict": Case(lambda path: save(path, weights()), "content", "bare state dict", torch=True),
    "a list": Case(lambda path: save(path, [1, 2]), "content", "not a dict", torch=True),
    "nothing in it": Case(lambda path: save(path, content(model_state_dict={})), "content", "empty", torch=True),
    "no tensors": Case(
        lambda path: save(path, content(model_state_dict={"a": "b"})), "content", "not a tensor", torch=True
    ),
    "numbers for names": Case(
        lambda path: save(path, content(model_state_dict={7: torch.zeros(1)})), "content", "'7'", torch=True
    ),
    "other shapes": Case(
        lambda path: save(path, content(model_state_dict=weights(widths=[8, 24], depths=[1, 1]))),
        "shapes",
        "does not fit litecnn",
        torch=True,
    ),
    "a missing key": Case(_without("head.bias"), "shapes", "missing 'head.bias'", torch=True),
    "an unknown key in Korean": Case(_state(머리=torch.zeros(1)), "shapes", "unknown '머리'", torch=True),
    "another class count": Case(
        lambda path: save(path, content(model_state_dict=weights(classes=5))), "shapes", "answers 5", torch=True
    ),
    "another class order": Case(
        lambda path: save(path, content(classes=CLASSES[::-1])), "classes", "another order", torch=True
    ),
    "a class twice": Case(
        lambda path: save(path, content(understudy=card(["cat", "cat", "owl"]))), "card", "twice", torch=True
    ),
    "a net of someone else's": Case(
        lambda path: save(path, content(understudy=card(architecture={"name": "os:system", "settings": {}}))),
        "architecture",
        "does not trust",
        torch=True,
    ),
    "a net far too large": Case(
        lambda path: save(
            path,
            content(
                understudy=card(architecture={"name": "litecnn", "settings": {"widths": [10**6], "depths": [1]}})
            ),
        ),
        "architecture",
        "cannot be built",
        torch=True,
    ),
    "dead": Case(_scaled(0.0), "golden", "same to every image", torch=True),
    "overflowing": Case(_scaled(1e30), "golden", "NaN or Inf", torch=True),
}

CASES: dict[str, Case] = {**PICKLES, **ZIPS, **FILES, **STORAGES, **WRONG}


def _count(key: str) -> int:
    """Numbers of four bytes in the sound file's storage `key`."""
    return len(next(data for name, data in _sound().items() if name.endswith(f"data/{key}"))) // 4
