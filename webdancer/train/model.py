"""Causal language models in training: opening, log-probabilities of the policy's tokens, saving (paper, section 3.3).

Works for any Hugging Face causal language model, also under peft and gradient checkpointing. The log-probabilities are
computed in float32 and only where a token of the policy is predicted: with a large vocabulary the logits of all positions
would be most of the memory.
"""

import contextlib
import copy
import json
import math
import os
import shutil
import warnings
from collections.abc import Iterator
from datetime import timedelta
from importlib import resources
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator, InitProcessGroupKwargs
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as hf_logging

from webdancer.config import PolicySettings
from webdancer.errors import ConfigError
from webdancer.train import cpu_forward
from webdancer.train.batches import ROUND, Batch
from webdancer.train.chat_layout import TURN_END

_MAX_LOGITS = 1 << 26
"""Logits held at once (256 MB in float32); more are computed in parts, and again in the backward pass."""


def resolve_base(name: str) -> Path:
    """Folder of a base model: `tiny` ships with the package, a folder is itself, anything else is a Hugging Face name.

    Raises:
        ConfigError: no such folder, and no such model at hand or on the hub.
    """
    if name == "tiny":
        path = Path(str(resources.files("webdancer.train"))) / "base"
    elif Path(name).is_dir():
        path = Path(name)
    else:
        try:
            path = Path(snapshot_download(name))
        except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError) as error:
            raise ConfigError(
                f"policy.base = {name!r}: neither 'tiny', nor a folder, nor a model that Hugging Face has ({error})"
            ) from None
    if not (path / "config.json").is_file():
        raise ConfigError(f"policy.base = {name!r}: {path} holds no config.json, so it is no Hugging Face model")
    return path


def device_of(policy: PolicySettings) -> torch.device:
    """Where the policy computes; `auto` is CUDA where there is one.

    Raises:
        ConfigError: `cuda` is asked for and missing.
    """
    if policy.device == "cuda" and not torch.cuda.is_available():
        raise ConfigError("policy.device = 'cuda': torch finds no CUDA device; set policy.device to 'auto' or 'cpu'")
    if policy.device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return torch.device(policy.device)


def dtype_of(policy: PolicySettings) -> torch.dtype:
    """What the policy computes in; `auto` is bfloat16 on CUDA and on processors that multiply it faster, else float32.

    Raises:
        ConfigError: as `device_of`.
    """
    if policy.dtype != "auto":
        return cast(torch.dtype, getattr(torch, policy.dtype))
    if device_of(policy).type == "cuda":
        return torch.bfloat16
    processor = torch.cpu.get_capabilities()
    # Intel's fast unit is AMX, which a virtual machine may hide; with its AVX512_BF16 training takes half as long again.
    by_vectors = processor.get("avx512_bf16", False) and "Intel" not in processor.get("cpu_name", "")
    return torch.bfloat16 if processor.get("amx_bf16", False) or by_vectors else torch.float32


def new_accelerator(policy: PolicySettings) -> Accelerator:
    """An accelerator whose processes wait for the slowest one's episodes; torch gives up after ten minutes by itself."""
    waits = InitProcessGroupKwargs(timeout=timedelta(hours=6))
    return Accelerator(cpu=device_of(policy).type == "cpu", kwargs_handlers=[waits])


def open_weights(path: Path, tokenizer: PreTrainedTokenizerBase, *, dtype: torch.dtype) -> PreTrainedModel:
    """The model of a checkpoint as it is, on the CPU.

    Raises:
        ConfigError: there is no model at `path`, its files are damaged, or `tokenizer` has ids that it has no embedding for.
    """
    hf_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, attn_implementation="sdpa")
    except (OSError, ValueError, SafetensorError) as error:
        raise ConfigError(f"cannot load a model from {path}: {str(error).splitlines()[0]}") from None
    num_ids, num_embeddings = max(tokenizer.get_vocab().values()) + 1, model.config.get_text_config().vocab_size
    if num_ids > num_embeddings:
        raise ConfigError(f"{path}: got a tokenizer of {num_ids} tokens, expected at most the model's {num_embeddings}")
    return cast(PreTrainedModel, model)


def load_model(path: Path, tokenizer: PreTrainedTokenizerBase, policy: PolicySettings) -> PreTrainedModel:
    """Open a checkpoint for training: float32 weights on the CPU, LoRA adapters and gradient checkpointing as set.

    Under LoRA the result is peft's wrapper, which answers to the same calls, and only the adapters want gradients. The
    adapters start from torch's random stream: seed it first.

    Raises:
        ConfigError: as `open_weights`, or `policy.device` is missing.
    """
    model: Any = open_weights(path, tokenizer, dtype=torch.float32)
    if policy.gradient_checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    if policy.lora_rank:
        lora = LoraConfig(
            r=policy.lora_rank, lora_alpha=policy.lora_alpha, target_modules="all-linear", task_type="CAUSAL_LM"
        )
        with _old_names_allowed():
            model = get_peft_model(model, lora)
    return cast(PreTrainedModel, model.train())


def token_logprobs(model: nn.Module, batch: Batch, *, temperature: float = 1.0) -> Tensor:
    """[N] log π(token | everything before it) of the batch's masked tokens, row by row; float32, with gradient.

    Args:
        temperature: the logits are divided by it, as in sampling.
    """
    causal: Any = model
    if cpu_forward.can_run(model, batch):
        selected = cpu_forward.hidden_states(causal, batch)  # [N, H]
    else:
        # Neither mask nor positions are given: causal attention over right-padded rows needs none, and its kernel is fastest.
        hidden = causal.get_decoder()(input_ids=batch.token_ids, use_cache=False).last_hidden_state  # [B, T, H]
        selected = hidden[:, :-1][batch.mask[:, 1:]]  # position t-1 predicts token t
    targets = batch.token_ids[batch.mask]  # [N]
    head = _Head(causal, temperature=temperature)
    rows = max(1, _MAX_LOGITS // causal.config.get_text_config().vocab_size)
    if len(targets) <= rows:
        return head(selected, targets)
    parts = zip(torch.split(selected, rows), torch.split(targets, rows), strict=True)
    return torch.cat([checkpoint(head, part, goal, use_reentrant=False) for part, goal in parts])


class _Head:
    """Hidden states [N, H] and targets [N] to log-probabilities [N]."""

    def __init__(self, model: PreTrainedModel, *, temperature: float) -> None:
        self._project, self._config = cast(Any, model).get_output_embeddings(), model.config.get_text_config()
        self._temperature = temperature

    def __call__(self, hidden: Tensor, targets: Tensor) -> Tensor:
        pad = -len(targets) % ROUND
        hidden, goals = nn.functional.pad(hidden, (0, 0, 0, pad)), nn.functional.pad(targets, (0, pad))
        logits = _as_the_model_scales(self._project(hidden).float(), self._config)  # [N + pad, V]
        if self._temperature != 1.0:
            logits = logits / self._temperature
        return -nn.functional.cross_entropy(logits, goals, reduction="none")[: len(targets)]


def _as_the_model_scales(logits: Tensor, config: object) -> Tensor:
    """What some families do to the logits after the head: Cohere multiplies, Granite divides, Gemma squashes."""
    if scale := getattr(config, "logit_scale", None):
        logits = logits * scale
    if scaling := getattr(config, "logits_scaling", None):
        logits = logits / scaling
    if cap := getattr(config, "final_logit_softcapping", None):
        logits = cap * torch.tanh(logits / cap)
    return logits


def cosine_share(step: int, *, num_steps: int, warmup_steps: int, min_share: float) -> float:
    """Share of the learning rate at optimizer step `step` (from 0): linear warm-up, then a cosine down to `min_share`.

    The first step of a warm-up of W runs at 1/W, step W at 1, the last step at `min_share`.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = min(1.0, (step - warmup_steps) / max(1, num_steps - 1 - warmup_steps))
    return min_share + (1 - min_share) * 0.5 * (1 + math.cos(math.pi * progress))


def save_checkpoint(model: nn.Module, tokenizer: PreTrainedTokenizerBase, out: Path) -> None:
    """Write a Hugging Face checkpoint in bfloat16: the files appear whole, the weights last.

    LoRA adapters are merged into the weights, and kept beside them in `adapter/`. The end of a ChatML turn becomes the
    checkpoint's end of a text too, so that others' engines stop there. Model and tokenizer are left as they were.
    """
    hf_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    out.mkdir(parents=True, exist_ok=True)
    temporary = out / ".checkpoint.tmp"
    shutil.rmtree(temporary, ignore_errors=True)
    if isinstance(model, PeftModel):
        model.save_pretrained(str(temporary / "adapter"))
        # Merged and unmerged weights differ by rounding: a copy is merged, so that training goes on from what it had.
        causal = cast(PreTrainedModel, _merged_copy(model))
    else:
        causal = cast(PreTrainedModel, model)
    halves: dict[int, Tensor] = {}  # tied weights stay one tensor, which is saved once
    state = {
        name: halves.setdefault(id(weight), _half(weight)) for name, weight in causal.state_dict(keep_vars=True).items()
    }
    causal.save_pretrained(temporary, state_dict=state, max_shard_size="1000GB")
    tokenizer.save_pretrained(temporary)
    _set_in_json(temporary / "config.json", "dtype", "bfloat16")
    _end_at_turns(temporary, tokenizer)
    _put_in_place(temporary, out)


def _end_at_turns(folder: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """The end of a turn ends a text; what else did before still does."""
    path = folder / "generation_config.json"
    ends = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id", [])
    end_id = tokenizer.convert_tokens_to_ids(TURN_END)
    others = [id_ for id_ in (ends if isinstance(ends, list) else [ends]) if id_ != end_id]
    _set_in_json(path, "eos_token_id", [end_id, *others])
    _set_in_json(folder / "tokenizer_config.json", "eos_token", TURN_END)


def _set_in_json(path: Path, name: str, value: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), name: value}, indent=2) + "\n")


def _half(weight: Tensor) -> Tensor:
    return weight.detach().to("cpu", torch.bfloat16) if weight.is_floating_point() else weight.detach().cpu()


def _merged_copy(model: PeftModel) -> nn.Module:
    """The base model with the adapters merged in, as a float32 copy on the CPU: an accelerator may have no room for one."""
    weights = {
        id(weight): nn.Parameter(weight.detach().to("cpu", torch.float32, copy=True)) for weight in model.parameters()
    }
    with _old_names_allowed():
        return cast(nn.Module, copy.deepcopy(model, cast(dict[int, Any], weights)).cpu().merge_and_unload())


@contextlib.contextmanager
def _old_names_allowed() -> Iterator[None]:
    """peft 0.21 calls a method of transformers by a name that transformers 5.23 warns about."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*gradient_checkpointing", category=FutureWarning)
        yield


def _put_in_place(temporary: Path, out: Path) -> None:
    """Move all files of `temporary` into `out`, synced, weights last."""
    files = [path for path in temporary.rglob("*") if path.is_file()]
    for path in sorted(files, key=lambda path: (path.suffix == ".safetensors", str(path))):
        with path.open("rb") as file:
            os.fsync(file.fileno())
        target = out / path.relative_to(temporary)
        target.parent.mkdir(parents=True, exist_ok=True)
        path.replace(target)
    shutil.rmtree(temporary)
    sync_folder(out)


def sync_folder(path: Path) -> None:
    """Bring the names in a folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
