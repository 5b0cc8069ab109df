"""A SearXNG instance of one's own: GET /search?format=json, without a key.

Wire format: https://docs.searxng.org/dev/search_api. JSON must be enabled (`search.formats` in settings.yml,
https://docs.searxng.org/admin/settings/settings_search.html); otherwise, as on most public instances, the answer is 403. A
page holds as many results as the engines behind it bring. SearXNG knows only ranges that end today (`time_range`), so a year
is added to the query, and results that are dated outside of it are dropped. An instance behind a password takes it in
`base_url`, one that wants a token in `api_key_env`.
"""

from typing import ClassVar

from pydantic import BaseModel, JsonValue

from webdancer.web.protocol import ToolFailure
from webdancer.web.providers.attempts import RefusalReason, shortened
from webdancer.web.providers.base import ApiSearch, PageRequest
from webdancer.web.providers.hits import RawHit, Text
from webdancer.web.providers.http import ProviderApi, Refusal, usual_refusal


class _Result(BaseModel):
    title: Text = ""
    url: Text = ""
    content: Text = ""
    publishedDate: Text = ""


class _Answer(BaseModel):
    results: list[_Result]
    unresponsive_engines: list[JsonValue] = []
    """Pairs of an engine and its reason."""


def _refusal(status: int, said: str) -> Refusal | None:
    if status == 403:
        return Refusal(RefusalReason.SETUP, "enable JSON in the instance's settings.yml: search: formats: [html, json]")
    return usual_refusal(status, said)


class SearxngSearch(ApiSearch):
    """A `SearchProvider` over a SearXNG instance."""

    page_size: ClassVar[int] = 10
    max_pages: ClassVar[int] = 10
    api: ClassVar[ProviderApi] = ProviderApi(
        name="searxng",
        base_url=None,
        key_env=None,
        needs_key=False,
        sign_up="set it to the URL of an instance of yours, as in 'http://localhost:8080'",
        refusal=_refusal,
    )

    async def page(self, request: PageRequest) -> list[RawHit]:
        query, year = request.query, request.year
        if year is not None and str(year) not in query:
            query = f"{query} {year}"
        params = {**self._settings.params, "q": query, "format": "json", "pageno": str(request.page + 1)}
        answer = await self._client.get_json("/search", model=_Answer, params=params)
        if not answer.results and answer.unresponsive_engines and not request.page:
            silent = "; ".join(
                ": ".join(map(str, engine)) if isinstance(engine, list) else str(engine)
                for engine in answer.unresponsive_engines
            )
            raise ToolFailure(
                f"{self._client.where('/search')}: no results, and these engines did not answer: {shortened(silent)}; "
                "try again later, or enable others in the instance's settings.yml"
            )
        return [RawHit(hit.title, hit.url, hit.content, (hit.publishedDate,)) for hit in answer.results]
