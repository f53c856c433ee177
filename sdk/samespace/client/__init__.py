"""The Python client of the service. Needs `samespace[client]`; docs/service.md tells of it."""

from samespace.client._client import Client

__all__ = ["Client"]
