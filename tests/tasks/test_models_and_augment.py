"""The nets' sizes and inputs, and augmentation as a function of (seed, epoch, index)."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

from engine.errors import UsageError
from engine.tasks.images.augment import RECIPES, augment, degrade, draw, mix
from engine.tasks.images.models import build_model, parameter_count


@pytest.mark.parametrize(("name", "least", "most"), [("litecnn", 0.1e6, 0.4e6), ("litecnn_pro", 1.7e6, 2.1e6)])
def test_our_nets(name: str, least: float, most: float) -> None:
    model = build_model(name, 17).eval()
    assert least < parameter_count(model) < most
    for side in (32, 48, 128):
        assert model(torch.zeros(2, 3, side, side)).shape == (2, 17)
    buffer = io.BytesIO()
    torch.save({"model_state_dict": model.state_dict()}, buffer)
    if name == "litecnn_pro":
        assert 4e6 < buffer.tell() < 12e6


def test_an_unknown_name_is_said() -> None:
    with pytest.raises(UsageError) as caught:
        build_model("no_such_net_anywhere", 3)
    assert "no_such_net_anywhere" in str(caught.value)


@pytest.mark.parametrize("level", list(RECIPES))
def test_augmentation_depends_on_seed_epoch_and_index_alone(level: str) -> None:
    images = torch.rand(6, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    indices = np.array([5, 9, 100, 3, 70, 8])
    draws = torch.from_numpy(draw(7, 2, indices))
    recipe = RECIPES[level]
    whole = augment(recipe, images, draws)
    assert whole.shape == images.shape
    assert torch.isfinite(whole).all()
    assert float(whole.min()) >= -1e-5
    assert float(whole.max()) <= 1 + 1e-5
    for i in (0, 4):
        alone = augment(recipe, images[i : i + 1], torch.from_numpy(draw(7, 2, indices[i : i + 1])))
        assert torch.allclose(alone[0], whole[i], atol=1e-5)
    other = augment(recipe, images, torch.from_numpy(draw(7, 3, indices)))
    assert torch.equal(other, whole) == (level == "none")
    mixed, shares = mix(recipe, whole, draws)
    assert mixed.shape == images.shape
    assert ((shares >= 0) & (shares <= 1)).all()
    pixels = (images[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    assert np.array_equal(degrade(level, pixels, 7, 2, 5), degrade(level, pixels, 7, 2, 5))


def test_digits_are_never_mirrored() -> None:
    assert RECIPES["light"].flip == RECIPES["document"].flip == 0
