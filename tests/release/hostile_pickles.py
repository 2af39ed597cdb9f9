"""Checkpoints whose pickle must not get in: payloads of many kinds, objects that weights do not need, storages that lie.

A payload that ran would make the file `canary(path)`.
"""

from __future__ import annotations

import argparse
import datetime
import io
import pickle
import struct
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch

from tests.release.checkpoints import Touch, content, save, weights

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


@cache
def sound_parts() -> dict[str, bytes]:
    """The parts of a checkpoint that would be admitted."""
    stream = io.BytesIO()
    torch.save(content(), stream)
    with zipfile.ZipFile(stream) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_zip(path: Path, parts: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> None:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


def parts_with(**replaced: bytes) -> dict[str, bytes]:
    """The sound parts, with some replaced by the last word of their name (`data_pkl` for data.pkl)."""
    names = {word.replace("_", ".", 1): data for word, data in replaced.items()}
    return {name: names.get(name.rsplit("/", 1)[-1], data) for name, data in sound_parts().items()}


def numbers_in(key: str) -> int:
    """Numbers of four bytes in the sound file's storage `key`."""
    return len(next(data for name, data in sound_parts().items() if name.endswith(f"data/{key}"))) // 4


def pickled(make: Callable[[str], bytes]) -> Maker:
    """A torch zip whose pickle is what `make` gives for a shell command that would touch the canary."""
    return lambda path: write_zip(path, parts_with(data_pkl=make(f"touch {canary(path)}")))


def text_op(word: str) -> bytes:
    raw = word.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def _call(module: str, name: str, *arguments: bytes) -> bytes:
    """A pickle, protocol 2, that calls module.name(*arguments)."""
    return b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"(" + b"".join(arguments) + b"tR."


def _python(code: str) -> str:
    return f"__import__('os').system({code!r})"


def _stack_global(command: str) -> bytes:
    return b"\x80\x04\x8c\x02os\x8c\x06system\x93" + text_op(command) + b"\x85R."


def _stack_global_from_memo(command: str) -> bytes:
    return b"\x80\x04\x8c\x06system\x940\x8c\x02os\x940h\x01h\x00\x93" + text_op(command) + b"\x85R."


def _hidden_name(command: str) -> bytes:
    """The module's name is what another call returns: it cannot be told without running it."""
    built = b"c_codecs\nencode\n" + text_op("os") + b"\x85R"
    return b"\x80\x04" + built + b"\x8c\x06system\x93" + text_op(command) + b"\x85R."


def _nested(command: str) -> bytes:
    module = b"c__builtin__\n__import__\n" + text_op("os") + b"\x85R"
    return b"\x80\x02c__builtin__\ngetattr\n(" + module + text_op("system") + b"tR" + text_op(command) + b"\x85R."


def _built(command: str) -> bytes:
    """BUILD on a module: its __setstate__ would get a dict of the attacker's."""
    return b"\x80\x02ctorch.nn.modules.module\nModule\n)\x81}" + text_op("forward") + text_op(command) + b"sb."


def _storage(kind: str, key: str, count: int) -> bytes:
    kind_of = (
        b"ctorch\n" + kind.encode() + b"\n" if "." not in kind else f"c{kind.replace('.', chr(10))}\n".encode()
    )
    return (
        b"(("
        + text_op("storage")
        + kind_of
        + text_op(key)
        + text_op("cpu")
        + b"J"
        + struct.pack("<i", count)
        + b"tQ"
    )


def tensor_pickle(kind: str = "FloatStorage", key: str = "0", count: int = 4, size: int = 4, stride: int = 1,
            offset: int = 0) -> bytes:  # fmt: skip
    """A pickle of a checkpoint with one tensor [size], as torch writes it but for what is wrong with it."""
    numbers = [b"J" + struct.pack("<i", number) for number in (offset, size, stride)]
    built = b"ctorch._utils\n_rebuild_tensor_v2\n" + _storage(kind, key, count) + numbers[0]
    built += numbers[1] + b"\x85" + numbers[2] + b"\x85\x89ccollections\nOrderedDict\n)RtR"
    return b"\x80\x02}" + text_op("model_state_dict") + b"}" + text_op("weight") + built + b"ss."


def _deep_key(_: str) -> bytes:
    """A key of tuples within tuples: hashing it recurses in C until the stack is gone."""
    return b"\x80\x02}" + b")" + b"\x85" * 300_000 + b"K\x01s."


def _sparse(path: Path) -> None:
    save(path, content(model_state_dict=weights() | {"head.bias": torch.zeros(3).to_sparse()}))


def _quantised(path: Path) -> None:
    tensor = torch.quantize_per_tensor(torch.zeros(3), 0.1, 0, torch.qint8)
    save(path, content(model_state_dict=weights() | {"head.bias": tensor}))


def _nested_tensor(path: Path) -> None:
    tensor = torch.nested.nested_tensor([torch.zeros(1), torch.zeros(2)])
    save(path, content(model_state_dict=weights() | {"head.bias": tensor}))


def _tar(path: Path) -> None:
    with tarfile.open(path, "w") as archive:
        data = pickle.dumps(Touch(canary(path)))
        info = tarfile.TarInfo("pickle")
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))


_CODE = "would run code when opened"

PICKLES: dict[str, Case] = {
    "os.system, as torch.save writes it": Case(
        lambda path: save(path, content(payload=Touch(canary(path)))), "pickle", "system", True
    ),
    "posix.system by GLOBAL": Case(pickled(lambda c: _call("posix", "system", text_op(c))), "pickle", _CODE, True),
    "nt.system": Case(pickled(lambda c: _call("nt", "system", text_op(c))), "pickle", _CODE, True),
    "subprocess.Popen": Case(
        pickled(lambda c: _call("subprocess", "Popen", b"](" + b"".join(map(text_op, c.split())) + b"e")),
        "pickle",
        "subprocess.Popen",
        True,
    ),
    "builtins.eval": Case(
        pickled(lambda c: _call("builtins", "eval", text_op(_python(c)))), "pickle", _CODE, True
    ),
    "builtins.exec": Case(
        pickled(lambda c: _call("builtins", "exec", text_op(_python(c)))), "pickle", _CODE, True
    ),
    "eval by its old name": Case(
        pickled(lambda c: _call("__builtin__", "eval", text_op(_python(c)))), "pickle", _CODE, True
    ),
    "getattr of an import": Case(pickled(_nested), "pickle", _CODE, True),
    "STACK_GLOBAL": Case(pickled(_stack_global), "pickle", "os.system", True),
    "STACK_GLOBAL from the memo": Case(pickled(_stack_global_from_memo), "pickle", "os.system", True),
    "a name that a call builds": Case(pickled(_hidden_name), "pickle", "not name openly", True),
    "INST": Case(pickled(lambda c: b"(" + text_op(c) + b"ios\nsystem\n."), "pickle", "os.system", True),
    "OBJ": Case(pickled(lambda c: b"(cos\nsystem\n" + text_op(c) + b"o."), "pickle", "os.system", True),
    "NEWOBJ_EX": Case(
        pickled(lambda c: b"\x80\x04csubprocess\nPopen\n" + text_op(c) + b"\x85}\x92."), "pickle", "Popen", True
    ),
    "EXT1": Case(
        pickled(lambda c: b"\x80\x02\x82\x01" + text_op(c) + b"\x85R."), "pickle", "not name openly", True
    ),
    "BUILD of a module": Case(pickled(_built), "pickle", "torch.nn.modules.module.Module"),
    "functools.partial": Case(
        pickled(lambda c: _call("functools", "partial", b"cos\nsystem\n", text_op(c))), "pickle", _CODE, True
    ),
    "operator.methodcaller": Case(
        pickled(lambda c: _call("operator", "methodcaller", text_op("system"), text_op(c))), "pickle", _CODE, True
    ),
    "runpy": Case(
        pickled(lambda c: _call("runpy", "_run_code", text_op(_python(c)), b"}")), "pickle", _CODE, True
    ),
    "importlib": Case(
        pickled(lambda c: _call("importlib", "import_module", text_op("antigravity"))), "pickle", _CODE, True
    ),
    "ctypes": Case(pickled(lambda c: _call("ctypes", "CDLL", text_op("libc.so.6"))), "pickle", _CODE, True),
    "a socket": Case(
        pickled(lambda c: _call("socket", "create_connection", text_op("127.0.0.1"))), "pickle", _CODE, True
    ),
    "pickle.loads": Case(pickled(lambda c: _call("pickle", "loads", text_op(c))), "pickle", "pickle.loads", True),
    "torch.hub.load": Case(
        pickled(lambda c: _call("torch.hub", "load", text_op("owner/name"), text_op(c))), "pickle", _CODE, True
    ),
    "code object": Case(pickled(lambda c: _call("types", "CodeType", text_op(c))), "pickle", _CODE, True),
    "cut short after naming os.system": Case(
        pickled(lambda c: b"\x80\x02cos\nsystem\nX\xff\xff\xff\x7f" + c.encode()), "pickle", "os.system", True
    ),
    "a second pickle behind the first": Case(
        pickled(lambda c: b"\x80\x02}." + _call("os", "system", text_op(c))), "pickle", "behind the end"
    ),
    "a persistent id in text": Case(pickled(lambda c: b"Pmodule\n."), "pickle", "PERSID"),
    "a persistent id of code": Case(
        pickled(lambda c: b"\x80\x02(" + text_op("module") + text_op(c) + b"tQ."), "pickle", "not a tensor's data"
    ),
    "protocol 4": Case(lambda path: save(path, content(), pickle_protocol=4), "pickle", "without pickle_protocol"),
    "more instructions than weights need": Case(
        pickled(lambda c: b"\x80\x02" + b"N0" * 300_000 + b"}."), "pickle", "far more instructions"
    ),
    "noise for a pickle": Case(pickled(lambda c: bytes(range(128, 256)) * 9), "pickle", "damaged pickle"),
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
    "a key that crashes its reader": Case(pickled(_deep_key), "crashed", "SIGSEGV", torch=True),
}

STORAGES: dict[str, Case] = {
    "a storage that is not there": Case(pickled(lambda c: tensor_pickle(key="77")), "content", "lacks the data"),
    "a storage above the file": Case(
        pickled(lambda c: tensor_pickle(key="../../version")), "content", "lacks the data"
    ),
    "more data than its part holds": Case(
        pickled(lambda c: tensor_pickle(count=10**9)), "content", "4,000,000,000 bytes"
    ),
    "less data than its part holds": Case(pickled(lambda c: tensor_pickle(count=1)), "content", "has 4 bytes"),
    "a negative size": Case(pickled(lambda c: tensor_pickle(count=-1)), "pickle", "not plain"),
    "a storage of objects": Case(pickled(lambda c: tensor_pickle(kind="ObjectStorage")), "pickle", "not plain"),
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
