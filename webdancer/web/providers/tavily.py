"""Tavily's search for agents: POST /search, key as Bearer token.

Wire format: https://docs.tavily.com/api-reference/endpoint/search and, for errors, Tavily's own client,
https://github.com/tavily-ai/tavily-python (tavily/tavily.py): reasons come as `{"detail": {"error": "…"}}`; 432 and 433 mean that
the plan's limit or the pay-as-you-go limit is reached. One request brings up to 20 results; there are no further pages.
`published_date` comes with news only.
"""

from typing import ClassVar

from pydantic import BaseModel

from webdancer.web.providers.attempts import RefusalReason
from webdancer.web.providers.base import ApiSearch, PageRequest
from webdancer.web.providers.hits import RawHit, Text
from webdancer.web.providers.http import ProviderApi, Refusal, usual_refusal
from webdancer.web.providers.text import typed_params


class _Result(BaseModel):
    title: Text = ""
    url: Text = ""
    content: Text = ""
    published_date: Text = ""


class _Answer(BaseModel):
    results: list[_Result]


def _refusal(status: int, said: str) -> Refusal | None:
    return Refusal(RefusalReason.QUOTA) if status in (432, 433) else usual_refusal(status, said)


class TavilySearch(ApiSearch):
    """A `SearchProvider` over Tavily."""

    page_size: ClassVar[int] = 20
    max_pages: ClassVar[int] = 1
    api: ClassVar[ProviderApi] = ProviderApi(
        name="tavily",
        base_url="https://api.tavily.com",
        key_env="TAVILY_API_KEY",
        sign_up="https://app.tavily.com",
        refusal=_refusal,
    )

    async def page(self, request: PageRequest) -> list[RawHit]:
        body = {**typed_params(self._settings.params), "query": request.query, "max_results": request.num_results}
        if request.year is not None:
            body |= {"start_date": f"{request.year}-01-01", "end_date": f"{request.year}-12-31"}
        answer = await self._client.post_json("/search", model=_Answer, body=body)
        return [RawHit(hit.title, hit.url, hit.content, (hit.published_date,)) for hit in answer.results]
