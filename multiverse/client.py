"""The HTTP clients under their public name; `multiverse.wire.client` holds them."""

from multiverse.wire.client import AsyncClient, AsyncStream, Client, Stream
from multiverse.wire.events import Branches

__all__ = ["AsyncClient", "AsyncStream", "Branches", "Client", "Stream"]
