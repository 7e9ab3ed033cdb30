"""What operators of SGLang do, and what goes wrong, in the process of the scheduler: the other half of its stepper."""

from __future__ import annotations

import logging
import os
from contextlib import ExitStack, suppress
from importlib import import_module
from operator import attrgetter
from typing import Any
from unittest.mock import patch

from sglang_faults import planted

from multiverse.decoding.document import to_transcript
from multiverse.structure.tree import Transcript


class Log(logging.Handler):
    """What the adapter logs, as an error if nothing is said: message, and whether a traceback comes with it."""

    def __init__(self, level: int = logging.ERROR) -> None:
        super().__init__(level)
        self.lines: list[tuple[str, bool]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.getMessage(), bool(record.exc_info)))


class Operator:
    """Answers to the test's requests that are an operator's, or a saboteur's."""

    scheduler: Any

    def watch(self) -> None:
        """Keep what the adapter logs, the problems that its integrity check finds, and the versions of weights."""
        self.log = Log()
        logging.getLogger("sglang.multiverse").addHandler(self.log)
        self.problems: list[str] = []
        self.versions: dict[str, list[tuple[str, int, int]]] = {}
        self._planted: dict[str, Any] = {}
        integrity = self.scheduler.multiverse_conductor.integrity
        enter = integrity.enter

        def entered(problems: list[str]) -> None:
            self.problems += problems
            enter(problems)

        integrity.enter = entered

    def note_versions(self, output: Any) -> None:
        for rid, spans in zip(output.rids, output.weight_versions or (), strict=False):
            self.versions[rid] = [(span.version, span.start, span.end) for span in spans or ()]

    # --- what operators do ---------------------------------------------------------------------------------------

    def on_pause(self, mode: str) -> None:
        from sglang.srt.managers.io_struct import PauseGenerationReqInput

        self.scheduler.pause_generation(PauseGenerationReqInput(mode=mode))

    def on_resume(self) -> None:
        from sglang.srt.managers.io_struct import ContinueGenerationReqInput

        self.scheduler.continue_generation(ContinueGenerationReqInput())

    def on_try_flush(self) -> bool:
        return bool(self.scheduler.flush_cache())

    def on_scramble(self) -> None:
        """Overwrite all KV there is: who uses any of it afterwards says something else."""
        kv = self.scheduler.token_to_kv_pool_allocator.get_kvcache()
        for buffer in (*kv.k_buffer, *kv.v_buffer):
            buffer.fill_(3.0)

    def on_new_version(self, version: str) -> str:
        """Say that the weights are of another version; which they were of before."""
        from sglang.srt.runtime_context import get_serving

        before = str(get_serving().weight_version)
        self.scheduler.record_weight_version_change(version)
        return before

    def on_load(self, path: str, version: str) -> str:
        """Load the weights at `path` and call them `version`; what those before were called."""
        from sglang.srt.managers.io_struct import UpdateWeightFromDiskReqInput
        from sglang.srt.runtime_context import get_serving

        before = str(get_serving().weight_version)
        answer = self.scheduler.weight_updater.update_weights_from_disk(
            UpdateWeightFromDiskReqInput(model_path=path, load_format="auto", weight_version=version)
        )
        assert answer.success, answer.message
        return before

    def on_follow(self) -> dict[str, dict[tuple[int, ...], int]]:
        """Keep the trees that there are; how long each of their strands is, by request."""
        self.followed = dict(self.scheduler.multiverse_conductor.trees.by_rid)
        return {
            rid: {strand.key: len(strand.tokens) for strand in tree.controller.root.walk()}
            for rid, tree in self.followed.items()
        }

    def on_transcript(self, rid: str, said: dict[tuple[int, ...], int]) -> tuple[Transcript, Transcript]:
        """A tree that is kept, with the logprobs of what its strands had `said`, and with those of the rest."""
        tree = self.followed[rid]
        values = tree.rows.values(tree.controller.root)
        first = {key: [v if at < said.get(key, 0) else None for at, v in enumerate(row)] for key, row in values.items()}
        rest = {key: [None if at < said.get(key, 0) else v for at, v in enumerate(row)] for key, row in values.items()}
        return to_transcript(tree.controller, first), to_transcript(tree.controller, rest)

    def on_retract(self, interval: int) -> None:
        """Let SGLang retract every so many steps, or not any more if that is 0."""
        from sglang.srt.managers import scheduler

        scheduler.TEST_RETRACT, scheduler.TEST_RETRACT_INTERVAL = interval > 0, interval  # type: ignore[attr-defined]

    def on_versions(self, rid: str) -> list[tuple[str, int, int]]:
        return self.versions[rid]

    def on_generated(self, rid: str) -> int:
        """Tokens of all strands of a request that is being decoded in branches."""
        root = self.scheduler.multiverse_conductor.trees.by_rid[rid].controller.root
        return sum(len(strand.tokens) for strand in root.walk())

    def on_time_out(self, kind: str) -> list[str]:
        """Let SGLang abort whatever is `waiting` or `running`: its timeout is over. The names that it means."""
        from sglang.srt.environ import envs

        with getattr(envs, f"SGLANG_REQ_{kind.upper()}_TIMEOUT").override(1e-9):
            aborts = self.scheduler._poll_timeout_aborts()
        for abort in aborts:
            self.scheduler.abort_request(abort)
        return [abort.rid for abort in aborts]

    def on_rehearse(
        self, fault: str | None = None, version: str | None = None, changed: dict[str, Any] | None = None
    ) -> list[str]:
        """Rehearse again, with one of `FAULTS`, as this `version` of SGLang that somebody wants to try, or with what is
        `changed` of the scheduler or its KV pool: what is logged and, at last, the refusal. It is empty then."""
        from multiverse.errors import UnsupportedHostError
        from multiverse_sglang import hooks
        from multiverse_sglang.scheduler.rehearsal import rehearse

        self.on_scramble()  # else what is not written now may have been written by the rehearsal before
        logger, log = logging.getLogger("sglang.multiverse"), Log(logging.INFO)
        with ExitStack() as stack:
            stack.callback(logger.setLevel, logger.level)
            stack.callback(logger.removeHandler, log)
            logger.setLevel(logging.INFO)
            logger.addHandler(log)
            if fault is not None:
                stack.enter_context(planted(fault))
            if version is not None:
                stack.enter_context(patch.object(hooks, "host_version", lambda: version))
                stack.enter_context(patch.dict(os.environ, {"MULTIVERSE_UNTESTED_HOST": "1"}))
            kv = self.scheduler.token_to_kv_pool_allocator.get_kvcache()
            for name, value in (changed or {}).items():
                stack.enter_context(patch.object(kv if hasattr(kv, name) else self.scheduler, name, value))
            try:
                rehearse(self.scheduler)
            except UnsupportedHostError as refusal:
                log.lines.append((f"refused: {refusal}", False))
        self.scheduler.multiverse_conductor.start_counting()
        assert self.scheduler.flush_cache()
        return [line for line, _ in log.lines]

    # --- what can be seen ----------------------------------------------------------------------------------------

    def on_waiting(self) -> list[str]:
        return [request.rid for request in self.scheduler.waiting_queue]

    def on_trees(self) -> list[str]:
        return list(self.scheduler.multiverse_conductor.trees.by_rid)

    def on_kinds(self) -> dict[str, str]:
        """Of which class the requests are that decode."""
        requests = [] if self.scheduler.last_batch is None else self.scheduler.last_batch.reqs
        return {request.rid: type(request).__name__ for request in requests}

    def on_entered(self) -> dict[str, set[float]]:
        """When what is running began, by request of a client."""
        batches = [batch for batch in (self.scheduler.running_batch, self.scheduler.last_batch) if batch is not None]
        found: dict[str, set[float]] = {}
        for request in (request for batch in batches for request in batch.reqs if not request.finished()):
            found.setdefault(request.rid.partition("#")[0], set()).add(request.time_stats.forward_entry_time)
        return found

    def on_integrity(self) -> list[str]:
        problems: list[str] = self.scheduler.multiverse_conductor.books.problems_while_running()
        return problems

    def on_logged(self) -> list[tuple[str, bool]]:
        found, self.log.lines = self.log.lines, []
        return found

    # --- what goes wrong -----------------------------------------------------------------------------------------

    def on_delay(self, steps: int) -> None:
        """Nothing is admitted in the next steps, as if an adapter was being loaded."""
        left = iter(range(steps))
        scheduler = self.scheduler
        scheduler.enable_lora = True

        def can_schedule(*_: Any) -> bool:
            scheduler.enable_lora = next(left, None) is not None
            return not scheduler.enable_lora

        scheduler.can_schedule_lora_req = can_schedule

    def on_plant(self, place: str, after: int) -> None:
        """Let `module:name` raise once, after as many calls."""
        module, _, path = place.partition(":")
        *outer, name = path.split(".")
        owner: Any = import_module(module)
        owner = attrgetter(".".join(outer))(owner) if outer else owner
        original, calls = getattr(owner, name), iter(range(after))

        def raising(*args: Any, **kwargs: Any) -> Any:
            if next(calls, None) is not None:
                return original(*args, **kwargs)
            self.on_remove(place)
            raise RuntimeError("planted")

        self._planted[place] = owner, name, original
        setattr(owner, name, raising)

    def on_remember(self, rid: str) -> None:
        """Keep the tree of a request."""
        self._remembered = self.scheduler.multiverse_conductor.trees.by_rid[rid]

    def on_haunt(self, there: bool) -> None:
        """Let the adapter believe that the tree is still there; or not any more, nor that it ever was wrong."""
        conductor = self.scheduler.multiverse_conductor
        if there:
            conductor.trees.by_rid["ghost"] = self._remembered
        else:
            del conductor.trees.by_rid["ghost"]
            conductor.tally.totals["integrity_failures"] = 0

    def on_remove(self, place: str) -> bool:
        """Whether what was planted there has not been raised. It is gone afterwards."""
        with suppress(KeyError):
            owner, name, original = self._planted.pop(place)
            setattr(owner, name, original)
            return True
        return False
