"""Numbers of a training: one JSON line per optimizer step in `metrics.jsonl`, and the same curves for TensorBoard."""

import json
from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from webdancer.store import write_atomic


class MetricsLog:
    """Writes `out/metrics.jsonl` and `out/tensorboard/`.

    Args:
        resume_step: the step that training goes on from; lines of later steps, which are done again, are cut off.
    """

    def __init__(self, out: Path, *, resume_step: int = 0) -> None:
        path = out / "metrics.jsonl"
        out.mkdir(parents=True, exist_ok=True)
        write_atomic(path, "".join(f"{line}\n" for line in _lines_until(path, resume_step)))
        self._file = path.open("a", encoding="utf-8")
        self._board = SummaryWriter(str(out / "tensorboard"), purge_step=resume_step + 1)

    def write(self, step: int, values: Mapping[str, float | int | None]) -> None:
        """Append one step's numbers; None is written as null and left out of the curves."""
        self._file.write(json.dumps({"step": step, **values}) + "\n")
        self._file.flush()
        for name, value in values.items():
            if value is not None:
                self._board.add_scalar(name, value, step)

    def close(self) -> None:
        """Close both."""
        self._file.close()
        self._board.close()


def _lines_until(path: Path, step: int) -> list[str]:
    """Whole lines up to `step`; a torn last line is left out."""
    if not path.exists():
        return []
    lines = [line for line in path.read_text(encoding="utf-8").split("\n")[:-1] if line]
    return [line for line in lines if json.loads(line)["step"] <= step]
