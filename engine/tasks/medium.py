"""Between a client and a net: what a request's body is, and what an output row means. Torch-free.

`Task` is what training drives; a `Medium` is what admission, serving and comparison know of the same work. Both
belong to a `Kind` (`engine.tasks.task`). Nothing here is of images alone: an input is a float32 array of any shape,
an output row probabilities of classes or plain values of any shape.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

if TYPE_CHECKING:
    import numpy as np

    from engine.config import Settings
    from engine.tasks.labelled import Labelled, LabelledSet

Output = Literal["probabilities", "values"]


class InputError(Exception):
    """A body that the net cannot take: `status` is HTTP's (400, 413, 415, 422)."""

    def __init__(self, status: int, kind: str, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.status, self.kind, self.message, self.hint = status, kind, message, hint


@dataclass(frozen=True)
class Limits:
    """What a host allows one body to unfold to."""

    max_pixels: int = 50_000_000


class Answer(NamedTuple):
    """`fields`: the answer's JSON object without its closing brace, to which a server adds its own fields;
    `top`: the index of the best class (-1: none) with its `confidence`, for the counts of a slot."""

    fields: str
    top: int
    confidence: float


class Medium(Protocol):
    """Made from a card (`architecture`, `classes`, `preprocess`); safe to use from several threads at once.

    `media_types`: the usual one first. `noun`: what people call one request ("image"). `input_name` and `shape`
    describe the net's input without its batch, `output` and `output_shape` a row of what it gives:
    `probabilities` are softmaxed when a net is converted, `values` are left as they are. `answer_schema`: the
    JSON Schema properties that `answer` has besides the contract's.
    """

    media_types: Sequence[str]
    noun: str
    input_name: str
    shape: tuple[int, ...]
    output: Output
    output_shape: tuple[int, ...]
    answer_schema: dict[str, Any]

    def decode(self, content: bytes, limits: Limits) -> np.ndarray:
        """A body as the net's input, float32 `shape`.

        Raises:
            InputError: 415 another kind of file, 422 a damaged one or one that this net does not take, 413 too large.
        """
        ...

    def golden(self) -> np.ndarray:
        """At least four fixed and different inputs, float32 [N, *shape], that admission and engines try a net on."""
        ...

    def probes(self) -> list[bytes]:
        """A few small fixed bodies that a slot is asked after each swap."""
        ...

    def answer(self, row: np.ndarray, given: np.ndarray, top_k: int) -> Answer:
        """What an output row means.

        Args:
            row: float32 `output_shape`.
            given: the input that it is the answer to.
        """
        ...

    def labelled(self, settings: Settings, data: Path | None, seed: int) -> LabelledSet:
        """The labelled requests of `data`, else of `ab.data`, else what the task has without either.

        Raises:
            UsageError: there are none.
        """
        ...

    def is_right(self, answer: dict[str, Any], item: Labelled) -> bool:
        """Whether a slot's answer is right for a labelled request."""
        ...


def as_answer(label: str, index: int, confidence: float, **more: Any) -> Answer:
    """The answer with the contract's fields and more of a task's own (JSON values)."""
    text = json.dumps({"label": label, "index": index, "confidence": confidence, **more}, ensure_ascii=False)
    return Answer(text[:-1], index, confidence)


def whole(answer: Answer) -> dict[str, Any]:
    """The fields of an answer, read back."""
    return dict(json.loads(answer.fields + "}"))


def describe(medium: Medium) -> tuple[dict[str, Any], dict[str, Any]]:
    """A net's input and output as a release and `/model` say them."""
    return (
        {"name": medium.input_name, "dtype": "FP32", "shape": [-1, *medium.shape]},
        {"name": medium.output, "dtype": "FP32", "shape": [-1, *medium.output_shape]},
    )
