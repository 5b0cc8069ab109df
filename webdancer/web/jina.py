"""Pages through the reader service of Jina, r.jina.ai, which runs their scripts.

Wire format: POST with `{"url": …}` and `Accept: application/json` (https://docs.jina.ai, Reader API). An answer is
`{"code", "status", "data": {"title", "url", "content", "publishedTime", "warning"}}`, the content Markdown; a failure has
`"data": null`, `name` and `message`. What the page's own server answered stands in the warning, under a status of 200: "Target
URL returned error 404: Not Found". A key is optional; without one fewer requests a minute are answered.
"""

import hashlib
import re
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from pydantic import BaseModel, Field

from webdancer.config import ProviderSettings
from webdancer.errors import ConfigError
from webdancer.keys import redact
from webdancer.records import Page
from webdancer.web.addresses import AddressPolicy, is_misspelt
from webdancer.web.layout import clean
from webdancer.web.memory import Outcome, PageMemory
from webdancer.web.metadata import parse_date
from webdancer.web.protocol import PageNotFound, ToolFailure
from webdancer.web.providers.attempts import ProviderRefused
from webdancer.web.providers.http import ProviderApi, ProviderClient
from webdancer.web.urls import canonical_url

_API = ProviderApi(
    name="jina",
    base_url="https://r.jina.ai",
    key_env="JINA_API_KEY",
    needs_key=False,
    sign_up="https://jina.ai/reader",
)
_MAX_CHARS = 1_000_000
_HEADER = re.compile(r"[A-Za-z0-9-]+")
_HEADER_VALUE = re.compile(r"[ -~]*")
_TARGET_FAILED = re.compile(r"Target URL returned error (\d{3})")
_PUBLIC = AddressPolicy()
"""Nothing that the settings name is excepted: no inner host's name goes to a third party."""


class _Data(BaseModel):
    title: str | None = None
    url: str | None = None
    content: str | None = None
    published: str | None = Field(None, alias="publishedTime")
    warning: str | None = None


class _Answer(BaseModel):
    data: _Data


class JinaReader:
    """A `PageReader` that asks r.jina.ai. Used as an async context manager.

    Args:
        settings: `params` are sent as headers (`X-Locale`, `X-Engine`, …).
        cache_s: seconds for which a page, or the failure to get it, is remembered; 0: not at all.

    Raises:
        ConfigError: the key that the settings name is missing, or a parameter cannot be a header.
    """

    def __init__(self, settings: ProviderSettings, *, cache_s: float = 0.0) -> None:
        for name, value in settings.params.items():
            if not _HEADER.fullmatch(name) or not _HEADER_VALUE.fullmatch(value):
                raise ConfigError(
                    f"web.jina.params: got {name!r}: {value!r}, expected a header such as 'X-Locale': 'de'"
                )
        self._headers = {"X-Retain-Images": "none", **settings.params}
        self._client = ProviderClient(_API, settings)
        self._memory = PageMemory(cache_s)

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._memory.close()
        await self._client.__aexit__(kind, error, tb)

    async def read(self, url: str) -> Page:
        """The page under a public URL.

        Raises:
            PageNotFound: it is no address of a page, or its server says that there is none.
            ProviderRefused: Jina refuses us: the key, the quota, the rate.
            ToolFailure: the host is not a public one, Jina failed, or the page has no text.
        """
        if (refused := _PUBLIC.refusal_of_url(url.strip())) is not None:
            kind = PageNotFound if is_misspelt(refused.reason) else ToolFailure
            raise kind(f"this URL is not read: {refused}")
        canonical = canonical_url(url)
        if canonical is None:
            raise PageNotFound(f"this is not the URL of a web page: {url[:200]!r}")
        return await self._memory.read(canonical, lambda: self._read(canonical))

    async def _read(self, url: str) -> Outcome:
        """Ask Jina. A refusal of us is raised, and so not remembered: it says nothing about the page."""
        try:
            answer = await self._client.post_json("", model=_Answer, body={"url": url}, headers=self._headers)
        except ProviderRefused:
            raise
        except ToolFailure as failure:
            return failure
        return _outcome(answer.data, url)


def _outcome(data: _Data, url: str) -> Outcome:
    """The page in an answer, or what its server failed with."""
    if failed := _TARGET_FAILED.search(data.warning or ""):
        if failed[1] in ("404", "410"):
            return PageNotFound(f"there is no such page (HTTP {failed[1]})")
        return ToolFailure(f"the page cannot be had: its server answered HTTP {failed[1]}")
    text = clean(redact(data.content or "")).strip()[:_MAX_CHARS]
    if not text:
        return ToolFailure("the page holds no text that can be read")
    title = " ".join(clean(data.title or "").split())
    return Page(
        url=canonical_url(data.url or "") or url,
        title=title,
        text=f"# {title}\n{text}" if title and not text.startswith("# ") else text,
        published=parse_date(data.published or ""),
        fetched_at=datetime.now(UTC),
        content_hash=hashlib.sha256((data.content or "").encode("utf-8", "surrogatepass")).hexdigest(),
    )
