"""The model repository, read by Triton's own protobuf and by ONNX Runtime."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnxruntime
import pytest
from google.protobuf import text_format

from engine.export import triton
from engine.export.subject import Subject
from tests.export.conftest import CARD, SIDE


def _parsed(text: str) -> Any:
    """As Triton's `ModelConfig`; its module alone, for the package around it wants gRPC."""
    found = importlib.util.find_spec("tritonclient")
    if found is None or not found.submodule_search_locations:
        pytest.skip("tritonclient is not installed")
    path = Path(found.submodule_search_locations[0]) / "grpc" / "model_config_pb2.py"
    if "model_config_pb2" not in sys.modules:
        spec = importlib.util.spec_from_file_location("model_config_pb2", path)
        assert spec
        assert spec.loader
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        sys.modules["model_config_pb2"] = module
    module = sys.modules["model_config_pb2"]
    return module, text_format.Parse(text, module.ModelConfig())


def test_the_repository_is_what_a_slot_serves(
    export: Callable[..., dict[str, Any]], subject: Subject, tmp_path: Path
) -> None:
    report = export(formats=["triton", "onnx"], images=16)
    assert [row["format"] for row in report["artifacts"]] == ["onnx", "triton"]
    folder = tmp_path / "out" / "triton" / "understudy"
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()} == {
        "config.pbtxt", "labels.txt", "1/model.onnx",
    }  # fmt: skip
    words, config = _parsed((folder / "config.pbtxt").read_text(encoding="utf-8"))
    (given,), (gives,) = config.input, config.output
    assert (config.name, config.backend, config.max_batch_size) == ("understudy", "onnxruntime", 32)
    assert (given.name, given.data_type, list(given.dims)) == ("image", words.TYPE_FP32, [3, SIDE, SIDE])
    assert (gives.name, gives.data_type, list(gives.dims)) == ("probabilities", words.TYPE_FP32, [10])
    assert (folder / gives.label_filename).read_text().splitlines() == CARD["classes"]
    assert config.dynamic_batching.max_queue_delay_microseconds == 2000
    assert config.instance_group[0].kind == words.ModelInstanceGroup.KIND_AUTO
    assert [one.batch_size for one in config.model_warmup] == [1, 32]
    assert list(config.model_warmup[0].inputs["image"].dims) == list(given.dims)
    assert json.loads(config.parameters["preprocess"].string_value) == CARD["preprocess"]
    assert config.parameters["release"].string_value == subject.release.id
    session = onnxruntime.InferenceSession(folder / "1" / config.default_model_filename)
    ((net_given,), (net_gives,)) = session.get_inputs(), session.get_outputs()
    assert (net_given.name, net_gives.name) == (given.name, gives.name)
    golden = subject.medium.golden()
    np.testing.assert_array_equal(
        session.run(None, {"image": golden})[0],
        onnxruntime.InferenceSession(subject.onnx).run(None, {"image": golden})[0],
    )


def test_a_task_without_classes_and_names_that_want_escaping() -> None:
    medium = SimpleNamespace(input_name="noise", shape=(4,), output="values", output_shape=(2, 3))
    card = {"preprocess": {"said": 'a "ü"\n\\'}, "classes": [], "task": "own:factory"}
    subject: Any = SimpleNamespace(medium=medium, card=card, release=SimpleNamespace(id="ab"))
    assert list(triton.beside(subject)) == ["triton/understudy/config.pbtxt"]
    _, config = _parsed(triton.configuration(subject))
    assert (list(config.output[0].dims), config.output[0].label_filename) == ([2, 3], "")
    assert json.loads(config.parameters["preprocess"].string_value) == card["preprocess"]
