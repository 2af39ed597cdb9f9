"""timm's nets by the documents' names; published weights from this machine, or the file to bring."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest
import torch
from safetensors.torch import save_file

from engine.config import load_settings
from engine.errors import UsageError
from engine.tasks.images.models import build_model
from engine.tasks.images.zoo import check_side, load_timm

pytestmark = pytest.mark.skipif(find_spec("timm") is None, reason="the zoo extra is not installed")


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No network, and an empty cache of the Hugging Face hub in this folder."""
    from huggingface_hub import constants

    def refuse(*_args: object, **_named: object) -> None:
        raise httpx.ConnectError("name or service not known")

    monkeypatch.setattr(httpx, "head", refuse)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return tmp_path


@pytest.mark.parametrize(
    ("group", "architecture"),
    [
        ("resnet34", "resnet34"),
        ("resnet50", "resnet50"),
        ("efficientnet_b4", "efficientnet_b4"),
        ("convnext_base", "convnext_base"),
        ("swin_base_384", "swin_base_patch4_window12_384.ms_in22k"),
        ("deit_base_384", "deit_base_patch16_384.fb_in1k"),
    ],
)
def test_the_manuals_names(tmp_path: Path, group: str, architecture: str) -> None:
    timm = load_timm()
    name = load_settings(None, tmp_path, [f"model={group}"]).settings.model.name
    assert name == architecture
    assert timm.is_model(name)
    assert name.partition(".")[2] == "" or name in timm.list_pretrained(name.partition(".")[0])


def test_names_with_tags_and_near_ones() -> None:
    assert build_model("test_resnet.r160_in1k", 7).eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 7)
    for name, said in (("test_resnet.r170", "r160_in1k"), ("test_resnett", "did you mean 'test_resnet'")):
        with pytest.raises(UsageError, match=said):
            build_model(name, 7)


def test_published_weights_offline_name_the_file_to_bring_and_take_it_there(offline: Path) -> None:
    with pytest.raises(UsageError) as caught:
        build_model("test_resnet", 7, pretrained=True)
    place = offline / "hub/models--timm--test_resnet.r160_in1k/snapshots/main/model.safetensors"
    assert str(place) in caught.value.hint
    assert "https://huggingface.co/timm/test_resnet.r160_in1k/resolve/main/model.safetensors" in caught.value.hint
    published = build_model("test_resnet", 1000)
    place.parent.mkdir(parents=True)
    save_file(published.state_dict(), place)
    mine = build_model("test_resnet", 7, pretrained=True).state_dict()
    theirs = published.state_dict()
    same = [
        name for name in mine if mine[name].shape == theirs[name].shape and torch.equal(mine[name], theirs[name])
    ]
    assert len(same) == len(mine) - 2  # all but the last layer's weight and bias
    place.write_bytes(b"junk")
    with pytest.raises(UsageError, match="damaged"):
        build_model("test_resnet", 7, pretrained=True)


def test_torch_hubs_folder_is_looked_into(offline: Path) -> None:
    with pytest.raises(UsageError):
        build_model("resnet18", 7, pretrained=True)
    url = load_timm().get_pretrained_cfg("resnet18").url
    place = offline / "torch/hub/checkpoints" / url.rpartition("/")[2]
    place.parent.mkdir(parents=True)
    place.write_bytes(b"junk")
    with pytest.raises(UsageError, match="damaged") as caught:
        build_model("resnet18", 7, pretrained=True)
    assert str(place) in caught.value.hint


def test_a_net_of_fixed_size_says_so() -> None:
    model = build_model("vit_tiny_patch16_224", 3)
    check_side(model, "vit_tiny_patch16_224", 224)
    with pytest.raises(UsageError, match=r"takes images of 224 px alone, not 128: set data\.img_size=224"):
        check_side(model, "vit_tiny_patch16_224", 128)
    check_side(build_model("vit_tiny_patch16_224", 3, settings={"img_size": 128}), "vit_tiny_patch16_224", 128)


def test_a_net_of_ones_own_is_found_in_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "net_of_mine.py").write_text(
        "from torch import nn\ndef make(num_classes, width=4):\n"
        "    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, num_classes))\n"
    )
    monkeypatch.chdir(tmp_path)
    assert build_model("net_of_mine:make", 4, settings={"width": 2})(torch.zeros(2, 3, 8, 8)).shape == (2, 4)
    with pytest.raises(UsageError, match="depth"):
        build_model("net_of_mine:make", 4, settings={"depth": 2})
