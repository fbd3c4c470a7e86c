#!/bin/bash
# The program `graph_tool` as its callers see it: answers, messages and exit codes.
# Usage: graph_tool_test.sh GRAPH_TOOL

set -euo pipefail

tool=$1
work=${TEST_TMPDIR:?}
failures=0

cat >"$work/entities.csv" <<'END'
id,type,name,aliases,date,place,source
P1,person,Jonas Vale,,1961,Marn,
P2,person,"Vale, Jonas",,1961-04-02,,
P3,person,Ilse Brandt,,,,
P4,person,Åse Ångholm,,,,
END
cat >"$work/links.csv" <<'END'
id,from,to,kind,strength,date,source
L1,P2,P3,knows,40,,
END

# check NAME EXIT_CODE EXPECTED_OUTPUT ARGUMENT...; the output is both streams, spaces squeezed.
check() {
  local name=$1 code=$2 expected=$3 output status=0
  shift 3
  output=$("$tool" "$@" 2>&1) || status=$?
  output=$(tr -s ' \n' ' ' <<<"$output")
  if [[ $status -ne $code || $output != *"$expected"* ]]; then
    printf '%s: exit code %s (should be %s)\n  is   %s\n  want %s\n' \
      "$name" "$status" "$code" "$output" "$expected" >&2
    failures=$((failures + 1))
  fi
}

data=(--entities "$work/entities.csv" --links "$work/links.csv")

check "index merges duplicates" 0 '"entities": 4, "links": 1, "nodes": 3' index "${data[@]}"
check "index keeps names" 0 '"name": "Åse Ångholm"' index "${data[@]}"
check "path" 0 '"found": true, "by": "hops", "cost": 1, "nodes": [ "P1", "P3" ]' \
  path "${data[@]}" --from P1 --to P3
check "path by strength" 0 '"by": "strength", "cost": 61' \
  path "${data[@]}" --from P3 --to P2 --by strength
check "no path" 0 '"found": false, "by": "hops", "cost": 0, "nodes": [], "edges": []' \
  path "${data[@]}" --from P1 --to P4

check "no command" 2 'graph_tool: no command: `index` or `path`'
check "unknown command" 2 'no command is named `draw`' draw
check "unknown option" 2 '`--from` is not an option here' index "${data[@]}" --from P1
check "missing value" 2 '`--links` needs a value' index --entities x --links
check "missing option" 2 '`--to` is missing' path "${data[@]}" --from P1
check "unknown entity" 2 'no entity has the id `P9`' path "${data[@]}" --from P1 --to P9
check "unknown measure" 2 '`--by` is neither' path "${data[@]}" --from P1 --to P3 --by luck
check "hops out of range" 2 '`--max-hops` is not in 1..64' \
  path "${data[@]}" --from P1 --to P3 --max-hops 0
check "missing file" 1 'cannot open' index --entities "$work/none.csv" --links "$work/links.csv"

printf 'L2,P1,P8,knows,5,,\n' >>"$work/links.csv"
check "bad row" 1 'graph_tool: links.csv:3: no entity has the id `P8`' index "${data[@]}"

[[ $failures -eq 0 ]]
