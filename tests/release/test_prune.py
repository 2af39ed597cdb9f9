"""Retention: what goes is old and beyond the number kept, and never what something still needs."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.config import load_settings
from engine.release.bundle import Release
from engine.release.slots import read_pointer
from engine.store.events import read_events
from engine.store.files import write_json
from engine.store.workspace import Workspace
from tests.conftest import Result
from tests.release.bundles import make_release, put

Engine = Callable[..., Result]
DAY_S = 86400


@pytest.fixture
def history(engine: Engine, workspace: Workspace, config: Path) -> list[Release]:
    """Six releases: each was promoted over the one before, 60 days ago; TO-BE holds a seventh."""
    port = load_settings(config).settings.port("asis")
    config.write_text(config.read_text().replace(str(port), "8891"))
    releases = [make_release(workspace, f"release {number}", cycle=number) for number in range(7)]
    for release in releases[:6]:
        put(workspace, "asis", release)
    put(workspace, "tobe", releases[6])
    long_ago = time.time() - 60 * DAY_S
    known = {}
    for number, path in enumerate(sorted(workspace.backups.iterdir())):
        named = path.with_name(f"model_8891_backup_20250101_00000{number}.bin")
        known[named.name] = releases[number].id
        path.rename(named)
    write_json(workspace.state / "backups.json", known)
    for number, release in enumerate(releases):
        os.utime(release.path, (long_ago + number, long_ago + number))
    return releases


def left(workspace: Workspace) -> tuple[set[str], list[str]]:
    return {path.stem for path in workspace.releases.iterdir()}, sorted(
        path.name for path in workspace.backups.iterdir()
    )


@pytest.mark.fault(38)
def test_pruning_leaves_what_is_needed(engine: Engine, workspace: Workspace, history: list[Release]) -> None:
    least = ("retention.releases=1", "retention.backups=1", "retention.days=1")
    before = left(workspace)
    planned = engine("prune", "--dry-run", "--json", *least)
    assert planned.code == 0, planned.err
    assert left(workspace) == before
    assert len(before[1]) == 5

    done = engine("prune", "--json", *least)
    assert done.code == 0, done.err
    assert {key: done.json[key] for key in ("releases", "backups")} == {
        key: planned.json[key] for key in ("releases", "backups")
    }
    releases, backups = left(workspace)
    assert releases == {history[6].id, history[5].id, history[4].id}, "TO-BE, AS-IS and the last good one"
    assert backups == before[1][-1:]
    assert engine("rollback", backups[0], "--json").json["restored"] == history[4].id
    pointer = read_pointer(workspace, "tobe")
    assert pointer is not None
    assert pointer.release == history[6].id


@pytest.mark.fault(38)
def test_a_damaged_newest_backup_does_not_cost_the_last_verified_one(
    engine: Engine, workspace: Workspace, history: list[Release]
) -> None:
    names = left(workspace)[1]
    for name in names[-2:]:
        (workspace.backups / name).write_bytes(b"damaged")
    done = engine("prune", "--json", "retention.releases=1", "retention.backups=1", "retention.days=1")
    assert done.code == 0, done.err
    assert names[-3] in left(workspace)[1]
    assert history[2].id in left(workspace)[0]
    assert engine("rollback", names[-3], "--json").json["restored"] == history[2].id


def test_the_young_and_the_newest_stay(engine: Engine, workspace: Workspace, history: list[Release]) -> None:
    before = left(workspace)
    for words in (
        ("retention.days=100000",),
        ("retention.releases=20", "retention.backups=20", "retention.days=0"),
    ):
        done = engine("prune", "--json", *words)
        assert (done.json["removed"], left(workspace)) == (False, before)


def test_after_a_promotion_where_the_config_says_so(
    engine: Engine, workspace: Workspace, history: list[Release]
) -> None:
    least = ("retention.releases=1", "retention.backups=1", "retention.days=1")
    force = ("promote", "--force", "--reason", "x", "--json")
    assert engine(*force, *least, "retention.automatic=true").json["pruned"]["removed"]
    releases, backups = left(workspace)
    assert releases >= {history[6].id, history[5].id}
    assert len(backups) == 1
    assert [event["kind"] for event in read_events(workspace)].count("promoted") == 7
