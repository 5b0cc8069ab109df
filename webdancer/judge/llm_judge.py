"""Asks the judge role whether an answer equals the reference (the paper's correctness filter, answer reward and metric).

The normalised exact match stands beside the judge's word, so that a run can be scored without a model as well.
"""

from pydantic import BaseModel, StrictBool

from webdancer.judge.match import exact_match
from webdancer.llm.prompts import fill_prompt
from webdancer.llm.protocol import ChatModel, Sampling
from webdancer.llm.structured import ask_json
from webdancer.records import Judgement

_SAMPLING = Sampling(temperature=0.0)


class _JudgeReply(BaseModel):
    reason: str = ""
    correct: StrictBool


async def judge(model: ChatModel, *, question: str, reference: str, answer: str, max_reasks: int = 2) -> Judgement:
    """Judge `answer` against `reference`. An empty answer is wrong without asking.

    Raises:
        MalformedReply: the judge gave no usable verdict in `max_reasks` + 1 replies.
        ModelError: the judge's model failed.
    """
    if not answer.strip():
        return Judgement(correct=False, exact_match=False, text="The answer is empty.")
    prompt = fill_prompt("judge", question=question, reference=reference, answer=answer)
    reply = await ask_json(model, prompt, _JudgeReply, sampling=_SAMPLING, max_reasks=max_reasks)
    return Judgement(correct=reply.correct, exact_match=exact_match(reference, answer), text=reply.reason)
