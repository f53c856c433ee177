"""What a verification found, as values (format: schemas/report.schema.json)."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samespace._certificate import Certificate
from samespace.verification._matrix import (
    Cell,
    Criterion,
    cell_from_json,
    criterion_from_json,
)
from samespace.verification._upgrade import UpgradeSection, upgrade_from_json
from samespace_edge import ModelIdentity, VerificationError, canonical_json

SCHEMA = 1
METRICS = ("recall_at_1", "recall_at_5", "recall_at_10", "map")
METRIC_NAMES = {"recall_at_1": "R@1", "recall_at_5": "R@5", "recall_at_10": "R@10", "map": "mAP"}


@dataclass(frozen=True)
class ModelEntry:
    """A model of a report.

    Attributes:
        label: what it is called in this report; unique.
        declared: `query`, `gallery`, `baseline`, `paragon`, or several, as the caller named it.
        macs: multiply-accumulates for one picture.
        bytes: size of the graph file.
        decode_ms: median time to decode and resize one picture, in milliseconds.
        embed_ms: median time of the graph for one picture, in milliseconds.
        card: how it was made.
    """

    label: str
    identity: ModelIdentity
    role: str
    declared: tuple[str, ...]
    macs: int
    parameters: int
    bytes: int
    decode_ms: float
    embed_ms: float
    card: Mapping[str, Any]


@dataclass(frozen=True)
class Bank:
    """What the hub correction of a report was computed from, see `samespace.metrics.hub_bias`.

    Attributes:
        name: of the dataset or folder.
        sha256: hash of its pictures.
        pictures: how many.
        k, weight: of the bias.
    """

    name: str
    sha256: str
    pictures: int
    k: int
    weight: float


@dataclass(frozen=True)
class FlipCount:
    """Queries whose first hit turns wrong, or right, when `query` replaces the gallery model."""

    query: str
    gallery: str
    negative_rate: float
    positive_rate: float
    negative: tuple[str, ...]
    positive: tuple[str, ...]


@dataclass(frozen=True)
class Threshold:
    """A score threshold set for the gallery model's own queries, met by another model's.

    Attributes:
        threshold: cosine at which `gallery`'s own queries have a FAR of 1 %, or the user's own.
        own_far, own_tar: what those have there.
        far, tar: what `query`'s queries have there.
        same, different: histogram of the scores of matching and other pairs, in `bins`.
    """

    query: str
    gallery: str
    threshold: float
    own_far: float
    own_tar: float
    far: float
    tar: float
    bins: tuple[float, ...]
    same: tuple[int, ...]
    different: tuple[int, ...]


@dataclass(frozen=True)
class Example:
    """A query and what every pair of models found for it: paths and labels, best first."""

    path: str
    label: str
    kind: str
    hits: Mapping[str, tuple[tuple[str, str], ...]]


@dataclass(frozen=True)
class Report:
    """The result of `verify`.

    Attributes:
        dataset: `name`, `sha256`, `queries`, `gallery` (numbers of pictures), `labels`.
        machine: where it was measured.
        notes: what a reader has to know before the figures.
        bank: of the hub correction; None where there was none. Criteria, flips, thresholds,
            examples and certificates are all without correction.
        threshold: the user's own, which all thresholds are then; None where each was set at a FAR
            of 1 %.
        upgrades: of older by newer cloud models; None where there are none.
    """

    dataset: Mapping[str, Any]
    models: tuple[ModelEntry, ...]
    matrix: tuple[Cell, ...]
    criteria: tuple[Criterion, ...]
    flips: tuple[FlipCount, ...]
    thresholds: tuple[Threshold, ...]
    examples: tuple[Example, ...]
    notes: tuple[str, ...]
    machine: Mapping[str, Any]
    created: str
    version: str
    bank: Bank | None = None
    threshold: float | None = None
    upgrades: tuple[UpgradeSection, ...] | None = None

    @property
    def widths(self) -> tuple[int, ...]:
        """The widths below the full one that were measured, ascending."""
        return tuple(sorted({p.width for c in self.matrix for p in c.prefixes or ()}))

    @property
    def passed(self) -> bool:
        """Whether there is a criterion that decides, and every such one holds."""
        deciding = [c.holds for c in self.criteria if c.decides]
        return bool(deciding) and all(deciding)

    def model(self, label: str) -> ModelEntry:
        """The model called `label`; raises `VerificationError`."""
        for entry in self.models:
            if entry.label == label:
                return entry
        known = ", ".join(m.label for m in self.models)
        raise VerificationError(f"the report has no model {label!r}; it has: {known}")

    def cell(self, query: str, gallery: str) -> Cell:
        """M(query, gallery); raises `VerificationError` where it was not measured."""
        for cell in self.matrix:
            if (cell.query, cell.gallery) == (query, gallery):
                return cell
        raise VerificationError(f"M({query}, {gallery}) was not measured")

    def to_json(self) -> dict[str, Any]:
        """As it is written to `report.json`."""
        value = _plain(self)
        assert isinstance(value, dict)
        return {"schema": SCHEMA, "passed": self.passed, **value}

    @classmethod
    def from_json(cls, value: Any) -> Report:
        """The opposite of `to_json`; raises `VerificationError`."""
        if not isinstance(value, dict) or value.get("schema") != SCHEMA:
            raise VerificationError(f"this is not a report of schema {SCHEMA}")
        v = {k: x for k, x in value.items() if k not in ("schema", "passed")}
        try:
            v["models"] = tuple(
                ModelEntry(
                    **{
                        **m,
                        "identity": ModelIdentity.from_json(m["identity"]),
                        "declared": tuple(m["declared"]),
                    }
                )
                for m in v["models"]
            )
            v["matrix"] = tuple(cell_from_json(c) for c in v["matrix"])
            v["bank"] = Bank(**v["bank"]) if "bank" in v else None
            v["criteria"] = tuple(criterion_from_json(c) for c in v["criteria"])
            v["flips"] = tuple(
                FlipCount(
                    **{
                        **f,
                        "negative": tuple(f["negative"]),
                        "positive": tuple(f["positive"]),
                    }
                )
                for f in v["flips"]
            )
            v["thresholds"] = tuple(
                Threshold(**{**t, **{k: tuple(t[k]) for k in ("bins", "same", "different")}})
                for t in v["thresholds"]
            )
            v["examples"] = tuple(
                Example(
                    e["path"],
                    e["label"],
                    e["kind"],
                    {k: tuple((p, la) for p, la in hits) for k, hits in e["hits"].items()},
                )
                for e in v["examples"]
            )
            v["notes"] = tuple(v["notes"])
            if "upgrades" in v:
                v["upgrades"] = tuple(upgrade_from_json(u) for u in v["upgrades"])
            return cls(**v)
        except (KeyError, TypeError, ValueError) as error:
            raise VerificationError(f"malformed report: {error!r}") from None

    def write(self, path: str | Path) -> None:
        """Write `report.json`."""
        Path(path).write_text(json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n")

    @classmethod
    def read(cls, path: str | Path) -> Report:
        """Read a report from a file; raises `VerificationError`."""
        try:
            value = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise VerificationError(f"cannot read the report {path}: {error}") from None
        return cls.from_json(value)

    def certificates(self) -> tuple[Certificate, ...]:
        """A certificate for every query model whose deciding criteria all hold."""
        digest = hashlib.sha256(canonical_json(self.to_json()).encode()).hexdigest()
        issued = []
        failed = {c.query for c in self.criteria if c.decides and not c.holds}
        for criterion in self.criteria:
            if not criterion.decides or criterion.query in failed:
                continue
            cell = self.cell(criterion.query, criterion.gallery)
            issued.append(
                Certificate(
                    query=self.model(criterion.query).identity,
                    gallery=self.model(criterion.gallery).identity,
                    dataset=self.dataset,
                    criterion={
                        "metric": "recall_at_1",
                        "value": criterion.value,
                        "reference": str(self.model(criterion.reference).identity),
                        "reference_value": criterion.reference_value,
                        "difference": criterion.difference.value,
                        "difference_low": criterion.difference.low,
                        "difference_high": criterion.difference.high,
                        **({"rule": criterion.rule} if criterion.rule else {}),
                    },
                    figures={m: cell.estimates[m].value for m in METRICS},
                    report_sha256=digest,
                    issued=self.created,
                    version=self.version,
                    prefixes=tuple(p.width for p in criterion.prefixes or () if p.holds),
                    instructions=str(self.machine.get("instructions", "")),
                )
            )
        return tuple(issued)


def _plain(value: Any) -> Any:
    if isinstance(value, ModelIdentity):
        return value.to_json()
    if dataclasses.is_dataclass(value):
        # What there is none of by default is left out, so that a report without a bank, prefixes or
        # upgrades reads, and hashes, as it always did.
        fields = [(f, getattr(value, f.name)) for f in dataclasses.fields(value)]
        return {f.name: _plain(v) for f, v in fields if not (v is None and f.default is None)}
    if isinstance(value, Mapping):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value
