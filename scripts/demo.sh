#!/bin/sh
# Runs and prints the commands of the demo. Usage: demo.sh data|all
set -eu

run() {
    printf '\n\033[1m$ %s\033[0m\n' "$*"
    "$@"
}

run pile-tools sample demo/shards --megabytes 3 --canaries
run pile-tools dedup near demo/shards -o demo/deduped --protect demo/shards/canaries.json --report demo/deduped.html
run pile-tools train-tokenizer demo/deduped -o demo/tokenizer.json --vocab-size 2048
run pile-tools tokenize demo/deduped -o demo/tokens/sample --tokenizer demo/tokenizer.json
run pile-tools order demo/tokens/sample --seq-length 256 --steps 500 --batch-size 8 --seed 1234
run pile-tools batch demo/tokens --step 100 --row 0
run pile-tools verify demo/tokens
[ "$1" = all ] || exit 0

run cat scripts/demo.toml
run pile-train scripts/demo.toml
run pile-study memorization demo/run -o demo/memorization --rows 256 --canaries demo/shards/canaries.json
run vqgan-clip demo -o demo/pictures
run pile-study report demo/run --memorization demo/memorization --pictures demo/pictures -o demo/report.html
printf '\nOpen demo/report.html in a browser.\n'
# Checks the report and everything it was made from.
run pile-tools verify demo/report.html --chain
