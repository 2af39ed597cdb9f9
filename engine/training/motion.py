"""Motion nets beside their training: published checkpoints taken over, motions sampled from any net of the task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import Failed, UsageError, nearest
from engine.tasks.motion.clips import array_of, read_statistics
from engine.tasks.motion.diffusion import guided, sample
from engine.tasks.motion.medium import MotionMedium
from engine.training.inference import Loaded

_ROWS = 16  # motions that go through the net at once


@dataclass(frozen=True)
class Wanted:
    """What is to be sampled.

    Attributes:
        steps: passes of the net for each motion, at most those of its training.
        count: motions.
        frames: of each; None: as many as the net sees at once.
        action: one of the net's.
        text: a file of one text's embedding, `.npy` [width] or [1, width].
        guidance: how far the condition pulls; 1 as it was trained, MDM's own samples have 2.5.
        sampler: `ddpm`, `ddim`, or `auto`: DDPM where every step is taken.
    """

    steps: int | None = None
    count: int = 1
    frames: int | None = None
    action: str | None = None
    text: Path | None = None
    guidance: float = 1.0
    sampler: str = "auto"
    seed: int = 0


def sample_motions(
    loaded: Loaded, wanted: Wanted, on_step: Callable[[int, int], None] = lambda done, count: None
) -> tuple[np.ndarray, dict[str, Any]]:
    """Motions in the data's own units, float32 [count, frames, features], and how they were made.

    Raises:
        UsageError: the net is of another task, or takes no such condition, length or number of steps.
        Failed: the net gave NaN or Inf.
    """
    medium = loaded.medium
    if not isinstance(medium, MotionMedium):
        raise UsageError(f"{loaded.shown} is no motion net", "name one that train task=motion saved")
    shape = medium.net_shape
    steps, frames = wanted.steps or shape.diffusion_steps, wanted.frames or shape.frames
    if steps > shape.diffusion_steps:
        raise UsageError(
            f"{steps} steps are more than the net's {shape.diffusion_steps}", "ask for fewer: --steps"
        )
    if frames > shape.frames:
        raise UsageError(f"{frames} frames are more than the net's {shape.frames}", "ask for fewer: --frames")
    condition = _condition(medium, wanted)
    ddim = wanted.sampler == "ddim" or (wanted.sampler == "auto" and steps < shape.diffusion_steps)
    parts = []
    for first in range(0, wanted.count, _ROWS):
        size = min(_ROWS, wanted.count - first)
        rng = np.random.Generator(np.random.Philox(key=[wanted.seed & ((1 << 64) - 1), first]))
        start = rng.standard_normal((size, *medium.output_shape), np.float32)

        def denoise(x: np.ndarray, time: int) -> np.ndarray:
            seen = loaded.run(np.stack([medium.pack(row, time, condition) for row in x]))
            if condition is None or wanted.guidance == 1:
                return seen
            without = loaded.run(np.stack([medium.pack(row, time) for row in x]))
            return guided(seen, without, wanted.guidance)

        parts.append(sample(denoise, start, medium.kept, steps, rng, ddim=ddim, on_step=on_step))
    motions = np.concatenate(parts)[:, :frames] * medium.std + medium.mean
    if not np.isfinite(motions).all():
        raise Failed("the net gave NaN or Inf", "take an earlier checkpoint")
    facts = {"motions": wanted.count, "frames": frames, "features": shape.features, "steps": steps,
             "sampler": "ddim" if ddim else "ddpm", "guidance": wanted.guidance, "action": wanted.action,
             "seed": wanted.seed, "device": loaded.device}  # fmt: skip
    return motions.astype(np.float32), facts


def _condition(medium: MotionMedium, wanted: Wanted) -> np.ndarray | None:
    shape = medium.net_shape
    if wanted.action and wanted.text:
        raise UsageError("a net has one condition", "give --action or --text-embedding")
    if wanted.action:
        if shape.condition != "action":
            raise UsageError(f"this net knows no actions (its condition: {shape.condition})", "leave --action out")
        if wanted.action not in medium.classes:
            raise UsageError(f"no action '{wanted.action}'", nearest(wanted.action, medium.classes))
        return np.eye(1, shape.condition_width, medium.classes.index(wanted.action), dtype=np.float32)[0]
    if wanted.text is None:
        return None
    if shape.condition != "text":
        raise UsageError(
            f"this net takes no texts (its condition: {shape.condition})", "leave --text-embedding out"
        )
    try:
        found = array_of(wanted.text.read_bytes(), least=1).ravel()
    except (OSError, ValueError) as error:
        raise UsageError(
            f"{wanted.text} cannot be used ({error})", "write float32 [width] by numpy.save"
        ) from None
    if len(found) != shape.condition_width:
        raise UsageError(f"{wanted.text} holds {len(found)} values, not {shape.condition_width}",
                         "embed one text with the encoder that the net was trained with")  # fmt: skip
    return found


def take_over(checkpoint: Path, statistics: Path, out: Path) -> tuple[dict[str, Any], list[str]]:
    """A published checkpoint with its `args.json` as one of ours, which samples, exports and deploys.

    Args:
        statistics: the folder of the Mean.npy and Std.npy that it was trained with.

    Returns:
        the facts, and what a person should know.

    Raises:
        UsageError: no such file, another net than the transformer encoder, or statistics that do not fit.
        Failed: it cannot be written.
    """
    from engine.checkpoints.files import CARD, save_checkpoint_file
    from engine.checkpoints.foreign import align, read_foreign
    from engine.tasks.motion.net import Mdm
    from engine.tasks.motion.shape import NAME, published_shape, read_args, shape_of_state

    foreign = read_foreign(checkpoint)
    args = read_args(checkpoint)
    base, notes = published_shape(args)
    if not args:
        notes.append(f"no args.json beside it: {base.diffusion_steps} steps, {base.noise_schedule} schedule")
    shape = shape_of_state({name: tuple(value.shape) for name, value in foreign.state.items()}, base)
    mean, std = read_statistics(statistics)
    if len(mean) != shape.features:
        raise UsageError(
            f"{statistics} is of {len(mean)} values a frame, the net of {shape.features}",
            "name the statistics of its own training data",
        )
    net = Mdm(shape)
    found = align(net.state_dict(), foreign.state)
    if not found.complete:
        lacking = [*found.differing, *found.missing]
        raise UsageError(
            f"{checkpoint} does not fit ({', '.join(lacking[:3])})", "name a trans_enc model", kind="other_net"
        )
    net.load_state_dict(found.taken)
    classes = [f"action {number}" for number in range(shape.condition_width)]
    card = {
        "format": 1,
        "task": "motion",
        "architecture": {"name": NAME, "settings": shape.as_dict()},
        "classes": classes if shape.condition == "action" else [],
        "preprocess": {"form": str(args.get("dataset", "")), "mean": mean.tolist(),
                       "std": np.where(std < 1e-5, np.float32(1), std).tolist()},
    }  # fmt: skip
    weights = {name: value.contiguous() for name, value in net.state_dict().items()}
    save_checkpoint_file(out, {"model_state_dict": weights, CARD: card})
    facts = {
        "checkpoint": str(out),
        "parameters": sum(value.numel() for value in net.parameters()),
        "settings": shape.as_dict(),
        "unused": found.surplus,
    }
    return facts, [*notes, *foreign.notes]
