"""How the rows of SGLang's hook table are written; and what makes several of them obsolete, wherever they stand."""

from __future__ import annotations

from multiverse.serving.hooks import Hook

FIELDS = "extension fields in requests and responses"
ROUTE = "a server that answers /concate_and_append_request"


def wraps(
    target: str, parameters: tuple[str, ...], why: str, obsolete: str, native: str = "", replaced: bool = False
) -> Hook:
    return Hook(target, parameters, True, why, "0.5.22", obsolete, native, replaced)


def reads(target: str, parameters: tuple[str, ...], why: str, obsolete: str) -> Hook:
    return Hook(target, parameters, False, why, "0.5.22", obsolete)
