"""The two sides of `benchmarks/train.py`; each job runs in a process of its own, with threads set by the caller.

    python -m benchmarks.train_sides JOB.json RESULT.json

A job names one of the functions in `SIDES` and its arguments. Where a run folder is needed, its manifest gives the settings of
policy, agent, SFT and RL.
"""

import json
import sys
import warnings
from pathlib import Path

import torch

from benchmarks.train_dapo_sides import dapo_ours, dapo_trl
from benchmarks.train_sft_sides import make_checkpoint, sft_ours, sft_trl

SIDES = {side.__name__: side for side in (sft_ours, sft_trl, make_checkpoint, dapo_ours, dapo_trl)}


def main() -> None:
    warnings.filterwarnings("ignore")
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    result = SIDES[job.pop("side")](**job)
    result["threads"] = torch.get_num_threads()
    Path(sys.argv[2]).write_text(json.dumps(result), encoding="utf-8")


if __name__ == "__main__":
    main()
