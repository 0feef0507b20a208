#!/bin/sh
# Makes the secrets of a deployment, at random, in a new folder: deploy/make-secrets.sh FOLDER
# The folder is for its owner alone. The files in it can be read by all who get that far: containers are given one each,
# and run as other users. The keys of clients are in reader-key and writer-key; servers get their digests.
set -eu
folder="$1"
mkdir -m 700 "$folder"
umask 022

random() {
    head -c 24 /dev/urandom | base64 | tr '+/' '-_' | tr -d '\n'
}

digest() {
    printf %s "$1" | sha256sum | cut -d' ' -f1
}

broker="$(random)"
reader="$(random)"
writer="$(random)"
random >"$folder/postgres-password"
printf %s "nats://niru:$broker@nats:4222" >"$folder/broker-url"
printf 'authorization {\n    user: niru\n    password: "%s"\n}\n' "$broker" >"$folder/nats-auth.conf"
printf %s "$reader" >"$folder/reader-key"
printf %s "$writer" >"$folder/writer-key"
{
    echo "reader:read:sha256:$(digest "$reader")"
    echo "writer:read+write:sha256:$(digest "$writer")"
} >"$folder/api-keys"
