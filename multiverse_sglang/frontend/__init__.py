"""The process that serves clients: HTTP, SGLang's tokenizer manager and detokenizer, states of programs."""
