"""`go parse` as Ray tasks, a shard each: the texts go to a node, the finished file comes back and is written here.

The nodes need neither the games nor the folder. A shard is claimed while it is made, so that other workers on the
folder, with Ray or without, share the work as ever; one whose worker is lost is done again, and no other.
"""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.cluster.joining import Cluster, Share
from engine.errors import Failed
from engine.tasks.go.claims import Claims
from engine.tasks.go.inventory import Inventory
from engine.tasks.go.parse import Hands, Made, Said, is_made, shard_name, shard_of, write_shard
from engine.tasks.go.plan import Filters, Plan, Planned

_ONE_CORE = Share(1)
_WAIT_S = 0.2
_AHEAD = 2  # tasks a core: one is made while the next one's texts are on their way


def hands(cluster: Cluster, retries: int) -> Hands:
    """Who makes the shards for `engine.tasks.go.parse.parse`: every core of the cluster."""

    def make(folder: Path, plans: list[Plan], found: Inventory, say: Said) -> list[Made]:
        return [_Work(cluster, retries, folder, found, say).run(plans)]

    return make


def _made(shard: Planned, filters: Filters, texts: Mapping[str, bytes | str]) -> tuple[dict[str, Any], bytes]:
    """On a node: a shard's note and file; in the place of a text that could not be read there is the reason."""

    def text(digest: str) -> bytes:
        found = texts[digest]
        if isinstance(found, str):
            raise OSError(found)
        return found

    return shard_of(shard, filters, text)


class _Work:
    def __init__(self, cluster: Cluster, retries: int, folder: Path, found: Inventory, say: Said) -> None:
        self._cluster, self._folder, self._found, self._say = cluster, folder, found, say
        self._task = cluster.task(_made, _ONE_CORE, retries)
        self._claims = Claims(folder)
        self._live: dict[Any, tuple[Planned, contextlib.ExitStack]] = {}
        self._shards = self._games = 0

    def run(self, plans: list[Plan]) -> Made:
        """Make shards until none is left; those that other workers hold are waited for.

        Raises:
            Failed: a text has changed, or a shard's worker was lost too often.
        """
        missing: list[str] = []
        todo: deque[tuple[Planned, Filters]] = deque()
        for plan in plans:
            for shard in plan.shards:
                absent = next((name for digest, name in shard.games if digest not in self._found.games), None)
                if is_made(self._folder, shard):
                    continue
                if absent is None:
                    todo.append((shard, plan.filters))
                else:
                    missing.append(absent)
        try:
            while todo or self._live:
                held = self._send(todo)
                if self._live:
                    self._take(wait_s=_WAIT_S if held else None)
                elif held:
                    time.sleep(_WAIT_S)
        finally:
            for reference, (_, claim) in self._live.items():
                self._cluster.ray.cancel(reference, force=True)
                claim.close()
        return Made(self._shards, self._games, tuple(missing))

    def _send(self, todo: deque[tuple[Planned, Filters]]) -> bool:
        """Fill the cluster; whether another worker holds what is left."""
        for _ in range(len(todo)):
            if len(self._live) >= self._cluster.cpus * _AHEAD:
                return False
            shard, filters = todo.popleft()
            if is_made(self._folder, shard):
                continue
            with contextlib.ExitStack() as stack:
                if not stack.enter_context(self._claims.claim(shard_name(shard))):
                    todo.append((shard, filters))
                    continue
                reference = self._task.remote(shard, filters, self._texts(shard))
                self._live[reference] = shard, stack.pop_all()
        return bool(todo)

    def _texts(self, shard: Planned) -> dict[str, bytes | str]:
        texts: dict[str, bytes | str] = {}
        for digest, name in shard.games:
            try:
                texts[digest] = self._found.text(digest)
            except OSError as error:
                texts[digest] = str(error)
            except ValueError as error:
                raise Failed(f"{name}: {error}", "run go parse again") from None
        return texts

    def _take(self, wait_s: float | None) -> None:
        done, _ = self._cluster.ray.wait(list(self._live), timeout=wait_s)
        for reference in done:
            shard, claim = self._live.pop(reference)
            with claim:
                try:
                    note, content = self._cluster.ray.get(reference)
                except self._cluster.ray.exceptions.RayError as error:
                    raise Failed(
                        f"shard {shard.number} could not be made on the cluster"
                        f" ({str(error).strip().splitlines()[-1][:160]})",
                        "run go parse again: finished shards are kept",
                    ) from None
                kept = write_shard(self._folder, shard, note, content)
            self._shards, self._games = self._shards + 1, self._games + len(shard.games)
            self._say(f"{shard_name(shard)}.npz: {kept} of {len(shard.games)} games")
