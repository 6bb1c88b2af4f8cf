"""Compare two builds of an image, and name the files that differ: a part of ``make reproduce``.

Reads two OCI image layouts (https://github.com/opencontainers/image-spec/blob/main/image-layout.md), as
``docker buildx build --output type=oci,tar=false`` writes them. Uses only Python's standard library.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

MAX_LINES = 40
"""Files to name per layer. The count is always complete."""


class UnreadableLayout(Exception):
    """A folder is no OCI image layout with one image."""


def main(arguments: list[str]) -> int:
    """0 if both digests are equal, 1 if they differ, 2 if a layout cannot be read."""
    if len(arguments) != 2:
        print("usage: compare_images.py LAYOUT LAYOUT", file=sys.stderr)
        return 2
    first, second = (Path(argument) for argument in arguments)
    try:
        digests = [image_digest(layout) for layout in (first, second)]
        if digests[0] == digests[1]:
            print(f"the digests are equal: {digests[0]}")
            return 0
        print(f"the digests differ: {digests[0]} {digests[1]}")
        for line in differences(first, second):
            print(line)
    except (UnreadableLayout, tarfile.TarError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 1


def image_digest(layout: Path) -> str:
    """The digest of the one image in a layout, ``sha256:`` and 64 hexadecimal digits.

    Raises:
        UnreadableLayout: the folder is no layout, or does not contain exactly one image.
    """
    try:
        index = json.loads((layout / "index.json").read_bytes())
        (manifest,) = (entry for entry in index["manifests"] if "artifactType" not in entry)
        return str(manifest["digest"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UnreadableLayout(f"{layout} is no OCI image layout with one image ({error}); run make oci") from error


def differences(first: Path, second: Path) -> list[str]:
    """What differs between two images: settings of the configuration, and files by layer."""
    manifests = [_read(layout, image_digest(layout)) for layout in (first, second)]
    configs = [_read(layout, manifest["config"]["digest"]) for layout, manifest in zip((first, second), manifests)]
    keys = sorted((configs[0].keys() | configs[1].keys()) - {"rootfs"})
    lines = [f"configuration: {key} differs" for key in keys if configs[0].get(key) != configs[1].get(key)]
    layers = [[layer["digest"] for layer in manifest["layers"]] for manifest in manifests]
    for number, (left, right) in enumerate(itertools.zip_longest(*layers), start=1):
        if left is None or right is None:
            lines.append(f"layer {number}: only in one image")
        elif left != right:
            found = layer_differences(_blob(first, left), _blob(second, right))
            lines.append(f"layer {number}: {len(found)} files differ" if found else f"layer {number}: order or packing")
            lines += [f"  {line}" for line in found[:MAX_LINES]]
    return lines


def layer_differences(first: Path, second: Path) -> list[str]:
    """One line for each file that is not the same in both layers: its path, and what differs."""
    files = [_members(layer) for layer in (first, second)]
    lines = []
    for name in sorted(files[0].keys() | files[1].keys()):
        left, right = files[0].get(name), files[1].get(name)
        if left is None or right is None:
            lines.append(f"{name}: only in the {'second' if left is None else 'first'} build")
        elif left != right:
            changed = [key for key in left if left[key] != right[key]]
            lines.append(f"{name}: {', '.join(f'{key} {left[key]} and {right[key]}' for key in changed)}")
    return lines


def _members(layer: Path) -> dict[str, dict[str, Any]]:
    """By path: what a layer says of the file."""
    members = {}
    with tarfile.open(layer) as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isfile() else None
            members[member.name] = {
                "type": member.type,
                "mode": oct(member.mode),
                "owner": f"{member.uid}:{member.gid}",
                "time": member.mtime,
                "target": member.linkname,
                "content": hashlib.file_digest(content, "sha256").hexdigest()[:12] if content else None,
            }
    return members


def _read(layout: Path, digest: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(_blob(layout, digest).read_bytes())
    return content


def _blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / digest.replace(":", "/")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
