"""The tasks as `lm-eval` has them: `lm_eval --include_path $(multiverse eval harness) --tasks multiverse_aime24`."""
