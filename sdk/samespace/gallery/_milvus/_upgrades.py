"""An upgrade of a gallery in Milvus: items are replaced by upserts, the old vectors kept aside.

- An item's old vector is written to a collection of the upgrade's own before its new one is
  upserted. Killed in between, the copy is of a vector that still lives, and is ignored: an item is
  rolled back only where its row says that this upgrade gave it its vector. Its owner's next vector
  clears that, a deletion takes it along.
- The upgrade is committed by an alias: `NAME__before` stands for the old vectors from then on.
- Rolling back is upserts too, after a note that it has begun: stopped, it goes on when called
  again.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from samespace.gallery._milvus import _collections as collections
from samespace.gallery._milvus._items import Item
from samespace.gallery._milvus._server import quoted
from samespace.gallery._milvus._store import MilvusStore
from samespace.gallery._protocols import WaitingRow
from samespace.gallery._upgrade_store import COMMITTED, ROLLING, RUNNING, Counts, Stored

_KEY = "upgrade"
_AT_ONCE = 2000
_MOST_SAMPLED = 4096


@dataclass(frozen=True)
class Numbered(Stored):
    """An upgrade, and its number."""

    number: int = 0


class MilvusUpgrades:
    """The upgrade of an open gallery; see `samespace.gallery._protocols.UpgradeKeeper`."""

    def __init__(self, store: MilvusStore) -> None:
        self._store = store
        self._server = store.server
        self._alias = f"{store.name}__before"
        self._last: Numbered | None = None

    def _old(self, number: int) -> str:
        return f"{self._store.base}_old_{number}"

    def _queue(self, number: int) -> str:
        return f"{self._store.base}_queue_{number}"

    # reading

    def current(self) -> Numbered | None:
        """The upgrade that is under way or committed, if there is one."""
        value = self._store.settings.get(_KEY)
        if value is None:
            self._last = None
            return None
        found = self._last = Numbered(**value)
        if found.state == RUNNING and (
            collections.target_of(self._server, self._alias) == self._old(found.number)
        ):
            return replace(found, state=COMMITTED)
        return found

    def counts(self, target: int) -> Counts:
        """How far it is; items that came since are counted as they are."""
        made = self._store.count_by_model()
        kept, unreadable = 0, {}
        if (current := self.current()) is not None:
            kept = self._server.count(self._store.base, f"upgrade == {current.number}")
            unreadable = self._unreadable(current, target)
        return Counts(sum(made.values()), made.get(target, 0), kept, unreadable)

    def _unreadable(self, upgrade: Numbered, target: int) -> dict[str, str]:
        """Items that could not be read and were not changed since, and why."""
        found: dict[str, str] = {}
        pages = self._server.pages(
            self._queue(upgrade.number), ["item", "state", "reason"], dim=2, where="place < 0"
        )
        for page in pages:
            noted = {row["item"]: row for row in page}
            for item in self._store.found(list(noted)):
                if item.model != target and item.key[1] == noted[item.id]["state"]:
                    found[item.id] = noted[item.id]["reason"]
        return dict(sorted(found.items()))

    def some_waiting(self, target: int, sample: int, total: int) -> list[WaitingRow]:
        """Up to `sample` items that `target` did not make, from the first few thousand."""
        size = min(total, _MOST_SAMPLED)
        pages = self._store.items(f"model != {target}", size=max(1, size))
        rows = [_waiting(item) for item in next(pages, [])]
        step = max(1, len(rows) // max(1, sample))
        return list(itertools.islice(rows, 0, step * sample, step))

    def waiting(self, target: int, after: Any, count: int) -> tuple[Any, list[WaitingRow]]:
        """Up to `count` items that the queue has next, and the place where it goes on."""
        current = self._last or self.current()
        place = after or 0
        if current is None:
            return place, []
        queue = self._queue(current.number)
        while True:
            # Most of what comes first was done by earlier runs: look at much, then fetch little.
            noted = self._server.query(
                queue,
                f"place > {place} and place <= {place + _AT_ONCE}",
                ["place", "item"],
                level=self._server.level(queue, False),
            )
            if not noted:
                return place, []
            noted.sort(key=lambda row: int(row["place"]))
            left = self._not_by(target, [row["item"] for row in noted])
            wanted = [row for row in noted if row["item"] in left][:count]
            place = wanted[-1]["place"] if len(wanted) == count else noted[-1]["place"]
            rows = self._fetched(current, target, [row["item"] for row in wanted])
            if rows:
                return place, rows

    def _not_by(self, target: int, ids: Sequence[str]) -> set[str]:
        found = self._server.query(
            self._store.base,
            f"model != {target} and id in {quoted(ids)}",
            ["id"],
            level=self._server.level(self._store.base, False),
        )
        return {row["id"] for row in found}

    def _fetched(self, upgrade: Numbered, target: int, ids: Sequence[str]) -> list[WaitingRow]:
        """Items that wait, in this order, without those that could not be read."""
        if not ids:
            return []
        found = {item.id: item for item in self._store.found(ids) if item.model != target}
        failed = self._failed(upgrade, ids)
        return [_waiting(found[i]) for i in ids if i in found and found[i].key not in failed]

    def _failed(self, upgrade: Numbered, ids: Sequence[str]) -> set[tuple[str, int]]:
        rows = self._server.query(
            self._queue(upgrade.number),
            f"place < 0 and item in {quoted(ids)}",
            ["item", "state"],
            level=self._server.level(self._queue(upgrade.number), False),
        )
        return {(row["item"], row["state"]) for row in rows}

    def unqueued(self, target: int, after: Any, count: int) -> tuple[Any, list[WaitingRow]]:
        """The same of items that are in no queue: they came, or were changed, since it began."""
        current = self._last or self.current()
        if current is None:
            return after, []
        for page in self._store.items(f"model != {target}", after=after or "", size=count):
            failed = self._failed(current, [item.id for item in page])
            after = page[-1].id
            rows = [_waiting(item) for item in page if item.key not in failed]
            if rows:
                return after, rows
        return after, []

    # writing

    def begin(self, upgrade: Stored, keys: NDArray[Any]) -> Stored:
        """Note an upgrade, and the order of what it will replace; returns it as it is noted."""
        about = self._store.settings.get("gallery")
        number = about["upgrades"] + 1
        self._store.settings.set("gallery", {**about, "upgrades": number})
        collections.together(
            lambda: collections.create_old(self._server, self._old(number), self._store.dim),
            lambda: collections.create_queue(self._server, self._queue(number)),
        )
        for start in range(0, len(keys), _AT_ONCE):
            part = keys[start : start + _AT_ONCE]
            self._note(
                number,
                [f"{start + i:012}" for i in range(len(part))],
                list(range(start + 1, start + len(part) + 1)),
                [id_ for id_, _ in part],
                [state for _, state in part],
                [""] * len(part),
            )
        self._store.settings.set(
            _KEY,
            {
                "target": upgrade.target,
                "state": upgrade.state,
                "order": upgrade.order,
                "started": upgrade.started,
                "number": number,
            },
        )
        self._last = Numbered(
            upgrade.target, upgrade.state, upgrade.order, upgrade.started, number=number
        )
        return self._last

    def replace(self, upgrade: Stored, made: Sequence[tuple[Any, bytes]]) -> int:
        """Give items (key, vector by the target) their new vectors and keep the old ones.

        Items that went, or were changed, since are left alone; returns how many were replaced.
        """
        assert isinstance(upgrade, Numbered)
        new = dict(made)
        found = self._store.found([id_ for id_, _ in new])
        items = [item for item in found if item.key in new and item.model != upgrade.target]
        if not items:
            return 0
        self._keep(upgrade.number, items)
        self._store.put(
            Item(item.id, upgrade.target, new[item.key], item.text, upgrade.number)
            for item in items
        )
        return len(items)

    def _keep(self, number: int, items: Sequence[Item]) -> None:
        t = self._server.types
        raw = b"".join(item.vector for item in items)
        vectors = np.frombuffer(raw, "<f4").reshape(len(items), -1)
        self._server.write(
            self._old(number),
            {
                "id": (t.VARCHAR, [item.id for item in items]),
                "vector": (t.FLOAT_VECTOR, vectors),
                "model": (t.INT64, [item.model for item in items]),
                "fingerprint": (t.VARCHAR, [self._store.print_of(i.model) for i in items]),
                "crc": (t.INT64, [item.crc for item in items]),
            },
        )

    def set_aside(self, failed: Sequence[tuple[Any, str, str]]) -> None:
        """Note items (key, id, reason) that could not be embedded again."""
        current = self._last or self.current()
        if not failed or current is None:
            return
        self._note(
            current.number,
            [f"!{state}" + id_[: collections.MOST_ID // 8] for (_, state), id_, _ in failed],
            [-1] * len(failed),
            [id_ for _, id_, _ in failed],
            [state for (_, state), _, _ in failed],
            [reason[: collections.MOST_REASON] for _, _, reason in failed],
        )

    def _note(
        self,
        number: int,
        ids: list[str],
        places: list[int],
        items: list[str],
        states: list[int],
        reasons: list[str],
    ) -> None:
        t = self._server.types
        self._server.write(
            self._queue(number),
            {
                "id": (t.VARCHAR, ids),
                "vector": collections.no_vectors(self._server, len(ids)),
                "place": (t.INT64, places),
                "item": (t.VARCHAR, items),
                "state": (t.INT64, states),
                "reason": (t.VARCHAR, reasons),
            },
        )

    def try_again(self) -> None:
        """Forget which items could not be read."""
        if (current := self.current()) is None:
            return
        queue = self._queue(current.number)
        for page in self._server.pages(queue, ["place"], dim=2, where="place < 0"):
            self._server.delete(queue, f"id in {quoted([row['id'] for row in page])}")

    def commit(self, upgrade: Stored) -> None:
        """Say that it is done; the old vectors stay."""
        assert isinstance(upgrade, Numbered)
        collections.point(self._server, self._alias, self._old(upgrade.number))

    def rollback(self) -> int:
        """Put every old vector back; returns how many this call did."""
        current = self.current()
        assert current is not None
        value = self._store.settings.get(_KEY)
        self._store.settings.set(_KEY, {**value, "state": ROLLING})
        count = 0
        for page in self._pages(self._old(current.number)):
            old = {row["id"]: row for row in page}
            items = [i for i in self._store.found(list(old)) if i.upgrade == current.number]
            self._store.put(self._before(item, old[item.id]) for item in items)
            count += len(items)
        self.forget()
        return count

    def _before(self, item: Item, row: dict[str, Any]) -> Item:
        vector = np.asarray(row["vector"], "<f4").tobytes()
        old = Item(item.id, row["model"], vector, item.text)
        if old.crc != row["crc"]:
            raise self._store.damaged(f"the old vector of item {item.id!r} was changed")
        return old

    def _pages(self, collection: str) -> Iterator[list[dict[str, Any]]]:
        fields = ["id", "vector", "model", "crc"]
        return self._server.pages(collection, fields, dim=self._store.dim, size=_AT_ONCE)

    def forget(self) -> None:
        """Drop the old vectors and the upgrade itself."""
        if (current := self.current()) is None:
            return
        self._store.settings.unset([_KEY])
        collections.unpoint(self._server, self._alias)
        for name in (self._old(current.number), self._queue(current.number)):
            collections.drop(self._server, name)


def _waiting(item: Item) -> WaitingRow:
    return item.key, item.id, item.text, item.vector
