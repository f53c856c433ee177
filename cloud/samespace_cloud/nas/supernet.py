"""How a supernet is trained: which architectures learn in a step, and from what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from samespace_cloud.losses import LossContext
from samespace_cloud.nas._supernet import Supernet
from samespace_cloud.nas.space import Genotype, SearchSpace
from samespace_cloud.students import Students, WeightedLosses
from samespace_edge import ConfigError

Draw = Callable[[], Genotype]
Rule = Callable[[SearchSpace, Draw, int], list[Genotype]]

RULES: dict[str, Rule] = {
    "uniform": lambda space, draw, count: [draw()],
    "sandwich": lambda space, draw, count: [
        space.largest,
        space.canonical(space.smallest),
        *(draw() for _ in range(count)),
    ],
}
"""Which architectures learn in a step; where there are several, the first teaches the others.

| name | what runs | source |
| --- | --- | --- |
| uniform | one architecture at random | Guo et al. 2020 |
| sandwich | the largest, the smallest and some at random | Yu & Huang 2019 |
"""


class SuperStudent(Students):
    """A supernet under the losses that a single edge model has.

    L = mean over the step's architectures of losses + (1 - cos(embedding, sg(largest's)))

    with sg the stop-gradient and the last term for all but the first architecture (in-place
    distillation, Yu & Huang 2019). What is drawn depends on the seed and on the number of the step
    alone, which is part of the state: a resumed training draws what it would have drawn.

    Args:
        supernet: what learns.
        losses: names from the table of losses, and their weights.
        context: what the losses are built from.
        rule: a row of `RULES`.
        random_paths: architectures drawn in a step, for the sandwich.
        seed: of the draws.
        nested: see `samespace_cloud.config.TrainConfig`.
        fits: architectures drawn are made smaller until this holds; by default all are welcome.
    """

    def __init__(
        self,
        supernet: Supernet,
        losses: Sequence[tuple[str, float]],
        context: LossContext,
        rule: str = "sandwich",
        random_paths: int = 2,
        seed: int = 0,
        nested: Sequence[int] = (),
        fits: Callable[[Genotype], bool] = lambda genotype: True,
    ) -> None:
        super().__init__()
        if rule not in RULES:
            raise ConfigError(f"there is no rule {rule!r}; choose one of: {', '.join(RULES)}")
        self.models = nn.ModuleDict()
        self.supernet = supernet
        self.terms = WeightedLosses(losses, context, nested)
        self._rule, self._random_paths, self._seed = rule, random_paths, seed
        self._fits = fits
        self.step: Tensor
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))

    @property
    def sizes(self) -> list[int]:
        """All sides of inputs that may be drawn."""
        return list(self.supernet.space.input_sizes)

    def paths(self, step: int) -> list[Genotype]:
        """The architectures that learn in a step."""
        space = self.supernet.space
        rng = Random(f"{self._seed} {step}")
        return RULES[self._rule](
            space, lambda: space.sample_within(rng, self._fits), self._random_paths
        )

    def loss(
        self, inputs: Mapping[int, Tensor], label: Tensor, taught: Tensor | None, done: float
    ) -> Tensor:
        """See `Students.loss`."""
        paths = self.paths(int(self.step))
        if self.training:
            self.step += 1
        space, terms = self.supernet.space, []
        first: Tensor | None = None
        for genotype in paths:
            images = inputs[space.decode(genotype).input_size]
            x = self.supernet.normalised(images, label.device)
            embedding = self.supernet(x, genotype).float()
            term = self.terms(embedding, label, taught)
            if first is None:
                first = embedding.detach()
            else:
                term = term + 1 - F.cosine_similarity(embedding, first).mean()
            terms.append(term)
        return torch.stack(terms).mean()
