"""The command line's frame: options anywhere, one JSON object, exit codes, nearest words, no traceback."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from engine.cli.main import VERBS, build, main


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
    later = engine("--device", "cuda", "config", "device.prefer=cpu", "--json").json
    assert later["settings"]["device.prefer"]["value"] == "cpu"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["stauts"], "did you mean 'status'?"),
        (["events", "--lsat", "3"], "--last"),
        (["events", "surplus"], "unexpected argument"),
        (["events", "epochs=3"], "unknown setting 'epochs'"),
        (["config", "shwo"], "did you mean 'show'?"),
        (["--config", "/nowhere/c.toml", "events"], "no config file"),
        (["events", "--last", "many"], "many"),
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
