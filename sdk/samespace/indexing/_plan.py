"""Which rows of a manifest have to be embedded: what the gallery does not hold as it is."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from samespace.gallery import Gallery, Record
from samespace.gallery._filter import Where, compile_where
from samespace.indexing._failures import Failure, Ledger
from samespace.indexing._manifest import SOURCE, Manifest, Row
from samespace.pool import stamps
from samespace_edge import ImageError, ModelIdentity, UnknownIdError

_CHUNK = 256
"""Rows that are looked up at once."""


@dataclass(frozen=True)
class Task:
    """A picture to embed.

    Attributes:
        source: its path or URL.
        payload: of the item that it becomes, its source among it.
        there: whether the item is there already, of another picture or model.
    """

    id: str
    row: int
    source: str
    payload: dict[str, Any]
    there: bool

    def failed(self, reason: str) -> Failure:
        """This one, set aside."""
        return Failure(
            "picture", self.id, self.row, self.source, self.payload[SOURCE]["stamp"], reason
        )


@dataclass
class Counts:
    """What became of the rows that needed no embedding.

    Attributes:
        rows: looked at, of those that the filter keeps.
        there: in the gallery as they are.
        payloads: in the gallery, with another payload, which they were given.
        aside: set aside: now, or before and not tried again.
        whole: whether every row was looked at.
    """

    rows: int = 0
    there: int = 0
    payloads: int = 0
    aside: int = 0
    whole: bool = False


class Plan:
    """Goes through a manifest and finds what is to be done.

    Args:
        model: who embeds.
        where: which rows; see `Gallery.search`. Every column can be asked for.
        trust: leave sources of this model's items alone, instead of asking whether they changed.
        limit: stop after so many pictures to embed.
    """

    def __init__(
        self,
        manifest: Manifest,
        gallery: Gallery,
        model: ModelIdentity,
        ledger: Ledger,
        *,
        where: Where | None,
        trust: bool,
        limit: int | None,
    ) -> None:
        self._manifest, self._gallery, self._model = manifest, gallery, model
        self._ledger, self._trust, self._limit = ledger, trust, limit
        self._passes = None if where is None else _Passes(where)
        self.counts = Counts()

    def batches(self, size: int) -> Iterator[tuple[list[Task], list[str]]]:
        """What is to be embedded, and where the pictures are; nothing, now and then, where that
        is long in coming."""
        waiting: list[Task] = []
        left = self._limit
        for task in self._tasks():
            if left == 0:
                break
            if task is not None:
                left = None if left is None else left - 1
                waiting.append(task)
            if task is None or len(waiting) == size:
                yield waiting, [t.source for t in waiting]
                waiting = []
        else:
            self.counts.whole = True
        if waiting:
            yield waiting, [t.source for t in waiting]

    def _tasks(self) -> Iterator[Task | None]:
        """None stands for some rows of which none has to be embedded."""
        rows = (r for r in self._manifest.rows() if self._passes is None or self._passes(r))
        while chunk := list(islice(rows, _CHUNK)):
            self.counts.rows += len(chunk)
            found = list(self._sorted_out(self._usable(chunk)))
            yield from found
            if not found:
                yield None

    def _usable(self, rows: Sequence[Row]) -> list[Row]:
        named = [(r.id, r.number) for r in rows if r.problem is None]
        first = dict(zip([n for _, n in named], self._ledger.first_seen(named), strict=True))
        usable, problems = [], []
        for row in rows:
            problem = row.problem
            if problem is None and first[row.number] != row.number:
                problem = f"its id is that of row {first[row.number]}"
            if problem is None:
                usable.append(row)
            else:
                problems.append(Failure("row", row.id, row.number, row.path, "", problem))
        self._ledger.set_aside(problems)
        self.counts.aside += len(problems)
        return usable

    def _sorted_out(self, rows: Sequence[Row]) -> Iterator[Task]:
        records = _records(self._gallery, [r.id for r in rows])
        aside = self._ledger.known([r.id for r in rows])
        trusted = {r.id for r in rows if self._trust and self._made(records.get(r.id))}
        asked = [r for r in rows if r.id not in trusted]
        found = dict(
            zip(
                [r.id for r in asked],
                stamps([self._manifest.located(r) for r in asked]),
                strict=True,
            )
        )
        for row in rows:
            record, payload = records.get(row.id), self._manifest.payload(row)
            if row.id in trusted:
                assert record is not None
                self._keep(record, payload)
                continue
            stamp = found[row.id]
            failed = isinstance(stamp, ImageError)
            told = {"path": row.path, "stamp": "" if failed else stamp}
            payload[SOURCE] = told
            task = Task(
                row.id, row.number, self._manifest.located(row), payload, record is not None
            )
            if self._made(record) and _source(record) == told:
                assert record is not None
                self._keep(record, payload)
            elif row.id in aside and aside[row.id][0] == told["stamp"]:
                self.counts.aside += 1
            elif isinstance(stamp, ImageError):
                self._ledger.set_aside([task.failed(str(stamp))])
                self.counts.aside += 1
            else:
                yield task

    def _made(self, record: Record | None) -> bool:
        """Whether this model made the item's vector."""
        return record is not None and same_model(record.model, self._model)

    def _keep(self, record: Record, payload: dict[str, Any]) -> None:
        if SOURCE not in payload and _source(record) is not None:
            payload[SOURCE] = _source(record)
        if record.payload == payload:
            self.counts.there += 1
        else:
            self._gallery.update(record.id, payload=payload)
            self.counts.payloads += 1
        self._ledger.settle([record.id])


def same_model(one: ModelIdentity, other: ModelIdentity) -> bool:
    """Whether two are the same file of the same model."""
    return (one.fingerprint, one.variant_sha256) == (other.fingerprint, other.variant_sha256)


def _source(record: Record | None) -> Any:
    payload = record.payload if record else None
    return payload.get(SOURCE) if isinstance(payload, dict) else None


def _records(gallery: Gallery, ids: Sequence[str]) -> dict[str, Record]:
    """The items with these ids; those that are not there are left out."""
    there = [i for i in ids if i in gallery]
    try:
        return {r.id: r for r in gallery.get(there)}
    except UnknownIdError:  # one of them was deleted in this moment
        return {i: gallery.get([i])[0] for i in ids if i in gallery}


class _Passes:
    """A filter on a manifest's columns, as SQLite applies it to payloads."""

    def __init__(self, where: Where) -> None:
        condition, self._parameters = compile_where(where)
        self._db = sqlite3.connect(":memory:", check_same_thread=False)
        self._query = f"SELECT {condition} FROM (SELECT ? AS payload)"

    def __call__(self, row: Row) -> bool:
        if row.problem is not None:
            return True  # to be told of
        text = json.dumps(dict(row.columns))
        return bool(self._db.execute(self._query, [*self._parameters, text]).fetchone()[0])
