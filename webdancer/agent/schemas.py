"""The two tools' calls: what the model is told of them, and what a call must look like (paper, section 3.1).

The schemas are those of the authors' release: `search` takes an array of queries, `visit` one or several URLs and a goal.
Departures: the paper's optional `filter_year` is offered too, and the paper's `url_link` is taken as an alias of `url`.
"""

from typing import NamedTuple

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


class ArgumentError(ValueError):
    """The arguments of a call do not fit its tool; the message says what was got and what was expected."""


class UnknownToolError(ValueError):
    """There is no tool of that name."""


def check_call(name: str, arguments: dict[str, JsonValue]) -> SearchCall | VisitCall:
    """The call, checked.

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
        case _:
            known = ", ".join(str(schema["name"]) for schema in TOOL_SCHEMAS)
            raise UnknownToolError(f"there is no tool {name[:80]!r}; the tools are: {known}")


def _check_keys(arguments: dict[str, JsonValue], *, required: tuple[str, ...], optional: tuple[str, ...]) -> None:
    """Raise where a required argument is missing or an unknown one is given."""
    missing = [key for key in required if key not in arguments]
    unknown = [key for key in arguments if key not in (*required, *optional)]
    if missing:
        raise ArgumentError(f"the argument {missing[0]!r} is missing")
    if unknown:
        raise ArgumentError(f"got the argument {unknown[0][:80]!r}, expected only {', '.join((*required, *optional))}")


def _strings(key: str, value: JsonValue) -> tuple[str, ...]:
    """One string or a list of them, as a tuple of stripped strings, none empty, each once."""
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
