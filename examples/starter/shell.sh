#!/bin/sh
# The same from a shell, as an agent types it. `animaworks-tool run` is the host here.
set -eu
cd "$(dirname "$0")"
export ANIMAWORKS_ANIMA_DIR="$PWD"

id=$(animaworks-tool submit -q words count shell.sh)  # a receipt in milliseconds; without -q as JSON
animaworks-tool run --until-idle --language en        # in an Anima's life: once, for good
animaworks-tool show "$id"
animaworks-tool notifications --ack                   # what the next heartbeat reads
