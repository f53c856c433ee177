"""Paired vectors -> adapter, and how good it is."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import Any

from samespace.adapters._kinds import KINDS, Kind
from samespace.adapters._models import ModelLike, model_of
from samespace.adapters._pairs import paired, split
from samespace.adapters._quality import Quality, measure
from samespace_edge import Adapter, ConfigError, Fingerprint

# The pairs that pairing at random would find by luck are one; this many may still be luck.
_LUCK = 3


@dataclass(frozen=True)
class AdapterFit:
    """A fitted adapter, and how good it is.

    Attributes:
        adapter: what was fitted; its file holds these figures too.
        held_out: its quality on pairs that it was not fitted to.
        unadapted: of the same pairs with the source vectors as they are; None where the widths
            differ.
        notes: what has to be known beside the figures.
    """

    adapter: Adapter
    held_out: Quality
    unadapted: Quality | None
    notes: tuple[str, ...]


def fit_adapter(
    source_vectors: Any,
    target_vectors: Any,
    *,
    source: ModelLike,
    target: ModelLike,
    kind: str = "affine",
    side: Any = None,
    side_model: ModelLike | None = None,
    rank: int | None = None,
    hidden: int | None = None,
    held_out: float = 0.1,
    seed: int = 0,
    data: str = "",
) -> AdapterFit:
    """Fit a map from one model's vectors to another's, and measure it on pairs kept back.

    Forward: source is the old model, target the new one; old gallery vectors are lifted into the
    new space, and nothing but the vectors is needed. Backward: source is the new model, target the
    old one; new queries are searched in the old gallery. It is the same function.

    Args:
        source_vectors: floats (N, D) by the source model, only their direction counts.
        target_vectors: floats (N, O) by the target model; row i is the same picture in both.
            Never test pictures.
        source, target: the models. Give bundles where there are any: an adapter fitted for a bare
            fingerprint cannot be made a bundle.
        kind: `procrustes`, `affine` or `mlp`; see `KINDS`.
        side: floats (N, S): side information, stored beside every source vector at indexing time
            for this purpose (FCT, Ramanujan et al. 2022, section 3), about as long as a unit
            vector. It has to be given to `Adapter.apply` likewise.
        side_model: who makes the side information. With it, a gallery that keeps another model's
            is not lifted by this adapter, and the adapter can be made a bundle.
        rank: rank of the matrix, for `affine` and `mlp`; None for full rank.
        hidden: units of the net, for `mlp`.
        held_out: share of the pairs that only measures, at most 2,000. A tenth of all chooses
            settings such as the ridge.
        seed: of the division into these, and of the net.
        data: what the pairs are, for people.

    The same input gives the same adapter. Raises `ConfigError` for an unknown kind, an option that
    the kind does not take, unpaired or fewer than 20 pairs, `DimensionError` for vectors that
    are not the models', `InvalidVectorError` for NaN, infinity and zero vectors. With fewer pairs
    than a vector has numbers it is fitted, and `notes` says what that means.
    """
    how = _kind(kind, side, {"rank": rank, "hidden": hidden})
    pairs = paired(source_vectors, target_vectors, side)
    maker, imitated = model_of(source), model_of(target)
    maker.check(pairs.x.shape[1] - pairs.side_dim, "source")
    imitated.check(pairs.y.shape[1], "target")
    beside = _side_maker(side_model, pairs.side_dim)
    fit, choose, held = split(pairs, held_out, seed)
    given = {k: v for k, v in (("rank", rank), ("hidden", hidden)) if v is not None}
    seeded = {"seed": seed} if "seed" in how.takes else {}
    layers, chosen = how.fit(fit, choose, **given, **seeded)

    adapter = Adapter(
        kind,
        layers,
        maker.fingerprint,
        imitated.fingerprint,
        imitated.space,
        side_dim=pairs.side_dim,
        preprocessing=maker.preprocessing,
        architecture=maker.architecture,
        side=beside,
    )
    width = adapter.source_dim
    vectors, stored = held.x[:, :width], held.x[:, width:] if pairs.side_dim else None
    quality = measure(adapter.apply(vectors, stored), held.y)
    unadapted = measure(vectors, held.y) if width == adapter.dim else None
    notes = tuple(_notes(adapter, len(fit) + len(choose), quality, unadapted))
    fitted = {
        "pairs": len(pairs),
        "data": data,
        "held_out": quality.to_json(),
        "unadapted": unadapted.to_json() if unadapted else None,
        "seed": seed,
        "chosen": {**given, **chosen},
        "notes": list(notes),
        "producer": f"samespace {version('samespace')}",
    }
    return AdapterFit(replace(adapter, fitted=fitted), quality, unadapted, notes)


def _kind(name: str, side: Any, options: dict[str, Any]) -> Kind:
    if name not in KINDS:
        raise ConfigError(f"no kind of adapter {name!r}; there are {', '.join(KINDS)}")
    kind = KINDS[name]
    for option, value in options.items():
        if value is not None and option not in kind.takes:
            taking = ", ".join(k.name for k in KINDS.values() if option in k.takes)
            raise ConfigError(f"{option} is for {taking}; an adapter of kind {name} has none")
    if side is not None and not kind.side:
        taking = ", ".join(k.name for k in KINDS.values() if k.side)
        raise ConfigError(f"{name} cannot use side information; {taking} can")
    return kind


def _side_maker(model: ModelLike | None, width: int) -> Fingerprint | None:
    if model is None:
        return None
    if not width:
        raise ConfigError("a side model was named, but no side information given (side=)")
    maker = model_of(model)
    maker.check(width, "side")
    return maker.fingerprint


def _notes(
    adapter: Adapter, fitted_to: int, quality: Quality, unadapted: Quality | None
) -> Iterator[str]:
    width = adapter.source_dim + adapter.side_dim
    if fitted_to <= width:
        yield (
            f"It was fitted to {fitted_to} pairs, and what it takes is {width} numbers wide: there "
            "are directions that no pair shows. procrustes turns them arbitrarily, the others "
            "leave them out; pictures unlike these will be mapped badly. Give more pairs."
        )
    if adapter.kind == "mlp" and not adapter.layers.residual:
        yield "The net brought nothing on pairs that it was not fitted to, so this is affine alone."
    if quality.pairs > 10 * _LUCK and quality.recall_at_1 * quality.pairs <= _LUCK:
        yield (
            "Held-out vectors find their own targets hardly more often than by chance. Make sure "
            "that row i is the same picture on both sides."
        )
    if unadapted and unadapted.recall_at_1 >= quality.recall_at_1:
        yield "Vectors as they are find as many of the held-out targets: they may need no adapter."
