"""Links in answers, behind a proxy whose headers are believed, and in front of anybody else's."""

import json

import pytest
from oslo_config import cfg

from qinling.db import api as db_api
from tests.unit import rows
from tests.unit.api.application import Api

OWN = "http://example.test:7070"
#: What a proxy says of the request that it got → where the links then go.
SAID = {
    "a protocol": ({"HTTP_X_FORWARDED_PROTO": "https"}, "https://example.test:7070"),
    "a host": ({"HTTP_X_FORWARDED_HOST": "api.example.org"}, "http://api.example.org"),
    "a prefix": ({"HTTP_X_FORWARDED_PREFIX": "/functions"}, f"{OWN}/functions"),
    "all of them": (
        {
            "HTTP_X_FORWARDED_PROTO": "https",
            "HTTP_X_FORWARDED_HOST": "api.example.org",
            "HTTP_X_FORWARDED_PREFIX": "/functions",
        },
        "https://api.example.org/functions",
    ),
    "RFC 7239": ({"HTTP_FORWARDED": "proto=https;host=api.example.org"}, "https://api.example.org"),
}


def links(api: Api, headers: dict[str, str]) -> list[str]:
    """Every kind of link that answers have."""
    versions, version, page = (
        json.loads(api.ask("GET", path, **headers).body)
        for path in ("/", "/v1", "/v1/runtimes?limit=1")
    )
    return [versions["versions"][0]["links"][0]["href"], version["uri"], page["next"]]


@pytest.mark.parametrize("believed", [True, False])
@pytest.mark.parametrize(("headers", "base"), SAID.values(), ids=SAID)
def test_what_a_proxy_says_is_in_links_when_it_is_believed_and_only_then(
    conf: cfg.ConfigOpts,
    db: db_api.Database,
    headers: dict[str, str],
    base: str,
    believed: bool,
) -> None:
    rows.insert(db, {}, {})
    conf.set_override("enable_proxy_headers_parsing", believed, group="oslo_middleware")
    base = base if believed else OWN
    href, uri, after = links(Api(conf, db), headers)
    assert href == uri == f"{base}/v1"
    assert after.startswith(f"{base}/v1/runtimes?limit=1&")
