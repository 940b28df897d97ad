# Runs named steps one after the other; sourced by scripts/test and tests/full/run.
#
#   step NAME COMMAND...   runs COMMAND unless other names were asked for; its output goes to
#                          target/test-logs/NAME.log, and its last lines here if it fails
#   finish                 prints what passed and what failed, ends with 1 if anything failed
#
# The steps after a failed one still run: one bad thing does not hide another.

LOGS=target/test-logs
ASKED=" $* "
PASSED=0
FAILED=0
FAILED_NAMES=""
STARTED=$(date +%s)

# need TOOL HINT: stops with a clear message if a tool is not there.
need() {
  command -v "$1" >/dev/null 2>&1 || { echo "$0: $1 is not there: $2" >&2; exit 2; }
}

need_tools() {
  need cargo "install Rust (https://rustup.rs)"
  need cc "install a C compiler (Debian: apt-get install gcc libc6-dev)"
  need go "install Go (https://go.dev/dl): real etcd and Kubernetes clients are built with it"
  need git "install git (Debian: apt-get install git)"
}

step() {
  name=$1
  shift
  case "$ASKED" in
    "  " | *" $name "*) ;;
    *) return 0 ;;
  esac
  mkdir -p "$LOGS"
  log=$LOGS/$name.log
  begun=$(date +%s)
  printf '== %s: %s\n' "$name" "$*"
  if "$@" >"$log" 2>&1; then
    PASSED=$((PASSED + 1))
    # What the runners say themselves about how many tests they ran.
    grep -E '^(test result: ok|ok  |PASS|[0-9]+ passed)' "$log" | grep -v ' 0 passed; 0 failed' | tail -n 40 || true
    printf '   %s ok, %ss\n' "$name" $(($(date +%s) - begun))
  else
    code=$?
    FAILED=$((FAILED + 1))
    FAILED_NAMES="$FAILED_NAMES $name"
    tail -n 60 "$log"
    printf '   %s FAILED with %s, %ss; all of it is in %s\n' "$name" "$code" $(($(date +%s) - begun)) "$log"
  fi
}

finish() {
  [ "$((PASSED + FAILED))" -gt 0 ] || { echo "$0: there is no step of that name" >&2; exit 2; }
  [ "$FAILED" = 0 ] || printf 'failed:%s\n' "$FAILED_NAMES"
  printf 'steps, in %ss:\n' $(($(date +%s) - STARTED))
  printf '%s passed, %s failed\n' "$PASSED" "$FAILED"
  [ "$FAILED" = 0 ]
}
