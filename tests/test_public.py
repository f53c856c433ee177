"""The doors of the packages: what is public is listed, sorted and there."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import samespace_edge
from samespace_edge import SamespaceError

ROOT = Path(__file__).parent.parent
PACKAGES = ["samespace_edge", "samespace_export", "samespace", "samespace_cloud"]


@pytest.mark.parametrize("name", PACKAGES)
def test_public_names_are_sorted_and_exist(name: str) -> None:
    package = importlib.import_module(name)
    public = package.__all__
    # Constants, then classes, then functions: as ruff sorts them.
    assert public == sorted(public, key=lambda n: (not n.isupper(), not n[0].isupper(), n))
    for member in public:
        assert getattr(package, member).__doc__, member


def test_unknown_names_are_attribute_errors() -> None:
    for name in ("samespace", "samespace_cloud"):
        with pytest.raises(AttributeError, match="no attribute 'nothing'"):
            importlib.import_module(name).nothing  # noqa: B018


def test_every_error_is_in_the_tree_and_in_its_drawing() -> None:
    drawing = importlib.import_module("samespace_edge._errors").__doc__
    errors = [
        value
        for value in vars(samespace_edge).values()
        if isinstance(value, type) and issubclass(value, Exception)
    ]
    assert len(errors) > 20
    for error in errors:
        assert issubclass(error, SamespaceError)
        assert re.search(rf"\b{error.__name__}\b", drawing)


def test_only_one_place_may_be_long() -> None:
    """One idea per file: a file past 400 lines wants a second look, and a line here."""
    looked_at = {"sdk/samespace/gallery/_gallery.py"}
    long = {
        str(path.relative_to(ROOT))
        for folder in ("edge_runtime", "export", "sdk", "cloud", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
        if len(path.read_text().splitlines()) > 400
    }
    assert long <= looked_at


def test_attribution_travels_with_the_data() -> None:
    from samespace_cloud.demo import quickstart

    data = quickstart()
    assert len(data.queries) == 2124
    assert len(data.gallery) == 1062
    folder = ROOT / "cloud" / "samespace_cloud" / "quickstart"
    assert "CC-BY" in (folder / "ATTRIBUTION.md").read_text()


def test_importing_the_edge_runtime_is_quick_enough() -> None:
    """Not a timing: what makes it quick is what it leaves alone."""
    code = "import samespace_edge, sys; print(len(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 500
    assert "onnxruntime" not in done.stdout


def test_glossary_explains_every_word_of_the_errors() -> None:
    glossary = (ROOT / "docs" / "glossary.md").read_text().lower()
    for word in (
        "bundle",
        "certificate",
        "fingerprint",
        "gallery",
        "embedding space",
        "variant",
        "anchor",
    ):
        assert f"**{word}" in glossary or f"| {word}" in glossary


def test_results_follow_their_schema() -> None:
    import json

    import jsonschema

    schema = json.loads((ROOT / "benchmarks" / "result.schema.json").read_text())
    results = sorted((ROOT / "benchmarks" / "results").glob("*.json"))
    assert results
    for path in results:
        value = json.loads(path.read_text())
        jsonschema.validate(value, schema)
        assert value["name"] == path.stem
        assert all(set(row) == set(value["columns"]) for row in value["rows"])
