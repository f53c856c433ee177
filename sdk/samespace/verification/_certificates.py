"""Certificates as files beside their report."""

from __future__ import annotations

import re
from pathlib import Path

from samespace.verification._report import Report


def write_certificates(report: Report, folder: str | Path) -> dict[str, Path]:
    """Write the certificates of a report to its folder; returns their paths by query label.

    Those of an earlier report in this folder are removed.
    """
    folder = Path(folder)
    for stale in folder.glob("*.certificate.json"):
        stale.unlink()
    written = {}
    for certificate in report.certificates():
        name = certificate.query.name
        # A bundle's name is free text from wherever it was made; as a file name it is not.
        safe = re.sub(r"[^A-Za-z0-9_-]+", "-", name)
        query, gallery = certificate.query, certificate.gallery
        parts = (safe, query.fingerprint.short, query.variant, "in", gallery.fingerprint.short)
        path = folder / f"{'-'.join(parts)}.certificate.json"
        certificate.write(path)
        written[name] = path
    return written
