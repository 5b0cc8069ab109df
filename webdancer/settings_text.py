"""All settings as TOML to copy from: every key with explanation, bounds and value, commented out where it has none."""

import inspect
import json
import textwrap
from collections.abc import Iterator
from typing import get_args

from pydantic.fields import FieldInfo

from webdancer.config import Config, Settings

_WIDTH = 110
_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def settings_toml(config: Config) -> str:
    """A TOML text that `load_config` reads back as the same settings."""
    return "\n".join(_section(config, "")) + "\n"


def _section(section: Settings, path: str) -> Iterator[str]:
    tables: list[tuple[str, Settings]] = []
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        if isinstance(value, Settings):
            tables.append((f"{path}.{name}".lstrip("."), value))
            continue
        yield from _comment(field.description or "")
        if value is not None:
            yield f"{name} = {_toml(value)}" + _bounds(field)
        elif _is_section(field):
            yield f"# [{path}.{name}] may be a section of its own"
        else:
            yield f"# {name} =" + _bounds(field)
    for name, table in tables:
        yield ""
        yield f"[{name}]"
        yield from _comment(inspect.getdoc(type(table)) or "")
        yield from _section(table, name)


def _is_section(field: FieldInfo) -> bool:
    return any(isinstance(part, type) and issubclass(part, Settings) for part in get_args(field.annotation))


def _bounds(field: FieldInfo) -> str:
    found = [f"{sign} {getattr(m, name)}" for m in field.metadata for name, sign in _BOUNDS.items() if hasattr(m, name)]
    return f"  # {', '.join(found)}" if found else ""


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in textwrap.wrap(" ".join(text.split()), _WIDTH)]


def _toml(value: object) -> str:
    """JSON's texts, numbers, truth values and arrays are TOML's too; only its objects are not."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{json.dumps(key)} = {_toml(part)}" for key, part in value.items()) + "}"
    return json.dumps(value, ensure_ascii=False, default=str)
