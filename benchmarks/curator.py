"""A large corpus through the Curator: does memory stay flat, and is it the endpoint that limits the throughput?

The teacher of examples/curator runs in a process of its own and takes a known time for its replies. If nothing else
took time, the run would last `requests x latency / concurrency`; the share of that in what it does last is reported,
with the load of the machine, since a process that has to wait for a core keeps its endpoint waiting.

    .venvs/core/bin/python benchmarks/curator.py --chains 5000

Prints a table and writes benchmarks/results/curator.json.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "curator"
RESULTS = Path(__file__).parent / "results" / "curator.json"
sys.path.insert(0, str(EXAMPLE))

from chains import chain  # noqa: E402


def main() -> None:
    """Run, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--chains", type=int, default=5000)
    parser.add_argument("--concurrency", type=int, default=64)
    parser.add_argument("--latency", type=float, default=1.5, help="seconds the teacher takes for a reply")
    options = parser.parse_args()
    teach = [sys.executable, str(EXAMPLE / "teacher.py"), "--port", "0", "--latency", str(options.latency)]
    with tempfile.TemporaryDirectory() as folder, subprocess.Popen(teach, stdout=subprocess.PIPE, text=True) as teacher:
        assert teacher.stdout is not None
        url = teacher.stdout.readline().split()[-1]
        try:
            result = measure(Path(folder), url, options)
        finally:
            teacher.terminate()
    table = Table("figure", "value")
    for name, value in result.items():
        table.add_row(name, str(value))
    Console().print(table)
    RESULTS.write_text(json.dumps({"python": platform.python_version(), "cpus": os.cpu_count()} | result, indent=1))


def measure(folder: Path, url: str, options: argparse.Namespace) -> dict[str, object]:
    """One run of the command in a process of its own, whose memory is looked at every half second."""
    with (folder / "chains.jsonl").open("w") as file:
        file.writelines(json.dumps(chain(number)) + "\n" for number in range(options.chains))
    config = {
        "input": {"path": "chains.jsonl"},
        "output": "out",
        "model": "teacher",
        "endpoint": {"base_url": url, "concurrency": options.concurrency, "timeout": 120},
    }
    (folder / "config.yaml").write_text(json.dumps(config))  # JSON is YAML
    command = [sys.executable, "-m", "multiverse", "curate", str(folder / "config.yaml")]
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    memory = []
    while not (ended := os.wait4(process.pid, os.WNOHANG))[0]:
        memory.append(resident(process.pid))
        time.sleep(0.5)
    seconds = time.perf_counter() - start
    report = json.loads((folder / "out" / "report.json").read_text())
    requests = sum(used["requests"] for used in report["usage"])
    at_work = [size for size in memory if size]
    ideal = requests * options.latency / options.concurrency
    return {
        "exit status": os.waitstatus_to_exitcode(ended[1]),
        "chains": report["chains"],
        "accepted": report["accepted"],
        "requests": requests,
        "concurrency": options.concurrency,
        "latency of a reply, s": options.latency,
        "seconds": round(seconds, 1),
        "requests per second": round(requests / seconds, 1),
        "share of the endpoint's limit": round(ideal / seconds, 3),
        "CPU ms per request": round((ended[2].ru_utime + ended[2].ru_stime) / requests * 1000, 2),
        "resident MB at 10, 50, 90 % of the run": [round(at_work[len(at_work) * p // 100]) for p in (10, 50, 90)],
        "resident MB at most": round(max(at_work)),
        "load average at the end": os.getloadavg()[1],
        "store MB": round(sum(path.stat().st_size for path in (folder / "out" / "store").iterdir()) / 1e6, 1),
    }


def resident(pid: int) -> float:
    """Resident memory of a process, in MB; 0 if it has just ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0.0
    found = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")]
    return int(found[0]) / 1000 if found else 0.0


if __name__ == "__main__":
    main()
