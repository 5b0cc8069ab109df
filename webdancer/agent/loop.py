"""The one agent loop: teacher sampling, rollouts, evaluation and `ask` all run it (paper, section 3.1).

A model's mistake becomes an `Error: …` observation that names the violation, and the episode goes on until too many follow
each other. Every ending is a status; a bug of ours raises.

No stop sequence is set here: a model that goes on after its call and invents the observation must be seen doing so. Who wants
to save those tokens gives `Sampling(stop=("<tool_response>",))`; then a turn whose end is not the model's own, as far as the
endpoint tells (`ChatReply.cut_at`), is marked `cut`, and training teaches no end of turn there.

Long CoT wants a model that reasons. Of one that shows no reasoning the think block in the content is the thought, its earlier
thoughts stay in its input, and the trajectory says short CoT: the system prompt asks every model for that block, so it is no sign
of reasoning.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace

from webdancer.agent.format import (
    TOOL_ERRORS,
    ToolCall,
    Turn,
    Violation,
    describe_violations,
    neutralise,
    parse_turn,
    reasoning_of,
    whole_characters,
)
from webdancer.agent.tools import Toolbox
from webdancer.agent.transcript import Transcript
from webdancer.calls.outside import OutsideModel
from webdancer.calls.scope import call_scope
from webdancer.calls.tape import TimedOut
from webdancer.config import AgentSettings
from webdancer.errors import ContextFullError, ModelError
from webdancer.llm.protocol import ChatModel, ChatReply, Sampling
from webdancer.records import CotMode, Status, Step, ToolError, Trajectory, Usage

OnStep = Callable[[Step], None]
_NO_MORE_CALLS = "Error: no more tool calls were possible."


async def run_episode(
    model: ChatModel,
    toolbox: Toolbox,
    *,
    trajectory_id: str,
    qa_id: str,
    question: str,
    settings: AgentSettings,
    mode: CotMode,
    sampling: Sampling,
    seed: int,
    omit_thoughts: bool = False,
    on_turn: OnStep | None = None,
    on_step: OnStep | None = None,
) -> Trajectory:
    """Put one question to `model` and let it act until it answers or a limit is reached.

    `omit_thoughts` leaves the model's earlier thoughts out of its input, as the long-CoT teacher needs it. `usage` counts the
    model's own calls, not the summariser's. A forced answer may take `tool_timeout_s` longer than `max_seconds`. `on_turn` is
    told of a call before it is run, as a step without an observation; `on_step` of every step when it is complete.
    """
    schemas = toolbox.schemas()
    transcript = Transcript(question, schemas, prompt=settings.prompt, omit_thoughts=omit_thoughts)
    turn_sampling = replace(_turn_sampling(sampling, settings, seed), tools=schemas, long_cot=mode is CotMode.LONG)
    episode = _Episode(model, toolbox, transcript, settings, mode, turn_sampling, on_turn, on_step)
    with call_scope(trajectory_id):
        status = await episode.run()
    return Trajectory(
        id=trajectory_id,
        qa_id=qa_id,
        question=question,
        model=model.name,
        seed=seed,
        mode=episode.mode,
        steps=tuple(episode.steps),
        answer=episode.answer,
        status=status,
        usage=episode.usage,
        num_tokens=episode.num_tokens,
        detail=episode.detail,
    )


def _turn_sampling(sampling: Sampling, settings: AgentSettings, seed: int) -> Sampling:
    """The settings of each call: the caller's, with the episode's seed and no more tokens than a turn may have."""
    most = settings.max_turn_tokens
    tokens = most if sampling.max_tokens is None else min(most, sampling.max_tokens)
    return Sampling(sampling.temperature, sampling.top_p, tokens, sampling.stop, seed)


class _OutOfTimeError(Exception):
    """The model did not answer within the episode's time."""


class _Episode:
    """The state of one running episode."""

    def __init__(
        self,
        model: ChatModel,
        toolbox: Toolbox,
        transcript: Transcript,
        settings: AgentSettings,
        mode: CotMode,
        sampling: Sampling,
        on_turn: OnStep | None,
        on_step: OnStep | None,
    ) -> None:
        self._model, self._toolbox, self._settings, self._mode = model, toolbox, settings, mode
        self._transcript, self._sampling, self._on_turn, self._on_step = transcript, sampling, on_turn, on_step
        self._deadline = time.monotonic() + settings.max_seconds
        self.num_tokens = 0  # prompt and completion of the longest call so far
        self.steps: list[Step] = []
        self.answer: str | None = None
        self.detail = ""
        self._usage = Usage()  # of the model
        self._num_tool_calls = 0
        self._is_cut = False  # the last reply was, by a stop string
        self._has_reasoned: bool | None = None  # None: it has not replied

    @property
    def mode(self) -> CotMode:
        """How the model thought: as it was asked to, but for one that was to reason and showed nothing of it."""
        return CotMode.SHORT if self._has_reasoned is False else self._mode

    @property
    def usage(self) -> Usage:
        """What the model's and the tools' calls consumed."""
        return self._usage + Usage(tool_calls=self._num_tool_calls)

    async def run(self) -> Status:
        """Take turns until one of them ends the episode."""
        num_invalid = 0
        while True:
            limit = self._limit()
            if limit is not None:
                return await self._force_answer(limit)
            started = time.monotonic()
            try:
                reply = await self._chat(self._deadline - started)
            except ContextFullError:
                return Status.CONTEXT_FULL
            except ModelError:
                return Status.MODEL_ERROR
            except _OutOfTimeError:
                return await self._force_answer(Status.TIME_LIMIT)
            # A model and tools that never wait must not keep the event loop from Ctrl-C. Here and not before the call: of many
            # episodes whose replies come at once each sends its next call when its own work is done, not when everybody's is.
            await asyncio.sleep(0)
            turn = self._parse(reply)
            if isinstance(turn, list):
                self._add(_invalid_step(reply, turn, _since(started)))
                num_invalid += 1
                if num_invalid >= self._settings.max_invalid_turns:
                    return Status.INVALID_FORMAT
                continue
            num_invalid = 0
            if turn.call is None:
                self._finish(turn, started)
                return Status.ANSWERED
            await self._act(turn.thought, turn.call, started)

    def _limit(self) -> Status | None:
        """The limit that has been reached, if any.

        A model outside is asked also when the time is over, and gives up at once: so a recording knows of it, and a replayed
        episode, in which tools take no time, ends at the same call.
        """
        if len(self.steps) >= self._settings.max_steps:
            return Status.STEP_LIMIT
        if self.num_tokens >= self._settings.max_tokens:
            return Status.TOKEN_LIMIT
        if time.monotonic() >= self._deadline and not isinstance(self._model, OutsideModel):
            return Status.TIME_LIMIT
        return None

    async def _chat(self, timeout_s: float) -> ChatReply:
        """The model's next reply.

        Raises:
            ModelError: the endpoint failed for good; why is kept in `detail`.
            _OutOfTimeError: it took longer than `timeout_s`.
        """
        limit = asyncio.timeout(timeout_s)
        try:
            async with limit:
                reply = await self._model.chat(self._transcript.messages, self._sampling)
        except ModelError as error:
            self.detail = str(error)
            raise
        except TimeoutError as error:
            if limit.expired() or isinstance(error, TimedOut):
                raise _OutOfTimeError from None
            raise
        self._usage += reply.usage
        self.num_tokens = max(self.num_tokens, reply.usage.prompt_tokens + reply.usage.completion_tokens)
        self._note_reasoning(reply)
        self._is_cut = reply.cut_at is not None
        return _storable(reply)

    def _note_reasoning(self, reply: ChatReply) -> None:
        """Watch whether the model shows reasoning; one that does not at first sees its own thoughts again."""
        if reasoning_of(reply.content, reply.reasoning):
            self._has_reasoned = True
        elif self._has_reasoned is None:
            self._has_reasoned = False
            if self._mode is CotMode.LONG:
                self._transcript.keep_thoughts()

    def _parse(self, reply: ChatReply) -> Turn | list[Violation]:
        """The turn that the reply holds, or what is wrong with it."""
        return parse_turn(reply.content, mode=self._mode, reasoning=reply.reasoning, extra=self._toolbox.extra)

    async def _act(self, thought: str, call: ToolCall, started: float) -> None:
        """Run a call and note it with what it brought."""
        if self._on_turn is not None:
            self._on_turn(Step(thought=thought, tool=call.name, arguments=call.arguments))
        result = await self._toolbox.call(call.name, call.arguments)
        self._num_tool_calls += 1
        step = Step(
            thought=thought,
            tool=call.name,
            arguments=call.arguments,
            observation=result.observation,
            error=result.error,
            cut=self._is_cut,
            seconds=_since(started),
        )
        self._add(step)

    def _finish(self, turn: Turn, started: float) -> None:
        """Note the turn that holds the answer."""
        self.answer = turn.answer
        self._add(Step(thought=turn.thought, cut=self._is_cut, seconds=_since(started)))

    def _add(self, step: Step) -> None:
        self.steps.append(step)
        self._transcript.add_step(step, answer=self.answer)
        if self._on_step is not None:
            self._on_step(step)

    async def _force_answer(self, limit: Status) -> Status:
        """Demand an answer once; `limit` remains the status where none comes."""
        if not self._settings.force_answer:
            return limit
        self._transcript.demand_answer()
        started = time.monotonic()
        try:
            reply = await self._chat(self._settings.tool_timeout_s)
        except (ModelError, _OutOfTimeError):
            return limit
        turn = self._parse(reply)
        if isinstance(turn, list):
            self._add(_invalid_step(reply, turn, _since(started)))
            return limit
        if turn.call is not None:
            step = Step(
                thought=turn.thought,
                tool=turn.call.name,
                arguments=turn.call.arguments,
                observation=_NO_MORE_CALLS,
                error=ToolError.INVALID_FORMAT,
                cut=self._is_cut,
                seconds=_since(started),
            )
            self._add(step)
            return limit
        self._finish(turn, started)
        return Status.FORCED_ANSWER


def _since(started: float) -> float:
    """Seconds since that reading of the clock."""
    return time.monotonic() - started


def _invalid_step(reply: ChatReply, violations: list[Violation], seconds: float) -> Step:
    """The step of a turn that breaks the format: kept raw, answered by an error that names the violations."""
    if reply.finish == "length":
        first = violations[0]
        violations = [Violation(first.kind, f"{first.detail} (the turn was cut off: it was too long)"), *violations[1:]]
    return Step(
        thought=neutralise((reply.reasoning or "").strip()),
        observation=describe_violations(violations),
        error=TOOL_ERRORS.get(violations[0].kind, ToolError.INVALID_FORMAT),
        raw=reply.content,
        cut=reply.finish == "length" or reply.cut_at is not None,
        seconds=seconds,
    )


def _storable(reply: ChatReply) -> ChatReply:
    """The reply without half characters that no file could hold."""
    reasoning = None if reply.reasoning is None else whole_characters(reply.reasoning)
    content = whole_characters(reply.content)
    if content == reply.content and reasoning == reply.reasoning:
        return reply
    return replace(reply, content=content, reasoning=reasoning)
