"""The signed-off result of a verification: what a gallery asks for before it admits a model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from samespace_edge import CertificateError, ModelIdentity, SamespaceError, canonical_json

SCHEMA = 1


@dataclass(frozen=True)
class Certificate:
    """Says that `query` retrieves in galleries of `gallery`, and on what that was measured.

    Attributes:
        query: the admitted model, down to the file.
        gallery: the model that makes the gallery's vectors.
        dataset: name, `sha256` of the pictures, number of `queries` and `gallery` pictures.
        criterion: `metric`, `value`, `reference` (what it was compared with),
            `reference_value`, and the interval of the `difference`. For a newer cloud model also
            `rule`, which is `upgrade`: the reference is `gallery`, which it has to beat.
        figures: R@1, R@5, R@10 and MAP of the pair, as fractions.
        report_sha256: of the report that it comes from.
        issued: date and time, ISO 8601, UTC.
        version: of samespace.
        prefixes: widths, ascending, at which the criterion was measured to hold as well, with
            vectors cut to their first so many numbers. Without any, which includes certificates
            from before there were prefixes, JSON and digest are as they always were.
        instructions: instruction set of the processor that it was measured on, such as
            `x86_64 AVX2 VNNI`. Certificates from before this was noted have none.

    The digest guards against accidents and edits, not against forgers: whoever can write a
    certificate can compute one.
    """

    query: ModelIdentity
    gallery: ModelIdentity
    dataset: Mapping[str, Any]
    criterion: Mapping[str, Any]
    figures: Mapping[str, float]
    report_sha256: str
    issued: str
    version: str
    prefixes: tuple[int, ...] = ()
    instructions: str = ""

    def _content(self) -> dict[str, Any]:
        content = {
            "schema": SCHEMA,
            "query": self.query.to_json(),
            "gallery": self.gallery.to_json(),
            "dataset": dict(self.dataset),
            "criterion": dict(self.criterion),
            "figures": dict(self.figures),
            "report_sha256": self.report_sha256,
            "issued": self.issued,
            "version": self.version,
        }
        if self.prefixes:
            content["prefixes"] = list(self.prefixes)
        if self.instructions:
            content["instructions"] = self.instructions
        return content

    def to_json(self) -> dict[str, Any]:
        """As it is written to a file, its digest included."""
        content = self._content()
        return {**content, "sha256": _digest(content)}

    @classmethod
    def from_json(cls, value: Any) -> Certificate:
        """Read and check a certificate; raises `CertificateError`."""
        if not isinstance(value, dict) or value.get("schema") != SCHEMA:
            raise CertificateError(f"this is not a certificate of schema {SCHEMA}")
        content = {k: v for k, v in value.items() if k not in ("sha256", "schema")}
        try:
            certificate = cls(
                **{
                    **content,
                    "query": ModelIdentity.from_json(content["query"]),
                    "gallery": ModelIdentity.from_json(content["gallery"]),
                    "prefixes": tuple(content.get("prefixes", ())),
                }
            )
            low = float(certificate.criterion["difference_low"])
        except (KeyError, TypeError, ValueError, SamespaceError) as error:
            raise CertificateError(f"malformed certificate: {error!r}") from None
        if value.get("sha256") != _digest(certificate._content()):
            raise CertificateError(
                f"the certificate of {certificate.query} was changed after it was issued; "
                "run 'samespace verify' again"
            )
        if not low > 0:
            raise CertificateError(
                f"the certificate of {certificate.query} does not say that the model passed"
            )
        return certificate

    @classmethod
    def read(cls, path: str | Path) -> Certificate:
        """Read and check the certificate in a file; raises `CertificateError`."""
        try:
            value = json.loads(Path(path).read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise CertificateError(f"cannot read the certificate {path}: {error}") from None
        return cls.from_json(value)

    def write(self, path: str | Path) -> None:
        """Write the certificate to a file."""
        Path(path).write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")


def _digest(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(canonical_json(content).encode()).hexdigest()
