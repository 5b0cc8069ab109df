"""Which tokenizers are taken, and what is said of the others."""

import pytest
from chat_tokenizers import BUILDERS, CALL, CONTROLS, PLAIN_TEMPLATE, build_tokenizer, train_bpe, wrap
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from webdancer.errors import ConfigError
from webdancer.llm.protocol import Message
from webdancer.train.tokens import ChatTokens

LLAMA = (
    "{% for m in messages %}<|start_header_id|>{{ m.role }}<|end_header_id|>\n\n{{ m.content }}<|eot_id|>{% endfor %}"
)
OPENING = "{{ '<|im_start|>assistant\n' }}"


@pytest.mark.parametrize("name", BUILDERS)
def test_a_saved_tokenizer_is_the_same(name, tmp_path):
    build_tokenizer(name).save_pretrained(tmp_path)
    loaded, built = ChatTokens.load(tmp_path), ChatTokens(build_tokenizer(name))
    messages = [Message("system", "S <think>"), Message("user", "Who?")]
    assert loaded.prompt(messages) == built.prompt(messages)
    turn = "<think>\nI look.\n</think>\n<answer>\nVelm\n</answer>"
    assert loaded.turn(turn) == built.turn(turn)
    assert (loaded.end_id, loaded.stop_ids, loaded.pad_id, loaded.vocab_size, loaded.prefill) == (
        (built.end_id, built.stop_ids, built.pad_id, built.vocab_size, built.prefill)
    )


@pytest.mark.parametrize(
    ("template", "got"),
    [
        (LLAMA, r"got '<\|start_header_id\|>system"),
        (PLAIN_TEMPLATE.replace(OPENING, ""), r"flood\?<\|im_end\|>\\n', expected '"),
        (
            PLAIN_TEMPLATE.replace(OPENING, "{{ '<|im_start|>assistant\n<think>\n\n</think>\n\n' }}"),
            "nothing or a <think>",
        ),
        (PLAIN_TEMPLATE.replace("m.content", "m.content | upper"), "MIND THE TIDES"),
        ("Today. " + PLAIN_TEMPLATE, "got 'Today. "),
        (PLAIN_TEMPLATE.replace("assistant\n", "{{ messages | length }}"), "expected '<"),
        ("{{ raise_exception('no system role') }}", "cannot be used: no system role; expected a ChatML template"),
        (None, "cannot be used: .*chat_template.*; expected a ChatML template"),
    ],
)
def test_a_template_that_is_no_chatml_is_named(template, got):
    tokenizer = wrap(train_bpe(), template=template, name_or_path="some/model")
    with pytest.raises(ConfigError, match=got) as error:
        ChatTokens(tokenizer)
    assert "the chat template of some/model" in str(error.value)


def test_an_opening_that_changes_within_a_conversation_is_no_chatml():
    changing = PLAIN_TEMPLATE.replace(OPENING, OPENING + "{% if messages | length > 2 %}{{ '<think>\n' }}{% endif %}")
    with pytest.raises(ConfigError, match=r"ebb\?<\|im_end\|>\\n<\|im_start\|>assistant\\n<think>"):
        ChatTokens(wrap(train_bpe(), template=changing))


def test_a_switch_for_thoughts_is_set():
    switched = PLAIN_TEMPLATE.replace(
        OPENING,
        OPENING + "{% if enable_thinking %}{{ '<think>\n' }}{% else %}{{ '<think>\n\n</think>\n\n' }}{% endif %}",
    )
    assert ChatTokens(wrap(train_bpe(), template=switched)).prefill == "<think>\n"


def test_turn_markers_must_be_tokens():
    tokenizer = wrap(train_bpe(), controls=CONTROLS[:2])
    with pytest.raises(ConfigError, match=r"has no token <\|im_end\|>; expected both turn markers"):
        ChatTokens(tokenizer)


def test_a_tokenizer_of_another_kind_is_named():
    words = Tokenizer(models.WordLevel({"a": 0, "[UNK]": 1}, unk_token="[UNK]"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(ConfigError, match="no byte-level BPE: got the model WordLevel behind Whitespace"):
        ChatTokens(wrap(words))
    holes = Tokenizer(models.BPE({"a": 0, "b": 1}, []))
    holes.pre_tokenizer = pre_tokenizers.ByteLevel()
    with pytest.raises(ConfigError, match="got the model BPE behind ByteLevel, 254 bytes without a token"):
        ChatTokens(wrap(holes))


def test_a_tokenizer_that_loses_text_is_refused():
    losing = train_bpe()
    losing.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    with pytest.raises(ConfigError, match="does not keep text: got \"Twowords,don't"):
        ChatTokens(wrap(losing))


def test_settings_of_the_tokenizer_that_would_change_text_are_left_out():
    backend = train_bpe()
    backend.normalizer = normalizers.Lowercase()
    backend.enable_truncation(4)
    backend.enable_padding(length=64)
    tokens = ChatTokens(wrap(backend, plain=CALL))
    text = "The LIGHTHOUSE e\u0301 of Velm <tool_call>"
    assert tokens.decode(tokens.text(text)) == text
    assert tokens.text("") == []


def test_a_missing_tokenizer_is_named(tmp_path):
    with pytest.raises(ConfigError, match=f"cannot load a tokenizer from {tmp_path}"):
        ChatTokens.load(tmp_path)
