"""The command line's frame: options anywhere, one JSON object, exit codes, nearest words, no traceback."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from engine.cli.main import VERBS, build, main
from tests.conftest import Result


def test_help_names_every_verb_and_every_verb_loads() -> None:
    group = build()
    for name in VERBS:
        command = group.get_command(None, name)  # type: ignore[arg-type]
        assert command is not None
        assert command.name == name
        assert command.help, f"{name} has no help"


def test_options_and_overrides_stand_before_or_after_the_verb(
    engine: Callable, capsys: pytest.CaptureFixture[str]
) -> None:
    before = engine("--json", "training.epochs=3", "config", "show").json
    after = engine("config", "training.epochs=3", "--json").json
    assert before["settings"]["training.epochs"] == after["settings"]["training.epochs"]
    assert after["settings"]["training.epochs"] == {"value": 3, "from": "command line"}


@pytest.mark.parametrize(
    ("words", "key", "value"),
    [
        (("--device", "cuda", "config", "device.prefer=cpu"), "device.prefer", "cpu"),
        (("config", "device.prefer=cpu", "--device", "cuda"), "device.prefer", "cuda"),
        (("--device=cuda", "device.prefer=cpu", "config"), "device.prefer", "cpu"),
        (("workspace=/tmp/one", "config", "--workspace", "/tmp/two"), "workspace", "/tmp/two"),
        (("--workspace", "/tmp/one", "config", "workspace=/tmp/two"), "workspace", "/tmp/two"),
    ],
)
def test_of_two_settings_of_one_key_the_later_wins(
    words: tuple[str, ...], key: str, value: str, engine: Callable
) -> None:
    assert engine(*words, "--json").json["settings"][key] == {"value": value, "from": "command line"}


def test_a_workspace_that_is_a_file_or_cannot_be_made_is_no_defect(engine: Callable, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    wrong = engine("status", "--workspace", str(tmp_path / "file"), "--json")
    assert (wrong.code, wrong.json["error"]["kind"]) == (2, "usage")
    below = engine("hold", "--workspace", "/proc/none", "--json")
    assert (below.code, below.json["error"]["kind"]) == (1, "os")
    assert "/proc/none" in below.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stauts"], "did you mean 'status'?"),
        (["events", "--lsat", "3"], "--last"),
        (["events", "surplus"], "unexpected argument"),
        (["events", "epochs=3"], "unknown setting 'epochs': did you mean 'training.epochs'?"),
        (["config", "shwo"], "did you mean 'show'?"),
        (["--config", "/nowhere/c.toml", "events"], "no config file"),
        (["events", "--last", "many"], "many"),
        (["events", "--workspace"], "requires an argument"),
        (["events", "--workspace", ""], "empty value"),
        (["events", "dat=x"], "did you mean 'data'?"),
        ([], ""),
    ],
)
def test_wrong_usage_is_exit_2_with_the_fix(words: list[str], said: str, engine: Callable) -> None:
    result = engine(*words)
    assert result.code == 2
    assert "Traceback" not in result.err
    assert said in result.err


def test_errors_are_one_json_object_on_standard_output(engine: Callable) -> None:
    result = engine("stauts", "--json")
    assert result.code == 2
    assert result.json["error"] == {
        "kind": "unknown_verb",
        "message": "unknown verb 'stauts'",
        "hint": "did you mean 'status'?",
    }
    assert result.err.strip().splitlines()[-1].startswith("error: unknown verb")


def test_a_defect_is_one_sentence_without_a_traceback(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("an accident")

    monkeypatch.setattr("engine.cli.events.read_events", broken)
    assert main(["events", "--json"]) == 1
    captured = capsys.readouterr()
    assert json.loads(captured.out)["error"]["kind"] == "defect"
    assert "Traceback" not in captured.err
    assert main(["events", "--debug"]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_secrets_are_masked_in_config_show_and_in_errors(engine: Callable) -> None:
    secret = "https://discord.example/api/webhooks/1/very-secret"
    shown = engine("config", "show", env={"DISCORD_WEBHOOK_URL": secret})
    assert shown.code == 0
    assert secret not in shown.out + shown.err
    assert "****" in shown.out
    typo = engine(f"{secret}", env={"DISCORD_WEBHOOK_URL": secret})
    assert secret not in typo.out + typo.err


def test_the_secret_part_of_a_secret_is_masked_too(engine: Callable) -> None:
    env = {
        "DISCORD_WEBHOOK_URL": "http://127.0.0.1:9/api/webhooks/123/c0ffee-c0ffee",
        "TELEGRAM_BOT_TOKEN": "99:AAbbCCddEE",
    }
    engine("hold", "--reason", "c0ffee-c0ffee and AAbbCCddEE", env=env)
    shown = engine("events", "--json").json["events"][-1]
    assert shown["detail"]["reason"] == "**** and ****"


def test_a_dotenv_beside_the_config_is_read(engine: Callable, config: Path) -> None:
    (config.parent / ".env").write_text("UNDERSTUDY_ADMIN_TOKEN=a-very-quiet-word\n")
    assert engine("config", "--json").json["secrets"]["UNDERSTUDY_ADMIN_TOKEN"] == "****"


def test_bench_names_what_there_is(engine: Callable[..., Result]) -> None:
    assert "training" in engine("bench", "--help").out.partition("NAME is one of")[2]
