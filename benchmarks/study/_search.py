"""Architecture search: does the supernet rank as trainings do, and does searching pay?"""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from benchmarks.study._runs import Group, Run
from benchmarks.study._settings import best_config, edge_config
from samespace_cloud.backbones import scaled_to
from samespace_cloud.checkpoint import Checkpoint
from samespace_cloud.config import TrainConfig
from samespace_cloud.frozen_network import embed_pictures
from samespace_cloud.material import Material, read_material
from samespace_cloud.model import ModelConfig
from samespace_cloud.nas.config import SPACES, NasConfig
from samespace_cloud.nas.evolution import Budget, Candidate, SearchResult
from samespace_cloud.nas.score import kendall_tau
from samespace_cloud.nas.search import search_architecture
from samespace_cloud.training import train_edge

SUBNETWORKS = 20
"""Trained alone, to compare with what the supernet says of them."""

SIZES = {80: (24, 32, 40, 48), 40: (32, 40, 48, 64), 20: (32, 40, 48, 64)}
"""Inputs that may be chosen, by cost ratio."""

WIDTHS = {80: (0.5, 0.75), 40: (0.5, 0.75, 1.0), 20: (0.5, 0.75, 1.0)}
"""Channels that may be chosen, as shares of the cloud's, by cost ratio."""

_VAL_SHARE = 0.25
_EPOCHS = 24
_ALONE_EPOCHS = 8
_TRAINED_EPOCHS = {
    "grocery": {80: 32, 40: 16, 20: 16},
    "furniture": {80: 16, 40: 16, 20: 16},
}
_HAND_MADE = ("shufflenetv2", "mobilenetv2", "mobilenetv3-small")
_HAND_MADE_SIZE = {80: 32, 40: 48, 20: 48}


def nas_config(group: Group, ratio: int, seed: int) -> NasConfig:
    """The search of the study."""
    train = replace(
        edge_config(ModelConfig("lite2-trunk", 48), group.canvas, seed, _EPOCHS),
        views=4,
        mixed_views=0,
        val_share=_VAL_SHARE,
        losses=(("cosine-regression", 1.0),),
    )
    return NasConfig(
        train,
        sizes=SIZES[ratio],
        widths=WIDTHS[ratio],
        rule="uniform",
        train_within=2.0,
        population=20,
        generations=5,
        budget=Budget(mmacs=group.cloud_macs / ratio / 1e6),
        seed=seed,
    )


def find(group: Group, ratio: int, seed: int) -> tuple[SearchResult, SearchResult, float]:
    """What evolution and random search find, and the seconds that the search took."""
    folder = group.out / group.name / f"nas-{ratio}x-{seed}"
    config = nas_config(group, ratio, seed)
    timed = folder / "seconds.txt"
    before = seconds(folder) if (folder / "supernet.safetensors").exists() else 0.0
    started = time.monotonic()
    found = search_architecture(group.train_data, config, group.cloud, folder)
    if not timed.exists():
        timed.write_text(str(before + time.monotonic() - started))
    at_random = search_architecture(
        group.train_data, replace(config, strategy="random"), group.cloud, folder
    )
    return found, at_random, float(timed.read_text())


def alone(group: Group, ratio: int, seed: int, found: SearchResult) -> list[dict[str, Any]]:
    """Train some of the candidates by themselves, and put both scores side by side.

    They are the first generation, which was drawn at random.
    """
    folder = group.out / group.name / f"nas-{ratio}x-{seed}"
    config = nas_config(group, ratio, seed)
    space = SPACES["elastic"].space(config, group.cloud)
    rows = []
    for place, candidate in enumerate(found.candidates[:SUBNETWORKS]):
        architecture = space.decode(candidate.genotype)
        model = ModelConfig(architecture.backbone, architecture.input_size)
        rows.append(_alone(group, config.train, model, candidate, folder / f"alone-{place}"))
    return rows


def _alone(
    group: Group, train: TrainConfig, model: ModelConfig, candidate: Candidate, folder: Path
) -> dict[str, Any]:
    short = replace(train, model=model, epochs=_ALONE_EPOCHS, val_every=_ALONE_EPOCHS)
    trained = (
        Checkpoint.load(folder)
        if (folder / "checkpoint.json").exists()
        else train_edge(group.train_data, short, group.cloud, folder, ridge_head=True)
    )
    held = held_out(group, train, folder)
    cpu = torch.device("cpu")
    queries = embed_pictures(trained.model, held.val_queries, cpu)
    own = embed_pictures(trained.model, held.val_gallery, cpu)
    cloud = embed_pictures(group.cloud.model, held.val_gallery, cpu)
    qq = held.ranking(queries, own).mean_average_precision
    qg = held.ranking(queries, cloud).mean_average_precision
    return {
        "mmacs": candidate.mmacs,
        "backbone": model.backbone,
        "input_size": model.input_size,
        "supernet": dict(candidate.scores),
        "alone": {"r1": qq, "r2": qg, "r3": qq * qg},
        "seconds": seconds(folder),
    }


def seconds(folder: Path) -> float:
    """What a training's epochs took."""
    lines = (folder / "log.jsonl").read_text().splitlines()
    return float(sum(json.loads(line)["seconds"] for line in lines))


@lru_cache(maxsize=2)
def held_out(group: Group, train: TrainConfig, folder: Path) -> Material:
    """The validation pictures that candidates are scored on."""
    return read_material(
        group.train_data, train, folder.parent, lambda *_: None, group.cloud.labels
    )


def taus(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Kendall's tau between supernet and stand-alone scores, by reward."""
    return {
        reward: kendall_tau(
            [r["supernet"][reward] for r in rows], [r["alone"][reward] for r in rows]
        )
        for reward in ("r1", "r2", "r3")
    }


def runs(
    group: Group, ratio: int, found: Mapping[int, SearchResult], seeds: Iterable[int]
) -> Iterator[Run]:
    """What the searches found and networks made by hand, at equal MACs, trained alike.

    Args:
        found: by seed of the search; the first stands for seeds without one of their own.
        seeds: of the trainings.
    """
    mmacs = group.cloud_macs / ratio / 1e6
    more, epochs = {"ratio": ratio}, _TRAINED_EPOCHS[group.name][ratio]
    for seed in seeds:
        search = seed if seed in found else min(found)
        space = SPACES["elastic"].space(nas_config(group, ratio, search), group.cloud)
        best = space.decode(found[search].best.genotype)
        searched = ModelConfig(best.backbone, best.input_size)
        train = best_config(searched, group.canvas, seed, epochs)
        yield Run("architectures", f"searched, {ratio}x", group.name, train, more=more)
        for name in _HAND_MADE:
            size = _HAND_MADE_SIZE[ratio]
            model = ModelConfig(scaled_to(name, mmacs, size), size)
            # From nothing they would need longer; mobilenetv2 takes what fits of the cloud's.
            init = "cloud" if name == "mobilenetv2" else "random"
            train = replace(best_config(model, group.canvas, seed, epochs), init=init)
            yield Run("architectures", f"{name}, {ratio}x", group.name, train, more=more)


SEARCH_COLUMNS = {
    "data": "whose train pictures",
    "kind": "evolution: the Pareto front of what evolution scored; random: of as many candidates at"
    " random; alone: candidates that were also trained by themselves; tau: Kendall's tau between"
    " the scores of those in the supernet and after training; seconds: what it took",
    "ratio": "the budget: the cloud model's multiply-accumulates over this",
    "seed": "of the search",
    "name": "of the reward, or of what was timed",
    "mmacs": "millions of multiply-accumulates for one query",
    "backbone": "the network as text",
    "input_size": "side of the input, in pixels",
    "supernet": "the score in the supernet: r3 = M(q, q) M(q, g), M is mAP on validation labels",
    "alone": "the same of the network trained by itself",
    "value": "tau, or seconds",
}


def search_rows(
    group: Group,
    ratio: int,
    seed: int,
    found: SearchResult,
    other: SearchResult,
    whole: float,
    trained: list[dict[str, Any]],
) -> list[dict[str, Any]]:
    """The rows of `results/search.json` of one search.

    Args:
        found, other: by evolution, and at random.
        whole: seconds that the search took.
        trained: what `alone` returned; may be empty.
    """
    config = nas_config(group, ratio, seed)
    space = SPACES["elastic"].space(config, group.cloud)
    empty = dict.fromkeys(SEARCH_COLUMNS) | {"data": group.name, "ratio": ratio, "seed": seed}
    rows: list[dict[str, Any]] = []
    for kind, result in (("evolution", found), ("random", other)):
        for candidate in result.pareto():
            what = space.decode(candidate.genotype)
            told = {
                "kind": kind,
                "name": config.reward,
                "mmacs": candidate.mmacs,
                "backbone": what.backbone,
                "input_size": what.input_size,
                "supernet": candidate.scores[config.reward],
            }
            rows.append(empty | told)
    for row in trained:
        for reward in ("r1", "r2", "r3"):
            scores = {"supernet": row["supernet"][reward], "alone": row["alone"][reward]}
            network = {k: row[k] for k in ("mmacs", "backbone", "input_size")}
            rows.append(empty | {"kind": "alone", "name": reward} | scores | network)
    rows.append(empty | {"kind": "seconds", "name": "the whole search", "value": whole})
    if trained:
        rows += [empty | {"kind": "tau", "name": k, "value": v} for k, v in taus(trained).items()]
        name = f"one sub-network, {_ALONE_EPOCHS} epochs from the cloud's weights"
        mean = sum(r["seconds"] for r in trained) / len(trained)
        rows.append(empty | {"kind": "seconds", "name": name, "value": mean})
    return rows


def keep_search(group: Group, rows: list[dict[str, Any]]) -> None:
    """Write a group's rows down, to stand beside another group's later."""
    _search_file(group).write_text(json.dumps(rows))


def kept_search(group: Group) -> list[dict[str, Any]]:
    """What `keep_search` wrote; nothing where no search was made."""
    file = _search_file(group)
    return json.loads(file.read_text()) if file.exists() else []


def _search_file(group: Group) -> Path:
    return group.out / group.name / "search.json"
