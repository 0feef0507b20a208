#!/bin/sh
# Runs `niru`, with secrets from mounted files. PostgreSQL's client takes a password by variable, or from a file that
# belongs to the user and nobody else may read, which a mounted secret does not. The broker's address holds a password.
set -eu
if [ -n "${PGPASSWORD_FILE:-}" ]; then
    PGPASSWORD="$(cat "$PGPASSWORD_FILE")"
    export PGPASSWORD
fi
if [ -n "${BROKER_URL_FILE:-}" ]; then
    NIRU_WORKER_URL="$(cat "$BROKER_URL_FILE")"
    export NIRU_WORKER_URL
fi
exec niru "$@"
