"""The order in which an epoch visits its images, a function of (seed, epoch) alone.

An order is made of tickets. Ticket t stands for image t % n, and t itself seeds the image's augmentation, so that an
image that comes twice in an epoch (t and t + n) is changed in two ways.
"""

from __future__ import annotations

import numpy as np

from engine.tasks.images.augment import generator


def epoch_order(seed: int, epoch: int, labels: np.ndarray, sampling: str = "uniform") -> np.ndarray:
    """Tickets of one epoch, int64 [n].

    Args:
        labels: int64 [n], the class of each image.
        sampling: "uniform", each image once; or "balanced", each class as often as any other (to within one), its
            images in turn: those of small classes several times, of large ones a part, a different one each epoch.
    """
    stream = generator(seed, epoch, -1)
    count = len(labels)
    if sampling == "uniform":
        return stream.permutation(count)
    classes = stream.permutation(np.unique(labels))
    shares = np.full(len(classes), count // len(classes))
    shares[: count % len(classes)] += 1
    tickets = []
    for label, share in zip(classes, shares, strict=True):
        members = np.flatnonzero(labels == label)
        rounds = -(-int(share) // len(members))
        tickets += [np.concatenate([stream.permutation(members) + n * count for n in range(rounds)])[:share]]
    return stream.permutation(np.concatenate(tickets))
