"""What all sides of `benchmarks/train.py` share: clocks, the run's settings, how the peer is set up."""

import time
from pathlib import Path
from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

from webdancer.config import Config
from webdancer.pipeline.run_folder import read_manifest

Json = dict[str, Any]
NEVER = 1_000_000
"""Steps between two saves: more than there are."""
SEED = 0


class Clock(NamedTuple):
    """Both clocks of the process, seconds."""

    wall: float
    cpu: float

    @classmethod
    def now(cls) -> "Clock":
        return cls(time.perf_counter(), time.process_time())

    def since(self, earlier: "Clock") -> "Clock":
        return Clock(self.wall - earlier.wall, self.cpu - earlier.cpu)


def config_of(run: Path) -> Config:
    manifest = read_manifest(run)
    if manifest is None:
        raise SystemExit(f"{run} holds no run; make one with `webdancer run`, up to the stage `sample`")
    return manifest.config


def open_peer_model(path: Path, setting: Json) -> PreTrainedModel:
    """The peer's model: float32 weights, under bfloat16 autocast or not, or bfloat16 weights."""
    dtype = torch.bfloat16 if setting["precision"] == "bf16 weights" else torch.float32
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        path, dtype=dtype, attn_implementation=setting["attention"]
    )
    return model


def common_arguments(setting: Json, folder: Path, learning_rate: float) -> Json:
    """What both of TRL's trainers are given: nothing is logged, saved or recomputed."""
    return {
        "output_dir": str(folder),
        "learning_rate": learning_rate,
        "max_grad_norm": 1.0,
        "bf16": setting["precision"] == "autocast",
        "torch_compile": setting["compile"],
        "use_cpu": True,
        "gradient_checkpointing": False,
        "dataloader_pin_memory": False,
        "logging_strategy": "no",
        "save_strategy": "no",
        "report_to": "none",
        "disable_tqdm": True,
        "seed": SEED,
    }
