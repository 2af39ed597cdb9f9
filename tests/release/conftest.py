"""One admitted workspace for the whole room: converting a checkpoint takes seconds."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.compare.gate import gate
from engine.config import Settings, load_settings
from engine.release.bundle import Release
from engine.release.deploy import deploy
from engine.release.promote import promote
from engine.store.workspace import Workspace
from tests.conftest import shared_folder
from tests.release import checkpoints
from tests.release.bundles import make_release, put

_CHECKPOINT = "checkpoints_cycle{cycle}/best_model_cycle{cycle}.pth"


@pytest.fixture(scope="session")
def admitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A workspace that admitted and deployed two checkpoints (the second is on TO-BE), and their files."""
    root = shared_folder(tmp_path_factory, "admitted", _admit)
    return root / "workspace", *(root / _CHECKPOINT.format(cycle=cycle) for cycle in (1, 2))


def _admit(root: Path) -> None:
    workspace = Workspace(root / "workspace")
    settings = load_settings(None, workspace.root).settings
    for cycle in (1, 2):
        path = checkpoints.save(root / _CHECKPOINT.format(cycle=cycle), checkpoints.content(cycle))
        deploy(workspace, settings, path, name=path.name, cycle=cycle)


@pytest.fixture
def used(admitted: tuple[Path, Path, Path], workspace: Workspace) -> tuple[Workspace, Path, Path]:
    """A copy of it in the test's own workspace: two releases, the second one on TO-BE."""
    root, first, second = admitted
    shutil.copytree(root, workspace.root)
    return workspace, first, second


@pytest.fixture
def settings(workspace: Workspace, config: Path) -> Settings:
    return load_settings(config, workspace.root).settings


@pytest.fixture
def settings_with(workspace: Workspace, config: Path) -> Callable[..., Settings]:
    """Settings of the test's config with overrides: `settings_with("source.model=litecnn")`."""
    return lambda *overrides: load_settings(config, workspace.root, overrides).settings


@pytest.fixture
def pair(workspace: Workspace) -> tuple[Release, Release]:
    """AS-IS holds the first release, TO-BE the second."""
    old, new = make_release(workspace, "old"), make_release(workspace, "new", cycle=2, accuracy=0.98)
    put(workspace, "asis", old)
    put(workspace, "tobe", new)
    return old, new


@pytest.fixture
def port(config: Path) -> int:
    return load_settings(config).settings.port("asis")


@pytest.fixture
def backup(workspace: Workspace, pair: tuple[Release, Release], settings: Settings) -> Path:
    """AS-IS's first backup, of the old release; AS-IS holds the new one."""
    name = promote(workspace, settings, gate, force=True, reason="test")["backup"]
    return workspace.backups / name
