#!/bin/sh
# Starts a daemon on a free port, runs the calculator against it, stops the daemon.
set -eu
dir=$(mktemp -d)
mkfifo "$dir/stdout"
pydotcompute-server examples/calculator.py --listen 127.0.0.1:0 >"$dir/stdout" &
daemon=$!
trap 'kill "$daemon" 2>/dev/null || true; rm -rf "$dir"' EXIT
exec 3<"$dir/stdout"
read -r _ _ address <&3
echo "The daemon listens on $address. The calculator, from another process:"
python examples/calculator.py --target "$address"
kill -TERM "$daemon"
wait "$daemon"
trap 'rm -rf "$dir"' EXIT
echo "The daemon has stopped."
