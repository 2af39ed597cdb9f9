"""`cron` against a crontab that is a file: the real one is never touched."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.cli.cron import cron_schedule
from engine.errors import UsageError
from engine.store.workspace import Workspace
from tests.conftest import PROJECT, Result

OTHERS = "# my own notes\nMAILTO=me\n5 4 * * * /usr/bin/backup --weekly\n*/30 * * * * echo sync # another\n"


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `crontab` on PATH that keeps its table in a file."""
    folder, table = tmp_path / "bin", tmp_path / "table"
    folder.mkdir()
    script = folder / "crontab"
    script.write_text(
        "#!/bin/sh\n"
        'for last; do :; done\n'
        f'if [ "$1" = -l ]; then cat "{table}" 2>/dev/null || {{ echo "no crontab for $USER" >&2; exit 1; }}\n'
        f'elif [ "$last" = - ]; then cat > "{table}"\n'
        f'else cp "$last" "{table}"; fi\n'
    )  # fmt: skip
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return table


def test_install_show_and_remove(
    engine: Callable[..., Result], workspace: Workspace, config: Path, table: Path
) -> None:
    table.write_text(OTHERS)
    shown = engine("cron", "show", "--json").json
    assert shown["installed"] is False
    assert shown["line"].startswith(f"*/30 * * * * cd {PROJECT} && ")
    assert f"-m engine --config {config} --workspace {workspace.root} sync --json" in shown["line"]
    assert f">> {workspace.root}/logs/sync.log 2>&1" in shown["line"]
    assert table.read_text() == OTHERS

    for _ in range(2):
        done = engine("cron", "install", "--json")
        assert (done.code, done.json["installed"]) == (0, True), done.err
        assert (done.json["line"], done.json["notes"]) == (shown["line"], [])
    hook = {"DISCORD_WEBHOOK_URL": "http://127.0.0.1:9/hook"}
    (note,) = engine("cron", "install", "--json", env=hook).json["notes"]
    assert f"DISCORD_WEBHOOK_URL: put them into {config.parent}/.env" in note
    (config.parent / ".env").write_text("DISCORD_WEBHOOK_URL=http://127.0.0.1:9/hook")
    assert engine("cron", "install", "--json").json["notes"] == []
    lines = table.read_text().splitlines()
    assert lines.count(shown["line"]) == 1
    assert table.read_text() == OTHERS + shown["line"] + "\n"
    assert (workspace.root / "logs").is_dir()
    assert engine("cron", "--json").json["installed"] is True

    removed = engine("cron", "remove", "--json", "source.poll_minutes=7").json
    assert (removed["installed"], removed["line"]) == (False, shown["line"])
    assert table.read_text() == OTHERS
    assert engine("cron", "remove", "--json").code == 0


def test_another_interval_replaces_the_line(engine: Callable[..., Result], table: Path) -> None:
    engine("cron", "install")
    changed = engine("cron", "install", "--json", "source.poll_minutes=60")
    assert changed.json["line"].startswith("0 * * * * cd ")
    assert len(table.read_text().strip().splitlines()) == 1


def test_each_workspace_has_its_line(engine: Callable[..., Result], table: Path, tmp_path: Path) -> None:
    engine("cron", "install")
    engine("cron", "install", "--workspace", str(tmp_path / "100% other"))
    lines = table.read_text().strip().splitlines()
    assert len(lines) == 2
    assert "100\\% other" in lines[1].partition(" # ")[0]
    assert engine("cron", "show", "--json", "--workspace", str(tmp_path / "100% other")).json["installed"] is True
    engine("cron", "remove")
    assert [line for line in table.read_text().splitlines() if line] == lines[1:]


def test_the_line_runs_as_cron_would_run_it(
    engine: Callable[..., Result], workspace: Workspace, table: Path, tmp_path: Path
) -> None:
    line = engine("cron", "install", "--json").json["line"]
    command = line.split(maxsplit=5)[5].replace("\\%", "%")
    done = subprocess.run(["/bin/sh", "-c", command], env={"HOME": str(tmp_path), "PATH": "/bin"}, check=False)
    assert done.returncode == 0
    assert '"changed": false' in (workspace.logs / "sync.log").read_text()


def test_relative_paths_of_the_line_mean_the_folder_where_it_was_made(
    engine: Callable[..., Result], table: Path
) -> None:
    line = engine("cron", "show", "--json", "source.root=photos", "source.model=litecnn").json["line"]
    assert f" sync --json source.root={Path.cwd()}/photos source.model=litecnn >> " in line
    remote = engine("cron", "--json", "source.kind=ssh", "source.host=box", "source.root=mycnn").json["line"]
    assert " source.root=mycnn " in remote


def test_a_host_without_cron_is_told(
    engine: Callable[..., Result], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    done = engine("cron", "install", "--json")
    assert (done.code, done.json["error"]["kind"]) == (1, "no_cron")
    assert "install cron" in done.err
    assert engine("cron", "show", "--json").json["installed"] is False


def test_a_wrong_action_is_usage(engine: Callable[..., Result], table: Path) -> None:
    done = engine("cron", "instal")
    assert (done.code, "install" in done.err) == (2, True)


@pytest.mark.parametrize(
    ("minutes", "fields"),
    [
        (1, "* * * * *"),
        (5, "*/5 * * * *"),
        (30, "*/30 * * * *"),
        (60, "0 * * * *"),
        (120, "0 */2 * * *"),
        (1440, "0 0 * * *"),
    ],
)
def test_intervals(minutes: float, fields: str) -> None:
    assert cron_schedule(minutes) == fields


@pytest.mark.parametrize("minutes", [7, 45, 90, 0.5, 300, 2880])
def test_intervals_that_cron_cannot_say(minutes: float) -> None:
    with pytest.raises(UsageError, match="evenly"):
        cron_schedule(minutes)
