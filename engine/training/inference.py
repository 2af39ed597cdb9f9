"""A checkpoint or a release ready to answer many inputs at once, as a slot would answer each of them.

Inputs go through the task's medium, the one that the slots use. A release runs in ONNX Runtime and needs no torch,
a checkpoint in torch on the best device. While the net works on one chunk the next is decoded by a pool of threads.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from engine.config import Settings
from engine.errors import UsageError
from engine.release.bundle import Release, read_release, release_path, resolve_release
from engine.release.card import card_terms, read_card, read_origin
from engine.release.refusal import Refusal
from engine.store.files import sha256_file
from engine.store.workspace import Workspace
from engine.tasks.labelled import Labelled
from engine.tasks.medium import InputError, Limits, Medium
from engine.tasks.task import load_kind, load_medium

_CHUNK_BYTES = 48 << 20  # of decoded inputs; two chunks are in memory
_MOST_ROWS = 32
_ID = re.compile("[0-9a-f]{64}")


@dataclass
class Loaded:
    """A net with what its inputs and outputs mean.

    Attributes:
        source: the file's path, or the release's id.
        origin: `epoch`, `accuracy`, `f1_macro`, `loss`, `cycle`, `run`, as far as known.
        run: float32 [N, *medium.shape] to float32 [N, *medium.output_shape]: probabilities, or a task's values.
        key: equal for nets whose inputs are decoded the same way.
        notes: what a person should know of how it was read.
    """

    source: str
    classes: list[str]
    medium: Medium
    origin: dict[str, Any]
    device: str
    run: Callable[[np.ndarray], np.ndarray]
    key: str
    notes: list[str] = field(default_factory=list)

    @property
    def shown(self) -> str:
        """A name for people."""
        return f"release {self.source[:8]}" if _ID.fullmatch(self.source) else self.source


@dataclass
class Answers:
    """What several nets said to the same inputs.

    Attributes:
        rows: of each net, float32 [inputs that could be read, *its output].
        kept: which of the inputs those are.
        failed: the others: {path, reason}.
    """

    rows: list[np.ndarray]
    kept: list[int]
    failed: list[dict[str, str]]


def load_for_inference(workspace: Workspace, settings: Settings, name: str) -> Loaded:
    """The net that `name` means: a checkpoint's or release's file, or a release's id (at least 4 hex digits).

    Raises:
        UsageError: there is none, or it cannot be used: its task, its code, its weights.
        Failed: a release that is damaged.
    """
    path = Path(name).expanduser()
    if not path.exists():
        if not re.fullmatch("[0-9A-Fa-f]{4,64}", name):
            raise UsageError(f"no checkpoint at {path}", "give a file, or a release's id", kind="not_found")
        identity = resolve_release(workspace, name)
        release = read_release(release_path(workspace, identity), expect=identity)
        return _release(settings, release, release.id)
    if _is_release(path):
        return _release(settings, read_release(path, expect=sha256_file(path)), str(path))
    return _checkpoint(settings, path)


def file_of(workspace: Workspace, loaded: Loaded) -> Path:
    """The file that a net was read from."""
    return release_path(workspace, loaded.source) if _ID.fullmatch(loaded.source) else Path(loaded.source)


def probabilities(loaded: Loaded, images: np.ndarray) -> np.ndarray:
    """float32 [N, *shape] to float32 [N, classes], a row at a time no larger than the device likes."""
    rows = [loaded.run(images[start : start + _MOST_ROWS]) for start in range(0, len(images), _MOST_ROWS)]
    return np.concatenate(rows) if rows else np.empty((0, *loaded.medium.output_shape), np.float32)


def answer_all(
    members: Sequence[Loaded],
    items: Sequence[Labelled],
    limits: Limits,
    on_progress: Callable[[int, int], None] = lambda done, count: None,
) -> Answers:
    """Ask every net about every input; each input is read once, and decoded once for nets that see it alike.

    An input that cannot be read or decoded is named in `failed`; the others are answered all the same.
    """
    found: list[list[np.ndarray]] = [[] for _ in members]
    kept: list[int] = []
    failed: list[dict[str, str]] = []
    for number, answer in answers(members, items, limits):
        if isinstance(answer, str):
            failed.append({"path": items[number].name, "reason": answer})
        else:
            kept.append(number)
            for rows, (row, _) in zip(found, answer, strict=True):
                rows.append(row)
        on_progress(number + 1, len(items))
    shapes = [member.medium.output_shape for member in members]
    stacked = [
        np.stack(rows) if rows else np.empty((0, *shape), np.float32)
        for rows, shape in zip(found, shapes, strict=True)
    ]
    return Answers(stacked, kept, failed)


def answers(
    members: Sequence[Loaded], items: Sequence[Labelled], limits: Limits
) -> Iterator[tuple[int, list[tuple[np.ndarray, np.ndarray]] | str]]:
    """For each item in order its number and each member's (output row, input), or why there is none."""
    for block, decoded in _decoded(members, items, limits):
        good = [inputs for inputs in decoded if not isinstance(inputs, str)]
        given = [np.stack([inputs[member.key] for inputs in good]) for member in members] if good else []
        rows = [member.run(batch) for member, batch in zip(members, given, strict=True)] if good else []
        place = 0
        for number, inputs in zip(block, decoded, strict=True):
            if isinstance(inputs, str):
                yield number, inputs
            else:
                yield number, [(row[place], batch[place]) for row, batch in zip(rows, given, strict=True)]
                place += 1


def rows_at_once(members: Sequence[Loaded]) -> int:
    """How many inputs go through the nets together; what is divided at multiples of it gives the same answers."""
    media = {member.key: member.medium for member in members}
    bytes_each = sum(4 * int(np.prod(medium.shape)) for medium in media.values())
    return max(1, min(_MOST_ROWS, _CHUNK_BYTES // bytes_each))


def _decoded(
    members: Sequence[Loaded], items: Sequence[Labelled], limits: Limits
) -> Iterator[tuple[range, list[dict[str, np.ndarray] | str]]]:
    """Chunks in order: which items, and for each its inputs by the members' keys, or why there are none."""
    media = {member.key: member.medium for member in members}
    size = rows_at_once(members)
    blocks = [range(start, min(start + size, len(items))) for start in range(0, len(items), size)]

    def decode(number: int) -> dict[str, np.ndarray] | str:
        try:
            content = items[number].read()
            if not content:
                return "the file has no bytes"
            return {key: medium.decode(content, limits) for key, medium in media.items()}
        except InputError as error:
            return str(error)
        except OSError as error:
            return f"cannot be read ({error.strerror or error})"

    with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
        waiting: list[list[Future[dict[str, np.ndarray] | str]]] = []
        for ahead, block in enumerate([*blocks, None]):
            if block is not None:
                waiting.append([pool.submit(decode, number) for number in block])
            if ahead:
                yield blocks[ahead - 1], [one.result() for one in waiting.pop(0)]


def _is_release(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return "release.json" in archive.namelist()


def _release(settings: Settings, release: Release, source: str) -> Loaded:
    manifest = release.manifest
    card = manifest.model_dump(include={"task", "architecture", "classes", "preprocess"})
    medium = load_medium(card, settings.task)
    origin = manifest.checkpoint.model_dump(include={"epoch", "accuracy", "f1_macro", "loss", "cycle", "run"})
    if settings.device.prefer in ("auto", "cpu") or manifest.precision != "fp32":
        return Loaded(source, manifest.classes, medium, origin, "cpu", _onnx(release), _key(card))
    from safetensors.torch import load

    net = load_kind(manifest.task, settings.task).net(card)
    net.load_state_dict(load(release.weights()))
    run, device, notes = _torch(net, settings, softmax=medium.output == "probabilities")
    return Loaded(source, manifest.classes, medium, origin, device, run, _key(card), notes)


def _onnx(release: Release) -> Callable[[np.ndarray], np.ndarray]:
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(release.onnx(), options, providers=["CPUExecutionProvider"])
    given, gives = session.get_inputs()[0].name, session.get_outputs()[0].name
    gives_logits = gives not in ("probabilities", "values")

    def run(batch: np.ndarray) -> np.ndarray:
        found: Any = session.run([gives], {given: batch})[0]
        if gives_logits:
            powers = np.exp(found - found.max(axis=-1, keepdims=True))
            found = powers / powers.sum(axis=-1, keepdims=True)
        return np.asarray(found, np.float32)

    return run


def _checkpoint(settings: Settings, path: Path) -> Loaded:
    from engine.checkpoints.foreign import align, read_foreign

    foreign = read_foreign(path)
    try:
        card = read_card(foreign.content, card_terms(settings))
    except Refusal as refusal:
        raise UsageError(f"{path} {refusal.message}", refusal.hint, kind=refusal.check) from None
    task = card.get("task") or "images"
    net = load_kind(task, settings.task).net(card)
    medium = load_medium(card, settings.task)
    found = align(net.state_dict(), foreign.state)
    if not found.complete:
        wrong = [f"{name} is {list(theirs)}, not {list(own)}" for name, (theirs, own) in found.differing.items()]
        wrong += [f"{name} is missing" for name in found.missing]
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise UsageError(
            f"{path} does not fit {card['architecture']['name']} with {len(card['classes'])} classes:"
            f" {'; '.join(wrong[:3])}{more}",
            "name what it was trained with: source.model, source.classes",
            kind="shapes",
        )
    net.load_state_dict(found.taken, strict=False)
    run, device, notes = _torch(net, settings, softmax=medium.output == "probabilities")
    notes += foreign.notes + ([found.renamed()] if found.renamed() else [])
    return Loaded(str(path), card["classes"], medium, read_origin(foreign.content), device, run, _key(card), notes)


def _torch(
    net: Any, settings: Settings, *, softmax: bool
) -> tuple[Callable[[np.ndarray], np.ndarray], str, list[str]]:
    import torch

    from engine.devices.detect import choose_device

    chosen = choose_device(settings.device.prefer)
    net.to(chosen.kind).eval().requires_grad_(False)

    def run(batch: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            outputs = net(torch.from_numpy(batch).to(chosen.kind)).float()
            found: np.ndarray = (outputs.softmax(1) if softmax else outputs).cpu().numpy()
        return found

    return run, chosen.kind, [chosen.note] if chosen.note else []


def _key(card: dict[str, Any]) -> str:
    return f"{card.get('task') or 'images'} {sorted(card['preprocess'].items())}"
