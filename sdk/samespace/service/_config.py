"""Every setting of the service, with its default."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from samespace_edge import ConfigError

KEYS_FILE = "service-keys.json"
"""Name of the file with the hashed keys, in the gallery's folder."""


_AT_LEAST_ONE = (
    "max_body",
    "max_pixels",
    "max_batch",
    "max_hits",
    "burst",
    "concurrency",
    "threads",
    "connections",
    "canary_queries",
)
_ABOVE_ZERO = ("body_timeout", "request_timeout", "canary_every", "head_timeout")


def is_in_a_server(gallery: str) -> bool:
    """Whether a gallery has no folder of its own."""
    return gallery.startswith("milvus:")


@dataclass(frozen=True)
class ServiceConfig:
    """What a service serves, and its limits.

    Attributes:
        gallery: the gallery's folder; or `milvus://host:19530/NAME`.
        bundles: bundles that embed pictures here. Without a name in the request, pictures are
            embedded by the anchor's bundle if it is among them, else by the first.
        page: the bundle that browsers embed with; then there is a web page at `/`, and everybody
            who reaches the service can fetch it and this bundle.
        images: folder in which an item's id is the path of its picture; the page shows them, to
            whoever may read.
        offers: bundles that whoever may read can download, to embed with them.
        keys: file of the API keys; by default `service-keys.json` in the gallery's folder. A
            gallery in Milvus has no folder, so there is no default.
        no_keys: serve everybody, whatever keys there are.
        is_local: whether only this machine can reach the service. Then, and without any key,
            requests that a browser makes for other sites' pages are refused.
        max_body: largest body, in bytes.
        max_pixels: largest picture that is decoded, in pixels.
        max_batch: most vectors, pictures or ids of one request.
        max_hits: most hits of one request: vectors or pictures times k.
        rate: requests a second that every key may make, over all workers; 0 for no limit.
        burst: requests that a key may make at once after a pause.
        concurrency: requests that one worker holds at a time, those that wait included.
        threads: requests that one worker works on at a time.
        connections: connections that one worker serves at a time; requests on more are refused.
        head_timeout: seconds within which a request's head has to arrive, and after which a
            client that takes nothing of its answer is cut off; twice that at most.
        body_timeout: seconds within which a body has to arrive.
        request_timeout: seconds within which a request is answered once its body is there.
        busy_timeout: seconds that a write waits for another process's.
        canary_every: seconds between two rounds of the recall canary and of the gallery's figures.
        canary_queries: stored vectors that a round of the canary searches.
        run_folder: a folder that all workers share while they run; None for one worker.
    """

    gallery: str
    bundles: tuple[str, ...] = ()
    offers: tuple[str, ...] = ()
    page: str | None = None
    images: str | None = None
    keys: str | None = None
    no_keys: bool = False
    is_local: bool = True
    max_body: int = 16 * 2**20
    max_pixels: int = 25_000_000
    max_batch: int = 256
    max_hits: int = 20_000
    rate: float = 100.0
    burst: int = 200
    concurrency: int = 64
    threads: int = 4
    connections: int = 500
    head_timeout: float = 10.0
    body_timeout: float = 10.0
    request_timeout: float = 30.0
    busy_timeout: float = 10.0
    canary_every: float = 300.0
    canary_queries: int = 16
    run_folder: str | None = None

    def __post_init__(self) -> None:
        for name in _AT_LEAST_ONE:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} has to be 1 or more, not {getattr(self, name)}")
        for name in _ABOVE_ZERO:
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} has to be above 0 seconds, not {getattr(self, name)}")
        if self.rate < 0 or self.busy_timeout < 0:
            raise ConfigError("rate and busy_timeout have to be 0 or more")

    @property
    def keys_path(self) -> Path | None:
        """Where the keys are; None for a gallery in a server, if no file was named."""
        if self.keys:
            return Path(self.keys)
        return None if is_in_a_server(self.gallery) else Path(self.gallery) / KEYS_FILE

    @property
    def offered(self) -> tuple[str, ...]:
        """The bundles that may be downloaded: those of `offers`, and the page's."""
        return self.offers if self.page is None else (*self.offers, self.page)

    def to_json(self) -> str:
        """As it is handed to worker processes."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ServiceConfig:
        """The opposite of `to_json`; raises `ConfigError` for unknown settings."""
        value: Mapping[str, Any] = json.loads(text)
        if unknown := set(value) - {f.name for f in fields(cls)}:
            raise ConfigError(f"unknown settings of the service: {', '.join(sorted(unknown))}")
        lists = {name: tuple(value.get(name, ())) for name in ("bundles", "offers")}
        return cls(**{**value, **lists})
