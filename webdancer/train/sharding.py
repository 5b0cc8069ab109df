"""A model in shards, one on each process, for models that one GPU does not hold: FSDP 2 (PyTorch's `fully_shard`).

Of every weight a process keeps one slice in float32, with its gradient and AdamW's moments. A decoder layer is gathered in
the dtype of the computation just before it computes, and let go right after; its gradients are summed over the processes in
float32, each process getting those of its slices. What is left (embeddings, last norm, head) is one more such unit. So the
update is that of replicas, up to the order of sums.

Gathering needs all processes at once. So everything here is called by all of them, each runs as many passes as the others
(`evened`), and what is gathered to be kept lies with the first process alone.
"""

import copy
import os
from collections.abc import Mapping, Sequence
from typing import Any, cast

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import CPUOffloadPolicy, FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers import PreTrainedModel

from webdancer.errors import ConfigError
from webdancer.train.batches import Batch
from webdancer.train.model import token_logprobs


def wants_shards(accelerator: Accelerator) -> bool:
    """Whether accelerate was launched with a FSDP configuration."""
    if accelerator.distributed_type is DistributedType.MULTI_CPU:  # accelerate itself shards on accelerators alone
        return os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    return bool(accelerator.distributed_type is DistributedType.FSDP)


class ShardedModel:
    """Cuts the weights of `model`, which are the same on all processes, into shards in place.

    Args:
        model: float32 on the CPU, as `load_model` opens it. Its parameters become float32 `DTensor`s on the device.
        dtype: of the computation.

    Raises:
        ConfigError: accelerate's FSDP settings ask for what is not there.
    """

    def __init__(self, model: PreTrainedModel, accelerator: Accelerator, *, dtype: torch.dtype) -> None:
        _check(FullyShardedDataParallelPlugin())  # reads what `accelerate launch` has left in the environment
        self._model, self._accelerator, self._dtype = model, accelerator, dtype
        self._twin = _empty_twin(model, dtype)
        self._forward = _LogProbabilities(model)
        mesh = init_device_mesh(accelerator.device.type, (accelerator.num_processes,))
        precision = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)
        kinds = set(model._no_split_modules or ())
        layers = [module for module in model.modules() if type(module).__name__ in kinds]
        for unit in (*layers, self._forward):
            # Let go also of the root's weights: else passes without gradients would leave them whole, and they would grow old.
            fully_shard(unit, mesh=mesh, mp_policy=precision, reshard_after_forward=True)
            shards = cast(FSDPModule, unit)
            # The loss has its one normaliser already, so gradients are summed, not averaged.
            shards.set_gradient_divide_factor(1.0)
            shards.set_force_sum_reduction_for_comms(True)

    def logprobs(self, batch: Batch, temperature: float) -> Tensor:
        """As `token_logprobs`."""
        return cast(Tensor, self._forward(batch, temperature))

    def evened(self, batches: Sequence[Batch]) -> list[Batch]:
        """The micro-batches, and as many without a token of the policy as the process with most of them has more."""
        device = self._accelerator.device
        most = int(self._accelerator.gather(torch.tensor([len(batches)], device=device)).max())
        return [*batches, *[_empty_batch(device)] * (most - len(batches))]

    def whole(self, *, everywhere: bool) -> PreTrainedModel:
        """The model with all its weights, on the CPU and in the dtype of the computation; the same object in every call.

        Args:
            everywhere: False fills the first process's alone.
        """
        wanted = everywhere or self._accelerator.is_main_process
        twins = dict(self._twin.named_parameters())
        with torch.no_grad():
            for name, shard in self._model.named_parameters():  # one at a time: never is a whole model on a GPU
                weight = cast(DTensor, shard.detach().to(self._dtype)).full_tensor()
                if wanted:
                    twins[name].copy_(weight)
        return self._twin

    def gathered(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Whole copies on the CPU of all tensors, shards or not, with the first process; {} with the others."""
        found: dict[str, Any] = {}
        for name, value in tensors.items():
            whole = cast(DTensor, value.detach()).full_tensor() if isinstance(value, DTensor) else value
            if self._accelerator.is_main_process:
                found[name] = whole.to("cpu", copy=True)
        return found

    def scatter(self, name: str, tensors: Mapping[str, Tensor], like: Tensor) -> DTensor:
        """The first process's whole tensor of this name, in shards as `like` is; the other processes' are not read."""
        shard, device = cast(DTensor, like), self._accelerator.device
        if self._accelerator.is_main_process:
            whole = tensors[name].to(device)
        else:
            whole = torch.empty(shard.shape, dtype=shard.dtype, device=device)
        return distribute_tensor(whole, shard.device_mesh, shard.placements)


class _LogProbabilities(nn.Module):
    """`token_logprobs` as a module's forward pass, around which FSDP gathers the weights outside the decoder layers."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, temperature: float) -> Tensor:
        return token_logprobs(self.model, batch, temperature=temperature)


def _check(plugin: FullyShardedDataParallelPlugin) -> None:
    unsupported = {
        "fsdp_version: 1": plugin.fsdp_version != 2,
        "fsdp_reshard_after_forward: false": plugin.fsdp_version == 2 and not plugin.reshard_after_forward,
        "fsdp_offload_params: true": isinstance(plugin.cpu_offload, CPUOffloadPolicy),
        "fsdp_cpu_ram_efficient_loading: true": plugin.cpu_ram_efficient_loading,
        "fsdp_activation_checkpointing: true (set policy.gradient_checkpointing)": plugin.activation_checkpointing,
    }
    found = [setting for setting, is_set in unsupported.items() if is_set]
    if found:
        raise ConfigError(
            f"accelerate's FSDP settings: got {', '.join(found)}, which is not supported here; start from configs/fsdp.yaml"
        )


def _empty_twin(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """A copy of the model whose weights are memory that nobody has touched yet: it costs none until it is filled."""
    empty = {
        id(weight): nn.Parameter(torch.empty_like(weight, dtype=dtype), requires_grad=weight.requires_grad)
        for weight in model.parameters()
    }
    return copy.deepcopy(model, cast(dict[int, Any], empty))


def _empty_batch(device: torch.device) -> Batch:
    """One row of padding: a pass over it computes and changes nothing, but takes part in the gathering."""
    ids = torch.zeros((1, 2), dtype=torch.int64, device=device)
    return Batch(ids, torch.zeros_like(ids, dtype=torch.bool), rows=(), num_tokens=0, num_masked=0)
