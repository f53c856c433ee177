"""Find one picture under several names: what makes an evaluation find itself."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence

from samespace_edge import Pixels

_LEARNT = ("train", "val")


def picture_digest(pixels: Pixels) -> bytes:
    """Return a digest of decoded pixels, uint8 (H, W, 3): equal for equal pictures alone."""
    digest = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    digest.update(pixels.tobytes())
    return digest.digest()


def describe_repeats(
    pictures: Iterable[tuple[bytes, str, str, str]],
) -> Iterator[str]:
    """Yield a sentence for every picture that stands where it must not stand twice.

    A picture may be in the gallery twice, or among the queries. It must not be both a query and in
    the gallery, in train and in test, or under two labels.

    Args:
        pictures: digest, path, label and side (`train`, `val`, `query` or `gallery`) of each.
    """
    groups: dict[bytes, dict[str, tuple[str, str]]] = {}
    for digest, path, label, side in pictures:
        groups.setdefault(digest, {}).setdefault(path, (label, side))
    for group in groups.values():
        if len(group) > 1:
            yield from _describe_group(group)


def _describe_group(group: Mapping[str, tuple[str, str]]) -> Iterator[str]:
    by_side: dict[str, list[str]] = {}
    by_label: dict[str, list[str]] = {}
    for path, (label, side) in group.items():
        by_side.setdefault(side, []).append(path)
        by_label.setdefault(label, []).append(path)
    tested = [*by_side.get("query", ()), *by_side.get("gallery", ())]
    learnt = [path for side in _LEARNT for path in by_side.get(side, ())]
    if "query" in by_side and "gallery" in by_side:
        yield (
            f"{_some(by_side['query'])} (query) and {_some(by_side['gallery'])} (gallery) are the "
            "same picture, pixel by pixel: the search would find the query itself. Remove one"
        )
    if tested and learnt:
        sides = " and ".join(side for side in _LEARNT if side in by_side)
        yield (
            f"{_some(learnt)} ({sides}) and {_some(tested)} (test) are the same picture, pixel by "
            "pixel: the test would ask for what was learnt. Remove one"
        )
    if len(by_label) > 1:
        shown = " and ".join(f"{_some(p)} ({label!r})" for label, p in sorted(by_label.items()))
        yield f"one picture, pixel by pixel, is under {len(by_label)} labels: {shown}. Keep one"


def _some(paths: Sequence[str]) -> str:
    return paths[0] if len(paths) == 1 else f"{paths[0]} and {len(paths) - 1} more"
