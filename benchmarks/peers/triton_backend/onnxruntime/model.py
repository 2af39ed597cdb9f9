"""Stands in for Triton's own ONNX Runtime backend, which no Python wheel holds: the same model configuration, run by
the onnxruntime wheel through Triton's python-based backends. Triton's stub wants numpy below 2."""

import json
import os
import sys
from pathlib import Path

sys.path += os.environ["SITE_PACKAGES"].split(os.pathsep)

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        return config

    def initialize(self, args):
        config = json.loads(args["model_config"])
        path = Path(args["model_repository"]) / args["model_version"] / config["default_model_filename"]
        self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self._given, self._gives = config["input"][0]["name"], config["output"][0]["name"]

    def execute(self, requests):
        batches = [pb.get_input_tensor_by_name(one, self._given).as_numpy() for one in requests]
        rows = self._session.run([self._gives], {self._given: np.concatenate(batches)})[0]
        ends = np.cumsum([len(one) for one in batches])[:-1]
        parts = (np.ascontiguousarray(part) for part in np.split(rows, ends))
        return [pb.InferenceResponse([pb.Tensor(self._gives, part)]) for part in parts]
