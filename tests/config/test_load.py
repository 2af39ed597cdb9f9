"""Settings: layers, groups, overrides, and errors that name the nearest right word."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import pytest
import tomli

from engine.config import known_keys, load_settings
from engine.errors import UsageError

PROJECT = Path(__file__).resolve().parents[2]


def test_layers_win_in_order(tmp_path: Path) -> None:
    file = tmp_path / "c.toml"
    file.write_text(
        "[defaults]\ndata='baseline_aug'\n[groups.data.baseline_aug]\nimg_size=700\n[training]\nepochs=7\nseed=4\n"
    )
    loaded = load_settings(file, overrides=["training.epochs=9", "data.val_fraction=0.5", "training.epochs=11"])
    settings = loaded.settings
    assert settings.defaults.data == "baseline_aug"
    assert (settings.data.img_size, settings.data.resize) == (700, "pad")
    assert (settings.training.epochs, settings.training.seed) == (11, 4)
    assert settings.data.val_fraction == 0.5
    assert loaded.origins["training.epochs"] == "command line"
    assert loaded.origins["training.seed"] == str(file)
    assert loaded.origins["data.img_size"] == "group data=baseline_aug"


def test_a_group_chosen_on_the_line_can_be_changed_there(tmp_path: Path) -> None:
    empty = tmp_path / "c.toml"
    empty.write_text("")
    settings = load_settings(
        empty, overrides=["data.img_size=512", "data=baseline_aug", "model=litecnn_pro"]
    ).settings
    assert settings.data.img_size == 512
    assert settings.model.name == "litecnn_pro"
    empty.write_text('[defaults]\ndata = "folder"\nmodel = "litecnn"\n')
    origins = load_settings(empty, overrides=["data=digits"]).origins
    assert (origins["defaults.data"], origins["defaults.model"]) == ("command line", str(empty))
    assert load_settings(empty, overrides=["model=my.module:factory"]).settings.model.name == "my.module:factory"


@pytest.mark.skipif(find_spec("timm") is None, reason="needs the zoo extra")
@pytest.mark.parametrize("name", ["resnet18", "resnet50.a1_in1k"])
def test_a_net_of_timm_spelt_nearly_like_a_group_is_no_typing_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "c.toml").write_text("")
    assert load_settings(tmp_path / "c.toml", overrides=[f"model={name}"]).settings.model.name == name


def test_paths_are_relative_to_where_they_were_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "conf"
    folder.mkdir()
    file = folder / "c.toml"
    file.write_text("[data]\nroot='photos'\n[source]\nroot='src'\n")
    elsewhere = tmp_path / "cwd"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    settings = load_settings(file).settings
    assert settings.data.root == folder / "photos"
    assert settings.source.root == str(folder / "src")
    assert load_settings(file, overrides=["data.root=here"]).settings.data.root == elsewhere / "here"
    remote = load_settings(file, overrides=["source.kind=ssh", "source.root=~/mycnn"]).settings
    assert remote.source.root == "~/mycnn"


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("training.epoch=3", "did you mean 'training.epochs'?"),
        ("traning.epochs=3", "did you mean 'training.epochs'?"),
        ("data=baseline", "did you mean 'baseline_aug'?"),
        ("model=resnt34", "did you mean 'resnet34'?"),
        ("training=transfomer", "did you mean 'transformer'?"),
        ("training.epochs=many", "not 'many'"),
        ("servers.asis.port=70000", "servers.asis.port"),
        ("data.val_fraction=1.5", "data.val_fraction"),
        ("training=3", "unknown training group '3'"),
        ("servers.asis=3", "servers.asis"),
    ],
)
def test_a_wrong_override_names_the_nearest_right_one(tmp_path: Path, override: str, said: str) -> None:
    empty = tmp_path / "c.toml"
    empty.write_text("")
    with pytest.raises(UsageError) as caught:
        load_settings(empty, overrides=[override])
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[training]\nepoch = 3\n", "did you mean 'training.epochs'?"),
        ("[groups.modle.x]\nname='a'\n", "did you mean 'model'?"),
        ("[training\n", "not valid TOML"),
        ("training = 3\n", "section"),
        ("defaults = 3\n", "table"),
        ("groups = 3\n", "table"),
        ("[groups]\ndata = 3\n", "table"),
        ("[groups.data]\nmine = 3\n", "table"),
        ("servers = [1]\n", "section"),
    ],
)
def test_a_wrong_file_is_refused_in_words(tmp_path: Path, content: str, said: str) -> None:
    file = tmp_path / "c.toml"
    file.write_text(content)
    with pytest.raises(UsageError) as caught:
        load_settings(file)
    assert said in str(caught.value)


def test_unreadable_files_are_usage_errors(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no config file"):
        load_settings(tmp_path / "none.toml")
    with pytest.raises(UsageError, match="cannot read"):
        load_settings(tmp_path)
    binary = tmp_path / "b.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="cannot read"):
        load_settings(binary)


def test_the_projects_file_documents_every_key_and_holds_the_defaults(tmp_path: Path) -> None:
    text = (PROJECT / "config.toml").read_text()
    empty = tmp_path / "c.toml"
    empty.write_text("")
    shipped, bare = load_settings(PROJECT / "config.toml").settings, load_settings(empty).settings
    assert shipped == bare
    document = tomli.loads(text)
    for key in known_keys():
        section, _, name = key.rpartition(".")
        body = text.split(f"[{section}]\n", 1)[1].split("\n[", 1)[0] if section else text.split("\n[", 1)[0]
        if f"[{key}]" in text:  # an open table, or a list of tables
            continue
        assert f"{name} =" in body or f"# {name}" in body, f"config.toml does not document {key}"
    assert document["source"]["poll_minutes"] == 30


# keys whose default is derived, so that the file shows an example
_DERIVED = (
    "mirror",
    "cycle",
    "epochs",
    "micro_batch",
    "parallel",
    "processes",
    "mixup",
    "cutmix",
    "mix_share",
    "erasing",
)


def test_commented_values_of_the_projects_file_are_the_defaults() -> None:
    text = (PROJECT / "config.toml").read_text()
    uncommented = text.split("[training]\n", 1)[1].split("\n[", 1)[0]
    lines = [line[2:] for line in uncommented.splitlines() if line.startswith("# ")]
    values = tomli.loads("\n".join(line for line in lines if not line.startswith(_DERIVED)))
    from engine.config.schema import Training

    assert values == {key: getattr(Training(), key) for key in values}
    assert len(values) > 8
