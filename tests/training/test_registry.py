"""MLflow's registry follows the slots; MLflow itself is stood in for (its import alone takes seconds)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.util import find_spec
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from engine.config import load_settings
from engine.errors import Failed
from engine.store.workspace import Workspace
from tests.conftest import Result
from tests.release.bundles import make_release, put


class MlflowError(Exception):
    pass


class Registry:
    """One model's versions and aliases, as `MlflowClient` keeps them."""

    tracking_uri = "sqlite:////tmp/somewhere/mlflow.db"

    def __init__(self) -> None:
        self.models: list[Any] = []
        self.versions: list[Any] = []
        self.aliases: dict[str, str] = {}
        self.logged: list[str] = []

    def search_registered_models(self, wanted: str) -> list[Any]:
        return self.models

    def create_registered_model(self, name: str, description: str) -> None:
        self.models.append(SimpleNamespace(name=name))

    def get_registered_model(self, name: str) -> Any:
        return SimpleNamespace(aliases=dict(self.aliases))

    def set_registered_model_alias(self, name: str, alias: str, version: str) -> None:
        self.aliases[alias] = version

    def delete_registered_model_alias(self, name: str, alias: str) -> None:
        del self.aliases[alias]

    def search_model_versions(self, wanted: str) -> list[Any]:
        return self.versions

    def get_experiment_by_name(self, name: str) -> Any:
        return SimpleNamespace(experiment_id="1")

    def create_run(self, experiment: str, tags: dict[str, str], run_name: str) -> Any:
        return SimpleNamespace(info=SimpleNamespace(run_id="r", artifact_uri="file:///a"))

    def log_artifact(self, run: str, path: str) -> None:
        self.logged.append(path)

    def set_terminated(self, run: str) -> None:
        """Nothing to keep."""

    def create_model_version(
        self, name: str, source: str, run: str, tags: dict[str, str], description: str
    ) -> Any:
        self.versions.append(SimpleNamespace(version=len(self.versions) + 1, tags=tags, source=source))
        return self.versions[-1]


@pytest.fixture
def register(monkeypatch: pytest.MonkeyPatch) -> Any:
    """(the function that registers, the registry behind it)"""
    registry = Registry()
    for name, content in {
        "mlflow": {},
        "mlflow.exceptions": {"MlflowException": MlflowError},
        "mlflow.tracking": {"MlflowClient": lambda **places: registry},
        "mlflow.entities": {"Metric": object, "Param": object},
    }.items():
        module = ModuleType(name)
        vars(module).update(content)
        monkeypatch.setitem(sys.modules, name, module)
    for name in ("mlflow", "registry"):
        monkeypatch.delitem(sys.modules, f"engine.training.trackers.{name}", raising=False)
    from engine.training.trackers.registry import register

    yield register, registry
    for name in ("mlflow", "registry"):
        sys.modules.pop(f"engine.training.trackers.{name}", None)


def test_champion_and_challenger_are_what_the_slots_hold(workspace: Workspace, register: Any) -> None:
    registering, registry = register
    settings = load_settings(None, workspace.root).settings
    first = make_release(workspace, "cycle 1", cycle=1)
    put(workspace, "tobe", first)
    found = registering(workspace, settings)
    assert [(one["alias"], one["version"]) for one in found] == [("champion", None), ("challenger", "1")]
    put(workspace, "asis", first)  # promoted: TO-BE keeps it
    second = make_release(workspace, "cycle 2", cycle=2)
    put(workspace, "tobe", second)
    for _ in range(2):  # doing it again changes nothing
        registering(workspace, settings)
        assert registry.aliases == {"champion": "1", "challenger": "2"}
    assert [version.tags["cycle"] for version in registry.versions] == ["1", "2"]
    assert [path.rpartition("/")[2] for path in registry.logged] == [
        f"{one.id}.release" for one in (first, second)
    ]


@pytest.mark.skipif(find_spec("mlflow") is None, reason="mlflow is not installed (understudy[trackers])")
def test_mlflow_itself_moves_the_aliases(workspace: Workspace, engine: Callable[..., Result]) -> None:
    def registered() -> list[tuple[str, str]]:
        found = engine("trackers", "register", "--json")
        assert found.code == 0, found.err
        return [(one["alias"], one["version"]) for one in found.json["registered"]]

    first, second = (make_release(workspace, f"cycle {number}", cycle=number) for number in (1, 2))
    put(workspace, "asis", first)
    put(workspace, "tobe", second)
    assert registered() == [("champion", "1"), ("challenger", "2")]
    put(workspace, "asis", second)
    assert registered() == [("champion", "2"), ("challenger", "2")]


def test_a_registry_out_of_reach_is_a_sentence(
    workspace: Workspace, register: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    registering, registry = register

    def refuse(wanted: str) -> list[Any]:
        raise MlflowError("no route\nto host")

    monkeypatch.setattr(registry, "search_registered_models", refuse)
    with pytest.raises(Failed, match=r"did not take the releases .no route to host."):
        registering(workspace, load_settings(None, workspace.root).settings)


def test_the_verb_says_which_trackers_are_on(engine: Callable[..., Result]) -> None:
    found = engine(
        "trackers", "training.trackers=[tensorboard,wandb]", "--json", env={"WANDB_MODE": "offline"}
    ).json
    assert [(one["name"], one["on"]) for one in found["trackers"]] == [
        ("tensorboard", True), ("wandb", True), ("mlflow", False),
    ]  # fmt: skip
    assert found["trackers"][1]["detail"] == "on, offline"
