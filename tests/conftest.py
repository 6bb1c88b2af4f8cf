from __future__ import annotations

import os

# Programs started here write as they do for most people: through a buffer that is flushed once more at their end.
os.environ.pop("PYTHONUNBUFFERED", None)
