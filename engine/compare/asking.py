"""Both slots asked the same bytes: concurrent, in alternating order, each answer with its time or its error."""

from __future__ import annotations

import asyncio
import mimetypes
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from engine.compare.images import read_image
from engine.errors import Failed
from engine.release.control import NOT_LIVE
from engine.store.workspace import SLOTS, TITLES
from engine.tasks.labelled import Labelled
from engine.tasks.medium import Medium

if TYPE_CHECKING:
    import httpx

GIVE_UP = 20  # a slot that fails on this many images in a row is down: the rest would say nothing
_LOOK_SHARE = 20  # a look may take this part of the time between two looks
_BAD_IMAGE = (400, 413, 415, 422)


@dataclass(frozen=True)
class Target:
    """A live slot: where it listens, the release it served at the start, and the labels that it knows."""

    slot: str
    port: int
    url: str
    release: str
    classes: list[str]


@dataclass(frozen=True)
class Answer:
    """A slot's answer to one image: a label, or why there is none. `status` is HTTP's, 0 without an answer.

    An answer that its task calls right has the image's own label, a wrong one never: so whatever a task's answers
    are, what is stored and counted is whether label and answer are equal.
    """

    label: str | None
    latency_ms: float
    status: int = 200
    error: str | None = None

    @property
    def bad_image(self) -> bool:
        return self.status in _BAD_IMAGE


@dataclass
class Answers:
    """What was answered, image by image, at the places drawn; None where nobody was asked yet.

    `problem`: why asking stopped before the end, or None. `decided`: at how many images, in the order drawn,
    the evidence was enough; what had been asked beyond is no part of the comparison.
    """

    pairs: list[dict[str, Answer] | None]
    problem: Failed | None = None
    decided: int | None = None
    in_a_row: dict[str, int] = field(default_factory=lambda: dict.fromkeys(SLOTS, 0))

    @property
    def done(self) -> int:
        return sum(pair is not None for pair in self.pairs)


def ask_both(
    targets: dict[str, Target],
    images: list[Labelled],
    answers: Answers,
    *,
    medium: Medium,
    concurrency: int,
    timeout_s: float,
    on_progress: Callable[[int, int], None] | None = None,
    on_look: Callable[[], None] | None = None,
    look_every_s: float = 1.0,
    decided_at: Callable[[], int | None] | None = None,
) -> None:
    """Fill `answers` with both slots' answers to every image; what was answered stays there on Ctrl-C.

    Sets `answers.problem` and stops when a slot serves another release than at the start, when an image
    changes on the disk, or when a slot fails on 20 images in a row.

    Args:
        medium: of the slots' task.
        concurrency: images under way at once; of one image the slots are asked one after the other, so that
            neither competes with the other for the machine any more than the other does.
        timeout_s: of one answer, waiting for a full queue included.
        on_progress: called with the images done and the images in all.
        on_look: called in a thread about every `look_every_s` seconds; what it raises ends the asking.
        decided_at: called after every image; a number ends the asking with that many images.
    """
    work = _ask_all(targets, medium, images, answers, concurrency, timeout_s, on_progress, decided_at)
    asyncio.run(_with_looks(work, on_look, look_every_s) if on_look else work)


async def _with_looks(work: Coroutine[Any, Any, None], on_look: Callable[[], None], every_s: float) -> None:
    """`work`, with looks beside it that do not hold up the answers' clocks."""

    async def look() -> None:
        while True:
            await asyncio.sleep(every_s)
            begun = time.monotonic()
            await asyncio.to_thread(on_look)
            await asyncio.sleep(
                _LOOK_SHARE * (time.monotonic() - begun)
            )  # a large comparison is written less often

    looking = asyncio.create_task(look())
    try:
        asking = asyncio.create_task(work)
        done, _ = await asyncio.wait([asking, looking], return_when=asyncio.FIRST_COMPLETED)
        if looking in done and not asking.done():
            asking.cancel()
        for task in done:
            task.result()
    finally:
        for task in (asking, looking):
            task.cancel()
        await asyncio.gather(asking, looking, return_exceptions=True)


async def _ask_all(
    targets: dict[str, Target],
    medium: Medium,
    images: list[Labelled],
    answers: Answers,
    concurrency: int,
    timeout_s: float,
    on_progress: Callable[[int, int], None] | None,
    decided_at: Callable[[], int | None] | None,
) -> None:
    import httpx

    queue = iter(range(len(images)))

    async def work(client: httpx.AsyncClient) -> None:
        for place in queue:
            if answers.problem or answers.decided is not None:
                return
            try:
                answers.pairs[place] = await _ask_pair(client, targets, medium, images[place], place, timeout_s)
            except Failed as problem:
                answers.problem = answers.problem or problem
                return
            _count_failures(answers, place, targets)
            if decided_at and answers.decided is None:
                answers.decided = decided_at()
            if on_progress:
                on_progress(answers.done, len(images))

    # Without the environment's proxies: the slots are on this host or on the config's.
    async with httpx.AsyncClient(trust_env=False, timeout=timeout_s) as client:
        await asyncio.gather(*(work(client) for _ in range(min(concurrency, len(images)))))


async def _ask_pair(
    client: httpx.AsyncClient,
    targets: dict[str, Target],
    medium: Medium,
    image: Labelled,
    place: int,
    timeout_s: float,
) -> dict[str, Answer]:
    content = read_image(image)
    guessed = mimetypes.guess_type(image.path.name)[0] if image.path else medium.media_types[0].replace("*", "png")
    media = guessed or "application/octet-stream"

    def said(answer: dict[str, Any]) -> str:
        if medium.is_right(answer, image):
            return image.label
        label = str(answer["label"])
        return label if label != image.label else f"{label} (wrong)"

    order = SLOTS if place % 2 == 0 else SLOTS[::-1]
    return {slot: await _ask(client, targets[slot], content, media, said, timeout_s) for slot in order}


async def _ask(
    client: httpx.AsyncClient,
    target: Target,
    content: bytes,
    media: str,
    said: Callable[[dict[str, Any]], str],
    timeout_s: float,
) -> Answer:
    import httpx

    begun = time.perf_counter()

    def failed(error: str, status: int = 0) -> Answer:
        return Answer(None, (time.perf_counter() - begun) * 1000, status, error)

    try:
        async with asyncio.timeout(timeout_s):
            while True:
                sent = time.perf_counter()
                headers = {"content-type": media, **NOT_LIVE}
                response = await client.post(f"{target.url}/predict", content=content, headers=headers)
                if response.status_code != 503:
                    break
                await asyncio.sleep(_retry_after(response.headers.get("retry-after")))
    except (TimeoutError, httpx.TimeoutException):
        return failed(f"no answer in {timeout_s:g} s")
    except httpx.HTTPError as error:
        return failed(f"{type(error).__name__}: {error}".rstrip(": "))
    if response.status_code != 200:
        return failed(f"HTTP {response.status_code}", response.status_code)
    try:
        body: dict[str, Any] = response.json()
        label, release = said(body), str(body["release"])
    except (ValueError, KeyError, TypeError):
        return failed("an answer that is no prediction", 200)
    if release != target.release:
        raise Failed(
            f"{TITLES[target.slot]} changed from {target.release[:8]} to {release[:8]} during the comparison",
            "compare again; `hold` keeps TO-BE as it is",
            kind="slot_changed",
        )
    return Answer(label, (time.perf_counter() - sent) * 1000)


def _retry_after(header: str | None) -> float:
    try:
        return min(max(float(header or 0.1), 0.05), 2.0)
    except ValueError:
        return 0.1


def _count_failures(answers: Answers, place: int, targets: dict[str, Target]) -> None:
    pair = answers.pairs[place]
    assert pair is not None
    for slot, answer in pair.items():
        answers.in_a_row[slot] = answers.in_a_row[slot] + 1 if answer.error and not answer.bad_image else 0
        if answers.in_a_row[slot] >= GIVE_UP and answers.problem is None:
            answers.problem = Failed(
                f"{TITLES[slot]} ({targets[slot].port}) failed on {GIVE_UP} images in a row ({answer.error})",
                "see the slot's log, then compare again",
                kind="slot_failing",
            )
