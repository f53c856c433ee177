"""Why a service refuses: the stable words of its answers, which the client turns back into errors.

One row is a reason, the status that it travels with, and the error that stands for it in Python.
"""

from __future__ import annotations

from dataclasses import dataclass

from samespace_edge import (
    ConfigError,
    DecodeError,
    DimensionError,
    DuplicateIdError,
    FilterError,
    GalleryBusyError,
    GalleryDamagedError,
    GalleryError,
    GalleryStorageError,
    ImageTooLargeError,
    InvalidVectorError,
    KeyRefusedError,
    NotCertifiedError,
    SamespaceError,
    ServiceBusyError,
    ServiceError,
    ServiceUnreachableError,
    UnknownIdError,
)


@dataclass(frozen=True)
class Reason:
    """A reason.

    Attributes:
        word: stable; the last part of a problem's `type`.
        status: of HTTP.
        error: what the client raises.
        title: the same for people.
        is_raised: whether the gallery raises `error` itself, so that it becomes this reason.
    """

    word: str
    status: int
    error: type[SamespaceError]
    title: str
    is_raised: bool = True


REASONS = {
    reason.word: reason
    for reason in (
        Reason("not-certified", 403, NotCertifiedError, "The model is not certified here"),
        Reason("wrong-width", 422, DimensionError, "Vectors of another width"),
        Reason("bad-vector", 422, InvalidVectorError, "A vector without a direction"),
        Reason("bad-filter", 422, FilterError, "A filter that cannot be read"),
        Reason("bad-request", 422, ConfigError, "A request that cannot be used"),
        Reason("duplicate-id", 409, DuplicateIdError, "An id that is there already"),
        Reason("unknown-id", 404, UnknownIdError, "An id that is not there"),
        Reason("picture-unreadable", 422, DecodeError, "A picture that cannot be read"),
        Reason("picture-too-large", 413, ImageTooLargeError, "A picture of too many pixels"),
        Reason("gallery-busy", 503, GalleryBusyError, "Another process is writing"),
        Reason("gallery-storage", 507, GalleryStorageError, "The disk does not take it"),
        Reason("gallery-damaged", 500, GalleryDamagedError, "The gallery is damaged"),
        Reason("gallery-error", 500, GalleryError, "The gallery cannot do that"),
        Reason("no-key", 401, KeyRefusedError, "No key, or a wrong one", False),
        Reason("no-scope", 403, KeyRefusedError, "A key without the scope", False),
        Reason("foreign-page", 403, KeyRefusedError, "Asked by another site's page", False),
        Reason("not-found", 404, ServiceError, "No such address", False),
        Reason("wrong-method", 405, ServiceError, "No such method at this address", False),
        Reason("slow-body", 408, ServiceError, "The body took too long", False),
        Reason("body-too-large", 413, ServiceError, "The body is too large", False),
        Reason("wrong-type", 415, ServiceError, "A content type that is not taken", False),
        Reason("too-many-requests", 429, ServiceBusyError, "Over the key's rate", False),
        Reason("too-much-at-once", 429, ServiceBusyError, "Over the bound of work", False),
        Reason("not-ready", 503, ServiceBusyError, "Not ready", False),
        Reason("request-timeout", 504, ServiceUnreachableError, "The work took too long", False),
        Reason("internal", 500, ServiceError, "An error of the service", False),
    )
}


def reason_of(error: SamespaceError) -> Reason | None:
    """The reason that an error of the gallery or the edge runtime travels as, if it has one."""
    for kind in type(error).__mro__:
        for reason in REASONS.values():
            if reason.is_raised and reason.error is kind:
                return reason
    return None
