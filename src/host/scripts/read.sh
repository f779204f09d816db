# Prints each file that stdin names, a path a line up to a line `end`: `file SIZE PATH`, its bytes, a line end. Files that are
# not there or too large to be configuration are left out. Writes nothing.
while IFS= read -r path; do
  [ "$path" != end ] || break
  [ -f "$path" ] || continue
  size=$(stat -L -c %s "$path") || continue
  [ "$size" -le 1048576 ] || continue
  printf 'file %s %s\n' "$size" "$path"
  head -c "$size" "$path"
  echo
done
echo end
