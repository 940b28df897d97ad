# A pair under test, by scripts/pair: two nodes and a witness on loopback. Sourced by run.
# A_URL and B_URL are for the suites; strike does one thing to the pair and mends it.

PAIR_UP_MAX_TENTHS=600

build_witness() {
  if [ -z "${WITNESS:-}" ]; then
    cargo build --quiet --release --package kine2-witness
    WITNESS=${CARGO_TARGET_DIR:-$ROOT/target}/release/kine2-witness
  fi
  export KINE2_BIN=$KINE2 WITNESS_BIN=$WITNESS
}

# start_pair [FLAG...]: flags of both nodes
start_pair() {
  build_witness
  PAIR=$WORK/pair.$RANDOM
  export KINE2_FLAGS="$*"
  on_exit end_pair "$PAIR"
  "$ROOT/scripts/pair" up "$PAIR" "$(free_port)" >"$WORK/pair.up" 2>&1 || { cat "$WORK/pair.up"; return 1; }
  load_pair
  A_URL=$A_ENDPOINT B_URL=$B_ENDPOINT
}
load_pair() { eval "$(grep -E '^[AB]_(ENDPOINT|PID|DATA)=' "$PAIR/env")"; }
# In order, both.
stop_pair() { "$ROOT/scripts/pair" down "$PAIR" && rm -rf "$PAIR"; }
# What is left of it when a suite ends early.
end_pair() { # directory
  [ -d "$1" ] || return 0
  local name
  for name in a b witness; do [ -f "$1/$name.pid" ] && kill -9 "$(cat "$1/$name.pid")" 2>/dev/null; done
  return 0
}

# pair_state NODE: a word such as PRIM, nothing if it does not answer
pair_state() { timeout 3 "$KINE2" status --data-dir "$PAIR/$1" --node "$1" 2>/dev/null | sed -n "s/^$1: \([A-Z]*\).*/\1/p"; }
pair_primary() {
  local node
  for node in a b; do case $(pair_state "$node") in PRIM | ALONE) echo "$node"; return ;; esac; done
  return 1
}
other_node() { [ "$1" = a ] && echo b || echo a; }
pid_of() { cat "$PAIR/$1.pid"; }
kill_node() { kill -9 "$(pid_of "$1")"; }
start_node() { "$ROOT/scripts/pair" restart "$PAIR" "$1"; load_pair; }
pair_is_whole() { [ "$("$KINE2" status --data-dir "$PAIR/a" --node all 2>/dev/null | grep -c 'can fail over now: yes')" = 2 ]; }
wait_until_whole() {
  local tenths
  for tenths in $(seq $PAIR_UP_MAX_TENTHS); do
    pair_is_whole && return
    sleep 0.1
  done
  echo "run: the pair is not in sync after $((PAIR_UP_MAX_TENTHS / 10)) s" >&2
  "$KINE2" status --data-dir "$PAIR/a" --node all >&2
  return 1
}

# strike WHAT: to a pair that is whole
strike() {
  local primary secondary pause="0.$((RANDOM % 10))"
  primary=$(pair_primary) || { echo "run: no node is the primary" >&2; return 1; }
  secondary=$(other_node "$primary")
  case $1 in
  kill-primary) kill_node "$primary"; sleep "$pause"; start_node "$primary" ;;
  kill-secondary) kill_node "$secondary"; sleep "$pause"; start_node "$secondary" ;;
  stop-primary) kill -STOP "$(pid_of "$primary")"; sleep "$((1 + RANDOM % 2)).$((RANDOM % 10))"; kill -CONT "$(pid_of "$primary")" ;;
  swap) "$KINE2" swap --data-dir "$PAIR/$primary" ;;
  *) echo "run: nothing is called $1" >&2; return 2 ;;
  esac
}
