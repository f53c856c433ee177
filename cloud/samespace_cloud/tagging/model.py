"""A tagger: a network, and a linear layer with a logit for every class."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from samespace_cloud.checkpoint import Checkpoint
from samespace_cloud.inherit import inherit
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
        _inherit(tagger, start.model.backbone, start.model.config.architecture)
    elif isinstance(start, TaggerCheckpoint):
        _inherit(tagger, start.tagger.backbone, start.sees.architecture)
        _inherit_rows(tagger, classes, start)
    return tagger


def _inherit(tagger: Tagger, source: nn.Module, name: str) -> None:
    found = inherit(tagger.backbone, source)
    if not found.whole + found.sliced and found.fresh:
        raise ConfigError(
            f"no layer of {name} fits into {tagger.sees.architecture}; start from a network of "
            "its kind, or without a checkpoint"
        )


@torch.no_grad()
def _inherit_rows(tagger: Tagger, classes: Sequence[str], start: TaggerCheckpoint) -> None:
    given = start.tagger.head
    if given.in_features != tagger.width:
        return
    place = {name: i for i, name in enumerate(start.classes)}
    for row, name in enumerate(classes):
        if name in place:
            tagger.head.weight[row] = given.weight[place[name]]
            tagger.head.bias[row] = given.bias[place[name]]
