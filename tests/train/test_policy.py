"""The policy in episodes of the agent loop: token in, token out."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from chat_tokenizers import build_tokenizer
from engine_toys import forward_logprobs
from fixtures import MemoryWeb, ScriptedModel
from tiny_checkpoint import build_checkpoint
from transformers import AutoModelForCausalLM, PreTrainedModel

from webdancer.agent.loop import run_episode
from webdancer.agent.tools import Toolbox
from webdancer.config import AgentSettings, PolicySettings
from webdancer.errors import ConfigError, ContextFullError
from webdancer.llm.protocol import Message, Sampling
from webdancer.records import CotMode, Status, Trajectory
from webdancer.train.engine import Generation, TokenSampling, TorchEngine
from webdancer.train.policy import EnginePolicy, Policy, PolicyEpisode
from webdancer.train.sampler import turn_seed
from webdancer.train.tokens import ChatTokens

START = (Message("system", "Search."), Message("user", "Where?"))
SETTINGS = PolicySettings(dtype="float32", max_context=400, max_batch=16)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_checkpoint(tmp_path_factory.mktemp("model") / "toy")


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> PreTrainedModel:
    loaded: PreTrainedModel = AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32)
    return loaded.eval()


class ScriptedEngine:
    """An engine that gives the turns it was told, and notes what it was asked."""

    def __init__(self, turns: Sequence[Generation | Exception]) -> None:
        self.turns, self.asked, self.sampling, self.sessions = list(turns), [], [], set()

    def open(self, session: str) -> None:
        self.sessions.add(session)

    def release(self, session: str) -> None:
        self.sessions.remove(session)

    async def generate(self, ids: Sequence[int], sampling: TokenSampling, *, session: str) -> Generation:
        self.asked.append(list(ids))
        self.sampling.append(sampling)
        turn = self.turns.pop(0)
        if isinstance(turn, Exception):
            raise turn
        return turn


def turn(ids: Sequence[int], finish: str = "stop") -> Generation:
    return Generation(list(ids), [-0.5] * len(ids), finish)  # type: ignore[arg-type]


def scripted(turns: Sequence[Generation | Exception], layout: str = "qwen3") -> tuple[ScriptedEngine, PolicyEpisode]:
    engine, tokens = ScriptedEngine(turns), ChatTokens(build_tokenizer(layout))
    return engine, EnginePolicy(engine, tokens, name="toy").episode("e")


TOKENS = ChatTokens(build_tokenizer("qwen3"))


async def test_the_policys_own_turn_is_never_encoded_again() -> None:
    """It samples `Velm` letter by letter, which no encoder would: the next call holds the ids as sampled."""
    odd = [id_ for letter in "Velm" for id_ in TOKENS.text(letter)]
    assert odd != TOKENS.text("Velm")
    engine, episode = scripted([turn([*odd, TOKENS.end_id]), turn([TOKENS.end_id])])
    reply = await episode.chat(START, Sampling(seed=3))
    assert (reply.content, reply.finish) == ("Velm", "stop")
    assert (reply.usage.prompt_tokens, reply.usage.completion_tokens) == (len(engine.asked[0]), 5)
    told = (*START, Message("assistant", "another rendering of it"), Message("user", "Go on."))
    await episode.chat(told, Sampling(seed=3))
    between = TOKENS.next_turn("Go on.", ended=True)
    assert engine.asked[1] == [*TOKENS.prompt(START), *odd, TOKENS.end_id, *between]
    sequence = episode.sequence()
    assert sequence.token_ids == [*engine.asked[1], TOKENS.end_id]
    num_prompt = len(engine.asked[0])
    assert sequence.mask == [False] * num_prompt + [True] * 5 + [False] * len(between) + [True]
    assert sequence.logprobs == [0.0] * num_prompt + [-0.5] * 5 + [0.0] * len(between) + [-0.5]
    assert [sampling.seed for sampling in engine.sampling] == [turn_seed(3, 0), turn_seed(3, 1)]
    episode.close()
    assert not engine.sessions


async def test_a_cut_turn_gets_an_end_that_is_not_trained() -> None:
    word = TOKENS.text("Velm")
    engine, episode = scripted([turn(word, "length"), turn([TOKENS.end_id])])
    assert (await episode.chat(START, Sampling())).finish == "length"
    await episode.chat((*START, Message("assistant", "Velm"), Message("user", "x")), Sampling())
    assert engine.asked[1] == [*TOKENS.prompt(START), *word, *TOKENS.next_turn("x", ended=False)]
    assert engine.asked[1][len(TOKENS.prompt(START)) + len(word)] == TOKENS.end_id
    assert sum(episode.sequence().mask) == len(word) + 1


async def test_a_turn_that_breaks_off_at_a_turn_marker_shows_it() -> None:
    start = next(id_ for id_ in TOKENS.stop_ids if TOKENS.decode([id_]) == "<|im_start|>")
    _, episode = scripted([turn([*TOKENS.text("Velm"), start])])
    assert (await episode.chat(START, Sampling())).content == "Velm<|im_start|>"


async def test_what_the_layout_opens_is_part_of_the_text_but_not_trained() -> None:
    tokens = ChatTokens(build_tokenizer("qwq"))
    sampled = [*tokens.text("so\n"), tokens.end_id]
    engine, episode = scripted([turn(sampled)], "qwq")
    reply = await episode.chat(START, Sampling(stop=("think",)))
    assert reply.content == "<think>\nso\n"
    assert tokens.decode(engine.asked[0]).endswith("<think>\n")
    assert sum(episode.sequence().mask) == len(sampled)


async def test_a_stop_string_cuts_the_text_alone() -> None:
    _, episode = scripted([turn([*TOKENS.text("Velm and Orsk"), TOKENS.end_id])])
    assert (await episode.chat(START, Sampling(stop=("and", "Orsk")))).content == "Velm "
    sequence = episode.sequence()
    sampled = [id_ for id_, trained in zip(sequence.token_ids, sequence.mask, strict=True) if trained]
    assert TOKENS.decode(sampled) == "Velm and Orsk<|im_end|>"


async def test_a_failed_turn_leaves_nothing_behind() -> None:
    """The loop then asks again with a demand behind the last message."""
    engine, episode = scripted([ContextFullError("full"), turn([TOKENS.end_id]), ContextFullError("full")])
    with pytest.raises(ContextFullError):
        await episode.chat(START, Sampling())
    assert episode.sequence() == (TOKENS.prompt(START), [False] * len(engine.asked[0]), [0.0] * len(engine.asked[0]))
    demanded = (START[0], Message("user", "Where?\n\nAnswer now."))
    await episode.chat(demanded, Sampling())
    assert engine.asked[1] == TOKENS.prompt(demanded)
    with pytest.raises(ContextFullError):
        await episode.chat((*demanded, Message("assistant", ""), Message("user", "x" * 50)), Sampling())
    assert episode.sequence().token_ids == [*TOKENS.prompt(demanded), TOKENS.end_id]
    assert episode.sequence().mask[-2:] == [False, True]
    assert len(episode.sequence().logprobs) == len(episode.sequence().mask)


@pytest.mark.parametrize(
    "messages",
    [
        START,
        (*START, Message("assistant", "a")),
        (START[0], Message("user", "Other?"), Message("assistant", "a"), Message("user", "b")),
        (*START, Message("user", "a"), Message("user", "b")),
    ],
)
async def test_a_history_that_was_rewritten_is_refused(messages: tuple[Message, ...]) -> None:
    _, episode = scripted([turn([TOKENS.end_id])])
    await episode.chat(START, Sampling())
    with pytest.raises(ValueError, match="episode 'e'"):
        await episode.chat(messages, Sampling())


async def rollouts(policy: EnginePolicy, num: int, *, top_p: float = 1.0) -> list[tuple[Trajectory, PolicyEpisode]]:
    """Episodes of the agent loop: a random policy breaks the format, is told so, and goes on to its limit of steps."""
    settings = AgentSettings(prompt="agent_brief", max_steps=3, max_turn_tokens=8, force_answer=False)
    web = MemoryWeb({})
    toolbox = Toolbox(web, web, ScriptedModel([]), settings)

    async def one(number: int) -> tuple[Trajectory, PolicyEpisode]:
        episode = policy.episode(f"r{number:04d}")
        trajectory = await run_episode(
            episode,
            toolbox,
            trajectory_id=str(number),
            qa_id="q",
            question=f"Where was number {number // 8} born?",
            settings=settings,
            mode=CotMode.SHORT,
            sampling=Sampling(temperature=1.0, top_p=top_p),
            seed=number,
        )
        episode.close()
        return trajectory, episode

    return list(await asyncio.gather(*(one(number) for number in range(num))))


class RecordingEngine:
    """The real engine; what went in and came out is noted for each session."""

    def __init__(self, engine: TorchEngine) -> None:
        self._engine = engine
        self.turns: dict[str, list[tuple[list[int], Generation]]] = {}

    def open(self, session: str) -> None:
        self._engine.open(session)
        self.turns[session] = []

    def release(self, session: str) -> None:
        self._engine.release(session)

    async def generate(self, ids: Sequence[int], sampling: TokenSampling, *, session: str) -> Generation:
        generation = await self._engine.generate(ids, sampling, session=session)
        self.turns[session].append((list(ids), generation))
        return generation


@pytest.mark.parametrize("num", [40, pytest.param(1000, marks=pytest.mark.slow)])
async def test_what_was_sampled_is_what_is_trained(checkpoint: Path, model: PreTrainedModel, num: int) -> None:
    """Every masked token and its log-probability is one that the engine sampled, at its place, and no other is masked."""
    async with Policy(checkpoint, SETTINGS) as policy:
        recording = RecordingEngine(policy.engine)
        played = await rollouts(EnginePolicy(recording, policy.tokens, name="toy"), num)
    for number, (trajectory, episode) in enumerate(played):
        token_ids, mask, logprobs = episode.sequence()
        turns = recording.turns[f"r{number:04d}"]
        assert len(turns) == len(trajectory.steps)
        expected_mask, expected_logprobs = [False] * len(token_ids), [0.0] * len(token_ids)
        for ids, generation in turns:
            start, end = len(ids), len(ids) + len(generation.token_ids)
            assert token_ids[:end] == ids + generation.token_ids
            expected_mask[start:end] = [True] * (end - start)
            expected_logprobs[start:end] = generation.logprobs
        assert mask == expected_mask
        assert logprobs == expected_logprobs
        assert policy.tokens.decode(token_ids).startswith("<|im_start|>system\n")
    stats = policy.engine.stats
    assert stats.cached_tokens + stats.shared_tokens > 0.7 * stats.prompt_tokens
    for _, episode in played[:20]:
        token_ids, mask, logprobs = episode.sequence()
        expected = forward_logprobs(model, token_ids)
        gaps = [
            abs(float(expected[at - 1, id_]) - logprob)
            for at, (id_, trained, logprob) in enumerate(zip(token_ids, mask, logprobs, strict=True))
            if trained
        ]
        assert max(gaps) < 1e-4


async def test_rollouts_repeat_under_their_seed(checkpoint: Path) -> None:
    """Company and order differ: 12 episodes, then the first 5 of them alone."""
    sequences = []
    for num in (12, 5):
        async with Policy(checkpoint, SETTINGS) as policy:
            sequences.append([episode.sequence() for _, episode in await rollouts(policy, num, top_p=0.9)])
    assert [sequence.token_ids for sequence in sequences[0][:5]] == [sequence.token_ids for sequence in sequences[1]]
    assert len({tuple(sequence.token_ids) for sequence in sequences[0]}) == 12  # those of one question differ too


async def test_a_context_that_fills_up_ends_the_episode(checkpoint: Path) -> None:
    async with Policy(checkpoint, SETTINGS.model_copy(update={"max_context": 330})) as policy:
        played = await rollouts(policy, 4)
    assert {trajectory.status for trajectory, _ in played} <= {Status.CONTEXT_FULL, Status.INVALID_FORMAT}
    assert any(trajectory.status is Status.CONTEXT_FULL for trajectory, _ in played)
    assert all(len(episode.sequence().token_ids) <= 330 for _, episode in played)


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot load"):
        Policy(tmp_path, SETTINGS)
