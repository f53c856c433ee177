"""Numbers for groups, so that a group keeps the number of the cluster that it continues."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from samespace.clusters._values import Changes

Groups = NDArray[np.int64]

_ALONE = 1e-9


def number_groups(
    ids: Sequence[str], groups: Groups, former: Mapping[str, int], next_number: int
) -> tuple[dict[str, int], int]:
    """The number of every item's cluster, by id, and the next number.

    Of all ways to give every group at most one former number, the one is taken by which most items
    keep theirs: an assignment problem (Kuhn 1955), solved on those pairs alone that share items.
    Ties go to the smaller number, then to the larger group. Groups that get none have new ones,
    the largest first.

    Args:
        ids: of the items (N,), ascending.
        groups: (N,), any numbers.
        former: the clustering before, by item id.
        next_number: all numbers that were ever given are below.
    """
    if not len(ids):
        return {}, next_number
    _, first, codes, sizes = np.unique(
        groups, return_index=True, return_inverse=True, return_counts=True
    )
    # By size and then by their first item: what the groups are called must not matter.
    place = np.empty(len(sizes), np.int64)
    place[np.lexsort((first, -sizes))] = np.arange(len(sizes))
    codes = place[codes]
    numbers = _continued(ids, codes, len(sizes), former)
    for code in range(len(sizes)):
        if code not in numbers:
            numbers[code] = next_number
            next_number += 1
    return {i: numbers[int(c)] for i, c in zip(ids, codes, strict=True)}, next_number


def _continued(
    ids: Sequence[str], codes: Groups, count: int, former: Mapping[str, int]
) -> dict[int, int]:
    """The former number of every group that has one."""
    shared = Counter((former[i], int(c)) for i, c in zip(ids, codes, strict=True) if i in former)
    if not shared:
        return {}
    from scipy.sparse import coo_array  # type: ignore[import-untyped]
    from scipy.sparse.csgraph import (  # type: ignore[import-untyped]
        min_weight_full_bipartite_matching,
    )

    pairs = sorted(shared)
    formers = sorted({number for number, _ in pairs})
    row_of = {number: row for row, number in enumerate(formers)}
    rows = [row_of[number] for number, _ in pairs]
    columns = [code for _, code in pairs]
    # Ties: all bonuses together are less than one item.
    bonus = 1 - np.arange(len(pairs)) / len(pairs)
    weights = np.array([shared[p] for p in pairs]) + bonus / (len(pairs) + 1)
    # A column more for every row, so that it may be left alone: the solver matches all rows.
    alone = np.arange(len(formers))
    matrix = coo_array(
        (
            np.concatenate([weights, np.full(len(formers), _ALONE)]),
            (np.concatenate([rows, alone]), np.concatenate([columns, count + alone])),
        ),
        shape=(len(formers), count + len(formers)),
    )
    chosen = zip(*min_weight_full_bipartite_matching(matrix.tocsr(), maximize=True), strict=True)
    return {int(column): formers[row] for row, column in chosen if column < count}


def changes_between(former: Mapping[str, int], current: Mapping[str, int]) -> Changes:
    """What is different, both given as the number of every item's cluster, by id."""
    common = sorted(former.keys() & current.keys())
    came: dict[int, Counter[int]] = defaultdict(Counter)
    went: dict[int, Counter[int]] = defaultdict(Counter)
    for item in common:
        came[current[item]][former[item]] += 1
        went[former[item]][current[item]] += 1
    numbers, formers = set(current.values()), set(former.values())
    return Changes(
        added=len(current) - len(common),
        removed=len(former) - len(common),
        common=len(common),
        moved={i: (former[i], current[i]) for i in common if former[i] != current[i]},
        new=tuple(sorted(numbers - formers)),
        gone=tuple(sorted(formers - numbers)),
        split=_several(came),
        merged=_several(went),
    )


def _several(shares: Mapping[int, Counter[int]]) -> dict[int, tuple[int, ...]]:
    """Of clusters by whom they share items with: those that two or more mostly belong to."""
    found: dict[int, list[int]] = defaultdict(list)
    for number, counter in sorted(shares.items()):
        ((largest, items),) = counter.most_common(1)
        if 2 * items > counter.total():
            found[largest].append(number)
    return {number: tuple(parts) for number, parts in sorted(found.items()) if len(parts) > 1}
