#!/bin/sh
# Writes an image's bill of materials (CycloneDX) from the lock. The same lock gives the same bytes: the time is left
# out, and the serial number is computed from the content.
#   sh docker/sbom.sh UV EXTRA FILE
set -eu
"$1" export --locked --no-dev --extra "$2" --format cyclonedx1.5 --quiet --preview-features sbom-export --output-file "$3"

serial=$(sed '/"serialNumber":/d; /"timestamp":/d' "$3" | sha256sum \
    | sed -E 's/^(.{8})(.{4}).(.{3}).(.{3})(.{12}).*/\1-\2-5\3-8\4-\5/')
sed -i.random -E "/\"timestamp\":/d; s/urn:uuid:[0-9a-f-]{36}/urn:uuid:$serial/" "$3"
rm "$3.random"
