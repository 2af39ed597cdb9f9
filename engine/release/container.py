"""A checkpoint's container: is this file a zip of torch's layout, whole, with nothing odd in it?

Torch-free. Runs in the admission child, for even a zip directory is somebody else's bytes.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from pathlib import Path

from engine.release.opcodes import Name, Pickle, check_pickle, is_code, names_in, refuse_names
from engine.release.refusal import Refusal

_MAX_PICKLE_BYTES = 8 * 1024 * 1024  # the largest nets with their optimiser need a tenth
_MAX_MEMBERS = 20_000
_MAX_DIRECTORY_BYTES = 4 * 1024 * 1024
# PKWARE's APPNOTE.TXT, 4.3.7 (local header), 4.3.14 and 4.3.16 (end of the directory)
_LOCAL = struct.Struct("<4s5H3I2H")
_END = struct.Struct("<4s4H2IH")
_END64 = struct.Struct("<4sQ2H2I4Q")
_ENCRYPTED, _LINK = 0x1, 0xA
# Bytes of an element of torch's storage classes (torch/storage.py).
_WIDTHS = {
    "BoolStorage": 1, "ByteStorage": 1, "CharStorage": 1, "UntypedStorage": 1, "ShortStorage": 2, "HalfStorage": 2,
    "BFloat16Storage": 2, "IntStorage": 4, "FloatStorage": 4, "LongStorage": 8, "DoubleStorage": 8,
    "ComplexFloatStorage": 8, "ComplexDoubleStorage": 16,
}  # fmt: skip
_LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
_SAVE_AGAIN = "save it again with torch 1.6 or newer: torch.save(torch.load(PATH), PATH)"
_SAVE = "save it again with torch.save(..., PATH)"
_COPY_AGAIN = "copy it again from where it was made, or save it again"


def check_container(path: Path) -> None:
    """Refuse what is not a whole torch zip with plain data in it; every member's CRC is checked.

    Raises:
        Refusal: with what the file is instead, and the fix.
    """
    with path.open("rb") as stream:
        head = stream.read(512)
    if not head:
        raise Refusal("container", "is empty (0 bytes)", _COPY_AGAIN)
    if not head.startswith(b"PK"):
        raise _not_a_zip(path, head)
    try:
        _check_end(path)
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
            _check_members(members, path.stat().st_size)
            _check_places(path, members, archive.start_dir)
            broken = archive.testzip()
            if broken is not None:
                raise Refusal("crc", f"is damaged: the checksum of '{broken}' in it does not match", _COPY_AGAIN)
            main = next(member for member in members if _last(member.filename) == "data.pkl")
            _check_storages(check_pickle(archive.read(main)), members, main.filename.rpartition("/")[0])
    except (zipfile.BadZipFile, zlib.error, struct.error, EOFError, OSError, NotImplementedError, ValueError,
            RuntimeError) as error:  # fmt: skip
        raise Refusal("container", f"is truncated or damaged ({_first_line(error)})", _COPY_AGAIN) from None


def _check_end(path: Path) -> None:
    """Look at the zip's end before anything is read by it: a directory of millions must cost nothing."""
    size = path.stat().st_size
    with path.open("rb") as stream:
        stream.seek(max(0, size - _END.size))
        end = stream.read()
        if len(end) < _END.size or not end.startswith(b"PK\5\6"):
            raise Refusal("container", "is truncated or damaged (its end is missing)", _COPY_AGAIN)
        _, disk, _, here, count, length, _, _ = _END.unpack(end)
        if size >= _END.size + _END64.size + 20:
            stream.seek(size - _END.size - 20 - _END64.size)
            wide = stream.read(_END64.size)
            if wide.startswith(b"PK\6\6"):
                fields = _END64.unpack(wide)
                here, count, length = fields[6], fields[7], fields[8]
    if disk or here != count:
        raise Refusal("container", "is one part of a zip in several", _SAVE)
    if count > _MAX_MEMBERS or length > _MAX_DIRECTORY_BYTES:
        raise Refusal("container", f"says it holds {count:,} parts, more than a checkpoint has", _SAVE)


def _check_members(members: list[zipfile.ZipInfo], size: int) -> None:
    names = [member.filename for member in members]
    pickles = [member for member in members if _last(member.filename) == "data.pkl"]
    for member in members:
        if _leads_out(member.orig_filename):
            raise Refusal("container", f"has a part that would lead out of it ({member.filename[:80]!r})", _SAVE)
        if member.external_attr >> 28 == _LINK:
            raise Refusal("container", f"has a link in it ({member.filename[:80]!r})", _SAVE)
        if member.flag_bits & _ENCRYPTED:
            raise Refusal("container", "is encrypted", "save it with torch.save(..., PATH), without a password")
    if any(_last(name) in ("constants.pkl", "model.json") or "/code/" in name for name in names):
        raise Refusal(
            "container",
            "is a program (TorchScript or an exported one), not a checkpoint",
            "save the weights: torch.save({'model_state_dict': model.state_dict()}, PATH)",
        )
    if len(set(names)) != len(names):
        raise Refusal("container", "names one of its parts twice", _SAVE)
    if len(pickles) != 1 or not any(_last(name) == "version" for name in names):
        raise Refusal("container", "is a zip, but not one that torch.save made", _SAVE)
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise Refusal("container", "was packed again with compression", _SAVE)
    if sum(member.file_size for member in members) > size or pickles[0].file_size > _MAX_PICKLE_BYTES:
        raise Refusal("container", "says it holds more than its size allows", _SAVE)


def _check_places(path: Path, members: list[zipfile.ZipInfo], directory: int) -> None:
    """Each part's own header says the directory's name, and no part lies over another.

    Two readers of one zip must not see two different files: Python checks this one, torch reads it.
    """
    free_from = 0
    with path.open("rb") as stream:
        for member in sorted(members, key=lambda member: member.header_offset):
            stream.seek(member.header_offset)
            header = _LOCAL.unpack(stream.read(_LOCAL.size))
            name = stream.read(header[-2])
            start = member.header_offset + _LOCAL.size + header[-2] + header[-1]
            if header[0] != b"PK\3\4" or header[3] or name != _raw(member.orig_filename):
                raise Refusal("container", "is damaged: its directory and its parts disagree", _COPY_AGAIN)
            if member.header_offset < free_from or start + member.compress_size > directory:
                raise Refusal("container", "has parts that lie over one another", _SAVE)
            free_from = start + member.compress_size


def _check_storages(found: Pickle, members: list[zipfile.ZipInfo], folder: str) -> None:
    """Each storage that the pickle would load is there, and exactly as large as it says."""
    sizes = {member.filename: member.file_size for member in members}
    for storage in found.storages:
        if not isinstance(storage, tuple) or len(storage) != 5 or storage[0] != "storage":
            raise Refusal("pickle", "would load something that is not a tensor's data", _SAVE)
        _, kind, key, _, count = storage
        width = _WIDTHS.get(_last(str(kind).replace(".", "/"))) if isinstance(kind, Name) else None
        if width is None or not isinstance(key, str) or not isinstance(count, int) or count < 0:
            raise Refusal("pickle", f"has a tensor of a kind that is not plain ({str(kind)[:60]})", _SAVE)
        size = sizes.get(f"{folder}/data/{key}")
        if size is None:
            raise Refusal("content", f"lacks the data of a tensor (data/{key[:40]})", _COPY_AGAIN)
        if size != count * width:
            raise Refusal(
                "content",
                f"says that a tensor's data has {count * width:,} bytes, but it has {size:,}",
                _COPY_AGAIN,
            )


def _last(name: str) -> str:
    return name.rsplit("/", 1)[-1]


def _leads_out(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    return ".." in parts or name.startswith(("/", "\\")) or ":" in parts[0] or "\0" in name or not parts[-1]


def _raw(name: str) -> bytes:
    """A part's name as its own header spells it; zipfile reads it as UTF-8 or, without that flag, as cp437."""
    return name.encode() if name.isascii() else name.encode("utf-8", "surrogateescape")


def _not_a_zip(path: Path, head: bytes) -> Refusal:
    if head[:1] in (b"\x80", b"(", b"c", b"]", b"}"):
        with path.open("rb") as stream:
            names = names_in(stream.read(_MAX_PICKLE_BYTES))
        if is_code(names):
            return refuse_names(names)
    if head[257:262] == b"ustar":
        return Refusal("container", "is a tar file, as torch wrote before 0.1.10", _SAVE_AGAIN)
    if _LEGACY_MAGIC in head[:64]:
        return Refusal("container", "is in the old torch format, from before torch 1.6", _SAVE_AGAIN)
    if head.startswith(b"version https://git-lfs"):
        return Refusal("container", "is a Git LFS pointer, not the file itself", "fetch it with: git lfs pull")
    if head[8:10] in (b'{"', b"{ ") or head[8:9] == b"{":
        return Refusal(
            "container",
            "is a safetensors file",
            "save it with torch.save({'model_state_dict': safetensors.torch.load_file(PATH)}, NEW)",
        )
    if head.startswith(b"\x89HDF"):
        return Refusal("container", "is an HDF5 file (Keras), not a torch checkpoint", "save it with torch.save")
    if head.startswith(b"\x80"):
        return Refusal(
            "container", "is a plain pickle, not a torch checkpoint", "save it with torch.save(..., PATH)"
        )
    if not head.strip(b"\0"):
        return Refusal("container", "begins with zeros only: it was not written to its end", _COPY_AGAIN)
    try:
        text = head.rsplit(b"\n", 1)[0].decode()
    except UnicodeDecodeError:
        return Refusal("container", "is not a torch checkpoint", "save it with torch.save(..., PATH)")
    if text.isprintable() or text.replace("\n", "").replace("\t", "").replace("\r", "").isprintable():
        return Refusal(
            "container", "is a text file, not a torch checkpoint", "give the file that torch.save wrote"
        )
    return Refusal("container", "is not a torch checkpoint", "save it with torch.save(..., PATH)")


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).splitlines()[0].rstrip(".")
