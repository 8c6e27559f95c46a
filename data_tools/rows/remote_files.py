"""Inputs on a Hugging Face hub (`hf://datasets/ORG/NAME`), Amazon S3 (`s3://`) and Google Cloud Storage (`gs://`).

A file is streamed once into the cache folder (ACC_MEGATRON_CACHE, by default ~/.cache/acc-megatron) and read from there
like a file of this machine, because every input is hashed and read in slices. A file that has the size and the
version of the cached one is not fetched again. Names of other hosts are labels: no path leaves the cache folder.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from acc_megatron.common.atomic_files import atomic_file, write_json
from acc_megatron.common.streams import MAX_BYTES
from acc_megatron.errors import DataError
from acc_megatron.optional import missing_package

_REMOTE = re.compile(r"(hf|s3|gs):/{1,2}(?=[^/])(.*)")  # Path writes one slash
_PACKAGES = {"hf": "huggingface_hub", "s3": "s3fs", "gs": "gcsfs"}
_BLOCK_BYTES = 4 << 20
TRIES, BACKOFF_SECONDS = 4, 1.0
_VERSION_KEYS = ("ETag", "etag", "md5Hash", "blob_id", "lfs", "last_modified", "LastModified", "updated")


def remote_url(path: Path) -> str | None:
    """The URL of a remote input that was given as a path; None for a path of this machine."""
    found = _REMOTE.fullmatch(str(path))
    return f"{found[1]}://{found[2]}" if found and not path.exists() else None


def fetched(url: str) -> Path:
    """The local copy of a remote file, or of all files under a remote folder.

    Raises DataError for a URL that does not exist or cannot be reached, and EnvironmentProblem without its package.
    """
    scheme, _, name = url.partition("://")
    files = _file_system(scheme, url)
    target = _cache_folder() / scheme / _label(name)
    try:
        files.invalidate_cache()  # a listing of an earlier call may be old
        listed = {str(found["name"]): found for found in _listed(files, url)}
        root = str(files._strip_protocol(url)).rstrip("/")
        for found_name, found in sorted(listed.items()):
            inside = found_name.removeprefix(root).lstrip("/")
            _fetch(files, f"{scheme}://{found_name}", found, target / _label(inside) if inside else target)
    except DataError:
        raise
    except Exception as error:  # each library has errors of its own
        raise _unreachable(url, error) from None
    return target


def _listed(files: Any, url: str) -> Iterator[dict[str, Any]]:
    """The description of the file, or of each file under the folder. Raises DataError if there is none."""
    found = _retried(lambda: files.find(url, detail=True), url)
    if not found:
        raise DataError(f"no input at {url}")
    yield from found.values()


def _fetch(files: Any, url: str, found: dict[str, Any], target: Path) -> None:
    """Stream a file into the cache, unless this version is there."""
    size = found.get("size")
    if not isinstance(size, int) or size > MAX_BYTES:
        raise DataError(f"{url} has {size} bytes; the limit is {MAX_BYTES}: split the file")
    version = {"url": url, "bytes": size} | {key: str(found[key]) for key in _VERSION_KEYS if found.get(key)}
    note = target.with_name(f".{target.name}.source.json")
    if target.is_file() and target.stat().st_size == size and _read_note(note).items() >= version.items():
        return
    note.unlink(missing_ok=True)
    sha256 = _retried(lambda: _stream(files, url, size, target), url)
    write_json(note, version | {"sha256": sha256})


def _stream(files: Any, url: str, size: int, target: Path) -> str:
    """Copy a file block by block; returns its SHA-256. Raises OSError for another size than the listed one."""
    digest, num_bytes = hashlib.sha256(), 0
    with atomic_file(target) as copy, files.open(url, "rb", block_size=_BLOCK_BYTES) as source:
        while block := source.read(_BLOCK_BYTES):
            num_bytes += len(block)
            if num_bytes > size:
                break
            digest.update(block)
            copy.write(block)
        if num_bytes != size:
            raise OSError(f"{num_bytes} bytes were received, {size} are listed")
    return digest.hexdigest()


def _retried(work: Any, url: str) -> Any:
    """The result of `work`, which is tried again after errors of the network. Raises DataError for the last one."""
    for number in range(TRIES):
        try:
            return work()
        except FileNotFoundError:
            raise DataError(f"no input at {url}") from None
        except PermissionError as error:
            raise _unreachable(url, error) from None
        except Exception as error:
            if number + 1 == TRIES:
                raise _unreachable(url, error) from None
            time.sleep(BACKOFF_SECONDS * 2**number)
    raise AssertionError("the last try returns or raises")


def _file_system(scheme: str, url: str) -> Any:
    package = _PACKAGES[scheme]
    try:
        import fsspec

        return fsspec.core.url_to_fs(url, use_listings_cache=False)[0]
    except ImportError as error:
        name = error.name or package
        raise missing_package("fsspec" if name == "fsspec" else package, f"the input {url}") from None
    except Exception as error:  # missing credentials, an invalid name
        raise _unreachable(url, error) from None


def _unreachable(url: str, error: Exception) -> DataError:
    detail = " ".join(f"{type(error).__name__}: {error}".split())[:300]
    return DataError(f"cannot read {url}: {detail}; check the name, the network and your credentials, or copy it here")


def _cache_folder() -> Path:
    return Path(os.environ.get("ACC_MEGATRON_CACHE") or Path.home() / ".cache" / "acc-megatron").absolute() / "remote"


def _label(name: str) -> PurePosixPath:
    """A remote name as a relative path. Raises DataError for one that would leave its folder."""
    path = PurePosixPath(name.strip("/").replace("@", "_at_"))
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise DataError(f"the remote name {name!r} is not a plain path")
    return path


def _read_note(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
