"""Brave's own index: GET /res/v1/web/search, key in X-Subscription-Token.

Wire format: https://api-dashboard.search.brave.com/api-reference/web/search/get (`count` up to 20; `offset` counts pages, up
to 9; queries up to 400 characters and 50 words; `freshness` takes a range of days) and, for the answer,
https://github.com/captalphabet/BraveApi (docs/WebResponseSpec.md; `web` is missing where nothing was found). A wrong key is
answered with 422 and the code SUBSCRIPTION_TOKEN_INVALID (github.com/nearai/ironclaw/issues/2780), too many requests with
429 and RATE_LIMITED (github.com/egoist/chatwise-releases/issues/1296).
"""

from typing import ClassVar

from pydantic import BaseModel

from webdancer.web.protocol import ToolFailure
from webdancer.web.providers.attempts import RefusalReason
from webdancer.web.providers.base import ApiSearch, PageRequest
from webdancer.web.providers.hits import RawHit, Text
from webdancer.web.providers.http import ProviderApi, Refusal, usual_refusal

_MAX_QUERY_CHARS = 400
_MAX_QUERY_WORDS = 50


class _Result(BaseModel):
    title: Text = ""
    url: Text = ""
    description: Text = ""
    page_age: Text = ""
    """ISO."""
    age: Text = ""
    """In words, as "March 3, 2021"."""


class _Web(BaseModel):
    results: list[_Result]


class _Answer(BaseModel):
    type: str
    web: _Web | None = None


def _refusal(status: int, said: str) -> Refusal | None:
    if status == 422 and "SUBSCRIPTION_TOKEN" in said:
        return Refusal(RefusalReason.KEY)
    if status == 429 and ("QUOTA" in said or "USAGE_LIMIT" in said):
        return Refusal(RefusalReason.QUOTA)
    return usual_refusal(status, said)


class BraveSearch(ApiSearch):
    """A `SearchProvider` over Brave Search."""

    page_size: ClassVar[int] = 20
    max_pages: ClassVar[int] = 10
    api: ClassVar[ProviderApi] = ProviderApi(
        name="brave",
        base_url="https://api.search.brave.com",
        key_env="BRAVE_API_KEY",
        key_header="X-Subscription-Token",
        key_prefix="",
        sign_up="https://brave.com/search/api",
        refusal=_refusal,
    )

    async def page(self, request: PageRequest) -> list[RawHit]:
        query = request.query
        if len(query) > _MAX_QUERY_CHARS or len(query.split()) > _MAX_QUERY_WORDS:
            raise ToolFailure(
                f"brave: got a query of {len(query)} characters and {len(query.split())} words, expected at most "
                f"{_MAX_QUERY_CHARS} and {_MAX_QUERY_WORDS}; shorten it"
            )
        params = {"text_decorations": "false", "result_filter": "web", **self._settings.params}
        params |= {"q": query, "count": str(request.num_results), "offset": str(request.page)}
        if request.year is not None:
            params["freshness"] = f"{request.year}-01-01to{request.year}-12-31"
        answer = await self._client.get_json("/res/v1/web/search", model=_Answer, params=params)
        found = answer.web.results if answer.web is not None else []
        return [RawHit(hit.title, hit.url, hit.description, (hit.page_age, hit.age)) for hit in found]
