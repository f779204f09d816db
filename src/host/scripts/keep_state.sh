# RUN SIZE CLUSTER: stdin is a tar archive of SIZE bytes: `state` and `record`.
run=$1 size=$2 cluster=$3

begin_work
unpack "$size"
if [ -f "$BASE/record.json" ]; then
  grep -qx "  \"cluster\": \"$cluster\"," "$BASE/record.json" || fail failed "this host belongs to another cluster"
fi
note_found
# In this order: a host that knows a revision also has its state.
keep "$work/state" state.age
keep "$work/record" record.json
echo 'done'
