"""From what an engine answers to rollouts: a pure function of its record, whichever way that came.

A request has to ask for logprobs and `"multiverse": {"return_tree": true}`, and its prompt has to be known in tokens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from multiverse.decoding.prompt import Prompt
from multiverse.errors import RolloutError
from multiverse.structure.binding import Binding
from multiverse.structure.layout import Separators
from multiverse.training.rollouts.tree import Rollout, RolloutStrand
from multiverse.wire.responses import FIELD

if TYPE_CHECKING:  # the oracle needs torch
    from multiverse.oracle.generation import Generation

_ASK = 'ask with logprobs and "multiverse": {"return_tree": true}'
_IDS = "send return_token_ids (SGLang: return_prompt_token_ids in chats that aren't streamed), or give prompt_ids"


@dataclass(frozen=True)
class Reader:
    """Reads answers of one model.

    Attributes:
        binding: the dialect, bound to the model's tokenizer: where a prompt holds blocks, it is laid out by it.
        temperature: what the reported logprobs are of: that of the requests, or 1.0 if the host reports raw ones.
        branch_temperature: the same inside branches, if `branch_sampling` gave them another.
        weight_version: of the weights that said it all, where the record tells of no change.
        separators: as the server was started with.

    Every method raises `RolloutError` where an answer has no tree, no logprobs, or another prompt than it is said to.
    """

    binding: Binding
    temperature: float = 1.0
    branch_temperature: float | None = None
    weight_version: str | None = None
    separators: Separators = "overlap"

    def record(self, record: Mapping[str, Any] | None, prompt_ids: Sequence[int], id: str, group: str) -> Rollout:
        """From the record of one answer (docs/api.md), as every host makes it."""
        if not record or "tree" not in record:
            raise RolloutError(f"{id}: the answer came without its tree: {_ASK}")
        prompt = Prompt(prompt_ids, self.binding, self.separators)
        places = {tuple(entry["key"]): index for index, entry in enumerate(record["tree"])}
        strands = tuple(self._strand(entry, places, id) for entry in record["tree"])
        if len(strands) > 1 and self.binding.dialect.join != "splice":
            raise RolloutError(f"{id}: branches of dialect {self.binding.dialect.name} are read again after a join")
        written, told = sum(sum(strand.injected) for strand in strands), record["injected_tokens"]
        if written != told:
            raise RolloutError(f"{id}: {written} tokens have no logprob, the engine wrote {told}")
        root = strands[0]
        if root.positions and root.forks[:1] != [0] and root.positions[0] != prompt.next_position:
            told = f"begins at position {root.positions[0]}, the prompt ends before {prompt.next_position}"
            raise RolloutError(f"{id}: the answer {told}: these are not the tokens it was decoded from")
        return Rollout(id, group, prompt.ids, prompt.layout.segments, strands, record["finish_reason"])

    def response(self, response: Mapping[str, Any], prompt_ids: Sequence[int] | None = None) -> list[Rollout]:
        """From the JSON of /v1/chat/completions or /v1/completions: one rollout per choice; one prompt, one group."""
        found = []
        for choice in response["choices"]:
            name = f"{response['id']}-{choice['index']}"
            ids = prompt_ids or choice.get("prompt_token_ids") or response.get("prompt_token_ids")
            if not ids:
                raise RolloutError(f"{name}: the response does not say which tokens the prompt has: {_IDS}")
            found.append(self.record(choice.get(FIELD), ids, name, str(response["id"])))
        return found

    def chunks(self, chunks: Iterable[Mapping[str, Any]], prompt_ids: Sequence[int] | None = None) -> list[Rollout]:
        """From all chunks of a stream, in order: what `response` makes of the same answer that isn't streamed."""
        whole: dict[str, Any] = {"id": None, "prompt_token_ids": None}
        choices: dict[int, dict[str, Any]] = {}
        for chunk in chunks:
            whole["id"] = whole["id"] or chunk.get("id")
            whole["prompt_token_ids"] = whole["prompt_token_ids"] or chunk.get("prompt_token_ids")
            for part in chunk.get("choices") or ():
                choice = choices.setdefault(part["index"], {"index": part["index"]})
                if part.get("prompt_token_ids"):
                    choice["prompt_token_ids"] = part["prompt_token_ids"]
                if "tree" in (part.get(FIELD) or {}):
                    choice[FIELD] = part[FIELD]
        return self.response({**whole, "choices": [choices[index] for index in sorted(choices)]}, prompt_ids)

    def vllm(self, output: Any) -> list[Rollout]:
        """From a `RequestOutput` of vLLM's `LLM.generate`: one rollout per choice."""
        name, ids = str(output.request_id), output.prompt_token_ids
        return [self.record(one.multiverse, ids, f"{name}-{one.index}", name) for one in output.outputs]

    def sglang(self, output: Mapping[str, Any], prompt_ids: Sequence[int], group: str) -> Rollout:
        """From one dictionary of SGLang's `Engine.generate`, or of its `/generate`."""
        meta = output["meta_info"]
        return self.record(meta.get(FIELD), prompt_ids, str(meta["id"]), group)

    def generation(self, generation: Generation, id: str, group: str) -> Rollout:
        """From an answer of the oracle, whose logprobs are the raw model's."""
        prompt = len(generation.transcript) - len(generation.ids)
        return self.record(generation.record, generation.transcript.ids[:prompt], id, group)

    def _strand(self, entry: Mapping[str, Any], places: Mapping[tuple[int, ...], int], name: str) -> RolloutStrand:
        key, count = tuple(entry["key"]), len(entry["token_ids"])
        if "logprobs" not in entry:
            raise RolloutError(f"{name}: the answer came without logprobs: {_ASK}")
        branch = self.temperature if self.branch_temperature is None else self.branch_temperature
        return RolloutStrand(
            key=key,
            parent=places[key[:-2]] if key else -1,
            label=entry["label"],
            token_ids=list(entry["token_ids"]),
            positions=list(entry["positions"]),
            injected=[value is None for value in entry["logprobs"]],
            logprobs=list(entry["logprobs"]),
            temperature=branch if key else self.temperature,
            forks=list(entry["forks"]),
            finish_reason=entry["finish_reason"],
            fallbacks=[(offset, reason) for offset, reason in entry["fallbacks"]],
            weight_versions=[tuple(span) for span in entry.get("weight_versions", [[self.weight_version, 0, count]])],
        )
