"""MLflow's runs by its client, at any tracking address (a server, `sqlite:///FILE`, a folder)."""

from __future__ import annotations

import socket
import time
from pathlib import Path
from typing import Any

from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient

from engine.training.trackers.child import flat, numbers, step_of

_ENDS = {"completed": "FINISHED", "interrupted": "KILLED"}
_SQLITE = "sqlite:///"
_LONGEST = 500  # characters of a parameter that every version of MLflow takes


class MLflow:
    """One MLflow run a run, found again by its folder when the run is resumed."""

    def __init__(self, what: dict[str, Any]) -> None:
        self._what = what
        self._client = connect(what["mlflow_uri"])

    def started(self, manifest: dict[str, Any]) -> None:
        experiment = experiment_id(self._client, self._what["project"], artifact_place(self._what["mlflow_uri"]))
        place = f"{socket.gethostname()}:{self._what['folder']}"
        found = self._client.search_runs([experiment], f"tags.understudy_folder = '{place}'", max_results=1)
        if found:
            self._run = found[0].info.run_id
            self._client.update_run(self._run, status="RUNNING")
            return
        tags = {"understudy_folder": place, "understudy_run": self._what["run"]}
        name = f"{self._what['run']} {manifest.get('model')}"
        self._run = self._client.create_run(experiment, tags=tags, run_name=name).info.run_id
        given = flat(manifest.get("settings") or {})
        self._client.log_batch(
            self._run, params=[Param(key, str(value)[:_LONGEST]) for key, value in given.items()]
        )

    def epoch(self, row: dict[str, Any]) -> None:
        self._log("epoch", numbers(row), int(row["epoch"]))

    def step(self, progress: dict[str, Any]) -> None:
        names = ("loss", "samples_per_s", "memory_bytes")
        self._log("train", numbers({name: progress.get(name) for name in names}), step_of(progress))

    def ended(self, manifest: dict[str, Any]) -> None:
        best = numbers(manifest.get("best") or {})
        self._log("best", best, int((manifest.get("best") or {}).get("epoch") or 0))
        if manifest.get("checkpoint"):
            self._client.set_tag(self._run, "understudy_checkpoint", str(manifest["checkpoint"]))
        self._client.set_terminated(self._run, _ENDS.get(str(manifest.get("status")), "FAILED"))

    def _log(self, group: str, values: dict[str, float], step: int) -> None:
        at = int(time.time() * 1000)
        metrics = [Metric(f"{group}/{name}", value, at, step) for name, value in values.items()]
        if metrics:
            self._client.log_batch(self._run, metrics=metrics)


def connect(uri: str) -> MlflowClient:
    """A client of runs and registered models at one address; a database of our own gets its folder."""
    if uri.startswith(_SQLITE):
        Path(uri.removeprefix(_SQLITE)).parent.mkdir(parents=True, exist_ok=True)
    return MlflowClient(tracking_uri=uri, registry_uri=uri)


def experiment_id(client: MlflowClient, name: str, artifacts: str | None = None) -> str:
    """The experiment of this name, made if it is not there; `artifacts`: where its files go, else MLflow's choice."""
    found = client.get_experiment_by_name(name)
    return str(found.experiment_id if found else client.create_experiment(name, artifact_location=artifacts))


def artifact_place(uri: str) -> str | None:
    """Where a database of our own keeps files: beside it. A server knows its own place."""
    if not uri.startswith(_SQLITE):
        return None
    return (Path(uri.removeprefix(_SQLITE)).parent / "mlartifacts").absolute().as_uri()
