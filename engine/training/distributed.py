"""The processes of one run: one a GPU, over one machine or several, as torchrun starts them.

Every process holds the whole net and takes its share of the rows of each batch; DistributedDataParallel adds up
the gradients. The first process alone validates, saves and speaks.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import nn

from engine.errors import UsageError
from engine.training.launch import STORE, launched

_PATIENCE = timedelta(days=7)  # the others wait while the first validates


@dataclass(frozen=True)
class Group:
    """This process is number `rank` of the run's `size`."""

    rank: int = 0
    size: int = 1

    @property
    def lead(self) -> bool:
        return self.rank == 0

    def prepared(self, net: nn.Module, device: str) -> nn.Module:
        """The net with batch norms that see the whole batch, where they can: torch has that on CUDA alone."""
        if self.size == 1 or device != "cuda":
            return net
        return nn.SyncBatchNorm.convert_sync_batchnorm(net)

    def wrap(self, net: nn.Module, device: str) -> nn.Module:
        """The net with its gradients averaged over the group."""
        if self.size == 1:
            return net
        places = [torch.cuda.current_device()] if device == "cuda" else None
        return nn.parallel.DistributedDataParallel(net, device_ids=places)

    def any(self, flag: bool) -> bool:
        """Whether the flag is up in one of the processes; all of them must ask."""
        if self.size == 1:
            return flag
        word = torch.tensor(int(flag))
        dist.all_reduce(word, dist.ReduceOp.MAX, group=_control())
        return bool(word)

    def total(self, value: float) -> float:
        """The sum over the processes, all of which must ask."""
        if self.size == 1:
            return value
        word = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(word, group=_control())
        return float(word)

    def told(self, value: Any) -> Any:
        """The first process's value, in all of them."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0, group=_control())
        return box[0]

    @contextlib.contextmanager
    def apart(self, net: nn.Module, *, last: bool) -> Iterator[None]:
        """For all micro-batches of a step but the last: gradients stay with their process."""
        if self.size == 1 or last:
            yield
            return
        with net.no_sync():
            yield


ALONE = Group()
_controls: list[dist.ProcessGroup] = []


def _control() -> dist.ProcessGroup:
    """Words between processes go over gloo, on the CPU: they wait for no GPU."""
    return _controls[0]


def lost(error: BaseException) -> bool:
    """Whether an error says that another process of the group has gone."""
    words = ("Connection closed by peer", "Connection reset by peer", "Broken pipe", "NCCL", "heartbeat")
    return isinstance(error, dist.DistError) or (
        isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    )


@contextlib.contextmanager
def joined() -> Iterator[Group]:
    """Take part in the group that the environment names; alone where it names none.

    Raises:
        UsageError: there are more processes than GPUs.
    """
    if not launched():
        yield ALONE
        return
    backend = "gloo"
    if torch.cuda.is_available():
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if local >= torch.cuda.device_count():
            raise UsageError(
                f"process {local + 1} of this machine has no GPU: there are {torch.cuda.device_count()}",
                "give fewer training.processes, or --device cpu",
            )
        torch.cuda.set_device(local)
        backend = "cpu:gloo,cuda:nccl"
    store = os.environ.get(STORE)
    place = {"rank": int(os.environ["RANK"]), "world_size": int(os.environ["WORLD_SIZE"])} if store else {}
    dist.init_process_group(backend, init_method=store or "env://", **place)
    _controls.append(dist.new_group(backend="gloo", timeout=_PATIENCE))
    try:
        yield Group(dist.get_rank(), dist.get_world_size())
    finally:
        _controls.clear()
        dist.destroy_process_group()
