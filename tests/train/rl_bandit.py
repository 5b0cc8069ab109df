"""A whole world for a small RL run: a policy that searches and then says one of two words, of which the judge likes one."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from accelerate import Accelerator

from tests.fixtures import MemoryWeb, RuleModel, make_page
from tests.train.rl_toys import toy_model, toy_tokenizer
from webdancer.agent.tools import Toolbox
from webdancer.config import AgentSettings, PolicySettings, RlSettings
from webdancer.llm.prompts import load_prompt
from webdancer.llm.protocol import Message
from webdancer.records import QA, QAKind, Status, Step, Trajectory
from webdancer.train.batches import micro_batches
from webdancer.train.learner import Learner
from webdancer.train.model import save_checkpoint, token_logprobs
from webdancer.train.rl import RlProgress, RlResult, train_rl
from webdancer.train.tokens import ChatTokens, encode_trajectory

AGENT = AgentSettings(prompt="agent_brief", observations="brief", max_steps=4, max_turn_tokens=40)
POLICY = PolicySettings(device="cpu", dtype="float32", max_context=400, max_batch=32, num_threads=1)
QUESTIONS = ("Which word?", "What word is it?", "Tell the word.")
WORDS = ("red", "blue")


def qas() -> list[QA]:
    kind = QAKind.MULTI_HOP
    return [
        QA(id=f"q{n}", question=text, answer="blue", kind=kind, evidence_urls=()) for n, text in enumerate(QUESTIONS)
    ]


def toolbox() -> Toolbox:
    web = MemoryWeb({"http://w.example/word": make_page("http://w.example/word", "Word", "It is red or blue.")})
    return Toolbox(web, web, RuleModel(lambda _: ""), AGENT)


def judge() -> RuleModel:
    def compare(messages: Sequence[Message]) -> str:
        answer = messages[-1].content.split("<answer>")[-1].split("</answer>")[0]
        return json.dumps({"reason": "", "correct": answer.strip() == "blue"})

    return RuleModel(compare)


async def trajectories() -> list[Trajectory]:
    """Each question with each word, after a search."""
    call = {"query": ["word"]}
    observation = (await toolbox().call("search", dict(call))).observation
    found = []
    for number, question in enumerate(QUESTIONS):
        for word in WORDS:
            steps = (
                Step(thought="look", tool="search", arguments=dict(call), observation=observation),
                Step(thought="say"),
            )
            found.append(
                Trajectory(
                    id=f"{number}-{word}", qa_id=f"q{number}", question=question, model="script", seed=0,
                    steps=steps, answer=word, status=Status.ANSWERED,
                )
            )  # fmt: skip
    return found


def cold_start(out: Path, *, num_steps: int = 60) -> Path:
    """A checkpoint that has learnt to search and then to say either word, about as often."""
    examples = asyncio.run(trajectories())
    turns = [f"<think>\n{t}\n</think>\n<answer>\n{w}\n</answer>" for t in ("look", "say") for w in WORDS]
    call = '<tool_call>\n{"name": "search", "arguments": {"query": ["word"]}}\n</tool_call>'
    observation = examples[0].steps[0].observation or ""
    texts = [load_prompt("agent_brief"), *QUESTIONS, *turns, call, observation, "user system assistant"]
    tokens = ChatTokens(toy_tokenizer(texts, vocab_size=480))
    sequences = [encode_trajectory(tokens, t, toolbox().schemas(), prompt="agent_brief") for t in examples]
    torch.manual_seed(0)
    model = toy_model(vocab_size=480, hidden=32)
    accelerator = Accelerator(cpu=True)
    learner = Learner(model, accelerator, dtype=torch.float32, weight_decay=0.0, max_grad_norm=1.0)
    num_tokens = sum(sum(sequence.mask) for sequence in sequences)
    for step in range(num_steps):
        for batch in micro_batches(sequences, max_tokens=4096):
            learner.backward(-token_logprobs(model, batch).sum() / num_tokens)
        learner.step(1e-2 * (1 - 0.9 * step / num_steps))
    save_checkpoint(model, tokens.tokenizer, out)
    return out


async def run_rl(
    base: Path, out: Path, *, on_progress: Callable[[RlProgress], None] = lambda progress: None, **settings: object
) -> RlResult:
    """Train on the bandit; `settings` are those of `[rl]`."""
    chosen = {"num_steps": 4, "groups_per_step": 4, "rollouts_per_group": 8, "learning_rate": 3e-3, **settings}
    return await train_rl(
        qas(),
        base=base,
        out=out,
        toolbox=toolbox(),
        judge_model=judge(),
        agent_settings=AGENT,
        settings=RlSettings.model_validate(chosen),
        policy=POLICY,
        seed=11,
        on_progress=on_progress,
    )


def metrics_of(out: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def main(base: str, out: str, settings: str, kill_at: str) -> None:
    """Run as a program; `kill_at` is `STEP.GROUPS`, after which this process kills itself, or empty."""

    def on_progress(progress: RlProgress) -> None:
        if kill_at == f"{progress.step}.{progress.num_groups}":
            os.kill(os.getpid(), signal.SIGKILL)

    asyncio.run(run_rl(Path(base), Path(out), on_progress=on_progress, **json.loads(settings)))


if __name__ == "__main__":
    main(*sys.argv[1:])
