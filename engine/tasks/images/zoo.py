"""timm's models by name, imported only when one is asked for.

torchvision's wheel is built for CUDA: beside a CPU torch its import fails because the operators `nms`
and `qnms` were never declared, and timm imports torchvision. Declaring the two names first is enough,
for timm's nets use neither; it is done only after a plain import has failed.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

import torch
from torch import nn

from engine.errors import UsageError, nearest
from engine.tasks.images.names import ALIASES, OWN

_NAMES = ("nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
          "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # fmt: skip
_ANSWER_S = 5.0  # how long the hub may take to answer at all
_declared: list[Any] = []  # the library's declarations live as long as this object


def load_timm() -> ModuleType:
    """The timm module.

    Raises:
        UsageError: it is not installed, or does not import beside this torch.
    """
    try:
        return importlib.import_module("timm")
    except ModuleNotFoundError as error:
        if error.name not in ("timm", "torchvision"):
            raise
        raise UsageError(
            "this model needs timm, which is not installed",
            "install the zoo extra: pip install 'understudy[zoo]'",
            kind="missing_extra",
        ) from None
    except (RuntimeError, ImportError):
        pass
    if not _declared:
        library = torch.library.Library("torchvision", "DEF")
        for name in _NAMES:
            library.define(name)
        _declared.append(library)
    for name in [name for name in sys.modules if name.partition(".")[0] in ("timm", "torchvision")]:
        del sys.modules[name]  # the failed import left half-made modules behind
    try:
        return importlib.import_module("timm")
    except (RuntimeError, ImportError) as error:
        raise UsageError(
            f"timm does not import beside torch {torch.__version__} ({error})",
            "install matching versions of torch, torchvision and timm",
            kind="missing_extra",
        ) from error


def build(name: str, num_classes: int, *, pretrained: bool, settings: dict[str, Any]) -> nn.Module:
    """The timm model `name` (one of the documents' names, or `architecture` or `architecture.tag`).

    Args:
        pretrained: begin with the published weights of its tag; the last layer fits `num_classes`.

    Raises:
        UsageError: timm is missing, does not know the name or tag, or its weights cannot be had.
    """
    name = ALIASES.get(name, name)
    try:
        timm = load_timm()
    except UsageError as error:
        raise UsageError(f"model '{name}' is not built in, and {error.message}",
                         f"{error.hint}; built in: {', '.join(OWN)}", kind=error.kind) from None  # fmt: skip
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        close = nearest(architecture, [*OWN, *timm.list_models()])
        raise UsageError(f"unknown model '{name}'", close, kind="unknown_model")
    published = timm.list_pretrained(architecture)
    if tag and name not in published:
        raise UsageError(f"{architecture} has no weights '{tag}'", nearest(name, published), kind="unknown_model")
    extra: dict[str, Any] = {}
    file = None
    if pretrained:
        if not published:
            raise UsageError(f"timm has no published weights for {name}", "leave model.pretrained=false")
        file = _published_file(timm, name)
        extra = {"pretrained": True, **({"pretrained_cfg_overlay": {"file": str(file)}} if file else {})}
    try:
        return timm.create_model(name, num_classes=num_classes, **extra, **settings)
    except TypeError as error:
        raise UsageError(
            f"model {name} cannot be built ({error})", "see model.settings", kind="bad_model"
        ) from error
    except Exception as error:
        if not pretrained:
            raise
        raise UsageError(
            f"cannot begin with the published weights of {name} ({_one_line(error)})",
            f"is {file} damaged? Bring it again, or train with model.pretrained=false"
            if file
            else "try again, or train with model.pretrained=false",
            kind="no_weights",
        ) from error


def check_side(model: nn.Module, name: str, side: int) -> None:
    """Refuse images of a size that a net of fixed size does not take.

    Raises:
        UsageError: its patches are laid out for another side.
    """
    patches: Any = getattr(model, "patch_embed", None)
    wanted = getattr(patches, "img_size", None)
    if wanted is not None and getattr(patches, "strict_img_size", False) and tuple(wanted) != (side, side):
        raise UsageError(
            f"{name} takes images of {wanted[0]} px alone, not {side}",
            f"set data.img_size={wanted[0]}, or have it built for {side}: model.settings.img_size={side}",
            kind="bad_model",
        )


def _published_file(timm: ModuleType, name: str) -> Path | None:
    """The weights of `name` where they lie on this machine, or None where they can be fetched.

    Looked for in the Hugging Face cache, by the snapshot it fetched itself or one put at `snapshots/main`, and in
    torch hub's folder. The hub is asked once, briefly: its own client would try for most of a minute.

    Raises:
        UsageError: neither; it names the file to bring.
    """
    from huggingface_hub import constants, hf_hub_url, try_to_load_from_cache
    from huggingface_hub.file_download import repo_folder_name

    config = timm.get_pretrained_cfg(name)
    flat = Path(torch.hub.get_dir()) / "checkpoints" / PurePosixPath(config.url).name if config.url else None
    if flat and flat.is_file():
        return flat
    address, place = config.url, flat
    if config.hf_hub_id:
        repository, _, revision = config.hf_hub_id.partition("@")
        files = [config.hf_hub_filename] if config.hf_hub_filename else ["model.safetensors", "pytorch_model.bin"]
        for file in files:
            cached = try_to_load_from_cache(repository, file, revision=revision or None)
            if isinstance(cached, str):
                return Path(cached)
        folder = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repository, repo_type="model")
        place = folder / "snapshots" / (revision or "main") / files[0]
        address = hf_hub_url(repository, files[0], revision=revision or None)
        if why := "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else _unreachable(address):
            raise _bring(name, why, address, place)
    elif why := _unreachable(address):
        raise _bring(name, why, address, place)
    return None


def _unreachable(address: str) -> str:
    """Why nothing answers at an address, or ""."""
    import httpx

    try:
        httpx.head(address, timeout=_ANSWER_S)
    except httpx.HTTPError as error:
        return f"{httpx.URL(address).host} cannot be reached: {_one_line(error)}"
    return ""


def _bring(name: str, why: str, address: str, place: Path | None) -> UsageError:
    return UsageError(
        f"the published weights of {name} are not on this machine, and {why}",
        f"fetch {address} on another machine (curl -LO) and bring it to {place}, or anywhere and set"
        " model.pretrained=PATH",
        kind="no_weights",
    )


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:160] or type(error).__name__
