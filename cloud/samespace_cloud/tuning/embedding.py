"""An edge model tuned linearly towards its cloud model, on a customer's pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from samespace import Dataset, Item
from samespace_cloud.checkpoint import Checkpoint
from samespace_cloud.linear import LeastSquares, LinearConfig, Linearized, TwoStream
from samespace_cloud.linear._problem import start_outputs
from samespace_cloud.material import Progress
from samespace_cloud.pictures import decoded
from samespace_cloud.pretrained import MEAN, STD
from samespace_cloud.tagging import FromPictures
from samespace_cloud.tagging.data import part
from samespace_cloud.teacher import Teacher
from samespace_cloud.tuning.checkpoint import TunedCheckpoint, need_free, network
from samespace_cloud.tuning.config import TuneConfig
from samespace_cloud.tuning.pictures import recorded
from samespace_cloud.tuning.training import read, silent, solve
from samespace_edge import ConfigError
from samespace_export import ExportSpec


def tune_embedding(
    dataset: Dataset,
    edge: Checkpoint,
    teacher: Teacher,
    config: LinearConfig,
    folder: str | Path,
    *,
    only: Sequence[str] = (),
    canvas: int = 160,
    progress: Progress = silent,
) -> TunedCheckpoint:
    """Tune an edge model towards the cloud model's vectors of the train pictures, by least squares.

    w0 is the edge model as it is: no activation is made leaky. So all tunings of one edge model can
    be merged, and one that is taken away leaves the others as they were. No label is looked at.

    Args:
        dataset: its train part is learnt from, its val part validates, where it has one.
        edge: the model to tune, of the cloud model's space and width.
        teacher: says where the pictures lie.
        config: how the tangent is found; kappa, head and slope say nothing here.
        folder: for the checkpoint.
        only: as in `TuneConfig`; names begin with `backbone.` or `head.`.
        canvas: side at which pictures are decoded for the cloud model, in pixels.
        progress: is told the stage and how much of how much is done.

    Raises `ConfigError` for models of other spaces or widths, and as `tune_tagger` does.
    """
    need_free(Path(folder))
    if config.loss != "square":
        raise ConfigError(
            f"an embedding is tuned by least squares onto the cloud model's vectors, not by "
            f"{config.loss}, which is of classes"
        )
    model = edge.model.config
    if edge.space is not None and edge.space != teacher.space:
        raise ConfigError(
            f"the edge model lives in the space {edge.space.short}…, the cloud model in "
            f"{teacher.space.short}…; tune with the cloud model of its own space"
        )
    if model.dim != teacher.dim or model.folded:
        raise ConfigError(
            f"the edge model makes {model.dim} numbers{' and is folded' if model.folded else ''}, "
            f"the cloud model {teacher.dim}; tune an unfolded model of the cloud model's width"
        )
    sees = FromPictures(model.backbone, model.input_size, model.policy)
    state = {k.replace("embed.", "head.", 1): v for k, v in edge.model.state_dict().items()}
    settings = TuneConfig(sees, "checkpoint", replace(config, slope=0.0), tuple(only))
    items = part(dataset, "train")
    tuned = TunedCheckpoint(
        Linearized(network(sees, model.dim, 0.0, state), settings.only or None),
        sees,
        (),
        recorded(dataset, items),
        settings={"tune": settings.to_json(), "slope": 0.0, "role": edge.role},
        space=edge.space or teacher.space,
        card={**edge.card, "tuned from": edge.fingerprint.hex, "tuned by": teacher.about},
    )
    inputs = read(dataset, items, sees, progress)
    told = _told(dataset, items, teacher, sees, canvas)
    # Outputs have any length; the graph makes them unit. A target has that of its picture's output,
    # so that no picture's target hangs on the others, and forgetting them is exact.
    tuned.targets = start_outputs(tuned.model, inputs).norm(dim=1, keepdim=True) * told
    weights = torch.full_like(tuned.targets, 1 / model.dim)
    penalty = config.penalty_for(len(items))
    solve(
        tuned,
        LeastSquares(inputs, tuned.targets, weights, penalty),
        settings.linear,
        None,
        progress,
    )
    if dataset.val:
        seen = read(dataset, dataset.val, sees, progress)
        aim = _told(dataset, dataset.val, teacher, sees, canvas)
        before = F.cosine_similarity(start_outputs(tuned.model, seen), aim).mean()
        after = F.cosine_similarity(tuned.logits(seen), aim).mean()
        figures = {"cosine_before": float(before), "cosine": float(after)}
        tuned.metrics = {**figures, **tuned.metrics}
    tuned.card = {**tuned.card, "tuned on": f"{len(items)} pictures"}
    tuned.save(folder)
    return tuned


def embedding_to_export(checkpoint: TunedCheckpoint, name: str) -> tuple[TwoStream, ExportSpec]:
    """A tuned edge model as `export_bundle` takes any other.

    Raises `ConfigError` for a classifier.
    """
    if checkpoint.classes:
        raise ConfigError(
            f"{checkpoint.fingerprint.short}… is a classifier of {len(checkpoint.classes)} "
            "classes, not an embedding"
        )
    sees = checkpoint.sees
    role = checkpoint.settings["role"]
    spec = ExportSpec(
        name=name,
        role=role,
        resize=sees.canvas(sees.input_size),
        mean=MEAN,
        std=STD,
        architecture=checkpoint.architecture,
        space=checkpoint.space,
        card=checkpoint.card,
    )
    return TwoStream(checkpoint.model), spec


def _told(
    dataset: Dataset, items: Sequence[Item], teacher: Teacher, sees: FromPictures, canvas: int
) -> Tensor:
    side = max(canvas, sees.input_size)
    return teacher.vectors_of(items, decoded(dataset, items, sees.canvas(side)))
