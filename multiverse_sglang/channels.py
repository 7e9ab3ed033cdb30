"""Every attribute and field by which processes or objects of SGLang carry our data: who writes it, who reads it.

`FIELD` is `multiverse.wire.responses.FIELD`.

| name | of | written by | read by |
|---|---|---|---|
| `CONDUCTOR` | the scheduler, its radix tree | `scheduler.wrappers` | wrappers, which get one of the two |
| `MEMBER` | a request of the scheduler | `scheduler.admission`, `.runs`, `.conductor` | whatever is about its strand |
| `DEFERRED` | the same, a client's | `scheduler.admission` | `scheduler.deferral`, `.requests` |
| `EXTRAS` | the same, a client's | `scheduler.streamer` | `scheduler.streamer`, as it goes out |
| `SEGMENTS`, `FAIL` | a forward batch | `attention.positions`, `.wrappers` | `attention.wrappers` |
| `GROUPS` | a forward batch, an attention backend | `attention.positions`, `.wrappers` | `attention.backend` |
| `MASKS` | a model runner | `scheduler.prefill_way` | `attention.wrappers` |
| `STEPS` | an attention backend of SGLang | `attention.around` | the same, before each forward |
| `FIELD` | `customized_info`, one list of objects per request | `scheduler.streamer` | `frontend.answers` |
| `FROM_END` | a finish reason, as JSON | `scheduler.stops` | `frontend.detokenizer` |
| `FAILED` | an object in `FIELD`; `meta_info` | `scheduler.streamer`, `frontend.answers` | `frontend.answers` |
| `PENDING`, `EXTRA` | the tokenizer manager's state of a request | `frontend.answers` | the same, as it yields |
| `FIELD` | `meta_info` of an output | `frontend.answers` | clients, `programs` |
| `LISTENER` | a request of the tokenizer manager | `frontend.api` | `frontend.answers` |
| `FIELD` | `custom_params` | clients, `frontend.field` | `scheduler.admission` |
| `PROGRAM` | `custom_params` | `frontend.program_calls` | `scheduler.program` |
| `PROGRAMS` | the tokenizer manager | `frontend.program_calls` | the same, `frontend.program_routes` |
| `STATE` | `rid`, how it begins | `programs` | `frontend.program_states` |
"""

from __future__ import annotations

CONDUCTOR = "multiverse_conductor"
"""The conductor of the scheduler. Others can reach its radix tree only."""
MEMBER = "multiverse"
"""The member that the request is computed for."""
DEFERRED = "multiverse_deferred"
"""What will be known of the request once it samples a tag; until then SGLang serves it by itself."""
EXTRAS = "multiverse_extras"
"""What the client was not sent yet: a list of objects with `events` or `record`, or of functions that make them."""
SEGMENTS = "multiverse"
"""The segments of a batch, if attention has to be told about them."""
FAIL = "multiverse_fail"
"""A function that takes what went wrong with its strands."""
MASKS = "multiverse_masks"
"""What makes masks for its attention backend, if prompts with blocks are computed with a mask."""
GROUPS = "groups_of_step"
"""The groups of a decode step that share a prefix. A backend that has the attribute wants to know."""
STEPS = "multiverse_steps"
"""The `attention.around.SharedPrefixSteps` of one of SGLang's attention backends."""
FROM_END = "multiverse_from_end"
"""How many characters before the end of the text the stop string begins."""
FAILED = "failed"
"""What went wrong with the request in another process."""
PENDING = "multiverse_pending"
"""What the next output brings, as an object with `EXTRA`; emptied by who takes it."""
EXTRA = "extra"
LISTENER = "multiverse_listener"
"""The `ResponseExtras` that wants events and records instead of `meta_info`."""
PROGRAM = "multiverse_program"
"""What the scheduler has to know of a request that a state of a program makes."""
PROGRAMS = "multiverse_programs"
"""The states of this engine."""
STATE = "program-"
"""Names of states begin with it, so that a request of a state that is gone is no plain request."""
