"""Tools for making one region of the fact graph: adding facts, picking holders, spreading list sizes."""

import random
from collections.abc import Sequence
from datetime import date, timedelta

from webdancer.world.graph import Entity, Fact, Region, date_text
from webdancer.world.names import Names
from webdancer.world.plan import Plan

NOW = 2024
"""The last year of which the web knows anything."""


class Builder:
    """A region in the making. `rng` is the region's own; the same seed and region give the same graph."""

    def __init__(self, names: Names, plan: Plan, region: int) -> None:
        self.names, self.plan = names, plan
        self.region = Region(region)
        self.rng = random.Random(f"facts/{names.seed}/{region}")

    def of(self, kind: str) -> list[Entity]:
        """All entities of the type so far."""
        return self.region.of(kind)

    def entity(self, kind: str, place: int, *, role: str = "") -> Entity:
        """Make the region's entity number `place` of its type."""
        number = self.plan.first(kind, self.region.number) + place
        name = self.names.name(kind, number, role if kind == "company" else "")
        entity = Entity(kind, number, name, name, self.region.number, role=role)
        self.region.by_type.setdefault(kind, []).append(entity)
        self.region.by_key[entity.key] = entity
        return entity

    def link(
        self, subject: Entity, relation: str, object: Entity | None, *, year: int | None = None, current: bool = True
    ) -> None:
        """State a fact about two entities; no object, no fact."""
        if object is None:
            return
        fact = Fact(subject, relation, object, object.name, year, current)
        subject.facts.setdefault(relation, []).append(fact)
        object.inverse.setdefault(relation, []).append(fact)

    def value(
        self, subject: Entity, relation: str, value: str | int | date, *, year: int | None = None, current: bool = True
    ) -> None:
        """State a fact whose object is a number, a date or a word."""
        text = date_text(value) if isinstance(value, date) else str(value)
        subject.facts.setdefault(relation, []).append(Fact(subject, relation, None, text, year, current))

    def pick(self, pool: Sequence[Entity]) -> Entity | None:
        """A random entity of the pool, or None where it is empty."""
        return pool[self.rng.randrange(len(pool))] if pool else None

    def holders(self, pool: Sequence[Entity], num_items: int, low: int, high: int) -> list[Entity]:
        """One holder for each of `num_items` items, so that the holders' shares are spread evenly over low … high.

        Where the pool is too small for that, the shares grow alike.
        """
        if not pool or num_items == 0:
            return []
        order = list(pool)
        self.rng.shuffle(order)
        quotas: list[int] = []
        while sum(quotas) < num_items and len(quotas) < len(order):
            quotas.append(self.rng.randint(low, high))
        growth = max(1.0, num_items / sum(quotas))
        slots = [
            holder for holder, quota in zip(order, quotas, strict=False) for _ in range(max(1, round(quota * growth)))
        ]
        while len(slots) < num_items:
            slots.append(self.rng.choice(order[: len(quotas)]))
        if sum(quotas) > num_items and len(quotas) > 1:
            surplus = len(slots) - num_items
            slots = slots[: len(slots) - surplus]
        self.rng.shuffle(slots)
        return slots[:num_items]

    def year(self, low: int, high: int) -> int:
        """A random year, both ends included; `high` counts where the range is empty."""
        return self.rng.randint(min(low, high), high)

    def day(self, year: int) -> date:
        """A random day of the year."""
        return date(year, 1, 1) + timedelta(days=self.rng.randrange(365))


def active(person: Entity, year: int, *, age: int = 22, oldest: int = 80) -> bool:
    """Whether a person was of working age and alive in the year before and the year itself."""
    return person.since.year + age <= year < min(person.since.year + oldest, person.until.year)


def last_active(person: Entity, *, oldest: int = 75) -> int:
    """The last year to which a work of this person may be dated."""
    return min(NOW, person.since.year + oldest, person.until.year - 1)
