"""Every error samespace raises on purpose, in one tree.

    SamespaceError
    ├── ConfigError                 an option, a name or a setting that cannot be used
    ├── ImageError                  a picture that cannot be used
    │   ├── DecodeError             not an image, truncated, empty
    │   └── ImageTooLargeError      more pixels than allowed (decompression bomb)
    ├── BundleError                 a bundle that cannot be used
    │   ├── BundleFormatError       manifest missing, malformed, or of an unknown version
    │   ├── BundleTamperedError     a file's sha256 or the fingerprint does not match
    │   ├── DepartingGraphError     a graph file that this processor computes otherwise
    │   └── UnsafePathError         a path that leaves its folder, or a pickle
    ├── RuntimeUnavailableError     no installed runtime can run this bundle
    ├── DataError                   a dataset with problems (`problems` lists every one)
    ├── GalleryError                a gallery that cannot do what was asked
    │   ├── NotCertifiedError       a model that is not certified for the gallery's space
    │   ├── DimensionError          vectors of the wrong width
    │   ├── InvalidVectorError      NaN, infinite or zero vectors
    │   ├── DuplicateIdError        an id that is already there, or twice in one call
    │   ├── UnknownIdError          an id that is not there
    │   ├── FilterError             a payload filter that cannot be read
    │   ├── GalleryBusyError        another process is writing
    │   ├── GalleryStorageError     disk full, read-only folder
    │   └── GalleryDamagedError     the database does not hold what was written
    ├── VerificationError           a verification that cannot be carried out
    │   └── CertificateError        a certificate that does not say what is needed
    ├── CheckpointError             a checkpoint that cannot be used
    └── ServiceError                a service that did not do what was asked
        ├── KeyRefusedError         no key, a wrong one, or one without the scope
        ├── ServiceBusyError        over a limit of rate or of work, or not ready
        └── ServiceUnreachableError no answer in time, or none at all

Every message names both sides of the disagreement and the fix.
"""

from __future__ import annotations

from collections.abc import Sequence


class SamespaceError(Exception):
    """Base of all errors raised on purpose."""


class ConfigError(SamespaceError):
    """An option, a name or a setting that cannot be used."""


class ImageError(SamespaceError):
    """A picture that cannot be used."""


class DecodeError(ImageError):
    """Not an image, or a damaged one."""


class ImageTooLargeError(ImageError):
    """More pixels than the limit allows."""


class BundleError(SamespaceError):
    """A bundle that cannot be used."""


class BundleFormatError(BundleError):
    """The manifest is missing, malformed, or of an unknown version."""


class BundleTamperedError(BundleError):
    """A file or the fingerprint is not what the manifest says."""


class DepartingGraphError(BundleError):
    """A graph file gives other vectors on this processor than its golden vectors."""


class UnsafePathError(BundleError):
    """A path that leaves its folder, or a file of a kind that can run code."""


class RuntimeUnavailableError(SamespaceError):
    """No installed runtime can run this bundle."""


class DataError(SamespaceError):
    """A dataset that cannot be used as it is.

    Attributes:
        problems: one sentence for every problem that was found, not only the first.
    """

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems)


class GalleryError(SamespaceError):
    """A gallery that cannot do what was asked."""


class NotCertifiedError(GalleryError):
    """A model that is not certified for the gallery's space."""


class DimensionError(GalleryError):
    """Vectors whose width is not the gallery's."""


class InvalidVectorError(GalleryError):
    """A vector with NaN, infinity or no direction."""


class DuplicateIdError(GalleryError):
    """An id that is already in the gallery, or twice in one call."""


class UnknownIdError(GalleryError):
    """An id that is not in the gallery."""


class FilterError(GalleryError):
    """A payload filter that cannot be read."""


class GalleryBusyError(GalleryError):
    """Another process is writing to the gallery."""


class GalleryStorageError(GalleryError):
    """The disk is full or the folder cannot be written."""


class GalleryDamagedError(GalleryError):
    """The database does not hold what was written to it."""


class VerificationError(SamespaceError):
    """A verification that cannot be carried out."""


class CertificateError(VerificationError):
    """A certificate that does not say what is needed, or was changed."""


class CheckpointError(SamespaceError):
    """A checkpoint that cannot be used."""


class ServiceError(SamespaceError):
    """A service did not do what was asked.

    Attributes:
        status: of HTTP; None where there was no answer.
        reason: the answer's stable word, as docs/service.md lists them; None without one.
    """

    def __init__(
        self, message: str, *, status: int | None = None, reason: str | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.reason = reason


class KeyRefusedError(ServiceError):
    """There was no key, a wrong one, or one that does not have the scope."""


class ServiceBusyError(ServiceError):
    """A limit of rate or of work was reached, or the service is not ready; try again later."""


class ServiceUnreachableError(ServiceError):
    """The service did not answer in time, or not at all."""
