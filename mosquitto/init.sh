#!/bin/sh
# For docker-compose.yml: makes passwords and tokens once, into the volume at /run/flota, each readable for whom it is meant, and says
# how to read them. Runs as root in the broker's image.
set -eu
umask 077
cd /run/flota
uid_broker=1883
uid_flota=10001

random() { tr -dc 'A-Za-z0-9' </dev/urandom | head -c 32; }
# share NAME OWNER DIRECTORY: the same secret for another reader
share() {
  mkdir -p "$3"
  cp "made/$1" "$3/$1"
  chown -R "$2:$2" "$3"
}

mkdir -p made
for name in token worker_token mqtt_master mqtt_worker mqtt_viewer; do
  [ -s "made/$name" ] || {
    random >"made/$name.new"
    mv "made/$name.new" "made/$name"
  }
done
for account in master worker viewer; do share "mqtt_$account" $uid_broker broker; done
share mqtt_master $uid_flota master
share token $uid_flota master
share mqtt_worker $uid_flota worker
share worker_token $uid_flota worker
chmod 711 .

echo "flota: page http://127.0.0.1:$DEPLOY_WEB_PORT, its token: docker compose exec master cat /run/flota/master/token"
echo "flota: watch: mosquitto_sub -p $DEPLOY_MQTT_PORT -u viewer -P \"\$(docker compose exec -T mosquitto cat /run/flota/broker/mqtt_viewer)\" -v -t '$FLOTA_TOPIC_ROOT/logs' -t '$FLOTA_TOPIC_ROOT/workers/status'"
