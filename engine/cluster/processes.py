"""One training in several processes over the nodes of a cluster: Ray Train places them, torch's DDP joins them.

Ray Train starts one worker a process, gives each its rank, and begins all anew when one is lost. Each worker starts
`train` as torchrun would. What is begun anew goes on from the run's own last save: exactly there, for a worker that is
lost ends its pipe, and the others then stop with it between two steps and save.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from engine.cluster import node
from engine.cluster.joining import Cluster, Share
from engine.cluster.runs import OFF
from engine.errors import Failed, UsageError
from engine.training.runs import RunFolder
from engine.training.signals import StopRequest

STOP, CODE = "stop", "code"  # beside the run: that it is to stop, and how its first process ended
_INTERRUPTED = 130
_POLL_S = 0.1


def process_count(cluster: Cluster, wanted: int, *, gpu: bool) -> int:
    """How many processes a run takes: `training.processes`, or one a GPU of the cluster."""
    return wanted or (cluster.gpus if gpu else 0) or 1


def train(
    cluster: Cluster,
    folder: RunFolder,
    command: Callable[[str], Sequence[str]],
    processes: int,
    share: Share,
    retries: int,
    stop: StopRequest,
) -> int:
    """Train the run in `folder` in so many processes, and go on where it stood when one of them is lost.

    Args:
        command: the engine's words with `--resume` or `--claimed`, whichever it is given.
        retries: so often it is begun anew.
        stop: ends the run between two steps.

    Returns:
        The exit code of the first process.

    Raises:
        UsageError: Ray Train is not installed.
        Failed: processes were lost more often than `retries`, or a node does not see the workspace.
    """
    try:
        from ray.train import FailureConfig, RunConfig, ScalingConfig
        from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
    except ImportError as error:
        raise UsageError(
            f"Ray Train cannot be imported ({error})",
            "install it with: pip install 'understudy[cluster]'",
            kind="not_installed",
        ) from None
    storage = folder.root / "ray"
    storage.mkdir(exist_ok=True)
    for name in (STOP, CODE):
        (storage / name).unlink(missing_ok=True)
    trainer = DataParallelTrainer(
        _process,
        train_loop_config={
            "root": str(folder.root),
            "begin": [*command("--claimed"), OFF],
            "resume": [*command("--resume"), OFF],
            "threads": None if share.gpus else share.cpus,
        },
        scaling_config=ScalingConfig(
            num_workers=processes,
            use_gpu=bool(share.gpus),
            resources_per_worker={"CPU": share.cpus} | ({"GPU": share.gpus} if share.gpus else {}),
        ),
        run_config=RunConfig(
            name=str(time.time_ns()), storage_path=str(storage), failure_config=FailureConfig(max_failures=retries)
        ),
    )
    _fit(trainer, folder, stop, storage / STOP)
    return int((storage / CODE).read_text())


def _fit(trainer: Any, folder: RunFolder, stop: StopRequest, stopping: Path) -> None:
    """Ray Train's run, beside this thread: signals stay ours."""
    failed: list[BaseException] = []

    def fit() -> None:
        try:
            trainer.fit()
        except Exception as error:  # noqa: BLE001 - told to whoever waits, in the other thread
            failed.append(error)

    thread = threading.Thread(target=fit, name="ray train", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(_POLL_S)
        if stop:
            stopping.touch()
    if failed:
        raise Failed(
            f"run {folder.run} was lost on the cluster ({_reason(failed[0])})",
            f"go on with: python -m engine train --resume {folder.run}",
            kind="process_lost",
        ) from failed[0]


def _process(config: dict[str, Any]) -> None:
    """One of the run's processes, in a worker of Ray Train.

    Raises:
        Killed: it, or one of the others, was lost: all are begun anew.
        Unseen: this node does not see the workspace.
    """
    from ray import train, util
    from ray.train.collective import broadcast_from_rank_zero

    context = train.get_context()
    rank = context.get_world_rank()
    host, port = broadcast_from_rank_zero((util.get_node_ip_address(), _free_port()) if rank == 0 else None)
    env = {
        "MASTER_ADDR": host,
        "MASTER_PORT": str(port),
        "RANK": str(rank),
        "WORLD_SIZE": str(context.get_world_size()),
        "LOCAL_RANK": str(context.get_local_rank()),
        "LOCAL_WORLD_SIZE": str(context.get_local_world_size()),
    }
    env |= {"OMP_NUM_THREADS": str(config["threads"])} if config["threads"] else {}
    folder = RunFolder(Path(config["root"]))
    stop = folder.root / "ray" / STOP
    words = config["resume" if folder.last.exists() else "begin"]
    code = node.attend(node.begin(config["root"], words, env, first=rank == 0), stop.exists)
    if code == _INTERRUPTED and not stop.exists():
        raise node.Killed("it stopped because another process was lost")
    if rank == 0:
        if code and (folder.smaller.exists() or folder.read_manifest().get("error_kind") == "process_lost"):
            raise node.Killed("another process of the run was lost")
        (folder.root / "ray" / CODE).write_text(str(code))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _reason(error: BaseException) -> str:
    return " ".join(str(error.__cause__ or error).split())[:200]
