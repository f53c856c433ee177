"""Bundles for devices and browsers to download: those that the owner offers, and no other file."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import FileResponse

from samespace.service._documents import REFUSED
from samespace.service._problems import Refusal
from samespace.service._service import Service
from samespace_edge import Bundle

_MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Offer:
    """A bundle that may be downloaded.

    Attributes:
        bundle: as it was opened.
        files: sha256 of every file by its path in the bundle; None for the manifest.
    """

    bundle: Bundle
    files: dict[str, str | None]

    @classmethod
    def open(cls, path: str | Path) -> Offer:
        """Open a bundle's manifest; raises `BundleError`."""
        bundle = Bundle.open(path)
        return cls(bundle, {_MANIFEST: None, **bundle.manifest.files})


def offer_routes(service: Service) -> APIRouter:
    """`/v1/models/{fingerprint}/bundle/{file}`."""
    router = APIRouter(prefix="/v1/models", tags=["gallery"], responses=REFUSED)
    offers = [Offer.open(path) for path in service.config.offered]
    by_model = {offer.bundle.manifest.fingerprint.hex: offer for offer in offers}

    @router.get(
        "/{fingerprint}/bundle/{file:path}",
        response_class=Response,
        responses={
            200: {
                "description": "The file",
                "content": {
                    "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
                    "application/json": {},
                },
            },
            206: {"description": "The part of it that `range` asks for"},
            304: {"description": "The file of `if-none-match` is still the same"},
            416: {"description": "`range` asks for no part of it"},
        },
    )
    async def get_bundle_file(request: Request, fingerprint: str, file: str) -> Any:
        """A file of an offered bundle: `manifest.json`, and whatever that names under `files`."""
        offer = by_model.get(fingerprint)
        if offer is None:
            offered = ", ".join(f"{f[:12]}…" for f in by_model) or "none"
            raise Refusal(
                "not-found",
                f"no bundle of a model {fingerprint[:12]}… is offered here; these are: {offered}. "
                "Start the service with --offer BUNDLE.",
            )
        if file not in offer.files:
            name = offer.bundle.manifest.name
            raise Refusal("not-found", f"the bundle {name!r} has no such file; its manifest says")
        sha256 = offer.files[file]
        # The manifest may be given a new label; a file under a sha256 never changes.
        headers = {"cache-control": "private, no-cache"}
        if sha256 is not None:
            headers["etag"] = f'"{sha256}"'
            if headers["etag"] in request.headers.get("if-none-match", ""):
                return Response(status_code=304, headers=headers)
        if file == _MANIFEST:
            return Response(
                json.dumps(offer.bundle.manifest.to_json()),
                headers=headers,
                media_type="application/json",
            )
        kind = "application/json" if file.endswith(".json") else "application/octet-stream"
        return FileResponse(offer.bundle.path / file, headers=headers, media_type=kind)

    return router
