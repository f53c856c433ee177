"""Which models claim to search which galleries, and what each claim is judged against."""

from __future__ import annotations

from collections.abc import Sequence

from samespace.verification._models import Model


def claims(models: Sequence[Model]) -> list[tuple[Model, Model]]:
    """Query and gallery models that say they share a space.

    Of two cloud models only the newer one claims the other's gallery: the older one was there
    first, and what becomes of its searches is told by the upgrade.
    """
    return [
        (q, g)
        for q in models
        for g in models
        if q is not g
        and "query" in q.declared
        and "gallery" in g.declared
        and one_space(q, g)
        and not is_upgrade(g, q)
    ]


def upgrades(models: Sequence[Model]) -> list[tuple[Model, Model]]:
    """Old and new cloud models of one space, whichever of the two is asked about."""
    taking_part = [m for m in models if {"query", "gallery"} & set(m.declared)]
    return [(old, new) for old in taking_part for new in taking_part if is_upgrade(new, old)]


def is_upgrade(new: Model, old: Model) -> bool:
    """Whether `new` is a later cloud model of the space of `old`.

    The anchor of a space is its oldest model; of two others the one whose gallery the caller
    named first is the older one.
    """
    ours, theirs = new.embedder.identity, old.embedder.identity
    if not one_space(new, old) or {new.manifest.role, old.manifest.role} != {"cloud"}:
        return False
    if ours.fingerprint == theirs.fingerprint or ours.is_anchor:  # another file of one model
        return False
    if theirs.is_anchor or new.place is None:
        return True
    return old.place is not None and old.place < new.place


def one_space(one: Model, other: Model) -> bool:
    """Whether two models claim that their vectors can be compared."""
    ours, theirs = one.embedder.identity, other.embedder.identity
    return ours.space == theirs.space and ours.dim == theirs.dim


def references(query: Model, gallery: Model, models: Sequence[Model]) -> list[tuple[Model, bool]]:
    """What a claim has to beat on both sides, and whether that decides.

    For an upgrade that is the gallery's own model, whatever else is named: M(new, old) against
    M(old, old) (BCT, Shen et al. 2020, section 3).
    """
    if is_upgrade(query, gallery):
        return [(gallery, True)]
    baselines = [m for m in models if "baseline" in m.declared and m is not query]
    return [(query, not baselines)] + [(b, True) for b in baselines]
