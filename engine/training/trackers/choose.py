"""The trackers that the settings ask for, each with its process started; one that is not there is said to be."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator

from engine.config import Settings, secret
from engine.errors import UnderstudyError
from engine.store.workspace import Workspace
from engine.training.runs import RunFolder
from engine.training.trackers.feed import Feed

_PACKAGES = {"tensorboard": "tensorboard", "wandb": "wandb", "mlflow": "mlflow"}
_CHILD = "engine.training.trackers.child"


def trackers(
    workspace: Workspace, settings: Settings, folder: RunFolder, say: Callable[[str], None]
) -> Iterator[tuple[str, Feed]]:
    """A started feed for each tracker of `training.trackers`, with its name."""
    for name in dict.fromkeys(settings.training.trackers):
        package = _PACKAGES.get(name)
        if package and importlib.util.find_spec(package) is None:
            say(f"note: tracker {name} is not installed (pip install 'understudy[trackers]'); the run goes on")
            continue
        own = settings.trackers
        what = {
            "tracker": name,
            "run": folder.run,
            "folder": str(folder.root),
            "project": own.project,
            "wandb_entity": own.wandb_entity,
            "mlflow_uri": mlflow_uri(workspace, settings),
            "timeout_s": own.timeout_s,
        }
        try:
            if name == "wandb" and secret("WANDB_MODE") == "disabled":
                continue
            feed = Feed(
                name,
                [sys.executable, "-m", _CHILD, json.dumps(what)],
                say,
                env=child_environment(),
                log=folder.root / "trackers.log",
                waiting=own.waiting,
                timeout_s=own.timeout_s,
            )
        except (OSError, UnderstudyError) as error:
            say(f"note: tracker {name} could not be started ({error}); the run goes on without it")
            continue
        yield f"tracker {name}", feed


def mlflow_uri(workspace: Workspace, settings: Settings) -> str:
    """Where MLflow keeps runs and the registered model."""
    return settings.trackers.mlflow_uri or f"sqlite:///{workspace.root.absolute() / 'mlflow' / 'mlflow.db'}"


def child_environment() -> dict[str, str]:
    """The environment of a tracker's process: W&B's variables of `.env` too, and no GPU taken from the run."""
    found = {name: value for name in ("WANDB_MODE", "WANDB_API_KEY") if (value := secret(name))}
    quiet = {
        "CUDA_VISIBLE_DEVICES": "",
        "OMP_NUM_THREADS": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
    }
    return {**os.environ, **quiet, **found}
