"""Evolution under hard budgets, and search at random, over anything that can be sampled.

Everything that was found out is in files: a search that was stopped and is run again with the same
seed and settings proposes the same candidates, finds their scores, and goes on. Searches for other
budgets in the same folder find the scores of what they have in common.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Protocol, TypeAlias

from samespace_cloud.nas._journal import Journal
from samespace_edge import ConfigError

Genotype: TypeAlias = tuple[int, ...]
Progress = Callable[[str, int, int], None]
Score = Callable[[Genotype], Mapping[str, float]]

_TRIES = 50


class Space(Protocol):
    """What evolution asks of a search space; see `samespace_cloud.nas.space.SearchSpace`."""

    @property
    def smallest(self) -> Genotype:
        """The cheapest genotype."""

    def sample_within(self, rng: Random, fits: Callable[[Genotype], bool]) -> Genotype:
        """A genotype at random, made smaller until it fits or is the smallest."""

    def mutate(self, genotype: Sequence[int], rng: Random, probability: float) -> Genotype:
        """A genotype nearby."""

    def crossover(self, one: Sequence[int], other: Sequence[int], rng: Random) -> Genotype:
        """A genotype between two."""


class HasCost(Protocol):
    """What a genotype costs; see `samespace_cloud.nas.space.Architecture`."""

    @property
    def mmacs(self) -> float:
        """Millions of multiply-accumulates."""

    @property
    def parameters(self) -> int:
        """Number of weights."""


@dataclass(frozen=True)
class Budget:
    """What no candidate may exceed; None for no limit.

    Attributes:
        mmacs: millions of multiply-accumulates for one picture.
        parameters: number of weights.
        latency_ms: median time of one picture, one thread, on this machine.
    """

    mmacs: float | None = None
    parameters: float | None = None
    latency_ms: float | None = None

    def __post_init__(self) -> None:
        given = {k: v for k, v in asdict(self).items() if v is not None}
        if wrong := [f"{k} = {v}" for k, v in given.items() if v <= 0]:
            raise ConfigError(f"a budget has to be above 0: {', '.join(wrong)}")

    def allows(self, cost: HasCost) -> bool:
        """Whether multiply-accumulates and parameters are within the budget."""
        return (self.mmacs is None or cost.mmacs <= self.mmacs) and (
            self.parameters is None or cost.parameters <= self.parameters
        )


@dataclass(frozen=True)
class EvolutionConfig:
    """How candidates are bred.

    Attributes:
        population: candidates that are scored in a generation.
        generations: the first of them is drawn at random.
        parents: how many of the best candidates so far the next ones come from.
        mutate: probability that a gene is drawn anew.
        crossover: share of the candidates that have two parents.
        seed: of all draws.
    """

    population: int = 24
    generations: int = 8
    parents: int = 8
    mutate: float = 0.1
    crossover: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        checks = {
            "population": self.population >= 1,
            "generations": self.generations >= 1,
            "parents": self.parents >= 1,
            "mutate": 0 <= self.mutate <= 1,
            "crossover": 0 <= self.crossover <= 1,
        }
        if wrong := [f"{name} = {getattr(self, name)!r}" for name, ok in checks.items() if not ok]:
            raise ConfigError(f"search settings out of range: {', '.join(wrong)}")


@dataclass(frozen=True)
class Candidate:
    """A genotype that was scored; `latency_ms` is None where the budget has no latency."""

    genotype: Genotype
    mmacs: float
    parameters: int
    latency_ms: float | None
    scores: Mapping[str, float]


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        candidates: all that were scored, in that order.
        reward: the name of the score that was searched for.
    """

    candidates: tuple[Candidate, ...]
    reward: str

    @property
    def ranked(self) -> tuple[Candidate, ...]:
        """Best first; of equals the one that costs less."""
        return tuple(
            sorted(self.candidates, key=lambda c: (-c.scores[self.reward], c.mmacs, c.genotype))
        )

    @property
    def best(self) -> Candidate:
        """The candidate with the highest reward."""
        return self.ranked[0]

    def pareto(self) -> tuple[Candidate, ...]:
        """Candidates that none beats at the same or less multiply-accumulates, cheapest first."""
        front: list[Candidate] = []
        for candidate in sorted(
            self.candidates, key=lambda c: (c.mmacs, -c.scores[self.reward], c.genotype)
        ):
            if not front or candidate.scores[self.reward] > front[-1].scores[self.reward]:
                front.append(candidate)
        return tuple(front)


@dataclass
class Evolution:
    """A search; `run` evolves, `random_search` draws as many candidates at random.

    Attributes:
        space: what can be chosen.
        cost: what a genotype costs.
        score: the costly part; never asked for a genotype over the budget, and once for each.
        reward: the score that is searched for.
        budget: see `Budget`.
        config: see `EvolutionConfig`.
        latency: median time of a genotype in milliseconds; asked where the budget has a latency,
            and only for what is within the rest of the budget.
        folder: for `history.jsonl`, all that was scored, and `latency.jsonl`, all that was timed;
            None keeps nothing.
        about: what decides over the scores, such as the supernet's settings; the files in `folder`
            are only used where it is the same.
    """

    space: Space
    cost: Callable[[Genotype], HasCost]
    score: Score
    reward: str
    budget: Budget = field(default_factory=Budget)
    config: EvolutionConfig = field(default_factory=EvolutionConfig)
    latency: Callable[[Genotype], float] | None = None
    folder: Path | None = None
    about: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.budget.latency_ms is not None and self.latency is None:
            raise ConfigError("a budget of latency needs something that measures it")
        self._found: dict[Genotype, Candidate] = {}

    def run(self, progress: Progress = lambda stage, done, total: None) -> SearchResult:
        """Evolve; raises `ConfigError` where nothing fits the budget."""
        return self._search("evolve", self.config.generations, progress)

    def random_search(self, progress: Progress = lambda stage, done, total: None) -> SearchResult:
        """As many candidates as `run` scores, all drawn at random from what fits."""
        return self._search("random", 1, progress)

    def fits(self, genotype: Genotype) -> bool:
        """Whether a genotype is within the budget; times it only if the rest is."""
        if not self.budget.allows(self.cost(genotype)):
            return False
        limit = self.budget.latency_ms
        return limit is None or self._timed(genotype) <= limit

    def _search(self, kind: str, generations: int, progress: Progress) -> SearchResult:
        config = self.config
        self._open()
        self._found = {}
        rng = Random(f"{config.seed} {kind}")
        total = config.population * config.generations
        each = total // generations
        for generation in range(generations):
            parents = self._result().ranked[: config.parents] if generation else ()
            for _ in range(each):
                genotype = self._propose(rng, parents)
                if genotype is None:  # all that fits is scored
                    break
                self._found[genotype] = self._scored(genotype)
                progress("search", len(self._found), total)
            if not self._found:
                raise ConfigError(self._nothing_fits())
        progress("search", total, total)
        return self._result()

    def _result(self) -> SearchResult:
        return SearchResult(tuple(self._found.values()), self.reward)

    def _propose(self, rng: Random, parents: Sequence[Candidate]) -> Genotype | None:
        """A new genotype within the budget: a child if there are parents, or one at random."""
        for attempt in range(2 * _TRIES):
            if parents and attempt < _TRIES:
                child = self._child(rng, [p.genotype for p in parents])
            else:
                child = self.space.sample_within(rng, self.fits)
            if child not in self._found and self.fits(child):
                return child
        return None

    def _child(self, rng: Random, parents: Sequence[Genotype]) -> Genotype:
        if len(parents) > 1 and rng.random() < self.config.crossover:
            one, other = rng.sample(parents, 2)
            return self.space.crossover(one, other, rng)
        return self.space.mutate(rng.choice(parents), rng, self.config.mutate)

    def _scored(self, genotype: Genotype) -> Candidate:
        cost = self.cost(genotype)
        timed = None if self.budget.latency_ms is None else self._timed(genotype)
        scores = self._history.get(genotype)
        if scores is None:
            scores = dict(self.score(genotype))
            if self.reward not in scores:
                raise ConfigError(
                    f"there is no reward {self.reward!r}; scored are {', '.join(scores)}"
                )
            self._history.add(
                genotype,
                scores,
                mmacs=cost.mmacs,
                parameters=cost.parameters,
                latency_ms=timed,
            )
        return Candidate(genotype, cost.mmacs, cost.parameters, timed, scores)

    def _timed(self, genotype: Genotype) -> float:
        found = self._times.get(genotype)
        if found is None:
            assert self.latency is not None
            found = self.latency(genotype)
            self._times.add(genotype, found)
        return float(found)

    def _open(self) -> None:
        # Scores hold for every budget, so the next search in this folder finds them.
        self._history: Journal[Mapping[str, float]] = Journal(
            self.folder and self.folder / "history.jsonl", "scores", {"about": list(self.about)}
        )
        # How long a candidate takes here has nothing to do with what is searched for.
        self._times: Journal[float] = Journal(
            self.folder and self.folder / "latency.jsonl", "latency_ms", {}
        )

    def _nothing_fits(self) -> str:
        smallest = self.space.smallest
        cost = self.cost(smallest)
        told: dict[str, Any] = {
            "MMACs": f"{cost.mmacs:.3f}",
            "parameters": f"{cost.parameters:,}",
        }
        if self.budget.latency_ms is not None and self.budget.allows(cost):
            told["ms"] = f"{self._timed(smallest):.2f}"
        limits = ", ".join(f"{k} {v:g}" for k, v in asdict(self.budget).items() if v is not None)
        needs = ", ".join(f"{v} {k}" for k, v in told.items())
        return (
            f"nothing in the space fits the budget ({limits}): the smallest has {needs}; "
            "allow more, or smaller inputs and widths"
        )
