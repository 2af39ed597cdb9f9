"""Labelled data answered as Ray tasks, a block of inputs each: `analyze`, `ensemble` and `submit` on many nodes.

A node needs neither the data nor the nets: each block brings its files' contents, and the nets come once to each
worker. Blocks end where the inputs of one call of a net end, so that the answers are those of one machine.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from engine.cluster.joining import Cluster
from engine.config import Settings
from engine.errors import Failed
from engine.store.workspace import Workspace
from engine.tasks.labelled import Labelled
from engine.tasks.medium import Limits
from engine.training.inference import Answers, Loaded, answer_all, load_for_inference, rows_at_once

_CALLS = 8  # of the nets in a block
_AHEAD = 2  # blocks a place: one is answered while the next is on its way


def answer_on(
    cluster: Cluster,
    settings: Settings,
    members: Sequence[Loaded],
    files: Sequence[Path],
    items: Sequence[Labelled],
    limits: Limits,
    on_progress: Callable[[int, int], None] = lambda done, count: None,
) -> Answers:
    """As `answer_all`, by the nodes of a cluster; a block whose worker is lost is answered again, and no other.

    Args:
        members: the nets as this process has them.
        files: what they were read from, in the same order.

    Raises:
        Failed: a block's worker was lost too often, or it cannot load a net.
    """
    ray = cluster.ray
    gpu = settings.device.prefer in ("auto", "cuda")
    share, places = cluster.share(None, gpu=gpu)  # decoding and ONNX Runtime take all cores of a machine
    task = cluster.task(_answer, share, settings.cluster.retries)
    nets = [ray.put(file.read_bytes()) for file in files]  # in a list, so that a node fetches one when it wants it
    told = settings.model_dump_json()
    size = rows_at_once(members) * _CALLS
    todo = deque(range(0, len(items), size))
    live: dict[Any, int] = {}
    found: dict[int, Answers] = {}
    while todo or live:
        while todo and len(live) < places * _AHEAD:
            start = todo.popleft()
            block = [_with_content(item) for item in items[start : start + size]]
            live[task.remote(told, [member.source for member in members], nets, block, limits)] = start
        for reference in ray.wait(list(live))[0]:
            try:
                found[live.pop(reference)] = ray.get(reference)
            except ray.exceptions.RayError as error:
                reason = str(error).strip().splitlines()[-1][:200]
                raise Failed(f"the cluster could not answer ({reason})", "leave cluster.address out") from None
            on_progress(sum(len(one.kept) + len(one.failed) for one in found.values()), len(items))
    ordered = sorted(found.items())
    shapes = [member.medium.output_shape for member in members]
    return Answers(
        [
            np.concatenate([np.empty((0, *shape), np.float32), *(one.rows[number] for _, one in ordered)])
            for number, shape in enumerate(shapes)
        ],
        [start + place for start, one in ordered for place in one.kept],
        [failure for _, one in ordered for failure in one.failed],
    )


def _with_content(item: Labelled) -> Labelled:
    try:
        return replace(item, content=item.read())
    except OSError:
        return item  # the node says why it cannot be read


def _answer(
    settings: str, names: Sequence[str], nets: Sequence[Any], items: Sequence[Labelled], limits: Limits
) -> Answers:
    """On a node: a block's answers."""
    members = [_loaded(settings, name, net) for name, net in zip(names, nets, strict=True)]
    return answer_all(members, items, limits)


_nets: dict[tuple[str, str], Loaded] = {}  # of this worker; it lives as long as the command's job


def _loaded(settings: str, name: str, net: Any) -> Loaded:
    """A net, fetched and loaded once in each worker."""
    import ray

    key = settings, net.hex()
    if key not in _nets:
        with tempfile.TemporaryDirectory(prefix="understudy-net-") as folder:
            path = Path(folder) / Path(name).name
            path.write_bytes(ray.get(net))
            found = Settings.model_validate_json(settings)
            _nets[key] = load_for_inference(Workspace(Path(folder)), found, str(path))
    return _nets[key]
