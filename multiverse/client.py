"""The HTTP clients and what reads their answers, under their public name; `multiverse.wire` holds them."""

from multiverse.wire.client import AsyncClient, AsyncStream, Client, Stream
from multiverse.wire.events import Branches
from multiverse.wire.logprobs import mean_logprob

__all__ = ["AsyncClient", "AsyncStream", "Branches", "Client", "Stream", "mean_logprob"]
