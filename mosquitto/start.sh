#!/bin/sh
# Starts Mosquitto with the accounts whose passwords lie in DEPLOY_SECRETS (mqtt_master, mqtt_worker, mqtt_viewer), and with the rules
# of `acl` below FLOTA_TOPIC_ROOT. Runs in the broker's image, as its user.
set -eu
umask 077
secrets=${DEPLOY_SECRETS:-/run/secrets}
root=${FLOTA_TOPIC_ROOT:-flota}
mkdir -p /tmp/flota
for account in master worker viewer; do
  printf '%s:%s\n' "$account" "$(cat "$secrets/mqtt_$account")"
done >/tmp/flota/passwd
mosquitto_passwd -U /tmp/flota/passwd
# The # stands for the separator: a root may hold slashes, never a #.
sed "s#\([ ]\)flota/#\1$root/#" /mosquitto/config/acl >/tmp/flota/acl
# What the health check logs in with: not on its command line, which everybody may read.
printf -- '-u viewer\n-P %s\n' "$(cat "$secrets/mqtt_viewer")" >/tmp/flota/mosquitto_sub
exec mosquitto -c /mosquitto/config/mosquitto.conf
