"""A clustering, and what is different from the one before, as values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, repr=False)
class Changes:
    """What is different from the clustering before.

    Attributes:
        added, removed: items that were not there then, or are not any more; how many.
        common: items that were there then and are now; how many.
        moved: of those, the ones whose cluster has another number: from which to which.
        new, gone: numbers that did not exist then, or do not any more, ascending.
        split: a former cluster, and the clusters that consist mostly of its items, where these
            are two or more; "mostly" and "most" are more than half of the common items.
        merged: a cluster, and the former clusters most of whose items it has, two or more.
    """

    added: int
    removed: int
    common: int
    moved: Mapping[str, tuple[int, int]]
    new: tuple[int, ...]
    gone: tuple[int, ...]
    split: Mapping[int, tuple[int, ...]]
    merged: Mapping[int, tuple[int, ...]]

    @property
    def kept(self) -> float | None:
        """Share of the common items that kept their cluster, 0 to 1; None without such items."""
        return 1 - len(self.moved) / self.common if self.common else None

    def __repr__(self) -> str:
        return f"Changes({'; '.join(self.sentences())})"

    def sentences(self) -> Iterator[str]:
        """The same in words."""
        if self.added or self.removed:
            yield f"{self.added:,} items came, {self.removed:,} went"
        if self.kept is not None:
            yield (
                f"{self.kept:.1%} of the {self.common:,} items that were there kept their cluster, "
                f"{len(self.moved):,} moved"
            )
        for former, parts in self.split.items():
            yield f"{former} split into {_numbers(parts)}"
        for cluster, formers in self.merged.items():
            yield f"{_numbers(formers)} merged into {cluster}"
        if self.new:
            yield f"new: {_numbers(self.new)}"
        if self.gone:
            yield f"gone: {_numbers(self.gone)}"

    def to_json(self) -> dict[str, Any]:
        """For machines."""
        return {
            "added": self.added,
            "removed": self.removed,
            "common": self.common,
            "kept": self.kept,
            "moved": {item: list(numbers) for item, numbers in self.moved.items()},
            "new": list(self.new),
            "gone": list(self.gone),
            "split": {str(k): list(v) for k, v in self.split.items()},
            "merged": {str(k): list(v) for k, v in self.merged.items()},
        }


@dataclass(frozen=True, repr=False)
class Clustering:
    """Which cluster every item of a gallery is in.

    Attributes:
        name: of the clustering; a gallery may have several.
        space: of the gallery, 64 hexadecimal digits.
        settings: `distance`, or `count`, and `seed`.
        method: how the clusters were found.
        assignments: the number of every item's cluster, by the item's id.
        next_number: the next new cluster gets it; all that were ever given are below.
        revision: 1 for the first clustering of this name, one more for each after it.
        created: date and time, ISO 8601, UTC.
        version: of samespace.
        changes: from the clustering before; None for the first, and for one read from its file.
    """

    name: str
    space: str
    settings: Mapping[str, Any]
    method: str
    assignments: Mapping[str, int]
    next_number: int
    revision: int
    created: str
    version: str
    changes: Changes | None = None

    def __repr__(self) -> str:
        return (
            f"Clustering({self.name!r}, {len(self.assignments)} items in {len(self.clusters)} "
            f"clusters, revision {self.revision})"
        )

    @property
    def clusters(self) -> dict[int, list[str]]:
        """The ids of every cluster's items, sorted; the largest cluster first."""
        found: dict[int, list[str]] = {}
        for item, number in sorted(self.assignments.items()):
            found.setdefault(number, []).append(item)
        return dict(sorted(found.items(), key=lambda c: (-len(c[1]), c[0])))


_SHOWN = 10


def _numbers(numbers: tuple[int, ...]) -> str:
    shown = [str(n) for n in numbers[:_SHOWN]]
    if len(numbers) > _SHOWN:
        shown.append(f"{len(numbers) - _SHOWN} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"
