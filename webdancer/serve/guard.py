"""Who may speak to a server: a bearer token, and what a web page in the user's browser may not do.

A server on loopback without a token is open to all programs of the machine, but not to web pages: a page that is opened in a
browser there can send requests to it too, under the server's own address (cross-site requests) or, once its name resolves to
loopback, under its own (DNS rebinding). Their Origin and Host headers give them away.
"""

import hashlib
import hmac
import ipaddress
import os
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from webdancer.errors import ConfigError
from webdancer.serve.replies import dumps, error_body


@dataclass(frozen=True)
class Access:
    """Who may speak to a server."""

    host: str = "127.0.0.1"
    """The address that it listens on."""
    token: str | None = None
    """Requests must bear it; None: none need to."""
    origins: tuple[str, ...] = ()
    """Web pages that may use the server from a browser (`http://localhost:3000`)."""

    @property
    def is_open(self) -> bool:
        """Whether anybody in the network may use the server."""
        return self.token is None and not is_loopback(self.host)


def read_token(env: str | None) -> str | None:
    """The token that an environment variable holds; None where none is named.

    Raises:
        ConfigError: the variable is not set, or its value cannot stand in a header.
    """
    if env is None:
        return None
    token = os.environ.get(env, "").strip()
    if not token:
        raise ConfigError(f"--token-env: the environment variable {env!r} is not set; export it before you run this")
    if not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError(f"--token-env: the value of {env!r} cannot be a token: it holds odd characters")
    return token


def is_loopback(host: str) -> bool:
    """Whether a host name or address is this machine, as no other can be reached by it."""
    name = host.lower().rstrip(".")
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def guarded(app: ASGIApp, access: Access) -> ASGIApp:
    """The app behind the checks; with `origins`, it also answers the questions that browsers ask before a request."""
    guard = _Guard(app, access)
    if not access.origins:
        return guard
    return CORSMiddleware(
        guard,
        allow_origins=access.origins,
        allow_methods=("GET", "POST", "DELETE"),
        allow_headers=("*",),
        expose_headers=("mcp-session-id",),
    )


class _Guard:
    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access
        self._token = None if access.token is None else _hashed(f"Bearer {access.token}")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (refusal := self._refusal(Headers(scope=scope))) is not None:
            await refusal(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refusal(self, headers: Headers) -> Response | None:
        """The answer to a request that may not pass."""
        if self._token is not None:
            # Hashes of equal length: the comparison takes as long for any token.
            if hmac.compare_digest(self._token, _hashed(headers.get("authorization", ""))):
                return None
            response = _refused(401, "a wrong bearer token, or none; this server wants one", code="invalid_api_key")
            response.headers["WWW-Authenticate"] = "Bearer"
            return response
        host = _host_of(f"//{headers.get('host', '')}")
        if is_loopback(self._access.host) and not self._is_ours(host):
            return _refused(403, f"got the host {host!r}, expected the server's own address", code="wrong_host")
        origin = headers.get("origin")
        if origin is not None and origin not in self._access.origins:
            name = _host_of(origin)
            if not name or not (self._is_ours(name) or name == host):
                return _refused(
                    403,
                    f"web pages of {origin[:200]!r} may not use this server; --allow-origin lets them",
                    code="origin",
                )
        return None

    def _is_ours(self, host: str) -> bool:
        return is_loopback(host) or host == self._access.host.lower()


def _host_of(url: str) -> str:
    """The host name in a URL, in lower case; empty where there is none."""
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _hashed(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "replace")).digest()


def _refused(status: int, message: str, *, code: str) -> Response:
    body = dumps(error_body(message, kind="invalid_request_error", code=code))
    return Response(body, status_code=status, media_type="application/json")
