"""`cloud launch --dry-run`: everything that a launch checks, and nothing written, uploaded or rented."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from benchmarks import cloud_budget
from benchmarks._rented import Rented, missing
from engine.cli.cloud_machines import _rehearsed_text
from engine.cloud.ledger import Ledger
from engine.cloud.machines import checked, order
from engine.cloud.provider import Job
from engine.cloud.rehearsal import Rehearsal, rehearse
from engine.cloud.sky import Skypilot
from engine.config import load_settings
from engine.errors import Busy, Failed, UsageError
from engine.store.workspace import Workspace
from engine.training import fit
from tests.cloud.own_server import OwnServer

FOREVER = [{"kind": "api", "verb": "launch", "since": 0, "until": 1e12}]


def files(*roots: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for root in roots for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def sky(tmp_path: Path) -> Iterator[Path]:
    with cloud_budget.fake_cloud(tmp_path, cloud_budget.Case("dry")) as place:
        (place / "now").unlink()
        yield place


@pytest.fixture
def job(tmp_path: Path) -> Job:
    code, photos = tmp_path / "code", tmp_path / "photos"
    for path, text in ((code / "a.py", "12345"), (photos / "one.jpg", "123"), (photos / "two.jpg", "1234")):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return Job("box", ("train", "training.epochs=5"), code, ((photos, "data/photos"),), gpu="RTX 4090", spot=True,
               max_hourly_usd=0.5, budget_usd=2.0)  # fmt: skip


def dry(workspace: Workspace, place: Path, job: Job, *words: str) -> Rehearsal:
    overrides = ["cloud.provider=skypilot", f"cloud.skypilot={place / 'sky'}", *words]
    return rehearse(workspace, load_settings(None, workspace.root, overrides).settings, job)


def verdicts(done: Rehearsal) -> dict[str, bool | None]:
    return {check.name: check.ok for check in done.checks}


def test_it_says_everything_and_writes_nothing(workspace: Workspace, sky: Path, job: Job, tmp_path: Path) -> None:
    before = files(workspace.root, job.code)
    done = dry(workspace, sky, job, "cloud.infra=runpod")
    assert files(workspace.root, job.code) == before
    cloud = json.loads((sky / "cloud.json").read_text())
    assert (cloud["clusters"], cloud["calls"]) == ([], {"launch": 1})
    assert verdicts(done) == {"price": True, "budget": True, "memory": None, "skypilot": True}
    assert (done.ok, done.problem()) == (True, None)
    assert [(upload.place, upload.files, upload.bytes) for upload in done.uploads] == [
        ("code", 1, 5),
        ("data/photos", 2, 7),
    ]
    assert "max_hourly_cost: 0.5" in str(done.task)
    text = _rehearsed_text(done.as_json())
    for part in ("spot RTX 4090 is $0.21 (runpod, documents of 2025-09-09)", "RTX4090:1   0.35          ✔\n", "Dryrun finished.", "3.8 to 9.4 hours",
                 "data/photos: 2 files", "autostop:", "nothing was rented"):  # fmt: skip
        assert part in text, part


def test_what_is_in_the_way_is_named_with_its_exit_code(
    workspace: Workspace, sky: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = dry(workspace, sky, Job.from_json(job.as_json() | {"max_hourly_usd": 0.2}))
    assert verdicts(done)["price"] is False
    problem = done.problem()
    assert isinstance(problem, UsageError)
    assert "more than $0.20" in problem.message
    assert problem.as_json()["checks"][0]["ok"] is False
    assert problem.as_json()["error"]["kind"] == "rehearsal_price"

    (sky / "faults.json").write_text(json.dumps(FOREVER))
    refused = dry(workspace, sky, job)
    assert isinstance(refused.problem(), Failed)
    assert "HTTP 500" in str(refused.problem())
    assert any("HTTP 500" in line for check in refused.checks for line in check.said)

    unknown = dry(workspace, sky, Job.from_json(job.as_json() | {"gpu": "X9000"}))
    assert verdicts(unknown)["price"] is None

    (sky / "sky").unlink()
    alone = dry(workspace, sky, job)
    assert isinstance(alone.problem(), UsageError)
    assert alone.task  # everything else is said all the same

    traced = {"weights": 10**9, "buffers": 0, "learning": 10**9, "live": 2 * 10**10, "judged": 10**9, "heap": 0}
    monkeypatch.setattr(fit.TraceCache, "__call__", lambda *arguments: traced)
    assert verdicts(dry(workspace, sky, job))["memory"] is False


def test_a_launch_refuses_what_its_rehearsal_refuses(
    workspace: Workspace, sky: Path, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    for changes, word in (
        ({"budget_usd": None}, "no budget"),
        ({"budget_usd": 0.2}, "minutes to train"),
        ({"gpu": None}, "which GPU"),
    ):
        with pytest.raises(UsageError, match=word):
            dry(workspace, sky, Job.from_json(job.as_json() | changes))
    settings = load_settings(None, workspace.root, [f"cloud.skypilot={sky / 'sky'}"]).settings
    provider = Skypilot(settings, workspace)
    traced = {"weights": 10**9, "buffers": 0, "learning": 10**9, "live": 2 * 10**10, "judged": 10**9, "heap": 0}
    with monkeypatch.context() as patched:
        patched.setattr(fit.TraceCache, "__call__", lambda *arguments: traced)
        with pytest.raises(UsageError, match="does not fit into a RTX 4090: needs 2"):
            order(workspace, settings, job, provider)
    assert not Ledger(workspace).names()
    Ledger(workspace).create(checked(settings, job, provider, 0.0))
    with pytest.raises(Busy, match="cloud down box"):
        dry(workspace, sky, job)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OwnServer]:
    if why := missing():
        pytest.skip(why)
    with Rented(tmp_path / "host") as host:
        yield OwnServer(host, tmp_path / "code")


def own(workspace: Workspace, server: OwnServer, job: Job, **more: Any) -> Rehearsal:
    settings = load_settings(None, workspace.root).settings
    server.settings |= more
    return rehearse(workspace, settings, job, server.provider)


def test_a_server_is_asked_and_left_as_it_is(workspace: Workspace, server: OwnServer, job: Job) -> None:
    job = Job("box", ("train", "training.epochs=1"), server.code, job.data)
    before = files(server.host.home)
    done = own(workspace, server, job)
    assert files(server.host.home) == before
    assert not files(workspace.root / "cloud")
    assert verdicts(done)["host"] is verdicts(done)["python"] is verdicts(done)["budget"] is True
    assert [(upload.place, upload.files) for upload in done.uploads] == [("code", 3), ("data/photos", 2)]
    assert "answers, with" in _rehearsed_text(done.as_json())
    assert verdicts(own(workspace, server, job, data="/nowhere/photos"))["data"] is False
    lacking = own(workspace, server, job, data=sys.executable, python="/nowhere/python")
    assert (verdicts(lacking)["data"], verdicts(lacking)["python"]) == (True, False)
    assert isinstance(lacking.problem(), UsageError)
    server.host.power_off()
    gone = own(workspace, server, job)
    assert isinstance(gone.problem(), Failed)
    assert gone.uploads
