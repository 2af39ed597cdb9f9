"""The net of a checkpoint file or of a release, as something that `player.Player` asks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from engine.errors import Failed, UsageError

if TYPE_CHECKING:
    from engine.tasks.go.player import Net


def net_of_checkpoint(content: dict[str, Any], card: Any, name: str) -> tuple[Net, int]:
    """The net of a checkpoint that `go train` saved, on the CPU, and the board size that it is for.

    Args:
        content: the checkpoint as it was read, with `model_state_dict`.
        card: what it says of itself.
        name: what an error calls it.

    Raises:
        UsageError: a checkpoint of another task.
        Failed: it does not fit its own card.
    """
    import torch

    from engine.tasks.go.net import build_net

    if not isinstance(card, dict) or card.get("task") != "go":
        raise UsageError(f"{name} is no checkpoint of a Go network", "name one that `go train` saved")
    try:
        size = int(card["preprocess"]["board_size"])
        net = build_net(str(card["architecture"]["name"]), size)
        net.load_state_dict(content["model_state_dict"])
    except (KeyError, TypeError, RuntimeError) as error:
        raise Failed(
            f"{name} does not fit its own card ({str(error).splitlines()[0][:120]})", "train it again"
        ) from None
    net.eval().requires_grad_(False)

    def ask(planes: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.inference_mode():
            return net(torch.from_numpy(planes)).float().numpy()

    return ask, size


def net_of_onnx(content: bytes) -> Net:
    """The net of a release, by ONNX Runtime: the logarithms of its probabilities serve as logits."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name

    def ask(planes: NDArray[np.float32]) -> NDArray[np.float32]:
        found: NDArray[np.float32] = session.run(None, {name: planes})[0]
        return np.log(np.maximum(found, np.finfo(np.float32).tiny))

    return ask
