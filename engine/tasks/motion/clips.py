"""Folders of motions: HumanML3D's `.npy` files and DeepMimic's JSON. Torch-free.

| folder | what |
|---|---|
| HumanML3D | `new_joint_vecs/NAME.npy` [frames, features], `train.txt` and `val.txt` of names, `Mean.npy` and `Std.npy`; `text_embeddings/NAME.npy` [texts, width] and `actions.txt` ("NAME action") if conditions are wanted |
| DeepMimic | `humanoid3d_ACTION.txt` or `.json` with `Frames` of 44 values; the end of each clip validates |
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import UsageError
from engine.tasks.report import KINDS

LEAST_FRAMES = 8
_MAGIC = b"\x93NUMPY"
_LARGEST = 1_000_000  # values times this: far above any float that a motion holds


@dataclass(frozen=True)
class Clip:
    """One motion.

    Attributes:
        path: its file; None where `content` is the motion itself, float32 [frames, features].
        action: the number of its action, or -1.
        texts: the file of its texts' embeddings, [texts, width].
    """

    name: str
    frames: int
    path: Path | None = None
    content: np.ndarray | None = None
    action: int = -1
    texts: Path | None = None

    def read(self) -> np.ndarray:
        """float32 [frames, features], as the file has it."""
        if self.content is not None:
            return self.content
        assert self.path is not None
        return array_of(self.path.read_bytes())

    def embedding(self, draw: int) -> np.ndarray | None:
        """One of its texts' embeddings, float32 [width]: number `draw`, counted around; None where it has none."""
        if self.texts is None:
            return None
        rows = np.atleast_2d(array_of(self.texts.read_bytes(), least=1))
        return rows[draw % len(rows)]


@dataclass
class Clips:
    """A folder as it was read.

    Attributes:
        form: "HumanML3D" or "DeepMimic".
        mean, std: float32 [features], of the folder's own files or else of the training part.
        actions: their names, in the order of `Clip.action`.
        text_width: length of a text's embedding; 0 where there are none.
        faults: as a data report has them.
    """

    form: str
    train: list[Clip]
    val: list[Clip]
    mean: np.ndarray
    std: np.ndarray
    actions: list[str]
    text_width: int
    fingerprint: str
    checked: int
    faults: dict[str, list[dict[str, str]]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def features(self) -> int:
        return len(self.mean)


def array_of(content: bytes, least: int = 2) -> np.ndarray:
    """A `.npy` file of numbers, or DeepMimic's JSON, as float32; its memory is bounded by the file's own size.

    Args:
        least: dimensions that it must have.

    Raises:
        ValueError: it is no such file, or not finite.
    """
    if content[:1] == b"{":
        found = np.array(json.loads(content)["Frames"], dtype=np.float64)
    else:
        found = _npy(content)
    if found.dtype.kind not in "fiu" or found.ndim < least or not found.size:
        raise ValueError(f"holds {found.dtype} {list(found.shape)}, not numbers [frames, features]")
    if not np.isfinite(found).all() or float(np.abs(found).max()) > _LARGEST:
        raise ValueError("has NaN, Inf or far too large numbers")
    return np.ascontiguousarray(found, dtype=np.float32)


def _npy(content: bytes) -> np.ndarray:
    if not content.startswith(_MAGIC):
        raise ValueError("is no .npy file")
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    if dtype.hasobject:
        raise ValueError("holds Python objects")
    count = int(np.prod(shape, dtype=object))
    if count * dtype.itemsize != len(content) - stream.tell():
        raise ValueError(f"says {list(shape)} {dtype}, but is {len(content):,} bytes long")
    return np.frombuffer(content, dtype, count, stream.tell()).reshape(shape, order="F" if fortran else "C")


def read_clips(
    root: Path | None, val_fraction: float, on_progress: Callable[[int, int], None] | None = None
) -> Clips:
    """Every motion of a folder, checked.

    Raises:
        UsageError: there is no such folder, or nothing in it can be trained on.
    """
    if root is None or not root.is_dir():
        said = "no folder of motions is named" if root is None else f"no folder {root}"
        raise UsageError(said, "name one: data.root=DIR (HumanML3D or DeepMimic)", kind="not_found")
    progress = on_progress or (lambda done, count: None)
    if (root / "new_joint_vecs").is_dir():
        found = _humanml(root, val_fraction, progress)
    else:
        found = _deepmimic(root, val_fraction, progress)
    if not found.train or not found.val:
        raise UsageError(
            f"too few motions in {root}: {len(found.train)} to train on, {len(found.val)} to validate with",
            "add motions, or mend those that data_report.json names",
            kind="no_data",
        )
    return found


class _Checker:
    """Reads files one by one, keeps those that can be used, and names the others."""

    def __init__(self, root: Path, features: int | None = None) -> None:
        self.root, self.features = root, features
        self.faults: dict[str, list[dict[str, str]]] = {kind: [] for kind in KINDS}
        self.seen: dict[str, str] = {}
        self.digest, self.checked = hashlib.sha256(), 0

    def take(self, path: Path) -> np.ndarray | None:
        """The motion of a file, or None where it cannot be used."""
        self.checked += 1
        shown = str(path.relative_to(self.root))
        try:
            content = path.read_bytes()
            motion = array_of(content)
        except (OSError, ValueError, KeyError, TypeError, EOFError, SyntaxError) as error:
            said = " ".join(str(error).split())[:160] or type(error).__name__
            self.faults["corrupt"].append({"path": shown, "reason": said})
            return None
        sha256 = hashlib.sha256(content).hexdigest()
        if fault := self._fault(motion, sha256):
            kind, reason = fault
            self.faults[kind].append({"path": shown, "reason": reason})
            return None
        self.seen[sha256] = shown
        self.features = motion.shape[1]
        self.digest.update(f"{shown} {sha256}\n".encode())
        return motion

    def _fault(self, motion: np.ndarray, sha256: str) -> tuple[str, str] | None:
        if motion.ndim != 2 or motion.shape[1] != (self.features or motion.shape[1]):
            return "corrupt", f"is {list(motion.shape)}, not [frames, {self.features}]"
        if len(motion) < LEAST_FRAMES:
            return "empty", f"has {len(motion)} frames, at least {LEAST_FRAMES} are needed"
        if sha256 in self.seen:
            return "duplicates", f"is the same as {self.seen[sha256]}"
        return None


def _humanml(root: Path, val_fraction: float, progress: Callable[[int, int], None]) -> Clips:
    folder, warnings = root / "new_joint_vecs", []
    statistics = _statistics(root)
    actions = _actions(root / "actions.txt")
    known = sorted(set(actions.values()))
    names = _split(root, folder, val_fraction)
    checker = _Checker(root, len(statistics[0]) if statistics else None)
    parts: dict[bool, list[Clip]] = {True: [], False: []}
    width, sums, count = 0, np.zeros((2, 1)), 0
    for done, (name, held) in enumerate(names, 1):
        motion = checker.take(folder / f"{name}.npy")
        progress(done, len(names))
        if motion is None:
            continue
        texts: Path | None = root / "text_embeddings" / f"{name}.npy"
        if texts is not None and texts.is_file():
            width = _text_width(texts, width)
            checker.digest.update(texts.read_bytes())
        else:
            texts = None
        action = known.index(actions[name]) if name in actions else -1
        parts[held].append(Clip(name, len(motion), folder / f"{name}.npy", None, action, texts))
        if not statistics and not held:
            sums = sums + np.stack([motion.sum(0, np.float64), np.square(motion, dtype=np.float64).sum(0)])
            count += len(motion)
    if not statistics:
        warnings.append("no Mean.npy and Std.npy: taken from the training part")
        mean = sums[0] / max(count, 1)
        statistics = mean, np.sqrt(np.maximum(sums[1] / max(count, 1) - np.square(mean), 0))
    return _clips("HumanML3D", parts, statistics, known, width, checker, warnings)


def _deepmimic(root: Path, val_fraction: float, progress: Callable[[int, int], None]) -> Clips:
    paths = sorted(path for path in root.rglob("*") if path.suffix in (".txt", ".json") and _is_deepmimic(path))
    checker = _Checker(root)
    actions = sorted({action_of(path) for path in paths})
    parts: dict[bool, list[Clip]] = {True: [], False: []}
    for done, path in enumerate(paths, 1):
        motion = checker.take(path)
        progress(done, len(paths))
        if motion is None:
            continue
        cut = len(motion) - max(LEAST_FRAMES, round(len(motion) * val_fraction))
        number = actions.index(action_of(path))
        if cut < LEAST_FRAMES:
            parts[False].append(Clip(path.stem, len(motion), None, motion, number))
            continue
        for held, part in ((False, motion[:cut]), (True, motion[cut:])):
            parts[held].append(Clip(path.stem, len(part), None, part, number))
    if not parts[False]:
        return _clips("DeepMimic", parts, (np.zeros(1), np.ones(1)), actions, 0, checker, [])
    whole = np.concatenate([clip.read() for clip in parts[False]]).astype(np.float64)
    return _clips("DeepMimic", parts, (whole.mean(0), whole.std(0)), actions, 0, checker, [])


def _clips(
    form: str,
    parts: dict[bool, list[Clip]],
    statistics: tuple[np.ndarray, np.ndarray],
    actions: list[str],
    width: int,
    checker: _Checker,
    warnings: list[str],
) -> Clips:
    mean, std = (np.asarray(part, dtype=np.float32) for part in statistics)
    if still := int((std < 1e-5).sum()):
        warnings.append(f"{still} of {len(std)} values never change: they are not scaled")
    std = np.where(std < 1e-5, np.float32(1), std)
    checker.digest.update(mean.tobytes() + std.tobytes())
    return Clips(form, parts[False], parts[True], mean, std, actions, width, checker.digest.hexdigest(),
                 checker.checked, checker.faults, warnings)  # fmt: skip


def action_of(path: Path) -> str:
    """`humanoid3d_dance_a.txt` is a "dance"."""
    return re.sub(r"_[a-z]$", "", path.stem.removeprefix("humanoid3d_"))


def _is_deepmimic(path: Path) -> bool:
    with path.open("rb") as stream:
        return stream.read(1) == b"{"


def read_statistics(root: Path) -> tuple[np.ndarray, np.ndarray]:
    """Mean.npy and Std.npy of a folder, float32 [features].

    Raises:
        UsageError: they are not there, or cannot be used.
    """
    found = _statistics(root)
    if found is None:
        raise UsageError(f"no Mean.npy and Std.npy in {root}", "name the folder that has them", kind="not_found")
    return found


def _statistics(root: Path) -> tuple[np.ndarray, np.ndarray] | None:
    paths = root / "Mean.npy", root / "Std.npy"
    if not all(path.is_file() for path in paths):
        return None
    try:
        mean, std = (array_of(path.read_bytes(), least=1).ravel() for path in paths)
    except ValueError as error:
        raise UsageError(f"Mean.npy or Std.npy of {root} {error}", "copy it again", kind="bad_data") from None
    if mean.shape != std.shape or float(std.min()) < 0:
        raise UsageError(
            f"Mean.npy and Std.npy of {root} do not fit each other", "copy them again", kind="bad_data"
        )
    return mean, std


def _split(root: Path, folder: Path, val_fraction: float) -> list[tuple[str, bool]]:
    """(name, held out) of every motion: by train.txt and val.txt, else by a hash of the name."""
    lists = {held: root / name for held, name in ((False, "train.txt"), (True, "val.txt"))}
    if all(path.is_file() for path in lists.values()):
        return [(name, held) for held, path in lists.items() for name in _lines(path)]
    names = sorted(path.stem for path in folder.glob("*.npy"))
    return [(name, _share(name) < val_fraction) for name in names]


def _share(name: str) -> float:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4]) / 2**32


def _actions(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    pairs = [line.split(maxsplit=1) for line in _lines(path)]
    if bad := [pair for pair in pairs if len(pair) != 2]:
        raise UsageError(
            f"{path} has the line '{' '.join(bad[0])}'", 'write "NAME action" in each', kind="bad_data"
        )
    return {name: action.strip() for name, action in pairs}


def _text_width(path: Path, width: int) -> int:
    try:
        found = np.atleast_2d(array_of(path.read_bytes(), least=1)).shape[1]
    except ValueError as error:
        raise UsageError(f"{path} {error}", "write float32 [texts, width] there", kind="bad_data") from None
    if width not in (0, found):
        raise UsageError(f"{path} has embeddings of {found} values, others have {width}", "make them alike",
                         kind="bad_data")  # fmt: skip
    return found


def _lines(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def windows(clip: Clip, length: int) -> Iterator[int]:
    """Where the windows of a clip begin that cover all of it: one every `length` frames, the last at its end."""
    for start in range(0, max(clip.frames, 1), length):
        yield max(0, min(start, clip.frames - length))


def as_report(clips: Clips) -> dict[str, Any]:
    """The data report; see `engine.tasks.report`."""
    bad = sum(len(found) for found in clips.faults.values())
    return {
        "checked": clips.checked,
        "ok": clips.checked - bad,
        **clips.faults,
        "warnings": clips.warnings,
        "fingerprint": clips.fingerprint,
    }
