"""How an architecture search is done, as data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from samespace_cloud.checkpoint import Checkpoint
from samespace_cloud.config import TrainConfig
from samespace_cloud.nas._supernet import Supernet
from samespace_cloud.nas.elastic import ElasticSupernet
from samespace_cloud.nas.evolution import Budget, EvolutionConfig
from samespace_cloud.nas.score import METRICS, REWARDS
from samespace_cloud.nas.shuffle import ShuffleSupernet
from samespace_cloud.nas.space import SIZES, WIDTHS, SearchSpace, elastic, shuffle
from samespace_cloud.nas.supernet import RULES
from samespace_edge import ConfigError


@dataclass(frozen=True)
class NasConfig:
    """How small networks are searched for.

    Attributes:
        train: how the supernet is trained; of its model only `dim` and `policy` count, and `init`
            does not: the elastic space starts from the cloud model, the shuffle space at random.
        space: a row of `SPACES`.
        sizes: sides of the inputs that may be chosen, in pixels.
        widths: channels that may be chosen, as shares of the cloud's; elastic space.
        width: of all channels, as a share of the paper's; shuffle space.
        rule: which architectures learn in a step, a row of `samespace_cloud.nas.supernet.RULES`.
        random_paths: architectures drawn at random in a step, for the sandwich.
        train_within: architectures drawn in training cost at most this many times the budget's
            multiply-accumulates; 0 draws from all of the space.
        reward: a row of `samespace_cloud.nas.score.REWARDS`.
        metric: a row of `samespace_cloud.nas.score.METRICS`.
        refit_head: fit a head for every candidate, in closed form.
        score_views: train views that a candidate's head is fitted on before it is scored. With
            too few of them the noise of the fit hides which candidate is better.
        population, generations, parents, mutate, crossover: see
            `samespace_cloud.nas.evolution.EvolutionConfig`.
        strategy: `evolution`, or `random` for as many candidates at random, to compare with.
        budget: what no candidate may exceed.
        seed: of paths, weights and evolution.
    """

    train: TrainConfig
    space: str = "elastic"
    sizes: tuple[int, ...] = SIZES
    widths: tuple[float, ...] = WIDTHS
    width: float = 0.5
    rule: str = "sandwich"
    random_paths: int = 2
    train_within: float = 0.0
    reward: str = "r3"
    metric: str = "map"
    refit_head: bool = True
    score_views: int = 4096
    population: int = 24
    generations: int = 8
    parents: int = 8
    mutate: float = 0.1
    crossover: float = 0.5
    strategy: str = "evolution"
    budget: Budget = field(default_factory=Budget)
    seed: int = 0

    def __post_init__(self) -> None:
        tables: dict[str, Mapping[str, Any]] = {
            "space": SPACES,
            "rule": RULES,
            "reward": REWARDS,
            "metric": METRICS,
        }
        for name, table in tables.items():
            if getattr(self, name) not in table:
                raise ConfigError(
                    f"there is no {name} {getattr(self, name)!r}; choose one of: "
                    f"{', '.join(sorted(table))}"
                )
        checks = {
            "sizes": bool(self.sizes) and all(s >= 16 for s in self.sizes),
            "widths": all(0 < w <= 1 for w in self.widths),
            "width": self.width > 0,
            "random_paths": self.random_paths >= 0,
            "train_within": self.train_within == 0 or self.train_within >= 1,
            "strategy": self.strategy in ("evolution", "random"),
            "score_views": self.score_views >= 2,
        }
        if wrong := [f"{name} = {getattr(self, name)!r}" for name, ok in checks.items() if not ok]:
            raise ConfigError(f"search settings out of range: {', '.join(wrong)}")
        _ = self.evolution

    @property
    def evolution(self) -> EvolutionConfig:
        """How candidates are bred."""
        return EvolutionConfig(**{f.name: getattr(self, f.name) for f in fields(EvolutionConfig)})

    def to_json(self) -> dict[str, Any]:
        """As it stands in `architectures.json`."""
        return asdict(self)


@dataclass(frozen=True)
class SpaceKind:
    """How a space and its supernet are made of the settings and the cloud model."""

    space: Callable[[NasConfig, Checkpoint], SearchSpace]
    supernet: Callable[[SearchSpace, NasConfig, Checkpoint], Supernet]


SPACES: dict[str, SpaceKind] = {
    "elastic": SpaceKind(
        lambda c, cloud: elastic(cloud.model.backbone.spec, c.train.model.dim, c.sizes, c.widths),
        lambda space, c, cloud: ElasticSupernet(space, c.train.model, cloud.model),
    ),
    "shuffle": SpaceKind(
        lambda c, cloud: shuffle(c.width, c.train.model.dim, c.sizes),
        lambda space, c, cloud: ShuffleSupernet(space, c.train.model, c.seed),
    ),
}
