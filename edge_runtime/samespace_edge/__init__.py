"""Runs samespace bundles: decode, preprocess, embed. Needs numpy, Pillow and one runtime.

>>> from samespace_edge import Embedder
>>> vectors = Embedder("edge.bundle").embed(["a.jpg", "b.jpg"])  # doctest: +SKIP
"""

from samespace_edge._adapter import Adapter
from samespace_edge._bundle import Bundle, Manifest, Variant
from samespace_edge._check import BundleCheck, StageResult, check_bundle
from samespace_edge._embedder import Embedder
from samespace_edge._errors import (
    BundleError,
    BundleFormatError,
    BundleTamperedError,
    CertificateError,
    CheckpointError,
    ConfigError,
    DataError,
    DecodeError,
    DepartingGraphError,
    DimensionError,
    DuplicateIdError,
    FilterError,
    GalleryBusyError,
    GalleryDamagedError,
    GalleryError,
    GalleryStorageError,
    ImageError,
    ImageTooLargeError,
    InvalidVectorError,
    KeyRefusedError,
    NotCertifiedError,
    RuntimeUnavailableError,
    SamespaceError,
    ServiceBusyError,
    ServiceError,
    ServiceUnreachableError,
    UnknownIdError,
    UnsafePathError,
    VerificationError,
)
from samespace_edge._identity import Fingerprint, ModelIdentity, canonical_json
from samespace_edge._image import MAX_PIXELS, ImageSource, decode
from samespace_edge._layers import AdapterLayers
from samespace_edge._measure import Measured, load_measured, measure, save_measured
from samespace_edge._processor import instruction_set, processor_name
from samespace_edge._resize import Pixels, Resize
from samespace_edge._runtimes import RuntimeKind

__all__ = [
    "MAX_PIXELS",
    "Adapter",
    "AdapterLayers",
    "Bundle",
    "BundleCheck",
    "BundleError",
    "BundleFormatError",
    "BundleTamperedError",
    "CertificateError",
    "CheckpointError",
    "ConfigError",
    "DataError",
    "DecodeError",
    "DepartingGraphError",
    "DimensionError",
    "DuplicateIdError",
    "Embedder",
    "FilterError",
    "Fingerprint",
    "GalleryBusyError",
    "GalleryDamagedError",
    "GalleryError",
    "GalleryStorageError",
    "ImageError",
    "ImageSource",
    "ImageTooLargeError",
    "InvalidVectorError",
    "KeyRefusedError",
    "Manifest",
    "Measured",
    "ModelIdentity",
    "NotCertifiedError",
    "Pixels",
    "Resize",
    "RuntimeKind",
    "RuntimeUnavailableError",
    "SamespaceError",
    "ServiceBusyError",
    "ServiceError",
    "ServiceUnreachableError",
    "StageResult",
    "UnknownIdError",
    "UnsafePathError",
    "Variant",
    "VerificationError",
    "canonical_json",
    "check_bundle",
    "decode",
    "instruction_set",
    "load_measured",
    "measure",
    "processor_name",
    "save_measured",
]
