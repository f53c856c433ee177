"""Several tunings of one base in one network, and one of them taken away again."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Literal

from samespace_cloud.linear import MergedTangents
from samespace_cloud.tagging.classes import need_same_classes
from samespace_cloud.tuning.checkpoint import TunedCheckpoint, merged, need_free
from samespace_edge import ConfigError


def merge_tuned(
    checkpoints: Mapping[str, TunedCheckpoint],
    folder: str | Path,
    how: Literal["average", "sum"] = "average",
) -> TunedCheckpoint:
    """One network with the tangents of several (Tangent Model Composition, Liu, Soatto 2023).

    Args:
        checkpoints: by name, all of one base; what is merged itself is one of them as it is.
        folder: for the merged checkpoint, which keeps the members' tangents.
        how: `average` or `sum`.

    Raises `ConfigError` where there is none, or they differ in classes, base, tuned parameters,
    what they see, or space.
    """
    need_free(Path(folder))
    named = list(checkpoints.items())
    for name, other in named[1:]:
        first_name, first = named[0]
        rule = f"tunings that are merged ({first_name}, {name}) need the same classes"
        need_same_classes(first.classes, other.classes, rule)
        if other.sees != first.sees:
            raise ConfigError(
                f"{first_name} sees {first.sees}, {name} {other.sees}; merge tunings of one base"
            )
        if other.space != first.space:
            raise ConfigError(
                f"{first_name} and {name} are tuned towards cloud models of different spaces, so "
                "their vectors cannot be compared"
            )
    together = MergedTangents({name: c.vector for name, c in named}, how)
    return _saved(named[0][1], together, folder)


def remove_tuned(checkpoint: TunedCheckpoint, name: str, folder: str | Path) -> TunedCheckpoint:
    """A merged network without one of its members: exactly what merging the others gives.

    Raises `ConfigError` for a checkpoint that was not merged, a member that it does not have, and
    its only one.
    """
    need_free(Path(folder))
    members = merged(checkpoint)
    if set(checkpoint.members) == {name}:
        raise ConfigError(f"{name!r} is the only member; without it, use the base")
    return _saved(checkpoint, members.without(name), folder)


def _saved(like: TunedCheckpoint, together: MergedTangents, folder: str | Path) -> TunedCheckpoint:
    model = deepcopy(like.model)
    together.vector.apply(model)
    names = sorted(together.members)
    made = replace(
        like,
        model=model,
        pictures=(),
        members=together.members,
        how=together.how,
        targets=None,
        metrics={"norm": together.vector.norm},
        log=(),
        card={**like.card, "merged": f"{together.how} of {', '.join(names)}"},
    )
    made.save(folder)
    return made
