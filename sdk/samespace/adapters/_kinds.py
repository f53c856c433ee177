"""The kinds of adapters: one row each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from samespace.adapters._affine import fit_affine
from samespace.adapters._mlp import fit_mlp
from samespace.adapters._procrustes import fit_procrustes
from samespace_edge import AdapterLayers


@dataclass(frozen=True)
class Kind:
    """One way to fit an adapter.

    Attributes:
        name: as `fit_adapter` takes it.
        fit: pairs to fit on, pairs to choose settings on, and the options it takes -> layers, and
            what was chosen, for the adapter's file.
        takes: the options it takes: `rank`, `hidden`, `seed`.
        side: whether it can use side information.
        about: what it is, for people.
    """

    name: str
    fit: Callable[..., tuple[AdapterLayers, dict[str, Any]]]
    takes: frozenset[str]
    side: bool
    about: str


KINDS: dict[str, Kind] = {
    kind.name: kind
    for kind in (
        Kind(
            "procrustes",
            fit_procrustes,
            frozenset(),
            False,
            "a rotation between the means; keeps all angles, needs the fewest pairs",
        ),
        Kind(
            "affine",
            fit_affine,
            frozenset({"rank"}),
            True,
            "a matrix by ridge regression; stretches what the other model stretches",
        ),
        Kind(
            "mlp",
            fit_mlp,
            frozenset({"rank", "hidden", "seed"}),
            True,
            "affine, and a small net for the rest; needs many pairs and samespace[analysis]",
        ),
    )
}
