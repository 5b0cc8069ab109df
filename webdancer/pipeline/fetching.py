"""One page of the live web, as the agent's reader would see it."""

from webdancer.config import Config
from webdancer.records import Page
from webdancer.web.live import LiveReader

_GOAL_CHARS = 4000
"""Characters of the passages that are shown for a goal."""


async def fetch_page(url: str, config: Config, *, goal: str | None = None) -> Page:
    """Fetch and read one page under the limits of `[crawl]`.

    Args:
        goal: only the passages of the text that are nearest to it are kept.

    Raises:
        PageNotFound: it is no address of a page, or its server says that there is none.
        ToolFailure: it may not be asked, could not be fetched, or has no text.
    """
    from webdancer.agent.passages import choose_passages

    async with LiveReader(config.crawl, cache_s=0.0) as reader:
        page = await reader.read(url)
    if goal is None:
        return page
    return page.model_copy(update={"text": choose_passages(page.text, goal, max_chars=_GOAL_CHARS)})
