"""What a gallery asks of whatever keeps its items: one page for SQLite and Milvus alike.

The rules (who is admitted, what an upgrade may do) are in `_gallery` and `_upgrade`, once; a store
only keeps things. A key names one state of one item: it changes whenever the item does. Only the
store that gave it out reads it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Protocol

from numpy.typing import NDArray

if TYPE_CHECKING:
    from samespace.gallery._upgrade_store import Counts, Stored

StoredRow = tuple[Any, str, int, bytes, str | None]
"""key, id, number of the model, vector (float32, little-endian), payload as JSON text."""

WaitingRow = tuple[Any, str, str | None, bytes]
"""key, id, payload and vector of an item that is to be embedded again."""


class GalleryStore(Protocol):
    """Items, admitted models and settings."""

    def models(self) -> list[tuple[int, dict[str, Any], dict[str, Any] | None]]:
        """Admitted models, the anchor first: number, identity, certificate (None: anchor)."""

    def put_model(self, identity: dict[str, Any], certificate: dict[str, Any] | None) -> int:
        """Admit a model, or renew its certificate, inside `writing`; returns its number."""

    def count_by_model(self) -> dict[int, int]:
        """Number of items of every model that has any."""

    def rows(self) -> Iterator[StoredRow]:
        """Every item."""

    def by_id(self, ids: Sequence[str]) -> dict[str, Any]:
        """Rows of the items with these ids; those that are not there are left out."""

    def sample(self, count: int) -> Sequence[StoredRow]:
        """Up to `count` different items from all over."""

    def require_writable(self) -> None:
        """Raise `GalleryStorageError` where nothing can be written."""

    def reading(self) -> AbstractContextManager[None]:
        """Several reads that belong together."""

    def writing(self) -> AbstractContextManager[None]:
        """Several writes that belong together."""

    def close(self) -> None:
        """Let go of it."""


class UpgradeKeeper(Protocol):
    """The upgrade of a gallery; see `_upgrade_store.UpgradeStore` for the words."""

    def current(self) -> Stored | None:
        """The upgrade that is under way or committed, if there is one."""

    def counts(self, target: int) -> Counts:
        """How far it is."""

    def some_waiting(self, target: int, sample: int, total: int) -> list[WaitingRow]:
        """Up to `sample` of the `total` items that `target` did not make, from all over."""

    def waiting(self, target: int, after: Any, count: int) -> tuple[Any, list[WaitingRow]]:
        """Up to `count` items that the queue has next, and the place where it goes on."""

    def unqueued(self, target: int, after: Any, count: int) -> tuple[Any, list[WaitingRow]]:
        """The same of items that are in no queue: they came, or were changed, since it began."""

    def begin(self, upgrade: Stored, keys: NDArray[Any]) -> Stored:
        """Note an upgrade, and the order of what it will replace; returns it as it is noted."""

    def replace(self, upgrade: Stored, made: Sequence[tuple[Any, bytes]]) -> int:
        """Give items (key, vector by the target) their new vectors and keep the old ones."""

    def set_aside(self, failed: Sequence[tuple[Any, str, str]]) -> None:
        """Note items (key, id, reason) that could not be embedded again."""

    def try_again(self) -> None:
        """Forget which items could not be read."""

    def commit(self, upgrade: Stored) -> None:
        """Say that it is done; the old vectors stay."""

    def rollback(self) -> int:
        """Put every old vector back; returns how many."""

    def forget(self) -> None:
        """Drop the old vectors and the upgrade itself."""
