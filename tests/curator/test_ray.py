"""The Ray job does what a run on one machine does, in shards that need nothing of each other."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray
from curating import Configure, Serve, run

from multiverse.curator import RunError, curate_on_ray, load_config


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """One local cluster for the tests that don't start their own."""
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def test_a_ray_job_writes_what_one_machine_writes(teach: Serve, configure: Configure, tmp_path: Path) -> None:
    _, url = teach(faults=0.2, hang=0.1)
    one, many = configure(url, 12, name="one"), configure(url, 12, name="many")
    assert run(one).returncode == 0
    done = run(many, "--ray", "local", "--shards", 3)
    assert done.returncode == 0, done.stderr
    for name in ("train.jsonl", "rejected.jsonl", "artefacts.jsonl"):
        assert (tmp_path / "many" / name).read_bytes() == (tmp_path / "one" / name).read_bytes(), name
    stores = sorted((tmp_path / "many" / "store").glob("*.sqlite"))
    assert [path.name for path in stores] == [f"0000{n}-of-00003.sqlite" for n in range(3)]


@pytest.mark.usefixtures("cluster")
def test_a_shard_that_was_lost_is_done_again_and_the_others_are_not(
    teach: Serve, configure: Configure, tmp_path: Path
) -> None:
    teacher, url = teach()
    config = load_config(configure(url, 9))
    curate_on_ray(config, 3)
    before = (tmp_path / "run" / "train.jsonl").read_bytes()
    for path in tmp_path.glob("run/store/00001-of-00003.*"):
        path.unlink()
    asked = sum(teacher.seen.values())
    assert curate_on_ray(config, 3).statistics.accepted == 9
    assert 0 < sum(teacher.seen.values()) - asked < asked
    assert (tmp_path / "run" / "train.jsonl").read_bytes() == before
    assert len(before.splitlines()) == 9
    assert json.loads((tmp_path / "run" / "report.json").read_text())["chains"] == 9


@pytest.mark.usefixtures("cluster")
def test_an_error_of_a_shard_is_the_error_of_the_job(configure: Configure) -> None:
    config = load_config(configure("http://127.0.0.1:9/v1", 40, endpoint={"retries": 0}))
    with pytest.raises(RunError, match=r"2 of 2 shards stopped.*in a row"):
        curate_on_ray(config, 2)


@pytest.mark.usefixtures("cluster")
def test_a_shard_that_raises_whatever_it_raises_leaves_the_others_their_work(
    teach: Serve, configure: Configure, tmp_path: Path
) -> None:
    """Ray calls a failing row once and loses all others with it."""
    _, url = teach()
    config = load_config(configure(url, 9))
    curate_on_ray(config, 3)
    for path in tmp_path.glob("run/store/00001-of-00003.*"):
        path.unlink()
    (tmp_path / "run/store/00001-of-00003.lock").mkdir(parents=True)  # an OSError of its own, no RunError
    with pytest.raises(RunError, match=r"1 of 3 shards stopped, the first with: IsADirectoryError"):
        curate_on_ray(config, 3)


def test_a_run_goes_on_with_the_shards_it_was_begun_with(teach: Serve, configure: Configure) -> None:
    _, url = teach()
    config = configure(url, 2)
    assert run(config).returncode == 0
    wrong = run(config, "--ray", "local", "--shards", 5)
    assert wrong.returncode == 2
    assert "was begun with 1 shards, not 5" in wrong.stderr
