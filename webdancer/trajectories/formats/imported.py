"""What every import does: reads the entries of a file, names a wrong one by its line, and writes the records, all or none."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Generic, NamedTuple, Protocol, TypeVar

from pydantic import JsonValue

from webdancer.errors import StoreError
from webdancer.records import QA, Record, Trajectory, VerdictReason, VerdictStage
from webdancer.store import write_records
from webdancer.trajectories.formats.conversation import ForeignTurns, RowError, read_turns, rendered_turns
from webdancer.trajectories.funnel import make_verdict
from webdancer.trajectories.rules import check_validity

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)


class ImportCounts(Record):
    """What an import of trajectories brought."""

    num_trajectories: int
    num_same: int
    """Trajectories whose turns are rendered back byte for byte."""
    num_valid: int
    reasons: dict[str, int]
    """Trajectories by the reason of their verdict at validity; `passed` is one of them."""


class QuestionCounts(Record):
    """What an import of questions brought."""

    num_questions: int
    num_duplicates: int
    """Entries that said the same as one before them; they are left out."""


class Entry(NamedTuple):
    """One entry of a file, as JSON."""

    place: str
    """For messages: `FILE, line 3`."""
    number: int
    """From 1."""
    value: JsonValue


class Parse(Protocol[T_co]):
    """Makes one entry of a format; raises RowError where it is none."""

    def __call__(self, row: JsonValue, *, default_id: str) -> T_co: ...


class Placed(NamedTuple, Generic[T]):
    """What was made of an entry, and where that stands."""

    place: str
    made: T


def read_json_rows(file: Path, parse: Parse[T], *, what: str) -> list[Placed[T]]:
    """The entries of a file of JSON lines, or of one JSON array.

    Args:
        what: what an entry is, for messages.

    Raises:
        StoreError: the file cannot be read, or an entry is wrong.
    """
    return parse_rows(_json_values(file, what), parse, stem=file.stem, what=what)


def parse_rows(entries: Iterable[Entry], parse: Parse[T], *, stem: str, what: str) -> list[Placed[T]]:
    """Entries, each made by `parse`; one without an id gets `STEM-NUMBER`.

    Raises:
        StoreError: an entry is wrong.
    """
    rows = []
    for entry in entries:
        try:
            rows.append(Placed(entry.place, parse(entry.value, default_id=f"{stem}-{entry.number:05d}")))
        except RowError as error:
            raise StoreError(f"{entry.place}: no {what}: {error}") from None
    return rows


def _json_values(file: Path, what: str) -> Iterator[Entry]:
    """The JSON values of a file. Blank lines are passed over."""
    try:
        text = file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"cannot read {file}: {error}") from None
    if text.lstrip().startswith("["):
        try:
            values = json.loads(text)
        except ValueError as error:
            raise StoreError(f"{file}: neither JSON lines nor one JSON array: {error}") from None
        yield from (Entry(f"{file}, entry {number}", number, value) for number, value in enumerate(values, 1))
        return
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            place = f"{file}, line {number}"
            try:
                yield Entry(place, number, json.loads(line))
            except ValueError as error:
                raise StoreError(f"{place}: no {what}: {error}") from None


def write_trajectories(rows: Sequence[Placed[ForeignTurns]], out_dir: Path, *, model: str = "unknown") -> ImportCounts:
    """Write `out_dir/trajectories.jsonl` and `out_dir/verdicts.jsonl` (validity).

    Raises:
        StoreError: an `origin` is damaged, or two trajectories have one id; nothing is written then.
    """
    trajectories: list[Trajectory] = []
    places: dict[str, str] = {}
    num_same = 0
    for place, foreign in rows:
        try:
            trajectory = read_turns(foreign, model=model)
        except RowError as error:
            raise StoreError(f"{place}: {error}") from None
        if trajectory.id in places:
            raise StoreError(
                f"{place}: got the id {trajectory.id!r} again, which {places[trajectory.id]} has; expected one each"
            )
        places[trajectory.id] = place
        trajectories.append(trajectory)
        num_same += rendered_turns(trajectory)[: len(foreign.turns)] == list(foreign.turns)
    verdicts = [make_verdict(t, VerdictStage.VALIDITY, check_validity(t)) for t in trajectories]
    write_records(out_dir / "trajectories.jsonl", trajectories)
    write_records(out_dir / "verdicts.jsonl", verdicts)
    reasons = Counter(verdict.reason for verdict in verdicts)
    return ImportCounts(
        num_trajectories=len(trajectories),
        num_same=num_same,
        num_valid=reasons[VerdictReason.PASSED],
        reasons={reason.value: reasons[reason] for reason in sorted(reasons)},
    )


def write_questions(rows: Sequence[Placed[QA]], file: Path) -> QuestionCounts:
    """Write questions, each once.

    Raises:
        StoreError: two that differ have one id; nothing is written then.
    """
    kept: dict[str, tuple[str, QA]] = {}
    for place, qa in rows:
        before, known = kept.setdefault(qa.id, (place, qa))
        if known != qa:
            raise StoreError(
                f"{place}: got the id {qa.id!r} again with other content, which {before} has; expected one question each"
            )
    write_records(file, [qa for _, qa in kept.values()])
    return QuestionCounts(num_questions=len(kept), num_duplicates=len(rows) - len(kept))
