"""Training a tagger: `samespace train tagger`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from torch import Tensor

from samespace import Dataset
from samespace_cloud.card import _STARTED
from samespace_cloud.checkpoint import Checkpoint
from samespace_cloud.material import _CACHE, Progress
from samespace_cloud.tagging.checkpoint import TaggerCheckpoint, is_tagger
from samespace_cloud.tagging.config import TaggerConfig
from samespace_cloud.tagging.data import Labelled, codes_of, read_labelled
from samespace_cloud.tagging.fitting import Tagging, fit, shown
from samespace_cloud.tagging.model import new_tagger
from samespace_edge import canonical_json


def train_tagger(
    dataset: Dataset,
    config: TaggerConfig,
    folder: str | Path,
    *,
    start: Checkpoint | TaggerCheckpoint | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> TaggerCheckpoint:
    """Train a tagger of the classes of a dataset.

    Args:
        dataset: its train part is learnt from, its val part, or a share of train, validates.
        config: how.
        folder: for checkpoint, log and what a stopped training resumes from. Decoded pictures and
            views lie beside it, for the next training on the same data.
        start: whose weights it begins with; goes with `init='checkpoint'`.
        progress: is told the stage and how much of how much is done.

    Returns the checkpoint, which is also written to `folder`. The same call again ends at the same
    weights. Raises `DataError` for a dataset that no tagger can learn, `ConfigError` for settings.
    """
    folder = Path(folder)
    data = read_labelled(dataset, config)
    tagger = new_tagger(config, data.classes, start)
    views = shown(dataset, data, config, None, folder, progress)
    students = Tagging(tagger, None, 0.0)
    about = (data.digest, str(start and start.fingerprint))
    kept, trainer = fit(students, views, data.codes(data.train), config, folder, about, progress)
    checkpoint = TaggerCheckpoint(
        members=(kept,),
        classes=data.classes,
        settings={"tagger": config.to_json()},
        card=card_of(config, data, start),
    )
    checkpoint.metrics = measured(checkpoint, dataset, data, folder)
    checkpoint.save(folder)
    trainer.finish()
    return checkpoint


def train_members(
    dataset: Dataset,
    config: TaggerConfig,
    folder: Path,
    count: int,
    start: Checkpoint | TaggerCheckpoint | None,
    progress: Progress,
) -> list[TaggerCheckpoint]:
    """Taggers that differ by their seeds, beside `folder`: `NAME-member-0` and so on.

    The seeds are 1,000 * (seed + 1) and on, so that an old tagger is hardly one of them. They share
    views, which are made once. Members that are there already, trained with the same settings on
    the same pictures, are kept.
    """
    data = read_labelled(dataset, config)
    found = []
    for i in range(count):
        own = replace(
            config, seed=1000 * (config.seed + 1) + i, views_seed=config.augmentation_seed
        )
        place = folder.parent / f"{folder.name}-member-{i}"
        if is_tagger(place):
            there = TaggerCheckpoint.load(place)
            same = canonical_json(there.settings) == canonical_json({"tagger": own.to_json()})
            if same and there.card == card_of(own, data, start):
                found.append(there)
                continue
        found.append(train_tagger(dataset, own, place, start=start, progress=progress))
    return found


def card_of(
    config: TaggerConfig, data: Labelled, start: Checkpoint | TaggerCheckpoint | None
) -> dict[str, str]:
    """What a tagger says of how it was made, for people."""
    return {
        "started": f"from the weights of {start.fingerprint.short}…"
        if start
        else _STARTED[config.init],
        "trained on": f"{len(data.train)} pictures of {len(data.classes)} classes, "
        f"{config.epochs} epochs",
        "validated on": f"{len(data.val)} pictures",
        "pictures": data.digest,
    }


def measured(
    checkpoint: TaggerCheckpoint, dataset: Dataset, data: Labelled, folder: Path
) -> dict[str, float]:
    """`accuracy` on the validation pictures; nothing where there are none."""
    if not data.val:
        return {}
    logits = checkpoint.predict(dataset, data.val, folder.parent / _CACHE)
    labels = codes_of(data.val, checkpoint.classes)
    return {"accuracy": float(right(logits, labels).double().mean())}


def right(logits: Tensor, labels: Tensor) -> Tensor:
    """Which answers are right, bool (N,); a label of -1 never is."""
    return logits.argmax(1) == labels
