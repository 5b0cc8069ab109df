"""Which URLs, names and addresses may be asked, and why the others are not. Pure: nothing is resolved here.

Links, redirects and models name addresses that we then ask; none of them may lead to the services of this machine, of its
network or of its cloud. A URL is judged by its spelling before it is resolved, and each address that its host resolves to
before it is connected to. The tables are our own: what `ipaddress` calls global differs between versions of Python, and
it knows neither metadata services nor addresses that carry another one inside (IANA's special-purpose registries; RFC 6890).
"""

import ipaddress
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import NamedTuple

from webdancer.config import CrawlSettings
from webdancer.errors import ConfigError
from webdancer.web.urls import canonical_url


class Refusal(StrEnum):
    """Why something is not asked."""

    NO_URL = "no_url"
    SCHEME = "scheme"
    USERINFO = "userinfo"
    ODD_CHARACTERS = "odd_characters"
    """Characters in the host that parsers read differently, or that normalisation turns into others."""
    ZONE_ID = "zone_id"
    TRAILING_DOT = "trailing_dot"
    NUMERIC_HOST = "numeric_host"
    """An IPv4 address in another spelling than four decimal numbers."""
    BAD_PORT = "bad_port"
    LOCAL_NAME = "local_name"
    PORT = "port"
    """A port of a service that does not speak HTTP, or that nobody should be made to talk to."""
    LOOPBACK = "loopback"
    PRIVATE = "private"
    SHARED = "shared"
    """Carrier-grade NAT (RFC 6598)."""
    LINK_LOCAL = "link_local"
    METADATA = "metadata"
    UNSPECIFIED = "unspecified"
    MULTICAST = "multicast"
    RESERVED = "reserved"
    IPV4_MAPPED = "ipv4_mapped"
    IPV4_COMPATIBLE = "ipv4_compatible"
    SIX_TO_FOUR = "6to4"
    NAT64 = "nat64"
    TEREDO = "teredo"


class Refused(NamedTuple):
    """What is not asked, and why."""

    reason: Refusal
    what: str
    """The part of the URL, or the address, that was refused."""

    def __str__(self) -> str:
        return f"{_TOLD[self.reason]}: {self.what[:200]!r}"


_TOLD = {
    Refusal.NO_URL: "not the address of a web page",
    Refusal.SCHEME: "only http and https addresses are read",
    Refusal.USERINFO: "addresses with a user name or password are not read",
    Refusal.ODD_CHARACTERS: "the host has characters that no host name has",
    Refusal.ZONE_ID: "the host names a network interface",
    Refusal.TRAILING_DOT: "the host ends in a dot",
    Refusal.NUMERIC_HOST: "the host is a number, but no address of four decimal parts",
    Refusal.BAD_PORT: "no such port",
    Refusal.LOCAL_NAME: "the host's name is one of a local network",
    Refusal.PORT: "this port is not one of a web server",
    Refusal.LOOPBACK: "the host's address is this machine",
    Refusal.PRIVATE: "the host's address belongs to a private network",
    Refusal.SHARED: "the host's address belongs to a provider's inner network",
    Refusal.LINK_LOCAL: "the host's address is link-local",
    Refusal.METADATA: "the host's address is a cloud's metadata service",
    Refusal.UNSPECIFIED: "the host's address is unspecified",
    Refusal.MULTICAST: "the host's address is a multicast group",
    Refusal.RESERVED: "the host's address is reserved",
    Refusal.IPV4_MAPPED: "the host's address is an IPv4 address in IPv6 spelling",
    Refusal.IPV4_COMPATIBLE: "the host's address is an IPv4 address in IPv6 spelling",
    Refusal.SIX_TO_FOUR: "the host's address is a 6to4 tunnel",
    Refusal.NAT64: "the host's address is translated by NAT64",
    Refusal.TEREDO: "the host's address is a Teredo tunnel",
}
_OF_SPELLING = frozenset(
    {
        Refusal.NO_URL,
        Refusal.SCHEME,
        Refusal.USERINFO,
        Refusal.ODD_CHARACTERS,
        Refusal.ZONE_ID,
        Refusal.TRAILING_DOT,
        Refusal.NUMERIC_HOST,
        Refusal.BAD_PORT,
    }
)
_SPECIAL = tuple(
    (ipaddress.ip_network(network), reason)
    for network, reason in (
        ("169.254.169.254/32", Refusal.METADATA),
        ("169.254.170.2/32", Refusal.METADATA),  # credentials of tasks on ECS
        ("100.100.100.200/32", Refusal.METADATA),  # Alibaba
        ("192.0.0.192/32", Refusal.METADATA),  # Oracle, classic
        ("168.63.129.16/32", Refusal.METADATA),  # Azure's host agent, a public address
        ("fd00:ec2::254/128", Refusal.METADATA),
        ("fd20:ce::254/128", Refusal.METADATA),  # Google
        ("0.0.0.0/32", Refusal.UNSPECIFIED),
        ("0.0.0.0/8", Refusal.RESERVED),  # Linux takes it for this machine
        ("10.0.0.0/8", Refusal.PRIVATE),
        ("100.64.0.0/10", Refusal.SHARED),
        ("127.0.0.0/8", Refusal.LOOPBACK),
        ("169.254.0.0/16", Refusal.LINK_LOCAL),
        ("172.16.0.0/12", Refusal.PRIVATE),
        ("192.0.0.0/24", Refusal.RESERVED),
        ("192.0.2.0/24", Refusal.RESERVED),
        ("192.31.196.0/24", Refusal.RESERVED),
        ("192.52.193.0/24", Refusal.RESERVED),
        ("192.88.99.0/24", Refusal.SIX_TO_FOUR),
        ("192.168.0.0/16", Refusal.PRIVATE),
        ("192.175.48.0/24", Refusal.RESERVED),
        ("198.18.0.0/15", Refusal.RESERVED),
        ("198.51.100.0/24", Refusal.RESERVED),
        ("203.0.113.0/24", Refusal.RESERVED),
        ("224.0.0.0/4", Refusal.MULTICAST),
        ("240.0.0.0/4", Refusal.RESERVED),
        ("::/128", Refusal.UNSPECIFIED),
        ("::1/128", Refusal.LOOPBACK),
        ("::ffff:0:0/96", Refusal.IPV4_MAPPED),
        ("::ffff:0:0:0/96", Refusal.IPV4_MAPPED),  # IPv4-translated (RFC 2765)
        ("::/96", Refusal.IPV4_COMPATIBLE),
        ("64:ff9b::/96", Refusal.NAT64),
        ("64:ff9b:1::/48", Refusal.NAT64),
        ("2001::/32", Refusal.TEREDO),
        ("2002::/16", Refusal.SIX_TO_FOUR),
        ("fc00::/7", Refusal.PRIVATE),
        ("fe80::/10", Refusal.LINK_LOCAL),
        ("fec0::/10", Refusal.PRIVATE),
        ("ff00::/8", Refusal.MULTICAST),
    )
)
"""The first line that holds an address counts."""
_GLOBAL_IPV6 = IPv6Network("2000::/3")
"""All that IANA gives out; within it, the rest of 2001::/23 and what is for documentation are reserved."""
_RESERVED_IN_GLOBAL = tuple(map(IPv6Network, ("2001::/23", "2001:db8::/32", "3fff::/20", "2620:4f:8000::/48")))

_LOCAL_SUFFIXES = frozenset(
    ("localhost", "localdomain", "local", "internal", "intranet", "private", "lan", "home", "corp")
)
"""Last labels that no public name has, or that resolvers answer by themselves (RFC 6761, RFC 6762, ICANN's name collisions)."""
_REFUSED_PORTS = frozenset(
    (
        # What browsers refuse (WHATWG Fetch, section 2.9).
        *(0, 1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102, 103, 104),
        *(109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465, 512, 513, 514, 515),
        *(526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993, 995, 1719, 1720, 1723, 2049),
        *(3659, 4045, 4190, 5060, 5061, 6000, 6566, 6665, 6666, 6667, 6668, 6669, 6679, 6697, 10080),
        # Databases, queues, and what rules machines.
        *(445, 873, 1080, 1433, 1521, 1883, 2181, 2375, 2376, 2379, 2380, 3128, 3306, 3389, 5432, 5672, 5900, 5984),
        *(5985, 5986, 6379, 6380, 6443, 7001, 8086, 8500, 9042, 9092, 9200, 9300, 10250, 10255, 11211, 15672, 27017),
        *(27018, 50070),
    )
)

_URL = re.compile(r"([a-zA-Z][a-zA-Z0-9+.-]*):(//)?([^/?#]*)", re.ASCII)
_NAME = re.compile(r"[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?", re.ASCII)
_LAST_IS_NUMBER = re.compile(r"(?:.*\.)?(?:[0-9]+|0x[0-9a-f]*)\.?", re.ASCII)
_MAX_NAME_CHARS = 253

IPAddress = IPv4Address | IPv6Address
IPNetwork = IPv4Network | IPv6Network


class Authority(NamedTuple):
    """Scheme, host and port of a URL whose spelling leaves no doubt about them."""

    scheme: str
    host: str
    """In lower case; without brackets."""
    port: int


def parse_authority(url: str) -> Authority | Refused:
    """Scheme, host and port of an absolute http(s) URL, or why its spelling is refused.

    Strict on purpose: whatever two parsers might read differently is refused, rather than read in one of the ways.
    """
    match = _URL.match(url.strip())
    if not match:
        return Refused(Refusal.NO_URL, url)
    scheme, slashes, authority = match[1].lower(), match[2], match[3]
    if scheme not in ("http", "https"):
        return Refused(Refusal.SCHEME, scheme)
    if not slashes or not authority:
        return Refused(Refusal.NO_URL, url)
    if "@" in authority:
        return Refused(Refusal.USERINFO, re.sub(r".*@", "…@", authority))
    split = _split_port(authority)
    if isinstance(split, Refused):
        return split
    host, port_text = split
    refusal = refusal_of_host_spelling(host)
    if refusal is not None:
        return refusal
    if port_text and not (port_text.isascii() and port_text.isdigit() and 0 < int(port_text[:9]) < 65536):
        return Refused(Refusal.BAD_PORT, port_text)
    port = int(port_text) if port_text else {"http": 80, "https": 443}[scheme]
    return Authority(scheme, host.strip("[]").lower(), port)


def _split_port(authority: str) -> tuple[str, str] | Refused:
    """Host (with its brackets) and port of an authority."""
    if authority.startswith("["):
        host, bracket, rest = authority.partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            return Refused(Refusal.ODD_CHARACTERS, authority)
        return host + bracket, rest[1:]
    host, _, port = authority.partition(":")
    if ":" in port:
        return Refused(Refusal.BAD_PORT, port)
    return (host, port) if host else Refused(Refusal.NO_URL, authority)


def refusal_of_host_spelling(host: str) -> Refused | None:
    """Why a host, as it stands in a URL, is refused for how it is written; None where it is written plainly."""
    if host.startswith("["):
        if "%" in host:
            return Refused(Refusal.ZONE_ID, host)
        return None if isinstance(_address(host[1:-1]), IPv6Address) else Refused(Refusal.ODD_CHARACTERS, host)
    if not host.isascii():
        return _refusal_of_letters(host)
    lower = host.lower()
    if lower.endswith("."):
        return Refused(Refusal.TRAILING_DOT, host)
    if not _NAME.fullmatch(lower) or ".." in lower or len(lower) > _MAX_NAME_CHARS:
        return Refused(Refusal.ODD_CHARACTERS, host)
    if _LAST_IS_NUMBER.fullmatch(lower) and _address(lower) is None:
        return Refused(Refusal.NUMERIC_HOST, host)
    return None


def _refusal_of_letters(host: str) -> Refused | None:
    """Judge a host with letters beyond ASCII: they must stay what they are when they are normalised.

    `１２７.０.０.１`, `ⓛocalhost` and a soft hyphen inside `127.0.0.1` all turn into plain ASCII on the way to DNS.
    """
    for letter in host:
        if letter.isascii():
            if not (letter.isalnum() or letter in "-._"):
                return Refused(Refusal.ODD_CHARACTERS, host)
        elif any(part.isascii() for part in unicodedata.normalize("NFKC", letter)):
            return Refused(Refusal.ODD_CHARACTERS, host)
        elif unicodedata.category(letter)[0] not in "LMN" or unicodedata.category(letter) == "No":
            return Refused(Refusal.ODD_CHARACTERS, host)  # full stops of other scripts, invisible characters
    if host.endswith("."):
        return Refused(Refusal.TRAILING_DOT, host)
    if host.replace(".", "").isnumeric():
        return Refused(Refusal.NUMERIC_HOST, host)
    return None


def _address(text: str) -> IPAddress | None:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def refusal_of_address(address: IPAddress) -> Refusal | None:
    """Why an address is not one of the public internet; None where it is."""
    for network, reason in _SPECIAL:
        if address in network:
            return reason
    if isinstance(address, IPv6Address):
        reserved = any(address in network for network in _RESERVED_IN_GLOBAL)
        return Refusal.RESERVED if reserved or address not in _GLOBAL_IPV6 else None
    return None


def _is_local_name(host: str) -> bool:
    """Whether a name is one of a local network: one label alone is completed by resolvers."""
    return "." not in host or host.rpartition(".")[2] in _LOCAL_SUFFIXES or host.endswith(".home.arpa")


_FORGIVEN = frozenset({Refusal.LOOPBACK, Refusal.PRIVATE, Refusal.SHARED})
"""What the address of a host may be that the settings name; the others must be named as addresses or networks."""


@dataclass(frozen=True, slots=True)
class AddressPolicy:
    """What may be asked: the public internet, and besides what the settings name."""

    hosts: frozenset[str] = frozenset()
    """Names, in lower case, that may lead to this machine or its network, on any port."""
    networks: tuple[IPNetwork, ...] = ()
    """Addresses that may be asked whatever they are."""

    def refusal_of_url(self, url: str) -> Refused | None:
        """Why a URL is not asked, as far as that can be told before its host is resolved."""
        authority = parse_authority(url)
        if isinstance(authority, Refused):
            return authority
        host, port = authority.host, authority.port
        address = _address(host)
        if self.names(host):
            return None if address is None else self.refusal_of_address(host, host=host)
        if address is not None and (refused := self.refusal_of_address(host, host=host)):
            return refused
        if address is None and _is_local_name(host):
            return Refused(Refusal.LOCAL_NAME, host)
        return Refused(Refusal.PORT, f"{host}:{port}") if port in _REFUSED_PORTS else None

    def refusal_of_address(self, address: str, *, host: str) -> Refused | None:
        """Why an address that `host` leads to is not connected to."""
        found = _address(address.partition("%")[0])
        if found is None:
            return Refused(Refusal.NO_URL, address)
        reason = refusal_of_address(found)
        if reason is None or any(found in network for network in self.networks):
            return None
        if reason in _FORGIVEN and host.lower() in self.hosts:
            return None
        return Refused(reason, address if address == host else f"{host} ({address})")

    def names(self, host: str) -> bool:
        """Whether the settings name this host, or the network of this address."""
        address = _address(host)
        return host.lower() in self.hosts or (address is not None and any(address in net for net in self.networks))


def is_misspelt(reason: Refusal) -> bool:
    """Whether a URL is refused for how it is written, rather than for where it leads."""
    return reason in _OF_SPELLING


def policy_of(settings: CrawlSettings) -> AddressPolicy:
    """The policy of `[crawl]`: its roots (with and without `www.`), the hosts of `resolve`, and `allow_private`.

    Raises:
        ConfigError: an entry of `allow_private` is neither a host name nor an address or network.
    """
    hosts: set[str] = {spelling for host in settings.resolve for spelling in (host.lower(), _as_dns_knows(host))}
    networks: list[IPNetwork] = []
    for url in settings.urls:
        authority = parse_authority(canonical_url(url) or "")
        if isinstance(authority, Authority):
            bare = authority.host.removeprefix("www.")
            hosts |= {authority.host, bare, f"www.{bare}"}
            networks += _networks_of([authority.host])
    for entry in settings.allow_private:
        text = entry.strip().strip("[]")
        found = _networks_of([text])
        if not found and refusal_of_host_spelling(text) is not None:
            raise ConfigError(
                f"crawl.allow_private: got {entry!r}, expected a host name, an address or a network as in 10.1.0.0/16"
            )
        networks += found
        hosts |= set() if found else {_as_dns_knows(text)}
    return AddressPolicy(frozenset(hosts), tuple(networks))


def _as_dns_knows(host: str) -> str:
    """A host in lower case and ASCII; as it is where it cannot be put so."""
    authority = parse_authority(canonical_url(f"http://{host}/") or "")
    return authority.host if isinstance(authority, Authority) else host.lower()


def _networks_of(texts: Iterable[str]) -> list[IPNetwork]:
    """Those of the texts that are addresses or networks."""
    found: list[IPNetwork] = []
    for text in texts:
        try:
            found.append(ipaddress.ip_network(text))
        except ValueError:
            continue
    return found
