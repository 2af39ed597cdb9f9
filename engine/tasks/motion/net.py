"""The Motion Diffusion Model's transformer encoder, with the published names of its weights. Imports torch.

Tevet et al. 2022, arXiv:2209.14916: one token of time and condition before a token a frame; the net answers the
motion without its noise. Checked against github.com/GuyTevet/motion-diffusion-model, `model/mdm.py`.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from engine.tasks.motion.shape import Shape

_DROPOUT = 0.1


class PositionalEncoding(nn.Module):
    """Sines and cosines (Vaswani et al. 2017, arXiv:1706.03762, section 3.5): `pe` [length, 1, width]."""

    pe: Tensor

    def __init__(self, width: int, length: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(_DROPOUT)
        place = torch.arange(length, dtype=torch.float32)[:, None]
        rate = torch.exp(torch.arange(0, width, 2).float() * (-math.log(10000.0) / width))
        pe = torch.zeros(length, width)
        pe[:, 0::2], pe[:, 1::2] = torch.sin(place * rate), torch.cos(place * rate)
        self.register_buffer("pe", pe[:, None])

    def forward(self, tokens: Tensor) -> Tensor:
        return self.dropout(tokens + self.pe[: tokens.shape[0]])


class TimestepEmbedder(nn.Module):
    """Diffusion times, int [N], to tokens [1, N, width]."""

    def __init__(self, width: int, sequence_pos_encoder: PositionalEncoding, times: int) -> None:
        super().__init__()
        self.sequence_pos_encoder, self.times = sequence_pos_encoder, times
        self.time_embed = nn.Sequential(nn.Linear(width, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, times: Tensor) -> Tensor:
        used = self.sequence_pos_encoder.pe[: self.times]  # an exporter then leaves the rest of the table out
        return self.time_embed(used[times, 0])[None]


class InputProcess(nn.Module):
    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.poseEmbedding = nn.Linear(features, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.poseEmbedding(x)


class OutputProcess(nn.Module):
    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.poseFinal = nn.Linear(width, features)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.poseFinal(tokens)


class EmbedAction(nn.Module):
    """A row for each action; a condition of zeros is none of them."""

    def __init__(self, actions: int, width: int) -> None:
        super().__init__()
        self.action_embedding = nn.Parameter(torch.randn(actions, width))

    def forward(self, one_hot: Tensor) -> Tensor:
        return one_hot @ self.action_embedding


class Mdm(nn.Module):
    """Packed inputs float32 [N, frames·features + 1 + condition] to motions without noise [N, frames, features].

    A row is the noised motion x_t frame by frame, its time as a share t / diffusion_steps, and its condition: one-hot
    actions or a text's embedding, zeros for none. One array of one type is what every exporter and engine takes.
    """

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        width = shape.latent_dim
        self.input_process = InputProcess(shape.features, width)
        self.sequence_pos_encoder = PositionalEncoding(width, shape.pos_embed_max_len)
        layer = nn.TransformerEncoderLayer(width, shape.num_heads, shape.ff_size, _DROPOUT, "gelu")
        self.seqTransEncoder = nn.TransformerEncoder(layer, shape.layers, enable_nested_tensor=False)
        self.embed_timestep = TimestepEmbedder(width, self.sequence_pos_encoder, shape.diffusion_steps)
        if shape.condition == "text":
            self.embed_text = nn.Linear(shape.condition_width, width)
        elif shape.condition == "action":
            self.embed_action = EmbedAction(shape.condition_width, width)
        self.output_process = OutputProcess(shape.features, width)

    def forward(self, packed: Tensor) -> Tensor:
        shape = self.shape
        motion = shape.frames * shape.features
        x = packed[:, :motion].reshape(-1, shape.frames, shape.features)
        times = (packed[:, motion] * shape.diffusion_steps).round().long().clamp(0, shape.diffusion_steps - 1)
        return self.denoise(x, times, packed[:, motion + 1 :])

    def denoise(self, x: Tensor, times: Tensor, condition: Tensor) -> Tensor:
        """x_t [N, n, features] of any length n, times int [N], condition [N, width] to x0 [N, n, features]."""
        first = self.embed_timestep(times)
        if self.shape.condition == "text":
            first = first + self.embed_text(condition)
        elif self.shape.condition == "action":
            first = first + self.embed_action(condition)
        tokens = torch.cat([first, self.input_process(x.transpose(0, 1))])
        seen = self.seqTransEncoder(self.sequence_pos_encoder(tokens))
        return self.output_process(seen[1:]).transpose(0, 1)
