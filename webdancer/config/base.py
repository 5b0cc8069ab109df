"""The base of all sections of the settings."""

from pydantic import BaseModel, ConfigDict


class Settings(BaseModel):
    """Base of all sections: frozen, no unknown keys, no silent conversions between types."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
