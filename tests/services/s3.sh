#!/usr/bin/env bash
# Starts and stops one S3-compatible server (moto, a Python process), for tests that claim something about S3: conditional creates, listings, ranges, errors.
# Called by the end-to-end tests, by .ci/run and by hand. It takes any key and secret, and keeps all in memory: never for data that matters.
#   s3.sh start DIR [--parent PID]    prints `url=http://127.0.0.1:PORT` and `pid=N` once the server answers; the URL is in DIR/url too. A DIR that was
#                                     started before keeps its port, not its data. With --parent, the server ends when that process is gone.
#   s3.sh bucket DIR NAME             makes a bucket; one that is there already is a success
#   s3.sh stop DIR                    TERM, then KILL; stopping what does not run succeeds
# A client needs: AWS_ENDPOINT_URL=(the URL) AWS_ALLOW_HTTP=true AWS_REGION=us-east-1 AWS_ACCESS_KEY_ID=x AWS_SECRET_ACCESS_KEY=x
# Exit: 0 done, 1 the server failed, 2 usage, 3 something is missing (prepare.sh says what).
set -euo pipefail
. "$(dirname "$0")/lib.sh"

answers() {
    [ -s "$dir/bound" ] && curl --noproxy '*' -sf --max-time 5 -o /dev/null "http://127.0.0.1:$(cat "$dir/bound")/"
}

start() {
    local port=0 python
    parse_start "$@"
    is_prepared s3 || "$services/prepare.sh" s3 >&2 || exit 3
    python=$(environment s3)/bin/python
    trap 'stop_service "$dir"; exit 1' INT TERM
    [ ! -s "$dir/port" ] || port=$(cat "$dir/port")
    rm -f "$dir/bound"
    spawn_program "$dir" "$parent" "$python" -X "standpipe.service=$dir" "$services/s3/serve.py" "$port" "$dir/bound"
    await_service "$dir" 60 answers || report_failure "$dir" "the S3 server"
    cp "$dir/bound" "$dir/port"
    echo "http://127.0.0.1:$(cat "$dir/port")" >"$dir/url"
    echo "url=$(cat "$dir/url")"
    echo "pid=$(cat "$dir/pid")"
}

bucket() {
    local dir
    dir=$(absolute "$1")
    [ -s "$dir/url" ] || fail 2 "$dir was never started"
    curl --noproxy '*' -sSf --max-time 30 -o /dev/null -X PUT "$(cat "$dir/url")/$2" || fail 1 "cannot make the bucket $2"
}

case ${1:-} in
start) start "${@:2}" ;;
bucket)
    [ $# -eq 3 ] || fail 2 "bucket takes a DIR and a NAME"
    bucket "$2" "$3"
    ;;
stop)
    [ $# -eq 2 ] || fail 2 "stop takes a DIR"
    stop_service "$(absolute "$2")"
    ;;
*) fail 2 "usage: s3.sh start DIR [--parent PID] | bucket DIR NAME | stop DIR" ;;
esac
