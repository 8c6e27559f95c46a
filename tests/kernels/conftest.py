"""The interpreted tests run in a process of their own: `test_interpreted.py` starts it."""

import os

collect_ignore = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["interpreted"]
