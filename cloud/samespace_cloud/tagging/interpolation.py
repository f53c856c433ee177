"""Between two taggers of one network, without training (BCWI, Schumann et al. 2023)."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from samespace import Dataset
from samespace_cloud.nas._supernet import reestimate
from samespace_cloud.tagging.checkpoint import TaggerCheckpoint
from samespace_cloud.tagging.classes import need_same_classes
from samespace_cloud.tagging.data import part
from samespace_cloud.tagging.model import Tagger
from samespace_cloud.tagging.sees import FromPictures
from samespace_edge import ConfigError

_BATCH, _FOR_STATISTICS = 128, 1024


def interpolate(
    old: TaggerCheckpoint, new: TaggerCheckpoint, share: float, dataset: Dataset | None = None
) -> TaggerCheckpoint:
    """A tagger with the weights (1 - share) old + share new.

    It turns fewer answers over than the new one where both lie in one basin of the loss: where the
    new one started from the old one's weights, or both from the same ones.

    Args:
        old, new: of one network and the same classes.
        share: of the new one, 0 to 1; at 0 and 1 the result is the old and the new one.
        dataset: from whose train pictures the statistics of batch norms are measured anew: those of
            mixed weights are no mixture of the two. Taggers on vectors have none, and need none.

    Raises `ConfigError` for taggers that cannot be mixed.
    """
    if not 0 <= share <= 1:
        raise ConfigError(f"share {share} has to be between 0, the old tagger, and 1, the new one")
    before, after = old.tagger, new.tagger
    if before.sees != after.sees:
        raise ConfigError(
            f"cannot interpolate {before.sees.architecture} and {after.sees.architecture}: weights "
            "are mixed one by one. Train the new tagger with the old one's network and input"
        )
    need_same_classes(
        old.classes, new.classes, "taggers whose weights are mixed need the same classes"
    )
    card = {"interpolated": f"{share:g} of {new.fingerprint.short}…, else {old.fingerprint.short}…"}
    if share in (0, 1):
        end = new if share else old
        return TaggerCheckpoint((copy.deepcopy(end.tagger),), end.classes, card=card)
    mixed = copy.deepcopy(after)
    order = torch.tensor([old.classes.index(name) for name in new.classes])
    with torch.no_grad():
        given = before.state_dict()
        for name, tensor in mixed.state_dict().items():
            theirs = given[name][order] if name.startswith("head.") else given[name]
            if tensor.dtype.is_floating_point:
                tensor.copy_((1 - share) * theirs + share * tensor)
    if any(isinstance(m, torch.nn.BatchNorm2d) for m in mixed.modules()):
        if dataset is None:
            raise ConfigError(
                "mixed weights need their batch norms measured anew; give a dataset with train "
                "pictures"
            )
        _measure(mixed, dataset)
    return TaggerCheckpoint((mixed.eval(),), new.classes, card=card)


def _measure(tagger: Tagger, dataset: Dataset) -> None:
    assert isinstance(tagger.sees, FromPictures)
    items = part(dataset, "train")
    # In any order: a batch of one class would tell of nothing but that class.
    order = torch.randperm(len(items), generator=torch.Generator().manual_seed(0))
    chosen = [items[i] for i in order[:_FOR_STATISTICS].tolist()]
    inputs = tagger.sees.read(dataset, chosen)
    count = max(1, len(inputs) // _BATCH)
    reestimate(tagger, _batches(inputs, count))


def _batches(inputs: Tensor, count: int) -> list[Tensor]:
    """`count` batches of one size; what is left over is left out."""
    size = len(inputs) // count
    return [inputs[i * size : (i + 1) * size] for i in range(count)]
