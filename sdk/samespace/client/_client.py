"""A gallery that is elsewhere: `Gallery`'s calls, answered by a service."""

from __future__ import annotations

import json
from collections.abc import Sequence
from types import TracebackType
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from samespace._certificate import Certificate
from samespace.client._http import Http
from samespace.client._values import encoded, record_of, result_of, stats_of, status_of
from samespace.gallery import GalleryStats, Record, SearchResult, UpgradeStatus
from samespace.gallery._filter import Where
from samespace_edge import (
    ConfigError,
    Embedder,
    Fingerprint,
    ImageSource,
    InvalidVectorError,
    ModelIdentity,
    UnknownIdError,
)

Vectors = NDArray[np.float32]
Maker: TypeAlias = Embedder | ModelIdentity | Fingerprint
"""Who makes, or made, vectors."""


class Client:
    """A service's gallery, with the calls and the errors of `Gallery`.

    >>> client = Client("http://localhost:8000", key="sks_...")         # doctest: +SKIP
    >>> client.search(images=["photo.jpg"], k=3)[0][0].id               # doctest: +SKIP
    'cup'

    Args:
        url: the service's, such as `http://localhost:8000`.
        key: API key, where it asks for one.
        timeout: seconds to wait for each answer.
        retries: how often a request is made again, with longer and longer pauses, or after the
            one that the service asks for. One that could not be sent, or that the service had no
            room for, always is; one that was sent and had no answer only if making it twice does
            no harm: `delete`, and `add` without `replace`, are not.

    Safe to use from several threads. Beside the errors of `Gallery`, every call raises
    `KeyRefusedError`, `ServiceBusyError` (over the limits, retries and all),
    `ServiceUnreachableError` and `ServiceError`.
    """

    def __init__(
        self, url: str, *, key: str | None = None, timeout: float = 30.0, retries: int = 4
    ) -> None:
        self._http = Http(url, key, timeout, retries)
        self.url = url

    def __repr__(self) -> str:
        return f"Client({self.url!r})"

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def search(
        self,
        *,
        model: Maker | str | None = None,
        vectors: Vectors | None = None,
        images: Sequence[ImageSource] | None = None,
        k: int = 10,
        where: Where | None = None,
        exact: bool = False,
        payloads: bool = True,
        probes: int | None = None,
        corrected: bool | None = None,
        width: int | None = None,
    ) -> SearchResult:
        """Find the k nearest items of every query, as `Gallery.search` does.

        Args:
            model: who made the vectors. With images: an `Embedder` embeds them here, and only
                vectors are sent; with anything else, or nothing, the pictures are sent, and
                embedded by the service's model of that fingerprint or name, or its default one.
            vectors: (N, D), or (N, width); or
            images: pictures.
            k, where, exact, payloads, probes, corrected, width: see `Gallery.search`.
        """
        params = {
            "k": k,
            "filter": None if where is None else json.dumps(where),
            "exact": exact,
            "payloads": payloads,
            "probes": probes,
            "corrected": corrected,
            "width": width,
        }
        made = self._vectors(model, vectors, images)
        if made is None:
            assert images is not None
            answer = self._http.ask(
                "POST",
                "/v1/search/pictures",
                params={**params, "model": _name(model)},
                files=_files(images),
            )
        else:
            if width is not None:
                made = made[:, :width]
            answer = self._http.ask(
                "POST",
                "/v1/search/vectors",
                params={**params, **_maker(model), "rows": len(made)},
                content=_bytes(made),
                headers={"content-type": "application/octet-stream"},
            )
        return result_of(answer, payloads)

    def add(
        self,
        ids: Sequence[str],
        *,
        model: Maker | str | None = None,
        vectors: Vectors | None = None,
        images: Sequence[ImageSource] | None = None,
        payloads: Sequence[Any] | None = None,
        replace: bool = False,
    ) -> None:
        """Add items, all of them or none; when it returns they are on the disk.

        Args:
            ids: an id for every item.
            model: as in `search`; vectors need an `Embedder` or a `ModelIdentity`, since a
                fingerprint does not say which graph file made them.
            vectors: (N, D); or
            images: the pictures.
            payloads: what JSON can hold, for every item.
            replace: whether items that are there already make room. Then the call may be made
                twice, so it is made again where no answer came.
        """
        made = self._vectors(model, vectors, images)
        params: dict[str, Any] = {"replace": replace}
        if made is None:
            assert images is not None
            data: dict[str, Any] = {"id": list(ids)}
            if payloads is not None:
                data["payload"] = [json.dumps(p) for p in payloads]
            self._http.ask(
                "POST",
                "/v1/items/pictures",
                params={**params, "model": _name(model)},
                again=replace,
                files=_files(images),
                data=data,
            )
            return
        body: dict[str, Any] = {"ids": list(ids), "vectors": made.tolist()}
        if payloads is not None:
            body["payloads"] = list(payloads)
        self._http.ask(
            "POST",
            "/v1/items/vectors",
            params={**params, **_maker(model)},
            again=replace,
            content=_json(body),
            headers={"content-type": "application/json"},
        )

    def delete(self, ids: Sequence[str]) -> None:
        """Delete items, all of them or none; raises `UnknownIdError` naming those not there."""
        self._http.ask("POST", "/v1/items/delete", again=False, json={"ids": list(ids)})

    def get(self, ids: Sequence[str]) -> list[Record]:
        """The items with these ids, in this order; raises `UnknownIdError`."""
        answer = self._http.ask(
            "POST", "/v1/items/get", params={"vectors": True}, json={"ids": list(ids)}
        )
        return [record_of(value) for value in answer["items"]]

    def __contains__(self, id_: str) -> bool:
        try:
            self._http.ask("POST", "/v1/items/get", json={"ids": [id_]})
        except UnknownIdError:
            return False
        return True

    def stats(self) -> GalleryStats:
        """The gallery in figures, some two seconds old at most."""
        return stats_of(self._http.ask("GET", "/v1/stats"))

    def certificates(self) -> dict[ModelIdentity, Certificate | None]:
        """The models that the gallery accepts, the anchor first, with their certificates."""
        return {
            ModelIdentity.from_json(m["model"]): m["certificate"]
            and Certificate.from_json(m["certificate"])
            for m in self._http.ask("GET", "/v1/models")["models"]
        }

    def upgrade_status(self) -> UpgradeStatus | None:
        """How far an upgrade is; None without one. At most a hundred unreadable items are named."""
        value = self._http.ask("GET", "/v1/upgrade")["upgrade"]
        return None if value is None else status_of(value)

    def _vectors(
        self,
        model: Maker | str | None,
        vectors: Vectors | None,
        images: Sequence[ImageSource] | None,
    ) -> NDArray[np.floating[Any]] | None:
        """Vectors that are given, or made here; None for pictures that the service embeds."""
        if (vectors is None) == (images is None):
            raise ConfigError("give either vectors or images")
        if images is not None:
            return model.embed(images) if isinstance(model, Embedder) else None
        array = np.asarray(vectors)
        if array.dtype.kind != "f" or array.ndim != 2:
            raise InvalidVectorError(
                f"vectors are floats (N, D), not {array.dtype} of shape {array.shape}"
            )
        return array


def _maker(model: Maker | str | None) -> dict[str, str | None]:
    if isinstance(model, Embedder):
        model = model.identity
    if isinstance(model, ModelIdentity):
        return {"fingerprint": model.fingerprint.hex, "variant": model.variant_sha256}
    if isinstance(model, Fingerprint):
        return {"fingerprint": model.hex}
    raise ConfigError(
        "vectors need the model that made them: an Embedder, a ModelIdentity or a Fingerprint"
    )


def _name(model: Maker | str | None) -> str | None:
    if isinstance(model, ModelIdentity):
        return model.fingerprint.hex
    return model.hex if isinstance(model, Fingerprint) else str(model) if model else None


def _files(images: Sequence[ImageSource]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("image", (f"{i}", encoded(image))) for i, image in enumerate(images)]


def _bytes(vectors: NDArray[np.floating[Any]]) -> bytes:
    with np.errstate(over="ignore"):  # what is too large becomes infinite, and is refused as such
        return vectors.astype("<f4").tobytes()


def _json(value: Any) -> bytes:
    try:
        return json.dumps(value, allow_nan=False).encode()
    except ValueError as error:
        raise InvalidVectorError(
            f"a vector or payload holds NaN or infinity, or what JSON cannot hold: {error}"
        ) from None
    except TypeError as error:
        raise ConfigError(f"a payload has to be what JSON can hold: {error}") from None
