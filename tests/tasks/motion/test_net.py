"""The net beside the published one: names, shapes, parameters, and what its packed input means."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.errors import UsageError
from engine.tasks.motion.diffusion import guided, kept_signal, sample, spaced
from engine.tasks.motion.net import Mdm
from engine.tasks.motion.shape import Shape, published_shape, read_args, shape_of_state
from tests.tasks.motion.conftest import TINY

# The state dict that github.com/GuyTevet/motion-diffusion-model (model/mdm.py, `MDM` with the arguments that
# utils/model_util.py makes of humanml_trans_enc_512/args.json) has without its frozen `clip_model.*`. Written down
# from that code; it says "Total params: 17.88M" (train/train_mdm.py).
LAYER = {
    "self_attn.in_proj_weight": (1536, 512), "self_attn.in_proj_bias": (1536,),
    "self_attn.out_proj.weight": (512, 512), "self_attn.out_proj.bias": (512,),
    "linear1.weight": (1024, 512), "linear1.bias": (1024,), "linear2.weight": (512, 1024), "linear2.bias": (512,),
    "norm1.weight": (512,), "norm1.bias": (512,), "norm2.weight": (512,), "norm2.bias": (512,),
}  # fmt: skip
PUBLISHED = {
    "input_process.poseEmbedding.weight": (512, 263), "input_process.poseEmbedding.bias": (512,),
    "sequence_pos_encoder.pe": (5000, 1, 512),
    **{f"seqTransEncoder.layers.{n}.{name}": shape for n in range(8) for name, shape in LAYER.items()},
    "embed_timestep.sequence_pos_encoder.pe": (5000, 1, 512),
    "embed_timestep.time_embed.0.weight": (512, 512), "embed_timestep.time_embed.0.bias": (512,),
    "embed_timestep.time_embed.2.weight": (512, 512), "embed_timestep.time_embed.2.bias": (512,),
    "embed_text.weight": (512, 512), "embed_text.bias": (512,),
    "output_process.poseFinal.weight": (263, 512), "output_process.poseFinal.bias": (263,),
}  # fmt: skip


def test_names_shapes_and_parameters_are_the_published_ones() -> None:
    net = Mdm(Shape())
    assert {name: tuple(value.shape) for name, value in net.state_dict().items()} == PUBLISHED
    assert sum(value.numel() for value in net.parameters()) == 17_880_327
    assert (net.seqTransEncoder.layers[0].self_attn.num_heads, Shape().packed) == (4, 196 * 263 + 1 + 512)


def test_args_and_state_tell_the_shape(tmp_path: Path) -> None:
    checkpoint = tmp_path / "model000475000.pt"
    assert read_args(checkpoint) == {}
    args = {"arch": "trans_enc", "dataset": "humanml", "layers": 8, "latent_dim": 512, "diffusion_steps": 50,
            "noise_schedule": "cosine", "cond_mask_prob": 0.1, "emb_trans_dec": False}  # fmt: skip
    (tmp_path / "args.json").write_text(json.dumps(args))
    shape, notes = published_shape(read_args(checkpoint))
    assert (shape.diffusion_steps, shape.layers, shape.condition, notes) == (50, 8, "text", [])
    assert shape_of_state(PUBLISHED, shape) == shape
    actions = {name: value for name, value in PUBLISHED.items() if not name.startswith("embed_text")}
    found = shape_of_state(actions | {"embed_action.action_embedding": (12, 512)}, shape)
    assert (found.condition, found.condition_width) == ("action", 12)
    for wrong in ({"arch": "trans_dec"}, {"context_len": 20}, {"latent_dim": "wide"}):
        with pytest.raises(UsageError):
            published_shape(args | wrong)
    with pytest.raises(UsageError, match="no motion diffusion encoder"):
        shape_of_state({"conv1.weight": (64, 3, 7, 7)}, shape)


def test_a_packed_row_is_the_motion_its_time_and_its_condition() -> None:
    shape = Shape(features=7, condition="action", condition_width=3, **TINY)  # type: ignore[arg-type]
    torch.manual_seed(0)
    net = Mdm(shape).eval()
    x, times = torch.randn(20, 12, 7), torch.arange(20)
    condition = torch.eye(3)[times % 3] * (times % 4 > 0)[:, None]  # every fourth is shown none
    packed = torch.cat([x.flatten(1), (times / 20.0)[:, None], condition], 1)
    with torch.inference_mode():
        given = net(packed)
        assert torch.equal(given, net.denoise(x, times, condition))
        assert torch.allclose(net(packed[4:5]), given[4:5], atol=1e-5)
        assert net.denoise(x[:, :5], times, condition).shape == (20, 5, 7)


def test_sampling_goes_from_noise_to_what_the_net_sees() -> None:
    kept = kept_signal(1000, "cosine")
    assert 0.999 < kept[0] < 1
    assert kept[-1] < 1e-6
    assert (np.diff(kept) < 0).all()
    assert spaced(1000, 5) == [0, 250, 500, 749, 999]
    truth = np.ones((2, 3, 4), np.float32)
    start = np.random.default_rng(0).standard_normal(truth.shape)
    for ddim in (True, False):
        asked: list[int] = []

        def denoise(x: np.ndarray, time: int, asked: list[int] = asked) -> np.ndarray:
            asked.append(time)
            return guided(truth * 3, truth * 5, 2.0)

        found = sample(denoise, start, kept, 5, np.random.default_rng(1), ddim=ddim)
        assert np.array_equal(found, truth)
        assert asked == [999, 749, 500, 250, 0]


def test_ddim_is_deterministic_and_both_keep_the_scale() -> None:
    """For data that are standard normal the best x0 is sqrt(kept) · x_t, and samples are standard normal again."""
    kept = kept_signal(200, "cosine")
    start = np.random.default_rng(0).standard_normal((1, 4000, 1))

    def best(x: np.ndarray, time: int) -> np.ndarray:
        return (np.sqrt(kept[time]) * x).astype(np.float32)

    for ddim in (True, False):
        found = sample(best, start, kept, 200, np.random.default_rng(1), ddim=ddim)
        again = sample(best, start, kept, 200, np.random.default_rng(2), ddim=ddim)
        assert abs(float(found.std()) - 1) < 0.06
        assert np.array_equal(found, again) is ddim
