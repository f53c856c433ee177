"""The service: a gallery over HTTP. Needs `samespace[serve]`; docs/service.md tells of it."""

from samespace.service._app import create_app
from samespace.service._config import ServiceConfig
from samespace.service._run import serve

__all__ = ["ServiceConfig", "create_app", "serve"]
