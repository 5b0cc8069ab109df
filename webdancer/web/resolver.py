"""From names to the addresses that are connected to: each is judged, and the one that was judged is the one connected to.

aiohttp connects to what its resolver returns and asks it no second time, so a name whose answer changes between check and
use gains nothing. Should that ever change, the sockets are guarded too: none is opened for an address that was not judged.
"""

import socket
from collections.abc import Mapping
from socket import AddressFamily

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult

from webdancer.errors import ConfigError
from webdancer.web.addresses import AddressPolicy, Refused


class RefusedAddressError(OSError):
    """A name leads to an address that must not be asked.

    Args:
        refused: which, and why.
    """

    def __init__(self, refused: Refused) -> None:
        super().__init__(str(refused))
        self.refused = refused


class CheckedResolver(AbstractResolver):
    """Host name → address and port from a table, anything else from DNS, under a policy.

    Args:
        table: host → `address:port`; these addresses are the user's own and are not judged.
        policy: what may be asked.
        dns: asked for all other names; None: the system's resolver.

    Raises:
        ConfigError: an entry of the table is not `address:port`.
    """

    def __init__(self, table: Mapping[str, str], policy: AddressPolicy, *, dns: AbstractResolver | None = None) -> None:
        self._table = {host.lower(): _address(host, value) for host, value in table.items()}
        self._policy = policy
        self._dns = dns or aiohttp.DefaultResolver()
        self._granted: set[str] = set()
        """Addresses that are asked only because their host is named in the settings."""

    async def resolve(
        self, host: str, port: int = 0, family: AddressFamily = AddressFamily.AF_INET
    ) -> list[ResolveResult]:
        """The addresses of a host. One that must not be asked spoils them all.

        Raises:
            RefusedAddressError: an address must not be asked.
            OSError: there is none.
        """
        if (mapped := self._table.get(host.lower())) is not None:
            address, mapped_port = mapped
            self._granted.add(address)
            kind = AddressFamily.AF_INET6 if ":" in address else AddressFamily.AF_INET
            return [ResolveResult(hostname=host, host=address, port=mapped_port, family=kind, proto=0, flags=0)]
        found = await self._dns.resolve(host, port, family)
        for result in found:
            if (refused := self._policy.refusal_of_address(result["host"], host=host)) is not None:
                raise RefusedAddressError(refused)
        if self._policy.names(host):
            self._granted.update(result["host"] for result in found)
        return found

    def new_socket(self, info: "aiohttp.AddrInfoType") -> socket.socket:
        """A socket for one address, as aiohttp asks for it right before it connects.

        Raises:
            RefusedAddressError: the address must not be asked.
        """
        family, kind, proto, _, address = info
        host = str(address[0])
        if host not in self._granted and (refused := self._policy.refusal_of_address(host, host=host)) is not None:
            raise RefusedAddressError(refused)
        return socket.socket(family, kind, proto)

    async def close(self) -> None:
        """Close the DNS client."""
        await self._dns.close()


def _address(host: str, value: str) -> tuple[str, int]:
    address, _, port = value.rpartition(":")
    if not address or not port.isdigit() or not 0 < int(port) < 65536:
        raise ConfigError(f"resolve: {host!r}: got {value!r}, expected address:port, as in 127.0.0.1:8080")
    return address.strip("[]"), int(port)
