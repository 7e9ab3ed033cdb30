"""What is checked of a stage's output. Every check returns its findings as sentences that can be sent to a model."""
