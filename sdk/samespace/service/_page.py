"""The web page: its files, the bundle that browsers embed with, and small pictures of the items."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import FileResponse
from PIL import Image

from samespace.service._answers import answer
from samespace.service._config import ServiceConfig
from samespace.service._documents import REFUSED, file_of
from samespace.service._problems import Refusal
from samespace.service._service import Service
from samespace_edge import Bundle, ConfigError, Manifest, Variant, decode

WEB = Path(str(files("samespace.service"))) / "web"
"""The page as it is written, and in `vendor/` what `make web` puts beside it."""

_TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".json": "application/json",
    ".mjs": "text/javascript",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
}
_BUNDLE = "/page/bundle/"
_GOLDEN = "golden/golden.json"
_BUILT = (
    "samespace-edge/index.js",
    "onnxruntime/ort.wasm.bundle.min.mjs",
    "onnxruntime/ort-wasm-simd-threaded.wasm",
)
_INLINE = re.compile(r"<script type=\"importmap\">(.*?)</script>", re.DOTALL)
Side = Annotated[int, Query(ge=16, le=1024, description="Longest side, in pixels.")]


def check_page(config: ServiceConfig) -> None:
    """Raises `ConfigError` where the page of these settings could not be served, and what
    `Bundle.open` raises."""
    if config.page is None:
        if config.images is not None:
            raise ConfigError("images is of the web page: name the bundle that it runs with page")
        return
    bundle = Bundle.open(config.page)
    _fetched(bundle, _graph(bundle.manifest))
    vendor = WEB / "vendor"
    if lacking := [name for name in _BUILT if not (vendor / name).is_file()]:
        raise ConfigError(
            f"the web page lacks {lacking[0]} in {vendor}: run 'make web' in the repository, "
            "install a wheel, which has it, or serve without --page"
        )
    if config.images is not None and not Path(config.images).is_dir():
        raise ConfigError(f"{config.images} is no folder of pictures")


def _graph(manifest: Manifest) -> Variant:
    """The file that browsers run: the first ONNX file, where it agrees with its golden vectors."""
    for variant in manifest.variants:
        if variant.format == "onnx":
            return variant
    raise ConfigError(
        f"the page's bundle {manifest.name!r} has no ONNX file, and browsers run no other: export "
        "it again with --to onnx"
    )


def _fetched(bundle: Bundle, graph: Variant) -> int:
    """Return how many bytes of the bundle a browser's first visit fetches: the file that it runs,
    and the golden pictures and vectors that it compares the file with.

    Raises `ConfigError` for golden vectors that browsers would refuse.
    """
    if _GOLDEN not in bundle.manifest.files:
        return graph.bytes
    content = bundle.read(_GOLDEN)
    try:
        names = [f"golden/{picture['resized']}" for picture in json.loads(content)["images"]]
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"{bundle.path / _GOLDEN} of the page's bundle is malformed: {error!r}. Export the "
            "bundle again."
        ) from None
    return graph.bytes + len(content) + sum(len(bundle.read(name)) for name in names)


def page_routes(service: Service) -> APIRouter:
    """`/` and `/page/...`, for anybody; `/v1/pictures/...`, for who may read.

    Raises as `check_page` does.
    """
    config = service.config
    router = APIRouter()
    if config.page is None:

        @router.get("/", include_in_schema=False)
        async def no_page() -> Response:
            raise Refusal("not-found", "no page is served here: name its bundle with --page")

        return router
    check_page(config)
    bundle = Bundle.open(config.page)
    fetched = _fetched(bundle, _graph(bundle.manifest))
    known = {"manifest.json", *bundle.manifest.files}
    page = (WEB / "index.html").read_text(encoding="utf-8")
    headers = _headers(page)

    @router.get("/", include_in_schema=False)
    async def index() -> Response:
        return Response(page, media_type="text/html", headers=headers)

    @router.get("/page/about.json", include_in_schema=False)
    async def about() -> Response:
        return answer(
            {
                "gallery": service.gallery.name,
                "bundle": _BUNDLE,
                "name": bundle.manifest.name,
                "fingerprint": bundle.manifest.fingerprint.hex,
                "bytes": fetched,
                "pictures": config.images is not None,
                "server_models": [e.identity.name for e in service.embedders],
            }
        )

    @router.get("/page/bundle/{member:path}", include_in_schema=False)
    async def of_bundle(member: str, request: Request) -> Response:
        if member not in known:
            raise Refusal("not-found", f"the page's bundle has no file {member!r}")
        return _file(bundle.path / member, request)

    @router.get("/page/{name:path}", include_in_schema=False)
    async def of_page(name: str, request: Request) -> Response:
        file = _inside(WEB, name)
        if file is None:
            raise Refusal("not-found", f"the page has no file {name!r}")
        return _file(file, request)

    if config.images is None:
        return router
    folder = Path(config.images)

    @router.get(
        "/v1/pictures/{id:path}",
        tags=["items"],
        response_class=Response,
        responses={**REFUSED, 200: {"content": {"image/jpeg": {"schema": file_of("JPEG")}}}},
    )
    async def picture(id: str, side: Side = 320) -> Any:
        """A small JPEG of an item: the file of that name in the folder of pictures."""
        return await service.work(lambda: _small(service, folder, id, side))

    return router


def _small(service: Service, folder: Path, id: str, side: int) -> Response:
    file = _inside(folder, id) if id in service.gallery else None
    if file is None:
        raise Refusal("unknown-id", f"there is no item {id!r} with a picture")
    # Encoded anew, so that nothing but a picture ever comes out, however the file is called.
    made = Image.fromarray(np.asarray(decode(file.read_bytes(), service.config.max_pixels)))
    made.thumbnail((side, side))
    content = io.BytesIO()
    made.save(content, "JPEG", quality=85)
    kept = {"cache-control": "private, max-age=300", "x-content-type-options": "nosniff"}
    return Response(content.getvalue(), media_type="image/jpeg", headers=kept)


def _inside(folder: Path, name: str) -> Path | None:
    """A file in a folder by its relative path; None for what is not there, or is elsewhere."""
    try:
        file = (folder / name).resolve()
        there = file.is_relative_to(folder.resolve()) and file.is_file()
    except (OSError, ValueError):  # a name that is too long, or has a zero byte
        return None
    return file if there else None


def _file(file: Path, request: Request) -> Response:
    """A file, packed where there is a packed one; nothing where the browser has it already."""
    headers = {"cache-control": "no-cache", "x-content-type-options": "nosniff"}
    kind = _type(file)
    packed = file.with_name(file.name + ".gz")
    if packed.is_file() and "gzip" in request.headers.get("accept-encoding", ""):
        file = packed
        headers |= {"content-encoding": "gzip", "vary": "accept-encoding"}
    whole = FileResponse(file, headers=headers, media_type=kind, stat_result=file.stat())
    tag = whole.headers["etag"]
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers={**headers, "etag": tag})
    return whole


def _type(file: Path) -> str:
    return _TYPES.get(file.suffix, "application/octet-stream")


def _headers(page: str) -> dict[str, str]:
    """Only this page's own scripts run, and it talks to nobody else."""
    inline = "".join(
        f" 'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
        for text in _INLINE.findall(page)
    )
    policy = (
        "default-src 'none'; connect-src 'self'; img-src 'self' blob:; style-src 'self'; "
        f"script-src 'self' 'wasm-unsafe-eval'{inline}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return {
        "content-security-policy": policy,
        "referrer-policy": "no-referrer",
        "x-content-type-options": "nosniff",
        "permissions-policy": "camera=(self), geolocation=(), microphone=()",
        "cache-control": "no-cache",
    }
