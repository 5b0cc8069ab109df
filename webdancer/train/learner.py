"""A model under training: bfloat16 computation over float32 master weights, AdamW, one update over all processes.

The gradient of an update is a plain sum: over the micro-batches of a process, in float32, and over the processes. So a
loss that is divided by the one normaliser of the whole update (paper, section 3.3) gives the same update however the
sequences are dealt out, also where a process has none. (DistributedDataParallel would average over processes, and wants
as many backward passes on each.)

A bfloat16 copy of the weights is faster than autocast, which casts them anew in every pass, and computes what the
generation engine computes.

Each process holds a replica, or, where accelerate was launched with a FSDP configuration, a shard (`sharding.py`): then the
master weights are the model's own, and gradients arrive summed. Every method is called by all processes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict, cast

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from webdancer.config import PolicySettings, RlSettings, SftSettings
from webdancer.train.batches import Batch
from webdancer.train.model import dtype_of, load_model, new_accelerator, save_checkpoint, token_logprobs
from webdancer.train.sharding import ShardedModel, wants_shards


class LearnerState(TypedDict):
    """What a checkpoint holds of a learner; the same whether it is sharded or not."""

    weights: dict[str, Tensor]
    optimizer: dict[str, Any]


def open_learner(
    base: Path,
    tokenizer: PreTrainedTokenizerBase,
    *,
    policy: PolicySettings,
    settings: SftSettings | RlSettings,
    seed: int,
) -> "Learner":
    """Make a checkpoint ready for training, in this process or in all that accelerate launched.

    Raises:
        ConfigError: there is no model at `base`, `tokenizer` does not fit it, the device is missing, or FSDP settings of
            accelerate are not supported.
    """
    if policy.num_threads is not None:
        torch.set_num_threads(policy.num_threads)
    accelerator = new_accelerator(policy)
    torch.manual_seed(seed)  # the start of LoRA adapters
    return Learner(
        load_model(base, tokenizer, policy),
        accelerator,
        dtype=dtype_of(policy),
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.max_grad_norm,
        embedding_rate_share=policy.embedding_rate_share,
    )


class Learner:
    """Owns the trainable weights of `model` and updates them.

    Args:
        model: float32, as `load_model` opens it; moved to the accelerator's device, and its weights become `dtype`.
        dtype: of the computation. The masters, gradients and AdamW's moments are float32 in any case.
        weight_decay: for matrices; biases and the weights of norms have none.
        embedding_rate_share: learning rate of the input and output embeddings, as a share of the others'.
        max_grad_norm: longer gradients are shortened to it.

    Raises:
        ConfigError: FSDP settings of accelerate that are not supported.
    """

    def __init__(
        self,
        model: nn.Module,
        accelerator: Accelerator,
        *,
        dtype: torch.dtype,
        weight_decay: float,
        max_grad_norm: float,
        embedding_rate_share: float = 1.0,
    ) -> None:
        self.model, self.accelerator, self._max_grad_norm = model, accelerator, max_grad_norm
        self._shards: ShardedModel | None = None
        if wants_shards(accelerator):
            self._shards = ShardedModel(cast(PreTrainedModel, model), accelerator, dtype=dtype)
            dtype = torch.float32  # of the shards; FSDP itself computes in the other
        else:
            model.to(accelerator.device)
        self._masters: dict[str, Tensor] = {}
        self._live: dict[str, nn.Parameter] = {}
        for name, live in model.named_parameters():  # tied weights appear once
            if live.requires_grad:
                self._live[name] = live
                self._masters[name] = live if dtype == torch.float32 else live.detach().clone()
            if self._shards is None:
                # Parameters only: buffers such as the rotary frequencies lose too much in bfloat16.
                live.data = live.data.to(dtype)
        if dtype != torch.float32:
            for name, live in self._live.items():
                live.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                    _GradientMover(self._masters[name])
                )
        matrices, vectors, embeddings = self._groups()
        self._optimizer = torch.optim.AdamW(
            [
                {"params": matrices, "weight_decay": weight_decay},
                {"params": vectors, "weight_decay": 0.0},
                {"params": embeddings, "weight_decay": weight_decay, "rate_share": embedding_rate_share},
            ],
            lr=0.0,
            fused=True,
        )

    def _groups(self) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
        """The masters of matrices, of biases and norms, and of the embeddings and the output head."""
        ends: set[Any] = set()
        if isinstance(self.model, PreTrainedModel):  # under LoRA it is peft's wrapper, and only adapters are trained
            model: Any = self.model
            ends = {part.weight for part in (model.get_input_embeddings(), model.get_output_embeddings()) if part}
        matrices: list[Tensor] = []
        vectors: list[Tensor] = []
        embeddings: list[Tensor] = []
        for name, master in self._masters.items():
            group = embeddings if self._live[name] in ends else matrices if master.ndim >= 2 else vectors
            group.append(master)
        return matrices, vectors, embeddings

    @property
    def is_sharded(self) -> bool:
        """Whether this process holds but a shard; then what is gathered lies with the first process alone."""
        return self._shards is not None

    def logprobs(self, batch: Batch, *, temperature: float = 1.0) -> Tensor:
        """`token_logprobs` of the model. Sharded, every process makes as many of these passes as the others: see `evened`."""
        if self._shards is not None:
            return self._shards.logprobs(batch, temperature)
        return token_logprobs(self.model, batch, temperature=temperature)

    def evened(self, batches: Sequence[Batch]) -> Sequence[Batch]:
        """This process's micro-batches; sharded, with empty ones behind them until all processes have as many."""
        return batches if self._shards is None else self._shards.evened(batches)

    def whole_model(self, *, everywhere: bool) -> PreTrainedModel:
        """The model in the dtype of the computation: itself, or of a sharded one a copy on the CPU.

        Args:
            everywhere: whether each process needs it; else the first one's alone has the weights.
        """
        return cast(PreTrainedModel, self.model) if self._shards is None else self._shards.whole(everywhere=everywhere)

    def save_checkpoint(self, tokenizer: PreTrainedTokenizerBase, out: Path) -> None:
        """Write the model as it is now to `out`, by the first process."""
        whole = self.whole_model(everywhere=False)
        if self.accelerator.is_main_process:
            save_checkpoint(whole, tokenizer, out)
        self.accelerator.wait_for_everyone()

    def backward(self, loss: Tensor) -> None:
        """Add the gradient of one micro-batch's share of the loss, already divided by the update's normaliser."""
        loss.backward()  # type: ignore[no-untyped-call]

    def step(self, learning_rate: float) -> float:
        """One update from the gradients added since the last; all processes call it. Returns the norm before clipping.

        A gradient that is not finite changes nothing but is returned (as inf or nan).
        """
        gradients = [self._gradient(master) for master in self._masters.values()]
        if self.accelerator.num_processes > 1 and self._shards is None:
            for gradient in gradients:  # in place and one at a time: large models have no room for copies
                torch.distributed.all_reduce(gradient)
        total_norm = nn.utils.clip_grad_norm_(list(self._masters.values()), self._max_grad_norm)
        norm = (total_norm.full_tensor() if isinstance(total_norm, DTensor) else total_norm).item()
        if norm - norm == 0:  # finite
            for group in self._optimizer.param_groups:
                group["lr"] = group.get("rate_share", 1.0) * learning_rate
            self._optimizer.step()
            self._publish()
        self._optimizer.zero_grad(set_to_none=True)
        return norm

    def _gradient(self, master: Tensor) -> Tensor:
        """Its gradient; zeros where no micro-batch of this process reached it."""
        if master.grad is None:
            master.grad = torch.zeros_like(master)
        return master.grad

    def _publish(self) -> None:
        """Round the masters into the model."""
        with torch.no_grad():
            for name, live in self._live.items():
                if live is not self._masters[name]:
                    live.copy_(self._masters[name])

    def weights(self) -> dict[str, Tensor]:
        """A float32 copy of the trainable weights by name, on the CPU; sharded, {} on all but the first process."""
        if self._shards is not None:
            return self._shards.gathered(self._masters)
        return {name: master.detach().to("cpu", copy=True) for name, master in self._masters.items()}

    def load_weights(self, weights: dict[str, Tensor]) -> None:
        """Set the trainable weights, sharded: from the first process's; the optimizer's moments stay."""
        with torch.no_grad():
            for name, master in self._masters.items():
                master.copy_(weights[name] if self._shards is None else self._shards.scatter(name, weights, master))
        self._publish()

    def state_dict(self) -> LearnerState:
        """Everything that the next update depends on. Tensors are the learner's own: write them before the next step.

        Sharded, the first process gets all of it, whole, on the CPU; the others' is not to be used.
        """
        optimizer = self._optimizer.state_dict()
        if self._shards is None:
            weights = {name: master.detach() for name, master in self._masters.items()}
        else:
            weights = self._shards.gathered(self._masters)
            optimizer["state"] = {key: self._shards.gathered(values) for key, values in optimizer["state"].items()}
        return {"weights": weights, "optimizer": optimizer}

    def load_state_dict(self, state: LearnerState) -> None:
        """Go on from a saved state, bit for bit; sharded or not need not be as it was."""
        self.load_weights(state["weights"])
        optimizer = state["optimizer"]
        if self._shards is not None:
            masters = [master for group in self._optimizer.param_groups for master in group["params"]]
            moments = {key: self._scattered(values, masters[key]) for key, values in optimizer["state"].items()}
            optimizer = {**optimizer, "state": moments}
        self._optimizer.load_state_dict(optimizer)

    def _scattered(self, moments: dict[str, Tensor], master: Tensor) -> dict[str, Tensor]:
        """AdamW's state of one weight: its moments in shards as the weight is, its number of steps as it is."""
        assert self._shards is not None
        return {
            name: value if name == "step" else self._shards.scatter(name, moments, master)
            for name, value in moments.items()
        }


class _GradientMover:
    """Adds a weight's fresh gradient to its float32 master's and drops it, so that sums over micro-batches are float32."""

    def __init__(self, master: Tensor) -> None:
        self._master = master

    def __call__(self, live: Tensor) -> None:
        assert live.grad is not None
        if self._master.grad is None:
            self._master.grad = live.grad.float()
        else:
            self._master.grad += live.grad
        live.grad = None
