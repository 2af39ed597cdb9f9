"""Environments: which one counts, where in the order of layers, and who carries it on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from console.options import parse
from engine.cli.cron import _command
from engine.cli.service import Launchd, Systemd
from engine.cli.sweep import _options
from engine.cli.verb import Session
from engine.config import load_settings
from engine.errors import UsageError
from engine.serving.service import _Family
from engine.store.workspace import Workspace
from tests.conftest import PROJECT

CONFIG = """
[training]
epochs = 7
seed = 4
[console]
theme = "paper"
[environments.lab]
workspace = "lab"
data.root = "photos"
defaults.data = "baseline_aug"
training.epochs = 9
console.language = "ko"
logging.format = "json"
[environments.office]
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "place" / "c.toml"
    path.parent.mkdir()
    path.write_text(CONFIG)
    return path


def test_an_environment_lies_between_the_file_and_the_command_line(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = load_settings(file)
    assert (plain.environment, plain.environments) == ("", ("lab", "office"))
    assert plain.settings.training.epochs == 7
    found = load_settings(file, overrides=["training.seed=5"], environment="lab")
    settings, origins = found.settings, found.origins
    assert (settings.training.epochs, settings.training.seed) == (9, 5)
    assert (settings.defaults.data, settings.data.img_size) == ("baseline_aug", 768)
    assert settings.data.root == file.parent / "photos"
    assert settings.workspace == file.parent / "lab"
    assert origins["training.epochs"] == origins["defaults.data"] == f"{file} [environments.lab]"
    assert (origins["training.seed"], origins["data.img_size"]) == ("command line", "group data=baseline_aug")
    assert load_settings(file, overrides=["data=digits"], environment="lab").settings.defaults.data == "digits"

    monkeypatch.setenv("UNDERSTUDY_ENVIRONMENT", "lab")
    assert load_settings(file).settings.training.epochs == 9
    assert load_settings(file, environment="office").settings.training.epochs == 7
    monkeypatch.setenv("UNDERSTUDY_WORKSPACE", str(file.parent / "other"))
    monkeypatch.setenv("UNDERSTUDY_LOG_FORMAT", "text")
    found = load_settings(file)
    assert (found.settings.workspace, found.settings.logging.format) == (file.parent / "other", "text")
    assert load_settings(file, overrides=["logging.format=json"]).settings.logging.format == "json"
    monkeypatch.setenv("UNDERSTUDY_LOG_FORMAT", "xml")
    with pytest.raises(UsageError, match=r"logging\.format.*from environment"):
        load_settings(file)


@pytest.mark.parametrize(
    ("content", "name", "said"),
    [
        (CONFIG, "lba", "unknown environment 'lba': did you mean 'lab'?"),
        ("", "lab", "this config has none"),
        (CONFIG, "", "empty value"),
        ("[environments.lab]\ntraining.epoch = 3\n", None, "'training.epoch' in [environments.lab]: did you mean"),
        ("[environments.lab]\ngroups.data.x.kind = 'folder'\n", None, "unknown setting 'groups.data.x.kind'"),
        ("[environments.lab]\ntraining = 3\n", None, "section"),
        ("[environments.lab]\ndefaults = 3\n", "lab", "section"),
        ("[environments]\nlab = 3\n", None, "must be tables"),
        ("environments = 3\n", None, "must be tables"),
        ("[environments.lab]\ntraining.epochs = 'many'\n", "lab", "[environments.lab])"),
    ],
)
def test_a_wrong_environment_is_refused_in_words(file: Path, content: str, name: str | None, said: str) -> None:
    file.write_text(content)
    with pytest.raises(UsageError) as caught:
        load_settings(file, environment=name)
    assert said in str(caught.value)


def test_the_engine_takes_it_anywhere_and_config_show_says_what_it_did(engine: Callable, file: Path) -> None:
    before = engine("--environment", "lab", "--config", str(file), "config", "show", "--json").json
    after = engine("config", "--config", str(file), "--json", env={"UNDERSTUDY_ENVIRONMENT": "lab"}).json
    assert before["settings"]["training.epochs"] == after["settings"]["training.epochs"]
    assert after["settings"]["training.epochs"] == {"value": 9, "from": f"{file} [environments.lab]"}
    assert (after["environment"], after["environments"]) == ("lab", ["lab", "office"])
    wrong = engine("status", "--environment", "lba", "--config", str(file), "--json")
    assert (wrong.code, wrong.json["error"]["kind"]) == (2, "unknown_environment")


def test_every_child_carries_it_on(file: Path, workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNDERSTUDY_ENVIRONMENT", "lab")
    session = Session(config=str(file), overrides=[f"workspace={workspace.root}"])
    carried = f"--config {file} --environment lab"
    assert carried in " ".join(session.engine_command("sync"))
    assert carried in " ".join(_options(session))
    assert carried in _command(session)
    assert all(carried in unit.text for unit in Systemd(session, file.parent).units() if unit.command)
    assert all("--environment" in unit.command for unit in Launchd(session, file.parent).units())

    family = _Family(workspace, session.settings, lambda state: None)
    assert "logging.format=json" in family._command("asis"), "a slot is told its settings"
    assert "UNDERSTUDY_ENVIRONMENT" not in family._environment(), "and reads no file that may not know the name"


def test_the_console_takes_it_too(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = parse(["--config", str(file), "--environment", "lab"])
    assert (options.theme, options.language) == ("paper", "ko")
    assert options.engine("watch")[-5:] == ["--config", str(file), "--environment", "lab", "watch"]
    assert parse(["--config", str(file), "--environment", "lab", "console.language=en"]).language == "en"
    assert "--environment" not in parse(["--config", str(file)]).engine("watch")
    with pytest.raises(UsageError, match="did you mean 'lab'"):
        parse(["--config", str(file), "--environment", "lba"])
    monkeypatch.setenv("UNDERSTUDY_ENVIRONMENT", "lab")
    assert parse(["--config", str(file)]).engine("watch")[-2:] == ["lab", "watch"]


@pytest.mark.parametrize("name", ["local", "gpu", "aws", "azure", "runpod"])
def test_the_projects_file_has_the_documents_environments(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = load_settings(PROJECT / "config.toml", environment=name)
    assert found.environment == name
    assert (found.settings.logging.format == "json") == (name in ("aws", "azure", "runpod"))
