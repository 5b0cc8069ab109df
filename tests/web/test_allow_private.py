"""What the settings let through to private addresses, and what they never do."""

import pytest
from hostile import told

from webdancer.config import CrawlSettings
from webdancer.errors import ConfigError
from webdancer.web.addresses import Refusal, policy_of


@pytest.mark.parametrize(
    ("allowed", "url", "reason"),
    [
        ("127.0.0.0/8", "http://127.0.0.1:6379/", None),
        ("127.0.0.1", "http://127.0.0.1/", None),
        ("127.0.0.1", "http://127.0.0.2/", Refusal.LOOPBACK),
        ("10.1.0.0/16", "http://10.2.0.1/", Refusal.PRIVATE),
        ("::1", "http://[::1]/", None),
        ("64:ff9b::/96", "http://[64:ff9b::5db8:d822]/", None),
        ("localhost", "http://localhost:9200/", None),
        ("Wiki", "http://wiki/", None),
        ("wiki", "http://wiki.example:22/", Refusal.PORT),
        ("bücher.internal", "http://xn--bcher-kva.internal/", None),
        ("intranet.example", "http://a.intranet.example:25/", Refusal.PORT),
        ("10.0.0.0/8", "http://2130706433/", Refusal.NUMERIC_HOST),
    ],
)
def test_allow_private(allowed: str, url: str, reason: Refusal | None) -> None:
    assert told(policy_of(CrawlSettings(allow_private=(allowed,))).refusal_of_url(url)) == reason


@pytest.mark.parametrize("entry", ["", "10.0.0.0/33", "10.1.0.1/16", "a b", "http://a.example/", "127.1", "*.example"])
def test_wrong_entries_of_allow_private(entry: str) -> None:
    with pytest.raises(ConfigError, match=r"allow_private.*expected a host name"):
        policy_of(CrawlSettings(allow_private=(entry,)))


def test_a_named_host_may_be_private_but_not_a_metadata_service() -> None:
    policy = policy_of(CrawlSettings(urls=("https://wiki.example/",), resolve={"own.example": "127.0.0.1:80"}))
    found = {
        address: told(policy.refusal_of_address(address, host="www.wiki.example"))
        for address in ("127.0.0.1", "10.0.0.1", "100.64.0.1", "169.254.169.254", "224.0.0.1", "0.0.0.0")
    }
    assert found == {
        "127.0.0.1": None,
        "10.0.0.1": None,
        "100.64.0.1": None,
        "169.254.169.254": Refusal.METADATA,
        "224.0.0.1": Refusal.MULTICAST,
        "0.0.0.0": Refusal.UNSPECIFIED,
    }
