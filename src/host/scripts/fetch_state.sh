# Prints the sealed state after a line that says whether there is one.
if [ -f "$BASE/state.age" ]; then
  echo state
  cat "$BASE/state.age"
else
  echo none
fi
