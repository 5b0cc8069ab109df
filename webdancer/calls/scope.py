"""Names the piece of work that a call belongs to: a stage, an item of it, an episode.

Work runs side by side, so the order of all calls of a run is chance; the order of the calls of one episode is not. A recording
therefore knows a call by its scope, its request, and how often that request was made before in that scope. The part is coarser:
what the ledger adds up by within a stage (a kind of question, an evaluated system).
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_scope: ContextVar[str] = ContextVar("call_scope", default="")
_part: ContextVar[str] = ContextVar("call_part", default="")


@contextmanager
def call_scope(name: str, *, part: str | None = None) -> Iterator[None]:
    """Calls inside belong to `name`, within the scope around it, and to `part`. Tasks that are started inside inherit both."""
    scope = _scope.set(f"{_scope.get()}/{name}")
    outer = _part.set(_part.get() if part is None else part)
    try:
        yield
    finally:
        _part.reset(outer)
        _scope.reset(scope)


def current_scope() -> str:
    """The scope of the call that is being made, such as `/sample/q17-a2`; empty outside of all."""
    return _scope.get()


def current_part() -> str:
    """The part of the stage that the call belongs to; empty where a stage has none."""
    return _part.get()
