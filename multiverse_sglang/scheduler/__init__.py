"""The process of a scheduler: strands, their KV slots, and the requests that compute them."""
