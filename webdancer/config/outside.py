"""Settings of what a run consumes outside: its budget, its forecast, and the tools of MCP servers."""

from pydantic import Field

from webdancer.config.base import Settings


class BudgetSettings(Settings):
    """What a run may consume, over all its stages and attempts. A stage that reaches a limit stops; raise the limit, and the same
    command goes on."""

    max_money: float | None = Field(None, ge=0)
    """In the unit of the prices (`price_*` of endpoints and search engines)."""
    max_llm_calls: int | None = Field(None, ge=0)
    max_llm_tokens: int | None = Field(None, ge=0)
    """Prompt and completion tokens together."""
    max_search_calls: int | None = Field(None, ge=0)
    max_page_calls: int | None = Field(None, ge=0)


class ForecastSettings(Settings):
    """What `webdancer estimate` supposes where nothing has been measured yet."""

    share_kept: float = Field(0.5, gt=0, le=1)
    """Questions that pass all checks, of those that the writer proposes."""
    attempts_per_question: float = Field(2.0, gt=0)
    turns_per_attempt: float = Field(4.0, gt=0)
    visits_per_attempt: float = Field(1.5, ge=0)


class McpServerSettings(Settings):
    """An MCP server whose tools the agent may call."""

    command: tuple[str, ...] = ()
    """Program and arguments of a server that speaks over stdin and stdout."""
    env: tuple[str, ...] = ()
    """Names of environment variables that the program is handed, besides PATH and the like: its key, say."""
    url: str | None = None
    """Address of a server that speaks over HTTP, in place of `command`."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the bearer token of `url`."""
    tools: tuple[str, ...] = ()
    """Names of the tools that are offered to the agent; empty: all."""
