"""What requests are promised: by the server's flags, by their own field; refused where nobody would look at it."""

from __future__ import annotations

from collections.abc import Mapping

from multiverse.errors import OptionError
from multiverse.serving.admission.pace import Slo
from multiverse.serving.admission.policies import make_policy
from multiverse.serving.field import check_milliseconds, check_slo


def check_promises(admission: str, slo: Mapping[str, float] | None, times: Mapping[str, float | None]) -> None:
    """Refuse a wrong policy, wrong times, and times under a policy that has no use for them.

    Args:
        admission: the setting of `--multiverse-admission`.
        slo: the field of a request.
        times: the server's own, in milliseconds, by option.

    Raises:
        OptionError: naming the option, its value and what is allowed.
    """
    policy = make_policy(admission)
    watches = policy is not None and policy.step_time is not None
    for name, value in times.items():
        if value is not None:
            check_milliseconds(name, value)
            if not watches:
                raise OptionError(f"{name} needs --multiverse-admission slack, which is {admission!r}")
    check_slo(slo)
    if slo and not watches:
        raise OptionError("slo needs a server that was started with --multiverse-admission slack")


def promised(slo: Mapping[str, float] | None, tpot_ms: float | None, ttft_ms: float | None) -> Slo:
    """What a request with the field `slo` is promised by a server that promises `tpot_ms` and `ttft_ms` by itself."""
    own = slo or {}
    times = (ttft_ms, own.get("tpot_ms", tpot_ms), own.get("deadline_ms"))
    return Slo(*(None if time is None else time / 1000 for time in times))
