"""The job that a command line means: the same training there as it would be here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from engine.cloud.provider import Job
from engine.config import Loaded
from engine.errors import UsageError

_SECTIONS = ("data", "model", "training", "go")
_OF_THIS_HOST = frozenset(
    ("data.root", "data.cache", "data.cache_bytes", "training.mirror", "training.processes", "training.num_workers",
     "training.trackers", "go.shards")
)  # fmt: skip


def project() -> Path:
    """The checkout that is uploaded.

    Raises:
        UsageError: this is an installed copy without one.
    """
    root = Path(__file__).resolve().parents[2]
    if not (root / "pyproject.toml").is_file():
        raise UsageError("this installation has no project to upload", "launch from a checkout of it")
    return root


def training_job(loaded: Loaded, name: str, **wanted: Any) -> Job:
    """A job that trains with these settings: what they say of data, net and training goes along, word by word; what
    belongs to this host (paths, workers, device) does not. The data's folder is uploaded.

    Args:
        wanted: further fields of the job (`gpu`, `spot`, `budget_usd`, ...).

    Raises:
        UsageError: the data is not there, or weights of a local file are to be begun with.
    """
    settings = loaded.settings
    data: tuple[tuple[Path, str], ...] = ()
    words = [f"task={settings.task}"] if settings.task != "images" else []
    for section in _SECTIONS if settings.task == "go" else _SECTIONS[:-1]:
        values = getattr(settings, section).model_dump(mode="json")
        words += [f"{section}.{key}={_text(value)}" for key, value in values.items() if _goes(section, key, value, loaded)]  # fmt: skip
    root = settings.go.shards if settings.task == "go" else settings.data.root
    if settings.task == "go":
        root = root or settings.workspace / "go" / "shards"
    if root is not None:
        root = root.expanduser()
        if not root.exists():
            raise UsageError(f"no data at {root}", "check data.root", kind="not_found")
        place = f"data/{root.name}"
        data = ((root, place),)
        words.append(f"{'go.shards' if settings.task == 'go' else 'data.root'}={place}")
    if Path(str(settings.model.pretrained)).expanduser().is_file():
        raise UsageError("model.pretrained is a file of this host", "put it into the data's folder, or use true")
    verb = ("go", "train") if settings.task == "go" else ("train",)
    return Job(name, (*verb, *words), project(), data, **wanted)


def _goes(section: str, key: str, value: Any, loaded: Loaded) -> bool:
    """Whether a setting goes along: whatever was set here, and whatever a group there would set otherwise."""
    if f"{section}.{key}" in _OF_THIS_HOST or value is None or value == {}:
        return False
    return loaded.origins.get(f"{section}.{key}", "") != "" or section == "data"


def _text(value: Any) -> str:
    """A setting as the command line takes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {json.dumps(item)}" for key, item in value.items()) + "}"
    return json.dumps(value) if isinstance(value, list) else str(value)
