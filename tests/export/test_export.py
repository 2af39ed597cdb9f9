"""Exported files: what is in them, their proof, going on after a kill, and what is wrong said as it is."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from engine.cli.main import main
from engine.config import Settings, load_settings
from engine.errors import Busy, Failed, UsageError
from engine.export import ModelExporter
from engine.export import export as exporting
from engine.export.edge_config import read_edge_config, with_edge_config
from engine.export.options import ORDER, wanted_formats
from engine.export.subject import Subject, open_subject
from engine.release.admit import Rejected
from engine.store.events import read_events
from engine.store.locks import hold
from engine.store.workspace import Workspace
from tests.export.conftest import CARD, SIDE, save

Exporting = Callable[..., dict[str, Any]]
LOOSE = ("export.max_loss=0.5", "export.calibration=64")
FILES = {
    "onnx": "model.onnx", "pt2": "model.pt2", "torchscript": "model_scripted.pt", "fp16": "model_fp16.onnx",
    "int8": "model_quantized.onnx", "triton": "model.onnx",
}  # fmt: skip


def _said(kind: str, path: Path) -> dict[str, str]:
    """What a file says of itself, read as its users would."""
    if path.suffix == ".onnx":
        return onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map
    found = dict.fromkeys(("understudy", "classes", "preprocess"), "")
    if kind == "pt2":
        torch.export.load(path, extra_files=found)
    else:
        torch.jit.load(path, _extra_files=found)
    return {key: value if isinstance(value, str) else value.decode() for key, value in found.items()}


def test_every_format_with_its_proof_and_what_it_is_inside(
    export: Exporting, workspace: Workspace, tmp_path: Path, subject: Subject
) -> None:
    report = export(*LOOSE, formats=["all"], images=40, allow_worse=True)
    assert json.loads((tmp_path / "out" / "export.json").read_text()) == json.loads(json.dumps(report))
    rows = {row["format"]: row for row in report["artifacts"]}
    assert (list(rows), report["skipped"]) == (list(ORDER), [])
    assert (report["original"]["judged"]["n"], report["data"]["calibrated_on"]) == (40, 64)
    for kind, row in rows.items():
        path = Path(row["path"])
        assert (path.name, path.stat().st_size) == (FILES[kind], row["bytes"])
        assert row["latency"]["8"]["p10"] <= row["latency"]["8"]["p50"] <= row["latency"]["8"]["p99"]
        assert min(row["speedup"], row["speedup_onnx"], row["size_ratio"]) > 0
        assert 0.7 < row["accuracy"] == row["judged"]["accuracy"]
        if kind not in ("fp16", "int8"):
            assert row["max_abs_error"] < 1e-4
            assert row["judged"]["difference"] == 0
        said = _said(kind, path)
        assert json.loads(said["classes"]) == CARD["classes"]
        assert json.loads(said["preprocess"])["img_size"] == SIDE
        about = json.loads(said["understudy"])
        assert (about["release"], about["checkpoint"]["name"]) == (subject.release.id, "digits.pth")
    assert rows["int8"]["size_ratio"] > 1  # most of a file this small is its metadata
    assert json.loads(_said("int8", Path(rows["int8"]["path"]))["understudy"])["precision"] == "int8"
    kinds = {node.op_type for node in onnx.load(rows["int8"]["path"]).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    event = read_events(workspace)[-1]
    assert (event["kind"], event["subject"]) == ("exported", subject.release.id)
    assert event["detail"]["files"]["model.onnx"] == rows["onnx"]["sha256"]


def test_a_killed_export_goes_on_where_it_stood(
    export: Exporting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = exporting.Export._made

    def dies(self: exporting.Export, kind: str) -> tuple[bytes, dict[str, Any]]:
        if kind == "int8":
            raise KeyboardInterrupt
        return made(self, kind)

    formats = ["onnx", "fp16", "int8"]
    monkeypatch.setattr(exporting.Export, "_made", dies)
    with pytest.raises(KeyboardInterrupt):
        export(*LOOSE, formats=formats, images=16, allow_worse=True)
    assert not (tmp_path / "out" / "export.json").exists()
    (tmp_path / "out" / "model_fp16.onnx").write_bytes(b"changed by somebody")
    monkeypatch.setattr(exporting.Export, "_made", made)
    lines: list[str] = []
    report = export(*LOOSE, formats=formats, images=16, allow_worse=True, lines=lines)
    assert [line.split(",")[0] for line in lines if line.startswith(("onnx", "fp16"))] == [
        "onnx: model.onnx is there already", "fp16: model_fp16.onnx",
    ]  # fmt: skip
    assert [row["format"] for row in report["artifacts"]] == formats
    (tmp_path / "out" / ".export-steps.json").write_text("{damaged")
    lines.clear()
    export(formats=["onnx"], images=16, lines=lines)
    assert not any("already" in line for line in lines)


def test_an_int8_file_that_is_not_worth_having_is_taken_away(
    export: Exporting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoilt(*arguments: Any, **named: Any) -> Any:
        found = exporting_quantize(*arguments, **named)
        proto = onnx.load_from_string(found.content)
        for node in proto.graph.node:
            if node.op_type == "Softmax":  # the answers of another picture's class
                node.op_type = "LogSoftmax"
                proto.graph.node.append(onnx.helper.make_node("Neg", ["turned"], list(node.output), "turn"))
                del node.output[:]
                node.output.append("turned")
        return type(found)(proto.SerializeToString(), found.subject, found.loss, found.note)

    exporting_quantize = exporting.quantize
    monkeypatch.setattr(exporting, "quantize", spoilt)
    with pytest.raises(Failed, match=r"not worth having: .*loses \d+\.\d points") as failed:
        export(*LOOSE, formats=["onnx", "int8"], images=40)
    assert (failed.value.exit_code, failed.value.kind) == (1, "not_worth_having")
    report = failed.value.payload
    assert [(row["format"], row["present"]) for row in report["artifacts"]] == [("onnx", True), ("int8", False)]
    assert report["skipped"][0]["format"] == "int8"
    assert [path.name for path in (tmp_path / "out").glob("*.onnx")] == ["model.onnx"]
    kept = export(*LOOSE, formats=["int8"], images=16, allow_worse=True)
    assert Path(kept["artifacts"][0]["path"]).is_file()


class _Exotic(torch.nn.Module):
    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(3 * SIDE * SIDE, num_classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.i0(self.layer(x.flatten(1)))  # ONNX has no Bessel functions


def exotic(num_classes: int) -> _Exotic:
    return _Exotic(num_classes)


@pytest.fixture
def inexpressible(tmp_path: Path) -> Path:
    torch.manual_seed(1)
    card = CARD | {"architecture": {"name": f"{__name__}:exotic", "settings": {}}}
    return save(tmp_path / "exotic.pth", exotic(10), card)


def test_where_onnx_cannot_express_the_net_torch_formats_are_written(
    export: Exporting, inexpressible: Path, workspace: Workspace
) -> None:
    named = f"source.model={__name__}:exotic"
    report = export(named, checkpoint=inexpressible, formats=["onnx", "fp16"], images=16)
    assert [(row["format"], row["speedup_onnx"]) for row in report["artifacts"]] == [("pt2", None)]
    assert report["artifacts"][0]["max_abs_error"] < 1e-4
    assert [(one["format"], one.get("instead")) for one in report["skipped"]] == [("onnx", "pt2"), ("fp16", None)]
    assert "cannot be expressed as ONNX" in report["skipped"][0]["reason"]
    assert report["original"]["judged"]["n"] == 16
    assert not list(workspace.releases.glob("*.release"))


def test_the_documents_way_from_a_program(digits_net: Path, workspace: Workspace, tmp_path: Path) -> None:
    edge = tmp_path / "edge_config.json"
    edge.write_text('{"quantization": {"enabled": false}, "formats": ["onnx", "torchscript"]}')
    report = ModelExporter(digits_net, edge, workspace=workspace.root, overrides=("export.images=8",)).export_all(
        tmp_path / "exported"
    )
    assert [Path(row["path"]).name for row in report["artifacts"]] == ["model.onnx", "model_scripted.pt"]
    scripted = torch.jit.load(tmp_path / "exported" / "model_scripted.pt")
    assert scripted(torch.zeros(5, 3, SIDE, SIDE)).shape == (5, 10)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"quantization": true, "dtype": "int8", "pruning": {"enabled": true, "sparsity": 0.1}}',
         {"quantization": True, "dtype": "int8", "pruning": True, "sparsity": 0.1}),
        ('{"edge_config": {"quantization": {"enabled": true, "type": "int8"}, "export_formats": ["onnx"]}}',
         {"quantization": True, "dtype": "int8", "formats": ["onnx"]}),
        ("{}", {}),
    ],
)  # fmt: skip
def test_edge_config_is_read(text: str, found: dict[str, Any], tmp_path: Path, settings: Settings) -> None:
    path = tmp_path / "edge_config.json"
    path.write_text(text)
    assert read_edge_config(path) == found
    export = with_edge_config(settings, path).export
    assert all(getattr(export, key) == value for key, value in found.items())


@pytest.mark.parametrize(
    ("text", "said"),
    [("{", "JSON"), ("[]", "no JSON object"), ('{"edge_config": 3}', "no JSON object"), (None, "no file"),
     ('{"quantisation": true}', "unknown key 'quantisation'"), ('{"sparsity": 2}', "'sparsity' cannot be 2"),
     ('{"pruning": {"amount": 1}}', r"pruning\.amount")],
)  # fmt: skip
def test_a_wrong_edge_config_is_said(text: str | None, said: str, tmp_path: Path, settings: Settings) -> None:
    path = tmp_path / "edge_config.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UsageError, match=said) as raised:
        with_edge_config(settings, path)
    if said.startswith("unknown"):
        assert raised.value.hint == "did you mean 'quantization'?"


def test_wrong_arguments_are_said_before_anything_is_done(
    export: Exporting, workspace: Workspace, tmp_path: Path, digits_net: Path, settings: Settings
) -> None:
    (tmp_path / "file").write_text("in the way")
    common = ["--workspace", str(workspace.root), "export", "--json"]
    for words, code in (
        (["--checkpoint", str(tmp_path / "missing.pth")], 2),
        (["--checkpoint", "missing.pth"], 2),
        (["--checkpoint", str(tmp_path)], 2),
        (["--checkpoint", "abcdef"], 2),
        (["--checkpoint", str(tmp_path / "file")], 1),
        (["--checkpoint", str(digits_net), "--output-dir", str(tmp_path / "file")], 2),
        (["--checkpoint", str(digits_net), "--data", str(tmp_path / "nowhere")], 2),
        (["--checkpoint", str(digits_net), "--format", "tflite"], 2),
        (["--checkpoint", str(digits_net), 'export.formats=["tflite"]'], 2),
        (["--checkpoint", str(digits_net), "--edge-config", str(tmp_path / "file")], 2),
        ([], 2),
    ):
        where = [] if "--output-dir" in words else ["--output-dir", str(tmp_path / "out")]
        assert main([*common, *words, *where]) == code, words
    with pytest.raises(Rejected):
        open_subject(workspace, settings, str(tmp_path / "file"))
    assert not list((tmp_path / "out").glob("*.onnx"))
    with hold(tmp_path / "out" / ".export.lock", "another"), pytest.raises(Busy):
        export(formats=["onnx"])


def test_int8_without_data(export: Exporting) -> None:
    nothing = "data.kind=folder"
    with pytest.raises(UsageError, match="INT8 needs data"):
        export(nothing, formats=["int8"])
    report = export(nothing, formats=["onnx", "int8"])
    assert report["artifacts"][0]["accuracy"] is None
    assert "INT8 needs data" in report["skipped"][0]["reason"]


def test_int8_with_too_little_data_and_with_data_of_its_own(
    export: Exporting, workspace: Workspace, tmp_path: Path
) -> None:
    export(formats=["onnx"], images=8)  # lays the embedded digits out
    digits = workspace.data / "digits_test"
    (tmp_path / "one" / "3").mkdir(parents=True)
    next((digits / "3").iterdir()).rename(tmp_path / "one" / "3" / "a.png")
    with pytest.raises(UsageError, match=r"INT8 needs data .*one has 1, at least 4 are needed"):
        export(formats=["int8"], data=str(tmp_path / "one"))
    report = export("data.kind=folder", formats=["int8"], calibration=str(digits), allow_worse=True)
    assert (report["data"]["calibrated_on"] > 64, report["artifacts"][0]["accuracy"]) == (True, None)


def test_a_release_is_exported_whatever_its_file_is_called(
    subject: Subject, workspace: Workspace, settings: Settings, tmp_path: Path
) -> None:
    renamed = tmp_path / "mine.release"
    renamed.write_bytes(subject.release.path.read_bytes())
    for given in (subject.release.id[:8], str(subject.release.path), str(renamed)):
        assert open_subject(workspace, settings, given).release.id == subject.release.id
    broken = bytearray(renamed.read_bytes())
    broken[len(broken) // 2] ^= 1
    (tmp_path / subject.release.path.name).write_bytes(broken)
    with pytest.raises(Failed, match="damaged"):
        open_subject(workspace, settings, str(tmp_path / subject.release.path.name))


def test_formats_in_their_order() -> None:
    export = load_settings(None, None, ['export.formats=["torchscript","onnx"]']).settings.export
    assert wanted_formats((), export) == ["onnx", "torchscript", "int8"]
    assert wanted_formats(("int8", "onnx", "int8"), export) == ["onnx", "int8"]
    with pytest.raises(UsageError, match="no format is wanted"):
        wanted_formats((), export.model_copy(update={"formats": [], "quantization": False}))


def test_half_precision_that_overflows_is_not_written(export: Exporting, tmp_path: Path, digits_net: Path) -> None:
    state = torch.load(digits_net, weights_only=True)
    state["model_state_dict"]["head.weight"] *= 1e6
    state["model_state_dict"]["head.bias"] -= 5e5
    stream = io.BytesIO()
    torch.save(state, stream)
    path = tmp_path / "huge.pth"
    path.write_bytes(stream.getvalue())
    report = export(checkpoint=path, formats=["onnx", "fp16"], images=16)
    found = {row["format"]: row["max_abs_error"] for row in report["artifacts"]}
    assert found["onnx"] < 1e-4
    assert np.isfinite(found.get("fp16", 0.0))
