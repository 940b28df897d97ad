# The server under test: started on a free loopback port and a fresh directory, ended by its pid.
# Sourced by run. SERVER (a pid), URL and WORK are for the suites.

START_MAX_TENTHS=300

begin_suite() {
  WORK=$(mktemp -d "${TMPDIR:-/tmp}/kine2-conformance.XXXXXX")
  SERVER=; EXIT_COMMANDS=()
  trap end_suite EXIT
}
on_exit() { EXIT_COMMANDS+=("$(printf '%q ' "$@")"); }
end_suite() {
  local status=$? command job
  set +e
  for command in "${EXIT_COMMANDS[@]}"; do eval "$command"; done
  [ "$SERVER" ] && kill -9 "$SERVER" 2>/dev/null
  for job in $(jobs -p); do kill "$job" 2>/dev/null; done
  wait 2>/dev/null
  if [ $status != 0 ] || [ "${KEEP:-}" ]; then echo "data and logs: $WORK"; else rm -rf "$WORK"; fi
  exit $status
}

listening() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
# Below the ports the kernel hands out itself.
free_port() {
  local port
  while port=$(shuf -i 10000-30000 -n 1); do listening "$port" || break; done
  echo "$port"
}

# start_server [FLAG...]
start_server() {
  local attempt
  DATA=$(mktemp -d "$WORK/data.XXXX"); FLAGS=("$@")
  for attempt in 1 2 3 4 5; do
    PORT=$(free_port); URL=http://127.0.0.1:$PORT
    restart_server && return
  done
  return 1
}
# On the same port and data.
restart_server() {
  "$KINE2" serve --single --data-dir "$DATA" --listen-client "$URL" "${FLAGS[@]}" >>"$WORK/server.log" 2>&1 &
  SERVER=$!
  local tenths
  for tenths in $(seq $START_MAX_TENTHS); do
    kill -0 "$SERVER" 2>/dev/null || { echo "run: the server ended at its start:" >&2; tail -n 5 "$WORK/server.log" >&2; return 1; }
    listening "$PORT" && return
    sleep 0.1
  done
  echo "run: the server does not listen after $((START_MAX_TENTHS / 10)) s" >&2
  return 1
}
kill_server() { kill -9 "$SERVER"; wait "$SERVER" 2>/dev/null || true; SERVER=; }
# In order; a server that does not end so has failed.
stop_server() {
  kill "$SERVER"
  wait "$SERVER" || { echo "run: the server ended with $?" >&2; tail -n 5 "$WORK/server.log" >&2; return 1; }
  SERVER=
  rm -rf "$DATA"
}
