"""`multiverse train` with `method: grpo`: a model learns from its own answers, which an engine decoded (docs/rl.md)."""
