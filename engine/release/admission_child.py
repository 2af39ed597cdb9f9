"""The process that opens a checkpoint: `python -m engine.release.admission_child JOB PARENT`.

It is shut in (`sandbox`) and watched by its parent before it opens anything. It reads `job.json`, writes `model.onnx`, `weights.safetensors` and last `result.json`
beside it. Nothing else of the engine ever opens a checkpoint.
"""

from __future__ import annotations

import base64
import gc
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from engine.errors import UsageError
from engine.release import sandbox
from engine.release.card import read_card, read_origin
from engine.release.container import check_container
from engine.release.opcodes import ONLY_DATA, SAVE_STATE
from engine.release.refusal import Refusal, check_classes, check_task
from engine.tasks.medium import Limits, Medium, describe, whole
from engine.tasks.task import Kind, load_kind

if TYPE_CHECKING:
    import numpy as np
    import torch

_PREFIXES = {"module.": "DataParallel", "_orig_mod.": "torch.compile"}
_MAX_VALUES, _MAX_DEPTH = 500_000, 64


def main() -> None:
    gc.disable()  # a short life within limits: collecting again and again takes a fifth of it
    job_path = Path(sys.argv[1])
    job = json.loads(job_path.read_text())
    folder = job_path.parent
    layers = sandbox.enter(int(sys.argv[2]), job["cpu_s"], job["file_bytes"], folder)
    try:
        result = check_and_convert(job, folder)
    except Refusal as refusal:
        result = {
            "ok": False,
            "check": refusal.check,
            "message": refusal.message,
            "hint": refusal.hint,
            "dangerous": refusal.dangerous,
            "lasting": refusal.lasting,
        }
    scratch = folder / "result.part"
    scratch.write_text(json.dumps({**result, "isolated": layers.isolated}))
    scratch.rename(folder / "result.json")
    gc.freeze()  # nor at the end, where it would walk all of torch


def check_and_convert(job: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Put `job["checkpoint"]` through every check in order and write the release's two files into `folder`.

    Returns:
        The release's facts: task, architecture, classes, preprocess, input, output, parameters, notes, origin.

    Raises:
        Refusal: the first check that it fails.
    """
    path = Path(job["checkpoint"])
    check_container(path)
    notes: list[str] = []
    content = _load(path)
    state = _state_dict(content, notes)
    _check_tensors(state)
    card = read_card(content, job)
    check_task(card["task"], job["expect_task"])
    kind = _kind(card, job)
    medium = _medium(kind, card)
    net = _build(kind, card, state)
    if job["expect_classes"] is not None:
        check_classes(card["classes"], job["expect_classes"])
    parameters = sum(parameter.numel() for parameter in net.parameters())
    golden, wanted = _golden(net, medium)
    if job.get("convert", True):
        onnx = _convert(net, medium)
        _compare(onnx, medium, golden, wanted)
        shown = described(card["task"], onnx, medium)
    else:
        onnx = b""
        shown = dict(zip(("input", "output"), describe(medium), strict=True)) | {"golden": None}
    (folder / "model.onnx").write_bytes(onnx)
    (folder / "weights.safetensors").write_bytes(_weights(net))
    facts = {"parameters": parameters, "notes": notes, "origin": read_origin(content)}
    return {"ok": True, **card, **shown, **facts}


def _load(path: Path) -> dict[str, Any]:
    import torch

    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # noqa: BLE001 - a hostile pickle may raise anything
        reason = next((line for line in reversed(str(error).splitlines()) if line.strip()), type(error).__name__)
        raise Refusal("pickle", f"cannot be read as data ({reason.strip()[:160]})", ONLY_DATA) from None
    if not isinstance(content, dict):
        kind = type(content).__name__
        raise Refusal("content", f"holds a {kind}, not a dict", SAVE_STATE)
    _check_extent(content)
    return content


def _check_extent(content: dict[str, Any]) -> None:
    """Refuse what few bytes blow up: a list that holds another twice, which holds another twice, and so on."""
    left = _MAX_VALUES
    waiting: list[tuple[Any, int]] = [(content, 0)]
    while waiting:
        value, depth = waiting.pop()
        inner = list(value.values()) if isinstance(value, dict) else value
        left -= len(inner)
        if left < 0 or depth > _MAX_DEPTH:
            raise Refusal("content", "holds lists within lists without end", ONLY_DATA)
        waiting += [(item, depth + 1) for item in inner if isinstance(item, dict | list | tuple | set)]


def _state_dict(content: dict[str, Any], notes: list[str]) -> dict[str, torch.Tensor]:
    import torch

    if "model_state_dict" not in content:
        found = ", ".join(repr(str(key)) for key in list(content)[:4]) or "nothing"
        bare = content and all(isinstance(value, torch.Tensor) for value in content.values())
        what = "is a bare state dict" if bare else f"has no 'model_state_dict' (it has {found})"
        raise Refusal("content", what, SAVE_STATE)
    state = content["model_state_dict"]
    if not isinstance(state, dict) or not state:
        raise Refusal("content", "has an empty 'model_state_dict', or one that is no dict", SAVE_STATE)
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise Refusal(
                "content",
                f"has '{key}' in 'model_state_dict', which is a {type(value).__name__}, not a tensor",
                "keep only model.state_dict() there",
            )
    for prefix, origin in _PREFIXES.items():
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
            notes.append(f"saved from {origin}: the prefix '{prefix}' was taken off")
    return state


def _check_tensors(state: dict[str, torch.Tensor]) -> None:
    import torch

    for key, tensor in state.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.device.type != "cpu":
            raise Refusal("content", f"has '{key}' in a layout that is not plain", "save a plain float model")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise Refusal(
                "content", f"says that '{key}' is larger than its data", "save it again with torch.save(..., PATH)"
            )
    for key, tensor in state.items():
        if tensor.is_complex():
            raise Refusal("content", f"has complex numbers in '{key}'", "save a plain float model")
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            kind = "NaN" if bool(torch.isnan(tensor).any()) else "Inf"
            raise Refusal(
                "finite", f"has {kind} in '{key}'", "the training diverged: go back to an earlier checkpoint"
            )


def _kind(card: dict[str, Any], job: dict[str, Any]) -> Kind:
    try:
        return load_kind(card["task"], job["task"])
    except UsageError as error:
        raise Refusal("task", error.message, error.hint, lasting=False) from None


def _medium(kind: Kind, card: dict[str, Any]) -> Medium:
    try:
        return kind.medium(card)
    except Exception as error:  # noqa: BLE001 - a task of one's own may fail in its own way
        raise Refusal(
            "card", f"does not say rightly what it is made of ({_named(error)})", "write it with engine train"
        ) from None


def _build(kind: Kind, card: dict[str, Any], state: dict[str, torch.Tensor]) -> torch.nn.Module:
    import torch

    classes, name = card["classes"], card["architecture"]["name"]
    try:
        net = kind.net(card)
    except UsageError as error:
        raise Refusal("architecture", error.message, error.hint, lasting=False) from None
    except Exception as error:
        if card["task"] == "images":
            raise
        hint = "its task's net(card) must take the card that its training wrote"
        raise Refusal("architecture", f"cannot be built ({_named(error)})", hint, lasting=False) from error
    expected = net.state_dict()
    _check_shapes({k: tuple(v.shape) for k, v in state.items()}, {k: tuple(v.shape) for k, v in expected.items()},
                  name, len(classes))  # fmt: skip
    for key, tensor in state.items():
        if tensor.is_floating_point() != expected[key].is_floating_point():
            raise Refusal("shapes", f"has '{key}' as {tensor.dtype}, {name} wants {expected[key].dtype}",
                          "save a plain float model")  # fmt: skip
    net.load_state_dict(state, strict=False)  # strictly checked above, but for counters that nothing reads
    for key, tensor in net.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise Refusal("finite", f"has a number in '{key}' too large for float32", "save it as float32")
    return net.float().eval().requires_grad_(False)


def _check_shapes(
    state: dict[str, tuple[int, ...]], expected: dict[str, tuple[int, ...]], name: str, classes: int
) -> None:
    missing = [key for key in expected if key not in state and not key.endswith("num_batches_tracked")]
    surplus = [key for key in state if key not in expected]
    wrong = [key for key in expected if key in state and state[key] != expected[key]]
    if not (missing or surplus or wrong):
        return
    if not missing and not surplus and all(_differs_in_classes(state[k], expected[k], classes) for k in wrong):
        found = state[wrong[0]][0]
        raise Refusal(
            "shapes",
            f"answers {found} classes ('{wrong[0]}'), but {classes} class names are given",
            "give as many names, in training's order: source.classes",
        )
    parts = []
    if wrong:
        parts.append("; ".join(f"'{k}' is {list(state[k])}, not {list(expected[k])}" for k in wrong[:3]))
    if missing:
        parts.append(f"missing {', '.join(repr(key) for key in missing[:3])}{_and_more(missing)}")
    if surplus:
        parts.append(f"unknown {', '.join(repr(key) for key in surplus[:3])}{_and_more(surplus)}")
    raise Refusal(
        "shapes", f"does not fit {name}: {'; '.join(parts)}", "name its own architecture in source.model"
    )


def _differs_in_classes(found: tuple[int, ...], wanted: tuple[int, ...], classes: int) -> bool:
    return bool(found) and len(found) == len(wanted) and wanted[0] == classes and found[1:] == wanted[1:]


def _and_more(keys: list[str]) -> str:
    return f" and {len(keys) - 3} more" if len(keys) > 3 else ""


def _golden(net: torch.nn.Module, medium: Medium) -> tuple[np.ndarray, np.ndarray]:
    """The fixed inputs and the net's answers to them, after refusing answers that cannot be right."""
    import torch

    inputs, noun, shape = medium.golden(), medium.noun, list(medium.shape)
    with torch.inference_mode():
        try:
            parts = [net(torch.from_numpy(inputs[start : start + 3])) for start in range(0, len(inputs), 3)]
            outputs = torch.cat(parts)
        except Exception as error:  # noqa: BLE001 - any net may fail in its own way
            reason = (str(error) or type(error).__name__).splitlines()[0][:160]
            raise Refusal(
                "golden",
                f"cannot answer {'images of ' + str(shape[-1]) + ' px' if noun == 'image' else shape} ({reason})",
                "check source.img_size" if noun == "image" else "check what the task's medium gives it",
            ) from None
        found = list(outputs.shape)
        if medium.output == "probabilities" and outputs.ndim != 2:
            raise Refusal("golden", f"does not answer one row of logits an {noun}", "return logits [N, classes]")
        if medium.output == "values" and found != [len(inputs), *medium.output_shape]:
            wanted = [len(inputs), *medium.output_shape]
            raise Refusal("golden", f"answers {found}, not {wanted}", "mend the medium's output_shape, or the net")
        if not bool(torch.isfinite(outputs).all()):
            raise Refusal(
                "golden", f"answers NaN or Inf to ordinary {noun}s", "the training diverged: take an earlier one"
            )
        spread = float((outputs.max(0).values - outputs.min(0).values).max())
        if spread <= 1e-6 * max(1.0, float(outputs.abs().max())):
            raise Refusal(
                "golden", f"answers the same to every {noun}", "its weights are dead: take an earlier checkpoint"
            )
        return inputs, (torch.softmax(outputs, 1) if medium.output == "probabilities" else outputs).numpy()


def _convert(net: torch.nn.Module, medium: Medium) -> bytes:
    from engine.release.convert import to_onnx

    try:
        return to_onnx(net, medium.shape, medium.input_name, medium.output)
    except Exception as error:
        raise Refusal(
            "convert",
            f"cannot be expressed as ONNX ({_first_line(error)})",
            "avoid control flow that depends on the data",
        ) from error


def _compare(onnx: bytes, medium: Medium, inputs: np.ndarray, wanted: np.ndarray) -> None:
    """Refuse a converted model whose answers differ, alone (batch 1) or together (batch 3)."""
    import numpy as np

    from engine.release.convert import disagreement

    try:
        session = _session(onnx)
        answers_of = {
            size: [
                session.run(None, {medium.input_name: inputs[i : i + size]})[0]
                for i in range(0, len(inputs), size)
            ]
            for size in (1, 3)
        }
    except Exception as error:  # noqa: BLE001 - ONNX Runtime has a class of its own for each failure
        raise Refusal(
            "convert",
            f"does not run once converted, alone or three at once ({_first_line(error)})",
            f"take the number of {medium.noun}s from x.shape[0] as it is: no int(), no fixed number",
        ) from None
    for size, answers in answers_of.items():
        if difference := disagreement(wanted, np.concatenate(answers)):
            raise Refusal(
                "agreement",
                f"answers differently once converted (at batch {size}: {difference})",
                "look for layers that behave by batch or by chance",
            )


def _session(onnx: bytes) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])


def described(task: str, onnx: bytes, medium: Medium) -> dict[str, Any]:
    """What the manifest says of input and output, and the answers to what a slot is asked after each swap."""
    from engine.release import golden

    session = _session(onnx)
    bodies = medium.probes()
    answers = []
    for body in bodies:
        given = medium.decode(body, Limits())
        row = session.run(None, {medium.input_name: given[None]})[0][0]
        answers.append(golden.scores(whole(medium.answer(row, given, 5))))
    source, target = describe(medium)
    found = {"input": source, "golden": answers}
    if task == "images":
        return found
    return found | {"output": target, "probes": [base64.b64encode(body).decode() for body in bodies]}


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:160].rstrip(".")


def _weights(net: torch.nn.Module) -> bytes:
    from safetensors.torch import save

    return save({key: tensor.detach().clone().contiguous() for key, tensor in net.state_dict().items()})


if __name__ == "__main__":
    main()
