"""What runs in the workers: KV moves, position deltas, scores of prompts, masks of strict mode."""
