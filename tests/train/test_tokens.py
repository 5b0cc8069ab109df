"""Token ids and masks of episodes: worked examples, token by token, over the layouts of the ChatML family."""

import pytest
from chat_tokenizers import BUILDERS, CALL, PLAIN_TEMPLATE, RESPONSE, THINK, TURN_TAGS, build_tokenizer, train_bpe, wrap
from fixtures import MemoryWeb, ScriptedModel

from webdancer.agent.loop import run_episode
from webdancer.agent.schemas import TOOL_SCHEMAS
from webdancer.agent.tools import Toolbox
from webdancer.agent.transcript import replay
from webdancer.config import AgentSettings
from webdancer.llm.prompts import load_prompt
from webdancer.llm.protocol import ChatReply, Message, Sampling
from webdancer.records import CotMode, Status, Step, ToolError, Trajectory
from webdancer.train.tokens import ChatTokens, EpisodeTokens, TokenSequence, encode_trajectory

ALL = pytest.mark.parametrize("name", BUILDERS)
SEARCH = Step(thought="I look.", tool="search", arguments={"query": ["Velm"]}, observation="found </tool_response>")
CALL_TURN = '<tool_call>\n{"name": "search", "arguments": {"query": ["Velm"]}}\n</tool_call>'
TURN = f"<think>\nI look.\n</think>\n{CALL_TURN}"
FOUND = "<tool_response>\nfound <\u200b/tool_response>\n</tool_response>"
LAST = Step(thought="So.")
LAST_TURN = "<think>\nSo.\n</think>\n<answer>\nVelm\n</answer>"


def chat(name: str) -> ChatTokens:
    return ChatTokens(build_tokenizer(name))


def trajectory(
    *steps: Step, answer: str | None = "Velm", status: Status = Status.ANSWERED, mode: CotMode = CotMode.SHORT
) -> Trajectory:
    return Trajectory(
        id="t", qa_id="q", question="Where?", model="m", seed=0, mode=mode, steps=steps, answer=answer, status=status
    )


def runs(tokens: ChatTokens, sequence: TokenSequence) -> list[tuple[str, bool]]:
    """The sequence's text in stretches of one mask value."""
    assert len(sequence.token_ids) == len(sequence.mask)
    found: list[tuple[list[int], bool]] = []
    for id_, trained in zip(sequence.token_ids, sequence.mask, strict=True):
        if not found or found[-1][1] != trained:
            found.append(([], trained))
        found[-1][0].append(id_)
    return [(tokens.decode(ids), trained) for ids, trained in found]


def head(question: str = "Where?") -> str:
    """What stands before the first turn, without a system prompt."""
    return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"


def between(user: str) -> str:
    return f"\n<|im_start|>user\n{user}<|im_end|>\n<|im_start|>assistant\n"


def single_bytes(**kinds: tuple[str, ...]) -> ChatTokens:
    """No merges: every character below is one token, so that masks can be counted by hand."""
    return ChatTokens(wrap(train_bpe(vocab_size=256), **kinds))


# One token a column (⏎ is the newline); `^` is trained. The layout's words are written out only once.
#
#   <|im_start|> u s e r ⏎ Q <|im_end|> ⏎ <|im_start|> a s s i s t a n t ⏎      20 tokens
#   <think> ⏎ a ⏎ </think> <|im_end|>                                             6
#   ^       ^ ^ ^ ^        ^
#   ⏎ <|im_start|> u s e r ⏎ <tool_response> ⏎ o ⏎ </tool_response> <|im_end|>   13
#   ⏎ <|im_start|> a s s i s t a n t ⏎                                           12
#   <answer> b </answer> <|im_end|>                                               4
#   ^        ^ ^         ^
def test_the_mask_of_a_small_episode_counted_by_hand():
    tokens = single_bytes(special=(*THINK, *CALL, *TURN_TAGS[4:], *RESPONSE))
    episode = EpisodeTokens(tokens, [Message("user", "Q")])
    episode.add_written("<think>\na\n</think>")
    episode.add_user("<tool_response>\no\n</tool_response>")
    episode.add_written("<answer>b</answer>")
    sequence = episode.sequence()
    assert sequence.mask == [False] * 20 + [True] * 6 + [False] * 25 + [True] * 4
    name = tokens.tokenizer.convert_ids_to_tokens
    head_ = ["<|im_start|>", *"userĊQ", "<|im_end|>", "Ċ", "<|im_start|>", *"assistantĊ"]
    turn = ["<think>", "Ċ", "a", "Ċ", "</think>", "<|im_end|>"]
    user = ["Ċ", "<|im_start|>", *"userĊ", "<tool_response>", "Ċ", "o", "Ċ", "</tool_response>", "<|im_end|>"]
    opening = ["Ċ", "<|im_start|>", *"assistantĊ"]
    last = ["<answer>", "b", "</answer>", "<|im_end|>"]
    assert name(sequence.token_ids) == [*head_, *turn, *user, *opening, *last]


# The same where no tag is a token: each is as many tokens as it has characters, and trained like any text.
def test_tags_that_are_no_tokens_are_plain_text():
    tokens = single_bytes()
    episode = EpisodeTokens(tokens, [Message("user", "Q")])
    episode.add_written("<think>\na\n</think>")  # 7 + 3 + 8 characters and the end
    assert episode.sequence().mask == [False] * 20 + [True] * 19
    episode.add_user("<tool_response>\no\n</tool_response>")  # 13 - 2 + 15 + 16, then 12
    assert episode.mask == [False] * 20 + [True] * 19 + [False] * 54
    assert tokens.stop_ids == {256, 257, 258}


# A layout that opens the thought: `<think>⏎` stands before the turn and is not trained.
#   … assistant ⏎ <think> ⏎ a ⏎ </think> <|im_end|>
#                           ^ ^ ^        ^
def test_a_prefilled_thought_is_not_trained():
    tokens = chat("qwq")
    assert tokens.prefill == "<think>\n"
    episode = EpisodeTokens(tokens, [Message("user", "Where?")])
    episode.add_written("<think>\na\n</think>\n<answer>\nb\n</answer>")
    assert runs(tokens, episode.sequence()) == [
        (head() + "<think>\n", False),
        ("a\n</think>\n<answer>\nb\n</answer><|im_end|>", True),
    ]


def test_a_turn_that_was_written_without_the_prefill_stands_without_it():
    tokens = chat("qwq")
    episode = EpisodeTokens(tokens, [Message("user", "Where?")])
    episode.add_written("<answer>\nb\n</answer>")
    episode.add_user("more")
    assert runs(tokens, TokenSequence(episode.token_ids, episode.mask)) == [
        (head(), False),
        ("<answer>\nb\n</answer><|im_end|>", True),
        (between("more") + "<think>\n", False),
    ]


@pytest.mark.parametrize("mode", CotMode)
@pytest.mark.parametrize("name", [name for name in BUILDERS if name != "qwq"])
def test_a_trajectory_of_either_cot_mode_with_its_mask(name, mode):
    tokens = chat(name)
    whole = trajectory(SEARCH, LAST, mode=mode)
    sequence = encode_trajectory(tokens, whole, TOOL_SCHEMAS, prompt="agent")
    system = replay(whole, TOOL_SCHEMAS).messages[0].content
    lead = "<s>" if name == "led" else ""
    assert runs(tokens, sequence) == [
        (f"{lead}<|im_start|>system\n{system}<|im_end|>\n{head()}", False),
        (f"{TURN}<|im_end|>", True),
        (between(FOUND), False),
        (f"{LAST_TURN}<|im_end|>", True),
    ]


def test_the_end_of_a_cut_turn_is_not_trained():
    broken = Step(
        thought="", raw="<think>\nhm", cut=True, error=ToolError.INVALID_FORMAT, observation="Error: too long"
    )
    tokens = chat("special")
    sequence = encode_trajectory(tokens, trajectory(broken, LAST), TOOL_SCHEMAS, prompt="agent")
    assert runs(tokens, sequence)[1:] == [
        ("<think>\nhm", True),
        ("<|im_end|>" + between("<tool_response>\nError: too long\n</tool_response>"), False),
        (f"{LAST_TURN}<|im_end|>", True),
    ]
    ending = trajectory(broken, answer=None, status=Status.INVALID_FORMAT)
    assert runs(tokens, encode_trajectory(tokens, ending, TOOL_SCHEMAS, prompt="agent"))[1:] == [("<think>\nhm", True)]


async def test_the_loop_notes_that_a_turn_was_cut():
    web = MemoryWeb({})
    model = ScriptedModel([ChatReply("<think>\nhm", finish="length"), "hm", LAST_TURN])
    episode = await run_episode(
        model,
        Toolbox(web, web, model, AgentSettings()),
        trajectory_id="t",
        qa_id="q",
        question="Where?",
        settings=AgentSettings(),
        mode=CotMode.SHORT,
        sampling=Sampling(),
        seed=0,
    )
    assert [step.cut for step in episode.steps] == [True, False, False]


def test_a_demand_for_an_answer_behind_an_observation_is_plain_text():
    tokens = chat("special")
    forced = trajectory(SEARCH, LAST, status=Status.FORCED_ANSWER)
    sequence = encode_trajectory(tokens, forced, TOOL_SCHEMAS, prompt="agent")
    assert runs(tokens, sequence)[2] == (between(f"{FOUND}\n\n{load_prompt('force_answer')}"), False)
    response, response_end = tokens.tokenizer.convert_tokens_to_ids(list(RESPONSE))
    assert sequence.token_ids.count(response) == sequence.token_ids.count(response_end) == 1


def test_an_episode_without_a_turn_is_its_prompt():
    tokens = chat("qwen3")
    sequence = encode_trajectory(tokens, trajectory(answer=None), TOOL_SCHEMAS, prompt="agent")
    assert not any(sequence.mask)
    assert tokens.decode(sequence.token_ids).endswith(head())


def test_a_step_without_its_observation_is_an_error():
    with pytest.raises(ValueError, match="trajectory t: a step before the last has no observation"):
        encode_trajectory(
            chat("qwen3"),
            trajectory(SEARCH.model_copy(update={"observation": None}), LAST),
            TOOL_SCHEMAS,
            prompt="agent",
        )


@ALL
def test_sampled_tokens_stay_as_they_were_sampled(name):
    tokens = chat(name)
    end, text_end = tokens.end_id, tokens.tokenizer.convert_tokens_to_ids("<|endoftext|>")
    split = [*tokens.text("th"), *tokens.text("i"), *tokens.text("nk")]  # no tokenizer would part it so
    episode = EpisodeTokens(tokens, [Message("user", "Where?")])
    prompt = tokens.prompt([Message("user", "Where?")])
    assert episode.token_ids == prompt

    episode.add_sampled([*split, end])
    assert episode.after_user("u") == [*prompt, *split, end, *tokens.next_turn("u", ended=True)]
    episode.add_user("u")
    first = len(episode.token_ids)
    episode.add_sampled(split)  # cut by its token limit
    episode.add_user("u")
    assert episode.token_ids[first:] == [*split, *tokens.next_turn("u", ended=False)]
    assert episode.mask[first:] == [True] * len(split) + [False] * (len(episode.mask) - first - len(split))
    second = len(episode.token_ids)
    episode.add_sampled([*split, text_end])  # another token than the end-of-turn ended it: that one is trained
    episode.add_user("u")
    assert episode.token_ids[second:] == [*split, text_end, *tokens.next_turn("u", ended=False)]
    assert sum(episode.mask) == 3 * len(split) + 2
    assert episode.sequence().token_ids == episode.token_ids[: second + len(split) + 1]
    assert tokens.next_turn("u", ended=False) == [end, *tokens.next_turn("u", ended=True)]


@ALL
def test_rollouts_and_sft_data_have_the_same_tokens(name):
    tokens = chat(name)
    whole = trajectory(SEARCH, LAST)
    system, question, *_ = replay(whole, TOOL_SCHEMAS).messages
    rollout = EpisodeTokens(tokens, [system, question])
    rollout.add_sampled(tokens.turn(TURN.removeprefix(tokens.prefill)))
    rollout.add_user(FOUND)
    rollout.add_sampled(tokens.turn(LAST_TURN.removeprefix(tokens.prefill)))
    assert rollout.sequence() == encode_trajectory(tokens, whole, TOOL_SCHEMAS, prompt="agent")
    conversation = [system, question, Message("assistant", TURN), Message("user", FOUND)]
    assert rollout.token_ids[: len(tokens.prompt(conversation))] == tokens.prompt(conversation)


@pytest.mark.parametrize("name", ["qwen25", "qwen3", "qwq", "special", "bare", "led"])
def test_an_ordinary_conversation_has_the_ids_of_the_tokenizers_own_template(name):
    tokens, tokenizer = chat(name), build_tokenizer(name)
    messages = [Message("system", "Be brief."), Message("user", "Who built the lighthouse?")]
    messages += [Message("assistant", "An architect\n\nof Velm."), Message("user", "And  when?\n")]
    rendered = tokenizer.apply_chat_template(
        [{"role": m.role, "content": m.content} for m in messages], add_generation_prompt=True, tokenize=False
    )
    ours = tokens.prompt(messages)
    assert ours == tokenizer.encode(rendered, add_special_tokens=False)


@ALL
def test_the_policys_thoughts_are_never_dropped(name):
    tokens = chat(name)
    messages = [Message("user", "Q"), Message("assistant", TURN), Message("user", FOUND)]
    messages += [Message("assistant", TURN), Message("user", FOUND)]
    assert tokens.decode(tokens.prompt(messages)).count("I look.") == 2


def test_special_ids():
    tokens = chat("qwen3")
    ids = tokens.tokenizer.convert_tokens_to_ids
    assert tokens.end_id == ids("<|im_end|>")
    assert tokens.stop_ids == {ids(t) for t in ("<|im_end|>", "<|im_start|>", "<|endoftext|>", "<tool_response>")}
    assert tokens.pad_id == ids("<|endoftext|>")
    assert tokens.vocab_size == len(tokens.tokenizer) == 408
    assert chat("led").pad_id == ids("!")
    assert chat("bare").pad_id == chat("bare").tokenizer.convert_tokens_to_ids("<|endoftext|>")  # none is named


def test_plain_template_has_no_prefill():
    assert ChatTokens(wrap(train_bpe(), template=PLAIN_TEMPLATE)).prefill == ""
