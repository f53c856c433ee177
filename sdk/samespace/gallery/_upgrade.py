"""From one model to the next in a gallery that goes on being searched."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from samespace.gallery._hubs import Progress, silent
from samespace.gallery._inputs import loads, unit_vectors
from samespace.gallery._originals import Made, Originals, StreamedOriginals
from samespace.gallery._protocols import WaitingRow
from samespace.gallery._upgrade_order import UpgradeOrder
from samespace.gallery._upgrade_store import COMMITTED, ROLLING, RUNNING, Counts, Stored
from samespace.gallery._upgrade_values import UpgradePlan, UpgradeStatus
from samespace_edge import (
    ConfigError,
    GalleryBusyError,
    GalleryError,
    InvalidVectorError,
    ModelIdentity,
)

if TYPE_CHECKING:
    from samespace.gallery._gallery import Gallery

BATCH = 64
"""Items that are embedded, and then stored in one transaction."""

Following = Callable[[int, Any, int], tuple[Any, list[WaitingRow]]]
"""From target, place and count to the next place, and the rows until there."""

_SAMPLE = 32
_ROW_BYTES = 48  # of an old vector that is kept: key, model, checksum, SQLite's own


_WAYS_ON = {
    RUNNING: "commit it or roll it back",
    COMMITTED: "discard its old vectors, or roll it back",
    ROLLING: "call rollback again, it goes on where it was,",
}


class Upgrade:
    """The upgrade of a gallery to a newer model of its space, while it is searched.

    >>> gallery.upgrade.plan(Pictures(new, "photos")).seconds        # doctest: +SKIP
    5140.0
    >>> gallery.upgrade.run(Pictures(new, "photos"))                 # doctest: +SKIP
    >>> gallery.upgrade.commit()                                     # doctest: +SKIP

    An item's new vector takes the place of its old one in one transaction, and the old one is kept,
    so that at every instant every item is searched once, by one of the two. Both models' queries
    are answered all the while: the target has to be certified, which means that it was measured to
    search the old vectors. Stopped, by whatever, `run` goes on where it was.
    """

    def __init__(self, gallery: Gallery) -> None:
        self._gallery = gallery
        self._stored = gallery._upgrades

    def status(self) -> UpgradeStatus | None:
        """How far it is; None where no upgrade is under way and no old vectors are kept."""
        gallery = self._gallery
        with gallery._lock, gallery._store.reading():
            current = self._stored.current()
            if current is None:
                return None
            return self._told(current, self._stored.counts(current.target))

    def plan(
        self,
        originals: Originals,
        *,
        order: UpgradeOrder | None = None,
        sample: int = _SAMPLE,
    ) -> UpgradePlan:
        """Find out what `run` would do, and try it on a few items; nothing is changed.

        Args:
            originals: what items are embedded again from, see `Pictures` and `GivenVectors`.
            order: of `run`.
            sample: how many items to try.
        """
        gallery, target = self._gallery, originals.identity
        if target.dim != gallery.dim:
            raise ConfigError(_other_width(target, gallery))
        with gallery._lock:
            models = gallery._named()
            made = gallery._store.count_by_model()
            number = next((n for n, m in models.items() if _same(m, target)), None)
            proof = next((c for n, _, c in gallery._store.models() if n == number), None)
            total = sum(made.values()) - (made.get(number, 0) if number is not None else 0)
            chosen = self._stored.some_waiting(-1 if number is None else number, sample, total)
        started = time.perf_counter()
        results = originals.make([(id_, loads(text)) for _, id_, text, _ in chosen])
        seconds = (time.perf_counter() - started) / max(1, len(chosen))
        failed = {w[1]: r for w, r in zip(chosen, results, strict=True) if isinstance(r, str)}
        return UpgradePlan(
            target=target,
            certified=number is not None,
            criterion=proof and proof["criterion"],
            figures=proof and proof["figures"],
            items=sum(made.values()),
            by_model={m: made.get(n, 0) for n, m in models.items()},
            to_embed=total,
            sample=len(chosen),
            unreadable=failed,
            seconds_per_item=seconds,
            workers=getattr(originals, "workers", 1),
            kept_bytes=total * (4 * gallery.dim + _ROW_BYTES),
            order=(order or UpgradeOrder()).name,
        )

    def run(
        self,
        originals: Originals,
        *,
        order: UpgradeOrder | None = None,
        limit: int | None = None,
        batch: int = BATCH,
        retry: bool = False,
        progress: Progress = silent,
    ) -> UpgradeStatus:
        """Begin an upgrade, or go on with the one that is under way.

        Args:
            originals: what items are embedded again from; its model is the target.
            order: which items come first; by default a random one. It is settled when the upgrade
                begins; items that come later are embedded last.
            limit: stop after so many items, say to look at what a few do: a canary.
            batch: items in one transaction.
            retry: try items again that could not be read before.
            progress: is told the stage and how many items of how many are done.

        An item that cannot be embedded again stays as it is and is listed in the status. Raises
        `NotCertifiedError` for a target that the gallery does not accept, `GalleryBusyError` where
        another process runs an upgrade of this gallery, `GalleryError` where another upgrade is
        under way or its old vectors are still kept, `ConfigError`, and storage errors.
        """
        if batch < 1 or (limit is not None and limit < 0):
            raise ConfigError(f"batch and limit count items, not {batch} and {limit}")
        gallery = self._gallery
        gallery._store.require_writable()
        with gallery._alone(), originals.working():
            target = self._begin(originals.identity, order or UpgradeOrder())
            if retry:
                with gallery._lock, gallery._store.writing():
                    self._stored.try_again()
            self._backfill(target, originals, limit, batch, progress)
            with gallery._lock:
                gallery._settle()
        status = self.status()
        assert status is not None
        return status

    def commit(self, *, partial: bool = False) -> UpgradeStatus:
        """Say that the upgrade is done. The old vectors are kept until `discard`.

        Args:
            partial: also where items are waiting: they keep their old vectors.

        Raises `GalleryError` where nothing is under way, or where items are waiting.
        """
        gallery = self._gallery
        with gallery._lock, gallery._store.writing():
            current = self._need()
            if current.state == COMMITTED:
                raise GalleryError(f"the upgrade of gallery {gallery.name!r} is committed already")
            if current.state == ROLLING:
                raise GalleryError(
                    f"the upgrade of gallery {gallery.name!r} was being rolled back: call rollback "
                    "again, and it goes on where it was"
                )
            counts = self._stored.counts(current.target)
            if counts.waiting and not partial:
                raise GalleryError(
                    f"{counts.waiting:,} items of gallery {gallery.name!r} are not embedded again "
                    "yet: run the upgrade on, or commit with partial=True (--partial) and they "
                    "keep their old vectors"
                )
            self._stored.commit(current)
        status = self.status()
        assert status is not None
        return status

    def rollback(self) -> int:
        """Put every old vector that is kept back, in one transaction; returns how many.

        Items that were added with, or given, a vector of the target meanwhile keep it. Raises
        `GalleryError` where there is nothing to roll back.
        """
        gallery = self._gallery
        gallery._store.require_writable()
        with gallery._alone(), gallery._lock:
            with gallery._store.writing():
                self._need()
                count = self._stored.rollback()
            gallery._changed()
        return count

    def discard(self) -> int:
        """Drop the old vectors of a committed upgrade: there is no way back. Returns how many.

        Raises `GalleryError` where no upgrade is committed.
        """
        gallery = self._gallery
        with gallery._lock, gallery._store.writing():
            current = self._need()
            if current.state != COMMITTED:
                raise GalleryError(
                    f"the upgrade of gallery {gallery.name!r} is not committed; commit it or roll "
                    "it back"
                )
            kept = self._stored.counts(current.target).kept
            self._stored.forget()
        return kept

    def _begin(self, target: ModelIdentity, order: UpgradeOrder) -> Stored:
        """The upgrade to `target`, begun here unless it is under way."""
        gallery = self._gallery
        if target.dim != gallery.dim:
            raise ConfigError(_other_width(target, gallery))
        number = gallery._number_of(target)
        with gallery._lock:
            if (current := self._stored.current()) is None:
                keys = order.keys(gallery._store, number)
                now = datetime.now(UTC).isoformat(timespec="seconds")
                current = Stored(number, RUNNING, order.name, now)
                with gallery._store.writing():
                    if self._stored.current() is not None:
                        raise GalleryBusyError(
                            f"another process began an upgrade of gallery {gallery.name!r}"
                        )
                    return self._stored.begin(current, keys)
        if current.target != number or current.state != RUNNING:
            way = _WAYS_ON[current.state]
            raise GalleryError(
                f"the upgrade of gallery {gallery.name!r} to "
                f"{gallery._named()[current.target]} is {current.state}; {way} before another one"
            )
        return current

    def _backfill(
        self,
        target: Stored,
        originals: Originals,
        limit: int | None,
        batch: int,
        progress: Progress,
    ) -> None:
        gallery = self._gallery
        with gallery._lock:
            counts = self._stored.counts(target.target)
        total, done = counts.items, counts.done + len(counts.unreadable)
        progress("embed again", done, total)
        tried = 0
        # First what the queue says, then what came or was changed since it was made. All of the one
        # is stored before the other begins, which asks for what is still waiting.
        for following in (self._stored.waiting, self._stored.unqueued):
            left = None if limit is None else limit - tried
            batches = self._batches(following, target.target, batch, left)
            with closing(_each(originals, batches)) as pairs:
                for some, made in pairs:
                    self._store_batch(target, some, made)
                    tried += len(some)
                    progress("embed again", min(done + tried, total), total)

    def _store_batch(
        self, target: Stored, items: Sequence[WaitingRow], made: Sequence[Made]
    ) -> None:
        """New vectors in place of the old ones, in one transaction."""
        gallery = self._gallery
        good, failed = self._sorted_out(items, made)
        with gallery._lock:
            with gallery._store.writing():
                if self._stored.current() != target:
                    raise GalleryError(
                        f"the upgrade of gallery {gallery.name!r} was ended meanwhile"
                    )
                self._stored.replace(target, good)
                self._stored.set_aside(failed)
            gallery._changed()

    def _sorted_out(
        self, items: Sequence[WaitingRow], made: Sequence[Made]
    ) -> tuple[list[tuple[Any, bytes]], list[tuple[Any, str, str]]]:
        gallery = self._gallery
        good, failed = [], []
        for (key, id_, _, _), vector in zip(items, made, strict=True):
            if isinstance(vector, str):
                failed.append((key, id_, vector))
                continue
            try:
                unit = unit_vectors(vector[None], gallery.dim, gallery.name, [id_])
            except InvalidVectorError as error:
                failed.append((key, id_, str(error)))
                continue
            good.append((key, unit.tobytes()))
        return good, failed

    def _batches(
        self, following: Following, target: int, batch: int, limit: int | None
    ) -> Iterator[tuple[list[WaitingRow], list[tuple[str, Any]]]]:
        """What is to be embedded: the rows, and their ids and payloads."""
        place: Any = None
        while limit is None or limit > 0:
            with self._gallery._lock:
                place, rows = following(target, place, batch)
            if not rows:
                return
            if limit is not None:
                rows = rows[:limit]
                limit -= len(rows)
            yield rows, [(id_, loads(text)) for _, id_, text, _ in rows]

    def _need(self) -> Stored:
        current = self._stored.current()
        if current is None:
            raise GalleryError(f"no upgrade of gallery {self._gallery.name!r} is under way")
        return current

    def _told(self, upgrade: Stored, counts: Counts) -> UpgradeStatus:
        return UpgradeStatus(
            target=self._gallery._named()[upgrade.target],
            state=upgrade.state,
            order=upgrade.order,
            started=upgrade.started,
            items=counts.items,
            done=counts.done,
            waiting=counts.waiting,
            unreadable=counts.unreadable,
            kept=counts.kept,
        )


def _each(
    originals: Originals, batches: Iterable[tuple[list[WaitingRow], Sequence[tuple[str, Any]]]]
) -> Generator[tuple[list[WaitingRow], list[Made]]]:
    """Every batch with what was made of it: side by side where the originals can do that."""
    if isinstance(originals, StreamedOriginals):
        yield from originals.each(batches)
        return
    for rows, items in batches:
        yield rows, originals.make(items)


def _same(one: ModelIdentity, other: ModelIdentity) -> bool:
    return (one.fingerprint, one.variant_sha256) == (other.fingerprint, other.variant_sha256)


def _other_width(target: ModelIdentity, gallery: Gallery) -> str:
    return (
        f"{target} makes vectors of {target.dim}, gallery {gallery.name!r} holds {gallery.dim}: "
        "upgrade with a bundle of the width that is compatible"
    )
