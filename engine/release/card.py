"""What a checkpoint says of itself: its card, or settings.source where it has none. Torch-free.

Runs in the admission child. Whoever wrote the card is not trusted: every field's type is made sure of,
and code that it names is used only where this host's settings name the same.
"""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Any

from engine.release.refusal import Refusal
from engine.tasks.task import BUILT_IN

if TYPE_CHECKING:
    from engine.config import Settings

# What a card may not hand to a factory: arguments that make timm open files or reach for the network.
_FORBIDDEN_SETTINGS = frozenset(
    ("checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "cache_dir", "features_only")
)


def card_terms(settings: Settings) -> dict[str, Any]:
    """What `read_card` wants to know of this host, as JSON: `source`, `trusted` and `task`."""
    source = settings.source
    own = source.model is not None and source.model == settings.model.name
    return {
        "source": {
            **source.model_dump(mode="json", include={"model", "classes", "img_size", "mean", "std"}),
            "resize": settings.data.resize,
            "model_settings": settings.model.settings if own else {},
        },
        "trusted": [source.model, settings.model.name],
        "task": settings.task,
    }


def read_card(content: dict[str, Any], job: dict[str, Any]) -> dict[str, Any]:
    """Task, architecture, classes and preprocessing: from the checkpoint itself, else from source.* (images)."""
    card = content.get("understudy")
    if isinstance(card, dict):
        return _own_card(card, job)
    source = job["source"]
    missing = [f"source.{key}" for key in ("model", "classes", "img_size", "mean", "std") if source[key] is None]
    if missing:
        raise Refusal(
            "settings",
            f"does not say what it is made of, and {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} not set",
            f"set {missing[0]}{' and the others' if len(missing) > 1 else ''} in config.toml",
        )
    return _checked_card(
        {
            "architecture": {"name": source["model"], "settings": source["model_settings"]},
            "classes": source["classes"],
            "preprocess": {key: source[key] for key in ("img_size", "resize", "mean", "std")},
        }
    )


def _own_card(card: dict[str, Any], job: dict[str, Any]) -> dict[str, Any]:
    task = card.get("task")
    if card.get("format") != 1 or not isinstance(task, str):
        raise Refusal(
            "card",
            f"has a card of task {task!r}, format {card.get('format')!r}, not of format 1",
            "train it with this version",
        )
    if task not in BUILT_IN and task != job["task"]:
        raise Refusal(
            "task",
            f"is of the task '{task}', which this host does not trust",
            f'set task = "{task}" if that code is yours',
        )
    checked = _checked_card(card)
    if task != "images":
        return checked
    name = checked["architecture"]["name"]
    if ":" in name and name not in job["trusted"]:
        raise Refusal(
            "architecture",
            f"asks for the code '{name}', which this host does not trust",
            f'set source.model = "{name}" if that code is yours',
        )
    forbidden = sorted(_FORBIDDEN_SETTINGS & checked["architecture"]["settings"].keys())
    if forbidden:
        raise Refusal(
            "architecture", f"hands '{forbidden[0]}' to its architecture", "leave it out of model.settings"
        )
    return checked


def _checked_card(card: dict[str, Any]) -> dict[str, Any]:
    """Task and the three fields with their types made sure of; whoever wrote the card is not trusted.

    Images' preprocessing is looked at here; another task's medium looks at its own.
    """
    hint = "write it with engine train, or save it without 'understudy' and set source.*"
    try:
        architecture = card["architecture"]
        name, settings = str(architecture["name"]), json.loads(json.dumps(dict(architecture["settings"] or {})))
        classes = list(card["classes"])
        task = str(card.get("task") or "images")
        may_be_none = task == "motion" or ":" in task  # a net without actions names none
        if not all(isinstance(word, str) and word for word in classes) or not (classes or may_be_none):
            raise ValueError("classes must be a list of names")
        if len(set(classes)) != len(classes):
            raise ValueError("a class is named twice")
        preprocess = json.loads(json.dumps(dict(card["preprocess"]), allow_nan=False))
        if task == "images":
            preprocess = _image_preprocess(preprocess)
    except (KeyError, TypeError, ValueError) as error:
        said = f"'{error.args[0]}' is missing" if isinstance(error, KeyError) else str(error)
        raise Refusal("card", f"does not say rightly what it is made of ({said})", hint) from None
    return {
        "task": task,
        "architecture": {"name": name, "settings": settings},
        "classes": classes,
        "preprocess": preprocess,
    }


def _image_preprocess(preprocess: dict[str, Any]) -> dict[str, Any]:
    side, resize = int(preprocess["img_size"]), str(preprocess["resize"])
    mean, std = ([float(value) for value in preprocess[key]] for key in ("mean", "std"))
    if not 8 <= side <= 4096 or resize not in ("crop", "squash", "pad"):
        raise ValueError(f"img_size {side} or resize '{resize}' is out of range")
    if len(mean) != 3 or len(std) != 3 or not all(map(math.isfinite, mean + std)) or min(std) <= 0:
        raise ValueError("mean and std must be three finite numbers each, std above 0")
    return {"img_size": side, "resize": resize, "mean": mean, "std": std}


def read_origin(content: dict[str, Any]) -> dict[str, Any]:
    """Epoch, accuracy and such as far as they make sense; an accuracy above 1 is percent."""
    card = content.get("understudy")
    card = card if isinstance(card, dict) else {}
    accuracy = _fraction(content.get("accuracy"))
    epoch, cycle = _number(content.get("epoch")), _number(card.get("cycle"))
    return {
        "epoch": int(epoch) if epoch is not None else None,
        "accuracy": accuracy,
        "f1_macro": _fraction(card.get("f1_macro")),
        "loss": _number(content.get("loss")),
        "cycle": int(cycle) if cycle is not None and cycle >= 0 else None,
        "run": card["run"] if isinstance(card.get("run"), str) else None,
    }


def _fraction(value: Any) -> float | None:
    number = _number(value)
    if number is None or not 0 <= number <= 100:
        return None
    return number / 100 if number > 1 else number


def _number(value: Any) -> float | None:
    if hasattr(value, "item") and getattr(value, "numel", lambda: 2)() == 1:
        value = value.item()
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value
