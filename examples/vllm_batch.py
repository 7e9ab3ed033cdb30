"""Many prompts offline: switch the plugin on, then use vLLM as ever. Usage: vllm_batch.py [MODEL]"""

from __future__ import annotations

import sys

from vllm import LLM, SamplingParams

import multiverse
import multiverse_vllm
from multiverse.models import TINY
from multiverse.models.task import HELD_OUT_SEED, stream


def main() -> None:
    multiverse_vllm.enable()
    llm = LLM(sys.argv[1] if len(sys.argv) > 1 else str(TINY), dtype="float32", max_model_len=1024, enforce_eager=True)
    problems = [problem for problem, _ in zip(stream(HELD_OUT_SEED), range(16), strict=False)]
    sampling = SamplingParams(temperature=0, max_tokens=900, extra_args={"multiverse": {"max_branches": 8}})
    chats = [[{"role": "user", "content": problem.prompt}] for problem in problems]
    right = 0
    for problem, output in zip(problems, llm.chat(chats, sampling, use_tqdm=False), strict=True):
        choice = output.outputs[0]
        tree, record = multiverse.parse_text(choice.text), choice.multiverse
        answer = choice.text.rpartition("Answer:")[2].strip()
        right += answer == problem.answer
        shape = f"{record['branches']} branches" if record else "no blocks"
        print(
            f"{problem.kind:>7}  {answer:>3}  {len(choice.token_ids):>4} tokens  {shape}, {len(tree.blocks)} at the top"
        )
    print(f"{right} of {len(problems)} answers are right")


if __name__ == "__main__":  # vLLM starts processes that import this file
    main()
