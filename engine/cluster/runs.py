"""The runs of a sweep as Ray tasks, each wherever in the cluster there is room for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from engine.cluster import node
from engine.cluster.joining import Cluster, Share
from engine.config import Settings
from engine.store.clock import timestamp
from engine.training.runs import RunFolder
from engine.training.sweep import Place

OFF = "cluster.address=none"  # the last word of a command that runs on a node: it goes no further
_LOST = -9
_INTERRUPTED = 130


class RemoteRun:
    """A run on the cluster, as `engine.training.sweep.Process` wants it.

    Args:
        reference: of its task.
        tell: takes what the log of a run that could not even begin is to say.
    """

    pid = 0  # its manifest knows where it is

    def __init__(self, ray: Any, reference: Any, tell: Callable[[str], None]) -> None:
        self._ray, self._reference, self._tell = ray, reference, tell
        self._code: int | None = None

    def poll(self) -> int | None:
        if self._code is None and self._ray.wait([self._reference], timeout=0)[0]:
            self._code = self._ended()
        return self._code

    def send_signal(self, sig: int) -> None:
        """Any signal asks it to stop between two steps; a second one does not let it end its step."""
        self._ray.cancel(self._reference, force=False)

    def _ended(self) -> int:
        errors = self._ray.exceptions
        try:
            return int(self._ray.get(self._reference))
        except errors.TaskCancelledError:
            return _INTERRUPTED
        except node.Unseen as error:  # Ray raises what its task raised, with its own class beside
            self._tell(str(error.__cause__ or error))
            return 1
        except (node.Killed, errors.RayError):
            return _LOST


def places(
    cluster: Cluster, settings: Sequence[Settings], cpus: int | None, jobs: int | None
) -> tuple[Share, list[Place]]:
    """What each run gets, and one place for each of those that go on at a time.

    Args:
        cpus: `cluster.cpus` of this command.

    Raises:
        UsageError: no node has so many cores as `cluster.cpus`.
    """
    gpu = any(one.device.prefer in ("auto", "cuda") for one in settings)
    share, count = cluster.share(cpus, gpu=gpu, at_once=jobs)
    return share, [Place("", {} if share.gpus else {"OMP_NUM_THREADS": str(share.cpus)})] * count


def starter(
    cluster: Cluster, share: Share, retries: int, command: Callable[[RunFolder], Sequence[str]]
) -> Callable[[RunFolder, Place], RemoteRun]:
    """What starts a run for `Sweep`.

    Args:
        command: the engine's words that begin or resume the training in a run folder.
    """
    task = cluster.task(node.train, share, retries, (node.Killed,))

    def start(child: RunFolder, place: Place) -> RemoteRun:
        def tell(text: str) -> None:
            with child.log.open("a", encoding="utf-8") as log:
                log.write(f"{timestamp()} error: {text}\n")

        reference = task.remote(str(child.root), [*command(child), OFF], dict(place.env))
        return RemoteRun(cluster.ray, reference, tell)

    return start
