"""Secrets: where they are found, what their references may cost, and that nothing says them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from engine.config import Settings, load_settings, mask, reference, references, secret, secrets, whence
from engine.errors import Failed, UnderstudyError, UsageError
from engine.notify.channels import configured
from engine.training.trackers.choose import trackers
from tests.conftest import until

URL = "https://discord.example/api/webhooks/1/abcdefghij"
NAME = "DISCORD_WEBHOOK_URL"


@pytest.fixture(autouse=True)
def _afresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    secrets._dotenv.cache_clear()
    references.forget()
    yield
    secrets._dotenv.cache_clear()
    references.forget()
    secrets.refer({})


def private(path: Path, text: str) -> Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def test_references_lead_to_variables_files_and_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOMEWHERE_ELSE", URL)
    file = private(tmp_path / "hook", f"{URL}\n")
    for text in ("env:SOMEWHERE_ELSE", f"file:{file}", f"cmd:cat {file} | tr a a", f"cmd:printf {URL}"):
        monkeypatch.setenv(NAME, text)
        assert secret(NAME) == URL, text
        assert mask(f"to {URL}!") == "to ****!"
        assert mask("the token abcdefghij") == "the token ****"
    monkeypatch.setenv("SOMEWHERE_ELSE", "cmd:not run")
    monkeypatch.setenv(NAME, "env:SOMEWHERE_ELSE")
    assert secret(NAME) == "cmd:not run", "one level, so that a secret may look like a reference"


def test_the_environment_wins_over_dotenv_and_that_over_the_config(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook = private(tmp_path / "hook", "of the config")
    config = tmp_path / "c.toml"
    config.write_text(
        f"[secrets]\n{NAME} = 'file:{hook}'\n[environments.there.secrets]\n{NAME} = 'cmd:echo there'\n"
    )
    load_settings(config)
    assert (secret(NAME), whence(NAME)) == ("of the config", f"config, file:{hook}")
    load_settings(config, environment="there")
    assert (secret(NAME), whence(NAME)) == ("there", "config, cmd:echo …")
    private(tmp_path / ".env", f"{NAME}='cmd:echo dot'\n")
    secrets._dotenv.cache_clear()
    assert (secret(NAME), whence(NAME)) == ("dot", f"{tmp_path / '.env'}, cmd:echo …")
    monkeypatch.setenv(NAME, "at once")
    assert (secret(NAME), whence(NAME), reference(NAME)) == ("at once", "environment", "")
    monkeypatch.setenv(NAME, "")
    assert (secret(NAME), whence(NAME)) == (None, ""), "there but empty: switched off"
    monkeypatch.setenv(NAME, f"file:{private(hook, '')}")
    references.forget()
    assert secret(NAME) is None


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("cmd:echo topsecret; echo topsecret >&2; exit 3", Failed, "cmd:echo … ended with 3"),
        ("cmd:TOKEN=topsecret false", Failed, "cmd:TOKEN … ended with 1"),
        ("cmd:true", Failed, "gave nothing"),
        ("cmd:head -c 70000 /dev/zero", Failed, "more than 65536 bytes"),
        ("cmd:printf '\\377'", Failed, "no text"),
        ("cmd:", UsageError, "is empty"),
        ("env:NOT_SET_ANYWHERE", Failed, "NOT_SET_ANYWHERE is not set"),
        ("file:/no/such/file", Failed, "No such file"),
        ("file:relative", UsageError, "relative path"),
    ],
)
def test_a_secret_that_cannot_be_had_is_said_without_a_word_of_it(
    text: str,
    error: type[UnderstudyError],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv(NAME, text)
    with pytest.raises(error) as caught:
        secret(NAME)
    assert said in str(caught.value)
    assert "topsecret" not in str(caught.value) + "".join(capfd.readouterr())
    (channel,) = configured(Settings())
    assert (channel.name, said in str(channel.problem)) == ("discord", True), "a channel with a problem, no crash"


def test_a_command_that_hangs_is_ended_with_all_it_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(references, "DEADLINE_S", 2.0)
    started = tmp_path / "pid"
    for text in (
        f"cmd:sleep 100 & echo $! > {started}; wait",
        f"cmd:exec >&-; sleep 100 & echo $! > {started}; wait",
    ):
        monkeypatch.setenv(NAME, text)
        with pytest.raises(Failed, match="gave no answer"):
            secret(NAME)
        pid = int(started.read_text())
        until(lambda pid=pid: _gone(pid), "the end of all of it")  # type: ignore[misc]


def _gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_command_runs_once_and_never_to_mask(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs = tmp_path / "runs"
    monkeypatch.setenv(NAME, f"cmd:echo x >> {runs}; echo {URL}")
    assert mask("words") == "words"
    assert not runs.exists()
    assert secret(NAME) == secret(NAME) == URL
    assert runs.read_text() == "x\n"
    monkeypatch.setattr(references, "KEPT_S", 0.0)
    assert secret(NAME) == URL
    assert runs.read_text() == "x\nx\n", "one that was exchanged is found"


def test_a_file_that_everybody_can_read_is_warned_of_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "hook"
    file.write_text(URL)
    file.chmod(0o644)
    monkeypatch.setenv(NAME, f"file:{file}")
    monkeypatch.setattr(references, "KEPT_S", 0.0)
    with caplog.at_level(logging.WARNING, "understudy.config"):
        assert secret(NAME) == secret(NAME) == URL
    assert len(caplog.messages) == 1
    assert f"chmod 600 {file}" in caplog.text
    assert URL not in caplog.text
    monkeypatch.setattr(references, "_OF_THIS_CONTAINER", tmp_path)
    assert not references.readable_by_all(file), "what is mounted for one container is its own"


def test_no_secret_stands_in_a_config(tmp_path: Path) -> None:
    for text, said in (
        (f"[secrets]\n{NAME} = '{URL}'\n", "must be a reference"),
        ("[secrets]\nDISCORD_WEBHOOK = 'env:X'\n", f"did you mean '{NAME}'"),
        (f"[secrets]\n{NAME} = 'file:x'\n", "relative path"),
    ):
        (tmp_path / "c.toml").write_text(text)
        with pytest.raises(UsageError) as caught:
            load_settings(tmp_path / "c.toml")
        assert said in str(caught.value)
        assert "abcdefghij" not in str(caught.value)


def test_config_show_and_doctor_say_where_and_never_what(engine: Callable, tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("verysecretkey")
    file.chmod(0o644)
    env = {
        "RUNPOD_API_KEY": "cmd:echo verysecretkey",
        "WEBHOOK_SECRET": f"file:{file}",
        "WANDB_API_KEY": "env:NOT_SET_ANYWHERE",
        "AWS_SECRET_ACCESS_KEY": "verysecretkey",
    }
    words = ["config", "show", "trackers.mlflow_uri=https://me:verysecretkey@mlflow.example"]
    shown = engine(*words, "--json", env=env)
    assert shown.json["secrets"]["RUNPOD_API_KEY"] == "****"
    assert shown.json["secrets_from"]["RUNPOD_API_KEY"] == "environment, cmd:echo …"
    assert shown.json["settings"]["trackers.mlflow_uri"]["value"] == "https://me:****@mlflow.example"
    assert f"environment, file:{file}" in engine(*words, env=env).out
    checked = engine("doctor", "--json", env=env)
    checks = {check["name"]: check for check in checked.json["checks"]}
    assert checks["RUNPOD_API_KEY"]["ok"]
    assert checks["WEBHOOK_SECRET"]["fix"] == f"chmod 600 {file}"
    assert "NOT_SET_ANYWHERE is not set" in checks["WANDB_API_KEY"]["detail"]
    assert "verysecretkey" not in shown.out + shown.err + checked.out + checked.err


def test_a_tracker_whose_key_cannot_be_had_costs_no_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from engine.store.workspace import Workspace
    from engine.training.runs import claim_run

    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_API_KEY", "cmd:false")
    workspace = Workspace(tmp_path / "workspace")
    settings = load_settings(None, workspace.root, ["training.trackers=wandb"]).settings
    said: list[str] = []
    assert list(trackers(workspace, settings, claim_run(workspace), said.append)) == []
    assert "goes on without it" in said[0]
