"""The tools' calls: what the model is told of them, and what a call must look like (paper, section 3.1).

The schemas are those of the authors' release: `search` takes an array of queries, `visit` one or several URLs and a goal.
Departures: the paper's optional `filter_year` is offered too, the paper's `url_link` is taken as an alias of `url`, and an
agent may be given further tools.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple, Protocol, TypeAlias, overload

from pydantic import JsonValue

TOOL_SCHEMAS: tuple[dict[str, JsonValue], ...] = (
    {
        "name": "search",
        "description": "Searches the web. Give one or several queries; each brings its ten best pages with title, link, "
        "date and snippet.",
        "parameters": {
            "type": "object",
            "properties": {
                "query": {"type": "array", "items": {"type": "string"}, "description": "The queries."},
                "filter_year": {"type": "integer", "description": "Only pages published in this year."},
            },
            "required": ["query"],
        },
    },
    {
        "name": "visit",
        "description": "Reads one or several web pages and reports what they say about a goal.",
        "parameters": {
            "type": "object",
            "properties": {
                "url": {"type": ["string", "array"], "items": {"type": "string"}, "description": "The page or pages."},
                "goal": {"type": "string", "description": "What you want to learn from the page."},
            },
            "required": ["url", "goal"],
        },
    },
)


class SearchCall(NamedTuple):
    """A checked call of `search`."""

    queries: tuple[str, ...]
    year: int | None


class VisitCall(NamedTuple):
    """A checked call of `visit`."""

    urls: tuple[str, ...]
    goal: str


class ExtraCall(NamedTuple):
    """A checked call of another tool."""

    name: str
    arguments: dict[str, JsonValue]


class ArgumentError(ValueError):
    """The arguments of a call do not fit its tool; the message says what was got and what was expected."""


class UnknownToolError(ValueError):
    """There is no tool of that name."""


class ExtraTool(Protocol):
    """A tool besides search and visit."""

    @property
    def schema(self) -> dict[str, JsonValue]:
        """What the model is told of it: `name`, `description` and `parameters` (a JSON schema)."""
        ...

    def check(self, arguments: dict[str, JsonValue]) -> None:
        """Look at the arguments of a call.

        Raises:
            ArgumentError: they do not fit the tool.
        """
        ...

    async def call(self, arguments: dict[str, JsonValue]) -> str:
        """What a checked call brings, as the tool says it.

        Raises:
            ToolFailure: the tool failed.
        """
        ...


ExtraTools: TypeAlias = Mapping[str, ExtraTool]
"""Tools by the names under which the model calls them."""
NO_EXTRA: ExtraTools = MappingProxyType({})


@overload
def check_call(name: str, arguments: dict[str, JsonValue]) -> SearchCall | VisitCall: ...
@overload
def check_call(name: str, arguments: dict[str, JsonValue], extra: ExtraTools) -> SearchCall | VisitCall | ExtraCall: ...


def check_call(
    name: str, arguments: dict[str, JsonValue], extra: ExtraTools = NO_EXTRA
) -> SearchCall | VisitCall | ExtraCall:
    """The call, checked.

    Args:
        extra: the tools that there are besides search and visit.

    Raises:
        UnknownToolError: there is no tool of that name.
        ArgumentError: the arguments do not fit the tool.
    """
    match name:
        case "search":
            _check_keys(arguments, required=("query",), optional=("filter_year",))
            return SearchCall(_strings("query", arguments["query"]), _year(arguments.get("filter_year")))
        case "visit":
            if "url_link" in arguments and "url" not in arguments:
                arguments = {"url" if key == "url_link" else key: value for key, value in arguments.items()}
            _check_keys(arguments, required=("url", "goal"), optional=())
            goal = arguments["goal"]
            if not isinstance(goal, str) or not goal.strip():
                raise ArgumentError(f"goal: got {goal!r}, expected a text that is not empty")
            return VisitCall(_strings("url", arguments["url"]), goal.strip())
        case _ if name in extra:
            extra[name].check(arguments)
            return ExtraCall(name, arguments)
        case _:
            known = ", ".join([*(str(schema["name"]) for schema in TOOL_SCHEMAS), *extra])
            raise UnknownToolError(f"there is no tool {name[:80]!r}; the tools are: {known}")


def _check_keys(arguments: dict[str, JsonValue], *, required: tuple[str, ...], optional: tuple[str, ...]) -> None:
    """Raise where a required argument is missing or an unknown one is given."""
    if tuple(arguments) == required:  # as nearly always
        return
    missing = [key for key in required if key not in arguments]
    unknown = [key for key in arguments if key not in (*required, *optional)]
    if missing:
        raise ArgumentError(f"the argument {missing[0]!r} is missing")
    if unknown:
        raise ArgumentError(f"got the argument {unknown[0][:80]!r}, expected only {', '.join((*required, *optional))}")


def _strings(key: str, value: JsonValue) -> tuple[str, ...]:
    """One string or a list of them, as a tuple of stripped strings, none empty, each once."""
    if isinstance(value, str) and (text := value.strip()):
        return (text,)
    items = value if isinstance(value, list) else [value]
    texts = [item.strip() for item in items if isinstance(item, str)]
    if len(texts) < len(items) or not texts or not all(texts):
        raise ArgumentError(f"{key}: got {str(value)[:80]!r}, expected one or several texts that are not empty")
    return tuple(dict.fromkeys(texts))


def _year(value: JsonValue) -> int | None:
    """A year given as a number or in four digits; None where it is absent or null."""
    if value is None:
        return None
    if isinstance(value, str) and len(value) == 4 and value.isascii() and value.isdigit():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or not 1000 <= value <= 9999:
        raise ArgumentError(f"filter_year: got {str(value)[:80]!r}, expected a year in four digits")
    return value
