"""A release as a model repository of NVIDIA Triton (and so of KServe's Triton runtime).

    triton/understudy/
        config.pbtxt    what the server reads: the ONNX Runtime backend, input and output, batching, warm-up
        labels.txt      the classes in the net's order, for the classification extension
        1/model.onnx    version 1

Names and types are those of a slot's own Open Inference Protocol: model `understudy`, input `image` FP32, output
`probabilities` FP32 of images. How an input is preprocessed stands in the configuration's parameters, in the words
that `/model` uses. Fields after Triton's `model_config.proto`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from engine.export.subject import Subject

MODEL = "understudy"
FILE = f"triton/{MODEL}/1/model.onnx"
_MOST_ROWS = 32
_QUEUE_US = 2000  # how long a request waits for company, as `servers.batch_window_ms` of a slot


def beside(subject: Subject) -> dict[str, str]:
    """What lies beside the ONNX file: paths below the export's folder, and contents."""
    folder = f"triton/{MODEL}"
    found = {f"{folder}/config.pbtxt": configuration(subject)}
    if subject.medium.output == "probabilities":
        found[f"{folder}/labels.txt"] = "".join(f"{' '.join(name.split())}\n" for name in subject.card["classes"])
    return found


def configuration(subject: Subject) -> str:
    """`config.pbtxt` in protobuf's text format."""
    medium, card = subject.medium, subject.card
    given: list[tuple[str, Any]] = [
        ("name", medium.input_name),
        ("data_type", _Word("TYPE_FP32")),
        ("dims", list(medium.shape)),
    ]
    gives: list[tuple[str, Any]] = [
        ("name", medium.output),
        ("data_type", _Word("TYPE_FP32")),
        ("dims", list(medium.output_shape)),
    ]
    if medium.output == "probabilities":
        gives.append(("label_filename", "labels.txt"))
    told = {
        "preprocess": json.dumps(card["preprocess"], ensure_ascii=False, sort_keys=True),
        "release": subject.release.id,
        "task": card["task"],
    }
    return _lines(
        [
            ("name", MODEL),
            ("backend", "onnxruntime"),
            ("default_model_filename", "model.onnx"),
            ("max_batch_size", _MOST_ROWS),
            ("input", given),
            ("output", gives),
            ("dynamic_batching", [("max_queue_delay_microseconds", _QUEUE_US)]),
            # one on each GPU, on a machine without any one on the CPU
            ("instance_group", [("count", 1), ("kind", _Word("KIND_AUTO"))]),
            *(("model_warmup", _warm_up(f"batch of {rows}", rows, medium)) for rows in (1, _MOST_ROWS)),
            *(("parameters", [("key", key), ("value", [("string_value", text)])]) for key, text in told.items()),
        ]
    )


def _warm_up(name: str, rows: int, medium: Any) -> list[tuple[str, Any]]:
    tensor = [("data_type", _Word("TYPE_FP32")), ("dims", list(medium.shape)), ("zero_data", True)]
    return [("name", name), ("batch_size", rows), ("inputs", [("key", medium.input_name), ("value", tensor)])]


class _Word(str):
    """A name of an enumeration, which text format writes without quotes."""

    __slots__ = ()


def _lines(fields: Sequence[tuple[str, Any]], depth: int = 0) -> str:
    """Fields as text format: a list of pairs is a message, a list of numbers a repeated field."""
    inset, text = "  " * depth, ""
    for name, value in fields:
        if isinstance(value, list) and value and isinstance(value[0], tuple):
            text += f"{inset}{name} {{\n{_lines(value, depth + 1)}{inset}}}\n"
        else:
            text += f"{inset}{name}: {_scalar(value)}\n"
    return text


def _scalar(value: Any) -> str:
    if isinstance(value, _Word):
        return str(value)
    return json.dumps(value, ensure_ascii=False)  # its escapes are among text format's
