"""MLflow's model registry says what the slots hold: AS-IS's release is the `champion`, TO-BE's the `challenger`.

The slots are the truth. Registering compares and mends, so it may be done again at any time, and one that could not be
done is made up for by the next.
"""

from __future__ import annotations

from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from engine.config import Settings
from engine.errors import Failed
from engine.release.bundle import read_release, release_path
from engine.release.slots import read_pointer
from engine.store.workspace import TITLES, Workspace
from engine.training.trackers.choose import mlflow_uri
from engine.training.trackers.mlflow import artifact_place, connect, experiment_id

ALIASES = {"champion": "asis", "challenger": "tobe"}


def register(workspace: Workspace, settings: Settings) -> list[dict[str, Any]]:
    """Give both aliases to the versions of the releases that the slots hold; a new release becomes a version.

    Returns:
        A list of `{alias, release, version}`; both None for an empty slot.

    Raises:
        Failed: MLflow cannot be reached, or refuses.
    """
    uri = mlflow_uri(workspace, settings)
    name = settings.trackers.mlflow_model
    try:
        client = connect(uri)
        _model(client, name)
        return [_alias(client, workspace, settings, alias, slot) for alias, slot in ALIASES.items()]
    except (MlflowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise Failed(f"MLflow at {uri} did not take the releases ({reason})", "see trackers.mlflow_uri") from error


def _model(client: MlflowClient, name: str) -> None:
    if any(found.name == name for found in client.search_registered_models(f"name = '{name}'")):
        return
    client.create_registered_model(name, description="What Understudy's slots have held.")


def _alias(
    client: MlflowClient, workspace: Workspace, settings: Settings, alias: str, slot: str
) -> dict[str, Any]:
    name = settings.trackers.mlflow_model
    pointer = read_pointer(workspace, slot)
    held = client.get_registered_model(name).aliases.get(alias)
    if pointer is None:
        if held:
            client.delete_registered_model_alias(name, alias)
        return {"alias": alias, "release": None, "version": None}
    version = _version(client, workspace, settings, pointer.release, TITLES[slot])
    if str(held) != version:
        client.set_registered_model_alias(name, alias, version)
    return {"alias": alias, "release": pointer.release, "version": version}


def _version(client: MlflowClient, workspace: Workspace, settings: Settings, release: str, title: str) -> str:
    name = settings.trackers.mlflow_model
    for found in client.search_model_versions(f"name = '{name}'"):
        if found.tags.get("release") == release:
            return str(found.version)
    path = release_path(workspace, release)
    manifest = read_release(path).manifest
    origin = manifest.checkpoint
    facts = {
        "release": release,
        "checkpoint_sha256": origin.sha256,
        "architecture": str(manifest.architecture["name"]),
        **{key: str(value) for key in ("cycle", "epoch", "accuracy", "f1_macro", "run")
           if (value := getattr(origin, key)) is not None},
    }  # fmt: skip
    experiment = experiment_id(client, settings.trackers.project, artifact_place(client.tracking_uri))
    run = client.create_run(experiment, tags={"understudy_release": release}, run_name=f"release {release[:8]}")
    client.log_artifact(run.info.run_id, str(path))
    client.set_terminated(run.info.run_id)
    source = f"{run.info.artifact_uri}/{path.name}"
    made = client.create_model_version(
        name, source, run.info.run_id, tags=facts, description=f"came to {title} from {origin.name}"
    )
    return str(made.version)
