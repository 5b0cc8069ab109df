"""Logical forms: what a question of controlled English means.

A question is a tree of named things and of steps from one thing to the next. The writer builds such a tree, the grammar
(`question.py`) turns it into English and back, and the searcher works it off from the inside out. The paper's question
types (section 2) are the tree's roots: `Lookup` over `Lookup` is MULTI-HOP, `Count` is COUNT, `Intersect` is INTERSECTION.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace


@dataclass(frozen=True, slots=True)
class Name:
    """Something that is called by its name."""

    text: str
    hint: str = ""
    """The describing word before the name ("architect" in "the architect Ana Velk"), or nothing."""


@dataclass(frozen=True, slots=True)
class Lookup:
    """The one value that a functional relation gives for `of`."""

    relation: str
    """An id of `relations.RELATIONS`."""
    of: "Expr"


@dataclass(frozen=True, slots=True)
class ListOf:
    """The members of the complete list of `kind` that stands on the page of `of`."""

    kind: str
    """An id of `relations.LISTS`."""
    of: "Expr"


@dataclass(frozen=True, slots=True)
class Count:
    """How many members a list has, where given only those of the years from `first` to `last`, both included."""

    items: ListOf
    first: int | None = None
    last: int | None = None


@dataclass(frozen=True, slots=True)
class Intersect:
    """The one thing of type `member` that stands in both lists."""

    member: str
    left: ListOf
    right: ListOf


Expr = Name | Lookup
LogicalForm = Lookup | Count | Intersect


def names_in(form: LogicalForm | Expr) -> Iterator[Name]:
    """The named things of a form, from left to right."""
    if isinstance(form, Name):
        yield form
    elif isinstance(form, Lookup):
        yield from names_in(form.of)
    elif isinstance(form, Count):
        yield from names_in(form.items.of)
    else:
        yield from names_in(form.left.of)
        yield from names_in(form.right.of)


def depth(form: LogicalForm | Expr) -> int:
    """Number of steps on the longest way from a name to the root."""
    if isinstance(form, Name):
        return 0
    if isinstance(form, Lookup):
        return 1 + depth(form.of)
    if isinstance(form, Count):
        return 1 + depth(form.items.of)
    return 1 + max(depth(form.left.of), depth(form.right.of))


def substitute(form: LogicalForm, name: str, expr: Expr) -> LogicalForm:
    """`form` with `expr` in the place of every thing called `name`."""

    def walk(node: Expr) -> Expr:
        if isinstance(node, Name):
            return expr if node.text == name else node
        return replace(node, of=walk(node.of))

    if isinstance(form, Lookup):
        return replace(form, of=walk(form.of))
    if isinstance(form, Count):
        return replace(form, items=replace(form.items, of=walk(form.items.of)))
    left, right = (replace(side, of=walk(side.of)) for side in (form.left, form.right))
    return replace(form, left=left, right=right)
