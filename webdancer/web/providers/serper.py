"""Google's results through serper.dev: POST /search, key in X-API-KEY.

The documentation lies behind a log-in. Wire format as two clients have it:
https://reference.langchain.com/python/langchain-community/utilities/google_serper/GoogleSerperAPIWrapper (request, `tbs`) and
https://docs.rs/crate/fetchium-core/1.0.0/source/src/search/serper.rs (`organic`). A wrong key is answered with 403
`{"message": "Unauthorized.", "statusCode": 403}` (github.com/crewAIInc/crewAI/issues/633), an account without money, as users
report, with 400 and "Not enough credits". Google no longer gives more than ten results a page: more are asked for by `page`.
"""

from typing import ClassVar

from pydantic import BaseModel

from webdancer.web.providers.attempts import RefusalReason
from webdancer.web.providers.base import ApiSearch, PageRequest
from webdancer.web.providers.hits import RawHit, Text
from webdancer.web.providers.http import ProviderApi, Refusal, usual_refusal
from webdancer.web.providers.text import typed_params


class _Organic(BaseModel):
    title: Text = ""
    link: Text = ""
    snippet: Text = ""
    date: Text = ""


class _Answer(BaseModel):
    organic: list[_Organic]


def _refusal(status: int, said: str) -> Refusal | None:
    if status == 400 and "credits" in said.lower():
        return Refusal(RefusalReason.QUOTA)
    return usual_refusal(status, said)


class SerperSearch(ApiSearch):
    """A `SearchProvider` over serper.dev."""

    page_size: ClassVar[int] = 10
    max_pages: ClassVar[int] = 10
    api: ClassVar[ProviderApi] = ProviderApi(
        name="serper",
        base_url="https://google.serper.dev",
        key_env="SERPER_API_KEY",
        key_header="X-API-KEY",
        key_prefix="",
        sign_up="https://serper.dev",
        refusal=_refusal,
    )

    async def page(self, request: PageRequest) -> list[RawHit]:
        body = {**typed_params(self._settings.params), "q": request.query, "num": request.num_results}
        if request.page:
            body["page"] = request.page + 1
        if request.year is not None:
            body["tbs"] = f"cdr:1,cd_min:1/1/{request.year},cd_max:12/31/{request.year}"
        answer = await self._client.post_json("/search", model=_Answer, body=body)
        return [RawHit(hit.title, hit.link, hit.snippet, (hit.date,)) for hit in answer.organic]
