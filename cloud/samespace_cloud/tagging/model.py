"""A tagger: a network, and a linear layer with a logit for every class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from samespace_cloud.checkpoint import Checkpoint
from samespace_cloud.inherit import Inherited, inherit
from samespace_cloud.pretrained import MEAN, STD, load_pretrained
from samespace_cloud.tagging.config import TaggerConfig
from samespace_cloud.tagging.sees import FromPictures, Sees
from samespace_edge import ConfigError

if TYPE_CHECKING:
    from samespace_cloud.tagging.checkpoint import TaggerCheckpoint


class Tagger(nn.Module):
    """Inputs to logits (N, C).

    Inputs are what `sees` gives: pictures, uint8 RGB (N, 3, S, S), or vectors, float (N, D).
    """

    def __init__(self, sees: Sees, classes: int) -> None:
        super().__init__()
        self.sees = sees
        self.backbone, self.width = sees.build()
        self.head = nn.Linear(self.width, classes)
        mean, std = torch.tensor(MEAN), torch.tensor(STD)
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", mean.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", std.view(1, 3, 1, 1), persistent=False)

    def embed(self, inputs: Tensor) -> Tensor:
        """What the last layer sees, float (N, F)."""
        if isinstance(self.sees, FromPictures):
            inputs = (inputs.to(torch.float32) / 255 - self.mean) / self.std
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        seen: Tensor = self.backbone(inputs)
        return seen

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.head(self.embed(inputs))
        return logits


def new_tagger(
    config: TaggerConfig,
    classes: Sequence[str],
    start: Checkpoint | TaggerCheckpoint | None = None,
) -> Tagger:
    """A tagger that starts where `config.init` says.

    Args:
        classes: what its logits stand for.
        start: whose weights it takes with `init='checkpoint'`: of another tagger, the rows of the
            classes that both have as well.

    Raises `ConfigError` for a start that is missing, or of which nothing fits.
    """
    from samespace_cloud.tagging.checkpoint import TaggerCheckpoint

    torch.manual_seed(config.seed)
    tagger = Tagger(config.sees, len(classes))
    if (start is None) == (config.init == "checkpoint"):
        raise ConfigError(
            "init='checkpoint' goes with a checkpoint to start from"
            if start is None
            else f"a checkpoint to start from was given; init is {config.init!r}, not 'checkpoint'"
        )
    if config.init == "imagenet":
        assert isinstance(config.sees, FromPictures)
        load_pretrained(tagger.backbone, config.sees.backbone)  # type: ignore[arg-type]
    if isinstance(start, Checkpoint):
        found = inherit(tagger.backbone, start.model.backbone)
        _need_some(found, 0, start.model.config.architecture, tagger)
    elif isinstance(start, TaggerCheckpoint):
        found = inherit(tagger.backbone, start.tagger.backbone)
        rows = _inherit_rows(tagger, classes, start)
        _need_some(found, rows, start.sees.architecture, tagger)
    return tagger


def _need_some(found: Inherited, rows: int, name: str, tagger: Tagger) -> None:
    """A network of which nothing came is no start; a linear tagger has its rows alone."""
    network = found.whole + found.sliced
    if not (network or (rows and not found.fresh)):
        raise ConfigError(
            f"no layer of {name} fits into {tagger.sees.architecture}; start from a network of "
            "its kind, or without a checkpoint"
        )


@torch.no_grad()
def _inherit_rows(tagger: Tagger, classes: Sequence[str], start: TaggerCheckpoint) -> int:
    """How many of the classes' rows came from `start`."""
    given = start.tagger.head
    if given.in_features != tagger.width:
        return 0
    place = {name: i for i, name in enumerate(start.classes)}
    shared = [(row, place[name]) for row, name in enumerate(classes) if name in place]
    for row, theirs in shared:
        tagger.head.weight[row] = given.weight[theirs]
        tagger.head.bias[row] = given.bias[theirs]
    return len(shared)
