"""Searching: by pictures, which are embedded here, or by vectors, which name who made them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Depends, Query, Request, Response
from numpy.typing import NDArray

from samespace.gallery._index import DEFAULT_PROBES
from samespace.service._answers import answer, found
from samespace.service._bodies import (
    BINARY,
    FORM,
    PICTURES,
    condition,
    pictures,
    query_vectors,
)
from samespace.service._bodies import JSON as JSON_TYPE
from samespace.service._documents import REFUSED, body_of, file_of, form_of
from samespace.service._models import Found, QueryVectors
from samespace.service._service import Service
from samespace_edge import ConfigError, ModelIdentity

Vectors = NDArray[np.float32]

Sha256 = Annotated[str, Query(pattern="^[0-9a-f]{64}$")]
K = Annotated[int, Query(ge=1, le=1000, description="How many hits for every query.")]
Filter = Annotated[
    str | None, Query(alias="filter", description="A filter on payloads, as JSON: sdk/README.md.")
]
Exact = Annotated[bool, Query(description="Scan everything, whatever the size.")]
Payloads = Annotated[bool, Query(description="Whether to send the payloads.")]
Probes = Annotated[int, Query(ge=1, le=4096, description="Lists of the index to look into.")]
Corrected = Annotated[bool | None, Query(description="With or without the hub correction.")]
Width = Annotated[
    int | None, Query(ge=2, le=65536, description="Search by the first numbers of every vector.")
]
Rows = Annotated[
    int | None,
    Query(ge=1, description="How many vectors there are; then bodies of other sizes are refused."),
]


@dataclass(frozen=True)
class Options:
    """How to search, as `Gallery.search` takes it."""

    k: int
    where: str | None
    exact: bool
    payloads: bool
    probes: int
    corrected: bool | None
    width: int | None

    def given(self) -> dict[str, Any]:
        """Arguments of `Gallery.search`; raises `FilterError`."""
        return {**vars(self), "where": condition(self.where)}


async def options(
    k: K = 10,
    where: Filter = None,
    exact: Exact = False,
    payloads: Payloads = True,
    probes: Probes = DEFAULT_PROBES,
    corrected: Corrected = None,
    width: Width = None,
) -> Options:
    """From the address; not a plain function, which FastAPI would call on a thread of its own."""
    return Options(k, where, exact, payloads, probes, corrected, width)


How = Annotated[Options, Depends(options)]
PictureModel = Annotated[
    str | None, Query(description="Name or fingerprint of a model that runs here.")
]


def search_routes(service: Service) -> APIRouter:
    """`/v1/search/...`."""
    router = APIRouter(prefix="/v1/search", tags=["search"], responses=REFUSED)

    def searched(vectors: Vectors, model: ModelIdentity, how: dict[str, Any]) -> Response:
        result = service.gallery.search(vectors=vectors, model=model, **how)
        return answer(found(result, model))

    def require(queries: int, k: int) -> None:
        config = service.config
        if queries > config.max_batch or queries * k > config.max_hits:
            raise ConfigError(
                f"{queries} queries for {k} hits each: one request takes up to "
                f"{config.max_batch} queries and {config.max_hits:,} hits"
            )

    @router.post(
        "/pictures",
        response_model=Found,
        openapi_extra=body_of(
            {
                PICTURES: file_of(),
                BINARY: file_of(),
                FORM: form_of({"image": {"type": "array", "items": file_of(), "minItems": 1}}),
            }
        ),
    )
    async def search_by_pictures(request: Request, how: How, model: PictureModel = None) -> Any:
        """Find what looks like a picture: the body, or the fields `image` of a form."""
        given, sent = how.given(), await pictures(request)
        require(len(sent), how.k)

        def act() -> Response:
            embedder = service.embedder(model)
            vectors = embedder.embed_pixels(np.stack(service.pixels(embedder, sent)))
            return searched(vectors[:, : how.width], embedder.identity, given)

        return await service.work(act)

    @router.post(
        "/vectors",
        response_model=Found,
        openapi_extra=body_of(
            {
                JSON_TYPE: QueryVectors.model_json_schema(),
                BINARY: file_of("float32, little-endian, one vector after the other"),
            }
        ),
    )
    async def search_by_vectors(
        request: Request,
        how: How,
        fingerprint: Sha256,
        variant: Sha256 | None = None,
        rows: Rows = None,
    ) -> Any:
        """Find what is near to vectors.

        `fingerprint` is that of the model that made them, `variant` the sha256 of the graph file;
        without it the model's only accepted file is meant.
        """
        given = how.given()
        vectors = await query_vectors(request, how.width or service.gallery.dim, rows)
        require(len(vectors), how.k)
        return await service.work(
            lambda: searched(vectors, service.maker(fingerprint, variant), given)
        )

    return router
