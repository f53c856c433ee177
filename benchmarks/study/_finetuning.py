"""Fine-tuning by each method: how many answers are right, and how many turn with the seed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._ends import difference_ends, share_ends
from benchmarks.study._finetuning_methods import CPU, Answers, Linear, Method
from benchmarks.study._finetuning_runs import FIRST, OURS, Bench
from benchmarks.study._pool import NotTrainedError
from samespace import metrics

METHODS = tuple(FIRST)
BASE = "fine-tuning"
"""What the others are compared with."""

COLUMNS = {
    "part": "main; ablation: one change of LQF taken back at a time; settings: what was tried, on"
    " validation pictures; cost: time and memory",
    "start": "weights that the tuning starts from",
    "network": "what is tuned, and the side of its input",
    "data": "data set; photographs unless it says rendered",
    "shots": "train pictures of each class; 0: all",
    "method": "how the network was tuned",
    "settings": "those that validation pictures chose",
    "validation": "share of the validation pictures answered rightly, mean over seeds",
    "accuracy": "share of the test pictures answered rightly, mean over seeds",
    "accuracy_ci": "its 95 % interval, over pictures or labels, the wider",
    "accuracy_spread": "standard deviation over seeds",
    "above": "accuracy less that of fine-tuning",
    "above_ci": "its 95 % interval, paired by picture and seed",
    "nfr": "share of the test pictures that only the first of two trainings on the same pictures"
    " answers rightly; mean over pairs of seeds",
    "nfr_ci": "its 95 % interval",
    "nfr_ratio": "nfr over that of fine-tuning",
    "seconds": "part cost: of one training with nothing beside it, views made before",
    "peak_mib": "part cost: largest memory of it, MiB; on a GPU, of the GPU",
    "seeds": "how many; with few shots each has its own draw, but for nfr",
    "device": "what trained it: cpu, or the name of a GPU",
}

NOTES = [
    "Fine-tuning moves the whole network, LQF all from a stage on.",
    "Pictures have six views, the same for every method and seed; a seed decides over the rest that"
    " is random: order and head. LQF's head is a ridge regression. With few shots, accuracies are"
    " of as many draws of pictures as there are seeds, the same for all methods; negative flips are"
    " between seeds on the first draw.",
    "Settings were chosen on validation pictures, with the first seed and draw: those of 1, 10 and"
    " 20 shots are those of 5.",
]

Rows = Iterator[dict[str, Any]]

_PUBLISHED: dict[str, Any] = {"slope": 0.1, "recalibrate": True, "solver": "kfac", "epochs": 20}
_ENTROPY: dict[str, Any] = {"loss": "cross-entropy", "solver": "adam", "lr": 1e-3}


@dataclass(frozen=True)
class Found:
    """What a method found.

    Attributes:
        drawn: of each seed, with pictures of its own where they are drawn.
        same: of each seed, with the pictures of the first draw.
    """

    method: Method
    drawn: list[Answers]
    same: list[Answers]


def setting_rows(bench: Bench, shots: int) -> Rows:
    """A row for every setting that is tried."""
    for name in METHODS:
        *tried, _ = bench.search(name, shots)
        for method, answers in tried:
            yield _row(
                bench,
                "settings",
                shots,
                name,
                settings=method.text,
                validation=bench.validation(answers),
                seeds=1,
                device=answers.device,
            )


def main_rows(bench: Bench, shots: int, seeds: Sequence[int]) -> Rows:
    """A row for every method."""
    chosen = {name: bench.chosen(name, shots) for name in METHODS}
    yield from _measured(bench, "main", shots, seeds, chosen)


ABLATION: dict[str, dict[str, Any]] = {
    "leaky, square loss, K-FAC (LQF)": {},
    "without leaky activations": {"slope": 0.0},
    "without the square loss": _ENTROPY,
    "without K-FAC": {"solver": "sgd"},
    "without all three": {**_ENTROPY, "slope": 0.0, "solver": "sgd", "lr": 0.5},
    "conjugate gradients for K-FAC": {"solver": "cg"},
}
"""LQF as it was published, and what each row of the ablation changes of it."""

_CHOSEN = "LQF, as chosen here"
ABLATION_ROWS = (BASE, *ABLATION, _CHOSEN)


def ablation_methods(bench: Bench, shots: int) -> dict[str, Method]:
    """Fine-tuning, LQF as it was published, without each of its changes, without all, and as
    chosen here.

    All linear ones have the weight decay and head that were chosen for LQF, and gradient descent of
    as many epochs, so what differs is the change alone.
    """
    ours = bench.chosen("LQF", shots)
    assert isinstance(ours, Linear)
    methods: dict[str, Method] = {BASE: bench.chosen(BASE, shots)}
    for name, own in ABLATION.items():
        methods[name] = replace(ours, config=replace(ours.config, **(_PUBLISHED | own)))
    return methods | {_CHOSEN: ours}


def ablation_rows(bench: Bench, shots: int, seeds: Sequence[int]) -> Rows:
    """A row for each of `ablation_methods`; those that are neither kept nor to be trained are left
    out, but for fine-tuning."""
    methods = ablation_methods(bench, shots)
    yield from _measured(bench, "ablation", shots, seeds, methods, partial=True)


def average_rows(rows: Sequence[dict[str, Any]]) -> Rows:
    """The main rows' means over data sets, where more than one has them."""
    main = [r for r in rows if r["part"] == "main" and r["data"] != AVERAGE]
    for place in dict.fromkeys(map(_regime, main)):
        there = [r for r in main if _regime(r) == place]
        if len({r["data"] for r in there}) < 2 or any(r["nfr"] is None for r in there):
            continue
        means = [_average([r for r in there if r["method"] == method]) for method in METHODS]
        usual = next(m["nfr"] for m in means if m["method"] == BASE)
        yield from (m | {"nfr_ratio": m["nfr"] / usual if usual else None} for m in means)


AVERAGE = "mean of the data sets"


def device_note(rows: Sequence[dict[str, Any]]) -> str:
    """Which of the main rows have trainings of a GPU among theirs."""
    there = [r for r in rows if r["part"] == "main" and r["data"] != AVERAGE and r["device"] != CPU]
    told = dict[str, list[str]]()
    for r in there:
        amount = f"{r['shots']} of a class" if r["shots"] else "all pictures"
        gpu = r["device"].removeprefix(f"{CPU}, ")
        told.setdefault(f"{gpu}, {amount} of {r['data']}", []).append(r["method"])
    if not told:
        return "Trained on the machine named below."
    listed = "; ".join(
        where + ("" if len(names) == len(METHODS) else f" ({', '.join(names)})")
        for where, names in told.items()
    )
    return f"Trained on the machine named below, but for these, in part or whole: {listed}."


def _regime(row: dict[str, Any]) -> tuple[str, str, int]:
    return row["network"], row["start"], row["shots"]


def _average(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Their mean; data sets are independent of one another, so squares of half intervals add up."""
    found = dict(rows[0]) | {"data": AVERAGE, "settings": "each its own"}
    for key in ("validation", "accuracy", "above", "nfr"):
        found[key] = float(np.mean([r[key] for r in rows]))
    for key in ("accuracy", "above", "nfr"):
        sides = np.array([np.abs(np.array(r[f"{key}_ci"]) - r[key]) for r in rows])
        low, high = np.sqrt((sides**2).sum(0)) / len(rows)
        found[f"{key}_ci"] = [float(found[key] - low), float(found[key] + high)]
    return found | {"accuracy_spread": None, "device": _joined(r["device"] for r in rows)}


def _measured(
    bench: Bench,
    part: str,
    shots: int,
    seeds: Sequence[int],
    methods: dict[str, Method],
    partial: bool = False,
) -> Rows:
    truth = bench.material.codes(bench.material.items("test"))
    intervals = metrics.ClusterRobust(truth)
    found = dict[str, Found]()
    for name, method in methods.items():
        with suppress(NotTrainedError) if partial and name != BASE else nullcontext():
            found[name] = _found(bench, method, shots, seeds)
    base = found[BASE]
    usual = _right(base.drawn, truth)
    usual_turned = _turned(base.same, truth)

    for name, own in found.items():
        right, turned = _right(own.drawn, truth), _turned(own.same, truth)
        difference = right.mean(0) - usual.mean(0)
        yield _row(
            bench,
            part,
            shots,
            name,
            settings=own.method.text,
            validation=float(np.mean([bench.validation(a) for a in own.drawn])),
            accuracy=float(right.mean()),
            accuracy_ci=share_ends(intervals, right.mean(0)),
            accuracy_spread=float(np.std(right.mean(1))),
            above=float(difference.mean()),
            above_ci=difference_ends(intervals, difference),
            nfr=float(turned.mean()) if len(seeds) > 1 else None,
            nfr_ci=share_ends(intervals, turned) if len(seeds) > 1 else None,
            nfr_ratio=float(turned.mean() / usual_turned.mean()) if usual_turned.any() else None,
            seeds=len(seeds),
            device=_joined(a.device for a in (*own.drawn, *own.same)),
        )


def _joined(names: Iterable[str]) -> str:
    return ", ".join(sorted({name for some in names for name in some.split(", ")}))


def _found(bench: Bench, method: Method, shots: int, seeds: Sequence[int]) -> Found:
    drawn = [bench.answers(method, shots, s if shots else 0, s) for s in seeds]
    same = [bench.answers(method, shots, 0, s) for s in seeds] if shots else drawn
    return Found(method, drawn, same)


def blank_row(bench: Bench, part: str, shots: int, method: str) -> dict[str, Any]:
    """A row that says what it is of, and nothing else yet."""
    return {
        **dict.fromkeys(COLUMNS),
        "part": part,
        "start": OURS if bench.ours else "ImageNet",
        "network": bench.material.sees.architecture,
        "data": bench.material.task.name,
        "shots": shots,
        "method": method,
    }


def _row(bench: Bench, part: str, shots: int, method: str, **found: Any) -> dict[str, Any]:
    return blank_row(bench, part, shots, method) | found


def _right(answers: Sequence[Answers], truth: NDArray[np.int64]) -> NDArray[np.float64]:
    """(seeds, N): 1 where the answer is right."""
    return np.array([a.test == truth for a in answers], np.float64)


def _turned(answers: Sequence[Answers], truth: NDArray[np.int64]) -> NDArray[np.float64]:
    """(N,): the share of ordered pairs of trainings of which only the first is right."""
    right = _right(answers, truth)
    count = len(right)
    pairs = [right[i] * (1 - right[j]) for i in range(count) for j in range(count) if i != j]
    return np.mean(pairs, axis=0) if pairs else np.zeros(len(truth))
