"""The run: reader, pool and writer, one behind the other."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from samespace.gallery import Gallery
from samespace.gallery._filter import Where
from samespace.indexing._failures import Ledger
from samespace.indexing._manifest import Manifest
from samespace.indexing._plan import Plan, Task
from samespace.pool import Made, Pool, is_url, open_pool
from samespace_edge import ConfigError, Embedder

Vector = NDArray[np.float32]
Progress = Callable[[str, int, int], None]

BATCH = 64
"""Pictures that are embedded together, and then stored in one transaction."""

_WRITE_EVERY = 30.0  # seconds between two versions of the report


@dataclass(frozen=True, repr=False)
class IndexReport:
    """What a run has done.

    Attributes:
        rows: of the manifest that were looked at and that the filter keeps.
        added: items that are new.
        again: items that were there and embedded again: their pictures changed, or another model
            had made them.
        payloads: items whose payload alone was another one.
        there: items that were there as they are.
        aside: pictures and rows that were set aside, those of earlier runs that were not tried
            again among them.
        finished: whether every row was looked at.
        report: the CSV of what was set aside; None where nothing was.
        seconds: how long it took.
    """

    rows: int
    added: int
    again: int
    payloads: int
    there: int
    aside: int
    finished: bool
    report: Path | None
    seconds: float

    def __repr__(self) -> str:
        return (
            f"IndexReport({self.added:,} added, {self.again:,} embedded again, "
            f"{self.payloads:,} payloads, {self.there:,} were there, {self.aside:,} set aside)"
        )


def index_pictures(
    manifest: Manifest | str | Path,
    gallery: Gallery,
    model: Embedder,
    *,
    workers: int = 1,
    pool: Pool | None = None,
    batch: int = BATCH,
    limit: int | None = None,
    where: Where | None = None,
    trust_sources: bool = False,
    retry_failed: bool = False,
    report: str | Path | None = None,
    progress: Progress = lambda stage, done, total: None,
) -> IndexReport:
    """Bring the pictures of a manifest into a gallery, each of them once.

    An item that is there, made by this file of this model of a source that did not change since, is
    not embedded again; where its columns changed it is given the new payload. Stopped, by whatever,
    the same call goes on: every batch is one transaction. A picture that cannot be embedded is set
    aside with the reason, and is not tried again until its source changes or `retry_failed`.

    Held in memory are at most `3 * workers + 2` batches of rows and vectors (through Ray, those of
    one window of 4,096), and some 1,300 rows of which it is asked whether they are there; ids that
    were seen and what is set aside are in a temporary file. Every process of the pool holds the
    model, the pixels of one batch at the model's input size and one decoded picture (four where
    they come from URLs).

    Args:
        manifest: see `Manifest`.
        gallery: an open one, which accepts the model.
        model: who embeds.
        workers: processes that read, decode and embed; 0 does it in this one.
        pool: from `samespace.pool.open_pool`, instead of `workers`.
        batch: pictures that are embedded together and stored in one transaction.
        limit: stop after so many pictures that were tried.
        where: which rows, as a filter on the manifest's columns (see `sdk/README.md`).
        trust_sources: take it that the sources of this model's items did not change, instead of
            asking; over a network that is one question for every item.
        retry_failed: try again what earlier runs have set aside.
        report: the CSV of what is set aside; by default the manifest's name with `.failed.csv`,
            beside it, or in the current folder where the manifest is at a URL.
        progress: is told the stage and how many rows of how many are done.

    Raises `DataError` for a manifest that cannot be read, `ConfigError`, `NotCertifiedError` and
    the gallery's errors, `SamespaceError` where no process can be started.
    """
    if batch < 1 or (limit is not None and limit < 0):
        raise ConfigError(f"batch and limit count pictures, not {batch} and {limit}")
    started = time.monotonic()
    listed = manifest if isinstance(manifest, Manifest) else Manifest(str(manifest))
    gallery.add([], vectors=np.empty((0, model.dim), np.float32), model=model)  # is it accepted?
    with closing(Ledger(_report_of(listed, report), retry_failed)) as ledger:
        plan = Plan(
            listed, gallery, model.identity, ledger, where=where, trust=trust_sources, limit=limit
        )
        writer = _Writer(gallery, model, ledger)

        def settled() -> int:
            counts = plan.counts
            return counts.there + counts.payloads + counts.aside + writer.done

        total = listed.count()
        wrote = time.monotonic()
        try:
            with open_pool(model, workers=workers) if pool is None else nullcontext(pool) as chosen:
                for tasks, made in chosen.run(plan.batches(batch)):
                    writer.store(tasks, made)
                    progress("index", min(settled(), total), total)
                    if time.monotonic() - wrote > _WRITE_EVERY:
                        ledger.write()
                        wrote = time.monotonic()
            if plan.counts.whole and where is None:
                ledger.forget_unseen()
        finally:
            ledger.write()
        counts = plan.counts
        done = settled()
        progress("index", done, done if counts.whole else total)
        return IndexReport(
            rows=counts.rows,
            added=writer.added,
            again=writer.again,
            payloads=counts.payloads,
            there=counts.there,
            aside=counts.aside + writer.aside,
            finished=counts.whole,
            report=ledger.report if ledger.report.exists() else None,
            seconds=time.monotonic() - started,
        )


class _Writer:
    """Puts what was embedded into the gallery."""

    def __init__(self, gallery: Gallery, model: Embedder, ledger: Ledger) -> None:
        self._gallery, self._model, self._ledger = gallery, model, ledger
        self.added = self.again = self.aside = 0

    @property
    def done(self) -> int:
        """Pictures that are stored or set aside."""
        return self.added + self.again + self.aside

    def store(self, tasks: Sequence[Task], made: Sequence[Made]) -> None:
        """Store a batch in one transaction."""
        good: list[tuple[Task, Vector]] = []
        for task, vector in zip(tasks, made, strict=True):
            reason = vector if isinstance(vector, str) else _without_direction(vector)
            if reason is not None:
                self._ledger.set_aside([task.failed(reason)])
                self.aside += 1
            else:
                good.append((task, np.asarray(vector)))
        if not good:
            return
        self._gallery.add(
            [t.id for t, _ in good],
            vectors=np.stack([v for _, v in good]),
            model=self._model,
            payloads=[t.payload for t, _ in good],
            replace=True,
        )
        again = sum(t.there for t, _ in good)
        self.added += len(good) - again
        self.again += again
        self._ledger.settle([t.id for t, _ in good])


def _without_direction(vector: Vector) -> str | None:
    return None if np.linalg.norm(vector) > 0.5 else "the model makes a zero vector of it"


def _report_of(manifest: Manifest, given: str | Path | None) -> Path:
    if given is not None:
        return Path(given)
    if is_url(manifest.where):
        return Path(manifest.where.rpartition("/")[2] + ".failed.csv")
    return Path(manifest.where + ".failed.csv")
