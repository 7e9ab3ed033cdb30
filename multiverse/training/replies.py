"""General chat in the base model's own words, mixed into fine-tuning so that it forgets less.

The prompts are written here by combining a few forms and topics; the replies are what the base model says to them.
``python -m multiverse.training.replies --model DIR OUT.jsonl`` writes rows of the training schema.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

from rich.progress import track

_FORMS: dict[str, tuple[str, ...]] = {
    "What is the capital of {}?": ("France", "Japan", "Italy", "Egypt", "Canada", "Spain", "Kenya", "Peru", "Norway"),
    "Explain in two sentences what {} is.": (
        "photosynthesis", "gravity", "a comet", "inflation", "a fossil", "the moon", "an atom", "rain", "democracy",
        "a volcano", "electricity", "an ocean", "a database", "friction", "a vitamin", "an earthquake",
    ),
    "Give me one tip for {}.": (
        "sleeping better", "learning a language", "cooking rice", "a job interview", "saving money", "growing tomatoes",
        "running longer", "writing a letter", "reading more", "packing a suitcase", "making friends", "public speaking",
    ),
    "Write one sentence about {}.": (
        "a cat", "autumn", "the sea", "a train", "music", "a lonely robot", "friendship", "bread", "snow", "a library",
        "the color blue", "a market", "an old clock", "a bicycle", "the night sky", "a garden",
    ),
    "What is the opposite of {}?": ("hot", "early", "brave", "heavy", "empty", "loud", "narrow", "polite", "smooth"),
    "Name an animal that {}.": ("can fly", "lives in the sea", "is very fast", "sleeps in winter", "eats grass"),
    "Who {}?": (
        "wrote Romeo and Juliet", "painted the Mona Lisa", "discovered penicillin", "was Albert Einstein",
        "was the first person on the moon", "invented the telephone", "was Marie Curie", "composed the Ninth Symphony",
    ),
    "Why {}?": (
        "is the sky blue", "do leaves fall in autumn", "do we sleep", "is the sea salty", "do cats purr",
        "do birds sing", "does ice float", "do we have seasons", "is exercise healthy", "do people dream",
    ),
    "Rewrite politely: {}": (
        "Send me the file.", "You are late again.", "Be quiet.", "Fix this now.", "I don't like it.", "Call me back.",
    ),
    "Translate to French: {}": ("Good morning.", "Thank you very much.", "Where is the station?", "I like bread."),
    "What does the word {} mean?": (
        "generous", "fragile", "ancient", "reluctant", "vivid", "humble", "curious", "scarce", "eager", "sturdy",
    ),
    "{}": (
        "Hello!", "How are you?", "Thank you for your help.", "Tell me a short joke.", "What can you do?",
        "Good night!", "What is 2 + 2?", "Is water wet?", "Give me a short motto.", "Suggest a name for a dog.",
        "What is your name?",
        "Complete the sentence: The sun rises in the", "Which is larger, a mouse or a horse?",
        "What day follows Monday?",
    ),
}  # fmt: skip


def prompts(seed: int = 0) -> list[str]:
    """All prompts, each once, in an order that `seed` decides."""
    found = [form.format(topic) for form, topics in _FORMS.items() for topic in topics]
    Random(seed).shuffle(found)
    return found


def replies(model: Any, tokenizer: Any, limit: int, batch: int = 16) -> Iterator[dict[str, Any]]:
    """Rows of the training schema: greedy replies of `model` that end by themselves within `limit` tokens."""
    import torch

    asked = prompts()
    tokenizer.padding_side = "left"
    for start in track(range(0, len(asked), batch), "replies"):
        chunk = asked[start : start + batch]
        turns = [[{"role": "user", "content": prompt}] for prompt in chunk]
        texts = [tokenizer.apply_chat_template(turn, add_generation_prompt=True, tokenize=False) for turn in turns]
        inputs = tokenizer(texts, return_tensors="pt", padding=True, add_special_tokens=False)
        with torch.inference_mode():
            output = model.generate(**inputs, max_new_tokens=limit, do_sample=False)[:, inputs.input_ids.shape[1] :]
        for number, (prompt, ids) in enumerate(zip(chunk, output.tolist(), strict=True), start):
            finished = tokenizer.eos_token_id in ids
            reply = tokenizer.decode(ids[: ids.index(tokenizer.eos_token_id)]).strip() if finished else ""
            if reply:
                yield {"id": f"chat-{number}", "question": prompt, "sequential": reply}


def main() -> None:
    """Command line."""
    import torch

    from multiverse.oracle import load

    parser = argparse.ArgumentParser(prog="python -m multiverse.training.replies", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--model", required=True, help="directory or name of the base model")
    parser.add_argument("--max-tokens", type=int, default=96, help="longer replies are left out (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    with options.out.open("w", encoding="utf-8") as file:
        for row in replies(*load(options.model), options.max_tokens):
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
