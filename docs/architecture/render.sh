#!/usr/bin/env bash
# Draws every .dot file beside this one as .svg, and notes the source's SHA-256 in it (tests/test_docs.py holds it).
set -euo pipefail
cd "$(dirname "$0")"
command -v dot >/dev/null || { echo "dot not found: apt-get install graphviz" >&2; exit 2; }
for source in *.dot; do
    picture=${source%.dot}.svg
    dot -Tsvg "$source" -o "$picture"
    printf '<!-- source: %s -->\n' "$(sha256sum <"$source" | cut -d' ' -f1)" >>"$picture"
done
