"""States of programs in the front end of an engine: what their requests become, and calls that fork, join and end them.

Everything reaches the scheduler by SGLang's ordinary requests: a join is one that generates nothing, and the end of a
state is the abort of all its requests.
"""

from __future__ import annotations

import asyncio

from sglang.srt.managers.io_struct import AbortReq, GenerateReqInput

from multiverse_sglang.channels import PROGRAM, PROGRAMS, STATE
from multiverse_sglang.frontend.program_states import IDLE, States, key
from multiverse_sglang.host import GenerateRequest, TokenizerManager


class Programs:
    """The states of one engine, and its way to the scheduler: SGLang's tokenizer manager."""

    def __init__(self, manager: TokenizerManager) -> None:
        self._manager = manager
        self._sweeper: asyncio.Task[None] | None = None
        self.states = States(self._encode, context=manager.context_len)

    @classmethod
    def of(cls, manager: TokenizerManager) -> Programs:
        """Those of the engine with this tokenizer manager."""
        if (found := manager.__dict__.get(PROGRAMS)) is None:
            found = manager.__dict__[PROGRAMS] = cls(manager)
        return found

    def _encode(self, text: str, beginning: bool) -> list[int]:
        return list(self._manager.tokenizer.encode(text, add_special_tokens=beginning))

    def translate(self, request: GenerateRequest) -> None:
        """Put a request that a state makes into tokens, with what the scheduler has to know of them.

        Raises:
            ValueError: if the state is unknown, or can't make this request. SGLang answers with HTTP 400.
        """
        sampling = request.sampling_params
        for parameters in sampling if isinstance(sampling, list) else [sampling]:
            if PROGRAM in ((parameters or {}).get("custom_params") or {}):
                raise ValueError(f"custom_params can't have {PROGRAM!r}: name the state in rid")
        names = request.rid if isinstance(request.rid, list) else [request.rid]
        if not any(isinstance(name, str) and name.startswith(STATE) for name in names):
            return
        if not isinstance(request.rid, str) or not isinstance(request.text, str) or isinstance(sampling, list):
            raise ValueError("a state of a program makes requests one by one, with text")
        given = dict(sampling or {})
        request.rid, ids, program = self.states.request(request.rid, request.text, given.get("max_new_tokens"))
        if program is None:
            return
        if request.image_data or request.video_data or request.audio_data:
            raise ValueError("a branch, or a state that was joined, can't have images, video or audio")
        request.text, request.input_ids = None, ids
        request.sampling_params = given | {"custom_params": {**(given.get("custom_params") or {}), PROGRAM: program}}

    async def fork(self, source: str, names: list[str], text: str, offsets: list[int] | None) -> None:
        """Let the state `source`, whose text is `text`, go on as several.

        Raises:
            StateError: see `States.fork`.
        """
        self.states.fork(source, names, text, offsets)
        if self._sweeper is None or self._sweeper.done():
            self._sweeper = asyncio.get_running_loop().create_task(self._sweep())

    async def join(self, names: list[str], target: str) -> None:
        """Splice branches. Returns once their KV is one sequence.

        Raises:
            StateError: see `States.begin_join`.
            ValueError: what SGLang says of a text that it can't compute, one that is too long for instance.
        """
        before, text = self.states.begin_join(names, target)
        if text is not None:
            request = GenerateReqInput(rid=target, text=text, sampling_params={"max_new_tokens": 0})
            try:
                async for _ in self._manager.generate_request(request, None):
                    pass
            except BaseException:
                self.states.end_join(names, target, before)
                raise
        self.states.end_join(names, target)
        self._forget(names)

    async def end(self, names: list[str]) -> None:
        """Forget states, whatever they are doing."""
        self._forget([name for name in names if self.states.end(name)])

    def _forget(self, names: list[str]) -> None:
        """Let the scheduler give back what it retains for states, and end what they still compute."""
        for name in names:
            self._manager._dispatch_to_scheduler(AbortReq(rid=key(name)))

    async def _sweep(self) -> None:
        """Forget states that nobody uses, as long as there are any: their client may be gone."""
        while len(self.states):
            await asyncio.sleep(IDLE / 10)
            for request in list(self._manager.rid_to_state):
                self.states.touch(request.partition("/")[0])  # it may take longer than that
            await self.end(self.states.expired())
