"""Settings as TOML: read from a file, and written to copy from.

An unknown key, a wrong type or a missing file is an error that names the key, the value, the file and the nearest known key.
What is written has every key with explanation, bounds and value, commented out where it has none.
"""

import difflib
import inspect
import json
import textwrap
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from webdancer.config import Config, Settings
from webdancer.errors import ConfigError

_PACKAGED = Path(__file__).parent / "configs"
_WIDTH = 110
_BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}


def packaged_config(name: str) -> Path | None:
    """The file of a configuration that ships with the package (`tiny`, say), None where there is none."""
    path = _PACKAGED / f"{name}.toml"
    return path if path.is_file() else None


def load_config(path: Path) -> Config:
    """Read a TOML file; a bare name without a file of that name is a configuration that ships with the package.

    A file that begins with `extends = "tiny"` (a file beside it, or a name that ships) says only what it changes: its sections
    go over the other file's, setting by setting. A table within a section, such as `[llm.default]`, is taken whole, so that
    no key goes to another endpoint and no price to another model.

    Raises:
        ConfigError: the file is missing or no TOML, a key is unknown, or a value does not fit.
    """
    if path.name == str(path) and not path.is_file():
        path = packaged_config(path.name) or path
    return parse_config(_read_toml(path), source=str(path))


def _read_toml(path: Path, *, extended_by: tuple[Path, ...] = ()) -> dict[str, object]:
    """What the file says, over what the file says that it extends.

    Raises:
        ConfigError: as `load_config`, of all but the file's own keys and values.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        names = [p.name for p in path.parent.glob("*.toml")]
        if not path.suffix and (extended_by or path.name == str(path)):
            names = [p.stem for p in _PACKAGED.glob("*.toml")]
        near = difflib.get_close_matches(path.name, names, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0] if extended_by else path.parent / near[0]}?" if near else ""
        asked = f"{extended_by[-1]} extends it: " if extended_by else ""
        raise ConfigError(f"{asked}cannot read the config file {path}: {error.strerror}{hint}") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: it is not UTF-8 text ({error.reason})") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not valid TOML: {error}") from None
    extends = values.pop("extends", None)
    if extends is None:
        return values
    if not isinstance(extends, str):
        raise ConfigError(f"{path}: 'extends': got {extends!r}, expected a file, or the name of one that ships")
    base = path.parent / extends
    if not base.is_file():
        base = packaged_config(extends) or base
    chain = (*extended_by, path)
    if any(base.resolve() == other.resolve() for other in chain):
        raise ConfigError(f"{path}: 'extends': {extends!r} leads back to {base}")
    merged = _read_toml(base, extended_by=chain)
    parse_config(merged, source=str(base))  # its mistakes are its own
    for name, value in values.items():
        old = merged.get(name)
        merged[name] = {**old, **value} if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def parse_config(values: dict[str, object], *, source: str) -> Config:
    """Check settings that were read from `source`.

    Raises:
        ConfigError: all problems, a line each, every one with key, value, file and the nearest known key.
    """
    try:
        # Strict checking of Python values would refuse TOML's arrays for tuples; strict JSON takes them, and nothing else.
        return Config.model_validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        lines = []
        for problem in error.errors(include_url=False):
            keys = [str(part) for part in problem["loc"]]
            key = ".".join(keys)
            if problem["type"] == "extra_forbidden":
                known = [*_known_keys(keys[:-1]), *([] if keys[1:] else ["extends"])]
                near = difflib.get_close_matches(keys[-1], known, n=1, cutoff=0.0)
                hint = f"nearest known key: {near[0]!r}"
                if keys[-1] == "extends":
                    hint = "it must stand before the first [section]"
                lines.append(f"{source}: unknown key {key!r} (value {problem['input']!r}); {hint}")
            else:
                lines.append(f"{source}: {key!r}: got {problem['input']!r}: {problem['msg']}")
        raise ConfigError("\n".join(lines)) from None


def _known_keys(path: list[str]) -> list[str]:
    """Names of the settings in the section at `path`."""
    section: type[BaseModel] = Config
    for name in path:
        if name not in section.model_fields:
            continue  # the name of an entry in a table of sections
        annotation = section.model_fields[name].annotation
        candidates = [annotation, *getattr(annotation, "__args__", ())]
        section = next(c for c in candidates if isinstance(c, type) and issubclass(c, BaseModel))
    return list(section.model_fields)


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
        if isinstance(value, dict) and _is_section(field):
            yield from _comment(field.description or "")
            tables += [(f"{path}.{name}.{json.dumps(key)}".lstrip("."), entry) for key, entry in value.items()]
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
