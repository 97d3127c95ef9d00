#!/bin/sh
# Refuses a change of the wire that breaks clients of BASE. Usage: breaking.sh BASE BUF PYTHON
set -eu
base=$1 buf=$2 python=$3
before=.tools/before
rm -rf "$before"
mkdir -p "$before"
for ref in "origin/$base" "$base"; do
    if git rev-parse --quiet --verify "$ref^{commit}" >/dev/null && git archive "$ref" proto 2>/dev/null | tar -x -C "$before" 2>/dev/null; then
        break
    fi
done
if [ ! -d "$before/proto" ]; then
    echo "no proto files on $base yet: nothing to break"
    exit 0
fi
site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
(cd "$before/proto" && find . -name '*.proto' | sed 's,^\./,,' >../files)
"$python" -m grpc_tools.protoc -I"$before/proto" -I"$site" --include_imports --descriptor_set_out=.tools/before.binpb $(cat "$before/files")
"$buf" breaking .tools/now.binpb --against .tools/before.binpb --config proto/buf.yaml --against-config proto/buf.yaml --path pydotcompute
