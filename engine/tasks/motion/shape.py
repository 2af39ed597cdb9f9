"""What a Motion Diffusion Model is made of, by the names of its `args.json`. Torch-free.

Source: Tevet et al. 2022, arXiv:2209.14916, and github.com/GuyTevet/motion-diffusion-model (`model/mdm.py`,
`utils/model_util.py`, `utils/parser_util.py`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from engine.errors import UsageError, nearest

NAME = "mdm"
CONDITIONS = ("none", "action", "text")
SCHEDULES = ("cosine", "linear")
TEXT_WIDTH = 512  # CLIP ViT-B/32
_LIMITS = {
    "features": 4096, "frames": 4096, "latent_dim": 4096, "layers": 64, "num_heads": 64, "ff_size": 16384,
    "diffusion_steps": 10_000, "pos_embed_max_len": 10_000, "condition_width": 4096,
}  # fmt: skip
_FEATURES = {"humanml": 263, "kit": 251, "humanact12": 150, "uestc": 150}  # values a frame of the published data


@dataclass(frozen=True)
class Shape:
    """The net's sizes; the defaults are those of `humanml_trans_enc_512`.

    Attributes:
        features: values a frame.
        frames: the longest motion that the net sees at once.
        condition: `none`, `action` or `text` (embeddings computed beforehand).
        condition_width: values of a condition: the actions, or the length of a text's embedding; 0 for none.
        cond_mask_prob: share of the training's samples that are shown without their condition.
    """

    features: int = 263
    frames: int = 196
    latent_dim: int = 512
    layers: int = 8
    num_heads: int = 4
    ff_size: int = 1024
    condition: str = "text"
    condition_width: int = TEXT_WIDTH
    diffusion_steps: int = 1000
    noise_schedule: str = "cosine"
    cond_mask_prob: float = 0.1
    pos_embed_max_len: int = 5000

    def __post_init__(self) -> None:
        for name, most in _LIMITS.items():
            value = getattr(self, name)
            least = 0 if name == "condition_width" else 1
            if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
                raise ValueError(f"{name} is {value!r}, not a whole number from {least} to {most}")
        if self.latent_dim % self.num_heads or self.latent_dim % 2:
            raise ValueError(f"latent_dim {self.latent_dim} is odd, or no multiple of num_heads {self.num_heads}")
        if max(self.frames + 1, self.diffusion_steps) > self.pos_embed_max_len:
            raise ValueError(f"pos_embed_max_len {self.pos_embed_max_len} is below the frames or diffusion_steps")
        if self.condition not in CONDITIONS or (self.condition == "none") != (self.condition_width == 0):
            raise ValueError(f"condition {self.condition!r} of {self.condition_width} values")
        if self.noise_schedule not in SCHEDULES:
            raise ValueError(f"noise_schedule {self.noise_schedule!r} is none of {', '.join(SCHEDULES)}")
        if not isinstance(self.cond_mask_prob, int | float) or not 0 <= self.cond_mask_prob <= 1:
            raise ValueError(f"cond_mask_prob is {self.cond_mask_prob!r}, not a share")

    @property
    def packed(self) -> int:
        """Values of one input: the noised motion, its time, its condition."""
        return self.frames * self.features + 1 + self.condition_width

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_card(cls, card: Mapping[str, Any]) -> Shape:
        """The shape that a card names.

        Raises:
            ValueError, KeyError, TypeError: it makes no sense.
        """
        architecture = card["architecture"]
        if architecture["name"] != NAME:
            raise ValueError(f"a motion net is an {NAME}, not {architecture['name']!r}")
        found = cls(**architecture["settings"])
        if found.condition == "action" and len(card["classes"]) != found.condition_width:
            raise ValueError(f"{len(card['classes'])} names for {found.condition_width} actions")
        return found


def shape_of_settings(settings: Mapping[str, Any], base: Shape, **known: Any) -> Shape:
    """The shape that `model.settings` asks for.

    Args:
        base: what holds where the settings say nothing.
        known: what the data decide; a setting that says otherwise is refused.

    Raises:
        UsageError: an unknown key, one that contradicts the data, or sizes that make no net.
    """
    names = [field.name for field in fields(Shape)]
    for key, value in settings.items():
        if key not in names:
            raise UsageError(f"{NAME} has no setting '{key}'", nearest(key, names), kind="unknown_key")
        if key in known and value != known[key]:
            raise UsageError(f"model.settings.{key}={value}, but the data have {known[key]}", "leave it out")
    try:
        return replace(base, **{**settings, **known})
    except (ValueError, TypeError) as error:
        raise UsageError(
            f"model.settings make no {NAME} ({error})", "see docs/edge.md", kind="bad_value"
        ) from None


def read_args(checkpoint: Path) -> dict[str, Any]:
    """The `args.json` beside a published checkpoint; {} where there is none.

    Raises:
        UsageError: it cannot be read.
    """
    path = checkpoint.parent / "args.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read as JSON ({error})", "mend it", kind="bad_config") from None
    if not isinstance(found, dict):
        raise UsageError(f"{path} holds no JSON object", "mend it", kind="bad_config")
    return found


def published_shape(args: Mapping[str, Any]) -> tuple[Shape, list[str]]:
    """The shape that an `args.json` describes, and what a person should know of it.

    Raises:
        UsageError: another architecture than the transformer encoder, or an extension of it that is not here.
    """
    arch = args.get("arch", "trans_enc")
    if arch != "trans_enc":
        raise UsageError(f"args.json names the architecture '{arch}'", "only trans_enc is here", kind="other_net")
    others = {"emb_policy": "add", "pred_len": 0, "context_len": 0, "multi_target_cond": False}
    for key, usual in others.items():
        if args.get(key, usual) != usual:
            raise UsageError(f"args.json has {key}={args[key]}, which is not here", "take a model without it")
    notes = []
    if args.get("mask_frames"):
        notes.append("it was trained with mask_frames: here all frames of the window are attended to")
    dataset = args.get("dataset", "humanml")
    condition = "none" if args.get("unconstrained") else "text" if dataset in ("humanml", "kit") else "action"
    width = {"none": 0, "text": TEXT_WIDTH, "action": 12 if dataset == "humanact12" else 40}[condition]
    own = ("latent_dim", "layers", "diffusion_steps", "noise_schedule", "cond_mask_prob", "pos_embed_max_len")
    try:
        found = Shape(
            features=_FEATURES.get(dataset, 263),
            frames=196 if condition == "text" else int(args.get("num_frames", 60)),
            condition=condition,
            condition_width=width,
            **{name: args[name] for name in own if name in args},
        )
    except (ValueError, TypeError) as error:
        raise UsageError(f"args.json makes no {NAME} ({error})", "mend it", kind="bad_config") from None
    return found, notes


def shape_of_state(shapes: Mapping[str, tuple[int, ...]], base: Shape) -> Shape:
    """The sizes that a state dict itself shows; the heads, times and frames are `base`'s.

    Raises:
        UsageError: it is of no such net.
    """
    try:
        latent, features = shapes["input_process.poseEmbedding.weight"]
        layers = [int(name.split(".")[2]) for name in shapes if name.startswith("seqTransEncoder.layers.")]
        width, condition = 0, "none"
        if "embed_text.weight" in shapes:
            condition, width = "text", shapes["embed_text.weight"][1]
        elif "embed_action.action_embedding" in shapes:
            condition, width = "action", shapes["embed_action.action_embedding"][0]
        return replace(
            base,
            features=features,
            latent_dim=latent,
            layers=max(layers) + 1,
            ff_size=shapes["seqTransEncoder.layers.0.linear1.weight"][0],
            pos_embed_max_len=shapes["sequence_pos_encoder.pe"][0],
            condition=condition,
            condition_width=width,
        )
    except (KeyError, ValueError, IndexError) as error:
        raise UsageError(
            f"these weights are of no motion diffusion encoder ({error})",
            "name a trans_enc model",
            kind="other_net",
        ) from None
