"""One key for all spellings of the URL of a page."""

from functools import lru_cache
from urllib.parse import unquote


@lru_cache(maxsize=1024)  # a page is met as a hit, when it is asked for, and when it is read
def page_key(url: str) -> str:
    """The URL without scheme, `www.`, anchor, final slash and %-escapes; an id that is no http URL is its own key.

    A fragment that begins with `!` or `/` names a page and stays.
    """
    scheme, mark, rest = url.strip().partition("://")
    if not mark or scheme.lower() not in ("http", "https"):
        return url
    address, _, fragment = rest.partition("#")
    host, slash, path = address.partition("/")
    own = f"#{fragment}" if fragment.startswith(("!", "/")) else ""
    return host.lower().removeprefix("www.") + unquote(slash + path).rstrip("/") + own
