"""Which class of one tagger is which class of another: by name, never by position."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from samespace_edge import ConfigError


@dataclass(frozen=True)
class SharedClasses:
    """The classes that an old and a new tagger both have, and where each has them.

    Attributes:
        in_old, in_new: int64 (K,): positions of the K shared classes, in the old one's order.
        old_place: int64 (C,): where the old tagger has each class of the new one; -1 for new ones.
    """

    in_old: Tensor
    in_new: Tensor
    old_place: Tensor

    @classmethod
    def between(cls, old: Sequence[str], new: Sequence[str]) -> SharedClasses:
        """Raises `ConfigError` where fewer than two classes are shared: nothing can be compared."""
        place = {name: i for i, name in enumerate(new)}
        in_old = [i for i, name in enumerate(old) if name in place]
        if len(in_old) < 2:
            raise ConfigError(
                f"the old tagger's {len(old)} classes, such as {old[0]!r}, and the new one's "
                f"{len(new)}, such as {new[0]!r}, have {len(in_old)} in common; at least 2 are "
                "needed. Name the classes alike"
            )
        in_new = torch.tensor([place[old[i]] for i in in_old])
        old_place = torch.full((len(new),), -1)
        old_place[in_new] = torch.tensor(in_old)
        return cls(torch.tensor(in_old), in_new, old_place)

    def __len__(self) -> int:
        return len(self.in_old)


def need_same_classes(first: Sequence[str], second: Sequence[str], rule: str) -> None:
    """Raises `ConfigError` unless both have the same classes, in whatever order.

    Args:
        rule: what the message begins with: who needs that.
    """
    if set(first) == set(second):
        return
    lone = sorted(set(first) ^ set(second))
    whose = "the first" if lone[0] in set(first) else "the second"
    raise ConfigError(
        f"{rule}: the first has {len(first)}, the second {len(second)}, and only {whose} has "
        f"{lone[0]!r}. Train both on the same classes"
    )
