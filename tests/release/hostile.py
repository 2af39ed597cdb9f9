"""Checkpoints that must not get in: hostile, broken and merely wrong ones, each made on demand.

`CASES` names each file, the check that must refuse it, words of the reason, and whether it is a critical alert; what
a pickle can do stands in `hostile_pickles`.
"""

from __future__ import annotations

import io
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tests.release.checkpoints import CLASSES, card, content, save, weights
from tests.release.hostile_pickles import (
    PICKLES,
    STORAGES,
    Case,
    Maker,
    numbers_in,
    parts_with,
    pickled,
    sound_parts,
    tensor_pickle,
    text_op,
    write_zip,
)

# --- how the files are made -------------------------------------------------------------------------------


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
        write_zip(path, sound_parts())
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
        for name, data in [*sound_parts().items(), *list(sound_parts().items())[:1]]:
            archive.writestr(zipfile.ZipInfo(name), data)


def _link_inside(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in sound_parts().items():
            archive.writestr(name, data)
        info = zipfile.ZipInfo("archive/data/900")
        info.external_attr = 0o120777 << 16
        archive.writestr(info, "/etc/passwd")


def _bomb(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in sound_parts().items():
            archive.writestr(name, data)
        with archive.open("archive/data/900", "w") as part:
            for _ in range(64):
                part.write(bytes(1 << 20))


def _many(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for number in range(30_000):
            archive.writestr(f"archive/data/{number}", b"")


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
    return b"\x80\x02}" + text_op("model_state_dict") + b"]" * depth + b"a" * (depth - 1) + b"s."


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


# --- what they are ----------------------------------------------------------------------------------------

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
        lambda path: write_zip(path, {"[Content_Types].xml": b"<Types/>", "word/document.xml": b"<w/>"}),
        "container",
        "not one that torch.save made",
    ),
    "an empty zip": Case(lambda path: write_zip(path, {}), "container", "not one that torch.save made"),
    "an encrypted part": Case(_directory(_patched(8, struct.pack("<H", 1))), "container", "encrypted"),
    "a part twice": Case(_twice, "container", "twice"),
    "a part above it": Case(
        lambda path: write_zip(path, sound_parts() | {"../../evil": b"x"}), "container", "would lead out"
    ),
    "a part at the root": Case(
        lambda path: write_zip(path, sound_parts() | {"/etc/evil": b"x"}), "container", "lead out"
    ),
    "a part by backslashes": Case(
        lambda path: write_zip(path, sound_parts() | {"a\\..\\..\\evil": b"x"}), "container", "lead out"
    ),
    "a part on a drive": Case(
        lambda path: write_zip(path, sound_parts() | {"C:/evil": b"x"}), "container", "lead out"
    ),
    "a link inside": Case(_link_inside, "container", "has a link in it"),
    "TorchScript": Case(lambda path: torch.jit.script(torch.nn.Linear(2, 2)).save(path), "container", "program"),
    "two pickles": Case(
        lambda path: write_zip(path, sound_parts() | {"other/data.pkl": b"\x80\x02}."}),
        "container",
        "not one that torch",
    ),
    "no version": Case(
        lambda path: write_zip(path, {n: d for n, d in sound_parts().items() if not n.endswith("version")}),
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
        lambda path: write_zip(
            path, parts_with(data_pkl=tensor_pickle(count=numbers_in("0"), size=9, stride=10**6))
        ),
        "pickle",
        "cannot be read as data",
        torch=True,
    ),
    "a negative stride": Case(
        lambda path: write_zip(
            path, parts_with(data_pkl=tensor_pickle(count=numbers_in("0"), size=4, stride=-1, offset=3))
        ),
        "pickle",
        "cannot be read as data",
        torch=True,
    ),
    "an offset before its data": Case(
        lambda path: write_zip(path, parts_with(data_pkl=tensor_pickle(count=numbers_in("0"), offset=-4))),
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
    "lists 100,000 deep": Case(pickled(_deep_pickle), "content", "without end", torch=True),
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
