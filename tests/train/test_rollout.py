"""Rollouts through the real agent loop: rewards, whose fault a failure is, groups, seeds, and what a scripted policy wrote."""

import asyncio
import json
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pytest

from tests.fixtures import MemoryWeb, Reply, RuleModel, ScriptedModel, answer_turn, call_turn, make_page, summary
from webdancer.agent.tools import Toolbox
from webdancer.config import AgentSettings, RlSettings
from webdancer.errors import ContextFullError, ModelError
from webdancer.llm.protocol import ChatReply, Message, Sampling
from webdancer.records import QA, QAKind, Status, Usage
from webdancer.train.dapo import GroupSignal
from webdancer.train.rollout import Draw, DropReason, QuestionOrder, Roller, RolloutGroup
from webdancer.web.protocol import ToolFailure

VELM = make_page("http://w.example/velm", "Velm", "Velm lies on the Orn.")
RIGHT, WRONG = answer_turn("I read it.", "Orn"), answer_turn("I guess.", "Tarn")
SEARCH = call_turn("Where is it?", "search", query=["Velm"])
MISSING = call_turn("I know an address.", "visit", url="http://w.example/nothing", goal="river")
BROKEN = call_turn("Look.", "visit", url="http://w.example/broken", goal="river")


class Tokens(NamedTuple):
    token_ids: list[int]
    mask: list[bool]
    logprobs: list[float]


class ScriptedEpisode:
    """A policy that writes its turns from a list; one token a turn, ten tokens of prompt and of observations."""

    name = "scripted"

    def __init__(self, replies: Sequence[Reply]) -> None:
        self._model, self.num_turns, self.is_closed = ScriptedModel(replies), 0, False
        self.samplings: list[Sampling] = []

    async def chat(self, messages: Sequence[Message], sampling: Sampling) -> ChatReply:
        self.samplings.append(sampling)
        reply = await self._model.chat(messages, sampling)
        self.num_turns += 1
        return reply

    def sequence(self) -> Tokens:
        mask = ([False] * 10 + [True]) * self.num_turns
        return Tokens(list(range(len(mask))), mask, [-0.5 if m else 0.0 for m in mask])

    def close(self) -> None:
        self.is_closed = True


class ScriptedPolicy:
    """One list of turns for each rollout of a question, by its number."""

    def __init__(self, scripts: Sequence[Sequence[Reply]]) -> None:
        self._scripts, self.episodes = scripts, dict[str, ScriptedEpisode]()

    def episode(self, key: str) -> ScriptedEpisode:
        self.episodes[key] = ScriptedEpisode(self._scripts[int(key.rsplit("-r", 1)[1])])
        return self.episodes[key]


def qa(number: int = 0) -> QA:
    return QA(
        id=f"q{number}",
        question="On which river is Velm?",
        answer="Orn",
        kind=QAKind.MULTI_HOP,
        evidence_urls=(VELM.url,),
    )


def judging(messages: Sequence[Message]) -> str:
    return json.dumps({"reason": "compared", "correct": "\nOrn\n" in messages[-1].content.split("<answer>")[-1]})


def roller(
    scripts: Sequence[Sequence[Reply]],
    *,
    judge: Callable[[Sequence[Message]], str] | None = None,
    agent: AgentSettings | None = None,
    max_context: int = 1000,
    max_batch: int = 512,
    seed: int = 3,
    **settings: object,
) -> tuple[Roller, ScriptedPolicy]:
    policy = ScriptedPolicy(scripts)
    web = MemoryWeb({VELM.url: VELM, "http://w.example/broken": ToolFailure("connection refused")})
    toolbox = Toolbox(web, web, RuleModel(lambda _: summary("Velm lies on the Orn.", "The Orn.")), AgentSettings())
    rl = RlSettings.model_validate({"rollouts_per_group": len(scripts), **settings})
    made = Roller(
        policy,
        toolbox,
        RuleModel(judge or judging),
        agent_settings=agent or AgentSettings(),
        settings=rl,
        max_context=max_context,
        max_batch=max_batch,
        seed=seed,
    )
    return made, policy


async def group_of(scripts: Sequence[Sequence[Reply]], **settings: object) -> RolloutGroup:
    made, _ = roller(scripts, **settings)  # type: ignore[arg-type]
    return await made.group(Draw(7, 0, qa()), policy_version=4)


def totals(group: RolloutGroup) -> list[float]:
    return [rollout.sample.reward.total for rollout in group.rollouts]


async def test_a_group_holds_text_tokens_rewards_and_advantages():
    group = await group_of([[SEARCH, RIGHT], [WRONG], [WRONG]])
    assert (group.id, group.position, group.signal) == ("000007-q0", 7, GroupSignal.MIXED)
    assert totals(group) == pytest.approx([1.0, 0.1, 0.1])
    # mean 0.4, sample standard deviation 0.5196152 (and 0.0001)
    assert [r.sample.advantage for r in group.rollouts] == pytest.approx([1.1544783, -0.5772392, -0.5772392], rel=1e-6)
    first = group.rollouts[0]
    assert first.sample.id == first.trajectory.id == "000007-q0-r0"
    assert first.trajectory.steps[0].tool == "search"
    assert first.sample.mask == (*[False] * 10, True, *[False] * 10, True)
    assert first.sample.logprobs[10] == -0.5
    assert first.sample.policy_version == 4
    assert first.sample.reward.judge_text == "compared"


@pytest.mark.parametrize(
    ("script", "format_score", "answer_score", "status"),
    [
        ([RIGHT], 1.0, 1.0, Status.ANSWERED),
        ([WRONG], 1.0, 0.0, Status.ANSWERED),
        (["The Orn, surely.", RIGHT], 0.0, 1.0, Status.ANSWERED),  # one bad turn spoils the format, not the answer
        ([call_turn("Look.", "browse", url="x"), RIGHT], 0.0, 1.0, Status.ANSWERED),
        (["<think>\nx\n</think>\n<tool_call>\n{search}\n</tool_call>", RIGHT], 0.0, 1.0, Status.ANSWERED),
        ([SEARCH, SEARCH], 0.0, 0.0, Status.STEP_LIMIT),
        ([SEARCH, ContextFullError("full")], 0.0, 0.0, Status.CONTEXT_FULL),
        (["?", "?"], 0.0, 0.0, Status.INVALID_FORMAT),
    ],
)
async def test_format_and_answer(script: list[Reply], format_score: float, answer_score: float, status: Status):
    group = await group_of([script, [WRONG]], agent=AgentSettings(max_steps=2, max_invalid_turns=2))
    reward = group.rollouts[0].sample.reward
    assert (reward.format, reward.answer) == (format_score, answer_score)
    assert reward.total == pytest.approx(0.1 * format_score + 0.9 * answer_score)
    assert group.rollouts[0].sample.status is status


async def test_what_a_group_teaches_hangs_on_its_answers_not_on_its_rewards():
    group = await group_of([[WRONG], ["?", "?"]], agent=AgentSettings(max_steps=2, max_invalid_turns=2))
    assert totals(group) == pytest.approx([0.1, 0.0])
    assert group.signal is GroupSignal.ALL_WRONG


async def test_no_answer_is_forced():
    group = await group_of([[SEARCH, RIGHT], [WRONG]], agent=AgentSettings(max_steps=1, force_answer=True))
    assert group.rollouts[0].trajectory.status is Status.STEP_LIMIT


async def test_a_page_that_does_not_exist_is_the_policy_s_own_mistake():
    group = await group_of([[MISSING, RIGHT], [WRONG]])
    assert totals(group) == pytest.approx([1.0, 0.1])
    assert group.num_dropped == {}


async def test_a_failed_tool_drops_the_rollout_and_the_others_are_compared_among_themselves():
    group = await group_of([[BROKEN, RIGHT], [RIGHT], [WRONG]])
    assert group.num_dropped == {DropReason.TOOL_FAILED: 1}
    # mean 0.55, standard deviation 0.6363961 (and 0.0001): ±0.45 / 0.6364961
    assert [r.sample.advantage for r in group.rollouts] == pytest.approx([0.7069956, -0.7069956], rel=1e-6)


async def test_a_failed_engine_or_judge_drops_the_rollout():
    group = await group_of([[ModelError("engine down")], [RIGHT], [WRONG]], judge=lambda m: "no JSON")
    assert group.num_dropped == {DropReason.MODEL_ERROR: 1, DropReason.JUDGE_FAILED: 2}
    assert (group.rollouts, group.signal) == ((), None)


async def test_a_group_with_one_rollout_left_has_no_signal():
    group = await group_of([[BROKEN, RIGHT], [RIGHT]])
    assert len(group.rollouts) == 1
    assert group.signal is None


async def test_an_unanswered_episode_counts_as_wrong_without_asking_the_judge():
    asked: list[str] = []

    def watching(messages: Sequence[Message]) -> str:
        asked.append(messages[-1].content)
        return judging(messages)

    group = await group_of([[SEARCH] * 2, [SEARCH] * 2], judge=watching, agent=AgentSettings(max_steps=2))
    assert group.signal is GroupSignal.ALL_WRONG
    assert asked == []


async def test_soft_overlong_punishment_comes_off_the_reward():
    # 22 tokens of 24, of which the last 4 are the buffer: (22 - 20) / 4
    group = await group_of([[SEARCH, RIGHT], [WRONG]], overlong="soft", overlong_buffer=4, max_context=24)
    assert totals(group) == pytest.approx([0.5, 0.1])
    assert group.rollouts[0].sample.reward.answer == 1.0


async def test_an_observation_that_fills_the_context_is_punished_as_overlong():
    # The policy's last token is the 11th; what came behind it left no room for another turn.
    full = [SEARCH, ContextFullError("full")]
    group = await group_of([full, [WRONG]], overlong="soft", overlong_buffer=4, max_context=1000)
    assert len(group.rollouts[0].sample.token_ids) == 11
    assert totals(group) == pytest.approx([-1.0, 0.1])


async def test_an_episode_that_ran_out_of_time_is_dropped_and_is_no_wrong_answer():
    class Slow(ScriptedEpisode):
        async def chat(self, messages: Sequence[Message], sampling: Sampling) -> ChatReply:
            await asyncio.sleep(30)
            return await super().chat(messages, sampling)

    made, _ = roller([[RIGHT], [RIGHT], [WRONG]], agent=AgentSettings(max_seconds=1.0))
    opened = made.open(Draw(0, 0, qa()))
    group = await made.group(Draw(0, 0, qa()), policy_version=0, episodes=[Slow([RIGHT]), *opened[1:]])
    assert group.num_dropped == {DropReason.TIME_LIMIT: 1}
    assert totals(group) == pytest.approx([1.0, 0.1])


async def test_every_episode_is_closed_whatever_became_of_it():
    made, policy = roller([[RIGHT], [ModelError("down")], [BROKEN, RIGHT]])
    await made.group(Draw(0, 0, qa()), policy_version=0)
    assert [episode.is_closed for episode in policy.episodes.values()] == [True] * 3


async def test_seeds_differ_by_run_question_epoch_and_rollout_and_follow_from_nothing_else():
    async def seeds(draw: Draw, seed: int = 3) -> list[int]:
        made, policy = roller([[RIGHT]] * 3, seed=seed, temperature=0.8, top_p=0.9)
        group = await made.group(draw, policy_version=0)
        samplings = [policy.episodes[draw.rollout_id(n)].samplings[0] for n in range(3)]
        assert {(s.temperature, s.top_p) for s in samplings} == {(0.8, 0.9)}
        assert [s.seed for s in samplings] == [r.trajectory.seed for r in group.rollouts]
        return [r.trajectory.seed for r in group.rollouts]

    first = await seeds(Draw(0, 0, qa()))
    assert await seeds(Draw(9, 0, qa())) == first  # the position is no part of it
    others = [await seeds(Draw(0, 1, qa())), await seeds(Draw(0, 0, qa(1))), await seeds(Draw(0, 0, qa()), seed=4)]
    assert len({seed for seeds_ in (first, *others) for seed in seeds_}) == 12


@pytest.mark.parametrize(("concurrency", "max_batch", "expected"), [(6, 100, 6), (100, 6, 6), (100, 3, 3)])
async def test_no_more_episodes_at_once_than_concurrency_and_the_engine_s_rows_allow(
    concurrency: int, max_batch: int, expected: int
):
    running, most = 0, 0

    class Counting(ScriptedEpisode):
        async def chat(self, messages: Sequence[Message], sampling: Sampling) -> ChatReply:
            nonlocal running, most
            running += 1
            most = max(most, running)
            await asyncio.sleep(0.005)
            running -= 1
            return ChatReply(RIGHT, usage=Usage(llm_calls=1))

    made, policy = roller([[RIGHT]] * 4, concurrency=concurrency, max_batch=max_batch)
    policy.episode = lambda key: Counting([])  # type: ignore[method-assign]
    await asyncio.gather(*(made.group(Draw(n, 0, qa(n)), policy_version=0) for n in range(5)))
    assert most == expected


def test_a_wave_is_never_smaller_than_a_group():
    """A deterministic engine waits for all episodes of a wave, also where it has fewer rows; no clock runs there."""
    assert roller([[RIGHT]] * 4, deterministic=True, max_batch=3)[0].max_episodes == 4
    assert roller([[RIGHT]] * 4, deterministic=True, max_batch=9)[0].max_episodes == 9


def test_questions_come_in_a_new_order_each_epoch_and_each_once_an_epoch():
    qas = [qa(n) for n in range(6)]
    order = QuestionOrder(qas, seed=1)
    draws = [order.draw(position) for position in range(12)]
    first, second = [d.qa.id for d in draws[:6]], [d.qa.id for d in draws[6:]]
    assert sorted(first) == sorted(second) == [f"q{n}" for n in range(6)]
    assert first != second
    assert [d.epoch for d in draws] == [0] * 6 + [1] * 6
    again = QuestionOrder(qas[::-1], seed=1)
    assert [again.draw(p).qa.id for p in (11, 3)] == [draws[11].qa.id, draws[3].qa.id]
    assert [QuestionOrder(qas, seed=2).draw(p).qa.id for p in range(6)] != first
    with pytest.raises(ValueError, match="no questions"):
        QuestionOrder([], seed=0)
