"""What `parity` found, as values and as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from samespace_edge import ConfigError

SCHEMA = 1

Status = Literal["pass", "fail", "not run"]

LEGEND: Mapping[Status, str] = {
    "pass": "ran here and holds its floors",
    "fail": "ran here and is below a floor",
    "not run": "converted; its runtime does not run here",
}


@dataclass(frozen=True)
class Floor:
    """What a file has to reach.

    Attributes:
        drop: largest loss of R@1 against the reference, as a fraction.
        agreement: smallest share of queries whose first hit is the reference's.
    """

    drop: float
    agreement: float

    def __post_init__(self) -> None:
        if not (0 <= self.drop <= 1 and 0 <= self.agreement <= 1):
            raise ConfigError(
                f"a floor is two fractions between 0 and 1, not {self.drop} and {self.agreement}"
            )


FLOORS: Mapping[str, Floor] = {
    "fp32": Floor(0.001, 0.995),
    "fp16": Floor(0.001, 0.995),
    "int8": Floor(0.005, 0.97),
    "dynamic": Floor(0.005, 0.97),
}


@dataclass(frozen=True)
class ParityFlip:
    """A query whose first hit is another one than the reference's.

    Attributes:
        kind: `negative` if it was right and is wrong, `positive` the other way round, `none` if
            both are right or both wrong.
        expected, found: the gallery pictures.
    """

    query: str
    kind: Literal["negative", "positive", "none"]
    expected: str
    found: str


@dataclass(frozen=True)
class Figures:
    """What a file does in a runtime; cosines are to the reference's vectors.

    Attributes:
        load_ms, p50_ms, p95_ms: one picture at a time, one thread.
        agreement: share of queries whose first hit is the reference's.
        label_agreement: share of queries whose first hit has the label of the reference's: what is
            left when a picture makes way for another one of the same thing.
        recall_at_1: in the gallery, as a fraction.
        difference, difference_ci: of R@1 against the reference, paired by query, and its 95 %
            interval.
        flips: every query whose first hit changed.
    """

    load_ms: float
    p50_ms: float
    p95_ms: float
    cosine_min: float
    cosine_p1: float
    cosine_mean: float
    agreement: float
    label_agreement: float
    recall_at_1: float
    difference: float
    difference_ci: tuple[float, float]
    flips: tuple[ParityFlip, ...]

    @property
    def negative(self) -> int:
        """Queries that turned wrong."""
        return sum(f.kind == "negative" for f in self.flips)

    @property
    def positive(self) -> int:
        """Queries that turned right."""
        return sum(f.kind == "positive" for f in self.flips)


@dataclass(frozen=True)
class ParityRow:
    """One file in one runtime.

    Attributes:
        status: see `LEGEND`.
        reason: why it did not run, or which floor it is below.
        proves: what the figures say, where that is not "the device's own result".
        figures: None where it did not run.
    """

    variant: str
    precision: str
    runtime: str
    bytes: int
    status: Status
    reason: str | None
    proves: str | None
    figures: Figures | None


@dataclass(frozen=True)
class ParityReport:
    """Every file of a bundle in every runtime, against one reference.

    Attributes:
        bundle, gallery: name and fingerprint of the two models.
        dataset: name, sha256, and how many queries and gallery pictures.
        reference: what the figures compare with.
        reference_recall_at_1: its R@1 in the gallery.
        floors: by precision.
    """

    bundle: Mapping[str, str]
    gallery: Mapping[str, str]
    dataset: Mapping[str, Any]
    reference: str
    reference_recall_at_1: float
    floors: Mapping[str, Floor]
    rows: Sequence[ParityRow]
    machine: Mapping[str, Any]
    created: str
    version: str

    @property
    def passed(self) -> bool:
        """Whether at least one file ran, and every one that ran holds its floors."""
        ran = [row for row in self.rows if row.figures]
        return bool(ran) and all(row.status == "pass" for row in ran)

    def to_json(self) -> dict[str, Any]:
        """As it is written; see schemas/parity.schema.json."""
        return {"schema": SCHEMA, "passed": self.passed, "legend": dict(LEGEND), **asdict(self)}

    def write(self, path: str | Path) -> None:
        """Write the JSON."""
        text = json.dumps(self.to_json(), indent=1, ensure_ascii=False)
        Path(path).write_text(text + "\n", encoding="utf-8")
