"""Evaluation: accuracy, parallelism, budgets and speed of any model behind an OpenAI-compatible server, and of recorded
answers. Needs `pip install multiverse-engine[eval]`; docs/evaluation.md is the guide.
"""
