"""Keys of endpoints and search engines: read from the environment or a file, and kept out of everything that is written.

A key is never part of the settings, so no run folder holds one. Servers repeat keys in their error messages, though: `redact`
takes every key that this process has read out of a text, and each message of a client goes through it.
"""

import os
from pathlib import Path

from webdancer.errors import ConfigError

_MIN_REDACTED_CHARS = 6
"""Shorter values (`none`, `test`) may be words of a text."""
_known: set[str] = set()


def read_key(*, env: str | None, file: str | None, what: str) -> str | None:
    """The key that a section of the settings names; None where it names none.

    Args:
        env: name of an environment variable.
        file: a file that holds nothing but the key; it goes before the variable.
        what: says in messages whose key it is.

    Raises:
        ConfigError: what is named is missing, empty, or cannot be a key.
    """
    if file is not None:
        source = f"{what}: api_key_file names {file!r}"
        try:
            key = Path(file).expanduser().read_text(encoding="utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"{source}, which cannot be read ({error})") from None
        missing = "which is empty; write the key into it"
    elif env is not None:
        source = f"{what}: api_key_env names the environment variable {env!r}"
        key = os.environ.get(env, "").strip()
        missing = "which is not set; export it before you run this command"
    else:
        return None
    if not key:
        raise ConfigError(f"{source}, {missing}")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConfigError(f"{source}, whose value cannot be a key: it holds odd characters")
    if len(key) >= _MIN_REDACTED_CHARS:
        _known.add(key)
    return key


def redact(text: str) -> str:
    """The text with every key that was read replaced by `[key]`."""
    for key in _known:
        text = text.replace(key, "[key]")
    return text
