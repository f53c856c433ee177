"""Where a gallery in Milvus is: URLs, the variables of the environment, and what can be missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from samespace import Gallery
from samespace.gallery._milvus._address import Address
from samespace.gallery._milvus._server import require_version
from samespace_edge import ConfigError, GalleryError

URL = "milvus://db.example:19531/shop"


def parse(url: str = URL, **environment: str) -> Address:
    return Address.parse(url, 10.0, {f"SAMESPACE_MILVUS_{k}": v for k, v in environment.items()})


def test_what_a_url_says() -> None:
    address = parse()
    assert (address.host, address.port, address.name) == ("db.example", 19531, "shop")
    assert (address.url, address.server, address.timeout) == (URL, "db.example:19531", 10.0)
    assert (address.strong, address.shards, address.replicas) == (False, 1, 1)
    assert parse("milvus://[::1]/s").server == "[::1]:19530"
    assert parse("milvus:/db/s").host == "db"  # a Path has made it that
    more = parse(TIMEOUT="2.5", SHARDS="4", REPLICAS="2", CONSISTENCY="strong", DATABASE="d")
    assert (more.timeout, more.shards, more.replicas, more.strong) == (2.5, 4, 2, True)
    assert more.options["db_name"] == "d"


@pytest.mark.parametrize(
    ("url", "environment", "message"),
    [
        ("milvus://db/", {}, "it reads milvus://host:19530/NAME"),
        ("milvus://db:x/shop", {}, "it reads milvus://host:19530/NAME"),
        ("milvus://db/my-shop", {}, "NAME of letters, digits and underscores"),
        ("milvus://db/a/b", {}, "is not the place of a gallery"),
        ("milvus://db:99999/shop", {}, "a port is a number from 1 to 65535"),
        ("milvus://me:secret@db/shop", {}, "set SAMESPACE_MILVUS_USER and SAMESPACE_MILVUS_PASS"),
        (URL, {"PASWORD": "x"}, "there is no variable SAMESPACE_MILVUS_PASWORD; there are: "),
        (URL, {"CONSISTENCY": "eventual"}, "is session or strong, not 'eventual'"),
        (URL, {"TIMEOUT": "soon"}, "SAMESPACE_MILVUS_TIMEOUT is a number above 0, not 'soon'"),
        (URL, {"SHARDS": "0"}, "SAMESPACE_MILVUS_SHARDS is a number above 0"),
        (URL, {"TLS": "yes"}, "SAMESPACE_MILVUS_TLS is 0 or 1"),
        (URL, {"TLS": "1", "CERT": "c"}, "CERT and SAMESPACE_MILVUS_KEY go together"),
        (URL, {"TLS": "1", "CERT": "c", "KEY": "k"}, "needs SAMESPACE_MILVUS_CA"),
        (
            URL,
            {"TLS": "1", "CA": "/nowhere/ca.pem"},
            "SAMESPACE_MILVUS_CA .*where there is no file",
        ),
        (URL, {"CA": "ca.pem"}, "SAMESPACE_MILVUS_CA is for SAMESPACE_MILVUS_TLS=1"),
        (URL, {"USER": "me"}, "SAMESPACE_MILVUS_USER needs SAMESPACE_MILVUS_PASSWORD"),
        (URL, {"USER": "me", "PASSWORD": "s3"}, "would travel to db.example:19531 in the clear"),
        (URL, {"TOKEN": "s3"}, "would travel to db.example:19531 in the clear"),
    ],
)
def test_what_cannot_be_is_refused(url: str, environment: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as error:
        parse(url, **environment)
    assert "s3" not in str(error.value)
    assert "secret" not in str(error.value)


def test_passwords_go_to_this_machine_or_encrypted_and_are_never_shown(tmp_path: Path) -> None:
    me = {"USER": "me", "PASSWORD": "s3cret"}
    (tmp_path / "ca.pem").write_text("x")
    for address in (
        parse("milvus://127.0.0.1/shop", **me),
        parse("milvus://localhost/shop", **me),
        parse(TLS="1", CA=str(tmp_path / "ca.pem"), **me),
        parse(TLS="0", **me),
    ):
        assert address.options["password"] == "s3cret"
        assert "s3cret" not in repr(address)
        assert "s3cret" not in address.url


def test_an_old_server_is_named() -> None:
    for fine in ("v2.3.5", "2.6.0-dev", "v3.0", "unknown"):
        require_version(fine, "db:19530")
    with pytest.raises(GalleryError, match=r"at db:19530 is v2\.2\.9; a gallery needs 2\.3 or new"):
        require_version("v2.2.9", "db:19530")


def test_without_pymilvus_the_extra_is_named(bundles: dict[str, Path]) -> None:
    code = (
        "import sys; sys.modules['pymilvus'] = None\n"
        "from samespace import Gallery\n"
        f"Gallery.create('milvus://127.0.0.1:1/shop', {str(bundles['cloud'])!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert "RuntimeUnavailableError: a gallery in Milvus needs pymilvus" in done.stderr
    assert "pip install 'samespace[milvus]'" in done.stderr


def test_nothing_there_is_an_error_and_not_a_folder(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="it reads milvus://host:19530/NAME"):
        Gallery.open("milvus://")
