"""Compare two builds of an image, and name the files that differ: a part of ``make reproduce``."""

from __future__ import annotations

import hashlib
import itertools
import sys
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from oci_layout import Layout, UnreadableLayout

if TYPE_CHECKING:
    from io import BufferedReader

MAX_LINES = 40
"""Files to name per layer. The count is always complete."""


def main(arguments: list[str]) -> int:
    """0 if both digests are equal, 1 if they differ, 2 if a layout cannot be read."""
    if len(arguments) != 2:
        print("usage: compare_images.py LAYOUT LAYOUT", file=sys.stderr)
        return 2
    try:
        first, second = (Layout(Path(argument)) for argument in arguments)
        if first.digest == second.digest:
            print(f"the digests are equal: {first.digest}")
            return 0
        print(f"the digests differ: {first.digest} {second.digest}")
        for line in differences(first, second):
            print(line)
    except (UnreadableLayout, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 1


def differences(first: Layout, second: Layout) -> list[str]:
    """What differs between two images: settings of the configuration, and files by layer."""
    manifests = [layout.read(layout.image) for layout in (first, second)]
    configs = [first.read(manifests[0]["config"]), second.read(manifests[1]["config"])]
    keys = sorted((configs[0].keys() | configs[1].keys()) - {"rootfs"})
    lines = [f"configuration: {key} differs" for key in keys if configs[0].get(key) != configs[1].get(key)]
    layers = [[layer["digest"] for layer in manifest["layers"]] for manifest in manifests]
    for number, (left, right) in enumerate(itertools.zip_longest(*layers), start=1):
        if left is None or right is None:
            lines.append(f"layer {number}: only in one image")
        elif left != right:
            try:
                found = layer_differences(first.blob(left), second.blob(right))
            except tarfile.TarError:
                lines.append(f"layer {number}: differs; its packing cannot be read here, use COMPRESSION=gzip")
                continue
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
            content = cast("BufferedReader", archive.extractfile(member)) if member.isfile() else None
            members[member.name] = {
                "type": member.type,
                "mode": oct(member.mode),
                "owner": f"{member.uid}:{member.gid}",
                "time": member.mtime,
                "target": member.linkname,
                "content": hashlib.file_digest(content, "sha256").hexdigest()[:12] if content else None,
            }
    return members


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
