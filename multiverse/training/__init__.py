"""Fine-tuning: from a JSONL file to a model that decodes in parallel (docs/training.md)."""
