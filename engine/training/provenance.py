"""What a run was made with, so that it can be repeated: code, packages, data, seed, device, threads."""

from __future__ import annotations

import platform
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

import torch

from engine import __version__

PACKAGES = ("torch", "torchvision", "timm", "numpy", "pillow", "scikit-learn", "safetensors")
_CHECKOUT = Path(__file__).resolve().parents[2]
# what is compared between a run and its repetition, and what it is called
_COMPARED = {
    "code": "code",
    "packages": "packages",
    "python": "Python",
    "platform": "platform",
    "fingerprint": "data",
    "started_from_sha256": "weights that it begins with",
    "device": "device",
    "device_name": "device",
    "precision": "precision",
    "processes": "processes",
}


def made_with(fingerprint: str, seed: int, processes: int) -> dict[str, Any]:
    """The manifest's facts of the software and the data; the device's are added by the session."""
    return {
        "code": code_version(),
        "packages": package_versions(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "threads": torch.get_num_threads(),
        "fingerprint": fingerprint,
        "seed": seed,
        "processes": processes,
    }


def code_version() -> dict[str, Any]:
    """`version`, and in a checkout its git `commit` and whether files are `changed` since."""
    found: dict[str, Any] = {"version": __version__, "commit": None, "changed": None}
    if (_CHECKOUT / ".git").exists():
        found["commit"] = _git("rev-parse", "HEAD")
        changes = _git("status", "--porcelain", "--", "engine")
        found["changed"] = None if changes is None else bool(changes)
    return found


def package_versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """In words, what a run that repeats another has not in common with it; facts that either lacks are left out."""
    said = []
    for name, what in _COMPARED.items():
        old, new = before.get(name), now.get(name)
        if old == new or old is None or new is None:
            continue
        if isinstance(old, dict):
            pairs = [(key, old.get(key), new.get(key)) for key in old | new if old.get(key) != new.get(key)]
            said += [f"{what}: {key} is {_shown(two)}, was {_shown(one)}" for key, one, two in pairs]
        else:
            said.append(f"{what}: now {_shown(new)}, was {_shown(old)}")
    if before.get("code", {}).get("changed") or now["code"]["changed"]:
        said.append("code: files were changed after the commit, so that it does not name the code exactly")
    return said


def _shown(value: object) -> str:
    return "absent" if value is None else str(value)[:16] if isinstance(value, str) else str(value)


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(_CHECKOUT), *words], capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None  # no git here, or a checkout of another account
    return done.stdout.strip()
