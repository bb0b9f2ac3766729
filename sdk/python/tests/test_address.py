"""Addresses: what the constructors make of host, port and address."""

from __future__ import annotations

from typing import Any, Dict

import pytest

from flash_sandbox import HTTPClient, SandboxClient
from flash_sandbox._address import parse, resolve

BASE_URLS = {
    "proxy:9090/v1/service/sandbox": "http://proxy:9090/v1/service/sandbox/",
    "http://proxy:9090/v1/service/sandbox/": "http://proxy:9090/v1/service/sandbox/",
    "http://proxy.example.com": "http://proxy.example.com:80/",
    "https://proxy.example.com": "https://proxy.example.com:443/",
    "HTTPS://proxy.example.com:8443//": "https://proxy.example.com:8443/",
    "localhost": "http://localhost:80/",
    "localhost:8080": "http://localhost:8080/",
    " localhost:8080 ": "http://localhost:8080/",
    "http://user:secret@h:1/p?q=1#f": "http://h:1/p/",
    "[::1]:8080/x": "http://[::1]:8080/x/",
    "http://[fe80::1]": "http://[fe80::1]:80/",
}


@pytest.mark.parametrize("address", BASE_URLS)
def test_address(address: str) -> None:
    assert parse(address).base_url == BASE_URLS[address]


@pytest.mark.parametrize("address", ["", "  ", "ftp://h", "grpc://h:1", "http://", ":8080", "h:0", "h:99999", "h:x", "::1", "http://[::1"])
def test_bad_address(address: str) -> None:
    with pytest.raises(ValueError, match="^address: "):
        parse(address)
    with pytest.raises(ValueError, match="^address: "):
        HTTPClient(address=address)
    with pytest.raises(ValueError, match="^address: "):
        SandboxClient(address=address)


@pytest.mark.parametrize(
    ("arguments", "url"),
    [
        ({}, "http://localhost:8080/"),
        ({"host": "box", "port": 1}, "http://box:1/"),
        ({"host": "::1"}, "http://[::1]:8080/"),
        ({"host": "[::1]"}, "http://[::1]:8080/"),
        ({"host": "box", "port": 1, "address": "other:2/p"}, "http://other:2/p/"),
    ],
)
def test_http_arguments(arguments: Dict[str, Any], url: str) -> None:
    with HTTPClient(**arguments) as client:
        assert client._base_url == url


@pytest.mark.parametrize(
    ("arguments", "authority"),
    [
        ({}, "localhost:50051"),
        ({"host": "::1", "port": 2}, "[::1]:2"),
        ({"address": "proxy:8092/v1/service/sandbox"}, "proxy:8092"),
        ({"address": "http://proxy/v1"}, "proxy:80"),
        ({"address": "https://proxy/v1"}, "proxy:443"),
    ],
)
def test_grpc_arguments(arguments: Dict[str, Any], authority: str) -> None:
    with SandboxClient(**arguments) as client:
        assert client.address == authority


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [
        (None, 1, "give either host or address"),
        ("", 1, "^host: is empty"),
        ("http://box", 1, "^host: .* as address="),
        ("box/prefix", 1, "^host: "),
        ("box", 0, "^port: "),
        ("box", 70000, "^port: "),
    ],
)
def test_bad_host(host: str, port: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        resolve(host, port, None)
