"""The nets' sizes and inputs, and augmentation as a function of (seed, epoch, index)."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch

from engine.config.schema import Training
from engine.errors import UsageError
from engine.tasks.images.augment import RECIPES, augment, degrade, draw, mix, recipe_of
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
    assert augment(recipe, images, draws, 24).shape[2:] == (24, 24)
    assert augment(RECIPES["none"], images, draws, 24).shape[2:] == (24, 24)
    other = augment(recipe, images, torch.from_numpy(draw(7, 3, indices)))
    assert torch.equal(other, whole) == (level == "none")
    mixed, shares = mix(recipe, whole, draws)
    assert mixed.shape == images.shape
    assert ((shares >= 0) & (shares <= 1)).all()
    pixels = (images[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8)
    assert np.array_equal(degrade(level, pixels, 7, 2, 5), degrade(level, pixels, 7, 2, 5))


def test_digits_are_never_mirrored() -> None:
    assert RECIPES["light"].flip == RECIPES["document"].flip == 0


def test_the_settings_change_the_level() -> None:
    assert recipe_of("standard", Training()) == RECIPES["standard"]
    recipe = recipe_of("document", Training(mixup=0.2, erasing=0.0))
    assert (recipe.mix, recipe.mixup, recipe.cutmix, recipe.erase) == (1.0, 0.2, 0.0, 0.0)
    assert recipe_of("standard", Training(mixup=0, cutmix=0)).mix == 0


def test_randaugment_on_a_batch_is_that_on_each_sample() -> None:
    recipe = recipe_of("none", Training(randaugment=3, randaugment_magnitude=10))
    images = torch.rand(24, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    indices = np.arange(24)
    whole = augment(recipe, images, torch.from_numpy(draw(1, 0, indices)))
    assert torch.isfinite(whole).all()
    assert float(whole.min()) >= 0
    assert float(whole.max()) <= 1 + 1e-5
    assert all(not torch.equal(a, b) for a, b in zip(whole, images, strict=True))
    for i in range(24):
        alone = augment(recipe, images[i : i + 1], torch.from_numpy(draw(1, 0, indices[i : i + 1])))
        assert torch.allclose(alone[0], whole[i], atol=1e-4)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_mixup_shares_follow_their_beta_distribution(alpha: float) -> None:
    recipe = recipe_of("none", Training(mixup=alpha))
    draws = torch.rand(4000, 64, generator=torch.Generator().manual_seed(0))
    _, shares = mix(recipe, torch.rand(4000, 3, 1, 1), draws)
    assert float(shares.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(shares.var()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.06)


def test_cutmix_counts_what_it_pastes() -> None:
    recipe = recipe_of("none", Training(cutmix=1.0))
    images = torch.arange(2.0).view(2, 1, 1, 1).expand(2, 3, 16, 16)
    mixed, shares = mix(recipe, images, torch.rand(2, 64, generator=torch.Generator().manual_seed(3)))
    assert torch.allclose(1 - mixed[0].mean(), shares[0])
    assert torch.allclose(mixed[1].mean(), shares[1])
