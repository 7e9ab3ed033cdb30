"""The backend of programs (`sgl.function`), in their own process: it joins on KV.

SGLang's front end does not say which state makes a request. This backend gives states a name and tells the server of
each fork and end; the programs themselves stay as they are.
"""

from __future__ import annotations

import functools
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from sglang.lang.backend.runtime_endpoint import RuntimeEndpoint as _RuntimeEndpoint
from sglang.lang.interpreter import StreamExecutor
from sglang.utils import http_request

from multiverse.errors import UnsupportedHostError
from multiverse.serving.hooks import missing
from multiverse_sglang.channels import STATE
from multiverse_sglang.frontend.hooks import FRONT_END


class RuntimeEndpoint(_RuntimeEndpoint):
    """SGLang's backend for a server, for one that runs with multiverse.

    `forks.join(mode="concate_and_append")` then splices the KV of the branches, and `fork(position_ids_offset=...)` is
    heeded. Everything else is as with SGLang's own.

    Raises:
        UnsupportedHostError: if this SGLang's front end is not one that it knows.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        _announce_forks()
        self._states: set[str] = set()
        self._laid_out: set[str] = set()

    def fork_program(
        self, src: StreamExecutor, dst: list[StreamExecutor], position_ids_offset: list[int] | None = None
    ) -> None:
        """Tell the server that `src` goes on as `dst`, and let it compute what they have in common once.

        SGLang's front end means to do the latter, but looks at the text before it is there. Texts with images are left
        to SGLang: they can't be joined.
        """
        if src.images_:
            return
        names = [_name(state.sid) for state in dst]
        body = {"src_rid": _name(src.sid), "dst_rids": names, "text": src.text_}
        self._post("/fork_request", body | {"position_ids_offset": position_ids_offset})
        self._states |= {src.sid, *(state.sid for state in dst)}
        if src.sid in self._laid_out or any(position_ids_offset or ()):
            self._laid_out |= {state.sid for state in dst}
        if len(dst) > 1 and src.text_:
            self.commit_lazy_operations(src)

    def concatenate_and_append(self, src_rids: Sequence[str], dst_rid: str) -> None:
        """Splice the branches `src_rids` behind their source `dst_rid`."""
        super().concatenate_and_append([_name(sid) for sid in src_rids], _name(dst_rid))
        self._laid_out.add(dst_rid)
        self._states -= set(src_rids)

    def end_program(self, s: StreamExecutor) -> None:
        """Tell the server that a state ended, once it has nothing left to do."""
        if s.sid in self._states and not sys.is_finalizing():
            threading.Thread(target=self._end, args=(s,), daemon=True).start()

    def _end(self, state: StreamExecutor) -> None:
        if state.use_thread:
            state.worker.join()
        if state.sid in self._states:
            self._states.discard(state.sid)
            self._laid_out.discard(state.sid)
            with suppress(OSError):  # no server is there any more: then no state is either
                self._post("/end_request", {"rids": [_name(state.sid)]})

    def _add_images(self, s: StreamExecutor, data: dict[str, Any]) -> None:
        super()._add_images(s, data)
        if s.sid in self._states and isinstance(data.get("text"), str):
            data["rid"] = _name(s.sid)
        elif s.sid in self._laid_out:
            raise RuntimeError("select() heeds neither joins on KV nor position offsets: use gen()")

    def _post(self, path: str, body: dict[str, Any]) -> None:
        self._assert_success(http_request(self.base_url + path, json=body, api_key=self.api_key, verify=self.verify))


def _name(sid: str) -> str:
    """What the server calls a state."""
    return STATE + sid


@functools.cache
def _announce_forks() -> None:
    """Let SGLang's front end call `fork_program` of its backend. For others than ours that does nothing."""
    if problems := missing(FRONT_END):
        raise UnsupportedHostError("multiverse can't run programs of this SGLang:\n  " + "\n  ".join(problems))
    fork = StreamExecutor.fork

    @functools.wraps(fork)
    def announced(
        state: StreamExecutor, size: int = 1, position_ids_offset: list[int] | None = None
    ) -> list[StreamExecutor]:
        states: list[StreamExecutor] = fork(state, size, position_ids_offset)
        state.backend.fork_program(state, states, position_ids_offset)
        return states

    StreamExecutor.fork = announced
