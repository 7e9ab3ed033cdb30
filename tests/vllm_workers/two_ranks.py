"""Not a test: decodes prompts with two tensor-parallel worker processes, by `two_ranks.py RESULT [SPECULATIVE_CONFIG]`.

Reads JSON lists of ids, writes the same.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "conformance"))

from vllm_host import LLM, SamplingParams

from multiverse.models import TINY

if __name__ == "__main__":
    drafts = json.loads(sys.argv[2]) if len(sys.argv) > 2 else None
    how = {"dtype": "float32", "max_model_len": 1024, "block_size": 32, "enforce_eager": True}
    llm = LLM(str(TINY), **how, tensor_parallel_size=2, speculative_config=drafts)
    prompts = [{"prompt_token_ids": prompt} for prompt in json.load(sys.stdin)]
    outputs = llm.generate(prompts, SamplingParams(temperature=0.0, max_tokens=800), use_tqdm=False)
    counts = llm.llm_engine.engine_core.engine_core.scheduler.tally.totals
    answers = [list(output.outputs[0].token_ids) for output in outputs]
    Path(sys.argv[1]).write_text(
        json.dumps({"answers": answers, "moved": counts["moved_tokens"], "drafted": counts["accepted_draft_tokens"]})
    )
