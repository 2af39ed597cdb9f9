"""Labelled requests for a comparison: bodies with the label that a right answer has. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Labelled:
    """One labelled request.

    Attributes:
        path: the file that is its body; None where `content` is.
        name: its path in the set, unique there.
        label: the class, or what a table groups it by where `truth` holds the rest.
        sha256: that of its bytes ("" until they were read).
        truth: whatever else `Medium.is_right` wants to know.
    """

    path: Path | None
    name: str
    label: str
    sha256: str = ""
    content: bytes | None = None
    truth: Any = None

    def read(self) -> bytes:
        """The body; OSError as reading its file raises it."""
        if self.content is not None:
            return self.content
        assert self.path is not None
        return self.path.read_bytes()


@dataclass
class LabelledSet:
    """A set as it is listed: `key` says which set it is (for pooling), `shown` names it for people.

    Attributes:
        listed: a table names the labels, else the folders do.
        classes: the labels are class names: what not both releases know is left out.
        excluded: labels that not both releases know, with how many images have them.
    """

    key: str
    shown: str
    images: list[Labelled]
    listed: bool = False
    classes: bool = True
    notes: list[str] = field(default_factory=list)
    excluded: dict[str, int] = field(default_factory=dict)
