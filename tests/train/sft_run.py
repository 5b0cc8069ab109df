"""Runs one small training as a program, so that tests can kill it or launch it in several processes.

python sft_run.py BASE OUT DTYPE
"""

import sys
from pathlib import Path

from rl_toys import toy_tokenizer
from sft_toys import BF16, FP32, SETTINGS, toy_examples

from webdancer.train.sft import SftResult, train_on_examples


def run(base: Path, out: Path, dtype: str) -> SftResult:
    return train_on_examples(
        toy_examples(21),
        base=base,
        tokenizer=toy_tokenizer(),
        out=out,
        settings=SETTINGS.model_copy(update={"learning_rate": 1e-3}),
        policy=FP32 if dtype == "float32" else BF16,
        seed=2,
    )


if __name__ == "__main__":
    result = run(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
    print(f"done {result.num_steps}")
