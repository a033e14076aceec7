#!/usr/bin/env bash
# Every endpoint of MLflow's REST protocol that `mltrack server` serves, once, with curl: what a client in R, Java or anything
# else has to send. mlflow-rest.sh [ADDRESS] (default: $MLFLOW_TRACKING_URI); MLFLOW_TRACKING_TOKEN where the server wants one.
set -euo pipefail
server=${1:-${MLFLOW_TRACKING_URI:-http://127.0.0.1:5000}}
api=$server/api/2.0/mlflow
files=$server/api/2.0/mlflow-artifacts/artifacts
options=(--fail-with-body --silent --show-error --max-time 60)
if [ -n "${MLFLOW_TRACKING_TOKEN:-}" ]; then options+=(-H "Authorization: Bearer $MLFLOW_TRACKING_TOKEN"); fi

# send METHOD PATH JSON, and ask PATH NAME=VALUE...: the answer on standard output.
send() { curl "${options[@]}" -X "$1" -H 'Content-Type: application/json' -d "$3" "$api/$2"; }
ask() {
    local path=$1 fields=()
    shift
    for field; do fields+=(--data-urlencode "$field"); done
    curl "${options[@]}" -G "$api/$path" "${fields[@]}"
}
# The first "NAME":"VALUE" of an answer; a real client reads JSON.
value() { grep -o "\"$1\":\"[^\"]*\"" | head -n 1 | cut -d '"' -f 4; }
quiet() { "$@" >/dev/null; }
unique=$(date +%s)-$$
now=$(date +%s)000

# Experiments
experiment=$(send POST experiments/create "{\"name\": \"curl-$unique\", \"tags\": [{\"key\": \"team\", \"value\": \"ml\"}]}" | value experiment_id)
quiet ask experiments/get experiment_id="$experiment"
quiet ask experiments/get-by-name experiment_name="curl-$unique"
quiet send POST experiments/search '{"max_results": 10, "filter": "tags.team = '"'ml'"'", "order_by": ["name DESC"]}'
quiet ask experiments/search max_results=10 view_type=ALL
quiet send POST experiments/set-experiment-tag "{\"experiment_id\": \"$experiment\", \"key\": \"gone\", \"value\": \"soon\"}"
quiet send POST experiments/delete-experiment-tag "{\"experiment_id\": \"$experiment\", \"key\": \"gone\"}"
quiet send POST experiments/update "{\"experiment_id\": \"$experiment\", \"new_name\": \"curl-again-$unique\"}"
quiet send POST experiments/delete "{\"experiment_id\": \"$experiment\"}"
quiet send POST experiments/restore "{\"experiment_id\": \"$experiment\"}"

# A run, and what is logged of it
run=$(send POST runs/create "{\"experiment_id\": \"$experiment\", \"run_name\": \"by-hand\", \"user_id\": \"me\", \"start_time\": $now}" | value run_id)
quiet send POST runs/log-parameter "{\"run_id\": \"$run\", \"key\": \"lr\", \"value\": \"0.1\"}"
quiet send POST runs/log-metric "{\"run_id\": \"$run\", \"key\": \"loss\", \"value\": 0.5, \"timestamp\": $now, \"step\": 0}"
quiet send POST runs/log-batch "{\"run_id\": \"$run\", \"metrics\": [{\"key\": \"loss\", \"value\": 0.25, \"timestamp\": $now, \"step\": 1}], \"params\": [{\"key\": \"depth\", \"value\": \"3\"}], \"tags\": [{\"key\": \"kind\", \"value\": \"test\"}]}"
quiet send POST runs/set-tag "{\"run_id\": \"$run\", \"key\": \"gone\", \"value\": \"soon\"}"
quiet send POST runs/delete-tag "{\"run_id\": \"$run\", \"key\": \"gone\"}"
quiet send POST runs/log-inputs "{\"run_id\": \"$run\", \"datasets\": [{\"tags\": [{\"key\": \"mlflow.data.context\", \"value\": \"train\"}], \"dataset\": {\"name\": \"iris\", \"digest\": \"1a2b\", \"source_type\": \"http\", \"source\": \"{}\"}}]}"
quiet send POST runs/log-model "{\"run_id\": \"$run\", \"model_json\": \"{\\\"run_id\\\": \\\"$run\\\", \\\"artifact_path\\\": \\\"model\\\", \\\"utc_time_created\\\": \\\"2026-01-01\\\", \\\"flavors\\\": {}}\"}"
ask runs/get run_id="$run" | grep -q '"key":"loss","value":0.25'
ask metrics/get-history run_id="$run" metric_key=loss max_results=100 | grep -q '"step":0'
quiet ask metrics/get-history-bulk run_id="$run" metric_key=loss
quiet ask metrics/get-history-bulk-interval run_ids="$run" metric_key=loss max_results=10
send POST runs/search "{\"experiment_ids\": [\"$experiment\"], \"filter\": \"metrics.loss < 0.3 and params.depth = '3'\", \"order_by\": [\"metrics.loss ASC\"], \"max_results\": 5}" | grep -q "$run"
send POST experiments/search-datasets "{\"experiment_ids\": [\"$experiment\"]}" | grep -q iris

# Files
printf 'hello\n' | curl "${options[@]}" -X PUT -H 'Content-Type: text/plain' --data-binary @- "$files/$experiment/$run/artifacts/notes/hello.txt"
[ "$(curl "${options[@]}" "$files/$experiment/$run/artifacts/notes/hello.txt")" = hello ]
[ "$(curl "${options[@]}" -H 'Range: bytes=1-3' "$files/$experiment/$run/artifacts/notes/hello.txt")" = ell ]
curl "${options[@]}" -G --data-urlencode "path=$experiment/$run/artifacts/notes" "$files" | grep -q '"file_size":6'
ask artifacts/list run_id="$run" path=notes | grep -q notes/hello.txt
curl "${options[@]}" -G --data-urlencode "run_uuid=$run" --data-urlencode path=notes/hello.txt "$server/get-artifact" | grep -q hello
quiet curl "${options[@]}" -X DELETE "$files/$experiment/$run/artifacts/notes/hello.txt"

# Logged models: what clients of 3.x put beside runs
model=$(send POST logged-models "{\"experiment_id\": \"$experiment\", \"name\": \"net\", \"source_run_id\": \"$run\", \"params\": [{\"key\": \"depth\", \"value\": \"3\"}]}" | value model_id)
printf 'flavors: {}\n' | curl "${options[@]}" -X PUT --data-binary @- "$files/$experiment/models/$model/artifacts/MLmodel"
quiet send PATCH "logged-models/$model" "{\"model_id\": \"$model\", \"status\": \"LOGGED_MODEL_READY\"}"
quiet ask "logged-models/$model"
quiet send PATCH "logged-models/$model/tags" '{"tags": [{"key": "gone", "value": "soon"}]}'
quiet send DELETE "logged-models/$model/tags/gone" '{}'
quiet send POST "logged-models/$model/params" '{"params": [{"key": "width", "value": "64"}]}'
ask "logged-models/$model/artifacts/directories" | grep -q MLmodel
send POST logged-models/search "{\"experiment_ids\": [\"$experiment\"], \"filter\": \"name = 'net'\", \"order_by\": [{\"field_name\": \"creation_timestamp\", \"ascending\": false}]}" | grep -q "$model"
quiet send POST runs/outputs "{\"run_id\": \"$run\", \"models\": [{\"model_id\": \"$model\", \"step\": 1}]}"

# The registry
name=net-$unique
quiet send POST registered-models/create "{\"name\": \"$name\", \"description\": \"by hand\"}"
quiet ask registered-models/get name="$name"
quiet send PATCH registered-models/update "{\"name\": \"$name\", \"description\": \"still by hand\"}"
quiet send POST registered-models/rename "{\"name\": \"$name\", \"new_name\": \"$name-2\"}"
name=$name-2
ask registered-models/search filter="name LIKE 'net-%'" order_by="name ASC" max_results=1000 | grep -q "$name"
quiet send POST registered-models/set-tag "{\"name\": \"$name\", \"key\": \"gone\", \"value\": \"soon\"}"
quiet send DELETE registered-models/delete-tag "{\"name\": \"$name\", \"key\": \"gone\"}"
version=$(send POST model-versions/create "{\"name\": \"$name\", \"source\": \"models:/$model\", \"model_id\": \"$model\", \"run_id\": \"$run\"}" | value version)
quiet ask model-versions/get name="$name" version="$version"
quiet ask model-versions/get-download-uri name="$name" version="$version"
curl "${options[@]}" -G --data-urlencode "name=$name" --data-urlencode "version=$version" --data-urlencode path=MLmodel "$server/model-versions/get-artifact" | grep -q flavors
quiet send PATCH model-versions/update "{\"name\": \"$name\", \"version\": \"$version\", \"description\": \"the first\"}"
quiet send POST model-versions/set-tag "{\"name\": \"$name\", \"version\": \"$version\", \"key\": \"gone\", \"value\": \"soon\"}"
quiet send DELETE model-versions/delete-tag "{\"name\": \"$name\", \"version\": \"$version\", \"key\": \"gone\"}"
ask model-versions/search filter="name = '$name'" max_results=10 | grep -q '"version":"1"'
send POST model-versions/transition-stage "{\"name\": \"$name\", \"version\": \"$version\", \"stage\": \"Production\", \"archive_existing_versions\": true}" | grep -q Production
quiet send POST registered-models/get-latest-versions "{\"name\": \"$name\", \"stages\": [\"Production\"]}"
quiet ask registered-models/get-latest-versions name="$name" stages=Production
quiet send POST registered-models/alias "{\"name\": \"$name\", \"alias\": \"champion\", \"version\": \"$version\"}"
ask registered-models/alias name="$name" alias=champion | grep -q '"version":"1"'
quiet send DELETE registered-models/alias "{\"name\": \"$name\", \"alias\": \"champion\"}"
quiet send DELETE model-versions/delete "{\"name\": \"$name\", \"version\": \"$version\"}"
quiet send DELETE registered-models/delete "{\"name\": \"$name\"}"
quiet send DELETE "logged-models/$model" '{}'

# The end of the run; the trash and back
send POST runs/update "{\"run_id\": \"$run\", \"status\": \"FINISHED\", \"end_time\": ${now}}" | grep -q FINISHED
quiet send POST runs/delete "{\"run_id\": \"$run\"}"
quiet send POST runs/restore "{\"run_id\": \"$run\"}"

# What clients ask of the server itself
[ "$(curl "${options[@]}" "$server/health")" = OK ]
quiet curl "${options[@]}" "$server/version"
quiet curl "${options[@]}" "$server/api/3.0/mlflow/server-info"
echo "all of it works at $server"
