"""Adding, getting and deleting items. An answer that is not an error is on the disk."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Path, Query, Request, Response

from samespace.service._answers import answer, stored
from samespace.service._bodies import FORM, JSON, checked, new_pictures, new_vectors, table
from samespace.service._documents import REFUSED, Schema, body_of, file_of, form_of
from samespace.service._models import AddVectors, Ids, Stored, StoredItems, Written
from samespace.service._search import PictureModel, Sha256
from samespace.service._service import Service
from samespace_edge import ConfigError

Replace = Annotated[
    bool, Query(description="Whether items that are there already make room; else it is a 409.")
]
WithVectors = Annotated[bool, Query(description="Whether to send the vectors too.")]
Id = Annotated[str, Path(min_length=1)]
_FORM: dict[str, Schema] = {
    "id": {"type": "array", "items": {"type": "string", "minLength": 1}, "minItems": 1},
    "image": {"type": "array", "items": file_of(), "minItems": 1},
    "payload": {
        "type": "array",
        "items": {"type": "string", "description": "JSON"},
    },
}


def item_routes(service: Service) -> APIRouter:
    """`/v1/items/...`."""
    router = APIRouter(prefix="/v1/items", tags=["items"], responses=REFUSED)

    def require(count: int) -> None:
        if count > service.config.max_batch:
            raise ConfigError(f"{count} items; one request takes up to {service.config.max_batch}")

    def got(ids: list[str], vectors: bool) -> list[dict[str, Any]]:
        return [stored(record, vectors) for record in service.gallery.get(ids)]

    def deleted(ids: list[str]) -> Response:
        service.gallery.delete(ids)
        return answer({"items": len(ids)})

    @router.post(
        "/vectors",
        response_model=Written,
        openapi_extra=body_of({JSON: AddVectors.model_json_schema()}),
    )
    async def add_vectors(
        request: Request, fingerprint: Sha256, variant: Sha256, replace: Replace = True
    ) -> Any:
        """Add items with vectors, all of them or none.

        `fingerprint` and `variant` (sha256 of the graph file) say who made them.
        """
        sent = await new_vectors(request)
        require(len(sent.ids))

        def act() -> Response:
            model = service.maker(fingerprint, variant)
            service.gallery.add(
                sent.ids,
                vectors=table(sent.vectors),
                model=model,
                payloads=sent.payloads,
                replace=replace,
            )
            return answer({"items": len(sent.ids)})

        return await service.work(act)

    @router.post("/pictures", response_model=Written, openapi_extra=body_of({FORM: form_of(_FORM)}))
    async def add_pictures(
        request: Request, model: PictureModel = None, replace: Replace = True
    ) -> Any:
        """Add items with pictures, which are embedded here: all of them or none.

        The fields `id`, `image` and, if any, `payload` come as often as there are items.
        """
        ids, sent, payloads = await new_pictures(request)
        require(max(len(ids), len(sent)))
        if len(ids) != len(sent):
            raise ConfigError(f"{len(ids)} ids for {len(sent)} pictures")

        def act() -> Response:
            embedder = service.embedder(model)
            vectors = embedder.embed_pixels(np.stack(service.pixels(embedder, sent)))
            service.gallery.add(
                ids,
                vectors=vectors,
                model=embedder.identity,
                payloads=payloads,
                replace=replace,
            )
            return answer({"items": len(ids)})

        return await service.work(act)

    @router.post(
        "/get",
        response_model=StoredItems,
        openapi_extra=body_of({JSON: Ids.model_json_schema()}),
    )
    async def get_items(request: Request, vectors: WithVectors = False) -> Any:
        """The items with these ids, in this order."""
        ids = (await checked(request, Ids)).ids
        require(len(ids))
        return await service.work(lambda: answer({"items": got(ids, vectors)}))

    @router.post(
        "/delete",
        response_model=Written,
        openapi_extra=body_of({JSON: Ids.model_json_schema()}),
    )
    async def delete_items(request: Request) -> Any:
        """Delete the items with these ids, all of them or none."""
        ids = (await checked(request, Ids)).ids
        require(len(ids))
        return await service.work(lambda: deleted(ids))

    @router.get("/{id:path}", response_model=Stored)
    async def get_item(id: Id, vectors: WithVectors = False) -> Any:
        """One item."""
        return await service.work(lambda: answer(got([id], vectors)[0]))

    @router.delete("/{id:path}", response_model=Written)
    async def delete_item(id: Id) -> Any:
        """Delete one item."""
        return await service.work(lambda: deleted([id]))

    return router
