"""Training a tagger that replaces another one: `samespace update tagger`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from samespace import Dataset
from samespace_cloud.checkpoint import Checkpoint
from samespace_cloud.material import _CACHE, Progress
from samespace_cloud.tagging.checkpoint import TaggerCheckpoint, ensemble_of
from samespace_cloud.tagging.classes import SharedClasses, need_same_classes
from samespace_cloud.tagging.config import TaggerConfig
from samespace_cloud.tagging.data import Labelled, codes_of, read_labelled
from samespace_cloud.tagging.fitting import Tagging, fit, shown
from samespace_cloud.tagging.losses import Influence, Term, TermContext
from samespace_cloud.tagging.methods import find_method
from samespace_cloud.tagging.model import Tagger, new_tagger
from samespace_cloud.tagging.reference import (
    Reference,
    SavedLogits,
    TaggerReference,
    reference_of,
)
from samespace_cloud.tagging.sees import FromPictures, FromVectors
from samespace_cloud.tagging.training import card_of, measured, right, train_members
from samespace_cloud.tagging.update_config import UpdateConfig
from samespace_edge import ConfigError


def update_tagger(
    dataset: Dataset,
    config: TaggerConfig,
    update: UpdateConfig,
    old: TaggerCheckpoint | Reference | str | Path,
    folder: str | Path,
    *,
    start: Checkpoint | TaggerCheckpoint | None = None,
    members: Sequence[TaggerCheckpoint] | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> TaggerCheckpoint:
    """Train a tagger that is to be right where the old one is.

    It may differ from the old one in network, pictures and classes; see
    `samespace_cloud.tagging.methods` for what each method does with new classes.

    Args:
        dataset: its train part is learnt from, its val part, or a share of train, validates.
        config: how, as for a tagger of its own.
        update: by which method.
        old: a tagger, an ensemble, or saved logits of the train pictures (`.npz`). A tagger sees
            the very view that the new one learns from, saved logits are those of the unchanged
            pictures.
        folder: for checkpoint, log and what a stopped training resumes from; members are kept
            beside it, as `NAME-member-0` and so on.
        start: whose weights it begins with; goes with `init='checkpoint'`.
        members: of `elodi` and `ensemble`: taggers of the new network on the new pictures that are
            there already, in the place of `update.members` that are trained.
        progress: is told the stage and how much of how much is done.

    Returns the checkpoint, which is also written to `folder`: of `ensemble` with all members, else
    a single tagger. Its metrics on validation pictures are `accuracy` and, where the old one knows
    these, `old_accuracy`, `negative_flips` (NFR) and `positive_flips`, as shares.

    Raises `ConfigError` where the two have fewer than two classes in common, or for a method that
    `old` says too little for, and `DataError` for saved logits of other pictures.
    """
    folder = Path(folder)
    method = find_method(update.method)
    data = read_labelled(dataset, config)
    before = reference = reference_of(old)
    if method.members:
        if members is None:
            members = train_members(dataset, config, folder, update.members, start, progress)
        if not members:
            raise ConfigError(f"{update.method} needs members, and there are none")
        together = ensemble_of(members)
        rule = "members, and the pictures that they are trained on, need the same classes"
        need_same_classes(together.classes, data.classes, rule)
        if method.term is None:
            if together.sees != config.sees:
                raise ConfigError(
                    f"the members are {together.sees.architecture}, the settings say "
                    f"{config.sees.architecture}; give the settings that they were trained with"
                )
            _finish(together, config, update, start, dataset, data, before, folder)
            return together
        reference = TaggerReference(together)
    tagger = new_tagger(config, data.classes, start)
    term = _term(method.term, update, data.classes, tagger, reference)
    taught = reference if term is not None and term.taught else None
    augments = isinstance(config.sees, FromPictures) and not config.canvas
    if taught is not None and augments and taught.side > config.side:
        # It would be asked about pictures that were made too small.
        config = replace(config, canvas=taught.side)
    views = shown(dataset, data, config, taught, folder, progress)
    students = Tagging(tagger, term, update.weight)
    about = (
        data.digest,
        str(start and start.fingerprint),
        str(update.to_json()),
        reference.key if method.term else "",
    )
    kept, trainer = fit(students, views, data.codes(data.train), config, folder, about, progress)
    checkpoint = TaggerCheckpoint((kept,), data.classes)
    _finish(checkpoint, config, update, start, dataset, data, before, folder)
    trainer.finish()
    return checkpoint


def _term(
    term: type[Term] | None,
    update: UpdateConfig,
    classes: Sequence[str],
    tagger: Tagger,
    reference: Reference,
) -> Term | None:
    if term is None:
        return None
    sees = tagger.sees
    if term is Influence and isinstance(sees, FromVectors) and not sees.hidden:
        raise ConfigError(
            "bct moves an embedding towards the old one's, and a linear tagger on a bundle's "
            "vectors has none to move; set hidden above 0, or use focal-kl"
        )
    shared = SharedClasses.between(reference.classes, classes)
    return term(TermContext(update, shared, tagger.width, reference.head))


def _finish(
    checkpoint: TaggerCheckpoint,
    config: TaggerConfig,
    update: UpdateConfig,
    start: Checkpoint | TaggerCheckpoint | None,
    dataset: Dataset,
    data: Labelled,
    before: Reference,
    folder: Path,
) -> None:
    checkpoint.settings = {"tagger": config.to_json(), "update": update.to_json()}
    new = len(set(data.classes) - set(before.classes))
    gone = len(set(before.classes) - set(data.classes))
    checkpoint.card = {
        **card_of(config, data, start),
        "replaces": f"{before.about}, by {update.method}",
        "classes": f"{len(data.classes) - new} of the old one's, {new} new, {gone} given up",
    }
    checkpoint.metrics = measured(checkpoint, dataset, data, folder) | _against(
        checkpoint, dataset, data, before, folder
    )
    checkpoint.save(folder)


def _against(
    checkpoint: TaggerCheckpoint, dataset: Dataset, data: Labelled, before: Reference, folder: Path
) -> dict[str, float]:
    """What turned on validation pictures; nothing where nobody knows."""
    if not data.val or (isinstance(before, SavedLogits) and not before.knows(data.val)):
        return {}
    cache = folder.parent / _CACHE
    was, now = (
        right(one.predict(dataset, data.val, cache), codes_of(data.val, one.classes))
        for one in (before, checkpoint)
    )
    return {
        "old_accuracy": float(was.double().mean()),
        "negative_flips": float((was & ~now).double().mean()),
        "positive_flips": float((~was & now).double().mean()),
    }
