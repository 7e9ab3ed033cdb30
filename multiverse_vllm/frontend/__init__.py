"""What runs where requests come in and answers go out: vLLM's server, or its class `LLM`."""
