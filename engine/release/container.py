"""A checkpoint's container: is this file a zip of torch's layout, whole, with nothing odd in it?

Torch-free. Runs in the admission child, for even a zip directory is somebody else's bytes.
"""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

from engine.release.refusal import Refusal

MAX_BYTES = 4 * 1024**3
_MAX_PICKLE_BYTES = 64 * 1024 * 1024
_LEGACY_MAGIC = b"\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
_SAVE_AGAIN = "save it again with torch 1.6 or newer: torch.save(torch.load(PATH), PATH)"
_COPY_AGAIN = "copy it again from where it was made, or save it again"


def check_container(path: Path) -> None:
    """Refuse what is not a whole torch zip; every member's CRC is checked.

    Raises:
        Refusal: with what the file is instead, and the fix.
    """
    with path.open("rb") as stream:
        head = stream.read(512)
    if not head:
        raise Refusal("container", "is empty (0 bytes)", _COPY_AGAIN)
    if not head.startswith(b"PK"):
        raise _not_a_zip(head)
    try:
        with zipfile.ZipFile(path) as archive:
            _check_members(archive, path.stat().st_size)
            broken = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, ValueError) as error:
        raise Refusal("container", f"is truncated or damaged ({_first_line(error)})", _COPY_AGAIN) from None
    if broken is not None:
        raise Refusal("crc", f"is damaged: the checksum of '{broken}' in it does not match", _COPY_AGAIN)


def _check_members(archive: zipfile.ZipFile, size: int) -> None:
    members = archive.infolist()
    names = [member.filename for member in members]
    pickles = [member for member in members if member.filename.rsplit("/", 1)[-1] == "data.pkl"]
    if any(name.rsplit("/", 1)[-1] in ("constants.pkl", "model.json") or "/code/" in name for name in names):
        raise Refusal(
            "container",
            "is a program (TorchScript or an exported one), not a checkpoint",
            "save the weights: torch.save({'model_state_dict': model.state_dict()}, PATH)",
        )
    if len(pickles) != 1 or not any(name.rsplit("/", 1)[-1] == "version" for name in names):
        raise Refusal(
            "container", "is a zip, but not one that torch.save made", "save it with torch.save(..., PATH)"
        )
    if len(set(names)) != len(names):
        raise Refusal("container", "names one of its parts twice", "save it again with torch.save(..., PATH)")
    if any(member.compress_type != zipfile.ZIP_STORED for member in members):
        raise Refusal("container", "was packed again with compression", "save it again with torch.save(..., PATH)")
    if sum(member.file_size for member in members) > size or pickles[0].file_size > _MAX_PICKLE_BYTES:
        raise Refusal(
            "container", "says it holds more than its size allows", "save it again with torch.save(..., PATH)"
        )


def _not_a_zip(head: bytes) -> Refusal:
    if _LEGACY_MAGIC in head[:32]:
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
