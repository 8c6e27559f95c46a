"""Remote inputs are read through each protocol from a server of this machine, with retries and clear errors."""

import hashlib
import importlib
import json
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.gcs_server import GcsServer
from support.hub_server import HubServer

from acc_megatron.data_tools.convert.convert import ConvertSettings, convert
from acc_megatron.data_tools.rows import remote_files
from acc_megatron.data_tools.rows.remote_files import fetched, remote_url
from acc_megatron.data_tools.rows.row_files import expanded
from acc_megatron.errors import DataError, EnvironmentProblem

CHATS = [{"prompt": f"Question {number}?", "completion": f"Answer {number}."} for number in range(50)]
ROWS = b"".join(json.dumps(chat).encode() + b"\n" for chat in CHATS)
FILES = {"data/a.jsonl": ROWS, "data/more/b.jsonl": ROWS[:200]}
INSIDE = {name.removeprefix("data/"): data for name, data in FILES.items()}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ACC_MEGATRON_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(remote_files, "BACKOFF_SECONDS", 0.01)
    return tmp_path / "cache" / "remote"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    constants = pytest.importorskip("huggingface_hub.constants")
    with HubServer("org/name", FILES) as server:
        _use_hub(monkeypatch, constants, server.url)
        yield server


def _use_hub(monkeypatch: pytest.MonkeyPatch, constants: Any, url: str) -> None:
    from huggingface_hub import HfFileSystem

    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setenv("HF_ENDPOINT", url)
    HfFileSystem.clear_instance_cache()


def contents(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("."))
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in files}


def test_a_path_is_remote_by_its_scheme_only() -> None:
    assert remote_url(Path("hf://datasets/org/name")) == "hf://datasets/org/name"
    assert remote_url(Path("s3://bucket/a.jsonl")) == "s3://bucket/a.jsonl"
    assert (
        remote_url(Path("runs/s3:/x")) is None and remote_url(Path("/s3/x")) is None and remote_url(Path("-")) is None
    )


def test_a_dataset_of_the_hub_is_read_and_not_fetched_twice(hub: HubServer, tmp_path: Path) -> None:
    (folder,) = expanded([Path("hf://datasets/org/name")])
    assert contents(folder) == FILES
    note = json.loads((folder / "data" / ".a.jsonl.source.json").read_bytes())
    assert note["sha256"] == hashlib.sha256(ROWS).hexdigest() and note["url"] == "hf://datasets/org/name/data/a.jsonl"
    num_files = sum(number for path, number in hub.asked.items() if "/resolve/" in path)
    assert fetched("hf://datasets/org/name") == folder
    assert sum(number for path, number in hub.asked.items() if "/resolve/" in path) == num_files
    manifest = convert([Path("hf://datasets/org/name/data/a.jsonl")], tmp_path / "data", ConvertSettings())
    assert manifest["documents_out"] == 50 and manifest["inputs"][0]["sha256"] == hashlib.sha256(ROWS).hexdigest()


def test_a_changed_file_is_fetched_again_and_a_busy_server_is_asked_again(hub: HubServer) -> None:
    folder = fetched("hf://datasets/org/name/data")
    hub.files = FILES | {"data/a.jsonl": ROWS[:100]}
    hub.num_failures = 2
    assert contents(fetched("hf://datasets/org/name/data"))["a.jsonl"] == ROWS[:100]
    assert contents(folder)["more/b.jsonl"] == ROWS[:200]


def test_an_unreachable_or_unknown_input_is_one_line(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"^no input at hf://datasets/org/none$"):
        list(expanded([Path("hf://datasets/org/none")]))
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    constants = importlib.import_module("huggingface_hub.constants")
    _use_hub(monkeypatch, constants, f"http://127.0.0.1:{port}")
    with pytest.raises(DataError, match=r"^cannot read hf://datasets/org/name: .*; check the name") as error:
        list(expanded([Path("hf://datasets/org/name")]))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("url", "package"), [("s3://bucket/a.jsonl", "s3fs"), ("gs://bucket/a.jsonl", "gcsfs")])
def test_a_missing_package_is_named(url: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    registered = importlib.import_module("fsspec.registry")._registry
    monkeypatch.setitem(sys.modules, package, None)
    for protocol in ("s3", "s3a", "gs", "gcs"):
        monkeypatch.delitem(registered, protocol, raising=False)
    with pytest.raises(EnvironmentProblem, match=rf"needs the package {package}, which .*: run .*{package}"):
        fetched(url)


def test_a_file_over_the_limit_and_a_name_outside_the_cache_are_refused(
    hub: HubServer, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_files, "MAX_BYTES", 1_000)
    with pytest.raises(DataError, match=r"data/a\.jsonl has \d+ bytes; the limit is 1000"):
        fetched("hf://datasets/org/name")
    hub.files = {"../../../out.jsonl": b"{}"}
    with pytest.raises(DataError):
        fetched("hf://datasets/org/name")
    assert not list(cache.parent.parent.glob("*.jsonl"))


def test_objects_of_s3_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    s3fs, server = pytest.importorskip("s3fs"), pytest.importorskip("moto.server")
    moto = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    moto.start()
    try:
        host, port = moto.get_host_and_port()
        keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}
        for name, value in (keys | {"AWS_ENDPOINT_URL": f"http://{host}:{port}"}).items():
            monkeypatch.setenv(name, value)
        s3fs.S3FileSystem.clear_instance_cache()
        client = pytest.importorskip("boto3").client("s3")
        client.create_bucket(Bucket="bucket")
        for name, data in FILES.items():
            client.put_object(Bucket="bucket", Key=name, Body=data)
        assert contents(fetched("s3://bucket/data")) == INSIDE
        with pytest.raises(DataError, match="no input at s3://bucket/none"):
            fetched("s3://bucket/none")
    finally:
        moto.stop()


def test_objects_of_google_cloud_storage_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    gcsfs = pytest.importorskip("gcsfs")
    with GcsServer("bucket", FILES) as server:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", server.url)
        gcsfs.GCSFileSystem.clear_instance_cache()
        assert contents(fetched("gs://bucket/data")) == INSIDE
        with pytest.raises(DataError, match="no input at gs://bucket/none"):
            fetched("gs://bucket/none")
