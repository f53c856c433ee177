"""The whole search: teach a supernet, evolve architectures, write down what was found."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from samespace import Dataset
from samespace_cloud.checkpoint import Checkpoint, read_tensors, write_tensors
from samespace_cloud.material import Progress
from samespace_cloud.nas._supernet import Supernet
from samespace_cloud.nas.config import SPACES, NasConfig
from samespace_cloud.nas.evolution import Candidate, Evolution, SearchResult
from samespace_cloud.nas.latency import measured_latency
from samespace_cloud.nas.score import Examination, prepare_candidate, score_candidate
from samespace_cloud.nas.space import Genotype, SearchSpace
from samespace_cloud.nas.supernet import SuperStudent
from samespace_cloud.teaching import Teaching, prepare_teaching
from samespace_cloud.trainer import Trainer
from samespace_edge import ConfigError, canonical_json
from samespace_edge._temporary import temporary_for

_SUPERNET = "supernet.safetensors"
_SETTINGS = "supernet"
_TRAINING = ("space", "sizes", "widths", "width", "rule", "random_paths", "train_within", "seed")


def _silent(stage: str, done: int, total: int) -> None:
    return None


def search_architecture(
    dataset: Dataset,
    config: NasConfig,
    cloud: Checkpoint,
    folder: str | Path,
    *,
    progress: Progress = _silent,
) -> SearchResult:
    """Find small architectures whose vectors search well in a cloud model's gallery.

    Stopped at any moment, the same call goes on, to the same result. A search for another budget
    or reward in the same folder starts from the same supernet.

    Args:
        dataset: its train part is used.
        config: how.
        cloud: the model whose space it is; it stays as it is.
        folder: for `architectures.json`, the supernet, all that was scored, and the checkpoint
            `best`: the best candidate as it is in the supernet, which `train_edge` can start from.
        progress: is told the stage and how much of how much is done.

    With the strategy `random` the names end in `-random`.

    Returns all scored candidates. Raises `ConfigError` where nothing fits the budget, or where
    `folder` holds a search with other settings or data.
    """
    folder = Path(folder)
    if config.train.model.dim != cloud.model.config.dim:
        raise ConfigError(
            f"dim {config.train.model.dim} is not the cloud's {cloud.model.config.dim}"
        )
    kind = SPACES[config.space]
    space = kind.space(config, cloud)
    teaching = prepare_teaching(
        dataset, config.train, cloud, folder, sizes=space.input_sizes, progress=progress
    )
    torch.manual_seed(config.seed)
    supernet = kind.supernet(space, config, cloud)
    about = (_about(config), str(cloud.fingerprint), *teaching.about)
    examination = Examination(
        teaching.material,
        teaching.views,
        teaching.val_gallery,
        config.metric,
        config.score_views,
        config.refit_head,
    )
    trained = _trained(supernet, config, teaching, folder, about, progress)
    evolution = Evolution(
        space,
        space.decode,
        partial(_score, trained, examination),
        config.reward,
        config.budget,
        config.evolution,
        lambda genotype: measured_latency(space.decode(genotype)),
        folder,
        (*about, config.metric, str(config.score_views), str(config.refit_head)),
    )
    if config.strategy == "random":
        result = evolution.random_search(progress)
    else:
        result = evolution.run(progress)
    mark = "" if config.strategy == "evolution" else f"-{config.strategy}"
    _start(trained, result.best, examination, cloud).save(folder / f"best{mark}")
    _write(folder / f"architectures{mark}.json", result, space, config, cloud)
    return result


def _start(
    supernet: Supernet, best: Candidate, examination: Examination, cloud: Checkpoint
) -> Checkpoint:
    """The best candidate as it is in the supernet, for a training to go on from."""
    model = supernet.extract(best.genotype)
    prepare_candidate(model, examination)
    return Checkpoint(
        model=model.eval(),
        role="edge",
        space=cloud.fingerprint,
        labels=examination.material.names,
        metrics=dict(best.scores),
        card={"started": "taken out of a supernet", "taught by": f"{cloud.fingerprint.short}…"},
    )


def _score(supernet: Supernet, examination: Examination, genotype: Genotype) -> dict[str, float]:
    return score_candidate(supernet, genotype, examination)


def _about(config: NasConfig) -> str:
    """What decides over the supernet, of the settings."""
    settings: dict[str, Any] = {name: getattr(config, name) for name in _TRAINING}
    limit = config.budget.mmacs if config.train_within else None
    return canonical_json([config.train.to_json(), settings, limit])


def _trained(
    supernet: Supernet,
    config: NasConfig,
    teaching: Teaching,
    folder: Path,
    about: Sequence[str],
    progress: Progress,
) -> Supernet:
    """The supernet with trained weights, on the CPU; those in `folder` where there are."""
    file = folder / _SUPERNET
    if file.exists():
        tensors, metadata = read_tensors(file)
        if metadata.get(_SETTINGS) != canonical_json(list(about)):
            raise ConfigError(
                f"{folder} holds a supernet of other settings or data; repeat those, or choose "
                "another folder"
            )
        supernet.load_state_dict(tensors)
        return supernet.eval()
    student = SuperStudent(
        supernet,
        config.train.losses,
        teaching.context,
        config.rule,
        config.random_paths,
        config.seed,
        config.train.nested,
        partial(_fits, supernet.space, config),
    )
    trainer = Trainer(
        student,
        teaching.everything,
        teaching.labels,
        config.train,
        folder,
        title="train the supernet",
        device=teaching.device,
        about=about,
    )
    kept = trainer.run(progress)
    assert isinstance(kept, SuperStudent)
    found = kept.supernet.cpu().eval()
    write_tensors(file, found.state_dict(), {_SETTINGS: canonical_json(list(about))})
    trainer.finish()
    return found


def _fits(space: SearchSpace, config: NasConfig, genotype: Genotype) -> bool:
    limit = config.budget.mmacs
    if not config.train_within or limit is None:
        return True
    return space.decode(genotype).mmacs <= config.train_within * limit


def _write(
    path: Path, result: SearchResult, space: SearchSpace, config: NasConfig, cloud: Checkpoint
) -> None:
    def told(candidate: Candidate) -> dict[str, Any]:
        return {
            **space.decode(candidate.genotype).to_json(),
            "latency_ms": candidate.latency_ms,
            "scores": dict(candidate.scores),
            "genotype": list(candidate.genotype),
        }

    value = {
        "space": space.name,
        "space_size": space.size,
        "cloud": cloud.fingerprint.hex,
        "settings": config.to_json(),
        "reward": result.reward,
        "budget": config.to_json()["budget"],
        "scored": len(result.candidates),
        "best": told(result.best),
        "pareto": [told(c) for c in result.pareto()],
    }
    temporary = temporary_for(path)
    temporary.write_text(json.dumps(value, indent=1))
    temporary.replace(path)
