"""What a training begins with."""

from __future__ import annotations

import torch

from samespace_cloud.backbones import BackboneSpec
from samespace_cloud.checkpoint import Checkpoint, clone
from samespace_cloud.config import TrainConfig
from samespace_cloud.inherit import inherit
from samespace_cloud.model import EmbeddingModel
from samespace_cloud.nas.elastic import sort_channels
from samespace_cloud.pretrained import load_pretrained
from samespace_cloud.teacher import Teacher
from samespace_edge import ConfigError


def new_model(config: TrainConfig, cloud: EmbeddingModel | None = None) -> EmbeddingModel:
    """A model that starts where `config.init` says; raises `ConfigError`."""
    torch.manual_seed(config.seed)
    model = EmbeddingModel(config.model)
    if config.init == "imagenet":
        load_pretrained(model.backbone, config.model.backbone)
    elif config.init == "cloud":
        if cloud is None:
            raise ConfigError(
                "init='cloud' needs the cloud model's checkpoint to start from; with a bundle or "
                "vectors, use 'imagenet' or 'random'"
            )
        narrower = inherit(model.backbone, cloud.backbone).sliced > 0
        if narrower and isinstance(cloud.backbone.spec, BackboneSpec):
            # Leading channels are worth having when the most important ones lead.
            inherit(model.backbone, sort_channels(cloud).backbone)
    return model


def started(config: TrainConfig, teacher: Teacher, start: Checkpoint | None) -> EmbeddingModel:
    """The edge model to begin with."""
    if start is None:
        return new_model(config, teacher.model)
    if start.space != teacher.space:
        raise ConfigError(
            f"the model to go on from lies in space {start.space and start.space.short}…, "
            f"the cloud model in {teacher.space.short}…"
        )
    if start.model.config != config.model:
        raise ConfigError(
            f"the model to go on from is a {start.model.config.architecture}, "
            f"the settings are for a {config.model.architecture}"
        )
    return clone(start.model)
