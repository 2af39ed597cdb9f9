"""A motion in, how much of it the net sees through noise out; see `engine.tasks.medium.Medium`. Torch-free.

One answer is one pass of the net, not a sampled motion (that takes as many passes as steps: `motion sample`). A body is a
motion without noise; it is noised here, always with the same noise, at a time that its own bytes choose. So the
net's x0 can be judged: `confidence` is the share of the motion's variance that it restores, and from half on the
motion counts as `restored`. The net is asked without a condition.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from engine.errors import UsageError
from engine.tasks.labelled import Labelled, LabelledSet
from engine.tasks.medium import Answer, InputError, Limits, Output, as_answer
from engine.tasks.motion.clips import LEAST_FRAMES, array_of, read_clips, windows
from engine.tasks.motion.diffusion import kept_signal, noised
from engine.tasks.motion.shape import Shape

if TYPE_CHECKING:
    from engine.config import Settings

RESTORED, LOST = "restored", "lost"
_ENOUGH = 0.5
_AT = (0.1, 0.3, 0.5, 0.7)  # of the diffusion; a later time leaves too little to restore
_MOST_BYTES = 64 << 20


class MotionMedium:
    """Made from a card; raises ValueError, KeyError or TypeError for one that makes no sense."""

    media_types: Sequence[str] = ("application/x-npy", "application/json")
    noun = "motion"
    input_name = "noised"
    output: Output = "values"

    def __init__(self, card: dict[str, Any]) -> None:
        self.net_shape = shape = Shape.from_card(card)
        self.classes = list(card["classes"])
        self.mean, self.std = (np.array(card["preprocess"][name], dtype=np.float32) for name in ("mean", "std"))
        if self.mean.shape != (shape.features,) or self.std.shape != self.mean.shape or not (self.std > 0).all():
            raise ValueError(f"mean and std must be {shape.features} numbers each, std above 0")
        self.shape: tuple[int, ...] = (shape.packed,)
        self.output_shape: tuple[int, ...] = (shape.frames, shape.features)
        self.answer_schema: dict[str, Any] = {
            "explained": {"type": "number", "maximum": 1},
            "timestep": {"type": "integer", "minimum": 0},
        }
        self.kept = kept_signal(shape.diffusion_steps, shape.noise_schedule)
        self._times = [round(at * (shape.diffusion_steps - 1)) for at in _AT]
        rng = np.random.Generator(np.random.Philox(key=[263, 196]))
        self._noise = rng.standard_normal(self.output_shape, np.float32)

    def pack(self, x: np.ndarray, time: int, condition: np.ndarray | None = None) -> np.ndarray:
        """One input of the net from x_t [frames, features], its time and its condition (None: without one)."""
        if condition is None:
            condition = np.zeros(self.net_shape.condition_width, np.float32)
        share = np.float32(time) / np.float32(self.net_shape.diffusion_steps)
        return np.concatenate([x.ravel(), [share], condition]).astype(np.float32)

    def decode(self, content: bytes, limits: Limits) -> np.ndarray:
        """A `.npy` [frames, features] or DeepMimic's JSON; longer ones are cut, shorter ones go to and fro."""
        if len(content) > _MOST_BYTES:
            raise InputError(413, "too_large", f"a motion of {len(content):,} bytes", "send one motion")
        if not content.startswith((b"\x93NUMPY", b"{")):
            raise InputError(
                415, "not_a_motion", "these bytes are no .npy file and no JSON", "send numpy.save's file"
            )
        try:
            motion = array_of(content)
        except (ValueError, KeyError, TypeError, EOFError, SyntaxError) as error:
            said = " ".join(str(error).split())[:160] or type(error).__name__
            raise InputError(422, "bad_motion", f"this motion {said}", "send finite floats") from None
        if motion.ndim != 2 or motion.shape[1] != self.net_shape.features or len(motion) < LEAST_FRAMES:
            wanted = f"[{LEAST_FRAMES} or more, {self.net_shape.features}]"
            raise InputError(422, "shape", f"a motion of {list(motion.shape)}", f"this net takes {wanted}")
        motion = motion[: self.net_shape.frames]
        lacking = self.net_shape.frames - len(motion)
        x0 = (np.pad(motion, ((0, lacking), (0, 0)), "symmetric") - self.mean) / self.std
        time = self._times[zlib.crc32(motion.tobytes()) % len(self._times)]
        return self.pack(noised(x0, self._noise, self.kept[time]), time)

    def golden(self) -> np.ndarray:
        """Swinging motions at times from the first to the last, with and without conditions."""
        width, steps = self.net_shape.condition_width, self.net_shape.diffusion_steps
        rng = np.random.Generator(np.random.Philox(key=[0, width]))
        rows = []
        for number, at in enumerate((0.0, 0.2, 0.5, 0.5, 0.8, 1.0)):
            condition = np.zeros(width, np.float32)
            if self.net_shape.condition == "action" and number % 2:
                condition[number % width] = 1
            elif self.net_shape.condition == "text" and number % 2:
                condition = (rng.standard_normal(width) * 0.3).astype(np.float32)
            time = round(at * (steps - 1))
            rows.append(self.pack(noised(self._swing(number), self._noise, self.kept[time]), time, condition))
        return np.stack(rows)

    def probes(self) -> list[bytes]:
        found = []
        for number in range(3):
            stream = io.BytesIO()
            np.save(stream, (self._swing(number)[:32] * self.std + self.mean).astype(np.float32))
            found.append(stream.getvalue())
        return found

    def answer(self, row: np.ndarray, given: np.ndarray, top_k: int) -> Answer:
        place = row.size
        time = round(float(given[place]) * self.net_shape.diffusion_steps)
        kept = self.kept[min(max(time, 0), len(self.kept) - 1)]
        x0 = (given[:place].reshape(row.shape) - np.sqrt(1 - kept) * self._noise) / np.sqrt(kept)
        whole = float(np.square(x0).sum())
        explained = 1 - float(np.square(row - x0).sum()) / max(whole, 1e-12)
        share = min(max(explained, 0.0), 1.0)
        label = RESTORED if share >= _ENOUGH else LOST
        return as_answer(label, -1, round(share, 6), explained=round(explained, 6), timestep=time)

    def labelled(self, settings: Settings, data: Path | None, seed: int) -> LabelledSet:
        """The held-out windows of a folder of motions: of `data`, of `ab.data`, else of the training's own."""
        root = data or settings.ab.data or settings.data.root
        if root is None:
            raise UsageError("no motions were named to compare on", "name a folder: ab.data=DIR", kind="no_data")
        clips = read_clips(root, settings.data.val_fraction)
        if clips.features != self.net_shape.features:
            raise UsageError(
                f"the motions of {root} have {clips.features} values a frame, the net {self.net_shape.features}",
                "name motions of the kind that it was trained on",
            )
        items = []
        for clip in clips.val:
            label = clips.actions[clip.action] if clip.action >= 0 else self.noun
            if clip.path and clip.frames <= self.net_shape.frames:
                items.append(Labelled(clip.path, clip.name, label))
                continue
            for start in windows(clip, self.net_shape.frames):
                stream = io.BytesIO()
                np.save(stream, clip.read()[start : start + self.net_shape.frames])
                items.append(Labelled(None, f"{clip.name}@{start}", label, content=stream.getvalue()))
        return LabelledSet(str(root.resolve()), str(root), items, classes=False)

    def is_right(self, answer: dict[str, Any], item: Labelled) -> bool:
        """Whether at least half of the motion's variance was restored."""
        return bool(answer["label"] == RESTORED)

    def _swing(self, number: int) -> np.ndarray:
        """A smooth made-up motion, normalised, float32 [frames, features]."""
        frames, features = np.ogrid[: self.output_shape[0], : self.output_shape[1]]
        return np.sin(frames * (0.05 + 0.03 * number) + features * (number + 1.0)).astype(np.float32)
