"""SkyPilot at its command line: the task that it is given, what it says, and what is made of that."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import cloud_budget
from engine.cloud.job import training_job
from engine.cloud.prices import find_gpu, price_table
from engine.cloud.provider import Job, Outcome
from engine.cloud.sky import Skypilot, _first_json, refresh_prices
from engine.cloud.sky_look import read_look
from engine.cloud.sky_task import AUTODOWN_SLACK_S, accelerator, job_ends_at, task_yaml
from engine.config import load_settings
from engine.errors import Failed, UsageError
from engine.store.workspace import Workspace

NOW = 1_800_000_000.0
SKY = os.environ.get("UNDERSTUDY_SKY") or shutil.which("sky")


@pytest.fixture
def job(tmp_path: Path) -> Job:
    photos = tmp_path / "photos's"
    photos.mkdir()
    words = ("train", "training.epochs=5", "data.mean=[0.5, 0.5, 0.5]", "data.root=data/photos's")
    return Job("box", words, tmp_path, ((photos, "data/photos"),), stop_at=NOW + 7200, gpu="RTX 4090", spot=True,
               max_hourly_usd=0.5, budget_usd=1.0)  # fmt: skip


def test_the_task_always_ends_the_machine_by_itself(job: Job, tmp_path: Path) -> None:
    task = task_yaml(job, None, "runpod", NOW)
    ends = job_ends_at(job)
    assert ends == NOW + 7200 - job.idle_minutes * 60 - AUTODOWN_SLACK_S
    assert f'UNDERSTUDY_ENDS_AT: "{ends:.0f}"' in task
    assert re.search(r"autostop:.*\n +idle_minutes: 10\n +down: true\n +wait_for: jobs\b", task)
    assert len(re.findall(r"^  timeout --signal=TERM --kill-after=60 ", task, re.M)) == 2
    assert "file_mounts" not in task_yaml(replace(job, data=()), None, None, NOW)
    assert f'"~/understudy/workspace/runs": "{tmp_path}"' in task_yaml(job, tmp_path, None, NOW)


def test_a_budget_that_leaves_no_time_is_refused(job: Job) -> None:
    with pytest.raises(UsageError, match="minutes to train"):
        task_yaml(replace(job, stop_at=NOW + 900), None, None, NOW)
    with pytest.raises(UsageError, match="no place"):
        task_yaml(replace(job, data=((Path("/x"), "../x"),)), None, None, NOW)


@pytest.mark.parametrize(("left", "said"), [("1000", "trained"), ("-5", "the budget's time is out"), ("0.5", "")])
def test_the_task_runs_as_bash_runs_it(job: Job, tmp_path: Path, left: str, said: str) -> None:
    """Its `run`, with a stand-in for the engine: in time, too late, and cut off by `timeout`."""
    python = tmp_path / "understudy" / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        f'#!/bin/sh\n{"sleep 60" if left == "0.5" else ""}\nprintf "%s|" "$@" > {tmp_path}/words\necho trained\n'
    )
    python.chmod(0o755)
    script = task_yaml(job, None, None, NOW).partition("run: |\n")[2].replace("left=$(( UNDERSTUDY_ENDS_AT - $(date +%s) ))", f"left={left.replace('0.5', '1')}")  # fmt: skip
    environment = {**os.environ, "HOME": str(tmp_path), "UNDERSTUDY_ENDS_AT": "1"}
    done = subprocess.run(
        ["bash", "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout.strip() == said
    assert done.returncode == (124 if left == "0.5" else 0)
    if said == "trained":
        words = (tmp_path / "words").read_text().split("|")
        assert words[:4] == ["-m", "engine", "--workspace", f"{tmp_path}/understudy/workspace"]
        assert tuple(words[4:-1]) == job.words


@pytest.mark.parametrize(("old", "made"), [(0, "python3: -m venv"), (1, "uv: venv --seed --python 3.12")])
def test_the_set_up_has_a_python_that_is_new_enough(job: Job, tmp_path: Path, old: int, made: str) -> None:
    """Its `setup`, with stand-ins for the machine's `python3` and `uv`; the former says whether it is too old."""
    places = tmp_path / "bin", tmp_path / ".local" / "bin"
    lines = f'[ "$1" = -c ] && exit {old}\n', ""
    for folder, name, first in zip(places, ("python3", "uv"), lines, strict=True):
        folder.mkdir(parents=True)
        (folder / name).write_text(
            f"""#!/bin/sh
{first}echo "{name}: $*"
for place; do :; done
mkdir -p "$place/bin" && printf '#!/bin/sh\necho "pip: $*"\n' | tee "$place/bin/pip" > "$place/bin/python"
chmod +x "$place"/bin/*
"""
        )
        (folder / name).chmod(0o755)
    script = (
        task_yaml(replace(job, stop_at=None), None, None, NOW).partition("setup: |\n")[2].partition("\nrun: |")[0]
    )
    environment = {
        **os.environ,
        "HOME": str(tmp_path),
        "PATH": f"{places[0]}:{os.environ['PATH']}",
        "UNDERSTUDY_ENDS_AT": "0",
    }
    for expected in ([f"{made} {tmp_path}/understudy/venv"], []):  # the second time it is there
        done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines() == [*expected, "pip: install --quiet --editable .[zoo,go]"]


def test_names_that_yaml_would_take_for_something_else_stay_names(job: Job) -> None:
    task = task_yaml(replace(job, name="no", data=((Path("/x"), "data/cats: all #1"),)), None, None, NOW)
    assert task.startswith('name: "no"\n')
    assert '\n  "~/understudy/data/cats: all #1": "/x"\n' in task


def test_names_of_gpus_are_skypilots() -> None:
    assert [accelerator(name) for name in ("RTX 4090", "A100-40GB:8", "A100-80GB", "T4")] == [
        "RTX4090:1", "A100:8", "A100-80GB:1", "T4:1",
    ]  # fmt: skip


def test_the_job_is_the_same_training_without_what_belongs_to_this_host(
    workspace: Workspace, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    words = ["data=folder", f"data.root={photos}", "model=resnet34", "training.epochs=3", "training.num_workers=7"]
    job = training_job(load_settings(None, workspace.root, words), "box", gpu="T4")
    assert {"train", "model.name=resnet34", "training.epochs=3", "data.kind=folder", "data.root=data/photos"} <= {
        *job.words
    }
    assert not [word for word in job.words if "num_workers" in word or str(tmp_path) in word]
    assert job.data == ((photos, "data/photos"),)
    again = load_settings(
        None, workspace.root, [word for word in job.words[1:] if not word.startswith("data.root")]
    )
    assert again.settings.model.name == "resnet34"
    with pytest.raises(UsageError, match="no data"):
        training_job(load_settings(None, workspace.root, ["data=folder", "data.root=/nowhere"]), "box")


def test_json_is_found_among_whatever_else_is_said() -> None:
    assert _first_json('Fetching job queue\n[not json\n{\n  "box": []\n}\n') == {"box": []}
    assert _first_json("[]") == []
    assert _first_json("Traceback: 502") is None


def test_a_look_reads_gpus_progress_and_the_machines_own_clock() -> None:
    progress = json.dumps({"epoch": 3, "updated_at": "2027-01-15T08:00:00+00:00"})
    said = f"12, 9000, 24564\n93, 100, 24564\n--understudy--\n{int(NOW)}\n0001\n{progress}"
    seen = read_look(("running", None), Outcome(0, said, ""), 0.36)
    assert (seen.state, seen.job, seen.gpu_use, seen.run) == ("running", "running", 0.93, "0001")
    assert seen.gpu_memory_used_bytes == 9100 * 2**20
    assert seen.active_at == NOW
    assert seen.progress["epoch"] == 3
    idle = read_look(("done", NOW - 500), Outcome(0, f"0, 1, 24564\n--understudy--\n{int(NOW)}\n", ""), None)
    assert (idle.active_at, idle.run) == (NOW - 500, None)
    assert "SSH" in read_look(("running", None), Outcome(255, "", "no route"), None).reason


def test_without_the_command_the_hint_says_how_to_get_it(workspace: Workspace, job: Job) -> None:
    settings = load_settings(None, workspace.root, ["cloud.skypilot=/nowhere/sky"]).settings
    with pytest.raises(UsageError, match="pip install"):
        Skypilot(settings, workspace).ready()


def test_todays_prices_are_asked_for_as_skypilot_wants_it(workspace: Workspace, tmp_path: Path) -> None:
    with cloud_budget.fake_cloud(tmp_path, cloud_budget.Case("prices")) as place:
        settings = load_settings(None, workspace.root, [f"cloud.skypilot={place / 'sky'}"]).settings
        assert refresh_prices(settings, workspace) == 1
    newest = find_gpu(price_table(settings, workspace.state), "T4")[0]
    assert (newest.hourly_usd, newest.spot_usd, newest.source, newest.age_days()) == (0.526, None, "skypilot", 0)


def test_a_gpu_that_cannot_be_asked_for_is_refused_in_words(workspace: Workspace, job: Job) -> None:
    provider = Skypilot(load_settings(None, workspace.root, ["cloud.infra=gcp"]).settings, workspace)
    for gpu in ("A100-40GB:x8", "T4:0", ":8", "T4:2:2"):
        with pytest.raises(UsageError, match="how many"):
            provider.check(replace(job, gpu=gpu))
    with pytest.raises(UsageError, match=r"no price for a GPU 'T4' of gcp: .*--max-hourly"):
        provider.check(replace(job, gpu="T4", max_hourly_usd=None))


def test_an_answer_that_is_no_list_is_unknown_not_gone(workspace: Workspace, job: Job, tmp_path: Path) -> None:
    fake = tmp_path / "sky"
    fake.write_text("#!/bin/sh\necho '<html>502</html>'\n")
    fake.chmod(0o755)
    provider = Skypilot(load_settings(None, workspace.root, [f"cloud.skypilot={fake}"]).settings, workspace)
    assert provider.status(provider.expected(job)).state == "unknown"
    with pytest.raises(Failed, match="JSON"):
        provider._record("box")


@pytest.mark.skipif(SKY is None, reason="no SkyPilot here: set UNDERSTUDY_SKY to its `sky` command")
def test_skypilots_own_parser_takes_the_task(job: Job, tmp_path: Path) -> None:
    path = tmp_path / "task.yaml"
    path.write_text(task_yaml(job, None, "runpod", NOW))
    asked = (
        "import json, sky, sys; task = sky.Task.from_yaml(sys.argv[1]); one = next(iter(task.resources));"
        " print(json.dumps([str(one.cloud), one.accelerators, one.use_spot, one.max_hourly_cost,"
        " one.autostop_config.to_yaml_config(), task.envs]))"
    )
    environment = {**os.environ, "HOME": str(tmp_path), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
    python = Path(str(SKY)).resolve().with_name("python")
    done = subprocess.run(
        [python, "-c", asked, path], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    cloud, gpus, spot, most, autostop, envs = json.loads(done.stdout.splitlines()[-1])
    assert (cloud, gpus, spot, most) == ("RunPod", {"RTX4090": 1}, True, 0.5)
    assert autostop == {"idle_minutes": 10, "down": True, "wait_for": "jobs"}
    assert int(envs["UNDERSTUDY_ENDS_AT"]) < NOW + 7200
